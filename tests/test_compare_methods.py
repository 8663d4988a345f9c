"""The script that sets methods and groups side by side: its rows and tables, and the plots."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_sr.report.table import markdown


@pytest.fixture
def modules(monkeypatch):
    """A function that imports a module of scripts/bench as the script does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts" / "bench"))
    return importlib.import_module


def entry(metric, value, interval=None):
    return {"metric": metric, "value": value, "interval": interval}


def evaluated(samples=2):
    """What `eval` wrote: two inputs, of which the second matches its input less."""
    table = [entry("psnr", 24.0, [23.0, 25.0]), entry("lr-psnr", 55.0, [50.0, 60.0])]
    table += [entry("squeezenet", 0.5, [0.4, 0.6]), entry("kernel", 12.0), entry("fid", None)]
    names = [f"{i}.png" for i in range(samples)]
    images = [
        {"stem": "a", "samples": names, "each": {"lr-psnr": [60.0, 59.0]}},
        {"stem": "b", "samples": names, "each": {"lr-psnr": [58.0, 43.0]}},
    ]
    return {"inputs": 2, "table": table, "images": images}


def record(folder, *samples):
    folder.mkdir(parents=True)
    found = [{"lr_psnr_search": db, "steps": steps} for db, steps in samples]
    (folder / "result.json").write_text(json.dumps({"samples": found}))


def test_the_row_of_a_search(modules, tmp_path):
    record(tmp_path / "a", (38.0, 20), (39.0, 30))
    record(tmp_path / "b", (27.0, 100), (40.0, 40))
    row = modules("compare_methods").row_of("phased", evaluated(), tmp_path)
    assert (row["method"], row["inputs"], row["samples"]) == ("phased", 2, 2)
    assert (row["psnr"], row["psnr_interval"], row["kernel"]) == (24.0, [23.0, 25.0], 12.0)
    assert (row["search_median"], row["search_least"], row["lr_least"]) == (38.5, 27.0, 43.0)
    assert row["steps"] == 35
    assert "fid" not in row
    columns = modules("compare_methods").METHOD_COLUMNS
    line = markdown({"columns": columns, "rows": [row]}).splitlines()[2]
    assert line.startswith("| phased | 2 x 2 | 38.5 (27.0) | 55.0 (43.0) | 24.00 |  |  | 0.500 |")


def test_the_row_of_pictures_has_no_search(modules, tmp_path):
    row = modules("compare_methods").row_of("bicubic", evaluated(1), tmp_path)
    assert row["samples"] == 1
    assert "steps" not in row


GAP = {"least": "A", "most": "B", "value": 1.5, "low": 0.5, "high": 2.5, "by_chance": 1.0}


def grouped():
    """What `eval --by` wrote for one label with two groups."""
    groups = {
        "A": {"inputs": 12, "table": [entry("psnr", 23.0, [22.0, 24.0])]},
        "B": {"inputs": 1, "table": [entry("psnr", 24.5)]},
    }
    return {"groups": {"age": groups}, "gaps": {"age": {"psnr": GAP, "lr-psnr": GAP}}}


def test_the_tables_of_groups(modules):
    tables = modules("compare_methods").group_tables(grouped())
    assert list(tables) == ["age", "gaps"]
    lines = markdown(tables["age"]).splitlines()
    assert lines[0].startswith("| age | faces | PSNR, dB |")
    assert lines[2].startswith("| A | 12 | 23.00 [22.00, 24.00] |")
    assert lines[3].startswith("| B | 1 |  |")  # one face has no interval
    lines = markdown(tables["gaps"]).splitlines()
    assert lines[2] == "| age | PSNR | 1.5 [0.5, 2.5] | 1 | A | B |"
    assert len(lines) == 3


def test_faces_are_the_first_by_name_in_a_folder_of_their_name(modules, tmp_path, monkeypatch):
    module, calls = modules("compare_methods"), []
    monkeypatch.setattr(module, "pulse_sr", lambda *words: calls.append([str(w) for w in words]))
    for name in ("c.png", "a.png", "b.png"):
        (tmp_path / "eval").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "eval" / name)
    faces = module.Faces(tmp_path / "eval", tmp_path / "work", 2)
    assert sorted(path.name for path in faces.truth.iterdir()) == ["a.png", "b.png"]
    assert faces.truth.name == "eval"
    out = faces.searched("strict-pulse", 3)
    assert calls[0][:2] == ["degrade", str(faces.truth)]
    assert calls[1][:4] == ["run", str(faces.low), "-o", str(out)]
    assert {"--strict-pulse", "pulse", "3"} < set(calls[1])


def test_an_evaluation_is_repeated_only_for_newer_results(modules, tmp_path, monkeypatch):
    module, calls = modules("compare_methods"), []
    faces = object.__new__(module.Faces)
    faces.truth = tmp_path / "truth"
    record(tmp_path / "phased" / "a", (38.0, 20))

    def fake(*words):
        calls.append(words)
        out = words[words.index("-o") + 1]
        out.mkdir(exist_ok=True)
        (out / "metrics.json").write_text("{}")

    monkeypatch.setattr(module, "pulse_sr", fake)
    for _ in range(2):
        assert faces.evaluated(tmp_path / "phased") == {}
    assert len(calls) == 1


def spectrum():
    frequency = list(np.linspace(0, 0.7, 40))
    return {"frequency": frequency, "results": [10.0] * 40, "references": [12.0] * 40}


def test_plots_are_drawn_of_what_was_found(modules, tmp_path):
    plots, module = modules("method_plots"), modules("compare_methods")
    record(tmp_path / "a", (38.0, 20))
    curve = {"samples": 2, "inputs": 5, "levels": [1 / 3], "coverage": [0.3]}
    document = {
        "title": "faces",
        "rows": [module.row_of("phased", evaluated(), tmp_path)],
        "spectra": {"phased": spectrum(), "bicubic": spectrum()},
        "steps": {"phased": [[5.0, 20.0, 38.5], [6.0, 39.0]]},
        "calibration": {"phased": curve | {"ranks": [0.4, 0.3, 0.3]}},
    }
    made = [
        plots.perception(document),
        plots.spectra(document),
        plots.steps(document),
        plots.coverage(document),
    ]
    tables = module.group_tables(grouped())
    for row in tables["age"]["rows"]:
        row["squeezenet"] = 0.5
    made.append(plots.groups({"title": "groups", "tables": tables}))
    for each in made:
        with Image.open(io.BytesIO(each)) as image:
            assert np.array(image.convert("L")).std() > 5
