"""Experiments of supervised training: rows trained once, weights missing, findings by seeds."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_sr_training import write_photos


@pytest.fixture
def experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts" / "bench"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return importlib.import_module("sr_experiments")


def test_a_row_is_trained_once(tmp_path, monkeypatch, experiments, capsys):
    photos, results = write_photos(tmp_path / "photos", side=72), tmp_path / "r.json"
    words = ["sr_experiments.py", photos, photos, "-o", tmp_path / "runs", "--results", results]
    words += ["--kimg", 0.032, "--limit", 2, "--weights-dir", tmp_path, "--row"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "l1", "ragan", "ragan+vgg22"])
    experiments.main()
    document = json.loads(results.read_text())
    rows = {row["row"]: row for row in document["rows"]}
    assert [rows[name]["status"] for name in rows] == ["ok", "ok", "weights missing"]
    assert "vgg19" in rows["ragan+vgg22"]["reason"]
    assert rows["l1"]["weights"] != rows["ragan"]["weights"]
    assert set(rows["l1"]["scores"]) == {"psnr", "ssim", "distance", "log_spectrum"}
    monkeypatch.setattr(experiments, "run_row", lambda *a: pytest.fail("trained again"))
    experiments.main()
    assert json.loads(results.read_text()) == document


def test_equal_budgets(experiments):
    rows = importlib.import_module("sr_experiment_rows").ROWS
    for row in rows.values():
        assert row.config.stretched(4.0).images == 4000
        assert sum(phase.kimg for phase in row.config.phases) == 1.0
    assert {row.config.batch for row in rows.values() if row.data == "photos"} == {8}


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([3.0, 3.0, 3.0], [2.0, 2.0, 2.0], "holds"),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], "does not hold"),
        ([3.0, 3.0, 1.0], [2.0, 2.0, 2.0], "2 of 3 seeds, no claim"),
        ([3.0, 3.0], [2.0, 2.0], "2 of 2 seeds, no claim"),
        ([3.0, 3.0, 3.0], [2.0], "1 of 1 seeds, no claim"),
    ],
)
def test_three_seeds_must_agree(experiments, first, second, verdict):
    finding = experiments.Finding("table", "a beats b", "a", "b", "psnr", "higher")
    rows = [
        {"row": name, "seed": seed, "status": "ok", "scores": {"psnr": value}}
        for name, values in (("a", first), ("b", second))
        for seed, value in enumerate(values)
    ]
    assert experiments.judged(finding, rows)["verdict"] == verdict
