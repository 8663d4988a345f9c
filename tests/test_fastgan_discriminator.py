"""The FastGAN discriminator against stored outputs of the public one.

Golden tolerances: logits and reconstructions 1e-5 absolute, gradients 2e-4 relative, batch
statistics 1e-4 relative. The stored logits are those of our own images, which differ from the
official ones by less than 1e-5 (test_fastgan.py).
"""

from __future__ import annotations

import pytest
import torch
from fastgan_golden import (
    CONFIG,
    every_fourth,
    golden,
    interleave,
    official_discriminator,
    official_generator,
    weights,
    zero_noise,
)

from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.training.gan.fastgan_discriminator import FastGANDiscriminator, quarter_of

QUARTERS = torch.tensor([0, 1])


@pytest.fixture
def discriminator():
    return official_discriminator()


@pytest.fixture(scope="module")
def images():
    with torch.no_grad():
        return official_generator()(golden("z"), zero_noise(CONFIG))


def small_discriminator(resolution, ndf=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FastGANDiscriminator(FastGANConfig(resolution, ngf=8), ndf)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_logits_are_the_official_ones(discriminator, images, layout):
    with torch.no_grad():
        logits, nothing = discriminator.to(memory_format=layout)(*images)
    assert logits.shape == (2, 50)
    assert (logits - interleave(golden("d_logits"))).abs().max() < 1e-5
    assert nothing is None


def test_without_a_small_image_it_is_every_second_pixel(discriminator, images):
    with torch.no_grad():
        logits, _ = discriminator(images[0])
    assert (logits - interleave(golden("d_logits_single_tensor_input"))).abs().max() < 1e-5


@pytest.mark.parametrize("quarter", range(4))
def test_reconstructions_are_the_official_ones(discriminator, images, quarter):
    with torch.no_grad():
        _, decoded = discriminator(*images, torch.tensor([quarter, 3 - quarter]))
    stored = {
        "d_rec_big_sample0": decoded.whole[:1],
        "d_rec_small_sample1": decoded.small[1:],
        f"d_rec_part{quarter}_sample0": decoded.quarter[:1],
    }
    for name, image in stored.items():
        assert (every_fourth(image) - golden(name)).abs().max() < 1e-5, name


def test_gradients_are_the_official_ones(discriminator, images):
    logits, _ = discriminator(*images)
    torch.relu(1 - logits).mean().backward()
    parameters = dict(discriminator.named_parameters())
    for name in ("down_from_big.0", "rf_small", "rf_big.3", "se_2_16.main.1"):
        expected = golden(f"d_hinge_grad.{name}.weight_orig")
        error = (parameters[f"{name}.weight_orig"].grad - expected).abs().max()
        assert error < 2e-4 * expected.abs().max(), name


def test_a_forward_in_training_is_the_official_one(discriminator, images):
    """One power iteration, batch statistics, and the buffers that come out of it."""
    discriminator.train()
    advance_spectral_norm(discriminator)
    with torch.no_grad():
        logits, _ = discriminator(*images)
    expected = interleave(golden("d_logits_train_mode"))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    state = discriminator.state_dict()
    # The stored forward judged generated images: the decoders did not take part.
    stored = {k: v for k, v in weights("after_train_D.").items() if "decoder" not in k}
    kinds = ("weight_u", "running_mean", "running_var", "num_batches_tracked")
    assert set(stored) == {k for k in state if k.endswith(kinds) and "decoder" not in k}
    for name, value in stored.items():
        error = (state[name] - value).abs().max()
        assert error <= 1e-4 * max(1, value.abs().max()), name


@pytest.mark.parametrize(
    ("resolution", "gates", "decoded_side"),
    [(64, 1, 32), (128, 2, 64), (256, 3, 128), (512, 3, 128), (1024, 3, 128)],
)
def test_every_resolution_has_25_windows_a_branch(resolution, gates, decoded_side):
    """Both branches end at 8 px; a decoder gives images of the small side."""
    network = small_discriminator(resolution)
    with torch.no_grad():
        logits, decoded = network(torch.zeros(2, 3, resolution, resolution), quarter=QUARTERS)
    assert logits.shape == (2, 50)
    assert {image.shape for image in decoded} == {(2, 3, decoded_side, decoded_side)}
    assert sum(name.startswith("se_") for name, _ in network.named_children()) == gates


def test_the_network_of_256_px_has_the_published_size():
    """11.5 million parameters with the default widths (as counted in the public code)."""
    network = FastGANDiscriminator(FastGANConfig(256))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 11.5


def test_too_narrow_a_network_is_refused():
    with pytest.raises(ValueError, match="ndf is 4, too small for 1024 px"):
        small_discriminator(1024, ndf=4)


def test_quarters_are_cut_for_each_image():
    x = torch.arange(4.0 * 16).view(4, 1, 4, 4)
    cut = quarter_of(x, torch.arange(4))
    for i, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        assert torch.equal(cut[i], x[i, :, top : top + 2, left : left + 2])


def test_stages_go_from_the_image_inwards_and_hold_both_branches():
    """64 px: three halvings in the big branch, two in the small one, whose first is its input."""
    network = small_discriminator(64)
    stages = [{id(p) for p in stage.parameters()} for stage in network.stages()]
    assert len(stages) == 4
    named = {name: id(p) for name, p in network.named_parameters()}
    assert named["down_from_big.0.weight_orig"] in stages[0]
    assert named["down_from_small.0.weight_orig"] in stages[0]
    assert named["down_16.main.0.weight_orig"] in stages[1]
    assert named["down_from_small.2.main.0.weight_orig"] in stages[1]
    assert named["down_64.main.0.weight_orig"] in stages[3]
    assert len(set.union(*stages)) == sum(map(len, stages))


def test_recomputing_the_blocks_gives_the_same_gradients():
    """Bit for bit on a CPU, in training mode."""
    image = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    gradients = []
    for recompute in (False, True):
        network = small_discriminator(64).train()
        network.recompute = recompute
        logits, decoded = network(image, quarter=QUARTERS)
        (logits.sum() + sum(each.square().sum() for each in decoded)).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
