"""FastGAN after training: statistics estimated again, normalisations folded, a prior to search.

A folded network equals the training network in evaluation mode within 1e-5 in float32 (1e-12 in
float64); the stored images are those of the public network with a tolerance of 1e-5.
"""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from fastgan_golden import CONFIG, NOISE, every_fourth, golden, official_generator, zero_noise

from pulse_sr.api import super_resolve
from pulse_sr.cli import main
from pulse_sr.models import registry
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.priors.fastgan_folding import fold
from pulse_sr.priors.fastgan_prior import FastGANPrior
from pulse_sr.priors.files import FILE_NAME, read_header, read_prior, save_prior
from pulse_sr.priors.recalibration import recalibrate
from pulse_sr.priors.statistics import standard_statistics
from pulse_sr.search.engine import Best, search, started
from pulse_sr.search.latents import diagonal_map, full_map
from pulse_sr.search.phased import Phased
from pulse_sr.search.pulse import Pulse

pytestmark = pytest.mark.kernels


def trained_generator(resolution=64, ngf=8, dtype=torch.float32, batches=3):
    """Random weights with noise that matters, and statistics of a few batches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = FastGANGenerator(FastGANConfig(resolution, ngf, z_dim=16)).to(dtype)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if parameter.shape == (1,):
                parameter.fill_(0.3 if name.endswith("2.weight") else -0.2)
        # An untrained network ends in almost nothing.
        generator.to_big.weight_v.div_(2)
    recalibrate(generator, batches=batches, batch=4)
    return generator


def prior_of(generator, name="tiny"):
    return FastGANPrior(name, fold(generator), standard_statistics(generator.config.z_dim))


@pytest.fixture(scope="module")
def prior():
    return prior_of(trained_generator())


def draws(config, count, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    noise = [torch.randn(count, 1, *s, generator=rng, dtype=dtype) for s in config.noise_shapes]
    return torch.randn(count, config.z_dim, generator=rng, dtype=dtype), noise


# statistics of batch norm


def test_the_statistics_are_those_of_all_batches_together():
    """Mean and variance of what enters each batch norm, over three batches laid side by side."""
    generator = trained_generator(dtype=torch.float64)
    norms = {k: m for k, m in generator.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    seen = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    rng = torch.Generator().manual_seed(5)
    generator.train()
    for _ in range(3):
        z = torch.randn(4, 16, generator=rng).double()
        noise = [torch.randn(4, 1, *s, generator=rng) for s in generator.config.noise_shapes]
        with torch.no_grad():
            generator(z, [each.double() for each in noise])
    expected = {name: torch.cat(each) for name, each in seen.items()}
    recalibrate(generator, batches=3, batch=4, seed=5)
    assert len(norms) == 7
    for name, norm in norms.items():
        x = expected[name]
        assert (norm.running_mean - x.mean(dim=[0, 2, 3])).abs().max() < 1e-12
        assert (norm.running_var - x.var(dim=[0, 2, 3], correction=0)).abs().max() < 1e-12
    assert not generator.training


def test_weights_do_not_change_when_statistics_do():
    generator = trained_generator()
    before = {k: v.clone() for k, v in generator.state_dict().items() if "running" not in k}
    recalibrate(generator, batches=2, batch=4, seed=1)
    after = generator.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if "tracked" not in k)


# folding


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_folded_network_equals_the_one_in_evaluation_mode(dtype, tolerance):
    generator = trained_generator(dtype=dtype)
    z, noise = draws(generator.config, 3, dtype=dtype)
    folded = fold(generator)
    with torch.no_grad():
        expected, _ = generator(z, noise)
        *_, (_, features) = folded.features(z[None], noise)
        image = folded.to_big(features)
    assert expected.abs().max() > 0.1
    assert (image - expected).abs().max() < tolerance


def test_the_folded_network_draws_the_official_images():
    prior = prior_of(official_generator())
    w = golden("z")[:, None].expand(-1, prior.num_ws, -1)
    expected = golden("g_big_zero_noise") * 0.5 + 0.5
    images = prior.synthesize(w, zero_noise(CONFIG))
    assert (every_fourth(images) - expected).abs().max() < 1e-5
    noisy = prior.synthesize(w[:1], [golden(name)[:1] for name in NOISE])
    assert (every_fourth(noisy) - (golden("g_big_noise_sample0") * 0.5 + 0.5)).abs().max() < 1e-5


def test_no_normalisation_is_left(prior):
    kinds = {type(module).__name__ for module in prior.generator.modules()}
    assert not any("Norm" in kind or "Spectral" in kind for kind in kinds)


# the prior


def test_an_image_does_not_depend_on_its_batch(prior):
    """Within float32 rounding of a convolution of another batch size."""
    w = torch.randn(5, prior.num_ws, 16, generator=torch.Generator().manual_seed(1))
    together = prior.synthesize(w)
    alone = torch.cat([prior.synthesize(each) for each in w.split(1)])
    assert (together - alone).abs().max() < 1e-5
    assert together.std(dim=0).max() > 0.01


def test_the_style_is_the_latent_itself(prior):
    z = torch.randn(3, 16)
    assert torch.equal(prior.map(z), z)
    u = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(1))
    for to_style in (diagonal_map(prior.statistics), full_map(prior.statistics)):
        assert (to_style(u) - u).abs().max() < 1e-6


@pytest.mark.parametrize("resolution", [64, 256, 512])
def test_equal_rows_give_the_plain_generator(resolution):
    """Rows that are stored apart take the long way: each gate by its own trunk.

    In float64, of which the images are roundings to float32: two of these lie within 2^-23 of the
    largest value. (In float32 the rounding inside, up to 2e-5 at a largest value of 7, is as large
    as this machine's order of sums makes it.)
    """
    prior = prior_of(trained_generator(resolution, batches=1).double())
    z, noise = draws(prior.generator.config, 2, dtype=torch.float64)
    shared = z[:, None].expand(-1, prior.num_ws, -1)
    apart = shared.contiguous()
    feature_deltas = {r: 0.1 * z.new_ones(2, *prior.feature_shape(r)) for r in (8, 32, resolution)}
    for each in (None, feature_deltas):
        plain, long = (prior.synthesize(w, noise, each) for w in (shared, apart))
        assert (plain - long).abs().max() <= 2**-23 * plain.abs().max()


def test_each_row_drives_its_own_gate():
    """Row k of two changes is row k of each alone; the image is the trunk's times the gate."""
    generator = trained_generator(128, dtype=torch.float64)
    prior = prior_of(generator)
    z, noise = draws(generator.config, 3, dtype=torch.float64)
    noise = [each[:1] for each in noise]
    image = prior.synthesize(z[None], noise)
    with torch.no_grad():
        features = [dict(generator.features(each[None, None], noise)) for each in z]
        x = generator.feat_64(features[0][32]) * generator.se_64(features[1][4])
        x = generator.feat_128(x, noise[4:]) * generator.se_128(features[2][8])
        expected = generator.to_big(x) * 0.5 + 0.5
    assert (image - expected).abs().max() < 1e-6  # the image leaves as float32


def test_only_the_trunk_runs_up_to_the_resolution(prior):
    """The gates' trunks end where the gates begin: few maps pass the blocks above."""
    sizes = {}
    for side in (8, 16, 32, 64):
        block = getattr(prior.generator, f"feat_{side}")
        block.register_forward_hook(lambda _, i, y, side=side: sizes.update({side: len(y)}))
    prior.synthesize(torch.randn(3, prior.num_ws, 16))
    assert sizes == {8: 3, 16: 3, 32: 3, 64: 3}
    wide = prior_of(trained_generator(256, batches=1))
    for side in (8, 16, 32, 64):
        block = getattr(wide.generator, f"feat_{side}")
        block.register_forward_hook(lambda _, i, y, side=side: sizes.update({side: len(y)}))
    wide.synthesize(torch.randn(3, wide.num_ws, 16))
    assert sizes == {8: 9, 16: 6, 32: 3, 64: 3}


@pytest.mark.parametrize("side", [4, 8, 16, 32, 64])
def test_an_offset_is_added_to_the_feature_map(prior, side):
    """Against the network run from there on, by hand; the gate of 64 px begins at 4."""
    generator = prior.generator
    z, noise = draws(generator.config, 2)
    feature_delta = torch.randn(
        2, *prior.feature_shape(side), generator=torch.Generator().manual_seed(3)
    )
    maps = dict(generator.features(z[None], noise))
    x = maps[side] + feature_delta
    gate = generator.se_64(x if side == 4 else maps[4])
    following = {8: noise[:2], 16: [], 32: noise[2:], 64: []}
    for r in (r for r in (8, 16, 32, 64) if r > side):
        x = getattr(generator, f"feat_{r}")(x, following[r])
        x = x * gate if r == 64 else x
    expected = generator.to_big(x) * 0.5 + 0.5
    image = prior.synthesize(z[:, None].expand(-1, 2, -1), noise, {side: feature_delta})
    assert (image - expected).abs().max() < 1e-5


def test_what_does_not_fit_is_refused(prior):
    w = torch.zeros(1, prior.num_ws, 16)
    with pytest.raises(ValueError, match="3 style rows, expected 2"):
        prior.synthesize(torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match="1 noise maps, expected 4"):
        prior.synthesize(w, [torch.zeros(1, 1, 8, 8)])
    with pytest.raises(ValueError, match="no feature map of side 128"):
        prior.synthesize(w, feature_deltas={128: torch.zeros(1)})


def test_gradients_reach_rows_noise_and_offsets_but_no_weight(prior):
    w = torch.randn(2, prior.num_ws, 16).requires_grad_()
    noise = [torch.randn(2, 1, *s).requires_grad_() for s in prior.noise_shapes]
    feature_delta = torch.zeros(2, *prior.feature_shape(16)).requires_grad_()
    prior.synthesize(w, noise, {16: feature_delta}).square().sum().backward()
    for each in (w[:, 0], w[:, 1]):
        assert each.detach().isfinite().all()
    assert (w.grad.abs().sum(dim=[0, 2]) > 0).all()
    assert all(each.grad.abs().max() > 0 for each in [*noise, feature_delta])
    assert all(parameter.grad is None for parameter in prior.generator.parameters())


def test_bfloat16_stays_near_float32(prior):
    """3 decimal digits a layer: within 0.05 of images whose range is about 1; float32 comes out."""
    w = torch.randn(2, prior.num_ws, 16, generator=torch.Generator().manual_seed(4))
    exact = prior.synthesize(w)
    prior.bf16 = True
    try:
        rounded = prior.synthesize(w)
    finally:
        prior.bf16 = False
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


# files


@pytest.fixture
def path(tmp_path, prior):
    prior.card = {"licence": "CC0", "data": "nothing"}
    save_prior(tmp_path / FILE_NAME, prior)
    return tmp_path / FILE_NAME


def test_a_prior_comes_back_bit_for_bit(path, prior):
    read = read_prior(path)
    assert isinstance(read, FastGANPrior)
    written = prior.generator.state_dict()
    assert all(torch.equal(v, written[k]) for k, v in read.generator.state_dict().items())
    assert torch.equal(read.sample([3, 4]), prior.sample([3, 4]))
    assert read.statistics.slope == 1
    assert torch.equal(read.statistics.cholesky, torch.eye(16))
    assert read.card == {"architecture": "fastgan", "licence": "CC0", "data": "nothing"}


def test_the_header_describes_it(path):
    header = read_header(path)
    assert header["architecture"] == "fastgan"
    assert header["config"] == {"resolution": 64, "ngf": 8, "z_dim": 16}
    assert header["latents"] == {"count": 0, "slope": 1.0}


def test_half_precision_is_near(tmp_path, prior):
    """Weights rounded once to 11 bits."""
    path = tmp_path / "half.safetensors"
    save_prior(path, prior, torch.float16)
    assert (read_prior(path).sample([1]) - prior.sample([1])).abs().max() < 0.01


def test_its_card_is_shown(path):
    assert registry.load(path).licence == "CC0"
    result = CliRunner().invoke(main, ["prior", "info", str(path.parent), "--json"])
    assert result.exit_code == 0, result.output
    card = json.loads(result.output)
    assert (card["architecture"], card["resolution"]) == ("fastgan", 64)


# search


@pytest.mark.parametrize("method", ["pulse", "phased"])
def test_a_search_finds_an_image_of_its_own(prior, method):
    """From 8 px of a sample of the prior: the error falls by 3 dB or more."""
    operator = make_operator("bicubic", 8, 64)
    target = operator(prior.sample([77])).clamp(0, 1)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    if method == "pulse":
        to_style = diagonal_map(prior.statistics)
        searched = Pulse.with_slots(prior, to_style, 2, 20)
    else:
        searched = Phased(prior, full_map(prior.statistics), operator, 8, 2, 20)
    started(searched, generators, target)
    best = Best(target_mse=0.0)
    records = [r.best_db.min().item() for r in search(searched, operator, target, best)]
    assert records[-1] > records[0] + 3
    # Rows are apart: each has moved on its own.
    assert (searched.w[:, 0] - searched.w[:, 1]).detach().abs().max() > 0.01


def test_a_prior_file_serves_the_whole_path(path, prior):
    """The results of a picture that the prior has drawn agree with it to 45 dB or more."""
    low = make_operator("bicubic", 8, 64)(prior.sample([5])).clamp(0, 1)[0]
    pixels = (low * 255).round().byte().numpy()
    options = {"method": "pulse", "samples": 2, "steps": 10, "device": "cpu"}
    result = super_resolve(pixels, read_prior(path), **options)
    assert [sample.pixels.shape for sample in result.samples_list] == [(3, 64, 64)] * 2
    assert min(sample.lr_psnr for sample in result.samples_list) > 45
