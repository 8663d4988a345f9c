"""The helpers of scripts/gpu_run.sh, and how the script itself ends."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_run.sh"


@pytest.fixture
def helper(monkeypatch):
    """Imports a module of scripts/gpu, as the script sees it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "gpu"))
    return importlib.import_module


@pytest.fixture
def budget(helper):
    return helper("budget")


@pytest.fixture
def parts(helper):
    return helper("parts")


@pytest.fixture
def results(helper):
    return helper("results")


# budget


def test_shares_add_up_and_training_comes_last(budget):
    assert sum(step.share for step in budget.STEPS.values()) == 100
    assert list(budget.STEPS)[-1] == "training"


def test_a_step_gets_its_share_of_what_is_left_for_the_rest(budget):
    steps = list(budget.STEPS)
    assert budget.limit("environment", steps, 500) == 15
    assert budget.limit("build", steps, 485) == 80
    # Nothing was built: the others share what that leaves.
    assert budget.limit("tests", steps, 485) == int(485 * 12 / 81)
    assert budget.limit("training", steps, 321.9) == 321


def test_all_steps_in_a_row_never_take_more_than_there_is(budget):
    left = 535.0
    for step in budget.STEPS:
        left -= budget.limit(step, list(budget.STEPS), left)
    assert 0 <= left < 1


def test_a_step_without_time_or_that_nobody_wants_gets_none(budget):
    steps = list(budget.STEPS)
    assert budget.limit("training", steps, 59) == 0
    assert budget.limit("training", steps, 59, least=3) == 59
    assert budget.limit("build", ["tests", "training"], 1000) == 0
    assert budget.limit("training", ["training"], -5, least=0) == 0


def test_steps_are_chosen_by_name_and_keep_their_order(budget, capsys):
    assert budget.chosen_steps("training,build") == ["build", "training"]
    assert budget.chosen_steps("all") == list(budget.STEPS)
    assert budget.main(["tests,build"]) == 0
    assert budget.main(["tests", "tests,training", "50"]) == 0
    assert capsys.readouterr().out == "build tests\n25\n"
    assert budget.main(["build,tset"]) == 2
    assert "no step tset" in capsys.readouterr().err


# parts


@pytest.fixture
def state(tmp_path):
    file = tmp_path / "run" / "state.safetensors"
    file.parent.mkdir()
    file.write_bytes(np.random.default_rng(0).bytes(1000))
    return file


def test_split_and_join_give_the_same_file(parts, state, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "state.safetensors.part-07").write_text("of another run")
    pieces = parts.split(state, out, part_bytes=400)
    assert [each.stat().st_size for each in pieces] == [400, 400, 200]
    assert sorted(each.name for each in out.iterdir()) == [
        "SHA256SUMS",
        *(f"state.safetensors.part-{i:02d}" for i in range(3)),
    ]
    assert parts.main(["join", str(out), state.name]) == 0
    assert (out / state.name).read_bytes() == state.read_bytes()
    assert capsys.readouterr().out == f"{out / state.name}\n"


def test_the_parts_can_be_joined_by_hand(parts, state, tmp_path):
    parts.split(state, tmp_path, part_bytes=400)
    command = f"cat {state.name}.part-* > {state.name} && sha256sum -c SHA256SUMS"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)


def test_a_missing_or_damaged_part_is_named(parts, state, tmp_path, capsys):
    first, second, _ = parts.split(state, tmp_path, part_bytes=400)
    second.write_bytes(b"x" + second.read_bytes()[1:])
    with pytest.raises(ValueError, match="part-01 is damaged"):
        parts.join(tmp_path, state.name)
    first.unlink()
    with pytest.raises(ValueError, match="part-00 is missing"):
        parts.join(tmp_path, state.name)
    with pytest.raises(ValueError, match="no parts of other"):
        parts.join(tmp_path, "other")
    assert parts.main(["join", str(tmp_path), "other"]) == 1
    assert "no parts of other" in capsys.readouterr().err
    assert not (tmp_path / state.name).exists()


def test_parts_of_another_whole_are_refused(parts, state, tmp_path):
    parts.split(state, tmp_path, part_bytes=400)
    sums = (tmp_path / "SHA256SUMS").read_text().splitlines()
    sums[0] = "0" * 64 + f"  {state.name}"
    (tmp_path / "SHA256SUMS").write_text("\n".join(sums))
    with pytest.raises(ValueError, match="do not make up the whole"):
        parts.join(tmp_path, state.name)


# results


