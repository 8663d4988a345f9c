"""The FastGAN generator against stored outputs of the public one, and its parts by formula.

Golden tolerances: images 1e-5 absolute, gradients 2e-4 relative, batch statistics 1e-4 relative.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastgan_golden import (
    CONFIG,
    NOISE,
    every_fourth,
    golden,
    official_generator,
    weights,
    zero_noise,
)

from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.priors.fastgan_layers import (
    SpectralConv2d,
    SpectralStart,
    advance_spectral_norm,
    glu,
    up_kernel,
)

pytestmark = pytest.mark.kernels

SIDES = (64, 128, 256, 512, 1024)


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def generator():
    return official_generator()


def small_generator(resolution, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FastGANGenerator(FastGANConfig(resolution, ngf=8, z_dim=16, **options))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_without_noise_are_the_official_ones(generator, layout):
    with torch.no_grad():
        big, small = generator.to(memory_format=layout)(golden("z"), zero_noise(CONFIG))
    assert big.shape == (2, 3, 256, 256)
    assert small.shape == (2, 3, 128, 128)
    assert (every_fourth(big) - golden("g_big_zero_noise")).abs().max() < 1e-5
    assert (every_fourth(small) - golden("g_small_zero_noise")).abs().max() < 1e-5


def test_images_and_the_gradient_with_noise_are_the_official_ones(generator):
    z = golden("z").requires_grad_()
    big, small = generator(z, [golden(name) for name in NOISE])
    assert (every_fourth(big[:1]) - golden("g_big_noise_sample0")).abs().max() < 1e-5
    assert (every_fourth(small) - golden("g_small_noise")).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(small, z, golden("g_small_cot"))
    assert relative(gradient, golden("g_grad_z")) < 2e-4


def test_a_forward_in_training_is_the_official_one(generator):
    """One power iteration, batch statistics, and the buffers that come out of it."""
    generator.train()
    advance_spectral_norm(generator)
    with torch.no_grad():
        _, small = generator(golden("z"), zero_noise(CONFIG))
    assert relative(every_fourth(small), golden("g_small_train_mode")) < 1e-4
    state, expected = generator.state_dict(), weights("after_train_G.")
    kinds = ("weight_u", "running_mean", "running_var", "num_batches_tracked")
    assert set(expected) == {k for k in state if k.endswith(kinds)}
    errors = {k: (state[k] - v).abs().max().item() for k, v in expected.items()}
    assert max(errors.values()) < 1e-4, max(errors, key=errors.get)


def test_running_the_network_changes_no_spectral_norm(generator):
    """Power iterations are asked for: a part that is computed again gives the same result."""
    before = {k: v.clone() for k, v in generator.state_dict().items() if "weight_" in k}
    generator.train()(golden("z"), zero_noise(CONFIG))
    assert all(torch.equal(generator.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("resolution", SIDES)
def test_every_resolution_gives_two_images(resolution):
    """The small image has 128 px, but half of the resolution where that is less."""
    generator = small_generator(resolution)
    noise = [torch.zeros(1, 1, *shape) for shape in generator.config.noise_shapes]
    with torch.no_grad():
        big, small = generator(torch.randn(2, 16), noise)
    assert big.shape == (2, 3, resolution, resolution)
    assert small.shape[2] == {64: 32, 128: 64}.get(resolution, 128)
    gates = {64: 1, 128: 2, 256: 3, 512: 4, 1024: 4}[resolution]
    assert generator.config.num_ws == 1 + gates
    assert sum(name.startswith("se_") for name, _ in generator.named_children()) == gates


def test_images_are_bounded_at_1024_px_only():
    for resolution, bounded in ((512, False), (1024, True)):
        generator = small_generator(resolution)
        generator.to_big.weight_v.div_(1e6)  # a smaller norm: larger images
        with torch.no_grad():
            big, _ = generator(torch.ones(1, 16), zero_noise(generator.config))
        assert (big.abs().max() <= 1) == bounded


def test_the_network_of_256_px_has_the_published_size():
    """29.1 million parameters with the default widths (as counted in the public code)."""
    generator = FastGANGenerator(FastGANConfig(256))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == 29.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resolution": 32}, "resolution is 32"),
        ({"resolution": 96}, "resolution is 96"),
        ({"resolution": 256, "ngf": 1}, "below 1"),
        ({"resolution": 64, "z_dim": 0}, "below 1"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        FastGANConfig(**fields)


def test_a_missing_noise_map_is_refused(generator):
    with pytest.raises(ValueError, match="5 noise maps, expected 6"):
        generator(golden("z"), zero_noise(CONFIG)[:-1])


def test_recomputing_the_blocks_gives_the_same_gradients():
    """Bit for bit on a CPU, in training mode."""
    gradients = []
    for recompute in (False, True):
        generator = small_generator(64).train()
        generator.recompute = recompute
        z = torch.linspace(-1, 1, 64).view(4, 16)
        big, small = generator(z, zero_noise(generator.config))
        (big.square().sum() + small.square().sum()).backward()
        gradients.append([p.grad for p in generator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# layers, by formula in float64


def test_the_doubling_kernel_is_repeating_pixels_and_then_convolving():
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, 6, generator=rng, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, generator=rng, dtype=torch.float64)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(doubled, weight, padding=1)
    actual = F.conv_transpose2d(x, up_kernel(weight), stride=2, padding=1)
    assert (actual - expected).abs().max() < 1e-12


@pytest.mark.parametrize(("kind", "sizes"), [(SpectralConv2d, (6, 5, 3)), (SpectralStart, (6, 5))])
def test_the_weight_is_divided_by_its_largest_singular_value(kind, sizes):
    """After many power iterations; the matrix has one row for each output channel."""
    layer = kind(*sizes).double()
    for _ in range(500):
        layer.advance()
    transposed = isinstance(layer, SpectralStart)
    matrix = layer.weight.transpose(0, 1) if transposed else layer.weight
    values = torch.linalg.svdvals(matrix.reshape(5, -1))
    assert abs(values[0].item() - 1) < 1e-9


def test_the_gradient_goes_through_the_spectral_norm():
    """That of `W / (u' W v)` with u and v held: `C / sigma - <C, W> u v' / sigma^2`."""
    layer = SpectralConv2d(2, 3, 1).double()
    u, v = layer.weight_u, layer.weight_v
    cotangent = torch.arange(6.0, dtype=torch.float64).view(3, 2, 1, 1)
    (ours,) = torch.autograd.grad(layer.weight, layer.weight_orig, cotangent)
    w, c = layer.weight_orig.detach()[:, :, 0, 0], cotangent[:, :, 0, 0]
    sigma = u @ w @ v
    expected = c / sigma - (c * w).sum() * torch.outer(u, v) / sigma**2
    assert (ours[:, :, 0, 0] - expected).abs().max() < 1e-9 * expected.abs().max()


def test_glu_multiplies_the_first_half_by_the_gates():
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    assert (glu(x) - F.glu(x, dim=1)).abs().max() < 1e-6
