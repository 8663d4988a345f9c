"""The files of an evaluation: results of any command or of other programs, and their references.

Shapes: H W size, h w low-res size.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Required, TypedDict

import torch
from torch import Tensor

from pulse_sr.errors import InputError, PulseError, UsageError, first_line
from pulse_sr.files.documents import FileName, load_json
from pulse_sr.files.paths import FOLDER, check_path
from pulse_sr.images.find import pictures_by_stem
from pulse_sr.images.fit import over_input
from pulse_sr.images.read import read_image
from pulse_sr.jobs.manifest import COMPARED, RECORD, MethodShape, Status, read_rows
from pulse_sr.jobs.result_record import GridShape
from pulse_sr.jobs.stems import clean_stem
from pulse_sr.metrics.case import Case
from pulse_sr.metrics.registry import Settings
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator

log = logging.getLogger(__name__)


class SampleShape(TypedDict):
    """The file of a sample."""

    file: FileName


class OperatorShape(TypedDict, total=False):
    """The operator."""

    spec: str


class RecordShape(TypedDict, total=False):
    """What is read of a `result.json`, which another program may have written."""

    status: Required[Status]
    error: str
    samples: list[SampleShape]
    grid: GridShape
    operator: OperatorShape


class ComparisonShape(TypedDict, total=False):
    """What is read of a `compare.json`."""

    methods: Required[list[MethodShape]]
    operator: Required[OperatorShape]
    grid: GridShape


@dataclass(frozen=True)
class ResultFiles:
    """The files of one input.

    Attributes:
        stem: what results and references are matched by.
        samples: its pictures.
        reference: the truth.
        low: the low-res input; None: not known.
        operator: spec of the operator that it is the image of.
        grid: where the input lies on the low-res grid; None: everywhere.
        error: why it has no pictures; else empty.
    """

    stem: str
    samples: tuple[Path, ...] = ()
    reference: Path | None = None
    low: Path | None = None
    operator: str = ""
    grid: GridShape | None = None
    error: str = ""


@dataclass(frozen=True)
class Matched:
    """Results with their references.

    Attributes:
        inputs: those with both.
        failed: those that the command which made them could not do.
        without_reference: stems of results.
        without_result: stems of references.
    """

    inputs: tuple[ResultFiles, ...]
    failed: tuple[ResultFiles, ...]
    without_reference: tuple[str, ...]
    without_result: tuple[str, ...]


def match_files(
    results: Path,
    references: Path,
    low: Path | None = None,
    operator: str = "",
    picture: str | None = None,
) -> Matched:
    """Finds results and the reference of each, the file of the same stem.

    Args:
        results: folder of `run` (a `result.json` for each input), of `compare`, or of pictures.
        references: folder of pictures.
        low: folder of low-res inputs of the same stems, for results that do not name their own.
        operator: what made those.
        picture: of a folder of `compare`, which of its pictures; None: the sample.

    Raises:
        UsageError: a folder that does not exist or has no images, two files of the same stem, no
            stem in common, or a picture of what is no folder of `compare`.
        InputError: none of the results has pictures.
    """
    found = _find_results(results, picture)
    failed = tuple(each for each in found if each.error)
    truths = _by_result_name(references)
    lows = {} if low is None else _by_result_name(low)
    inputs = [
        replace(
            each,
            reference=truths[each.stem],
            low=each.low or lows.get(each.stem),
            operator=each.operator or operator,
        )
        for each in found
        if each.stem in truths and not each.error
    ]
    if failed and len(failed) == len(found):
        raise InputError(f"{results} holds no pictures to measure: {failed[0].error}")
    if not inputs:
        raise UsageError(
            f"no result in {results} has the stem of a reference in {references} "
            f"({_few([each.stem for each in found])} against {_few(list(truths))})",
            "name each reference as its result: face.png for face.png or face/result.json",
        )
    stems = {each.stem for each in found}
    return Matched(
        tuple(inputs),
        failed,
        tuple(each.stem for each in found if each.stem not in truths and not each.error),
        tuple(stem for stem in truths if stem not in stems),
    )


def _by_result_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by the names that results of them have: long ones are cut."""
    return {clean_stem(path): path for path in pictures_by_stem(folder).values()}


def _few(stems: Sequence[str]) -> str:
    return ", ".join(stems[:3]) + (", ..." if len(stems) > 3 else "") if stems else "none"


