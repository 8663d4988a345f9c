"""What nobody expects ends in one line and a documented exit code, in every command."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_gates import CALLS, LEAVES

from pulse_sr.cli import main
from pulse_sr.cli.console import Terminated
from pulse_sr.errors import InputError, SetupError, UsageError, cut, describe_error, shown

ROOT = Path(__file__).parents[1]


def too_deep():
    return too_deep()


def digits():
    return str(10**5000)


def of_half_a_package():
    return types.ModuleType("torch").nn


def raising(error):
    def function(*_, **__):
        raise error

    return function


#: What happens, the exit code, and what the line says.
DISASTERS = {
    "recursion": (too_deep, 1, "nested too deeply"),
    "memory": (raising(MemoryError()), 3, "not enough memory"),
    "gpu memory": (raising(torch.OutOfMemoryError("CUDA out of memory")), 3, "not enough memory"),
    "thread": (raising(RuntimeError("can't start new thread")), 3, "not enough memory"),
    "cpu memory": (lambda: torch.empty(2**60, dtype=torch.uint8), 3, "not enough memory"),
    "import": (
        raising(ModuleNotFoundError("No module", name="cv2.gapi")),
        3,
        "cv2 can not be used",
    ),
    "half": (of_half_a_package, 3, "torch can not be used"),
    "name": (lambda: os.stat("x" * 300), 2, "File name too long"),
    "full": (raising(OSError(errno.ENOSPC, "No space left on device", "f")), 3, "disk is full"),
    "quota": (raising(OSError(errno.EDQUOT, "Disk quota exceeded")), 3, "disk is full"),
    "read-only": (raising(OSError(errno.EROFS, "Read-only file system", "f")), 3, "f: Read-only"),
    "digits": (digits, 2, "Exceeds the limit"),
    "NUL": (lambda: os.stat("a\0b"), 2, "embedded null byte"),
    "bug": (raising(ZeroDivisionError("by\nzero")), 1, "unexpected ZeroDivisionError: by"),
    "input": (raising(InputError("no", "yes")), 1, "no"),
    "usage": (raising(UsageError("no" * 1000, "yes")), 2, "no"),
    "setup": (raising(SetupError("no", "yes")), 3, "no"),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "pictures/a.png"):
        Image.effect_noise((16, 16), 50).convert("RGB").save(name)
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("disaster", DISASTERS)
def test_a_disaster_is_one_line_in_every_command(place, monkeypatch, name, disaster):
    happen, code, words = DISASTERS[disaster]
    monkeypatch.setattr(LEAVES[name], "callback", lambda **_: happen())
    result = CliRunner().invoke(main, [*name.split(), "--json", *CALLS[name].split()])
    assert result.exit_code == code
    error, *hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert len(error) < 800
    assert [line[:6] for line in hint] == ["hint: "]
    document = json.loads(result.stdout)
    assert document["exit_code"] == code
    assert set(document) == {"error", "hint", "exit_code"}


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
@pytest.mark.parametrize("name", CALLS)
def test_a_stop_is_one_line_in_every_command(place, monkeypatch, name, stop, code):
    monkeypatch.setattr(LEAVES[name], "callback", lambda **_: raising(stop())())
    result = CliRunner().invoke(main, [*name.split(), *CALLS[name].split()])
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith("hint: what is finished is kept")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", [name for name in CALLS if name != "doctor"])
def test_a_wrong_option_leaves_stdout_to_json(place, name):
    """Whatever the order: one document, or nothing where click refuses the words."""
    for words in (["--json", "--device=gpu"], ["--device=gpu", "--json"], ["--nothing", "--json"]):
        result = CliRunner().invoke(main, [*name.split(), *words, *CALLS[name].split()])
        assert result.exit_code == 2
        assert result.stdout == "" or json.loads(result.stdout)["exit_code"] == 2


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("upscale", "pulse_sr.jobs.upscaling.UpscalePlan.carry_out"),
        ("compare", "pulse_sr.jobs.comparing.ComparePlan.carry_out"),
        ("align", "pulse_sr.jobs.aligning.align"),
    ],
)
def test_a_full_disk_on_the_way_leaves_one_document(place, monkeypatch, name, plan):
    row = {"status": "failed", "stem": "a", "error": "no", "hint": "", "methods": []}

    def carry_out(*_, **__):
        yield row
        raise SetupError("the disk is full", "free some")

    monkeypatch.setattr(plan, carry_out)
    result = CliRunner().invoke(main, [name, "--json", *CALLS[name].split()])
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["exit_code"] == 3
    assert document["images"] == [row]


WRITING = {
    "run": ("out/a", "a.png --steps 1 --samples 1", 1),
    "upscale": ("out/manifest.json/x", "a.png", 2),
    "degrade": ("out/a.png/x", "a.png --scale 2", 1),
}


@pytest.mark.parametrize("name", WRITING)
def test_what_is_in_the_way_of_a_result_is_one_line(place, name):
    """A file where a folder is wanted, or a folder where a file is: one input's, or all of them."""
    way, words, code = WRITING[name]
    path = place / way
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    result = CliRunner().invoke(main, [name, *words.split(), "-o", "out"])
    assert result.exit_code == code, result.output
    assert "is left alone" in result.output
    assert "Traceback" not in result.output
    assert path.read_bytes() == b""


