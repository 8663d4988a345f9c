"""What no command, no TOML file and no call from Python lets in: every option, walked through.

The values are wrong for every option but the few of `FITS`. Nothing may hang, be created, or end
in other words than one line and its hint.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_sr.cli import COMMANDS, main

LONG = "x" * 300
#: Not in the text of numbers, choices, amounts, lists, names or paths.
WORDS = ["nan", "inf", "-inf", "1e400", "-1", "1" + "0" * 30, "9" * 5000, "", LONG]
PATHS = ["pipe", "loop", f"{LONG}/x", "/dev/zero", "a\0b"]
#: Texts that stand for nothing else, and folders that can be made: they take most words.
FITS = {"licence", "member", "name", "out", "data"}
#: The shortest call of each command that would do something, in the folder of `place`.
CALLS = {
    "run": "a.png",
    "align": "-o new -- a.png",
    "train-prior": "-o new -- pictures",
    "train-sr": "-o new --config compact-x4 -- pictures",
    "upscale": "a.png",
    "compare": "a.png",
    "eval": "--reference pictures -- pictures",
    "prior list": "",
    "prior info": "",
    "prior import": "a.png",
    "prior get": "ffhq",
    "prior remove": "ffhq",
    "degrade": "-o new -- a.png",
    "check-op": "a.png a.png",
    "bench search": "",
    "bench match": "",
    "bench ops": "",
    "bench train": "",
    "doctor": "",
}


def walk(name, command):
    """Name and command of all that can be called."""
    if isinstance(command, click.Group):
        for each in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), each)
            yield from walk(f"{name} {each}".strip(), child)
    else:
        yield name, command


LEAVES = dict(walk("", main))
OPTIONS = [
    pytest.param(name, param, id=f"{name} {param.opts[-1]}")
    for name, command in LEAVES.items()
    for param in command.params
    if isinstance(param, click.Option) and not param.is_flag
]
ARGUMENTS = [
    pytest.param(name, i, id=f"{name} {param.name}")
    for name, command in LEAVES.items()
    for i, param in enumerate(p for p in command.params if isinstance(p, click.Argument))
]


@pytest.fixture(autouse=True, scope="module")
def no_hanging():
    """Ends what waits for a pipe."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, a pipe, and a link that leads to itself."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "pictures").mkdir()
    (folder / "empty").mkdir()
    for name in ("a.png", "pictures/a.png"):
        Image.effect_noise((16, 16), 50).convert("RGB").save(folder / name)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def call(place, monkeypatch):
    monkeypatch.chdir(place)

    def invoke(name, option, arguments=None):
        """The shortest call with one option more, or with other arguments."""
        options, _, usual = CALLS[name].rpartition("-- ")
        dry = ["--dry-run"] if any(p.name == "dry_run" for p in LEAVES[name].params) else []
        words = [*name.split(), *dry, *options.split(), *option, "--"]
        signal.alarm(20)
        result = CliRunner().invoke(main, [*words, *(arguments or usual.split())])
        signal.alarm(0)
        return result

    return invoke


def check(result, place, codes=(2,)):
    """One line that says what is wrong, its hint, and no trace of anything begun."""
    lines = result.stderr.splitlines()
    assert result.exit_code in codes, result.output
    assert lines[0].startswith("error: ")
    assert [line[:6] for line in lines[1:]] in ([], ["hint: "]), lines
    assert max(map(len, lines)) < 800
    assert "unexpected" not in result.stderr
    assert result.stdout == ""
    assert {path.name for path in place.iterdir()} == {"a.png", "pictures", "empty", "pipe", "loop"}


def test_every_command_is_called():
    assert set(CALLS) == set(LEAVES)
    assert {name.split()[0] for name in LEAVES} == set(COMMANDS)
    assert len(OPTIONS) > 150


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_no_option_takes_what_it_can_not_mean(call, place, name, option):
    words = ["", LONG] if option.name in FITS else WORDS
    for value in words:
        check(call(name, [f"{option.opts[-1]}={value}"]), place)


def is_path(option):
    return any(word in str(option.metavar) for word in ("PATH", "FILE", "DIR", "RUN", "PRIOR"))


@pytest.mark.parametrize(("name", "option"), [each for each in OPTIONS if is_path(each.values[1])])
def test_no_option_opens_what_is_no_regular_file(call, place, name, option):
    for value in PATHS:
        check(call(name, [f"{option.opts[-1]}={value}"]), place)
    if "DIR" in option.metavar:
        check(call(name, [f"{option.opts[-1]}=a.png"]), place)
        check(call(name, [f"{option.opts[-1]}=a.png/new"]), place, (2, 3))
    else:
        check(call(name, [f"{option.opts[-1]}=empty"]), place, (2, 3))


@pytest.mark.parametrize(("name", "position"), ARGUMENTS)
def test_no_argument_is_what_it_can_not_be(call, place, name, position):
    arguments = CALLS[name].rpartition("-- ")[2].split() or [""]
    for value in (*WORDS, *PATHS, "nowhere", "empty", "empty/nowhere.png"):
        given = [*arguments]
        given[position] = value
        check(call(name, [], given), place)
