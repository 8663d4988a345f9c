"""The folder of one input: its pictures and `result.json`, which is written last.

Every number in `result.json` is measured from the PNG files as read back from disk. A folder
without a `result.json` is incomplete and is done again.

Shape legend: S samples, R high-res side, h w low-res.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pulse_sr import __version__
from pulse_sr.atomic import write_atomic
from pulse_sr.errors import SetupError
from pulse_sr.images import LowResImage, write_png
from pulse_sr.jobs.manifest import PAGE, assign_stems, json_bytes, put_row, read_json, read_rows
from pulse_sr.jobs.marks import XMP, settings_of, text_chunks
from pulse_sr.jobs.placement import Placement, pasted_name
from pulse_sr.jobs.task import fingerprint
from pulse_sr.operators import Operator, make_operator
from pulse_sr.report.page import render_page
from pulse_sr.report.pictures import SampleLabel, grid, mean_image, std_image
from pulse_sr.result import Result, Sample, sample_status

SCHEMA = 1
RECORD = "result.json"
PICTURES = ("input.png", "mean.png", "std.png", "grid.png")

#: Stands for "identical" (an infinite PSNR), which JSON has no number for.
HIGHEST_DB = 200.0

Document = dict[str, Any]
Pixels = NDArray[np.uint8]


def sample_name(index: int) -> str:
    """Returns the file name of a sample."""
    return f"sample_{index:02d}.png"


def done_indices(folder: Path, wanted: str) -> tuple[int, ...]:
    """Returns the samples that `folder` holds for this fingerprint; none if it is incomplete."""
    return tuple(_sample_entries(folder, wanted))


def read_record(folder: Path) -> Document | None:
    """Returns the `result.json` of a folder, or None if it is missing or damaged."""
    document = read_json(folder / RECORD)
    return document if isinstance(document, dict) else None


def write_result(
    folder: Path,
    result: Result,
    *,
    fresh: bool = False,
    prior_source: str | None = None,
    load_s: float = 0.0,
    align: str = "never",
    placement: Placement | None = None,
) -> Document:
    """Writes the samples of `result`, then pictures and numbers over all samples of the folder.

    Samples that are there already with the same fingerprint and are not in `result` stay untouched;
    everything that belongs to another fingerprint is removed first.

    Args:
        folder: the folder of this input.
        result: the samples that were searched now.
        fresh: remove also samples of the same fingerprint first.
        prior_source: the prior as the caller named it (None: the default one), for the record.
        load_s: seconds that reading the input took, for the record.
        align: how the run treats photos, for the record.
        placement: for a face of a photo: where its samples are pasted (`pasted_00.png`, ...).

    Returns:
        the document written to `result.json`.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    started = time.perf_counter()
    mark = fingerprint(result.image.sha256, result.prior_sha256, result.config)
    make_folder(folder)
    entries = {} if fresh else _sample_entries(folder, mark)
    if not entries:
        clear(folder)
    operator = _observed_operator(result)
    write_png(folder / "input.png", result.low_res)
    settings = settings_of(result)
    for sample in result.samples_list:
        entry = _write_sample(folder, sample, result, operator, settings, placement)
        entries[sample.index] = entry
    samples = _measure(folder, entries, result, operator)
    files = [each["file"] for each in samples]
    pixels = np.stack([read_pixels(folder / name) for name in files])
    _write_pictures(folder, pixels, samples, result, settings)
    document = _document(result, samples, pixels, mark, prior_source)
    document["align"] = align
    if placement is not None:
        document["input"] = _input_entry(placement.photo, result.notes)
        document["face"] = placement.describe()
    document["timing"] = _timing(result, load_s, time.perf_counter() - started)
    write_atomic(folder / RECORD, json_bytes(document))
    return document


