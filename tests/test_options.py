"""Options: one declaration gives the command line, the TOML key, the check and the words."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pulse_sr.alignment.options import AlignOptions, Limits
from pulse_sr.bench.options import MatchBench, OpsBench, SearchBench, TrainBench
from pulse_sr.cli import main
from pulse_sr.cli.options import load_toml, takes
from pulse_sr.config import DegradeOptions, RunOptions, SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.models.options import ImportOptions
from pulse_sr.options import options_of, suggest
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.options import BYTES, MachineOptions, Observation, ScheduleOptions
from pulse_sr.training.sr.options import SrOptions, SrScheduleOptions

GROUPS = [SearchConfig, RunOptions, DegradeOptions, AlignOptions, Limits, GanOptions]
GROUPS += [ScheduleOptions, Observation, MachineOptions, SearchBench, MatchBench, OpsBench]
GROUPS += [TrainBench, ImportOptions]


def from_words(group, words, toml=None):
    """What a command line gives."""
    command = click.command("any")(takes(found=group)(lambda found: found))
    defaults = None if toml is None else toml
    with command.make_context("any", [*words], default_map=defaults) as context:
        return command.invoke(context)


@pytest.mark.parametrize("group", GROUPS)
def test_without_a_word_the_defaults_hold(group):
    assert from_words(group, []) == group()
    assert group().arguments() == []
    assert all(each.help.strip() for each in options_of(group).values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SearchConfig(samples=3, target_db=40), "--samples 3 --target-db 40"),
        (SearchConfig(target_db=38.1234567), "--target-db 38.1234567"),
        (SearchConfig(method="pulse", strict_pulse=True), "--method pulse --strict-pulse"),
        (RunOptions(overwrite=True, shard=(0, 4)), "--overwrite --shard 0/4"),
        (AlignOptions(lr=(16, 32), weights=Path("a b.pth")), "--lr 16,32 --weights a b.pth"),
        (Limits(min_score=0.25), "--min-score 0.25"),
        (GanOptions(architecture="fastgan", mirror=False), "--arch fastgan --no-mirror"),
        (GanOptions(continued="run", path_weight=2), "--continue run --path-length 2"),
        (GanOptions(max_memory=900_000_000), "--max-memory 900MB"),
        (GanOptions(max_memory=2**31 + 1), "--max-memory 2147.483649MB"),
        (GanOptions(ema_bank=(2.5, 20.0)), "--ema-bank 2.5,20"),
        (ScheduleOptions(seconds=7200, checkpoint_every=90), "--time 120m --checkpoint-every 90s"),
        (ScheduleOptions(seconds=0.1), "--time 0.1s"),
        (Observation(samples=0, tensorboard=True), "--score-samples 0 --tensorboard"),
    ],
)
def test_the_words_of_options_give_them_again(options, words):
    assert " ".join(options.arguments()) == words
    assert from_words(type(options), options.arguments()) == options


WRONG = [
    (SearchConfig, "samples", 0),
    (SearchConfig, "samples", 2.0),
    (SearchConfig, "samples", True),
    (SearchConfig, "samples", None),
    (SearchConfig, "seed", -1),
    (SearchConfig, "seed", 2**63),
    (SearchConfig, "method", "phase"),
    (SearchConfig, "method", 3),
    (SearchConfig, "steps", 0),
    (SearchConfig, "operator", "  "),
    (SearchConfig, "scale", 0),
    (SearchConfig, "project", "hard"),
    (SearchConfig, "target_db", math.nan),
    (SearchConfig, "target_db", math.inf),
    (SearchConfig, "target_db", 10**400),
    (SearchConfig, "target_db", "40"),
    (SearchConfig, "fit", "stretch"),
    (SearchConfig, "batch", 0),
    (SearchConfig, "device", "gpu"),
    (SearchConfig, "device", "cuda:x"),
    (SearchConfig, "device", "cpu\n"),
    (SearchConfig, "precision", "fp16"),
    (SearchConfig, "strict_pulse", 1),
    (RunOptions, "align", "sometimes"),
    (RunOptions, "shard", (2, 2)),
    (RunOptions, "shard", (0, 1.5)),
    (RunOptions, "shard", "0/4"),
    (Limits, "min_score", 1.5),
    (Limits, "min_size", math.nan),
    (AlignOptions, "size", 5000),
    (DegradeOptions, "scale", 0),
    (GanOptions, "batch", 1),
    (GanOptions, "lr", math.nan),
    *((GanOptions, "ema_bank", (5.0, other)) for other in (5.0, 0.0, -1.0, math.nan, math.inf)),
    (GanOptions, "max_memory", 0.5),
    (ScheduleOptions, "kimg", math.inf),
    (ScheduleOptions, "seconds", -1),
    (Observation, "held_back", Path("nowhere")),
]


@pytest.mark.parametrize(("group", "field", "value"), WRONG)
def test_wrong_values_name_the_option_and_the_value(group, field, value):
    with pytest.raises(UsageError) as caught:
        group(**{field: value})
    assert caught.value.message.startswith(f"--{options_of(group)[field].name} expects ")
    shown = str(value) if isinstance(value, Path) else value
    told = caught.value.message.partition(", got ")[2]
    assert told.startswith(repr(shown)[:80])  # long values are cut


@pytest.mark.parametrize(
    ("group", "field", "text"),
    [
        (SearchConfig, "samples", "many"),
        (SearchConfig, "batch", "few"),
        (SearchConfig, "target_db", "forty"),
        (SearchConfig, "method", "magic"),
        (RunOptions, "shard", "1"),
        (RunOptions, "shard", "3/2"),
        (AlignOptions, "lr", "16,x"),
        (GanOptions, "max_memory", "4TB"),
        (GanOptions, "ema_bank", "5,x"),
        (ScheduleOptions, "seconds", "soon"),
    ],
)
def test_the_message_is_the_same_wherever_a_value_comes_from(group, field, text):
    messages = set()
    for make in (
        lambda: group(**{field: text}),
        lambda: from_words(group, [f"--{options_of(group)[field].name}", text]),
        lambda: from_words(group, [], toml={field: text}),
    ):
        with pytest.raises(UsageError) as caught:
            make()
        messages.add((caught.value.message, caught.value.hint))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "group", [GanOptions, SrOptions, ScheduleOptions, SrScheduleOptions, Observation]
)
def test_every_number_of_a_training_has_two_ends(group):
    """What no run could do anything with is refused when it is said: --w-dim 1e22, --kimg nan."""
    of_numbers = [
        each for each in options_of(group).values()
        if (isinstance(each.default, (int, float)) and not isinstance(each.default, bool))
        or each.kind.expects.startswith(("a number", "a whole number", "an amount", "a time"))
    ]  # fmt: skip
    known = {GanOptions: 16, SrOptions: 3, ScheduleOptions: 4, SrScheduleOptions: 4}
    assert len(of_numbers) == known.get(group, 1)
    for each in of_numbers:
        for value in (math.nan, math.inf, -math.inf, -1, -(10**30), 10**30, 1e30):
            with pytest.raises(UsageError, match=f"--{each.name} expects "):
                each.check(value)


def test_a_number_becomes_a_float_and_a_word_of_choice_has_a_suggestion():
    assert isinstance(SearchConfig(target_db=40).target_db, float)
    assert asdict(Limits(min_size=30)) == {
        "min_score": 0.6,
        "min_size": 30.0,
        "min_sharpness": 4.0,
    }
    with pytest.raises(UsageError) as caught:
        SearchConfig(method="phase")
    assert caught.value.hint == "did you mean 'phased'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4e9), ("4", 4e9), ("900MB", 9e8), ("1.5gb", 1.5e9), ("2GiB", 2**31)],
)
def test_amounts_of_memory(text, expected):
    assert BYTES.parse(text) == expected


def test_no_command_has_an_option_twice():
    for name in ("run", "align", "train-prior", "degrade"):
        command = main.get_command(None, name)
        names = [word for each in command.params for word in (*each.opts, *each.secondary_opts)]
        assert len(set(names)) == len(names)


def test_the_shell_completes_choices():
    environment = {"_PULSE_SR_COMPLETE": "bash_complete", "COMP_CWORD": "4"}
    environment |= {"COMP_WORDS": "pulse-sr run a.png --method p"}
    result = CliRunner().invoke(main, [], prog_name="pulse-sr", env=environment)
    assert result.stdout.split() == ["plain,phased", "plain,pulse"]


# TOML


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_toml_gives_values_by_option_name(tmp_path, encoding):
    file = tmp_path / "c.toml"
    file.write_text('samples = 3\ntarget-db = 40\nmethod = "pulse"\n', encoding)
    known = {"samples": int, "target_db": float, "method": str}
    assert load_toml(file, known) == {"samples": 3, "target_db": 40, "method": "pulse"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("sampels = 3", "unknown option 'sampels'", "did you mean 'samples'?"),
        ('samples = "3"', "expects int, got str '3'", ""),
        ("samples = true", "expects int, got bool True", ""),
        ("samples = ", "is not TOML", "method"),
        ("target-db = 1\ntarget_db = 2", "given twice", ""),
    ],
)
def test_toml_errors_say_what_is_wrong(tmp_path, text, message, hint):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_toml(file, {"samples": int, "target_db": float})
    assert message in caught.value.message
    assert str(file) in caught.value.message
    assert hint in caught.value.hint


def test_a_missing_toml_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_toml(tmp_path / "none.toml", {})


def test_suggest_lists_everything_when_nothing_is_near():
    assert suggest("zzz", ["target_db", "seed"]) == "known: seed, target-db"
