"""The seed bank of a prior: small pictures of many of its samples, and the file they stand in.

The sample of a seed can be drawn again at any time (`standard_normal`, then `Prior.map`), so all
that is kept of it is its seed and a thumbnail. A search starts from the samples whose thumbnails
come nearest to its input (`pulse_sr.search.seedbank`).

The file stands beside the prior's own: `latents.safetensors` in a training run, `NAME.latents.
safetensors` for another file. A prior without one gets its bank in the user's cache folder when a
search first asks for it.

Shapes: N samples, s thumbnail side, R resolution.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path
from typing import TypedDict

import torch
import torch.nn.functional as F

from pulse_sr.devices import images_at_once
from pulse_sr.errors import PulseError
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import Count
from pulse_sr.files.tensors import UNREADABLE, read_tensors, read_tensors_header, write_tensors
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.priors.files import FILE_NAME
from stylegan_ops import library
from stylegan_ops.build import user_cache

log = logging.getLogger(__name__)

BANK_NAME = "latents.safetensors"
HEADER_KEY = "pulse-sr-bank"
SCHEMA = 1

#: First seed of every bank: far from the seeds that grids, tables and people use.
FIRST_SEED = 10_000_000
#: Size and thumbnail side: 0.8 MB, and forward passes worth less than half a search of 8 samples.
COUNT, SIDE = 1024, 16
#: Up to this resolution; above it, a quarter of the samples for twice the side, but at least some.
_FULL_SIDE, _FEWEST = 128, 32
#: More samples than any bank has.
_MOST = 2**20

_CHUNK, _CHUNK_PIXELS = 32, 2**21


class HeaderShape(TypedDict):
    """What is read of the header of a bank."""

    schema: int
    prior_sha256: str
    first_seed: Count


def bank_size(prior: Prior) -> int:
    """How many samples the bank of a prior has: drawing it must not take longer than searching."""
    return min(COUNT, max(_FEWEST, COUNT * _FULL_SIDE**2 // prior.resolution**2))


def draw_bank(prior: Prior, count: int | None = None, first_seed: int = FIRST_SEED) -> SeedBank:
    """Draw N = `count` samples of a prior (None: `bank_size`) and keep their thumbnails.

    What is drawn is said in the log, the progress in records that have the attribute `live`.

    The chunks have a size that only the resolution decides and bfloat16 stays off, so that the same
    prior gives the same bank whatever searches it.
    """
    side, count = min(SIDE, prior.resolution), bank_size(prior) if count is None else count
    chunk = images_at_once(prior.resolution, _CHUNK, _CHUNK_PIXELS)
    parts = []
    exact = prior.in_precision(bf16=False)
    log.info("drawing %d faces of the prior %s for its seed bank, once", count, prior.name)
    for start in range(first_seed, first_seed + count, chunk):
        done = start - first_seed
        log.info("seed bank: %d of %d faces drawn", done, count, extra={"live": True})
        # The last chunk is drawn whole as well: rounding may depend on the size of a batch.
        images = exact.sample(range(start, start + chunk))
        parts.append((F.adaptive_avg_pool2d(images, side) * 255).round().byte().cpu())
    return SeedBank(first_seed, torch.cat(parts)[:count])


def save_bank(path: Path, bank: SeedBank, prior_sha256: str) -> None:
    """Write a bank atomically; by the checksum of the prior's file a stale one is noticed.

    Raises:
        SetupError: the file can not be written.
    """
    header = {"schema": SCHEMA, "prior_sha256": prior_sha256, "first_seed": bank.first_seed}
    write_tensors(path, {"thumbnails": bank.thumbnails}, HEADER_KEY, header)


def read_bank(path: Path, prior_sha256: str) -> SeedBank | None:
    """Read a bank; None where there is none, or a damaged one, or one of another prior.

    A bank only saves time: nothing that is wrong with one is worth stopping for.
    """
    try:
        header = read_tensors_header(path, HEADER_KEY, HeaderShape)
        if (header["schema"], header["prior_sha256"]) != (SCHEMA, prior_sha256):
            return None
        thumbnails = read_tensors(path)["thumbnails"]
    except UNREADABLE:
        return None
    first_seed = header["first_seed"]
    return SeedBank(first_seed, thumbnails) if _fits(thumbnails, first_seed) else None


def _fits(thumbnails: torch.Tensor, first_seed: int) -> bool:
    if thumbnails.dtype != torch.uint8 or thumbnails.ndim != 4:
        return False
    count, channels, height, width = thumbnails.shape
    return (
        0 < count <= _MOST
        and (channels, height) == (3, width)
        and 0 < width <= SIDE
        and 0 <= first_seed < 2**63 - count
    )


def bank_path(prior_file: Path) -> Path:
    """Where the bank of a prior's file stands: beside it."""
    if prior_file.name == FILE_NAME:
        return prior_file.with_name(BANK_NAME)
    return prior_file.with_name(f"{prior_file.stem}.{BANK_NAME}")


def write_bank(prior: Prior, prior_file: Path) -> Path:
    """Draw the bank of a prior and write it beside the prior's file, if it is not there yet.

    Returns:
        the file of the bank.

    Raises:
        SetupError: the file can not be written.
    """
    path = bank_path(prior_file)
    sha256 = file_sha256(prior_file)
    if read_bank(path, sha256) is None:
        save_bank(path, draw_bank(prior), sha256)
    return path


def bank_of(prior: Prior) -> SeedBank:
    """The bank of a prior, looked for once and then kept with the prior.

    It is the one beside the prior's file, else one from the cache, else a new one, which goes to
    the cache folder where that can be written. Its name holds all that may change a thumbnail, so
    that reading one and drawing it anew are the same. A prior without a checksum lives in memory
    and is never cached.
    """
    if prior.bank is None:
        beside = bank_path(prior.file) if prior.file and prior.sha256 else None
        places = [place for place in (beside, _cache_path(prior)) if place]
        found = (read_bank(place, prior.sha256) for place in places)
        prior.bank = next((bank for bank in found if bank is not None), None) or _new_bank(prior)
    return prior.bank


def _new_bank(prior: Prior) -> SeedBank:
    bank, path = draw_bank(prior), _cache_path(prior)
    if path:
        # A cache that can not be written costs time in the next process, nothing else.
        with contextlib.suppress(OSError, PulseError):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_bank(path, bank, prior.sha256)
    return bank


def _cache_path(prior: Prior) -> Path | None:
    folder = user_cache()
    if folder is None or not prior.sha256:
        return None
    device = prior.device.type
    made_by = (SIDE, device, library.used_by_generators(device), torch.__version__)
    key = hashlib.sha256(repr((prior.sha256, bank_size(prior), FIRST_SEED, *made_by)).encode())
    return folder / f"latents-{prior.sha256[:16]}-{key.hexdigest()[:16]}.safetensors"
