"""The plots of an evaluation: perception against distortion, calibration, spectra.

Shapes: N inputs, L levels, K rings.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr.metrics.evaluation import Calibration
from pulse_sr.metrics.power_spectrum import TO_DECIBELS, ring_frequencies

Values = NDArray[np.float64]

_DPI = 100
_SIZE = (7.2, 5.2)
_WIDE = (11.5, 5.2)
#: More groups than these can not be told apart by colour.
_MOST_COLOURS = 10
_BAND = (10, 90)


def draw_perception(
    psnr: Values,
    distance: Values,
    labels: tuple[str, str],
    groups: Mapping[str, Sequence[int]] | None = None,
    column: str = "",
) -> bytes:
    """Each input by its distortion and by its distance to the truth as a network sees it.

    Args:
        psnr: `[N]` in dB, NaN where there is none.
        distance: `[N]`.
        labels: of the two axes.
        groups: name -> places of inputs, drawn in one colour each.
        column: what the groups are.

    Returns:
        a PNG.
    """
    figure, [axis] = new_figure(_SIZE)
    few = groups is not None and len(groups) <= _MOST_COLOURS
    shown = dict(groups) if groups and few else {"inputs": range(len(psnr))}
    size = float(np.clip(5000 / max(len(psnr), 1), 9, 40))
    for i, (name, places) in enumerate(shown.items()):
        x, y = psnr[list(places)], distance[list(places)]
        known = np.isfinite(x) & np.isfinite(y)
        label = f"{name} ({known.sum()})"
        axis.scatter(x[known], y[known], s=size, color=f"C{i}", alpha=0.45, linewidths=0)
        axis.scatter([], [], s=40, color=f"C{i}", linewidths=0, label=label)
        if len(shown) > 1 and known.any():
            axis.scatter(
                x[known].mean(), y[known].mean(), s=110, color=f"C{i}", marker="D", edgecolor="k"
            )
    known = np.isfinite(psnr) & np.isfinite(distance)
    if known.any():
        mean = psnr[known].mean(), distance[known].mean()
        text = f"mean: {mean[0]:.2f} dB, {mean[1]:.3f}"
        axis.scatter(*mean, s=170, color="k", marker="+", linewidths=2, label=text)
    axis.set_title("perception against distortion (best: lower right)")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    several = len(shown) > 1
    return png_of(figure, axis, legend=f"{column} (diamonds: means)" if several else "")


def draw_calibration(calibration: Calibration) -> bytes:
    """Coverage of the intervals against their level, and the ranks of the truth.

    Returns:
        a PNG.
    """
    figure, [left, right] = new_figure(_WIDE, 2)
    count, levels = calibration.samples, np.array(calibration.levels)
    left.plot([0, 100], [0, 100], color="0.6", linestyle="--", label="calibrated")
    left.plot(
        100 * levels, 100 * calibration.coverage, color="C0", marker="o", label="these samples"
    )
    left.set_xlabel("nominal level of the interval (%)")
    left.set_ylabel("truth's pixel values inside (%)")
    left.set_xlim(0, 100)
    left.set_ylim(0, 100)
    left.set_title(f"coverage, {calibration.inputs} inputs x {count} samples")
    right.bar(np.arange(count + 1), 100 * calibration.ranks, color="C0", label="these samples")
    right.axhline(100 / (count + 1), color="0.4", linestyle="--", label="calibrated")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_xlabel("rank: samples below the truth's pixel value")
    right.set_ylabel("share of pixel values (%)")
    right.set_title("rank histogram of the truth")
    return png_of(figure, left, right)


def draw_spectra(ours: Values, theirs: Values) -> bytes:
    """Mean spectra of results and references.

    Args:
        ours: profiles `[N, K]` of `power_spectrum.spectral_profile`.
        theirs: the same of the references.

    Returns:
        a PNG.
    """
    figure, [axis] = new_figure(_SIZE)
    frequency = ring_frequencies(ours.shape[1])
    kept = frequency <= 0.5
    for profiles, name, colour in ((theirs, "references", "0.3"), (ours, "results", "C0")):
        decibels = TO_DECIBELS * profiles[:, kept]
        low, high = np.percentile(decibels, _BAND, axis=0)
        axis.fill_between(frequency[kept], low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(frequency[kept], decibels.mean(axis=0), color=colour, label=name)
    axis.set_title(f"radial spectra of {len(ours)} images (band: {_BAND[0]} to {_BAND[1]} %)")
    axis.set_xlabel("spatial frequency (cycles per px; 0.5 is Nyquist)")
    axis.set_ylabel("magnitude of the luma's coefficients (dB)")
    axis.set_xlim(0, 0.5)
    return png_of(figure, axis)


def new_figure(size: tuple[float, float], columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure of a size in inches, and its axes from left to right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size, _DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False).flat)


def png_of(figure: Any, *axes: Any, legend: str = "", below: bool = False) -> bytes:
    """Adds grids and legends to the axes; returns the figure as PNG.

    Args:
        figure: of `new_figure`.
        axes: of the figure.
        legend: its heading.
        below: one legend for all axes, that of the first, under them.
    """
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if not below:
            shown = axis.legend(title=legend or None, fontsize=9, framealpha=0.85, scatterpoints=1)
            for handle in shown.legend_handles:
                handle.set_alpha(1)
    if below:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
