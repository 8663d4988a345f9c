"""The overfitting heuristic of ADA (section 3.1): how p follows the signs of the logits."""

from __future__ import annotations

import json

import pytest

from pulse_sr.training.augment.ada import OverfittingHeuristic

BATCH = 16
#: What p moves by: 4 steps of 16 images out of the 500 thousand from 0 to 1.
MOVE = 4 * BATCH / 500_000


def observe(heuristic, real_sign, steps):
    for _ in range(steps):
        heuristic.observe(real_sign, BATCH)
    return heuristic.p


def test_p_changes_every_fourth_step_by_the_images_shown():
    heuristic = OverfittingHeuristic()
    found = [observe(heuristic, 1.0, 1) for _ in range(8)]
    assert found == pytest.approx([0, 0, 0, MOVE, MOVE, MOVE, MOVE, 2 * MOVE])


def test_steps_may_be_observed_together():
    heuristic = OverfittingHeuristic()
    heuristic.observe(1.0, 2 * BATCH, steps=2)
    assert heuristic.p == 0
    heuristic.observe(1.0, 2 * BATCH, steps=2)
    assert heuristic.p == pytest.approx(MOVE)


@pytest.mark.parametrize(("real_sign", "direction"), [(0.7, 1), (0.6, 0), (0.5, -1), (-1, -1)])
def test_p_rises_above_the_target_and_falls_below(real_sign, direction):
    heuristic = OverfittingHeuristic(p=0.5)
    observe(heuristic, real_sign, 4)
    assert heuristic.p - 0.5 == pytest.approx(direction * MOVE, abs=1e-12)


def test_the_sign_is_averaged_over_the_images_of_the_steps():
    """(32 * 1 + 3 * 16 * 0.4) / 80 = 0.64 is above the target; the mean of the four, 0.55, not."""
    heuristic = OverfittingHeuristic(p=0.5)
    heuristic.observe(1.0, 2 * BATCH)
    observe(heuristic, 0.4, 3)
    assert heuristic.r == pytest.approx(0.64)
    assert heuristic.p == pytest.approx(0.5 + 5 * BATCH / 500_000)


def test_half_a_million_images_lead_from_0_to_1():
    heuristic = OverfittingHeuristic(limit=1.0)
    moves = 500_000 // (4 * BATCH)
    assert observe(heuristic, 1.0, 4 * moves) == pytest.approx(1, abs=MOVE)
    assert heuristic.p < 1
    assert observe(heuristic, 1.0, 4) == 1.0


def test_p_stays_between_0_and_the_limit():
    heuristic = OverfittingHeuristic(kimg=1)
    assert observe(heuristic, -1.0, 8) == 0.0
    assert observe(heuristic, 1.0, 400) == 0.8


def test_p_settles_where_the_discriminator_is_at_the_target():
    """A simulated discriminator that knows 0.9 - 0.5 p of the reals holds the target at p = 0.6."""
    heuristic = OverfittingHeuristic(kimg=20)
    for _ in range(4000):
        heuristic.observe(0.9 - 0.5 * heuristic.p, BATCH)
    assert heuristic.p == pytest.approx(0.6, abs=4 * BATCH / 20_000)
    assert heuristic.r == pytest.approx(0.6, abs=0.01)


def test_a_resumed_run_goes_on_exactly():
    """Interrupted between two changes of p, through JSON as in a checkpoint."""
    signs = [0.9, 0.61, 0.3, 0.77, 0.123456789, 0.9, 0.95, 1.0, 0.7, 0.2, 0.1]
    whole, resumed = OverfittingHeuristic(p=0.1), OverfittingHeuristic(p=0.1)
    for i, sign in enumerate(signs):
        whole.observe(sign, BATCH + i)
        resumed.observe(sign, BATCH + i)
        state = json.loads(json.dumps(resumed.state()))
        resumed = OverfittingHeuristic()
        resumed.load(state)
        assert resumed.state() == whole.state()
    assert whole.p != 0.1