OPS_ROW = {"op": "bias_act", "direction": "fwd", "dtype": "bfloat16", "layout": "nhwc"}
OPS_REPORT = {
    "ratio": 2.5,
    "rows": [
        OPS_ROW | {"bytes": 10, "copy_fraction": 0.1, "graph_ratio": 2.0},
        OPS_ROW | {"bytes": 2**27, "copy_fraction": 0.8, "graph_ratio": 8.0},
        OPS_ROW | {"bytes": 2**28, "copy_fraction": 0.9},
    ],
    "pytorch": [OPS_ROW | {"op": "glu", "bytes": 2**27, "copy_fraction": 0.7}],
    "environment": {
        "copy_bandwidth": 3e12,
        "matrix_rate": 7e14,
        "left_out_for_time": 4,
        "left_out_for_memory": 1,
    },
}
ROOFLINE = {
    "share": 0.4,
    "compute_s": 0.003,
    "memory_s": 0.002,
    "bound_s": 0.004,
    "step_s": 0.01,
    "flop": 3e12,
    "bytes": 2e10,
}
RATES = {"copy_bandwidth": 4e12, "matrix_rates": {"bfloat16": 7e14, "float32": 5e13}}
STEP_ROW = {"name": "pulse: one step", "ours_s": 0.01, "baseline_s": 0.02, "roofline": ROOFLINE}
RUN_ROW = {
    "name": "pulse: 8 samples x 100 steps",
    "ours_s_per_sample": 0.1,
    "baseline_s_per_sample": 0.2,
    "baseline_measured_steps": 10,
    "baseline_samples": 4,
}
SEARCH_REPORT = {
    "ratio": 2.0,
    "rows": [STEP_ROW | {"parts": {}}, RUN_ROW, {"name": "pulse-sr --help"}],
    "environment": RATES,
}

MATCH_ROW = {
    "name": "phased to 38 dB",
    "ours_s": 2.0,
    "baseline_s": 8.0,
    "ratio": 4.0,
    "ours_reached": 8,
    "baseline_reached": 3,
    "samples": 8,
}

LOGS = {
    "environment.out": json.dumps(
        {"devices": ["H200"], "versions": {"torch": "2.11"}, "python": "3.12", "missing": []}
    ),
    "build.log": "cpu: /a/b.so\ncuda: unavailable: no nvcc\nsomething else\n",
    "tests.out": "..F\n3 failed, 40 passed, 2 deselected in 61.20s (0:01:01)\n",
    "memcheck.out": "2 passed in 9.1s\n========= ERROR SUMMARY: 0 errors\n",
    "racecheck.out": "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n",
    "bench-ops.out": json.dumps(OPS_REPORT),
    "bench-search.out": json.dumps(SEARCH_REPORT),
    "bench-match.out": json.dumps({"rows": [MATCH_ROW | {"ours_steps": 60}]}),
    "bench-1024.out": '{"ratio": 2.0, "rows": [',
    "bench-1024.log": "error: out of memory\nhint: fewer samples\n",
    "training.log": "StyleGAN2 64 px, 8832 images, from 145008 shown\n146 kimg\n",
    "training.out": json.dumps({"out": "runs/x", "images": 200000, "seconds": 300.5}),
}
STEPS = """environment\t10\t2\t0\t
build\t100\t60\t0\t
tests\t70\t61\t1\t
memcheck\t50\t20\t0\t
racecheck\t50\t30\t9\t
bench-ops\t100\t90\t0\t
bench-search\t60\t50\t0\t
bench-match\t20\t10\t0\t
bench-1024\t40\t40\t124\t
training\t100\t90\t0\t
"""


@pytest.fixture
def work(tmp_path):
    """What the steps have left."""
    logs = tmp_path / "work" / "logs"
    logs.mkdir(parents=True)
    for name, text in LOGS.items():
        (logs / name).write_text(text)
    (logs / "build.out").write_text("")
    (logs.parent / "steps.tsv").write_text(STEPS)
    return logs.parent


@pytest.mark.parametrize(
    ("step", "numbers"),
    [
        (
            "environment",
            {"devices": ["H200"], "torch": "2.11", "python": "3.12", "missing": []},
        ),
        ("build", {"libraries": ["cpu: /a/b.so", "cuda: unavailable: no nvcc"]}),
        ("tests", {"result": "3 failed, 40 passed, 2 deselected in 61.20s (0:01:01)"}),
        ("memcheck", {"result": "2 passed in 9.1s", "tool": "ERROR SUMMARY: 0 errors"}),
        (
            "racecheck",
            {"tool": "RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"},
        ),
        (
            "bench-search",
            {
                "ratio": 2.0,
                "ours_s": 0.01,
                "baseline_s": 0.02,
                "seconds_per_sample": {"pulse": 0.1, "baseline": 0.2},
                "baseline": {"steps": 10, "samples at once": 4},
                "roofline pulse": ROOFLINE,
                "copy_bandwidth": 4e12,
                "matrix_rate": {"bfloat16": 7e14, "float32": 5e13},
            },
        ),
        (
            "bench-match",
            {"phased to 38 dB": {k: v for k, v in MATCH_ROW.items() if k != "name"}},
        ),
        ("bench-1024", {}),
        ("training", {"images_before": 145008, "images": 200000, "seconds": 300.5}),
    ],
)
def test_key_numbers(results, work, step, numbers):
    assert results.key_numbers(step, work / "logs") == numbers


