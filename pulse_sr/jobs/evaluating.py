"""`pulse-sr eval` without the command line: folders in, tables and plots out.

`metrics.json` is written last: its `files` are ours to write again, and no others.

Shapes: N inputs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from pulse_sr import __version__
from pulse_sr.devices import choose_device, keep_freed_memory
from pulse_sr.errors import InputError, UsageError
from pulse_sr.files import paths
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import FileName, json_bytes, read_json
from pulse_sr.images.places import check_place, refuse_inputs
from pulse_sr.jobs.labels import group_inputs, read_labels
from pulse_sr.jobs.manifest import PAGE
from pulse_sr.jobs.result_files import Matched, ResultFiles, match_files, read_case
from pulse_sr.metrics.convention import Convention
from pulse_sr.metrics.evaluation import Entry, Evaluation
from pulse_sr.metrics.options import METRICS, EvalOptions
from pulse_sr.metrics.power_spectrum import TO_DECIBELS, ring_frequencies
from pulse_sr.metrics.registry import REGISTRY, Settings
from pulse_sr.operators.spec import parse_operator
from pulse_sr.report.evaluation_page import evaluation_page
from pulse_sr.report.evaluation_plots import draw_calibration, draw_perception, draw_spectra

RECORD = "metrics.json"
TABLE, IMAGES = "metrics.csv", "images.csv"
PLOTS = ("perception.png", "calibration.png", "spectra.png")
SCHEMA = 1
#: Of `metrics.csv`.
COLUMNS = (
    *("column", "group", "metric", "value", "low", "high", "inputs", "unit", "better"),
    *("convention", "skipped"),
)


class RecordShape(TypedDict):
    """What is read back of `metrics.json`."""

    files: list[FileName]


Document = dict[str, Any]
#: Column -> group -> places of inputs.
Groups = dict[str, dict[str, list[int]]]
#: Hears of every input: how many are done, how many there are, its stem.
Listener = Callable[[int, int, str], None]


def default_out(results: Path) -> Path:
    """Where an evaluation goes if nothing is said: beside what the command is called from."""
    return Path(f"{results.resolve().name}-eval")


@dataclass(frozen=True)
class Plan:
    """An evaluation that can begin: its folders are there and match.

    Attributes:
        results: a run folder, or a folder of pictures.
        references: the folder of the truths.
        out: where the files go.
        options: which metrics, by which convention.
        matched: the files.
        groups: of `matched.inputs`, by their labels.
        settings: what metrics are prepared with.
    """

    results: Path
    references: Path
    out: Path
    options: EvalOptions
    matched: Matched
    groups: Groups
    settings: Settings

    def describe(self) -> Document:
        """The settings, for people and for `metrics.json`."""
        return {
            "metrics": list(self.options.metrics or METRICS),
            "channels": self.options.channels,
            "crop": self.options.crop,
            "convention": self.settings.convention.words,
            "seed": self.options.seed,
            "device": str(self.settings.device),
            "torch": torch.__version__,
        }


def plan_evaluation(results: Path, references: Path, out: Path, options: EvalOptions) -> Plan:
    """Finds the files and checks all that can be checked before one is read.

    Args:
        results: a folder of `run`, of `compare`, or of pictures.
        references: pictures of the same stems and sizes.
        out: where the files go.
        options: which metrics, by which convention.

    Raises:
        UsageError: folders that do not match (`match_files`), labels that make no groups, files in
            the way in `out`, or a folder that is an input.
        InputError: none of the results has pictures.
        SetupError: no such device.
    """
    paths.check_out(out)
    device = choose_device(options.device)
    spec = parse_operator(options.operator or "bicubic").text
    matched = match_files(results, references, options.lr, spec, options.picture)
    check_out(out, (results, references, *([options.lr] if options.lr else [])))
    truths = {each.stem: each.reference for each in matched.inputs if each.reference is not None}
    groups = {} if options.by is None else group_inputs(read_labels(options.by), truths)
    settings = Settings(Convention(options.channels, options.crop), options.weights, device)
    return Plan(results, references, out, options, matched, groups, settings)


def evaluate(plan: Plan, listener: Listener = lambda done, total, stem: None) -> Document:
    """Measures results against their references, and writes tables and plots.

    Args:
        plan: what is measured.
        listener: told of every input.

    Returns:
        what `metrics.json` holds.

    Raises:
        SetupError: the disk is full.
    """
    keep_freed_memory()
    matched, settings, options = plan.matched, plan.settings, plan.options
    names = options.metrics or METRICS
    evaluation = Evaluation(names, len(matched.inputs), settings, options.seed)
    places, failed = _measure(matched.inputs, evaluation, settings, listener)
    done = [matched.inputs[place] for place in places]
    groups = _groups_of(places, plan.groups)
    document = {
        "schema": SCHEMA,
        "version": __version__,
        "results": str(plan.results),
        "references": str(plan.references),
        "settings": plan.describe(),
        "inputs": len(done),
        "table": [_row(entry, settings) for entry in evaluation.table()],
        "groups": _group_tables(evaluation, groups, settings),
        "gaps": {
            column: {name: asdict(gap) for name, gap in evaluation.gaps(found).items()}
            for column, found in groups.items()
        },
        "calibration": _calibration_entry(evaluation),
        "spectra": _spectra_entry(evaluation),
        "images": [_image_row(i, files, evaluation) for i, files in enumerate(done)],
        "failed": [
            *failed,
            *({"stem": each.stem, "error": each.error, "hint": ""} for each in matched.failed),
        ],
        "without_reference": list(matched.without_reference),
        "without_result": list(matched.without_result),
    }
    _write(plan.out, document, evaluation, groups)
    return document


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Refuses a folder whose files are not ours, or that holds an input.

    Raises:
        UsageError: see above.
    """
    refuse_inputs(inputs, out, below=[out])
    files = [out / name for name in (RECORD, TABLE, IMAGES, PAGE, *PLOTS)]
    known = read_json(out / RECORD, RecordShape)
    named = () if known is None else known["files"]
    if known is None and (out / RECORD).exists() and _is_table(out / TABLE):  # damaged, but ours
        named = [file.name for file in files]
    check_place(out, files, named, UsageError)


