"""The page of a run: one self-contained `index.html` that opens without a network.

Everything that came from outside (file names, error messages) is escaped; there are no scripts.
"""

from __future__ import annotations

import base64
import html
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pulse_sr import __version__
from pulse_sr.config import SearchConfig
from pulse_sr.report.pictures import NOTICE

Row = Mapping[str, Any]
Record = Mapping[str, Any]

#: Pictures are embedded until the page holds this many bytes of them; later ones are linked.
EMBED_BYTES = 64 * 2**20

_STYLE = """
:root{color-scheme:light dark;--paper:#f8f8f6;--card:#fff;--ink:#1c1c20;--faint:#66666e;
--line:#dddcd6;--ok:#1d6b3a;--low:#8a5a00;--bad:#a82a20}
@media(prefers-color-scheme:dark){:root{--paper:#161618;--card:#212125;--ink:#ececf0;--faint:#a0a0aa;
--line:#38383e;--ok:#6fcf97;--low:#e8b75a;--bad:#ff8a7d}}
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
figure.std img{height:auto}
figcaption{font-size:13px;color:var(--faint);line-height:1.35;margin-top:4px}
.ok{color:var(--ok)}.below_target{color:var(--low)}.failed{color:var(--bad)}
pre{background:var(--paper);border:1px solid var(--line);border-radius:6px;padding:8px 10px;
overflow-x:auto;font-size:13px;margin:6px 0}
details summary{cursor:pointer;color:var(--faint);font-size:14px}
.grid{max-width:100%;border-radius:6px;margin-top:10px}
"""