def test_key_numbers_of_the_ops_are_those_of_large_shapes(results, work):
    found = results.key_numbers("bench-ops", work / "logs")
    assert (found["ratio"], found["rows"], found["copy_bandwidth"]) == (2.5, 3, 3e12)
    assert found["ratio_in_graphs"] == pytest.approx(4.0)
    shares = {"bias_act fwd bfloat16 nhwc": 0.85, "glu fwd bfloat16 nhwc": 0.7}
    assert found["copy_fraction"] == pytest.approx(shares)


def test_key_numbers_without_a_baseline_say_why(results):
    missing = {"baseline_s": None, "baseline_missing": "out of memory with one sample"}
    rows = [STEP_ROW | missing, {"name": RUN_ROW["name"], "ours_s_per_sample": 0.1} | missing]
    report = {"ratio": None, "rows": rows, "environment": RATES}
    found = results.of_bench_search(json.dumps(report), "")
    assert (found["ratio"], found["baseline_s"]) == (None, None)
    assert found["baseline"] == "out of memory with one sample"
    assert found["seconds_per_sample"] == {"pulse": 0.1}


def test_a_step_that_left_nothing_has_no_numbers(results, tmp_path):
    assert all(results.key_numbers(step, tmp_path) == {} for step in results.NUMBERS)


@pytest.mark.parametrize(
    ("step", "code", "status"),
    [
        ("build", "0", "ok"),
        ("build", "3", "failed"),
        ("build", "5", "failed"),
        ("tests", "5", "no tests"),
        ("tests", "1", "failed"),
        ("training", "124", "timed out"),
        ("training", "137", "timed out"),
        ("training", "143", "stopped"),
        ("memcheck", "-", "skipped"),
    ],
)
def test_the_status_says_how_a_step_ended(results, tmp_path, step, code, status):
    file = tmp_path / "steps.tsv"
    file.write_text(f"{step}\t9\t8\t{code}\twhy\n")
    [record] = results.read_records(file)
    assert (record["status"], record["note"]) == (status, "why")
    assert (record["limit_s"], record["seconds"]) == (9, 8)
    assert results.read_records(tmp_path / "none") == []


@pytest.fixture
def run(state):
    """A finished training."""
    folder = state.parent
    (folder / "model.safetensors").write_bytes(b"m" * 50)
    (folder / "fakes-000145.png").write_bytes(b"old")
    (folder / "fakes-000200.png").write_bytes(b"new")
    (folder / "log.jsonl").write_text("{}\n")
    return folder


