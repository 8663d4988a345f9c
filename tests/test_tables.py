"""The tables of the documents: rendered from the files of results, none of their numbers typed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from pulse_sr.errors import UsageError
from pulse_sr.report.table import cells, facts, markdown, result_document

DOCUMENT = {
    "title": "Speed",
    "date": "2026-11-29",
    "environment": {"cpu": "Xeon", "threads": 1, "torch": "2.14.1", "device": "cpu", "cores": 2},
    "command": "pulse-sr bench x",
    "columns": {"method": "{method}", "dB": "{db:.1f} ({least:.2f})", "share": "{share:.0%}"},
    "rows": [
        {"method": "a|b", "db": 1.25, "least": 0.5, "share": 0.781},
        {"method": "c", "db": 3.0, "least": None},
    ],
}
TABLE = """**Speed**

| method | dB | share |
|---|---|---|
| a\\|b | 1.2 (0.50) | 78% |
| c |  |  |"""


@pytest.fixture
def script(monkeypatch):
    """The module scripts/render_tables.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    return importlib.import_module("render_tables")


@pytest.fixture
def project(tmp_path):
    """A project with one file of results, and a document with its table as rendered."""
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "speed.json").write_text(json.dumps(DOCUMENT))
    page = f"# Page\n\n<!-- table: speed -->\n{TABLE}\n<!-- end -->\n\nEnd.\n"
    (tmp_path / "docs" / "page.md").write_text(page)
    return tmp_path


def test_the_documents_are_as_rendered_and_no_number_is_typed(script):
    assert script.complaints() == []


def test_a_table_is_the_rows_in_the_forms_of_the_columns():
    assert markdown(DOCUMENT) == TABLE
    assert cells({"x": "{x:.0f}"}, [{"x": 2.0}, {}], "-") == [("x",), ("2",), ("-",)]
    with pytest.raises(ValueError, match="none"):
        cells({"x": "{x:.1f}"}, [{"x": "none"}])


def test_below_it_stand_date_machine_command_and_note():
    line = "2026-11-29, Xeon, threads 1, torch 2.14.1: `pulse-sr bench x`."
    assert facts(DOCUMENT) == line
    assert facts({"date": "2026-11-29", "note": "By hand."}) == "2026-11-29. By hand."


def test_results_are_dated():
    made = result_document("t", "c", {"x": "{x}"}, [{"x": 1}], {"cpu": "Xeon"}, repeats=3)
    assert list(made) == ["title", "date", "environment", "command", "columns", "rows", "repeats"]
    assert len(made["date"]) == 10


def test_a_number_that_was_changed_is_found_and_put_right(script, project):
    page = project / "docs" / "page.md"
    text = page.read_text()
    assert script.complaints(project) == []
    page.write_text(text.replace("78%", "79%"))
    assert len(script.complaints(project)) == 1
    assert script.rendered(page.read_text(), project / "docs" / "results") == text


@pytest.mark.parametrize("name", ["benchmarks", "experiments"])
def test_a_table_beside_the_markers_is_found(script, project, name):
    page = project / "docs" / "page.md"
    page.write_text(page.read_text() + "\n| a | b |\n|---|---|\n| words | only |\n| x | 3 dB |\n")
    assert script.complaints(project) == []
    page.rename(page.with_name(f"{name}.md"))
    assert script.complaints(project) == [f"docs/{name}.md: a typed row: | x | 3 dB |"]


def test_a_part_has_what_the_whole_says(script, project):
    part = {"columns": {"x": "{x}"}, "rows": [{"x": 1}]}
    whole = {"date": "2026-11-29", "command": "c", "tables": {"16px": part}}
    results = project / "docs" / "results"
    (results / "whole.json").write_text(json.dumps(whole))
    text = "<!-- table: whole/16px -->\n<!-- end -->\n<!-- facts: whole/16px -->\nold\n<!-- end -->"
    made = script.rendered(text, results)
    assert "-->\n| x |\n|---|\n| 1 |\n<!--" in made
    assert "-->\n2026-11-29: `c`.\n<!--" in made


@pytest.mark.parametrize("name", ["none", "speed/part"])
def test_a_name_without_results_is_refused(script, project, name):
    text = f"<!-- table: {name} -->\n<!-- end -->"
    with pytest.raises(UsageError, match="has no table"):
        script.rendered(text, project / "docs" / "results")