class _Pictures:
    """Turns files into `src` values: data URIs while the budget lasts, then relative links."""

    def __init__(self, out: Path) -> None:
        self.out, self.left, self.linked = out, EMBED_BYTES, 0

    def source(self, stem: str, name: str) -> str:
        path = self.out / stem / name
        try:
            if path.stat().st_size > self.left:
                self.linked += 1
                return quote(os.fsencode(f"{stem}/{name}"))
            content = path.read_bytes()
        except OSError:
            return ""
        self.left -= len(content)
        return "data:image/png;base64," + base64.b64encode(content).decode("ascii")

    def figure(self, stem: str, name: str, caption: str, kind: str = "") -> str:
        alt = html.escape(f"{name} of {stem}", quote=True)
        return (
            f'<figure class="{kind}"><img src="{self.source(stem, name)}" alt="{alt}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def render_page(out: Path, rows: Sequence[Row], records: Mapping[str, Record | None]) -> str:
    """Returns the HTML page of a run folder.

    Args:
        out: the run folder, where the pictures are read.
        rows: the manifest.
        records: the `result.json` of each stem, None where there is none.
    """
    pictures = _Pictures(out)
    sections = [
        _section(f"i{i}", row, records.get(row["stem"]), pictures) for i, row in enumerate(rows)
    ]
    linked = ""
    if pictures.linked:
        linked = (
            f'<p class="faint">{pictures.linked} pictures are linked, not embedded '
            f"(more than {EMBED_BYTES >> 20} MB): keep this page in its folder.</p>"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>pulse-sr: {len(rows)} inputs</title><style>{_STYLE}</style></head><body><main>\n"
        f"<h1>pulse-sr</h1><p class='faint'>version {_text(__version__)}, {_counts(rows)}</p>\n"
        f'<p class="notice"><strong>{NOTICE}</strong> Many different faces downscale to the same '
        "small picture; these are some of them. Do not use them to identify anyone.</p>\n"
        f"{linked}{_overview(rows, records)}\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _counts(rows: Sequence[Row]) -> str:
    parts = [f"{len(rows)} input" + ("" if len(rows) == 1 else "s")]
    for status in ("ok", "below_target", "failed"):
        number = sum(row.get("status") == status for row in rows)
        if number:
            parts.append(f"{number} {status.replace('_', ' ')}")
    return ", ".join(parts)


def _overview(rows: Sequence[Row], records: Mapping[str, Record | None]) -> str:
    if len(rows) < 2:
        return ""
    lines = []
    for i, row in enumerate(rows):
        record = records.get(row["stem"]) or {}
        decibels = [each["lr_psnr"] for each in record.get("samples", [])]
        spread = record.get("diversity", {}).get("pixel_std")
        lines.append(
            f'<tr><td><a href="#i{i}">{_text(row["stem"])}</a></td><td>{_status(row)}</td>'
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


def _status(row: Row) -> str:
    status = _text(row.get("status", ""))
    return f'<span class="{status}">{status.replace("_", " ")}</span>'


def _section(anchor: str, row: Row, record: Record | None, pictures: _Pictures) -> str:
    heading = f"<h2>{_text(row['stem'])} <small>{_status(row)}</small></h2>"
    heading += f'<p class="faint">{_text(row.get("path"))}</p>'
    if row.get("status") == "failed":
        hint = f"<p class='faint'>hint: {_text(row['hint'])}</p>" if row.get("hint") else ""
        heading += f'<p class="failed">{_text(row.get("error"))}</p>{hint}'
    body = _results(row["stem"], record, pictures) if record and record.get("samples") else ""
    return f'<section id="{anchor}">{heading}{body}</section>'


def _results(stem: str, record: Record, pictures: _Pictures) -> str:
    samples = record["samples"]
    strip = [pictures.figure(stem, "input.png", "input", "input")]
    for each in samples:
        match = f"{each['lr_psnr_search']:.1f} → {each['lr_psnr']:.1f} dB"
        caption = f"#{each['index']} {_status(each)}<br>{match}"
        strip.append(pictures.figure(stem, each["file"], caption))
        if each.get("pasted"):
            strip.append(pictures.figure(stem, each["pasted"], f"#{each['index']} in the photo"))
    strip.append(pictures.figure(stem, "mean.png", "mean"))
    strip.append(pictures.figure(stem, "std.png", "standard deviation", "std"))
    grid = f'<img class="grid" src="{pictures.source(stem, "grid.png")}" alt="all in one picture">'
    return (
        f'<div class="strip">{"".join(strip)}</div>{_numbers(record)}'
        f"<details><summary>settings, and how to make them again</summary>{_settings(record)}"
        f"<pre>{_text(command_of(record))}</pre></details>"
        f"<details><summary>all in one picture</summary>{grid}</details>"
    )


def _numbers(record: Record) -> str:
    lines = [
        f"<tr><td>{_text(each['file'])}</td><td class=n>{_text(each['seed'])}</td>"
        f"<td>{_status(each)}</td><td class=n>{each['steps']}</td>"
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
    )


def _settings(record: Record) -> str:
    prior, operator = record["prior"], record["operator"]
    pairs = {
        "prior": f"{prior['name']}, {prior['resolution']} px, sha256 {prior['sha256']}",
        "operator": f"{operator['spec']}, {operator['scale']} times smaller",
        **record.get("options", {}),
        "seconds": ", ".join(f"{key[:-2]} {value}" for key, value in record["timing"].items()),
        "device": f"{record['device']}, torch {record['torch']}",
        "notes": "; ".join(record["input"].get("notes", [])),
    }
    lines = [
        f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>"
        for key, value in pairs.items()
        if value not in (None, "")
    ]
    return f"<table>{''.join(lines)}</table>"


def command_of(record: Record) -> str:
    """Returns the shell command that makes the samples of a `result.json` again."""
    known = {field.name for field in fields(SearchConfig)}
    given = {key: value for key, value in record.get("config", {}).items() if key in known}
    words = ["pulse-sr", "run", str(record["input"]["path"])]
    if record["prior"].get("source"):
        words += ["--prior", record["prior"]["source"]]
    if record.get("align", "auto") != "auto":
        words += ["--align", record["align"]]
    words += SearchConfig(**{**given, "samples": len(record["samples"])}).arguments()
    return shlex.join(words)
