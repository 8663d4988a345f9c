"""The StyleGAN2 generator against stored outputs of the official one, and as a prior.

Golden tolerances: styles 1e-5 relative, images 4e-5 absolute, gradients 5e-5 relative.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pulse_sr.priors.base import LatentStatistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.training.gan.stylegan2_objective import StyleGAN2Objective

pytestmark = pytest.mark.kernels

FOLDER = Path(__file__).parent / "data"
GOLDEN = np.load(FOLDER / "stylegan2_tiny.npz", allow_pickle=False)
CONFIG = StyleGAN2Config.from_base(32, channel_base=512, channel_max=32, w_dim=32, mapping_layers=8)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def official_generator():
    """The official weights under their official names; the FIR filters are constants here."""
    tensors = load_file(FOLDER / "stylegan2_tiny.safetensors")
    weights = {k[2:]: v for k, v in tensors.items() if k.startswith("G.")}
    weights = {k: v for k, v in weights.items() if not k.endswith("resample_filter")}
    generator = Generator(CONFIG)
    generator.load_state_dict(weights, strict=True)
    return generator.eval()


@pytest.fixture
def generator():
    return official_generator()


@pytest.fixture(scope="module")
def prior():
    statistics = LatentStatistics(torch.zeros(32), torch.ones(32), torch.eye(32), 1)
    return StyleGAN2Prior("tiny", official_generator(), statistics)


@pytest.mark.parametrize(
    ("name", "options"),
    [("ws_psi1", {}), ("ws_trunc", {"psi": 0.7}), ("ws_trunc_cutoff", {"psi": 0.7, "cutoff": 4})],
)
def test_mapping_and_truncation_are_the_official_ones(generator, name, options):
    w = generator.mapping(golden("z"))
    ws = generator.mapping.truncate(w, CONFIG.num_ws, **options)
    assert relative(ws, golden(name)) < 1e-5


@pytest.mark.parametrize(
    ("styles", "image", "noisy"),
    [
        ("ws_psi1", "img_psi1_const", True),
        ("ws_psi1", "img_psi1_none", False),
        ("ws_trunc", "img_trunc_const", True),
    ],
)
def test_images_are_the_official_ones(generator, styles, image, noisy):
    maps = generator.synthesis.fixed_noise()
    found = generator.synthesis(golden(styles), maps if noisy else [None] * len(maps))
    assert (found - golden(image)).abs().max() < 4e-5


def test_forward_is_mapping_and_synthesis_with_the_fixed_noise(generator):
    assert (generator(golden("z")) - golden("img_psi1_const")).abs().max() < 4e-5


def test_every_block_gives_the_official_features_and_running_rgb(generator):
    features, images = {}, {}

    def record(block, original):
        def add_rgb(image, x, w):
            features[block.side], images[block.side] = x, original(image, x, w)
            return images[block.side]

        return add_rgb

    for block in generator.synthesis.blocks:
        block.add_rgb = record(block, block.add_rgb)
    generator.synthesis(golden("ws_psi1"), generator.synthesis.fixed_noise())
    for side in (4, 8):
        assert (features[side] - golden(f"feat_b{side}")).abs().max() < 4e-5
    for side in (4, 8, 16):
        assert (images[side] - golden(f"skip_b{side}")).abs().max() < 4e-5


def test_gradients_of_styles_and_of_every_parameter_are_the_official_ones(generator):
    ws = golden("ws_psi1").clone().requires_grad_()
    image = generator.synthesis(ws, generator.synthesis.fixed_noise())
    (image * golden("grad_cot")).sum().backward()
    assert relative(ws.grad, golden("grad_ws")) < 5e-5
    stored = {name[len("gradG.") :] for name in GOLDEN.files if name.startswith("gradG.")}
    parameters = {f"synthesis.{k}": v for k, v in generator.synthesis.named_parameters()}
    assert stored == set(parameters)
    errors = {k: relative(v.grad, golden(f"gradG.{k}")) for k, v in parameters.items()}
    assert max(errors.values()) < 5e-5, max(errors, key=errors.get)


def test_path_lengths_are_the_official_ones(generator):
    ws = golden("ws_psi1").clone().requires_grad_()
    image = generator.synthesis(ws, generator.synthesis.fixed_noise())
    (gradient,) = torch.autograd.grad((image * golden("grad_cot") / 32).sum(), ws)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    assert relative(lengths, golden("pl_lengths")) < 5e-5


def test_training_moves_the_mean_style_as_the_official_one_does(generator):
    generator.mapping.w_avg.copy_(golden("wavg_before"))
    objective = StyleGAN2Objective(StyleGAN2Config(8, 8, 8, 1, (8, 8)))
    objective.generator = generator
    z = golden("wavg_update_z")
    objective.observe({"z": torch.stack([z, -z], dim=1)})
    assert relative(generator.mapping.w_avg, golden("wavg_after")) < 1e-5


# configuration


@pytest.mark.parametrize("resolution", [4, 0, 48, 33])
def test_the_resolution_is_a_power_of_two_from_8_up(resolution):
    with pytest.raises(ValueError, match=f"resolution is {resolution}, expected a power of two"):
        StyleGAN2Config(resolution, 16, 16, 2, (8, 8))


def test_every_feature_map_has_its_width():
    with pytest.raises(ValueError, match="2 widths for 4 feature maps"):
        StyleGAN2Config(32, 16, 16, 2, (8, 8))


def test_the_official_width_rule():
    config = StyleGAN2Config.from_base(1024)
    assert config.channels == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert config.sides == (4, 8, 16, 32, 64, 128, 256, 512, 1024)
    assert config.num_ws == 18


def test_the_configuration_survives_json():
    fields = CONFIG.to_json()
    assert fields["channels"] == list(CONFIG.channels)
    assert StyleGAN2Config(**fields | {"channels": tuple(fields["channels"])}) == CONFIG


# as a prior


def test_the_prior_synthesizes_in_the_range_0_to_1(prior):
    """The generator's [-1, 1] becomes [0, 1]; nothing is clamped."""
    image = prior.synthesize(golden("ws_psi1"))
    assert (image - (golden("img_psi1_const") + 1) / 2).abs().max() < 2e-5
    assert image.min() < 0
    assert image.max() > 1
    assert image.dtype == torch.float32