def _is_table(path: Path) -> bool:
    """Whether a file begins as `metrics.csv` does."""
    try:
        with path.open("rb") as file:
            return file.readline(1000).decode("ascii").strip() == ",".join(COLUMNS)
    except (OSError, ValueError):
        return False


def _measure(
    inputs: Sequence[ResultFiles], evaluation: Evaluation, settings: Settings, listener: Listener
) -> tuple[list[int], list[Document]]:
    """Takes in one input after the other: the places of those read, and rows of the others."""
    done, failed = [], []
    for i, files in enumerate(inputs):
        try:
            evaluation.add(read_case(files, settings), files.stem)
            done.append(i)
        except (InputError, UsageError) as error:
            failed.append({"stem": files.stem, "error": error.message, "hint": error.hint})
        listener(i + 1, len(inputs), files.stem)
    return done, failed


def _groups_of(places: Sequence[int], groups: Groups) -> Groups:
    """The groups of the inputs at some places, which are counted anew; without empty ones."""
    new = {place: i for i, place in enumerate(places)}
    kept = {
        column: {
            name: [new[place] for place in found if place in new]
            for name, found in each.items()
            if not new.keys().isdisjoint(found)
        }
        for column, each in groups.items()
    }
    return {column: each for column, each in kept.items() if each}


def _row(entry: Entry, settings: Settings) -> Document:
    metric = REGISTRY[entry.metric]
    return {
        "metric": entry.metric,
        "title": metric.title,
        "value": entry.value,
        "interval": None if entry.interval is None else list(entry.interval),
        "inputs": entry.count,
        "unit": metric.unit,
        "better": metric.better,
        "convention": metric.words(settings.convention),
        "skipped": entry.skipped,
        "missing": entry.missing,
    }


