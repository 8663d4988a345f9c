"""The command line: exit codes, what goes to stdout and stderr, and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import fake_search
import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_sr.cli import COMMANDS, main
from pulse_sr.errors import InputError, SetupError, UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def call(fake_api, tmp_path, monkeypatch):
    """Runs the command line in an empty folder: call("run", "x.png") -> click's result."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return invoke


def python(code, *words, **options):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, words)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "-h"],
        ["eval", "-h"],
        ["prior", "list", "--help"],
        ["train-prior", "-h"],
        ["bench", "ops", "-h"],
    ],
)
def test_help_imports_neither_torch_nor_numpy(words):
    code = """
        import sys
        from pulse_sr.cli import main
        try:
            main(sys.argv[1:], prog_name="pulse-sr")
        finally:
            loaded = {"torch", "numpy", "PIL", "scipy"} & set(sys.modules)
            print("loaded:", sorted(loaded), file=sys.stderr)
    """
    process = python(code, *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Usage: pulse-sr" in out
    assert err.strip() == "loaded: []"


def test_import_of_the_package_is_light_and_names_are_lazy():
    code = """
        import sys, pulse_sr
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        assert pulse_sr.SearchConfig(samples=2).samples == 2
        assert "torch" not in sys.modules
        assert pulse_sr.make_operator.__module__ == "pulse_sr.operators.building"
        assert "super_resolve" in dir(pulse_sr)
        try:
            pulse_sr.nothing
        except AttributeError as error:
            print(error)
    """
    process = python(code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "nothing" in out


def test_help_lists_every_command(call):
    text = call("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name}" in text
        assert call(name, "--help").exit_code == 0


def test_version_is_that_of_the_package(call):
    import pulse_sr

    for words in (["--version"], ["run", "--version"]):
        assert call(*words).stdout.split()[-1] == pulse_sr.__version__


def test_python_m_runs_the_command_line():
    command = [sys.executable, "-m", "pulse_sr", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("pulse-sr")


def test_run_writes_and_says_one_line_per_image(call, face):
    face("a.png", 1), face("b.png", 2)
    result = call("run", "a.png", "b.png", "--samples", 2, "-o", "out")
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("[1/2] a  done")
    assert lines[1].startswith("[2/2] b  done")
    assert lines[2].startswith("2 done, 0 skipped, 0 failed")
    assert len(lines) == 3
    assert Path("out/a/sample_01.png").is_file()
    assert Path("out/index.html").is_file()
    again = call("run", "a.png", "b.png", "--samples", 2, "-o", "out")
    assert "0 done, 2 skipped" in again.stderr


def test_the_default_folder_is_pulse_out(call, face):
    face("a.png")
    assert call("run", "a.png", "--samples", 1, "-q").stderr == ""
    assert Path("pulse_out/a/result.json").is_file()


def test_some_failures_exit_1_with_the_command_that_retries(call, face):
    face("a.png")
    Path("bad.png").write_text("no picture")
    result = call("run", "a.png", "bad.png", "--samples", 1)
    assert result.exit_code == 1
    assert "error: bad.png" in result.stderr
    assert "\nhint: " in result.stderr
    assert "1 done, 0 skipped, 1 failed" in result.stderr
    retry = result.stderr.splitlines()[-1]
    assert retry == ("retry: pulse-sr run a.png bad.png -o pulse_out --samples 1 --retry-failed")
    face("bad.png", 4)  # repaired: another content is tried without being asked
    assert call("run", "a.png", "bad.png", "--samples", 1).exit_code == 0


def test_quiet_still_prints_errors(call):
    Path("bad.png").write_text("no picture")
    result = call("run", "bad.png", "-q")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: bad.png")
    assert "retry" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "INPUT"),
        (["run", "nowhere.png"], "nowhere.png does not exist"),
        (["run", "a.png", "--samples", "0"], "--samples"),
        (["run", "a.png", "--method", "magic"], "--method"),
        (["run", "a.png", "--strict-pulse"], "--method pulse"),
        (["run", "a.png", "--shard", "1"], "--shard"),
        (["run", "a.png", "--operator", "bicubik"], "bicubik"),
        (["run", "a.png", "--nothing"], "--nothing"),
        (["runn", "a.png"], "did you mean 'run'?"),
        (["degrade", "a.png"], "--out"),
    ],
)
def test_a_wrong_call_exits_2_with_error_and_hint(call, face, words, message):
    face("a.png")
    result = call(*words)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1:] == [] or lines[1].startswith("hint: ")
    assert result.stdout == ""
    assert not Path("pulse_out").exists()


def test_inputs_that_all_fail_by_the_call_exit_2(call, face, fake_api):
    def refuse(*_, **__):
        raise UsageError("--precision bf16 expects a GPU, got cpu")

    fake_api.search_image = refuse
    face("a.png")
    assert call("run", "a.png").exit_code == 2


