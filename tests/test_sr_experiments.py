"""Experiments of supervised training: rows trained once, weights missing, findings by seeds."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import cv2
import pytest
import torch
from tiny_sr_training import write_photos

from pulse_sr.report.table import markdown


@pytest.fixture
def experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts" / "bench"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return importlib.import_module("sr_experiments")


def test_a_row_is_trained_once(tmp_path, monkeypatch, experiments, capsys):
    photos, results = write_photos(tmp_path / "photos", side=72), tmp_path / "r.json"
    words = ["sr_experiments.py", "--photos", photos, photos, "--results", results, "--kimg", 0.032]
    words += ["--limit", 2, "--weights-dir", tmp_path, "--curves", tmp_path / "c.png", "--row"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "bicubic", "l1", "ragan", "ragan+vgg22"])
    experiments.main()
    document = json.loads(results.read_text())
    rows = {row["row"]: row for row in document["rows"]}
    assert [rows[name]["status"] for name in rows] == ["ok", "ok", "ok", "weights missing"]
    assert "vgg19" in rows["ragan+vgg22"]["reason"]
    assert rows["l1"]["weights"] != rows["ragan"]["weights"]
    assert set(rows["l1"]["scores"]) == {"psnr", "ssim", "distance", "log_spectrum"}
    assert rows["l1"]["curve"][-1] == [32, rows["l1"]["scores"]["psnr"]]
    table = markdown(document["tables"]["photos"])
    assert f"| `l1` | {rows['l1']['scores']['psnr']:.2f} |" in table
    assert "weights missing" in table
    assert cv2.imread(str(tmp_path / "c.png")).shape[1] == 1500
    monkeypatch.setattr(experiments, "run_row", lambda *a: pytest.fail("trained again"))
    experiments.main()
    assert json.loads(results.read_text()) == document


def test_equal_budgets(experiments):
    """Rows of a kind differ in what is minimised, by what, and in nothing else."""
    rows = importlib.import_module("sr_experiment_rows").ROWS.values()
    kept = {}
    for row in rows:
        config = row.config
        assert sum(phase.kimg for phase in config.phases) == 1.0
        same = {
            key: getattr(config, key) for key in ("network", "batch", "patch", "betas", "flips")
        }
        assert kept.setdefault((row.data, config.scale), same) == same
    assert len(kept) == 5


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([3.0, 3.0, 3.0], [2.0, 2.0, 2.0], "holds"),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], "does not hold"),
        ([3.0, 3.0, 1.0], [2.0, 2.0, 2.0], "no claim"),
        ([3.0, 3.0], [2.0, 2.0], "no claim"),
        ([3.0, 3.0, 3.0], [2.0], "no claim"),
    ],
)
def test_three_seeds_must_agree(experiments, first, second, verdict):
    report = importlib.import_module("sr_experiment_report")
    finding = report.Finding("table", "a beats b", "a", "b", "psnr", "higher")
    rows = [
        {"row": name, "seed": seed, "status": "ok", "scores": {"psnr": value}}
        for name, values in (("a", first), ("b", second))
        for seed, value in enumerate(values)
    ]
    judged = report.judged(finding, rows)
    assert judged["verdict"] == verdict
    agree = sum(a > b for a, b in zip(first, second, strict=False))
    assert (judged["agree"], judged["seeds"]) == (agree, min(len(first), len(second)))
