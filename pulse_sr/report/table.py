"""Tables of results: documents of rows, rendered by the forms of their columns.

A document is JSON with `title`, `date`, `environment`, `command`, `columns` (heading -> form) and
`rows` (objects). A form is text in Python's format language over the keys of a row, such as
"{psnr:.2f}", "{db:.1f} ({db_min:.1f})" or "{range[0]:.2f}"; where a row lacks a key of it, the cell
is empty.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

Document = dict[str, Any]
Columns = Mapping[str, str]
Rows = Sequence[Mapping[str, Any]]

#: Of the environment, what stands below a table, and in which words.
_FACTS = {"cpu": "{}", "device": "on {}", "threads": "threads {}", "torch": "torch {}"}


def result_document(
    title: str,
    command: str,
    columns: Columns,
    rows: Rows,
    environment: Mapping[str, Any],
    **more: Any,
) -> Document:
    """A document of today; `more` is kept beside the table."""
    today = datetime.date.today().isoformat()
    own = {"title": title, "date": today, "environment": dict(environment), "command": command}
    return {**own, "columns": dict(columns), "rows": list(rows), **more}


def cells(columns: Columns, rows: Rows, empty: str = "") -> list[tuple[str, ...]]:
    """The headings, then each row as text.

    Raises:
        ValueError: a form that a value does not suit.
    """
    found = [tuple(_cell(form, row, empty) for form in columns.values()) for row in rows]
    return [tuple(columns), *found]


def _cell(form: str, row: Mapping[str, Any], empty: str) -> str:
    keys = [re.split(r"[.\[]", key)[0] for _, key, _, _ in Formatter().parse(form) if key]
    if any(row.get(key) is None for key in keys):
        return empty
    try:
        return form.format_map(row)
    except ValueError as error:
        raise ValueError(f"{form} of {[row[key] for key in keys]}: {error}") from error


def markdown(document: Mapping[str, Any]) -> str:
    """The table of a document, below its title."""
    found = cells(document["columns"], document["rows"])
    lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in found]
    lines.insert(1, "|---" * len(found[0]) + "|")
    title = document.get("title")
    return "\n".join([f"**{title}**\n", *lines] if title else lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def facts(document: Mapping[str, Any]) -> str:
    """When, on what and by which command the numbers of a document were made, and its note."""
    environment = document.get("environment", {})
    words = [form.format(environment[key]) for key, form in _FACTS.items() if key in environment]
    about = ", ".join([document["date"], *(each for each in words if each != "on cpu")])
    command = document.get("command")
    about += f": `{command}`." if command else "."
    return " ".join([about, document["note"]] if document.get("note") else [about])