def _group_tables(evaluation: Evaluation, groups: Groups, settings: Settings) -> Document:
    return {
        column: {
            name: {
                "inputs": len(places),
                "table": [_row(entry, settings) for entry in evaluation.table(places)],
            }
            for name, places in found.items()
        }
        for column, found in groups.items()
    }


def _calibration_entry(evaluation: Evaluation) -> list[Document]:
    return [
        {
            "samples": each.samples,
            "inputs": each.inputs,
            "levels": each.levels,
            "coverage": each.coverage.tolist(),
            "ranks": each.ranks.tolist(),
        }
        for each in evaluation.calibration()
    ]


def _spectra_entry(evaluation: Evaluation) -> dict[str, list[float]] | None:
    """Mean spectra in dB by frequency in cycles per px; None for images of several sizes."""
    profiles = evaluation.profiles()
    if profiles is None:
        return None
    ours, theirs = (TO_DECIBELS * each.mean(dim=0) for each in profiles)
    frequency = ring_frequencies(len(ours)).tolist()
    return {"frequency": frequency, "results": ours.tolist(), "references": theirs.tolist()}


def _image_row(place: int, files: ResultFiles, evaluation: Evaluation) -> Document:
    values = {name: found[place] for name, found in evaluation.values.items()}
    return {
        "stem": files.stem,
        "samples": [str(path) for path in files.samples],
        "reference": str(files.reference),
        "values": {name: value for name, value in values.items() if not math.isnan(value)},
        "each": {name: found[place] for name, found in evaluation.each.items() if found[place]},
    }


def _write(out: Path, document: Document, evaluation: Evaluation, groups: Groups) -> None:
    """Writes all files, the record last."""
    plots = _plots(evaluation, groups)
    files = {
        TABLE: _csv(_table_rows(document)),
        IMAGES: _csv(_image_rows(document)),
        PAGE: evaluation_page(document, plots).encode("utf-8", "backslashreplace"),
        **plots,
    }
    make_folder(out)
    for name in PLOTS:  # of an earlier evaluation with other metrics
        if name not in files:
            (out / name).unlink(missing_ok=True)
    for name, data in files.items():
        write_atomic(out / name, data)
    document["files"] = [*files, RECORD]
    write_atomic(out / RECORD, json_bytes(document))


def _table_rows(document: Document) -> list[Document]:
    """One row for each number: of all inputs, then of each group."""
    tables = [("", "", document["inputs"], document["table"])]
    tables += [
        (column, name, found["inputs"], found["table"])
        for column, groups in document["groups"].items()
        for name, found in groups.items()
    ]
    rows = []
    for column, group, _, table in tables:
        for row in table:
            low, high = row["interval"] or ("", "")
            own = {"column": column, "group": group, "low": low, "high": high}
            rows.append(own | {name: value for name, value in row.items() if name != "interval"})
    return [{name: row[name] for name in COLUMNS} for row in rows]


def _image_rows(document: Document) -> list[Document]:
    names = [name for name in document["settings"]["metrics"] if REGISTRY[name].of_case]
    return [
        {"stem": row["stem"], **{name: row["values"].get(name, "") for name in names}}
        for row in document["images"]
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _plots(evaluation: Evaluation, groups: Groups) -> dict[str, bytes]:
    """The plots that there are numbers for, by file name."""
    perception, calibration, spectra = PLOTS
    found = {}
    psnr, distance = (evaluation.values.get(name) for name in ("psnr", "squeezenet"))
    if psnr and distance:
        axes = (
            f"PSNR (dB; {evaluation.settings.convention.words})",
            f"{REGISTRY['squeezenet'].title} (0 to 2)",
        )
        column, first = next(iter(groups.items()), ("", None))
        found[perception] = draw_perception(np.array(psnr), np.array(distance), axes, first, column)
    curves = evaluation.calibration()
    if curves:
        found[calibration] = draw_calibration(curves[0])
    profiles = evaluation.profiles()
    if profiles is not None:
        found[spectra] = draw_spectra(*(each.numpy() for each in profiles))
    return found
