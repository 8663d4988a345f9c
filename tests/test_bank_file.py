"""The seed bank of a prior: what its thumbnails show, and which file is believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from toy_priors import LinearPrior

from pulse_sr.cli.console import Console
from pulse_sr.models import registry
from pulse_sr.priors import bank as banks
from pulse_sr.priors.bank import (
    SeedBank,
    bank_of,
    bank_path,
    draw_bank,
    read_bank,
    save_bank,
    write_bank,
)
from pulse_sr.priors.base import standard_normal


@pytest.fixture
def prior():
    """A prior that claims to have been read from a file."""
    prior = LinearPrior(resolution=32)
    prior.sha256 = "a" * 64
    return prior


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder; it does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pulse-sr"


def other_bank(count=5):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=rng)
    return SeedBank(77, pixels)


def equal(a, b):
    return a.first_seed == b.first_seed and torch.equal(a.thumbnails, b.thumbnails)


def find_bank(prior, file=None):
    """As in a process that has not asked for it yet."""
    prior.file, prior.bank = file, None
    return bank_of(prior)


def forbid_drawing(monkeypatch):
    def draw(*_):
        raise AssertionError("a bank was drawn")

    monkeypatch.setattr(banks, "draw_bank", draw)


# thumbnails


def test_thumbnails_are_the_area_means_of_the_samples_of_their_seeds(prior):
    """In float64 from the documented latents; half a level of rounding, 1e-3 for float32."""
    bank = draw_bank(prior, count=3, first_seed=1000)
    assert bank.thumbnails.shape == (3, 3, 16, 16)
    assert bank.thumbnails.dtype == torch.uint8
    for i in range(3):
        w = standard_normal(1000 + i, (prior.z_dim,))
        image = prior.synthesize(w.expand(1, prior.num_ws, -1))[0].clamp(0, 1).double()
        means = image.view(3, 16, 2, 16, 2).mean(dim=[2, 4]) * 255
        assert (bank.thumbnails[i] - means).abs().max() <= 0.501


def test_a_bank_gives_the_latents_of_its_seeds(prior):
    z = SeedBank(1000, torch.zeros(9, 3, 16, 16, dtype=torch.uint8)).latents(
        torch.tensor([7, 2]), 4
    )
    assert torch.equal(z, torch.stack([standard_normal(1007, (4,)), standard_normal(1002, (4,))]))


def test_a_smaller_bank_is_the_beginning_of_a_larger_one(prior):
    """Also where it ends in the middle of a chunk."""
    assert torch.equal(draw_bank(prior, 40).thumbnails, draw_bank(prior, 70).thumbnails[:40])


def test_the_thumbnails_of_a_small_prior_are_its_images():
    class Small(LinearPrior):
        def synthesize(self, w, noise=None, feature_deltas=None):
            return torch.full((len(w), 3, 8, 8), 0.2)

    small = Small(resolution=8)
    assert torch.equal(draw_bank(small, 2).thumbnails, torch.full((2, 3, 8, 8), 51).byte())


def test_a_bank_is_drawn_in_float32_whatever_the_search_does(prior):
    seen = []

    class Watched(LinearPrior):
        def synthesize(self, w, noise=None, feature_deltas=None):
            seen.append(self.bf16)
            return super().synthesize(w, noise, feature_deltas)

    watched = Watched()
    watched.bf16 = True
    draw_bank(watched, 1)
    assert seen == [False]
    assert watched.bf16


def test_a_bank_that_is_drawn_says_so_once_and_how_far_it_is(prior, caplog):
    caplog.set_level("INFO", "pulse_sr")
    draw_bank(prior, 64)
    said = [(record.getMessage(), getattr(record, "live", False)) for record in caplog.records]
    assert said == [
        (f"drawing 64 faces of the prior {prior.name} for its seed bank, once", False),
        ("seed bank: 0 of 64 faces drawn", True),
        ("seed bank: 32 of 64 faces drawn", True),
    ]


def test_the_command_line_shows_it_on_one_line(prior, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Console()
    draw_bank(prior, 64)
    first, *live = capsys.readouterr().err.split("\r\x1b[2K")
    assert first == f"info: drawing 64 faces of the prior {prior.name} for its seed bank, once\n"
    assert live == ["seed bank: 0 of 64 faces drawn", "seed bank: 32 of 64 faces drawn"]


# files


def test_a_bank_reads_as_it_was_written(tmp_path):
    bank, path = other_bank(), tmp_path / "bank.safetensors"
    save_bank(path, bank, "a" * 64)
    assert equal(read_bank(path, "a" * 64), bank)


def test_a_missing_damaged_or_stale_bank_is_none(tmp_path):
    path = tmp_path / "bank.safetensors"
    assert read_bank(path, "a" * 64) is None
    save_bank(path, other_bank(), "a" * 64)
    assert read_bank(path, "b" * 64) is None
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:9], b"", b"no such format"):
        path.write_bytes(damaged)
        assert read_bank(path, "a" * 64) is None


@pytest.mark.parametrize(
    "thumbnails",
    [
        torch.zeros(2, 3, 4, 4),
        torch.zeros(2, 4, 4).byte(),
        torch.zeros(0, 3, 4, 4).byte(),
        torch.zeros(2, 3, 4, 5).byte(),
        torch.zeros(2, 3, 99, 99).byte(),
    ],
    ids=["float", "grey", "empty", "oblong", "large"],
)
def test_a_file_with_other_tensors_is_no_bank(tmp_path, thumbnails):
    path = tmp_path / "bank.safetensors"
    save_bank(path, SeedBank(0, thumbnails), "a" * 64)
    assert read_bank(path, "a" * 64) is None


@pytest.mark.parametrize("seed", [-1, 2**63 - 3, 10**30])
def test_a_file_with_seeds_that_are_none_is_no_bank(tmp_path, seed):
    path = tmp_path / "bank.safetensors"
    save_bank(path, SeedBank(seed, other_bank().thumbnails), "a" * 64)
    assert read_bank(path, "a" * 64) is None


@pytest.mark.parametrize(
    ("prior_file", "expected"),
    [
        ("run/model.safetensors", "run/latents.safetensors"),
        ("priors/people.safetensors", "priors/people.latents.safetensors"),
    ],
)
def test_a_bank_stands_beside_its_prior(prior_file, expected):
    assert bank_path(Path(prior_file)) == Path(expected)


def test_a_bank_that_was_written_with_its_prior_is_found(tmp_path, prior, cache, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    prior.sha256 = hashlib.sha256(b"weights").hexdigest()
    path = write_bank(prior, file)
    assert path == tmp_path / "latents.safetensors"
    expected = draw_bank(prior)
    forbid_drawing(monkeypatch)
    assert equal(find_bank(prior, file), expected)
    assert not cache.exists()


def test_a_new_bank_is_drawn_once_and_then_read(prior, cache, monkeypatch):
    first = find_bank(prior)
    assert equal(first, draw_bank(prior))
    (file,) = cache.iterdir()
    assert file.name.startswith(f"latents-{'a' * 16}-")
    forbid_drawing(monkeypatch)
    assert equal(find_bank(prior), first)


def test_a_stale_bank_beside_the_prior_is_drawn_anew(tmp_path, prior, cache):
    """The folder of the prior stays as it is: it may belong to somebody else."""
    file = tmp_path / "model.safetensors"
    save_bank(bank_path(file), other_bank(), "b" * 64)
    before = bank_path(file).read_bytes()
    assert equal(find_bank(prior, file), draw_bank(prior))
    assert bank_path(file).read_bytes() == before
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_bank_in_the_cache_is_replaced(prior, cache):
    first = find_bank(prior)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert equal(find_bank(prior), first)
    assert file.read_bytes() == whole


def test_a_cache_that_can_not_be_written_is_no_error(tmp_path, prior, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert equal(find_bank(prior), draw_bank(prior))


def test_a_prior_in_memory_is_never_cached(prior, cache):
    prior.sha256 = ""
    assert equal(find_bank(prior), draw_bank(prior))
    assert not cache.exists()


def test_two_priors_do_not_share_a_bank(prior, cache):
    find_bank(prior)
    prior.sha256 = "b" * 64
    find_bank(prior)
    assert len(list(cache.iterdir())) == 2


def test_a_bank_that_is_fresh_is_not_written_again(prior, tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    path = write_bank(prior, file)
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        forbid_drawing(patch)
        write_bank(prior, file)
    assert path.stat().st_mtime_ns == before
    file.write_bytes(b"other weights")
    write_bank(prior, file)
    sha256 = hashlib.sha256(b"other weights").hexdigest()
    assert equal(read_bank(path, sha256), draw_bank(prior))


def test_a_prior_keeps_its_bank(prior, tmp_path, monkeypatch):
    """It is looked for once, beside the file that the prior names."""
    prior.file = tmp_path / "own.safetensors"
    save_bank(bank_path(prior.file), other_bank(), prior.sha256)
    first = bank_of(prior)
    assert equal(first, other_bank())
    bank_path(prior.file).unlink()
    forbid_drawing(monkeypatch)
    assert bank_of(prior) is first


def test_the_bundled_prior_has_its_bank(monkeypatch):
    forbid_drawing(monkeypatch)
    bundled = registry.load_prior()
    bank = bank_of(bundled)
    assert bank.thumbnails.shape == (1024, 3, 16, 16)
    drawn = bundled.sample([bank.first_seed + 5])
    small = torch.nn.functional.adaptive_avg_pool2d(drawn, 16)[0] * 255
    # Half a level is the rounding; other ops and batch sizes round a little differently.
    assert (bank.thumbnails[5] - small).abs().max() < 0.6