def run(words, prefix="", **options):
    """A process of its own, by a shell."""
    environment = {**os.environ, "PYTHONPATH": f"{prefix}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = f'"{sys.executable}" -m pulse_sr {words}'
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("degrade a.png -o new --dry-run > /dev/full", "No space left on device"),
        ("degrade a.png -o new --dry-run --json > /dev/full", "No space left on device"),
        ("degrade a.png -o new --dry-run --json >&-", "it is closed"),
        ("degrade a.png -o new --dry-run --json > >(exec 0<&-; echo > gone)", "Broken pipe"),
    ],
)
def test_a_stdout_that_can_not_be_written_is_exit_3(place, words, reason):
    if "gone" in words:
        words = "degrade a.png -o new --dry-run --json > pipe"
        os.mkfifo("pipe")
        reader = subprocess.Popen(["bash", "-c", "exec 3< pipe"])
    done = run(words, cwd=place)
    if "pipe" in words:
        reader.wait(timeout=60)
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == f"error: stdout can not be written: {reason}"
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_help_on_a_full_disk_and_messages_that_nobody_can_read(place):
    assert run("--help > /dev/full").returncode == 3
    assert "Traceback" not in run("--version > /dev/full").stderr
    assert run("run nowhere.png 2> /dev/full", cwd=place).returncode == 2
    assert run("degrade a.png -o new --scale 2 2>&-", cwd=place).returncode == 0
    assert run("degrade $'\\xff.png' -o new --dry-run", cwd=place).returncode == 2


def test_names_that_stdout_has_no_letters_for_are_escaped(place):
    Path(os.fsdecode(b"\xff.png")).write_bytes(Path("a.png").read_bytes())
    done = run("degrade $'\\xff.png' -o new --dry-run", cwd=place)
    assert done.returncode == 0
    assert "\\udcff.png" in done.stdout


@pytest.mark.parametrize(
    "content",
    [
        "raise ImportError('libcudart.so: cannot open shared object file')",
        "raise OSError('libtorch_cpu.so: cannot open shared object file')",
        "raise RuntimeError('half of it')",
        "",
    ],
)
def test_half_of_torch_is_one_line_and_doctor_says_so(place, content):
    package = place / "site" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(content)
    done = run("run a.png", package.parent, cwd=place)
    assert done.returncode == 3
    assert done.stderr.startswith("error: torch can not be used: ")
    assert len(done.stderr.splitlines()) == 2
    report = run("doctor --json", package.parent, cwd=place)
    assert report.returncode == 3
    assert "torch" in str(json.loads(report.stdout)["problems"])


def test_long_values_are_cut_and_short_ones_are_not():
    assert shown("x") == "'x'"
    assert shown(Path("a/b")) == "'a/b'"
    assert len(shown("x" * 10**6)) < 200
    assert "(1000002 characters)" in shown("x" * 10**6)
    assert "digits" in shown(10**5000)
    assert cut("x" * 160) == "x" * 160
    assert describe_error(ValueError(""))[0] == "unexpected ValueError: ValueError"
