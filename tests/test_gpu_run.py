"""scripts/gpu_run.sh: how it divides its time and how it ends; scripts/pack_images.py."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_run.sh"

FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    *doctor*) echo "error: no nvcc" >&2; exit 1 ;;
    *pytest*) echo "1 passed in 0.1s" ;;
    *"bench search"*) touch "{flag}"; exec sleep 60 ;;
    *) exec "{python}" "$@" ;;
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
    script = start(tmp_path, "625", str(out), "--steps", "build,tests,bench-search")
    deadline = time.monotonic() + 20
    while not (tmp_path / "searching").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    script.send_signal(signal.SIGTERM)
    script.communicate(timeout=30)
    assert script.returncode == 143
    text = (out / "summary.txt").read_text()
    # Of 600 seconds build has 17 of 37 shares, the tests 13 of the 20 that are left.
    assert re.search(r"build: exit code 1 after \d s of 27\d s\nerror: no nvcc\n", text)
    assert re.search(r"tests: exit code 0 after \d s of 3[89]\d s\n1 passed in 0.1s\n", text)
    assert text.endswith("bench-search: stopped from outside\n")
    with tarfile.open(out / "logs.tar.gz") as archive:
        assert "logs/tests.out" in archive.getnames()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "python", "searching"]


@pytest.mark.parametrize(
    "words", [[], ["100"], ["x", "out"], ["100", "out", "--nothing"], ["9", "out", "--steps", "x"]]
)
def test_a_wrong_call_exits_2(tmp_path, words):
    script = start(tmp_path, *words)
    text, _ = script.communicate(timeout=30)
    assert script.returncode == 2
    assert "usage" in text or "no step x" in text


def test_images_are_packed_under_their_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    pack = importlib.import_module("pack_images")
    (tmp_path / "faces" / "a").mkdir(parents=True)
    Image.new("RGB", (24, 24), "blue").save(tmp_path / "faces" / "a" / "0.png")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "faces" / "b.jpg")
    words = [str(tmp_path / "faces"), str(tmp_path / "runs" / "faces.zip"), "--resolution", "16"]
    done = CliRunner().invoke(pack.main, words)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(tmp_path / "runs" / "faces.zip") as archive:
        assert archive.namelist() == ["a/0.png.jpg", "b.jpg"]
        with archive.open("b.jpg") as file, Image.open(file) as image:
            assert image.size == (16, 16)
            red, green, blue = image.getpixel((8, 8))
            assert red > 250
            assert max(green, blue) < 5
