"""Prior files: what goes in comes out, damage is said in one line, statistics are right."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import resource
from types import SimpleNamespace

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from toy_priors import LinearPrior

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.priors.files import FILE_NAME, read_header, read_prior, save_prior
from pulse_sr.priors.statistics import fit_statistics, standard_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior

CONFIG = StyleGAN2Config(16, 16, 16, 2, (8, 8, 4))
CARD = {"licence": "CC0", "data": "nothing", "training": {"images": 0}}


@pytest.fixture(scope="module")
def generator():
    state = torch.get_rng_state()
    torch.manual_seed(0)
    generator = Generator(CONFIG)
    torch.set_rng_state(state)
    return generator


@pytest.fixture(scope="module")
def statistics(generator):
    return fit_statistics(generator, 2000)


@pytest.fixture
def prior(generator, statistics):
    return StyleGAN2Prior("tiny", copy.deepcopy(generator), statistics, CARD)


@pytest.fixture
def path(tmp_path, prior):
    path = tmp_path / FILE_NAME
    save_prior(path, prior)
    return path


def spoil(path, key, value):
    """The same file with another first value in a tensor."""
    tensors = safetensors.torch.load_file(path)
    tensors[key].view(-1)[0] = value
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def rewrite(path, header=None, drop=()):
    """The same file with another header or without some tensors."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if header is not None:
        metadata["pulse-sr"] = json.dumps(header)
    tensors = {k: v for k, v in tensors.items() if k not in drop}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def test_a_prior_in_single_precision_comes_back_bit_for_bit(path, generator, statistics):
    prior = read_prior(path)
    read, written = prior.generator.state_dict(), generator.state_dict()
    assert read.keys() == written.keys()
    assert all(torch.equal(read[k], written[k]) for k in written)
    for name in ("mean", "std", "cholesky"):
        assert torch.equal(getattr(prior.statistics, name), getattr(statistics, name))
    assert prior.statistics.count == 2000
    card = {"architecture": "stylegan2"} | CARD
    assert (prior.name, prior.card, prior.generator.config) == ("tiny", card, CONFIG)
    assert (prior.resolution, prior.num_ws, prior.latent_dim) == (16, 6, 16)


def test_a_prior_in_half_precision_comes_back_rounded_once(tmp_path, prior, generator, statistics):
    """Weights as float16, float32 in memory; the statistics are not rounded."""
    path = tmp_path / "half.safetensors"
    save_prior(path, prior, torch.float16)
    stored = safetensors.torch.load_file(path)
    assert {v.dtype for k, v in stored.items() if k.startswith("G.")} == {torch.float16}
    prior = read_prior(path)
    for key, value in prior.generator.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, generator.state_dict()[key].half().float())
    assert torch.equal(prior.statistics.cholesky, statistics.cholesky)


def test_a_folder_with_a_prior_is_a_prior(path):
    assert read_prior(path.parent).sha256 == read_prior(path).sha256


