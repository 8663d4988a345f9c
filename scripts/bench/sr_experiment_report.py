"""What the results of `sr_experiments.py` say: means over seeds, findings, curves."""

from __future__ import annotations

import io
from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

import torch
from sr_experiment_rows import FINDINGS, ROWS, Finding

from pulse_sr.bench.frame import describe_machine
from pulse_sr.report.table import Columns, result_document

#: A finding is one that holds, or does not, from so many seeds on that all say the same.
SEEDS_FOR_A_CLAIM = 3
#: "same" is a difference of less than this share.
_SAME = 1e-3
Document = dict[str, Any]

#: Forms of the scores, and their headings.
_SCORES = {
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "distance": ("feature distance", ".4f"),
    "log_spectrum": ("log spectrum", ".4f"),
    "accuracy": ("digits read", ".3f"),
}
_OF_KIND = {
    "photos": ("psnr", "ssim", "distance", "log_spectrum"),
    "faces": ("psnr", "ssim", "distance", "log_spectrum"),
    "digits": ("psnr", "ssim", "accuracy"),
}
_FINDING_COLUMNS = {
    "table": "{table}",
    "published": "{says}",
    "row": "`{row}`",
    "than": "`{than}`",
    "expected": "{score} {expects}",
    "means": "{means}",
    "seeds that agree": "{agree} of {seeds}",
    "here": "{verdict}",
}


def summary(rows: list[Document]) -> Document:
    """The results with their tables, as `scripts/render_tables.py` takes them."""
    order = list(ROWS)
    rows = sorted(rows, key=lambda each: (order.index(each["row"]), each["seed"]))
    tables = {kind: {"columns": _columns(kind), "rows": _means(kind, rows)} for kind in _OF_KIND}
    found = [judged(finding, rows) for finding in FINDINGS]
    tables["findings"] = {"columns": _FINDING_COLUMNS, "rows": found}
    return result_document(
        "Losses and optimizers at equal small budgets",
        "python scripts/bench/sr_experiments.py --seeds 0 1 2",
        {},
        rows,
        describe_machine(torch.device("cpu")),
        tables=tables,
    )


def _columns(kind: str) -> Columns:
    found = {"`--row`": "`{row}`"}
    for score in _OF_KIND[kind]:
        title, form = _SCORES[score]
        found[title] = f"{{{score}:{form}}}{{{score}_spread}}"
    return found | {"steps": "{steps}", "CPU s": "{cpu_seconds:.0f}", "seeds": "{seeds}"}


def _means(kind: str, rows: list[Document]) -> list[Document]:
    """A row of a table for each row that was trained: means, and standard deviations as text."""
    found = []
    for name, row in ROWS.items():
        done = [each for each in rows if each["row"] == name]
        if row.data != kind or not done:
            continue
        line: Document = {"row": name}
        if done[0]["status"] != "ok":
            found.append(line | {"seeds": done[0]["status"]})
            continue
        for score in _OF_KIND[kind]:
            form = _SCORES[score][1]
            values = [each["scores"][score] for each in done]
            spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
            line |= {score: mean(values), f"{score}_spread": spread}
        if row.trained:
            line["steps"] = round(1000 * done[0]["kimg"] / row.config.batch)
            line["cpu_seconds"] = mean(each["cpu_seconds"] for each in done)
            line["seeds"] = ", ".join(str(each["seed"]) for each in done)
        found.append(line)
    return found


def judged(finding: Finding, rows: list[Document]) -> Document:
    """How many seeds agree with a finding."""
    first, second = (_by_seed(rows, name, finding.score) for name in (finding.row, finding.than))
    seeds = sorted(first.keys() & second.keys())
    held = sum(_agrees(finding.expects, first[seed], second[seed]) for seed in seeds)
    verdict = "no claim" if seeds else "not run"
    if len(seeds) >= SEEDS_FOR_A_CLAIM and held in (0, len(seeds)):
        verdict = "holds" if held else "does not hold"
    means = ""
    if seeds and finding.score != "weights":
        form = _SCORES[finding.score][1]
        means = ", ".join(
            format(mean(each[seed] for seed in seeds), form) for each in (first, second)
        )
    counts = {"seeds": len(seeds), "agree": held, "verdict": verdict}
    return {**vars(finding), "means": means, **counts}


def _by_seed(rows: list[Document], name: str, score: str) -> Mapping[int, Any]:
    done = [each for each in rows if each["row"] == name and each["status"] == "ok"]
    if score == "weights":
        return {each["seed"]: each["weights"] for each in done}
    return {each["seed"]: each["scores"][score] for each in done}


def _agrees(expects: str, first: Any, second: Any) -> bool:
    if expects == "equal":
        return bool(first == second)
    if expects == "same":
        return bool(abs(first - second) < _SAME * abs(second))
    return bool(first > second if expects == "higher" else first < second)


def draw(rows: list[Document]) -> bytes:
    """A PNG: PSNR on held-back pictures in the course of the trainings, a panel each kind of data.

    Lines are means over seeds; bicubic enlargement is dashed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    figure = Figure((15, 4.6 * ((len(panels) + 1) // 2)), 100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, names) in enumerate(panels.items(), 1):
        axis = figure.add_subplot((len(panels) + 1) // 2, 2, number)
        axis.set(title=title, xlabel="thousands of patches", ylabel="PSNR, dB")
        for place, name in enumerate(names):
            done = [each for each in rows if each["row"] == name and each["status"] == "ok"]
            if not ROWS[name].trained:
                axis.axhline(done[0]["scores"]["psnr"], color="black", ls="--", label="bicubic")
                continue
            curves = torch.tensor([each["curve"] for each in done]).mean(dim=0)
            style = "-" if place <= 10 else ":"
            axis.plot(curves[:, 0] / 1000, curves[:, 1], style, color=f"C{place % 10}", label=name)
        axis.legend(fontsize=7, ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panels(rows: list[Document]) -> dict[str, list[str]]:
    """The rows by data and scale; photos also by whether they have a discriminator."""
    done = {each["row"] for each in rows if each["status"] == "ok"}
    found: dict[str, list[str]] = {}
    for name in (each for each in ROWS if each in done):
        row = ROWS[name]
        title = f"{row.data} x{row.config.scale}"
        titles = [title]
        if row.data == "photos":
            kinds = [f"{title}, pixels and what is added", f"{title}, against a discriminator"]
            titles = kinds if not row.trained else [kinds[bool(row.config.discriminator)]]
        for each in titles:
            found.setdefault(each, []).append(name)
    return {key: names for key, names in found.items() if any(ROWS[n].trained for n in names)}
