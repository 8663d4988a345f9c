"""The reports of `pulse-sr bench` as text: tables, then lines on what they were measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pulse_sr.cli.console import table
from pulse_sr.report.table import cells

#: The columns of a benchmark, as forms over its rows.
SEARCH_COLUMNS = {
    "name": "{name}",
    "ours_s": "{ours_s:.4g}",
    "baseline_s": "{baseline_s:.4g}",
    "ratio": "{ratio:.2f}x",
}
_RANGE = {"range": "{ratio_range[0]:.2f}-{ratio_range[1]:.2f}x"}
MATCH_COLUMNS = {
    **SEARCH_COLUMNS,
    **_RANGE,
    "steps": "{ours_steps:g} and {baseline_steps:g}",
    "samples there": "{ours_reached} and {baseline_reached} of {samples}",
}
TRAIN_COLUMNS = {
    **SEARCH_COLUMNS,
    **_RANGE,
    "images/s": "{ours_images_per_s:.4g} against {baseline_images_per_s:.4g}",
}
#: Of whole runs, for files of results; on screen it is a line of its own.
MEMORY_COLUMN = {"peak MB": "{ours_peak_mb:.0f} against {baseline_peak_mb:.0f}"}
#: Of the groups of rows of `bench ops` (`ops.summary`).
OPS_COLUMNS = {
    "op": "{op}",
    "order": "{layout}",
    "direction": "{direction}",
    "number format": "{dtype}",
    "rows": "{rows}",
    "usual / ours": "{ratio:.2f}",
    "reference / ours": "{reference_ratio:.2f}",
    "least of these": "{least_ratio:.2f}",
    "share of copy bandwidth": "{copy_percent:.0f} %",
}


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


# Title, key and form of the columns of `bench ops`, each there where some row has the key.
_OP_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("ours", "ours_s", _microseconds),
    ("reference", "reference_s", _microseconds),
    ("usual", "baseline_s", _microseconds),
    ("graph", "ours_graph_s", _microseconds),
    ("ref/ours", "reference_ratio", lambda r: f"{r:.2f}x"),
    ("usual/ours", "ratio", lambda r: f"{r:.2f}x"),
    ("in graphs", "graph_ratio", lambda r: f"{r:.2f}x"),
    ("GB/s", "bandwidth", lambda b: f"{b / 1e9:.1f}"),
    ("copy", "copy_fraction", lambda f: f"{100 * f:.0f} %"),
)


#: Parts of the environment that have lines of their own.
_OWN_LINES = (
    "copy_bandwidth",
    "matrix_rate",
    "matrix_rates",
    "matrix_format",
    "left_out_for_time",
    "left_out_for_memory",
)


def search_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench search` as text."""
    rows = report["rows"]
    return [
        _shown(SEARCH_COLUMNS, rows),
        *_roofline_lines(report),
        *_baseline_lines(report),
        *_memory_lines(rows),
        _environment_line(report, but=_OWN_LINES),
    ]


