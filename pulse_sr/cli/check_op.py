"""`pulse-sr check-op`: which operator turns a high-res image into a low-res one."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_sr.cli.console import Console, emit_json, print_result, table
from pulse_sr.cli.options import CONTEXT, path_argument, standard_options
from pulse_sr.files.paths import FILE

_HIGHEST_DB = 200.0  # stands for "identical": JSON has no number for infinity


@click.command("check-op", context_settings=CONTEXT)
@path_argument("high", "HR", FILE)
@path_argument("low", "LR", FILE)
@standard_options
def command(high: Path, low: Path, console: Console) -> int:
    """Rank the operators that turn the image HR into the image LR, best first, in dB.

    Above 50 dB is a match (58.9 dB is what rounding to 8 bits leaves); below 40 dB it is another.
    Tried are the known conventions, the best Gaussian width, and, where LR shows them, grey and
    JPEG.
    """
    from pulse_sr.images.jpeg import read_quality
    from pulse_sr.images.read import read_image
    from pulse_sr.operators.ranking import rank_operators

    low_res = read_image(low).pixels
    quality = read_quality(low)
    after = [] if quality is None else [f"jpeg:{quality}"]
    ranked = rank_operators(read_image(high).pixels, low_res, after)
    ranked = [(spec, round(min(db, _HIGHEST_DB), 2)) for spec, db in ranked]
    best, best_db = ranked[0]
    if console.as_json:
        rows = [{"spec": spec, "db": db} for spec, db in ranked]
        emit_json({"high": str(high), "low": str(low), "best": best, "operators": rows})
        return 0
    print_result(table([("operator", "dB"), *((spec, f"{db:.1f}") for spec, db in ranked)]))
    if best_db < 40.0:
        console.line("none of them matches well: LR was probably made in another way")
    return 0
