"""The folder of one input: its pictures and `result.json`, which is written last.

Every number in `result.json` is measured from the PNG files as read back from disk. A folder
without a `result.json` is incomplete and is done again.

Shape legend: S samples, R high-res side, h w low-res.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulse_sr import __version__
from pulse_sr.config import SAMPLERS
from pulse_sr.files.atomic import make_folder, write_atomic, write_parts_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.files.paths import check_out
from pulse_sr.images.places import check_place, refuse_inputs
from pulse_sr.images.read import LowResImage
from pulse_sr.images.write import write_png
from pulse_sr.inversion.observation import Observation
from pulse_sr.inversion.result import Result, Sample, sample_status
from pulse_sr.jobs.drawing import (
    PICTURES,
    Document,
    Pixels,
    cluster_entry,
    read_pixels,
    write_grid,
    write_pictures,
)
from pulse_sr.jobs.manifest import PAGE, RECORD, Row, check_manifest, put_rows, read_rows
from pulse_sr.jobs.photo_record import read_photo
from pulse_sr.jobs.provenance import XMP, settings_of, text_chunks
from pulse_sr.jobs.record import SCHEMA, input_entry, make_document, timing_entry
from pulse_sr.jobs.result_record import read_record, sample_name
from pulse_sr.jobs.stems import assign_stems
from pulse_sr.jobs.steps import clear_steps, finish_steps, has_steps, named_steps, step_files
from pulse_sr.jobs.task import fingerprint
from pulse_sr.metrics.psnr import HIGHEST_DB
from pulse_sr.report.animation import StepFrames
from pulse_sr.report.page import render_page


def done_indices(folder: Path, wanted: str, *, with_steps: bool = False) -> tuple[int, ...]:
    """Returns the samples that `folder` holds for this fingerprint; none if it is incomplete.

    Args:
        folder: of the input.
        wanted: the fingerprint.
        with_steps: only samples whose search was saved too.
    """
    entries = _sample_entries(folder, wanted)
    return tuple(k for k in entries if not with_steps or has_steps(folder, entries[k]))


def write_result(
    folder: Path,
    result: Result,
    *,
    fresh: bool = False,
    prior_source: str | None = None,
    load_s: float = 0.0,
    selection: Mapping[str, Any] | None = None,
    base: str = "",
    cluster: bool = False,
    frames: StepFrames | None = None,
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
        selection: which faces of photos the run takes (`RunOptions.selection`), for the record.
        base: for a face of a photo: the stem of that.
        cluster: show the samples in covering order (`metrics.covering`), not by index.
        frames: the steps of the search (`steps.begin_steps`), for their animation.

    Returns:
        the document written to `result.json`.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    started = time.perf_counter()
    observation = result.observation
    identity = fingerprint(observation.sha256, result.prior_sha256, result.config)
    make_folder(folder)
    entries = {} if fresh else _sample_entries(folder, identity)
    if not entries:
        clear(folder, steps=frames is None)
    settings = settings_of(result)
    software = {"Software": f"pulse-sr {__version__}"}
    write_png(folder / "input.png", observation.pixels, software)
    for sample in result.samples_list:
        entries[sample.index] = _write_sample(folder, sample, settings)
    samples = [dict(entries[index]) for index in sorted(entries)]
    pixels = np.stack([read_pixels(folder / each["file"]) for each in samples])
    _measure(samples, pixels, read_pixels(folder / "input.png"), observation)
    if frames is not None:
        finish_steps(folder, frames, samples, pixels, _line_db(result))
    document = make_document(result, samples, pixels, identity, prior_source)
    document |= {"align": "never"} if selection is None else dict(selection)
    document |= _face_entry(observation.image, base)
    indices = [each["index"] for each in samples]
    if cluster:
        document["cluster"] = cluster_entry(pixels, indices)
    write_pictures(folder, pixels, document, text_chunks({**settings, "samples": indices}))
    document["timing"] = timing_entry(result, load_s, time.perf_counter() - started)
    write_atomic(folder / RECORD, json_bytes(document))
    return document


def _face_entry(image: LowResImage, base: str) -> Document:
    return {} if image.face is None else {"face": {"base": base, **image.face.describe()}}


def _line_db(result: Result) -> float | None:
    """The match at which a sample left the search; None where none leaves early."""
    if result.config.method in SAMPLERS:
        return None
    return result.observation.target_db


def set_order(folder: Path, *, cluster: bool) -> Document:
    """Shows the samples of a complete folder in covering order or by index, see `write_result`.

    Nothing is written where they are shown so already.

    Returns:
        what `result.json` holds; nothing if it is gone.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    document = read_record(folder) or {}
    if _has_order(document, cluster):
        return document
    samples = document["samples"]
    pixels = np.stack([read_pixels(folder / each["file"]) for each in samples])
    document.pop("cluster", None)
    if cluster:
        document["cluster"] = cluster_entry(pixels, [each["index"] for each in samples])
    write_grid(folder, pixels, document)
    write_atomic(folder / RECORD, json_bytes(document))
    return document


def has_order(folder: Path, cluster: bool) -> bool:
    """Whether the samples of a folder are shown as `set_order` would; true if it has none."""
    return _has_order(read_record(folder) or {}, cluster)


def _has_order(document: Document, cluster: bool) -> bool:
    return not document.get("samples") or cluster == ("cluster" in document)


