"""The curves of a training run as one picture: what was logged and scored against images shown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr.metrics.image_set import FRECHETS, INCEPTION_FRECHET, KERNELS, SLICED
from pulse_sr.report.training_history import History

Values = NDArray[np.float64]
Line = tuple[str, Values, Values]

_WIDTH_PX, _ROW_PX, _DPI = 1200, 290, 100
#: A smoothed curve is the mean over this share of the points on both sides together.
_SMOOTHED_SHARE = 0.04

#: (title, names of the log): what belongs into one panel. All other numbers are losses.
_PANELS = (
    ("sign of D: real and fake", ("real_sign", "fake_sign")),
    ("sign of the heads: real and fake", ("heads_real_sign", "heads_fake_sign")),
    ("penalties", ("r1", "r2", "path")),
    ("augmentation p", ("augment_p",)),
    ("learning rate", ("lr",)),
    ("images per second", ("images_per_second",)),
)
#: (title, beginnings of the names of scores)
_SCORES = (
    *((f"{name}, lower is better", (name,)) for name in (*FRECHETS.values(), *KERNELS.values())),
    (f"{SLICED}, lower is better", (SLICED,)),
    ("FID", (INCEPTION_FRECHET,)),
    ("PSNR on held-back photos, higher is better", ("PSNR",)),
)


def draw_curves(
    history: History,
    scores: Sequence[Mapping[str, Any]],
    floor: Mapping[str, float],
    floor_name: str = "other real images",
) -> bytes:
    """Draws one panel for each group of curves that the run has, two in a row.

    Args:
        history: the log.
        scores: records with `images` and `scores` (value by name), in their order.
        floor: scores of something else to compare with, drawn as dashed lines.
        floor_name: what that is.

    Returns:
        a PNG, 1200 px wide.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _log_panels(history)
    scored = _score_panels(scores)
    count = len(panels) + len(scored)
    rows = max(1, -(-count // 2))
    figure = Figure((_WIDTH_PX / _DPI, rows * _ROW_PX / _DPI), _DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axis, (title, lines) in zip(axes, panels, strict=False):
        _draw_log(axis, title, lines)
    for axis, (title, lines) in zip(axes[len(panels) :], scored, strict=False):
        _draw_scores(axis, title, lines, floor, floor_name)
    for axis in axes[count:]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _log_panels(history: History) -> list[tuple[str, list[Line]]]:
    apart = {name for _, names in _PANELS for name in names}
    losses = tuple(name for name in history.names if name not in apart)
    panels = []
    for title, names in (("losses", losses), *_PANELS):
        lines = [(name, *history.curve(name)) for name in names if name in history.names]
        if lines:
            panels.append((title, lines))
    return panels


def _score_panels(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Line]]]:
    names = list(dict.fromkeys(name for record in scores for name in record["scores"]))
    panels = []
    for title, beginnings in _SCORES:
        lines = [_score_line(name, scores) for name in names if name.startswith(beginnings)]
        if lines:
            panels.append((title, lines))
    return panels


def _score_line(name: str, scores: Sequence[Mapping[str, Any]]) -> Line:
    points = [(r["images"] / 1000, r["scores"][name]) for r in scores if name in r["scores"]]
    images, values = np.array(points, dtype=np.float64).T
    return name, images, values


def _draw_log(axis: Any, title: str, lines: Sequence[Line]) -> None:
    for i, (name, images, values) in enumerate(lines):
        axis.plot(images, values, color=f"C{i}", alpha=0.25, linewidth=0.8)
        axis.plot(images, smoothed(values), color=f"C{i}", linewidth=1.8, label=name)
    if all((values > 0).all() and values.max() > 50 * np.median(values) for _, _, values in lines):
        axis.set_yscale("log")
    _finish(axis, title)


def _draw_scores(
    axis: Any, title: str, lines: Sequence[Line], floor: Mapping[str, float], floor_name: str
) -> None:
    for i, (name, images, values) in enumerate(lines):
        label = name.removeprefix(f"{SLICED}, ")
        axis.plot(images, values, color=f"C{i}", marker="o", markersize=3.5, label=label)
        if name in floor:
            axis.axhline(floor[name], color=f"C{i}", linestyle="--", linewidth=1, alpha=0.7)
    if any(name in floor for name, _, _ in lines):
        axis.plot([], [], color="0.4", linestyle="--", linewidth=1, label=floor_name)
    _finish(axis, title)


def _finish(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=12)
    axis.set_xlabel("thousand images", fontsize=10)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, ncols=2)


def smoothed(values: Values) -> Values:
    """Centred moving mean over a twenty-fifth of the points; at the ends over what is there."""
    reach = max(1, round(len(values) * _SMOOTHED_SHARE / 2))
    padded = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (padded[last] - padded[first]) / (last - first)