def write_failure(
    folder: Path,
    image: LowResImage,
    mark: str,
    error: str,
    hint: str,
    placement: Placement | None = None,
) -> None:
    """Records that a readable input could not be searched; keeps a result of equal settings."""
    if done_indices(folder, mark):
        return
    make_folder(folder)
    clear(folder)
    document = {
        "schema": SCHEMA,
        "version": __version__,
        "status": "failed",
        "error": error,
        "hint": hint,
        "input": _input_entry(image if placement is None else placement.photo),
        "samples": [],
        "fingerprint": mark,
    }
    if placement is not None:
        document["face"] = placement.describe()
    write_atomic(folder / RECORD, json_bytes(document))


def save_result(out: Path, result: Result) -> Path:
    """Writes one result into a run folder: its own folder, its manifest row and the page.

    Returns:
        the folder of this input.
    """
    make_folder(out)
    [stem] = assign_stems(out, [(Path(result.image.path), result.image.sha256)])
    document = write_result(out / stem, result)
    seconds = round(sum(document["timing"].values()), 3)
    put_row(out, row_of(stem, str(result.image.path), document, seconds))
    write_page(out)
    return out / stem


def row_of(stem: str, path: str, document: Document, seconds: float) -> Document:
    """Returns the manifest row of an input that has samples."""
    return {
        "stem": stem,
        "path": path,
        "sha256": document["input"]["sha256"],
        "status": document["status"],
        "seconds": seconds,
        "samples": len(document["samples"]),
        "fingerprint": document["fingerprint"],
        "base": document.get("face", {}).get("base", stem),
    }


def write_page(out: Path) -> None:
    """Writes `index.html` for all inputs that the manifest of `out` lists."""
    rows = read_rows(out)
    records = {row["stem"]: read_record(out / row["stem"]) for row in rows}
    write_atomic(out / PAGE, render_page(out, rows, records).encode("utf-8", "replace"))


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        SetupError: it can not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"could not make the folder {folder}: {error.strerror}", "choose another with -o DIR"
        ) from error


def clear(folder: Path) -> None:
    """Removes our own files from a folder, the record first; other files stay."""
    made = sorted([*folder.glob("sample_*.png"), *folder.glob("pasted_*.png")])
    for path in (folder / RECORD, *made):
        path.unlink(missing_ok=True)
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)