def write_failure(
    folder: Path,
    image: LowResImage,
    wanted: str,
    error: str,
    hint: str,
    base: str = "",
) -> None:
    """Records that a readable input could not be searched; keeps a result of equal settings."""
    if done_indices(folder, wanted):
        return
    make_folder(folder)
    clear(folder)
    document = {
        "schema": SCHEMA,
        "version": __version__,
        "status": "failed",
        "error": error,
        "hint": hint,
        "input": input_entry(image),
        "samples": [],
        "fingerprint": wanted,
        **_face_entry(image, base),
    }
    write_atomic(folder / RECORD, json_bytes(document))


def save_result(out: Path, result: Result, *, cluster: bool = False) -> Path:
    """Writes one result into a run folder: its own folder, its manifest row and the page.

    Args:
        out: the run folder.
        result: the samples.
        cluster: see `write_result`.

    Returns:
        the folder of this input.

    Raises:
        UsageError: `out` is no path, something else than a folder is there, the input lies in that
            folder, or the page of `out` is somebody else's.
        InputError: another file that is not ours is in the way.
        SetupError: the disk is full, or the place can not be written.
    """
    check_out(out)
    image = result.observation.image.source
    [stem] = assign_stems(out, [(Path(image.path), image.sha256)])
    check_manifest(out, page=True)
    refuse_inputs([Path(image.path)], out, below=[out / stem])
    rows = {row["stem"]: row for row in read_rows(out)}
    check_folder(out, stem, [each.index for each in result.samples_list], rows.get(stem))
    make_folder(out)
    document = write_result(out / stem, result, cluster=cluster)
    put_rows(out, [row_of(stem, image.path, document)])
    write_page(out)
    return out / stem


def row_of(stem: str, path: str, document: Document) -> Document:
    """Returns the manifest row of an input that has samples."""
    seconds = round(sum(document["timing"].values()), 3)
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
    parts = render_page(
        out,
        read_rows(out),
        lambda stem: read_record(out / stem),
        lambda base: read_photo(out / base),
    )
    write_parts_atomic(out / PAGE, (part.encode("utf-8", "replace") for part in parts))


def clear(folder: Path, *, steps: bool = True) -> None:
    """Removes the files that the record of a folder names, the record first; other files stay.

    Args:
        folder: of the input.
        steps: also the frames of the search.
    """
    names = named_files(folder)
    (folder / RECORD).unlink(missing_ok=True)
    for name in sorted(names):
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)
    if steps:
        clear_steps(folder)


def named_files(folder: Path, row: Row | None = None) -> set[str]:
    """Returns the names of the files in a folder that its record has; without one, its row."""
    record = read_record(folder)
    if record is not None:
        files = [each["file"] for each in record.get("samples", ())]
    else:
        files = [sample_name(index) for index in range((row or {}).get("samples", 0))]
    return {RECORD, *PICTURES, *files} if files else {RECORD} if record is not None else set()


def check_folder(
    out: Path, stem: str, indices: Iterable[int], row: Row | None, *, steps: bool = False
) -> None:
    """Refuses to write over files in the folder of an input that are not ours.

    Args:
        out: the run folder.
        stem: of the input.
        indices: of the samples that are to be written.
        row: of the manifest; None: there is none.
        steps: the steps of the search are written too.

    Raises:
        InputError: there is such a file, or the folder is a link that leads out of `out`.
    """
    folder = out / stem
    files = [folder / name for name in (RECORD, *PICTURES, *map(sample_name, indices))]
    named = named_files(folder, row)
    if steps:
        files, named = files + step_files(folder), named | named_steps(folder)
    check_place(out, files, named)


def _sample_entries(folder: Path, wanted: str) -> dict[int, Document]:
    """The sample entries of a complete record with this fingerprint whose files exist, by index."""
    record = read_record(folder)
    if record is None or record.get("fingerprint") != wanted or record.get("status") == "failed":
        return {}
    if not all(_is_there(folder / name) for name in PICTURES):
        return {}
    return {e["index"]: e for e in record["samples"] if _is_there(folder / e["file"])}


def _is_there(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _write_sample(folder: Path, sample: Sample, settings: Document) -> Document:
    """Writes a sample; returns its entry, not measured yet."""
    name, lr_psnr = sample_name(sample.index), rounded_db(sample.lr_psnr)
    own = {**settings, "sample": sample.index, "sample_seed": sample.seed}
    write_png(folder / name, sample.pixels, text_chunks(own, lr_psnr), XMP)
    return {
        "file": name,
        "index": sample.index,
        "seed": sample.seed,
        "steps": sample.steps,
        **({} if sample.sigma is None else {"sigma": sample.sigma}),
        "lr_psnr_search": rounded_db(sample.lr_psnr_search),
        "hr_rms_change": round(sample.hr_rms_change, 6),
    }


def _measure(
    entries: list[Document], pixels: Pixels, low_res: Pixels, observation: Observation
) -> None:
    """Adds LR-PSNR and status to the entries of samples [S, 3, R, R], both as read back."""
    y = torch.from_numpy(low_res / 255.0)
    for entry, each in zip(entries, pixels, strict=True):
        lr_psnr = observation.operator.lr_psnr(torch.from_numpy(each / 255.0), y)
        entry["lr_psnr"] = rounded_db(lr_psnr.item())
        entry["status"] = sample_status(entry["lr_psnr"], observation.ok_db)


def rounded_db(db: float) -> float:
    """To 1e-4 dB, since files must not differ by the thread count; `HIGHEST_DB` at most."""
    return round(min(db, HIGHEST_DB), 4)
