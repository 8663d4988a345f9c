"""What the page of a run says of one input, in words and numbers (`templates/page.html`)."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.inversion.blind.ranking import recorded_ranking
from pulse_sr.report.pictures import role_of

__all__ = [
    "ALIKE",
    "boxes_of",
    "command_of",
    "mixing_of",
    "recorded_ranking",
    "role_of",
    "settings_of",
    "shown_samples",
]

Row = Mapping[str, Any]
Record = Mapping[str, Any]

#: Mean width of the interval below which a person sees no difference (five of 255).
ALIKE = 0.02
#: Split R-hat up to which chains count as mixed (Vehtari et al., Bayesian Analysis 16, 2021).
MIXED = 1.01


def shown_samples(record: Record) -> list[dict[str, Any]]:
    """Returns the entries of a `result.json`'s samples as they are shown.

    That is in covering order where there is one (`--cluster`), else by index.
    """
    entries: list[dict[str, Any]] = list(record["samples"])
    order = record.get("cluster", {}).get("order")
    return sorted(entries, key=lambda each: order.index(each["index"])) if order else entries


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


def boxes_of(photo: Record) -> list[dict[str, Any]]:
    """Returns the numbers of the faces of a `photo.json`, and their places in percent."""
    width, height = photo["width"], photo["height"]
    boxes = []
    for face in photo["faces"]:
        across, down = ([corner[axis] for corner in face["quad"]] for axis in (0, 1))
        left, top = max(min(across), 0), max(min(down), 0)
        right, bottom = min(max(across), width), min(max(down), height)
        boxes.append(
            {
                "number": face["number"],
                "left": 100 * left / width,
                "top": 100 * top / height,
                "width": 100 * (right - left) / width,
                "height": 100 * (bottom - top) / height,
            }
        )
    return boxes


def mixing_of(record: Record) -> str:
    """Returns what a sampler's chains say of themselves."""
    found = record["diagnostics"]
    sigmas = [each["sigma"] * 255 for each in record["samples"]]
    words = f"The chains ended at a noise of {min(sigmas):.2f} to {max(sigmas):.2f} grey levels"
    whose = ""
    if len(found["samples"]) < len(record["samples"]):  # the steps of earlier runs are not kept
        whose = f" (of {', '.join(f'#{each}' for each in found['samples'])} alone, searched last)"
    if found["r_hat"] is None:
        return f"{words}; too few steps to tell whether they have mixed{whose}."
    r_hat = max((each for each in _all(found["r_hat"]) if each is not None), default=math.inf)
    ess = min((each for each in _all(found["ess"]) if each is not None), default=0.0)
    words += f"; largest split R-hat {r_hat:.2f}, least effective sample size {ess:.0f}{whose}."
    if r_hat > MIXED:
        words += (
            " They have not mixed: read the intervals with the coverage that was measured "
            "(docs/langevin.md)."
        )
    return words


def _all(quantities: dict[str, Any]) -> list[float | None]:
    return [quantities["residual"], *quantities["coordinates"]]


def settings_of(record: Record) -> dict[str, Any]:
    """Returns what the samples were made with, by name, as the page shows it."""
    prior = record["prior"]
    return {
        "prior": f"{prior['name']}, {prior['resolution']} px, sha256 {prior['sha256']}",
        "licence of the prior": prior.get("licence", "unknown"),
        **record.get("options", {}),
        "operator": _operator(record["operator"]),
        "seconds": ", ".join(f"{key[:-2]} {value}" for key, value in record["timing"].items()),
        "device": f"{record['device']}, torch {record['torch']}",
        "notes": "; ".join(record["input"].get("notes", [])),
    }


def _selection(record: Record) -> dict[str, Any]:
    """Which faces of photos the run took, as options."""
    chosen = {**record.get("selection", {}), "align": record.get("align", "auto")}
    return chosen | ({"faces": tuple(chosen["faces"])} if "faces" in chosen else {})


def _enlarging(photo: Record | None) -> dict[str, Any]:
    """How a photo was enlarged, as options."""
    if photo is None:
        return {}
    background = photo.get("background", {}).get("source")
    return {"upscale": photo["upscale"]} | ({"background": background} if background else {})


def command_of(record: Record, photo: Record | None = None) -> str:
    """Returns the shell command that makes the samples of a `result.json` again.

    Args:
        record: `result.json`.
        photo: the `photo.json` of a face's photo, which may have been written by a later run.
    """
    known = {field.name for field in fields(SearchConfig)}
    given = {key: value for key, value in record.get("config", {}).items() if key in known}
    try:
        options = RunOptions(
            prior=record["prior"].get("source"),
            **(_selection(record) | _enlarging(photo)),
            cluster=bool(record.get("cluster")),
            save_steps=any(each.get("frames") for each in record["samples"]),
        )
        config = SearchConfig(**{**given, "samples": len(record["samples"])})
    except (UsageError, TypeError, ValueError):  # of another version, or edited
        return "not known: the record has settings that no run can have"
    words = [str(record["input"]["path"]), *options.arguments(), *config.arguments()]
    return shlex.join(["pulse-sr", "run", *words])
