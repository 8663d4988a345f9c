"""What a check of training data says: plain lines for people, a document for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pulse_sr.data.check import DataCheck
from pulse_sr.images.find import words_of

_MOST_LINES = 10

#: (fewer different images than this, what they are enough for), ascending.
_ENOUGH_FOR = (
    (
        100,
        "enough to see the command work, not for a prior: it will memorise these images and "
        "show copies of them; get more, use --cutout",
    ),
    (
        1000,
        "enough for a narrow prior that memorises part of these images; use --cutout, train "
        "briefly and compare its samples with the images",
    ),
    (
        2000,
        "enough for a small prior of limited variety; use --cutout, and look for samples that "
        "copy an image",
    ),
)


def verdict(check: DataCheck) -> str:
    """Returns what the data are enough for, in one line."""
    number = len(check.images)
    if check.resolution is None:
        return f"{number} images: {check.refusal}"
    counted = f"{number} images at {check.resolution} px"
    if check.different < number:
        counted += f", {check.different} of them different"
    words = check.refusal or _enough_for(check.different)
    if check.supported is not None and check.resolution > check.supported:
        words += f"; most have less than {check.resolution} px, so the prior would learn blur"
    return f"{counted}: {words}"


def lines(check: DataCheck) -> list[str]:
    """Returns the whole report; the verdict is the last line."""
    total = len(check.images) + len(check.unreadable)
    found = [f"{len(check.images)} of {total} images in {check.data} can be read"]
    if check.left_out:
        found.append(f"left out: {words_of(check.left_out)}")
    found += _first([f"not readable: {each.file} {each.reason}" for each in check.unreadable])
    if check.images:
        found += [*_sizes(check), *_duplicates(check), _framing(check)]
    found.append(_licence(check))
    return [*found, verdict(check)]


def document(check: DataCheck) -> dict[str, Any]:
    """Returns everything that was found as plain JSON values; files are paths within `data`."""
    smallest, median, largest = check.sides() if check.images else (None, None, None)
    losses = [image.cropped_away for image in check.not_square]
    return {
        "data": check.data,
        "readable": len(check.images),
        "unreadable": [
            {"file": each.file.as_posix(), "reason": each.reason} for each in check.unreadable
        ],
        "left_out": dict(sorted(check.left_out.items())),
        "sides": {"smallest": smallest, "median": median, "largest": largest},
        "resolution": check.resolution,
        "supported_resolution": check.supported,
        "enlarged": check.enlarged,
        "not_square": {
            "images": len(losses),
            "mean_cropped_away": round(sum(losses) / len(losses), 4) if losses else 0.0,
            "most_cropped_away": round(max(losses, default=0.0), 4),
        },
        "near_duplicates": [[file.as_posix() for file in group] for group in check.duplicates],
        "different": check.different,
        "framings": [{"framing": framing, "images": number} for framing, number in check.framings],
        "licence_files": [file.as_posix() for file in check.licences],
        "verdict": verdict(check),
        "exit_code": check.exit_code,
    }


def _enough_for(different: int) -> str:
    for limit, words in _ENOUGH_FOR:
        if different < limit:
            return words
    return "enough for a prior with the default settings; more images give more variety"


def _first(rows: Sequence[str], limit: int = _MOST_LINES) -> list[str]:
    more = [f"  and {len(rows) - limit} more (--json lists all)"] if len(rows) > limit else []
    return [f"  {row}" for row in rows[:limit]] + more


def _sizes(check: DataCheck) -> list[str]:
    smallest, median, largest = check.sides()
    rows = [
        f"sizes: shorter sides from {smallest} px, median {median:g} px; largest side {largest} px",
        f"resolution: the data support {check.supported} px; training takes {check.resolution} px, "
        f"{_are(check.enlarged)} smaller and would be enlarged",
    ]
    losses = [image.cropped_away for image in check.not_square]
    if losses:
        worst = max(check.not_square, key=lambda image: image.cropped_away)
        rows.append(
            f"cropping: {_are(len(losses))} not square and would keep the middle only; "
            f"{sum(losses) / len(losses):.0%} of the picture is lost on average, "
            f"{worst.cropped_away:.0%} of {worst.file}"
        )
    else:
        rows.append("cropping: all images are square, nothing is lost")
    return rows


def _duplicates(check: DataCheck) -> list[str]:
    if not check.duplicates:
        return ["near-duplicates: none"]
    files = sum(map(len, check.duplicates))
    groups = len(check.duplicates)
    rows = [", ".join(map(str, group[:4])) + _rest(len(group) - 4) for group in check.duplicates]
    heading = f"near-duplicates: {files} images in {groups} group{'' if groups == 1 else 's'}"
    return [heading, *_first(rows)]


def _rest(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _framing(check: DataCheck) -> str:
    framings, total = check.framings, len(check.images)
    framed = sum(number for _, number in framings)
    if not framings:
        return "framing: no sidecars of pulse-sr align; the prior's card will name no framing"
    names = ", ".join(f"{number} {framing.get('name', '?')}" for framing, number in framings)
    if len(framings) == 1 and framed == total:
        return f"framing: the same in all images ({names})"
    without = f"; {total - framed} images without a sidecar" if framed < total else ""
    return (
        f"framing: not the same in all images ({names}{without}), though the prior's card can "
        "name one only: align them all in the same way"
    )


def _licence(check: DataCheck) -> str:
    if not check.licences:
        return "licence: no licence file found; if you know the terms, name them with --licence"
    return f"licence: {', '.join(map(str, check.licences))}"


def _are(count: int) -> str:
    return {0: "no image is", 1: "1 image is"}.get(count, f"{count} images are")