def test_everything_is_handed_over_within_the_limits(results, parts, work, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert results.main([str(work), str(out), "600", "580", str(run)]) == 1
    names = sorted(file.name for file in out.iterdir())
    assert names == [
        "SHA256SUMS",
        "fakes-000200.png",
        "logs.tar.gz",
        "model.safetensors",
        "state.safetensors.part-00",
        "summary.json",
        "summary.txt",
    ]
    assert parts.join(out, "state.safetensors").stat().st_size == 1000
    with tarfile.open(out / "logs.tar.gz") as archive:
        packed = set(archive.getnames())
    assert packed == {f"logs/{name}" for name in LOGS} | {"logs/training.jsonl"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["budget_s"], summary["seconds"], summary["left_out"]) == (600, 580, [])
    assert [step["status"] for step in summary["steps"]][-2:] == ["timed out", "ok"]
    text = (out / "summary.txt").read_text()
    assert text == capsys.readouterr().out
    assert "580 s of 600 s" in text
    assert "bench-1024    timed out" in text
    assert "    | hint: fewer samples" in text
    assert "images: 200000" in text
    assert "    roofline pulse share: 0.4\n" in text


def test_without_failures_the_exit_code_is_0(results, work, tmp_path, capsys):
    (work / "steps.tsv").write_text("build\t9\t8\t0\t\nmemcheck\t0\t0\t-\tno time left\n")
    assert results.main([str(work), str(tmp_path / "out"), "60", "9"]) == 0
    assert "memcheck      skipped" in capsys.readouterr().out
    left = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert left == ["logs.tar.gz", "summary.json", "summary.txt"]


def test_at_most_eight_files_with_the_state_first(results, run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left_out = results.place_training(run, out, room=5, part_bytes=300)
    assert len(list(out.iterdir())) == 5  # four parts and the checksums
    assert [reason.split(":")[0] for reason in left_out] == [
        "model.safetensors",
        "fakes-000200.png",
    ]
    other = tmp_path / "other"
    other.mkdir()
    [reason] = results.place_training(run, other, room=4, part_bytes=300)
    assert reason == "state.safetensors: 1000 bytes, no room for it"
    assert list(other.iterdir()) == []


def test_a_training_without_a_state_is_said(results, tmp_path):
    [reason] = results.place_training(tmp_path, tmp_path, room=5)
    assert reason == "state.safetensors: the training wrote none"


def test_files_together_stay_below_the_limit(results, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    files = [tmp_path / name for name in "abc"]
    for file, size in zip(files, (60, 50, 40), strict=True):
        file.write_bytes(b"x" * size)
    done, left_out = results.place(files, out, room=5, most_bytes=100)
    assert [file.name for file in done] == ["a", "c"]
    assert left_out == ["b: 50 bytes, no room for it"]


# the other helpers


def test_the_report_on_the_machine_names_what_is_missing(helper, monkeypatch):
    machine = helper("machine")
    monkeypatch.setattr(machine, "COMMANDS", {"kernel": "uname -a", "nvcc": "no-such-program"})
    monkeypatch.setitem(machine.IMPORTS, "no_such_module", "no-such-package")
    report = machine.describe()
    assert report["kernel"]
    assert report["nvcc"] == "unavailable: FileNotFoundError"
    assert report["missing"] == ["no_such_module"]
    assert {"torch", "numpy", "pillow", "click", "safetensors"} <= set(report["versions"])


def test_images_are_packed_under_their_names(helper, tmp_path):
    material, pack = helper("material"), helper("pack_images")
    assert material.main(["images", "24", "3", str(tmp_path / "faces" / "a")]) == 0
    Image.new("RGB", (40, 30), "red").save(tmp_path / "faces" / "b.jpg")
    words = [str(tmp_path / "faces"), str(tmp_path / "runs" / "faces.zip"), "--resolution", "16"]
    done = CliRunner().invoke(pack.main, words)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(tmp_path / "runs" / "faces.zip") as archive:
        assert archive.namelist() == [*(f"a/0000{i}.png.jpg" for i in range(3)), "b.jpg"]
        with archive.open("b.jpg") as file, Image.open(file) as image:
            assert image.size == (16, 16)
            red, green, blue = image.getpixel((8, 8))
            assert red > 250
            assert max(green, blue) < 5


def test_a_random_prior_can_be_read(helper, tmp_path):
    from pulse_sr.priors.files import read_prior

    material = helper("material")
    assert material.main(["prior", "8", str(tmp_path / "p.safetensors")]) == 0
    prior = read_prior(tmp_path / "p.safetensors")
    assert (prior.name, prior.generator.config.channels) == ("random-8", (512, 512))
    assert material.main(["nothing"]) == 2


# the script


FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    *budget.py*|*results.py*) exec "{python}" "$@" ;;
    *machine.py*) exit 1 ;;
    *pytest*) echo "1 passed in 0.1s" ;;
    *"bench search"*) touch "{flag}"; exec sleep 60 ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def start(tmp_path, *words):
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON.format(python=sys.executable, flag=tmp_path / "searching"))
    fake.chmod(0o755)
    return subprocess.Popen(
        ["bash", str(SCRIPT), *words],
        env={**os.environ, "PYTHON": str(fake), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_failures_do_not_stop_the_script_and_a_signal_leaves_a_summary(tmp_path):
    out = tmp_path / "out"
    script = start(tmp_path, "600", str(out), "--steps", "environment,tests,bench-search")
    for line in script.stdout:
        if "bench-search, at most" in line:
            break
    deadline = time.monotonic() + 20
    while not (tmp_path / "searching").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    script.send_signal(signal.SIGTERM)
    text, _ = script.communicate(timeout=30)
    assert script.returncode == 143
    summary = json.loads((out / "summary.json").read_text())
    assert [(step["step"], step["status"]) for step in summary["steps"]] == [
        ("environment", "failed"),
        ("tests", "ok"),
        ("bench-search", "stopped"),
    ]
    assert summary["steps"][1]["numbers"] == {"result": "1 passed in 0.1s"}
    assert "stopped from outside" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "python", "searching"]


@pytest.mark.parametrize(
    "words", [[], ["100"], ["x", "out"], ["30", "out"], ["100", "out", "--nothing"]]
)
def test_a_wrong_call_exits_2(tmp_path, words):
    script = start(tmp_path, *words)
    text, _ = script.communicate(timeout=30)
    assert script.returncode == 2
    assert "usage" in text or "SECONDS is a number" in text


def test_an_unknown_step_exits_2(tmp_path):
    script = start(tmp_path, "100", str(tmp_path / "out"), "--steps", "train")
    text, _ = script.communicate(timeout=30)
    assert (script.returncode, "no step train" in text) == (2, True)
