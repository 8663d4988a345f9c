"""The page of a run: one self-contained `index.html` that opens without a network.

Everything that came from outside (file names, error messages) is escaped; there are no scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pulse_sr import __version__
from pulse_sr.report.canvas import NOTICE
from pulse_sr.report.page_section import Pictures, Record, Row, escaped, section, status_mark

#: Pictures are embedded until the page holds this many bytes of them; later ones are linked.
EMBED_BYTES = 64 * 2**20

_STYLE = """
:root{color-scheme:light dark;--paper:#f8f8f6;--card:#fff;--ink:#1c1c20;--faint:#66666e;
--line:#dddcd6;--role:#145496;--ok:#1d6b3a;--low:#8a5a00;--bad:#a82a20}
@media(prefers-color-scheme:dark){:root{--paper:#161618;--card:#212125;--ink:#ececf0;--faint:#a0a0aa;
--line:#38383e;--role:#7db4f0;--ok:#6fcf97;--low:#e8b75a;--bad:#ff8a7d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:0;overflow-wrap:anywhere}
p{margin:6px 0}.faint{color:var(--faint);font-size:14px;overflow-wrap:anywhere}
.notice{border-left:4px solid var(--low);padding:8px 14px;margin:18px 0;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:14px;margin:10px 0}
th,td{text-align:left;padding:4px 12px 4px 4px;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;
margin:18px 0}
.strip{display:flex;flex-wrap:wrap;gap:12px;margin:14px 0}
figure{margin:0;width:132px}figure img{width:132px;height:132px;object-fit:contain;display:block;
border-radius:6px;image-rendering:auto;background:var(--paper)}
figure.input img{image-rendering:pixelated}
.spread{display:flex;flex-wrap:wrap;gap:14px;margin:8px 0 14px}
.spread figure{width:256px;flex:none}.spread figure.wide{flex:1 1 480px;width:auto;max-width:840px}
.spread img{width:100%;height:auto}
h3{font-size:16px;margin:14px 0 0}.role{color:var(--role);font-weight:600}
figcaption{font-size:13px;color:var(--faint);line-height:1.35;margin-top:4px}
.ok{color:var(--ok)}.below_target{color:var(--low)}.failed{color:var(--bad)}
pre{background:var(--paper);border:1px solid var(--line);border-radius:6px;padding:8px 10px;
overflow-x:auto;font-size:13px;margin:6px 0}
details summary{cursor:pointer;color:var(--faint);font-size:14px}
.grid{max-width:100%;border-radius:6px;margin-top:10px}
"""


def render_page(
    out: Path, rows: Sequence[Row], record_of: Callable[[str], Record | None]
) -> Iterator[str]:
    """Returns the HTML page of a run folder, part by part: with all its pictures it is large.

    Args:
        out: the run folder, where the pictures are read.
        rows: the manifest.
        record_of: reads the `result.json` of a stem, None where there is none. It is asked twice
            for each: of many inputs, all of them do not fit into memory.
    """
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>pulse-sr: {len(rows)} inputs</title><style>{_STYLE}</style></head><body><main>\n"
        f"<h1>pulse-sr</h1><p class='faint'>version {escaped(__version__)}, {_counts(rows)}</p>\n"
        f'<p class="notice"><strong>{NOTICE}</strong> Many different faces downscale to the same '
        "small picture; these are some of them. Do not use them to identify anyone.</p>\n"
        f"{_overview(rows, record_of)}\n"
    )
    pictures = Pictures(out, EMBED_BYTES)
    for i, row in enumerate(rows):
        yield section(f"i{i}", row, record_of(row["stem"]), pictures) + "\n"
    if pictures.linked:
        yield (
            f'<p class="faint">{pictures.linked} pictures are linked, not embedded '
            f"(more than {EMBED_BYTES >> 20} MB): keep this page in its folder.</p>\n"
        )
    yield "</main></body></html>\n"


def _counts(rows: Sequence[Row]) -> str:
    parts = [f"{len(rows)} input" + ("" if len(rows) == 1 else "s")]
    for status in ("ok", "below_target", "failed"):
        number = sum(row.get("status") == status for row in rows)
        if number:
            parts.append(f"{number} {status.replace('_', ' ')}")
    return ", ".join(parts)


def _overview(rows: Sequence[Row], record_of: Callable[[str], Record | None]) -> str:
    if len(rows) < 2:
        return ""
    lines = []
    for i, row in enumerate(rows):
        record = record_of(row["stem"]) or {}
        decibels = [each["lr_psnr"] for each in record.get("samples", [])]
        spread = record.get("diversity", {}).get("pixel_std")
        lines.append(
            f'<tr><td><a href="#i{i}">{escaped(row["stem"])}</a></td><td>{status_mark(row)}</td>'
            f'<td class="n">{len(decibels) or "–"}</td>'
            f'<td class="n">{f"{min(decibels):.1f}" if decibels else "–"}</td>'
            f'<td class="n">{"–" if spread is None else f"{spread:.3f}"}</td>'
            f'<td class="n">{row.get("seconds") or 0:.1f}</td></tr>'
        )
    return (
        "<table><tr><th>input</th><th>status</th><th class=n>samples</th>"
        "<th class=n>lowest LR-PSNR, dB</th><th class=n>spread (std)</th>"
        "<th class=n>seconds</th></tr>" + "".join(lines) + "</table>"
    )
