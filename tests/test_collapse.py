"""Signs of a training gone wrong: said once, and not for a healthy run."""

from __future__ import annotations

import math

from pulse_sr.training.collapse import SATURATED_IMAGES, CollapseWatch

STEP = 500


def lines_of(watch, start, count, real, fake):
    """What is said in `count` records from `start` images on."""
    said = []
    for i in range(count):
        said += watch.observe(start + i * STEP, {"real_sign": real, "fake_sign": fake})
    return said


def test_a_healthy_run_is_quiet():
    watch = CollapseWatch()
    assert lines_of(watch, 0, 200, real=0.4, fake=-0.6) == []
    assert watch.observe_spread(1000, 0.9) == []
    assert watch.observe(1000, {"generator": 1.0, "r1": 0.1}) == []


def test_a_sure_discriminator_is_reported_once_and_only_after_long():
    watch = CollapseWatch()
    long = SATURATED_IMAGES // STEP
    assert lines_of(watch, 0, long, real=1.0, fake=-0.99) == []
    (line,) = lines_of(watch, long * STEP, 1, real=1.0, fake=-0.99)
    assert "D has been sure" in line
    assert "at 20.0 kimg" in line
    assert lines_of(watch, (long + 1) * STEP, 100, real=1.0, fake=-1.0) == []


def test_a_discriminator_that_only_knows_one_side_is_not_saturated():
    """Signs of +1 for both: D takes everything for real, which is another thing."""
    watch = CollapseWatch()
    assert lines_of(watch, 0, 100, real=1.0, fake=1.0) == []
    assert lines_of(CollapseWatch(), 0, 100, real=-1.0, fake=-1.0) == []


def test_one_doubt_in_the_window_is_enough_for_quiet():
    watch = CollapseWatch()
    for i in range(100):
        doubt = i % 10 == 0  # mean sign 0.8
        sign = -1.0 if doubt else 1.0
        assert watch.observe(i * STEP, {"real_sign": sign, "fake_sign": -1.0}) == []


def test_a_number_that_is_not_finite_is_named_once():
    watch = CollapseWatch()
    (line,) = watch.observe(1600, {"generator": 1.0, "r1": math.nan, "discriminator": math.inf})
    assert "r1, discriminator is not a finite number" in line
    assert "1.6 kimg" in line
    assert watch.observe(1700, {"generator": math.nan}) == []


def test_samples_that_are_all_alike_are_reported_once():
    watch = CollapseWatch()
    assert watch.observe_spread(20_000, 0.26) == []
    (line,) = watch.observe_spread(40_000, 0.11)
    assert "0.11 times" in line
    assert "mode collapse" in line
    assert watch.observe_spread(60_000, 0.01) == []
