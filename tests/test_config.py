"""The settings of a search."""

from __future__ import annotations

import pytest

from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError


def test_defaults_are_those_of_the_interface():
    config = SearchConfig()
    assert (config.samples, config.seed, config.method) == (8, 0, "phased")
    assert (config.operator, config.target_db, config.total_steps) == ("bicubic", 38.0, 100)
    assert config.projection(is_jpeg=False) == "exact"
    assert config.projection(is_jpeg=True) == "soft"


def test_strict_pulse_needs_the_pulse_method():
    with pytest.raises(UsageError, match="--method pulse"):
        SearchConfig(strict_pulse=True)
    strict = SearchConfig(strict_pulse=True, method="pulse")
    assert strict.projection(is_jpeg=False) == "off"


def test_samples_and_device_do_not_decide_the_pixels():
    a, b = SearchConfig(samples=4, device="cpu"), SearchConfig(samples=8, device="cuda:1")
    assert a.pixel_options() == b.pixel_options()
    for change in ({"seed": 1}, {"steps": 99}, {"batch": 4}, {"fit": "pad"}, {"precision": "fp32"}):
        assert SearchConfig(**change).pixel_options() != SearchConfig().pixel_options(), change
    assert SearchConfig(steps=100, batch=8).pixel_options() == SearchConfig().pixel_options()
