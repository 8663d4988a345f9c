"""Put the tables of docs/results into the documents, between their markers.

    python scripts/render_tables.py            # write them
    python scripts/render_tables.py --check    # say what differs or was typed; exit code 1

Of `<!-- table: NAME -->` ... `<!-- end -->` all between the two lines is replaced by the table of
docs/results/NAME.json; NAME/PART takes one of the document's `tables`. `<!-- facts: NAME -->` gives
the line on date, machine and command. The form of the files is told in `pulse_sr/report/table.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import write_text_atomic
from pulse_sr.files.documents import read_json
from pulse_sr.report.table import Document, facts, markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
#: Their tables are all rendered: a number in any other is one that somebody typed.
ALL_RENDERED = (
    "docs/benchmarks.md",
    "docs/experiments.md",
    "pulse_sr/priors/bundled/README.md",
    "pulse_sr/sr/bundled/README.md",
)

_BLOCK = re.compile(r"<!-- (table|facts): (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
_FORMS = {"table": markdown, "facts": facts}


def documents(root: Path = ROOT) -> list[Path]:
    """Every Markdown file of the project."""
    folders = [root, *(root / name for name in ("docs", "pulse_sr", "scripts"))]
    found = {*root.glob("*.md")} | {path for each in folders[1:] for path in each.rglob("*.md")}
    return sorted(found)


def rendered(text: str, results: Path = RESULTS) -> str:
    """The text of a document with its tables as the results have them.

    Raises:
        UsageError: a name without a file, or a file that is no table.
    """

    def block(match: re.Match[str]) -> str:
        kind, name, _ = match.groups()
        made = _FORMS[kind](table_of(name, results))
        return f"<!-- {kind}: {name} -->\n{made}\n<!-- end -->"

    return _BLOCK.sub(block, text)


def table_of(name: str, results: Path = RESULTS) -> Document:
    """The document of a name; a part of one has the date, environment and command of the whole."""
    file, _, part = name.partition("/")
    document = read_json(results / f"{file}.json")
    try:
        return {**document, "title": "", **document["tables"][part]} if part else dict(document)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{results / file}.json has no table {name!r}") from error


def typed_rows(text: str) -> list[str]:
    """The rows of tables with numbers that no file of results stands for."""
    rest = _BLOCK.sub("", text)
    return [line for line in rest.splitlines() if line.startswith("|") and re.search(r"\d", line)]


def complaints(root: Path = ROOT) -> list[str]:
    """What is not as rendered, and what was typed."""
    found = []
    for path in documents(root):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        if rendered(text, root / "docs" / "results") != text:
            found.append(f"{name}: not as rendered, run scripts/render_tables.py")
        if name in ALL_RENDERED:
            found += [f"{name}: a typed row: {row}" for row in typed_rows(text)]
    return found


def main() -> int:
    """Writes, or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        found = complaints()
        print("\n".join(found))
        return int(bool(found))
    for path in documents():
        text = path.read_text(encoding="utf-8")
        made = rendered(text)
        if made != text:
            write_text_atomic(path, made)
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
