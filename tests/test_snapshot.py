"""The pictures of fixed latents."""

from __future__ import annotations

import numpy as np
import torch
from toy_priors import LinearPrior

from pulse_sr.images.pixels import to_uint8
from pulse_sr.training.snapshot import (
    GRID_SIDE,
    STRIP_SEEDS,
    STRIP_STEPS,
    interpolation_strip,
    sample_grid,
    slerp,
)

PRIOR = LinearPrior(resolution=8)


def test_grid_holds_the_samples_of_seeds_0_to_63_row_by_row():
    grid = sample_grid(PRIOR)
    assert grid.shape == (3, 8 * 8, 8 * 8)
    for seed in (0, 7, 8, 63):
        row, column = divmod(seed, GRID_SIDE)
        cell = grid[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        np.testing.assert_array_equal(cell, to_uint8(PRIOR.sample([seed])[0].numpy()))


def test_strip_begins_and_ends_with_its_samples():
    strip = interpolation_strip(PRIOR)
    assert strip.shape == (3, 8 * len(STRIP_SEEDS), 8 * STRIP_STEPS)
    for row, seeds in enumerate(STRIP_SEEDS):
        line = strip[:, 8 * row : 8 * row + 8]
        for cell, seed in zip((line[:, :, :8], line[:, :, -8:]), seeds, strict=True):
            sample = to_uint8(PRIOR.sample([seed])[0].numpy())
            assert np.abs(cell.astype(int) - sample).max() <= 1


def test_slerp_of_a_right_angle():
    """From (2, 0) to (0, 4): a third of the way is 30 degrees, and 2 + 2/3 long."""
    found = slerp(torch.tensor([2.0, 0]), torch.tensor([0, 4.0]), [0, 1 / 3, 1])
    third = (2 + 2 / 3) * torch.tensor([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    expected = torch.stack([torch.tensor([2.0, 0]), third.float(), torch.tensor([0, 4.0])])
    torch.testing.assert_close(found, expected)


def test_slerp_along_one_line_is_straight():
    a = torch.tensor([1.0, 2, 2])
    torch.testing.assert_close(slerp(a, 3 * a, [0.5]), 2 * a[None])