def test_a_broken_environment_exits_3(call, face, fake_api):
    def lose(*_, **__):
        raise SetupError("prior x is damaged: sha256 1 expected, 2 found", "install it again")

    fake_api.load_prior = lose
    face("a.png")
    result = call("run", "a.png")
    assert result.exit_code == 3
    assert result.stderr == (
        "error: prior x is damaged: sha256 1 expected, 2 found\nhint: install it again\n"
    )


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_v(call, face, fake_api):
    def crash(*_, **__):
        raise ZeroDivisionError("division\nby zero")

    fake_api.load_prior = crash
    face("a.png")
    result = call("run", "a.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: division\nhint: -v")
    assert "Traceback" not in result.stderr
    assert "Traceback" in call("run", "a.png", "-v").stderr


def test_v_shows_the_traceback_of_a_failed_input(call, face, fake_api):
    def crash(*_, **__):
        raise ZeroDivisionError("division by zero")

    fake_api.search_image = crash
    face("a.png")
    assert "Traceback" not in call("run", "a.png").stderr
    assert "Traceback" in call("run", "a.png", "-v", "--retry-failed").stderr


def test_json_is_the_only_thing_on_stdout(call, face, fake_api):
    face("a.png")
    Path("bad.png").write_text("no picture")
    result = call("run", "a.png", "bad.png", "--samples", 2, "--json")
    document = json.loads(result.stdout)
    assert (document["done"], document["skipped"], document["failed"]) == (1, 0, 1)
    assert document["exit_code"] == result.exit_code == 1
    assert [image["status"] for image in document["images"]] == ["done", "failed"]
    assert document["images"][0]["samples"] == 2
    assert "--retry-failed" in document["retry"]

    def fail(*_, **__):
        raise InputError("no such thing", "try another")

    fake_api.load_prior = fail
    result = call("run", "a.png", "--json")
    assert json.loads(result.stdout) == {
        "error": "no such thing",
        "hint": "try another",
        "exit_code": 1,
    }


def test_dry_run_says_what_would_be_done_and_writes_nothing(call, face, tmp_path):
    face("a.png", 1), face("b.png", 2)
    call("run", "a.png", "--samples", 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = call("run", "a.png", "b.png", "--samples", 3, "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert [(t["stem"], t["action"], t["samples"]) for t in document["tasks"]] == [
        ("a", "extend", [2]),
        ("b", "search", [0, 1, 2]),
    ]
    assert document["settings"]["steps"] == 100
    assert document["settings"]["prior"] == "fake-64"
    text = call("run", "a.png", "b.png", "--samples", 2, "--dry-run").stdout
    assert "skip" in text
    assert "target_db" in text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_toml_gives_defaults_and_the_command_line_wins(call, face):
    face("a.png")
    Path("c.toml").write_text(
        'samples = 3\nsteps = 7\nout = "there"\nbatch = "auto"\noverwrite = true\ntarget-db = 40\n'
    )
    result = call("run", "a.png", "--config", "c.toml", "--samples", 2, "--dry-run", "--json")
    settings = json.loads(result.stdout)["settings"]
    assert (settings["samples"], settings["steps"], settings["out"]) == (2, 7, "there")
    assert (settings["overwrite"], settings["target_db"], settings["batch"]) == (True, 40.0, 8)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("sampels = 3", "unknown option 'sampels'", "did you mean 'samples'?"),
        ('samples = "three"', "expects int, got str", ""),
        ("config = 'x'", "unknown option 'config'", ""),
        ("samples = 0", "--samples expects", ""),
    ],
)
def test_a_wrong_toml_exits_2(call, face, text, message, hint):
    face("a.png")
    Path("c.toml").write_text(text)
    result = call("run", "a.png", "--config", "c.toml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert hint in result.stderr


def test_every_option_of_run_reaches_the_search(call, face, fake_api):
    """No dead options: what the command line says is what the search is given."""
    seen = []

    def search(image, prior, config, indices, progress=None):
        seen.append(config)
        return fake_search.search(image, prior, config, indices, progress)

    fake_api.search_image = search
    face("a.png", size=(16, 12))
    given = {"samples": 1, "seed": 4, "method": "pulse", "steps": 9, "operator": "area"}
    given |= {"scale": 4, "project": "soft", "target_db": 41.5, "fit": "pad", "batch": 3}
    given |= {"device": "cpu", "precision": "fp32"}
    words = [w for k, v in given.items() for w in ("--" + k.replace("_", "-"), v)]
    assert call("run", "a.png", "--strict-pulse", *words).exit_code == 0
    [config] = seen
    assert {key: getattr(config, key) for key in given} == given
    assert config.strict_pulse is True
    assert set(given) | {"strict_pulse"} == set(config.__dataclass_fields__)


SLOW = """
    import signal, sys, time, fake_search
    from pulse_sr.cli import main
    from pulse_sr.inversion import stream
    from pulse_sr.models import registry
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    registry.load_prior = lambda *_: fake_search.PRIOR
    def search(image, *rest):
        if "b.png" in image.path:
            print("searching", flush=True)
            time.sleep(60)
        return fake_search.search(image, *rest)
    stream.search_images = fake_search.one_by_one(search)
    main(sys.argv[1:], prog_name="pulse-sr")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_keeps_what_is_done(call, face, tmp_path, number, code):
    face("a.png", 1), face("b.png", 2)
    process = python(SLOW, "run", "a.png", "b.png", "--samples", "2", "--json", cwd=tmp_path)
    assert process.stdout.readline() == "searching\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    document = json.loads(out)
    assert (document["status"], document["exit_code"]) == ("interrupted", code)
    assert "Traceback" not in err
    assert "1 done, 0 skipped, 0 failed, 1 not started or unfinished" in err
    assert "the same command resumes" in err
    assert [row["stem"] for row in json.loads(Path("pulse_out/manifest.json").read_text())] == ["a"]
    assert not list(Path("pulse_out").rglob("*.tmp"))
    result = call("run", "a.png", "b.png", "--samples", 2)
    assert "1 done, 1 skipped, 0 failed" in result.stderr


IMPORTED = """
    import os, signal, sys, time
    import click
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.2)
    except BaseException as error:
        raise ImportError("a part of the package is missing") from error
    command = click.Command("wait", callback=lambda: time.sleep(60))
