"""The campaign itself: what it calls clean, what it compares, that it goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import corpus_archives, corpus_documents, corpus_images, corpus_models, tables
from campaign.children import Outcome
from campaign.commands import DATA
from campaign.judging import DONE, content_of, difference, fault_of
from PIL import Image

ROOT = Path(__file__).parents[1]
ERROR = "error: a.png is empty\nhint: copy it again\n"


def outcome(code=0, stderr="", *, stdout="", processor=1.0, megabytes=500.0, hung=False):
    return Outcome(code, stdout, stderr, 1.0, processor, megabytes, hung)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (outcome(), ""),
        (outcome(2, ERROR), ""),
        (outcome(1, "a.png failed: unexpected end of data"), ""),
        (outcome(1, "Traceback (most recent call last):\nValueError: no"), "a traceback"),
        (outcome(1, "error: unexpected KeyError: 'a'"), "unexpected KeyError: 'a'"),
        (outcome(-11), "exit code -11"),
        (outcome(4), "exit code 4"),
        (outcome(2, ""), "0 lines of errors"),
        (outcome(3, ERROR + ERROR), "2 lines of errors"),
        (outcome(2, f"error: {'x' * 2000}"), "2007 characters"),
        (outcome(hung=True), "it hung"),
        (outcome(processor=30.0), "it computed for 30 s"),
        (outcome(megabytes=3000.0), "3000 MB"),
    ],
)
def test_what_is_clean(found, words):
    assert words in fault_of(found)
    assert bool(words) == bool(fault_of(found))


def test_an_end_that_is_documented_but_not_wanted():
    assert "exit code 1, 0 expected" in fault_of(outcome(1, ERROR), (DONE,))


def test_results_differ_by_anything_but_times(tmp_path):
    for name, seconds, value in (("a", 1.0, 1), ("b", 2.0, 1), ("c", 1.0, 2)):
        (tmp_path / name).mkdir()
        document = {"timing": {"search_s": seconds}, "seconds": seconds, "value": value}
        (tmp_path / name / "result.json").write_text(json.dumps(document))
        (tmp_path / name / "log.jsonl").write_text(json.dumps({"loss": 1, "seconds": seconds}))
    a, b, c = (content_of(tmp_path / name) for name in "abc")
    assert difference(a, b) == ""
    assert difference(c, a) == "result.json (other)"
    assert difference({}, {"x": "1"}) == "x (missing)"
    assert difference({"x": "1"}, {}) == "x (new)"
    assert difference(*(content_of(tmp_path / name, plainly=True) for name in "ab"))


def corpus(seed):
    """All files whose making takes no search."""
    yield from corpus_images.cases(seed)
    yield from corpus_archives.cases(seed)
    prior = (DATA / "stylegan2_tiny.safetensors").read_bytes()
    yield from corpus_models.pickle_cases(seed, prior)
    yield from corpus_documents.toml_cases(seed, "a = 1\nb = 2\n")
    yield from corpus_documents.record_cases(seed, "result.json", b'{"a": [1, {"b": 2}]}', 12)


def test_the_corpus_is_large_and_the_same_from_a_seed():
    first, again, other = (dict(corpus(seed)) for seed in (0, 0, 1))
    assert len(first) > 400
    assert first.keys() == again.keys()
    changed = [name for name in first if first[name] != again[name]]
    assert [name for name in changed if not name.endswith((".pt", ".pth"))] == []  # torch's own
    assert len([name for name in first if first[name] != other.get(name)]) > 150


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "heic", "gif"])
def test_what_is_damaged_was_sound(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(corpus_images.sound(suffix))
    with Image.open(path) as image:
        image.load()
        assert image.size == (32, 24)


def campaign(*words):
    command = [sys.executable, "-m", "tests.campaign", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-prior", "upscale"])
def test_a_killed_command_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, name):
    words = ["--only", f"signals/{name}/SIGKILL", "--work", tmp_path]
    first = campaign(*words, "--results", tmp_path / "tables.json")
    assert first.returncode == 0, first.stdout + first.stderr
    document = json.loads((tmp_path / "tables.json").read_text())
    [row] = document["tables"]["faults"]["rows"]
    assert (row["what"], row["commands"], row["wrong"]) == ("SIGKILL", 1, 0)
    assert row["tried"] == row["right"] >= 1
    [result] = (tmp_path / "short").glob("*.json")
    before = result.stat().st_mtime_ns
    assert campaign(*words).returncode == 0  # nothing is left to do
    assert result.stat().st_mtime_ns == before


def test_coverage_is_counted_by_package(tmp_path):
    report = tmp_path / "coverage.xml"
    report.write_text(
        """<coverage><packages><package><classes>
        <class filename="pulse_sr/errors.py"><lines><line number="1" hits="1"/>
        <line number="2" hits="0"/><line number="3" hits="1" branch="true"
        condition-coverage="50% (1/2)"/></lines></class>
        <class filename="stylegan_ops/build.py"><lines><line number="1" hits="2"/></lines></class>
        </classes></package></packages></coverage>"""
    )
    ours, ops = tables.coverage_rows(report)
    assert ours == {"package": "pulse_sr", "lines": pytest.approx(200 / 3), "branches": 50.0}
    assert ops["lines"] == 100.0
