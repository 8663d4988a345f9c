"""What every command that reads pictures makes of the same inputs."""

from __future__ import annotations

import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_sr.cli import main
from pulse_sr.images.decode import register_heif

FOLDER_COMMANDS = ("run", "align", "degrade", "upscale", "compare")


@pytest.fixture
def call(fake_api, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return invoke


def save(path, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("command", FOLDER_COMMANDS)
def test_a_folder_of_all_kinds(call, tmp_path, command):
    register_heif()
    for name in ("b.png", "a.heic", "sub/d.png", "out/z.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "c.mp4").write_bytes(b"x")
    found = call(command, "in", "-o", "in/out", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "left out of in: 1 .mp4, 1 in the output folder, 1 subfolders (--rec" in found.output
    assert "a.heic" in found.stdout
    assert "b.png" in found.stdout
    deep = call(command, "in/**/*.*", "-o", "in/out", "--dry-run")
    assert "left out of in/**/*.*: 1 .mp4, 1 in the output folder" in deep.output
    assert "d.png" in deep.stdout
    assert "z.png" not in deep.stdout


@pytest.mark.parametrize(
    "words",
    [
        *((command, "pipe.png", "-o", "out") for command in FOLDER_COMMANDS),
        ("check-op", "pipe.png", "face.png"),
        ("check-op", "face.png", "pipe.png"),
        ("eval", "in", "--reference", "pipe.png", "-o", "out"),
        ("run", "face.png", "-o", "out", "--operator", "bicubic|mask:pipe.png"),
        ("run", "face.png", "-o", "out", "--operator", "bicubic|mask:pipe.png", "--dry-run"),
        ("train-prior", "pipe.png", "--check-data", "-o", "out"),
        ("train-sr", "pipe.png", "-o", "out", "--config", "compact-x4", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_pipe_is_refused_and_not_opened(call, tmp_path, words):
    """Opening it would wait for somebody to write."""
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "face.png")
    save(tmp_path / "in" / "face.png")
    found = call(*words)
    assert found.exit_code in (2, 3), found.output
    [line] = [each for each in found.stderr.splitlines() if each.startswith("error: ")]
    assert "pipe.png" in line
    assert "unexpected" not in line
