"""The part of a run's page that is about one input."""

from __future__ import annotations

import base64
import html
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.inversion.blind.ranking import recorded_ranking
from pulse_sr.report.pictures import role_of

Row = Mapping[str, Any]
Record = Mapping[str, Any]

#: Mean width of the interval below which a person sees no difference (five of 255).
_ALIKE = 0.02
#: Split R-hat up to which chains count as mixed (Vehtari et al., Bayesian Analysis 16, 2021).
MIXED = 1.01


class Pictures:
    """Turns files into `src` values: data URIs while the budget lasts, then relative links."""

    def __init__(self, out: Path, limit: int) -> None:
        """Begin a page.

        Args:
            out: the run folder.
            limit: how many bytes are embedded.
        """
        self.out, self.left, self.linked = out, limit, 0

    def source(self, stem: str, name: str) -> str:
        """Returns the `src` of a picture of an input; empty if it can not be read."""
        path = self.out / stem / name
        try:
            if path.stat().st_size > self.left:
                self.linked += 1
                return quote(os.fsencode(f"{stem}/{name}"))
            content = path.read_bytes()
        except OSError:
            return ""
        self.left -= len(content)
        return f"data:image/{path.suffix[1:]};base64," + base64.b64encode(content).decode("ascii")

    def figure(self, stem: str, name: str, caption: str, kind: str = "") -> str:
        """Returns a picture with a caption (HTML); `kind` is its class in the style."""
        alt = html.escape(f"{name} of {stem}", quote=True)
        return (
            f'<figure class="{kind}"><img src="{self.source(stem, name)}" alt="{alt}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def escaped(value: object) -> str:
    """Returns a value as text that HTML takes literally."""
    return html.escape(str(value), quote=True)


def status_mark(row: Row) -> str:
    """Returns the status of an input or a sample in its colour."""
    status = escaped(row.get("status", ""))
    return f'<span class="{status}">{status.replace("_", " ")}</span>'


def section(anchor: str, row: Row, record: Record | None, pictures: Pictures) -> str:
    """Returns the part of the page about one input.

    Args:
        anchor: its id.
        row: of the manifest.
        record: its `result.json`; None if there is none.
        pictures: where its pictures come from.
    """
    heading = f"<h2>{escaped(row['stem'])} <small>{status_mark(row)}</small></h2>"
    heading += f'<p class="faint">{escaped(row.get("path"))}</p>'
    if row.get("status") == "failed":
        hint = f"<p class='faint'>hint: {escaped(row['hint'])}</p>" if row.get("hint") else ""
        heading += f'<p class="failed">{escaped(row.get("error"))}</p>{hint}'
    body = _results(row["stem"], record, pictures) if record and record.get("samples") else ""
    return f'<section id="{anchor}">{heading}{body}</section>'


def _results(stem: str, record: Record, pictures: Pictures) -> str:
    strip = [pictures.figure(stem, "input.png", "input", "input")]
    for place, each in enumerate(shown_samples(record)):
        match = f"{each['lr_psnr_search']:.1f} → {each['lr_psnr']:.1f} dB"
        role = role_of(place) if record.get("cluster") else ""
        caption = f"#{each['index']} {status_mark(each)}<br>{match}"
        caption += f'<br><span class="role">{role}</span>' if role else ""
        strip.append(pictures.figure(stem, each["file"], caption))
        if each.get("pasted"):
            strip.append(pictures.figure(stem, each["pasted"], f"#{each['index']} in the photo"))
    strip.append(pictures.figure(stem, "mean.png", "mean"))
    grid = f'<img class="grid" src="{pictures.source(stem, "grid.png")}" alt="all in one picture">'
    return (
        f'{_order(record)}<div class="strip">{"".join(strip)}</div>{_choice(record)}'
        f"{_disagreement(stem, record, pictures)}{_numbers(record)}"
        f"{_animation(stem, record, pictures)}"
        f"<details><summary>settings, and how to make them again</summary>{_settings(record)}"
        f"<pre>{escaped(command_of(record))}</pre></details>"
        f"<details><summary>all in one picture, and the deviation of every pixel</summary>{grid}"
        f'<div class="spread">{pictures.figure(stem, "std.png", "std.png")}</div></details>'
    )


def shown_samples(record: Record) -> list[dict[str, Any]]:
    """Returns the entries of a `result.json`'s samples as they are shown.

    That is in covering order where there is one (`--cluster`), else by index.
    """
    entries: list[dict[str, Any]] = list(record["samples"])
    order = record.get("cluster", {}).get("order")
    return sorted(entries, key=lambda each: order.index(each["index"])) if order else entries


def _order(record: Record) -> str:
    """How far the first samples of the covering order reach."""
    if not record.get("cluster"):
        return ""
    radii = record["cluster"]["radii"]
    words = (
        f"Ordered by difference ({escaped(record['cluster']['distance'])}), the typical one first."
    )
    if len(radii) > 3:
        words += (
            f" All are within {radii[0]:.2g} of the typical one, and within {radii[2]:.2g} of one "
            "of the first three."
        )
    return f'<p class="faint">{words}</p>'


def _disagreement(stem: str, record: Record, pictures: Pictures) -> str:
    """Where the samples differ and how much, in pictures and words."""
    if len(record["samples"]) < 2:
        return '<p class="faint">One sample says nothing about what else is possible.</p>'
    diversity = record["diversity"]
    if "interval_level" not in diversity:  # written before there were intervals
        return ""
    level, coverage = diversity["interval_level"], diversity["interval_coverage_at_most"]
    count, wide = len(record["samples"]), diversity["interval_width"]
    words = (
        "Yellow to red: there the samples differ, because the input does not decide it. Grey: they "
        f"agree, which does not make them right. The {level * 100:g} % interval is {wide:.3f} wide "
        f"on average (brightness from 0 to 1); {count} samples can hold the truth in "
        f"{coverage * 100:.0f} % of the pixels at most."
    )
    if wide < _ALIKE:
        words += " All in all they hardly differ."
    return (
        f"<h3>Where the samples disagree</h3><p>{words}</p>"
        f'<div class="spread">{pictures.figure(stem, "disagreement.png", "over their mean")}'
        f"{pictures.figure(stem, 'interval.png', 'every pixel by itself', 'wide')}</div>"
    )


def _animation(stem: str, record: Record, pictures: Pictures) -> str:
    if not any(each.get("frames") for each in record["samples"]):
        return ""
    source = pictures.source(stem, "search.gif")
    return (
        "<details><summary>the search, step by step</summary>"
        f'<img class="grid" src="{source}" alt="animation of the search"></details>'
    )


def _choice(record: Record) -> str:
    """Which operator `--operator auto` chose, and how clear that is."""
    ranking = recorded_ranking(record["operator"])
    return "" if ranking is None else f"<p>{escaped(ranking.sentence())}</p>"


def _operator(operator: Mapping[str, Any]) -> str:
    words = [str(operator["spec"])]
    scale = operator["scale"]
    words.append("same size" if scale == 1 else f"{scale} times smaller")
    if operator.get("mask"):
        words.append(f"mask sha256 {operator['mask']['sha256']}")
    ranking = recorded_ranking(operator)
    if ranking is not None:
        rows = "; ".join(f"{spec} {score:.1f}" for spec, score in ranking.rows)
        words.append(f"chosen among (nats): {rows}")
    return ", ".join(words)


def _numbers(record: Record) -> str:
    lines = [
        f"<tr><td>{escaped(each['file'])}</td><td class=n>{escaped(each['seed'])}</td>"
        f"<td>{status_mark(each)}</td><td class=n>{each['steps']}</td>"
        f"<td class=n>{each['lr_psnr_search']:.1f}</td><td class=n>{each['lr_psnr']:.1f}</td>"
        f"<td class=n>{each['hr_rms_change']:.4f}</td></tr>"
        for each in record["samples"]
    ]
    diversity = record["diversity"]
    pair = diversity["min_pair_rms"]
    nearest = "" if pair is None else f"; the two nearest samples differ by {pair:.3f} RMS"
    return (
        "<table><tr><th>sample</th><th class=n>seed</th><th>status</th><th class=n>steps</th>"
        "<th class=n>dB before projection</th><th class=n>dB as written</th>"
        f"<th class=n>RMS change by it</th></tr>{''.join(lines)}</table>"
        f'<p class="faint">Mean pixel standard deviation {diversity["pixel_std"]:.3f}{nearest} '
        "(pixels in [0, 1]). dB: how well the sample, downscaled, matches the input.</p>"
        f"{_mixing(record)}"
    )


def _mixing(record: Record) -> str:
    """What a sampler's chains say of themselves."""
    found = record.get("diagnostics")
    if found is None:
        return ""
    sigmas = [each["sigma"] * 255 for each in record["samples"]]
    words = f"The chains ended at a noise of {min(sigmas):.2f} to {max(sigmas):.2f} grey levels"
    whose = ""
    if len(found["samples"]) < len(record["samples"]):  # the steps of earlier runs are not kept
        whose = f" (of {', '.join(f'#{each}' for each in found['samples'])} alone, searched last)"
    if found["r_hat"] is None:
        return (
            f'<p class="faint">{words}; too few steps to tell whether they have mixed{whose}.</p>'
        )
    r_hat = max((each for each in _all(found["r_hat"]) if each is not None), default=math.inf)
    ess = min((each for each in _all(found["ess"]) if each is not None), default=0.0)
    words += f"; largest split R-hat {r_hat:.2f}, least effective sample size {ess:.0f}{whose}."
    if r_hat > MIXED:
        words += (
            " They have not mixed: read the intervals with the coverage that was measured "
            "(docs/langevin.md)."
        )
    return f'<p class="faint">{words}</p>'


def _all(quantities: dict[str, Any]) -> list[float | None]:
    return [quantities["residual"], *quantities["coordinates"]]


def _settings(record: Record) -> str:
    prior = record["prior"]
    pairs = {
        "prior": f"{prior['name']}, {prior['resolution']} px, sha256 {prior['sha256']}",
        **record.get("options", {}),
        "operator": _operator(record["operator"]),
        "seconds": ", ".join(f"{key[:-2]} {value}" for key, value in record["timing"].items()),
        "device": f"{record['device']}, torch {record['torch']}",
        "notes": "; ".join(record["input"].get("notes", [])),
    }
    lines = [
        f"<tr><th>{escaped(key)}</th><td>{escaped(value)}</td></tr>"
        for key, value in pairs.items()
        if value not in (None, "")
    ]
    return f"<table>{''.join(lines)}</table>"


def command_of(record: Record) -> str:
    """Returns the shell command that makes the samples of a `result.json` again."""
    known = {field.name for field in fields(SearchConfig)}
    given = {key: value for key, value in record.get("config", {}).items() if key in known}
    options = RunOptions(
        prior=record["prior"].get("source"),
        align=record.get("align", "auto"),
        cluster=bool(record.get("cluster")),
        save_steps=any(each.get("frames") for each in record["samples"]),
    )
    config = SearchConfig(**{**given, "samples": len(record["samples"])})
    words = [str(record["input"]["path"]), *options.arguments(), *config.arguments()]
    return shlex.join(["pulse-sr", "run", *words])