def test_the_checksum_is_that_of_the_file(path):
    assert read_prior(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_header_holds_all_that_is_not_a_tensor(path):
    assert read_header(path) == {
        "schema": 1,
        "name": "tiny",
        "architecture": "stylegan2",
        "config": {
            "resolution": 16,
            "z_dim": 16,
            "w_dim": 16,
            "mapping_layers": 2,
            "channels": [8, 8, 4],
            "mapping_lr_multiplier": 0.01,
        },
        "latents": {"count": 2000, "slope": 0.2},
        "card": CARD,
    }


def test_a_prior_that_was_read_is_written_as_it_was(path, tmp_path):
    """The card takes no second entry for the architecture."""
    save_prior(tmp_path / "again.safetensors", read_prior(path))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_file_from_before_fastgan_has_the_slope_of_stylegan2(path):
    header = read_header(path)
    del header["latents"]["slope"]
    rewrite(path, header)
    assert read_prior(path).statistics.slope == 0.2


def test_a_prior_without_a_file_format_is_refused(tmp_path):
    with pytest.raises(TypeError, match="LinearPrior has no file format"):
        save_prior(tmp_path / FILE_NAME, LinearPrior())


def test_tensors_have_the_official_key_names(path):
    keys = set(safetensors.torch.load_file(path))
    for key in ("mapping.fc0.weight", "mapping.w_avg", "synthesis.b4.const"):
        assert f"G.{key}" in keys
    for key in ("affine.weight", "weight", "bias", "noise_strength", "noise_const"):
        assert f"G.synthesis.b8.conv0.{key}" in keys
    assert not any("resample_filter" in key for key in keys)


# what can be wrong with a file: one line that names it, and a hint


def refused(kind, path):
    with pytest.raises(kind) as caught:
        read_prior(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_a_missing_prior(tmp_path):
    assert "no prior at" in refused(UsageError, tmp_path / "nothing.safetensors")


def test_an_empty_folder(tmp_path):
    assert "no prior at" in refused(UsageError, tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file(path, keep):
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    refused(SetupError, path)


def test_a_file_of_another_kind(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    refused(SetupError, path)


def test_a_safetensors_file_that_is_no_prior(path):
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    refused(SetupError, path)


@pytest.mark.parametrize("change", [{"schema": 2}, {"architecture": "diffusion"}])
def test_another_schema_or_architecture(path, change):
    rewrite(path, read_header(path) | change)
    message = refused(SetupError, path)
    assert str(next(iter(change.values()))) in message


@pytest.mark.parametrize("header", [[], 3, "x", None])
def test_a_header_that_is_no_table(path, header):
    rewrite(path, header if header is not None else {})
    refused(SetupError, path)


@pytest.mark.parametrize("entry", ["name", "config", "latents", "card"])
def test_a_header_without_one_of_its_entries(path, entry):
    header = read_header(path)
    del header[entry]
    rewrite(path, header)
    refused(SetupError, path)


@pytest.mark.parametrize(
    "change", [{"resolution": 24}, {"resolution": 32}, {"w_dim": 8}, {"channels": 3}, {"colour": 1}]
)
def test_a_configuration_that_does_not_fit_the_tensors(path, change):
    header = read_header(path)
    header["config"] |= change
    rewrite(path, header)
    refused(SetupError, path)


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 65536, "channels": [8] * 15},
        {"resolution": 2**40, "channels": [8] * 39},
        {"mapping_layers": 10**9},
        {"mapping_layers": 256},
        {"w_dim": 8192, "z_dim": 8192},
        {"channels": [8192, 8192, 8192]},
        {"channels": [8] * 10**5},
        {"w_dim": 10**4000},
        {"mapping_lr_multiplier": math.nan},
        {"w_dim": [[16]]},
        {"w_dim": {"a": 1}},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_a_header_that_asks_for_more_than_the_file_holds_allocates_nothing(path, change):
    """16 px of tensors: a tensor of the size asked for would have up to 16 GB."""
    header = read_header(path)
    header["config"] |= change
    rewrite(path, header)
    torch.empty(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(SetupError, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_header_that_is_nested_too_deeply(path):
    tensors = safetensors.torch.load_file(path)
    deep = "[" * 100_000 + "]" * 100_000
    path.write_bytes(safetensors.torch.save(tensors, {"pulse-sr": deep}))
    refused(SetupError, path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "key", ["G.synthesis.b8.conv0.weight", "latents.mean", "latents.std", "latents.cholesky"]
)
def test_values_that_are_no_numbers_name_the_tensor(path, key, value):
    spoil(path, key, value)
    message = refused(SetupError, path)
    assert "1 of the " in message
    assert f"tensor {key} are nan or infinite" in message


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("key", ["latents.std", "latents.cholesky"])
def test_a_deviation_that_is_none_names_the_tensor(path, key, value):
    spoil(path, key, value)
    assert f"a deviation in tensor {key} is {value:g}" in refused(SetupError, path)


@pytest.mark.parametrize(
    "latents", [{"count": -1}, {"count": "many"}, {"slope": 0}, {"slope": math.inf}, {"slope": []}]
)
def test_statistics_that_make_no_sense(path, latents):
    header = read_header(path)
    header["latents"] |= latents
    rewrite(path, header)
    refused(SetupError, path)


@pytest.mark.parametrize("key", ["G.synthesis.b8.conv0.weight", "latents.cholesky"])
def test_a_file_without_one_of_its_tensors(path, key):
    rewrite(path, drop=(key,))
    refused(SetupError, path)


def test_a_failed_write_leaves_the_old_prior(path, prior, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(SetupError, match="the disk is full"):
        save_prior(path, prior)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [FILE_NAME]


# latent statistics


class Affine(torch.nn.Module):
    """A mapping whose style before the last activation is exactly `M z + m`."""

    def __init__(self, width):
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.M = torch.randn(width, width, generator=rng) / width**0.5
        self.m = torch.randn(width, generator=rng)
        self.w_avg = torch.zeros(width)

    def forward(self, z):
        return F.leaky_relu(z @ self.M.t() + self.m, 0.2)


@pytest.fixture
def affine():
    return Affine(CONFIG.w_dim)


def fit(mapping, count, **options):
    return fit_statistics(SimpleNamespace(config=CONFIG, mapping=mapping), count, **options)


def test_statistics_of_an_affine_mapping_are_its_gaussian(affine):
    """Mean m, covariance M M': 200 000 samples are within 0.02 (5 deviations of the estimate)."""
    fitted = fit(affine, 200_000)
    covariance = affine.M @ affine.M.t()
    assert (fitted.mean - affine.m).abs().max() < 0.02
    assert (fitted.std - covariance.diagonal().sqrt()).abs().max() < 0.02
    assert (fitted.cholesky @ fitted.cholesky.t() - covariance).abs().max() < 0.02
    assert fitted.count == 200_000


def test_the_cholesky_factor_is_that_of_the_sample_covariance(affine):
    """Against torch.cov of the very same draws, 1e-5 (the jitter is 1e-6 of the variance)."""
    fitted = fit(affine, 3000, seed=4)
    z = torch.randn(3000, CONFIG.z_dim, generator=torch.Generator().manual_seed(4))
    v = z @ affine.M.t() + affine.m
    assert (fitted.cholesky @ fitted.cholesky.t() - torch.cov(v.t())).abs().max() < 1e-5
    assert (fitted.mean - v.mean(dim=0)).abs().max() < 1e-5
    assert (fitted.std - v.std(dim=0)).abs().max() < 1e-5
    assert torch.equal(fitted.cholesky, fitted.cholesky.tril())


def test_the_chunk_size_does_not_matter(generator):
    whole, pieces = (fit_statistics(generator, 1000, chunk=c) for c in (1000, 96))
    for name in ("mean", "std", "cholesky"):
        assert (getattr(whole, name) - getattr(pieces, name)).abs().max() < 1e-6


def test_a_mapping_without_variance_in_a_direction_has_a_factor(affine):
    affine.M[:4] = 0
    fitted = fit(affine, 1000)
    assert fitted.cholesky.isfinite().all()
    assert (fitted.std > 0).all()


def test_the_statistics_of_a_latent_without_mapping_are_exact():
    """Zero mean, unit deviation, no covariance, and an activation that does nothing."""
    statistics = standard_statistics(7)
    assert torch.equal(statistics.mean, torch.zeros(7))
    assert torch.equal(statistics.std, torch.ones(7))
    assert torch.equal(statistics.cholesky, torch.eye(7))
    assert (statistics.count, statistics.slope) == (0, 1)