def test_given_noise_replaces_the_fixed_maps(prior):
    zeros = [torch.zeros(2, 1, *shape) for shape in prior.noise_shapes]
    image = prior.synthesize(golden("ws_psi1"), zeros)
    assert (image - (golden("img_psi1_none") + 1) / 2).abs().max() < 2e-5
    assert prior.noise_shapes == ((4, 4), (8, 8), (8, 8), (16, 16), (16, 16), (32, 32), (32, 32))


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_a_zero_offset_is_no_offset(prior, side):
    zero = torch.zeros(2, *prior.feature_shape(side))
    ws = golden("ws_psi1")
    assert torch.equal(prior.synthesize(ws, feature_deltas={side: zero}), prior.synthesize(ws))


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_an_offset_is_added_to_the_feature_map_of_its_side(prior, side):
    """The block's own output moves by it, earlier blocks do not, the image does."""
    found = {}
    blocks = prior.generator.synthesis.blocks
    hooks = [
        b.register_forward_hook(lambda b, _, output: found.setdefault(b.side, []).append(output[0]))
        for b in blocks
    ]
    rng = torch.Generator().manual_seed(side)
    feature_delta = torch.randn(2, *prior.feature_shape(side), generator=rng)
    ws = golden("ws_psi1")
    plain, moved = prior.synthesize(ws), prior.synthesize(ws, feature_deltas={side: feature_delta})
    for hook in hooks:
        hook.remove()
    for block_side, (before, after) in found.items():
        if block_side < side:
            assert torch.equal(before, after)
        elif block_side == side:
            assert torch.equal(after, before + feature_delta)
    assert (moved - plain).abs().max() > 0.01


def test_a_missing_feature_map_is_refused(prior):
    assert prior.feature_shape(8) == (32, 8, 8)
    with pytest.raises(ValueError, match=r"no feature map of side 7, expected one of \(4, 8, 16"):
        prior.feature_shape(7)


@pytest.mark.parametrize("missing", ["noise", "rows"])
def test_too_few_noise_maps_or_rows_are_refused(prior, missing):
    noise = [torch.zeros(1, 1, *shape) for shape in prior.noise_shapes]
    ws = golden("ws_psi1")
    ws, noise = (ws, noise[:-1]) if missing == "noise" else (ws[:, :-2], noise)
    with pytest.raises(ValueError, match=r"style rows and \d noise maps, expected"):
        prior.synthesize(ws, noise)


def test_a_prior_is_frozen(prior):
    assert not any(p.requires_grad for p in prior.generator.parameters())
    assert not prior.generator.training


def test_a_sample_depends_on_its_seed_alone(prior):
    images = prior.sample([3, 4, 5])
    assert images.shape == (3, 3, 32, 32)
    assert images.min() == 0
    assert images.max() == 1
    assert torch.equal(prior.sample([3, 4, 5]), images)
    assert torch.equal(prior.sample([3, 11, 12])[0], images[0])
    assert torch.equal(prior.sample([12, 11, 5])[2], images[2])
    assert (images[0] - images[1]).abs().mean() > 0.05


def test_bfloat16_gives_nearly_the_same_float32_image(prior):
    """Within 2 % of the range in the mean (three decimal digits in every layer)."""
    ws = golden("ws_psi1")
    exact = prior.synthesize(ws)
    prior.bf16 = True
    try:
        rounded = prior.synthesize(ws)
    finally:
        prior.bf16 = False
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.02 * (exact.max() - exact.min())