def _find_results(folder: Path, picture: str | None) -> list[ResultFiles]:
    """What a folder holds, by stem."""
    check_path(folder, FOLDER)
    records = sorted(folder.rglob(RECORD))
    compared = [] if records else sorted(folder.glob(f"*/{COMPARED}"))
    if picture is not None and not compared:
        raise UsageError(
            f"--picture names one of those that compare writes, {folder} has no */{COMPARED}",
            "leave it out, or give the folder of compare",
        )
    if records:
        found = [_of_record(path, folder) for path in records]
    elif compared:
        found = [_of_comparison(path, picture or "sample") for path in compared]
    else:
        found = [ResultFiles(stem, (path,)) for stem, path in _by_result_name(folder).items()]
    known = {each.stem for each in found}
    failed = [
        ResultFiles(row["stem"], error=str(row.get("error", "it failed")))
        for row in read_rows(folder)
        if row.get("status") == "failed" and row["stem"] not in known
    ]
    return [*found, *failed]


def _of_record(path: Path, root: Path) -> ResultFiles:
    """The files that a `result.json` names; what is damaged is an input that failed."""
    folder = path.parent
    stem = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    try:
        document = load_json(path, RecordShape)
    except (OSError, ValueError) as error:
        return _damaged(stem, path, first_line(error))
    if document["status"] == "failed":
        return ResultFiles(stem, error=document.get("error", "it failed"))
    if "samples" not in document:
        return _damaged(stem, path, "it names no samples")
    samples = tuple(folder / each["file"] for each in document["samples"])
    grid, spec = document.get("grid"), document.get("operator", {}).get("spec", "")
    if not samples:
        return ResultFiles(stem, error=f"{path} names no samples")
    low = folder / "input.png"
    return ResultFiles(stem, samples, None, low if low.is_file() else None, spec, grid)


def _of_comparison(path: Path, picture: str) -> ResultFiles:
    """One of the pictures that a `compare.json` names."""
    stem = path.parent.name
    try:
        document = load_json(path, ComparisonShape)
    except (OSError, ValueError) as error:
        return _damaged(stem, path, first_line(error))
    files = {each["method"]: each["file"] for each in document["methods"]}
    if picture not in files:
        return ResultFiles(stem, error=f"{path} has no picture {picture!r} ({', '.join(files)})")
    spec = document["operator"].get("spec", "")
    grid = document.get("grid")
    return ResultFiles(stem, (path.parent / files[picture],), operator=spec, grid=grid)


def _damaged(stem: str, path: Path, why: str) -> ResultFiles:
    return ResultFiles(stem, error=f"{path} is damaged ({why})")


def read_case(files: ResultFiles, settings: Settings) -> Case:
    """Reads the pictures of an input.

    Of an input that was not square the reference may be as large as the whole result, or as the
    part of it that lies over the input: then only that part is compared.

    Raises:
        InputError: a picture is missing, can not be read, or has another size than its reference.
        UsageError: see `read_image`.
    """
    assert files.reference is not None
    truth, samples = _pixels(files.reference), [_pixels(path) for path in files.samples]
    parts = [_like(truth, pixels, files.grid) for pixels in samples]
    for path, pixels, part in zip(files.samples, samples, parts, strict=True):
        if part.shape != truth.shape:
            raise InputError(
                f"{path} has {_size(pixels)} px, its reference {files.reference} {_size(truth)} px",
                "references of another size are not resized: give those of the same size",
            )
    low = None if files.low is None else _pixels(files.low)
    whole = torch.stack(samples)
    operator = None if low is None else _operator(files, low, whole)
    part = whole if parts[0] is samples[0] else torch.stack(parts)
    return Case(part, truth, low, operator, settings.convention, settings.device, whole)


def _like(truth: Tensor, pixels: Tensor, grid: GridShape | None) -> Tensor:
    """A result, or the part of it over the input if that has the size of the truth."""
    if grid is None or pixels.shape == truth.shape:
        return pixels
    part: Tensor = over_input(pixels, grid["side"], grid["rows"], grid["columns"])
    return part if part.shape == truth.shape else pixels


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"


def _pixels(path: Path) -> Tensor:
    return torch.from_numpy(read_image(path).pixels)


def _operator(files: ResultFiles, low: Tensor, samples: Tensor) -> Operator | None:
    """None, with a warning, where it can not be built: that is no reason against other metrics."""
    high, grid = (int(samples.shape[-2]), int(samples.shape[-1])), files.grid
    try:
        if grid is not None:
            window = tuple(grid["rows"]), tuple(grid["columns"])
            return _square_operator(files.operator, grid["side"], high[0], *window)
        return _operator_of(files.operator, (int(low.shape[1]), int(low.shape[2])), high)
    except PulseError as error:
        log.warning("%s: no LR consistency: %s", files.stem, error.message)
        return None


@functools.lru_cache(maxsize=8)
def _square_operator(
    spec: str, side: int, high: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Operator:
    return make_operator(spec, side, high, rows, columns)


@functools.lru_cache(maxsize=8)
def _operator_of(spec: str, low: tuple[int, int], high: tuple[int, int]) -> Operator:
    return make_operator(spec, low, high)
