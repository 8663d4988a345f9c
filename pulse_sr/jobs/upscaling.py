"""Pictures to larger ones: `upscale` over many inputs, resumable.

OUT/<stem>.png       the enlarged picture: depth, grey, opacity and colour profile of the input
OUT/<stem>.json      its record, written last: a picture without one is made again
OUT/manifest.json    one row per input: what became of it
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_sr.devices import choose_device
from pulse_sr.files.atomic import make_folder, remove_leftovers
from pulse_sr.files.paths import check_out
from pulse_sr.images.find import find_images
from pulse_sr.images.places import refuse_inputs
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Executor, Job
from pulse_sr.jobs.manifest import NAME, Index, Row, check_manifest
from pulse_sr.jobs.stems import Input, list_inputs
from pulse_sr.jobs.upscale_worker import UpscaleWorker, fingerprint, is_complete, known_rows
from pulse_sr.models.registry import load_network
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.options import UpscaleOptions
from pulse_sr.sr.tiling import choose_tiling

DEFAULT_OUT = "upscaled"


@dataclass(frozen=True)
class UpscalePlan:
    """A call that was checked and can start: what `--dry-run` shows.

    Attributes:
        entries: the inputs with their names.
        out: the folder of the results.
        model: the network.
        tile: side of a tile; None: from memory.
        overwrite: make complete pictures again too.
    """

    entries: tuple[Input, ...]
    out: Path
    model: SrModel
    tile: int | None = None
    overwrite: bool = False

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            "model": self.model.describe(),
            "out": str(self.out),
            "tile": self.tile,
            "device": str(self.model.device),
        }

    def actions(self) -> list[tuple[str, Path]]:
        """("upscale" or "skip", input) for each input."""
        listed, lost = known_rows(self.out)
        rows = {row["stem"]: row for row in (*listed, *lost)}
        mark = fingerprint(self.model)
        return [
            (
                "skip"
                if not self.overwrite and is_complete(self.out, rows.get(e.stem), e, mark)
                else "upscale",
                e.path,
            )
            for e in self.entries
        ]

    def carry_out(self, executor: Executor = run_local) -> Generator[Row, None, None]:
        """Enlarges the pictures; yields the manifest row of each when it is done.

        Raises:
            SetupError: the disk is full.
        """
        make_folder(self.out)
        remove_leftovers(self.out)
        rows, lost = known_rows(self.out)
        index = Index(self.out, rows)
        for row in lost:
            index.put(row)
        tiling = choose_tiling(self.model.network, self.tile)
        worker = UpscaleWorker(index, self.model, tiling, self.overwrite)
        yield from Job(self.entries, worker, index, lambda out: None).carry_out(executor)


def plan_upscale(
    inputs: Sequence[str | Path],
    out: str | Path = DEFAULT_OUT,
    model: str | Path | SrModel | None = None,
    *,
    tile: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    recursive: bool = False,
) -> UpscalePlan:
    """Finds the inputs and loads the network; writes nothing.

    Args: see `upscale`.

    Raises:
        UsageError: a path does not exist, an input lies in `out`, or a value is out of range.
        SetupError: the network can not be loaded, or there is no such device.
    """
    out = check_out(out)
    options = UpscaleOptions(None, tile, overwrite, device, recursive)
    paths = find_images(inputs, recursive=recursive, out=out)
    refuse_inputs(paths, out, flat=True)
    check_manifest(out)
    if not isinstance(model, SrModel):
        model = load_network(model, choose_device(options.device))
    entries = list_inputs(out, paths, (Path(NAME).stem,))
    return UpscalePlan(tuple(entries), out, model, options.tile, overwrite)


def upscale(
    inputs: Sequence[str | Path],
    out: str | Path = DEFAULT_OUT,
    model: str | Path | SrModel | None = None,
    *,
    tile: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Generator[Row, None, None]:
    """Enlarges pictures with a supervised network; yields the row of each when it is done.

    A row has stem, path, sha256, status ("ok" or "failed"), file, width, height, seconds, notes,
    and for failures error and hint. Rows of pictures that were complete already have `resumed`
    true.

    Args:
        inputs: files, folders and globs.
        out: folder of the results.
        model: name of a bundled network, a file, the folder of a training run, or what
            `load_network` gave; None: the bundled one.
        tile: side of the tiles that pictures are cut into; None: from the memory there is.
        device: "auto", "cpu", "cuda" or "cuda:N"; not for a model that is loaded already.
        overwrite: make complete pictures again too.

    Raises:
        UsageError, SetupError: see `plan_upscale`; the disk is full.
    """
    plan = plan_upscale(inputs, out, model, tile=tile, device=device, overwrite=overwrite)
    yield from plan.carry_out()