def read_pixels(path: Path) -> Pixels:  # [3, R, R]
    """Reads a PNG that we wrote, as uint8 [3, R, R]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()


def _sample_entries(folder: Path, wanted: str) -> dict[int, Document]:
    """The sample entries of a complete record with this fingerprint whose files exist, by index."""
    record = read_record(folder)
    if record is None or record.get("fingerprint") != wanted or record.get("status") == "failed":
        return {}
    if not all((folder / name).is_file() for name in PICTURES):
        return {}
    entries = {each["index"]: each for each in record.get("samples", []) if "index" in each}
    return {i: entries[i] for i in sorted(entries) if _has_files(folder, entries[i])}


def _has_files(folder: Path, entry: Document) -> bool:
    names = [sample_name(entry["index"]), *filter(None, [entry.get("pasted")])]
    return all((folder / name).is_file() for name in names)


def _observed_operator(result: Result) -> Operator:
    operator = make_operator(result.operator_spec, result.side, result.resolution)
    return operator.observed(result.rows, result.columns)


def _lr_psnr(operator: Operator, pixels: Pixels, low_res: Pixels) -> float:
    """LR-PSNR in dB of 8-bit pixels, to 1e-4 dB: the files must not differ by the thread count."""
    x, y = (torch.from_numpy(each.astype(np.float64) / 255.0) for each in (pixels, low_res))
    return round(min(float(operator.lr_psnr(x, y)), HIGHEST_DB), 4)


def _write_sample(
    folder: Path,
    sample: Sample,
    result: Result,
    operator: Operator,
    settings: Document,
    placement: Placement | None,
) -> Document:
    name = sample_name(sample.index)
    lr_psnr = _lr_psnr(operator, sample.pixels, result.low_res)
    own = {**settings, "sample": sample.index, "sample_seed": sample.seed}
    write_png(folder / name, sample.pixels, text_chunks(own, lr_psnr), XMP)
    pasted = {}
    if placement is not None:
        pasted = {"pasted": pasted_name(sample.index)}
        photo = placement.paste(sample.pixels)
        write_png(folder / pasted["pasted"], photo, text_chunks(own), XMP)
    return {
        **pasted,
        "file": name,
        "index": sample.index,
        "seed": sample.seed,
        "steps": sample.steps,
        "lr_psnr_search": round(min(sample.lr_psnr_search, HIGHEST_DB), 4),
        "hr_rms_change": round(sample.hr_rms_change, 6),
    }


def _measure(
    folder: Path, entries: dict[int, Document], result: Result, operator: Operator
) -> list[Document]:
    """Adds LR-PSNR and status, measured from the files, to the entries; ordered by index."""
    low_res = read_pixels(folder / "input.png")
    measured = []
    for index in sorted(entries):
        entry = dict(entries[index])
        entry["lr_psnr"] = _lr_psnr(operator, read_pixels(folder / entry["file"]), low_res)
        entry["status"] = sample_status(entry["lr_psnr"])
        measured.append(entry)
    return measured


def _write_pictures(
    folder: Path, pixels: Pixels, samples: Sequence[Document], result: Result, settings: Document
) -> None:
    chunks = text_chunks({**settings, "samples": [each["index"] for each in samples]})
    names = ("index", "seed", "lr_psnr_search", "lr_psnr", "status")
    labels = [SampleLabel(*(sample[name] for name in names)) for sample in samples]
    about = (
        f"{result.operator_spec}, {result.side} to {result.resolution} px, {result.prior_name}; "
        "dB: match as searched > as written"
    )
    write_png(folder / "mean.png", mean_image(pixels), chunks, XMP)
    write_png(folder / "std.png", std_image(pixels), chunks, XMP)
    picture = grid(result.low_res, pixels, labels, about)
    write_png(folder / "grid.png", picture, chunks, XMP)


def _document(
    result: Result,
    samples: list[Document],
    pixels: Pixels,
    mark: str,
    prior_source: str | None,
) -> Document:
    fine = all(each["status"] == "ok" for each in samples)
    options = result.config.pixel_options()
    options["project"] = result.config.projection(is_jpeg=result.image.is_jpeg)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "status": "ok" if fine else "below_target",
        "input": _input_entry(result.image, result.notes),
        "operator": {"spec": result.operator_spec, "scale": result.scale},
        "prior": {
            "name": result.prior_name,
            "sha256": result.prior_sha256,
            "resolution": result.resolution,
            "source": prior_source,
        },
        "method": result.config.method,
        "seed": result.config.seed,
        "options": options,
        "samples": samples,
        "diversity": _diversity(pixels),
        "device": result.device,
        "torch": result.torch_version,
        "ops": result.ops,
        "grid": {"side": result.side, "rows": list(result.rows), "columns": list(result.columns)},
        "fingerprint": mark,
        "config": asdict(result.config),
    }


def _input_entry(image: LowResImage, notes: Sequence[str] = ()) -> Document:
    return {
        "path": str(image.path),
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "notes": list(notes or image.notes),
    }


def _diversity(pixels: Pixels) -> Document:
    """Spread of the samples [S, 3, R, R], in [0, 1]: mean pixel std, and the nearest pair's RMS."""
    x = pixels.astype(np.float64) / 255.0
    pairs = [float(np.sqrt(np.mean((a - b) ** 2))) for a, b in combinations(x, 2)]
    return {
        "pixel_std": round(float(x.std(axis=0).mean()), 6),
        "min_pair_rms": round(min(pairs), 6) if pairs else None,
    }


def _timing(result: Result, load_s: float, write_s: float) -> dict[str, float]:
    timing = {"load_s": load_s, "search_s": 0.0, **result.timing, "write_s": write_s}
    return {name: round(seconds, 3) for name, seconds in timing.items()}