"""
WAITING = """
    import time
    import click
    def wait():
        print("waiting", flush=True)
        time.sleep(60)
    command = click.Command("wait", callback=wait)
"""
IMPORTING = """
    import signal, sys
    from pulse_sr.cli import COMMANDS, main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    COMMANDS["wait"] = ("imported:command", "")
    main(["wait"], prog_name="pulse-sr")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_end_of_an_import(tmp_path, number, code):
    (tmp_path / "imported.py").write_text(textwrap.dedent(IMPORTED))
    process = python(IMPORTING, str(int(number)), cwd=tmp_path)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "the same command resumes" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_line_inside_an_import_can_be_stopped(tmp_path, number, code):
    (tmp_path / "calling.py").write_text(textwrap.dedent(IMPORTING))
    (tmp_path / "imported.py").write_text(textwrap.dedent(WAITING))
    process = python("import calling", cwd=tmp_path)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code


def test_degrade_writes_what_the_operator_says(call, face):
    from pulse_sr.images.read import read_image
    from pulse_sr.operators.degrading import degrade

    face("hr.png", size=(64, 48)), face("sub/hr.png", 1, (64, 64)), face("odd.png", size=(63, 64))
    result = call("degrade", "hr.png", "sub/hr.png", "odd.png", "-o", "lr", "--scale", 4, "--json")
    assert result.exit_code == 1  # 63 px can not be divided by 4
    document = json.loads(result.stdout)
    assert [row["status"] for row in document["images"]] == ["done", "done", "failed"]
    low = read_image("lr/hr.png")
    assert (low.width, low.height) == (16, 12)
    assert (low.pixels == degrade(read_image("hr.png").pixels, "bicubic", 4)).all()
    assert Path("lr/hr-2.png").is_file()
    assert "Comment" not in Image.open("lr/hr.png").text  # a photo made smaller, no synthetic face


def test_degrade_never_replaces_an_input_and_dry_run_writes_nothing(call, face, tmp_path):
    face("hr.png", size=(64, 64))
    assert call("degrade", "hr.png", "-o", ".").exit_code == 2
    assert call("degrade", "hr.png", "-o", "lr", "--dry-run").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hr.png"]
    assert call("degrade", "hr.png", "-o", "lr", "--operator", "nothing").exit_code == 2


def test_check_op_finds_the_operator(call, face):
    face("hr.png", size=(64, 64))
    # Noise, or every operator would do the same.
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    image.save("hr.png")
    for spec in ("area", "bicubic"):
        call("degrade", "hr.png", "-o", spec, "--operator", spec, "--scale", 4)
        document = json.loads(call("check-op", "hr.png", f"{spec}/hr.png", "--json").stdout)
        assert document["operators"][0]["db"] > 50
        best = [row["spec"] for row in document["operators"] if row["db"] > 50]
        assert spec in best
    assert "operator" in call("check-op", "hr.png", "area/hr.png").stdout
    assert call("check-op", "area/hr.png", "hr.png").exit_code == 1


def test_prior_info_prints_the_documented_keys(call):
    card = json.loads(call("prior", "info", "--json").stdout)
    assert {"name", "architecture", "resolution", "sha256", "licence", "data"} <= set(card)
    assert (card["resolution"], card["sha256"]) == (64, "f" * 64)
    assert "fake-64" in call("prior", "list").stdout
    assert json.loads(call("prior", "list", "--json").stdout)[0]["name"] == "fake-64"
