"""What no command, no TOML file and no call from Python lets in: every option, walked through.

The values are wrong for every option but the few of `FITS`. Nothing may hang, be created, or end
in other words than one line and its hint.
"""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import pulse_sr
from pulse_sr.cli import COMMANDS, main
from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.data.open import open_source
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.images import read
from pulse_sr.images.find import find_images
from pulse_sr.jobs import comparing, importing, upscaling
from pulse_sr.jobs.evaluating import plan_evaluation
from pulse_sr.jobs.plan import plan_run
from pulse_sr.jobs.store import save_result
from pulse_sr.metrics.options import EvalOptions
from pulse_sr.models import registry
from pulse_sr.operators.spec import parse_operator
from pulse_sr.options import Options, options_of
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.gan.plan import plan_training
from pulse_sr.training.sr.options import SrOptions
from pulse_sr.training.sr.plan import plan_sr_training
from pulse_sr.training.sr.recipes import read_recipe

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
    "bench train-sr": "",
    "doctor": "",
    "serve": "",
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
        signal.alarm(120)
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
    if option.name == "out":
        check(call(name, [f"{option.opts[-1]}=a.png"]), place)
        check(call(name, [f"{option.opts[-1]}=a.png/new"]), place, (3,))
    elif "folder" not in option.type.kind.expects:
        check(call(name, [f"{option.opts[-1]}=empty"]), place, (2, 3))


@pytest.mark.parametrize(("name", "position"), ARGUMENTS)
def test_no_argument_is_what_it_can_not_be(call, place, name, position):
    arguments = CALLS[name].rpartition("-- ")[2].split() or [""]
    for value in (*WORDS, *PATHS, "nowhere", "empty", "empty/nowhere.png"):
        given = [*arguments]
        given[position] = value
        check(call(name, [], given), place)


# the same from a TOML file


LITERALS = ["nan", "inf", "-inf", "1e400", "-1", "1" + "0" * 30, "9" * 5000, '""', f'"{LONG}"']
LITERALS += ["[1]", "{}", "2020-01-01", "true", "[" * 5000]
IN_TOML = [each for each in OPTIONS if LEAVES[each.values[0]].name != "train-sr"]
IN_TOML = [each for each in IN_TOML if each.values[1].name != "config"]


@pytest.mark.parametrize(("name", "option"), IN_TOML)
def test_no_toml_file_gives_what_an_option_can_not_mean(call, place, tmp_path, name, option):
    file = tmp_path / "c.toml"
    usual, _arguments, _ = CALLS[name].rpartition("-- ")
    given = f"{option.opts[-1]} " in usual or ("-o " in usual and option.name == "out")
    for literal in LITERALS:
        file.write_text(f"{option.opts[-1][2:]} = {literal}\n")
        if not given:  # the command line wins
            check(call(name, ["--config", str(file)]), place)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 10**5, b"x = " + b"9" * 10**5, b"\0", b"#" * 2**21]
)
def test_a_file_that_is_no_toml_is_one_line(call, place, tmp_path, content):
    (tmp_path / "c.toml").write_bytes(content)
    check(call("run", ["--config", str(tmp_path / "c.toml")]), place)
    for name in ("c.toml", "pipe", "loop", LONG, f"{LONG}.toml", "empty"):
        path = str(tmp_path / name) if name == "c.toml" else name
        check(call("train-sr", ["--config", path]), place)


# the same from Python


def groups(kind=Options):
    for each in kind.__subclasses__():
        yield each
        yield from groups(each)


FIELDS = [
    pytest.param(group, name, option, id=f"{group.__name__}.{name}")
    for group in sorted(set(groups()), key=lambda each: each.__name__)
    if group.__module__.startswith("pulse_sr.")
    for name, option in options_of(group).items()
]
VALUES = [math.nan, math.inf, -math.inf, -1, -1.5, 10**30, 10**5000, "", LONG, "a\0b", b"x"]
VALUES += [[], {}, object(), {1, 2}, (math.nan,), (10**30,), ("",), 1j, "9" * 5000]


@pytest.mark.parametrize(("group", "name", "option"), FIELDS)
def test_no_dataclass_takes_what_an_option_can_not_mean(place, monkeypatch, group, name, option):
    monkeypatch.chdir(place)
    paths = ("pipe", "loop") if "PATH" in option.kind.metavar else ()
    for value in (*VALUES, *paths):
        if isinstance(value, list) and name == "metrics":
            continue  # which an empty list of metrics may be
        with pytest.raises(UsageError) as caught:
            group(**{name: value})
        assert len(caught.value.message) < 800
        assert "\n" not in caught.value.message


