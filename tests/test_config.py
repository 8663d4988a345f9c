"""SearchConfig and its TOML form."""

from __future__ import annotations

import pytest

from pulse_sr.cli.options import load_toml
from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.options import suggest


def test_defaults_are_those_of_the_interface():
    config = SearchConfig()
    assert (config.samples, config.seed, config.method) == (8, 0, "phased")
    assert (config.operator, config.target_db, config.total_steps) == ("bicubic", 38.0, 100)
    assert config.projection(is_jpeg=False) == "exact"
    assert config.projection(is_jpeg=True) == "soft"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 0),
        ("samples", 2.0),
        ("samples", True),
        ("seed", -1),
        ("seed", 2**63),
        ("method", "phase"),
        ("steps", 0),
        ("operator", "  "),
        ("scale", 0),
        ("project", "hard"),
        ("target_db", float("nan")),
        ("target_db", 0),
        ("fit", "stretch"),
        ("batch", 0),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("precision", "fp16"),
        ("strict_pulse", 1),
    ],
)
def test_wrong_values_name_the_option_and_the_value(field, value):
    with pytest.raises(UsageError) as caught:
        SearchConfig(**{field: value})
    assert "--" + field.replace("_", "-") in caught.value.message
    assert repr(value) in caught.value.message


def test_strict_pulse_needs_the_pulse_method():
    with pytest.raises(UsageError, match="--method pulse"):
        SearchConfig(strict_pulse=True)
    strict = SearchConfig(strict_pulse=True, method="pulse")
    assert strict.projection(is_jpeg=False) == "off"


def test_arguments_give_the_same_configuration_again():
    from pulse_sr.cli.run import command

    config = SearchConfig(samples=3, method="pulse", strict_pulse=True, target_db=40.5, batch=2)
    context = command.make_context("run", ["x.png", *config.arguments()])
    names = config.__dataclass_fields__
    assert SearchConfig(**{name: context.params[name] for name in names}) == config
    assert SearchConfig().arguments() == []
    assert SearchConfig(target_db=38.1234567).arguments() == ["--target-db", "38.1234567"]
    assert SearchConfig(target_db=40).arguments() == ["--target-db", "40"]


def test_samples_and_device_do_not_decide_the_pixels():
    a, b = SearchConfig(samples=4, device="cpu"), SearchConfig(samples=8, device="cuda:1")
    assert a.pixel_options() == b.pixel_options()
    for change in ({"seed": 1}, {"steps": 99}, {"batch": 4}, {"fit": "pad"}, {"precision": "fp32"}):
        assert SearchConfig(**change).pixel_options() != SearchConfig().pixel_options(), change
    assert SearchConfig(steps=100, batch=8).pixel_options() == SearchConfig().pixel_options()


def test_toml_gives_values_by_option_name(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('samples = 3\ntarget-db = 40\nmethod = "pulse"\n')
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