def _shown(columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    return table(cells(columns, rows, empty="-"))


def _roofline_lines(report: dict[str, Any]) -> list[str]:
    lines = [_roofline_line(row) for row in report["rows"] if "roofline" in row]
    environment = report["environment"]
    products = ", ".join(
        f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in environment["matrix_rates"].items()
    )
    copy = f"{environment['copy_bandwidth'] / 1e9:.1f} GB/s"
    return [*lines, f"ceilings: copy {copy}, matrix products {products}"]


def _roofline_line(row: dict[str, Any]) -> str:
    found = row["roofline"]
    times = (found[key] * 1e3 for key in ("compute_s", "memory_s", "bound_s", "step_s"))
    compute, memory, bound, step = times
    parts = sorted(found["parts"].items(), key=lambda item: -item[1]["bound_s"])
    shares = [f"{name} {100 * part['bound_s'] / found['bound_s']:.0f} %" for name, part in parts]
    return (
        f"{row['name']}: roofline {100 * found['share']:.0f} % (compute bound {compute:.4g} ms, "
        f"memory bound {memory:.4g} ms, the larger of each layer {bound:.4g} ms, step {step:.4g} "
        f"ms; {found['flop'] / 1e9:.4g} GFLOP, {found['bytes'] / 1e9:.4g} GB; of the bound: "
        f"{', '.join(shares)})"
    )


def _baseline_lines(report: dict[str, Any]) -> list[str]:
    """What the plain loop did, where that is not what ours did."""
    lines, everyone = [], report["environment"]["samples"]
    for row in report["rows"]:
        if "baseline_missing" in row:
            lines.append(f"{row['name']}: no baseline, {row['baseline_missing']}")
        elif "baseline_samples" in row:
            ours = row["measured_steps"], everyone
            theirs = row["baseline_measured_steps"], row["baseline_samples"]
            if ours != theirs:
                lines.append(
                    f"{row['name']}: scaled from {theirs[0]} steps with {theirs[1]} samples of the "
                    f"baseline, {ours[0]} with {ours[1]} of ours"
                )
    return lines


def _memory_lines(rows: list[dict[str, Any]]) -> list[str]:
    return [_memory_line(row) for row in rows if "ours_peak_mb" in row]


def _memory_line(row: dict[str, Any]) -> str:
    if "baseline_peak_mb" not in row:
        return (
            f"{row['name']}: peak memory {row['ours_peak_mb']:.0f} MB (the search alone "
            f"{row['ours_added_mb']:.0f}), system time {row['ours_system_s']:.2f} s"
        )
    steps = row["measured_steps"], row["baseline_measured_steps"]
    each = f" ({steps[0]} and {steps[1]} steps)" if steps[0] != steps[1] else ""
    return (
        f"{row['name']}: peak memory {row['ours_peak_mb']:.0f} MB against "
        f"{row['baseline_peak_mb']:.0f} MB (the search alone {row['ours_added_mb']:.0f} and "
        f"{row['baseline_added_mb']:.0f}), system time {row['ours_system_s']:.2f} s against "
        f"{row['baseline_system_s']:.2f} s{each}"
    )


def match_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench match` as text."""
    return [_shown(MATCH_COLUMNS, report["rows"]), _environment_line(report)]


def train_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench train` as text."""
    memory = [
        f"{row['name']}: peak memory {row['ours_peak_mb']:.0f} MB against "
        f"{row['baseline_peak_mb']:.0f} MB (the training alone {row['ours_added_mb']:.0f} and "
        f"{row['baseline_added_mb']:.0f}), system time of a step {row['ours_system_s']:.2g} s "
        f"against {row['baseline_system_s']:.2g} s"
        for row in report["rows"]
    ]
    return [_shown(TRAIN_COLUMNS, report["rows"]), *memory, _environment_line(report)]


def ops_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench ops` as text of at most 140 columns, times in microseconds."""
    rows, fixed, environment = report["rows"], report["pytorch"], report["environment"]
    lines = [_ops_table(rows)] if rows else []
    if fixed:
        lines += ["", "one pass in PyTorch (FastGAN's pair):", _ops_table(fixed)]
    if rows:
        mean = f"ratio {report['ratio']:.2f}x: geometric mean over {len(rows)} rows of usual / ours"
        lines += ["", mean]
    lines += [
        f"copy bandwidth {environment['copy_bandwidth'] / 1e9:.1f} GB/s, matrix products "
        f"{environment['matrix_rate'] / 1e12:.2f} TFLOP/s in {environment['matrix_format']}",
        f"rows left out: {environment['left_out_for_time']} for want of time, "
        f"{environment['left_out_for_memory']} for want of memory",
        _environment_line(report, but=_OWN_LINES),
    ]
    return lines


def _ops_table(rows: list[dict[str, Any]]) -> str:
    columns = [column for column in _OP_COLUMNS if any(column[1] in row for row in rows)]
    lines = [("name", *(title for title, _, _ in columns))]
    for row in rows:
        each = (form(row[key]) if key in row else "-" for _, key, form in columns)
        lines.append((row["name"], *each))
    return table(lines)


def _environment_line(report: dict[str, Any], but: Sequence[str] = ()) -> str:
    values = report["environment"].items()
    return "  ".join(f"{key} {value}" for key, value in values if key not in but)
