"""What docs/reliability.md shows: faults, inputs, fuzzing, coverage, from the results of parts."""

from __future__ import annotations

import collections
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pulse_sr.files.atomic import write_atomic
from pulse_sr.report.table import result_document

ROOT = Path(__file__).resolve().parents[2]
#: The JSON of the tables, and the coverage of the tests.
RESULTS = ROOT / "docs" / "results" / "reliability.json"
COVERED = ("pulse_sr", "stylegan_ops")

Result = dict[str, Any]
_HEADINGS = {
    "faults": {
        "fault": "{what}",
        "commands": "{commands}",
        "injected": "{tried}",
        "survived": "{right}",
        "lost": "{wrong}",
    },
    "inputs": {
        "kind": "{what}",
        "tried": "{tried}",
        "clean": "{right}",
        "not": "{wrong}",
    },
    "fuzzing": {
        "reader": "{what}",
        "executions": "{executions:,}",
        "guided by coverage": "{guided}",
        "findings": "{wrong}",
    },
    "tests": {
        "package": "{package}",
        "lines": "{lines:.1f} %",
        "branches": "{branches:.1f} %",
    },
}


def rows_of(results: list[Result]) -> dict[str, list[Result]]:
    """The rows of each table; `found` are the texts of what went wrong."""
    rows: dict[str, list[Result]] = {"faults": [], "inputs": [], "fuzzing": []}
    faults = collections.defaultdict(list)
    for result in results:
        room, what, *_ = result["name"].split("/")
        found, tried = result["wrong"], sum(result["tried"].values())
        row = {"what": what, "tried": tried, "wrong": len(found), "right": tried - len(found)}
        if room == "fuzzing":
            more = {key: result.get(key) for key in ("executions", "guided")}
            rows["fuzzing"].append({**row, **more, "found": found})
        elif room == "inputs":
            rows["inputs"].append({**row, "found": found})
        else:
            for fault, count in result["tried"].items():
                said = [text for text in found if text.startswith(fault)]
                faults[fault].append((what, count, said))
    for fault, entries in sorted(faults.items()):
        tried = sum(count for _, count, _ in entries)
        said = [f"{command}: {text}" for command, _, texts in entries for text in texts]
        row = {"what": fault, "commands": len({command for command, _, _ in entries})}
        row |= {"tried": tried, "right": tried - len(said), "wrong": len(said), "found": said}
        rows["faults"].append(row)
    return rows


def summary(results: list[Result]) -> str:
    """One line for each table."""
    lines = []
    for name, rows in rows_of(results).items():
        tried = sum((row.get("executions") or 0) for row in rows) or sum(r["tried"] for r in rows)
        lines.append(f"{name}: {tried:,} tried, {sum(row['wrong'] for row in rows)} wrong")
    return "\n".join(lines)


def write_campaign(path: Path, results: list[Result], command: str) -> None:
    """Put the tables of a campaign into the document; those of the tests stay."""
    found = rows_of(results).items()
    parts = {name: {"columns": _HEADINGS[name], "rows": rows} for name, rows in found if rows}
    _update(path, parts, command)


def write_coverage(path: Path) -> int:
    """Run the tests with their coverage and put the numbers into the document.

    Returns:
        the exit code of pytest.
    """
    with tempfile.TemporaryDirectory() as folder:
        xml, junit = Path(folder, "coverage.xml"), Path(folder, "tests.xml")
        words = [sys.executable, "-m", "pytest", "-n", "auto", f"--junitxml={junit}"]
        words += ["--cov-branch", f"--cov-report=xml:{xml}", *(f"--cov={each}" for each in COVERED)]
        code = subprocess.run(words, cwd=ROOT).returncode
        rows = coverage_rows(xml)
        suite = next(ElementTree.parse(junit).iter("testsuite"))
    document = {"columns": _HEADINGS["tests"], "rows": rows}
    document |= {"tests": int(suite.attrib["tests"]), "failures": int(suite.attrib["failures"])}
    document["note"] = f"{document['tests']} tests, {document['failures']} failed."
    _update(path, {"tests": document}, "python -m tests.campaign --coverage")
    return code


def coverage_rows(xml: Path) -> list[Result]:
    """Lines and branches of each package, in percent, from the report of coverage.py."""
    counts = {package: collections.Counter[str]() for package in COVERED}
    for found in ElementTree.parse(xml).iter("class"):
        # File names are below one of the report's sources, the packages themselves.
        name = _source_of(xml, found.attrib["filename"])
        for line in found.iter("line"):
            counts[name]["lines"] += 1
            counts[name]["lines hit"] += int(line.attrib["hits"]) > 0
            if "condition-coverage" in line.attrib:
                taken, _, of = line.attrib["condition-coverage"].split("(")[1][:-1].partition("/")
                counts[name]["branches hit"] += int(taken)
                counts[name]["branches"] += int(of)
    return [
        {
            "package": package,
            "lines": 100 * count["lines hit"] / max(1, count["lines"]),
            "branches": 100 * count["branches hit"] / max(1, count["branches"]),
        }
        for package, count in counts.items()
    ]


def _source_of(xml: Path, file: str) -> str:
    """The package that a file of the report belongs to."""
    for package in COVERED:
        if file.startswith(f"{package}/"):
            return package
    return next(package for package in COVERED if (ROOT / package / file).exists())


def _update(path: Path, parts: dict[str, Any], command: str) -> None:
    import torch

    today = datetime.date.today().isoformat()
    document = json.loads(path.read_text()) if path.exists() else {}
    tables = {name: {"columns": columns, "rows": []} for name, columns in _HEADINGS.items()}
    tables |= document.get("tables", {})
    for name, part in parts.items():
        tables[name] = {"command": command, "date": today, **part}
    environment = {
        "cpu": f"{os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    document = result_document("Reliability", command, {}, [], environment, tables=tables)
    write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")