PLACES = {
    "load_prior": lambda path: pulse_sr.load_prior(path),
    "super_resolve": lambda path: pulse_sr.super_resolve(path),
    "read_image": lambda path: read.read_image(path),
    "read_size": lambda path: read.read_size(Path(path)),
    "find_images": lambda path: find_images([path]),
    "load_network": lambda path: registry.load_network(path),
    "import_prior": lambda path: importing.import_prior(path),
    "upscale": lambda path: list(upscaling.upscale([path])),
    "upscale model": lambda path: list(upscaling.upscale(["a.png"], model=path)),
    "compare": lambda path: list(comparing.compare([path])),
    "compare prior": lambda path: list(comparing.compare(["a.png"], prior=path)),
    "compare model": lambda path: list(comparing.compare(["a.png"], model=path)),
    "compare truth": lambda path: list(comparing.compare(["a.png"], truth=path)),
    "plan_run": lambda path: plan_run([path], "new", SearchConfig(), RunOptions()),
    "plan_training": lambda path: plan_training(path, Path("new"), GanOptions()),
    "read_recipe": lambda path: read_recipe(path),
    "open_source": lambda path: open_source(path),
    "mask": lambda path: parse_operator(f"mask:{path}").identity(),
    "operator": lambda path: parse_operator(path),
}


@pytest.mark.parametrize("name", PLACES)
def test_no_function_opens_what_is_no_regular_file(place, monkeypatch, name):
    monkeypatch.chdir(place)
    for path in (*PATHS, LONG, "nowhere", "a.png/below", ""):
        signal.alarm(120)
        with pytest.raises(UsageError) as caught:
            PLACES[name](path)
        signal.alarm(0)
        assert len(caught.value.message) < 800
    assert not Path("new").exists()


OUTS = {
    "upscale": lambda path: list(upscaling.upscale(["a.png"], path)),
    "compare": lambda path: list(comparing.compare(["a.png"], path)),
    "plan_run": lambda path: plan_run(["a.png"], path, SearchConfig(), RunOptions()),
    "plan_training": lambda path: plan_training("pictures", Path(path), GanOptions()),
    "save": lambda path: save_result(Path(path), None),
    "import_prior": lambda path: importing.import_prior("a.png", path),
    "plan_sr_training": lambda path: plan_sr_training("pictures", Path(path), SrOptions()),
    "plan_evaluation": lambda path: plan_evaluation(
        Path("pictures"), Path("pictures"), Path(path), EvalOptions()
    ),
}


@pytest.mark.parametrize("name", OUTS)
def test_no_function_writes_where_no_folder_can_be(place, monkeypatch, name):
    monkeypatch.chdir(place)
    for path in ("pipe", "loop", "a.png", LONG, "/dev/zero", "a\0b"):
        with pytest.raises(UsageError):
            OUTS[name](path)
    with pytest.raises(SetupError, match=r"a\.png is a file, not a folder"):
        OUTS[name]("a.png/new")


def test_a_folder_gives_no_pipes_devices_and_circles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    for name, to in (("loop.png", "loop.png"), ("zero.png", "/dev/zero"), ("lost.png", "x")):
        (folder / name).symlink_to(to)
    (folder / "self").symlink_to("..")
    for given in ("in", "in/*"):
        found = find_images([given], recursive=True, out=tmp_path / "out")
        assert found == [folder / "a.png"]
    refused = {}
    source = open_source("in")
    for position, opener in source.read():
        try:
            opener()
        except InputError as error:
            refused[source.names[position]] = error.message
    assert list(refused) == ["loop.png", "lost.png", "pipe.png", "zero.png"]
    assert "circle" in refused["loop.png"]


@pytest.mark.parametrize("name", ["run", "degrade"])
def test_a_circle_in_place_of_a_result_is_no_crash(place, tmp_path, name):
    (tmp_path / "a").symlink_to("a")
    (tmp_path / "a.png").symlink_to("a.png")
    words = [name, str(place / "a.png"), "-o", str(tmp_path), "--dry-run"]
    result = CliRunner().invoke(main, words)
    assert "unexpected" not in result.output
    assert result.exit_code in (0, 2, 3)
