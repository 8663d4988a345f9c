"""The animation of a search: which frames are kept, what the GIF shows."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.report.animation import (
    MOST_FRAMES,
    StepFrames,
    Written,
    frames_of,
    read_matches,
    remove_frames,
    render_animation,
)
from pulse_sr.report.animation_frame import Cell, FrameLayout

SIDE = 32
LOW_RES = np.full((3, 8, 8), 77, np.uint8)


def flat(value):
    return torch.full((3, SIDE, SIDE), value / 255)


def colour_of(image, place):
    return tuple(int(c) for c in np.asarray(image.convert("RGB"))[place])


#: What makes a picture ours: others are never removed.
OURS = {"Software": "pulse-sr"}


def record(folder, ends, steps=20):
    """A search whose sample k is 40 + 10 k bright and a bit brighter with every step."""
    frames = StepFrames(folder, steps, OURS)
    for index, end in enumerate(ends):
        for step in range(end):
            frames.on_step(index, step, flat(40 + 10 * index + step), 10.0 + step)
    frames.close()
    return frames


def written(number):
    return [
        Written(k, np.full((3, SIDE, SIDE), 200 - 10 * k, np.uint8), 50.0 + k)
        for k in range(number)
    ]


def gif_of(folder, number, comment="synthetic"):
    data = render_animation(folder, LOW_RES, written(number), 38.0, comment)
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("steps", [1, 59, 60, 100, 5000])
def test_frames_are_thinned_evenly_to_sixty_with_the_last(tmp_path, steps):
    frames = StepFrames(tmp_path, steps)
    for step in range(steps):
        frames.on_step(0, step, torch.zeros(3, 4, 4), 1.0)
    kept = list(frames_of(tmp_path, 0))
    assert kept == list(range(0, steps, frames.stride))
    assert len(kept) <= MOST_FRAMES - 1
    assert len(kept) >= min(steps, (MOST_FRAMES - 1) / 2)  # and no more thinly than needed


def test_frames_are_on_disk_at_once_and_hold_the_image(tmp_path):
    """Memory does not grow with the steps: an image is a file before the next one comes."""
    frames = StepFrames(tmp_path / "steps", 4, {"Comment": "synthetic"})
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    for step in range(4):
        frames.on_step(12, step, image, 20.0)
        assert list(frames_of(tmp_path / "steps", 12)) == list(range(step + 1))
    file = Image.open(frames_of(tmp_path / "steps", 12)[3])
    exact = image.numpy().transpose(1, 2, 0) * 255
    assert np.abs(np.asarray(file) - exact).max() <= 0.5 + 1e-4
    assert file.text["Comment"] == "synthetic"


def test_a_sample_that_begins_anew_drops_what_it_had(tmp_path):
    frames = StepFrames(tmp_path, 10, OURS)
    for step in range(8):
        frames.on_step(0, step, flat(10), 5.0)
        frames.on_step(1, step, flat(10), 5.0)
    for step in range(3):
        frames.on_step(0, step, flat(90), 6.0)
    frames.close()
    assert list(frames_of(tmp_path, 0)) == [0, 1, 2]
    assert len(frames_of(tmp_path, 1)) == 8
    assert read_matches(tmp_path)[0] == [(0, 6.0), (1, 6.0), (2, 6.0)]


def test_matches_of_every_step_are_a_table_also_over_two_runs(tmp_path):
    first = StepFrames(tmp_path, 200)
    for step in range(150):
        first.on_step(0, step, flat(1), step / 8)
    first.close()
    second = StepFrames(tmp_path, 200)
    second.on_step(1, 0, flat(1), 3.25)
    second.close()
    with (tmp_path / "lr_psnr.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 151
    assert rows[149] == {"sample": "0", "step": "149", "lr_psnr": f"{149 / 8:.4f}"}
    assert rows[150] == {"sample": "1", "step": "0", "lr_psnr": "3.2500"}


def test_damaged_matches_are_none(tmp_path):
    (tmp_path / "lr_psnr.csv").write_text("sample,step\n0,1\n")
    assert read_matches(tmp_path) == {}


def test_removing_frames_leaves_other_files(tmp_path):
    record(tmp_path, [3, 3])
    (tmp_path / "mine.txt").write_text("a file of the user")
    Image.new("RGB", (4, 4)).save(tmp_path / "sample_00_step_0009.png")
    remove_frames(tmp_path, 0)
    assert list(frames_of(tmp_path, 0)) == [9]
    assert len(frames_of(tmp_path, 1)) == 3
    remove_frames(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine.txt", "sample_00_step_0009.png"}


def test_the_gif_shows_each_step_holds_ended_samples_and_ends_with_the_files(tmp_path):
    record(tmp_path, [20, 12])
    gif = gif_of(tmp_path, 2)
    assert gif.n_frames == 21
    assert gif.info["loop"] == 0
    assert gif.info["comment"] == b"synthetic"
    # One palette of 256 for all frames: colours may be off by a few of 255.
    places = [(18 + 80, 18 + 80), (18 + 80, 18 + 160 + 12 + 80)]  # the middles of the two cells
    for frame, values in ((0, (40, 50)), (11, (51, 61)), (19, (59, 61)), (20, (200, 190))):
        gif.seek(frame)
        for place, value in zip(places, values, strict=True):
            assert colour_of(gif, place) == pytest.approx((value,) * 3, abs=4), frame
    assert gif.info["duration"] > 2000  # the result stays long enough to be looked at


def test_the_gif_shows_only_samples_that_have_frames_sixteen_at_most(tmp_path):
    record(tmp_path, [2] * 5)
    narrow = gif_of(tmp_path, 5).size
    remove_frames(tmp_path, 4)
    assert gif_of(tmp_path, 5).size[1] < narrow[1]  # four in one row
    record(tmp_path, [2] * 16)
    sixteen = gif_of(tmp_path, 16).size
    record(tmp_path, [2] * 18)
    assert gif_of(tmp_path, 18).size == sixteen
    remove_frames(tmp_path)
    with pytest.raises(ValueError, match="no frames"):
        gif_of(tmp_path, 2)


def ink(layout, cells, step):
    """How many pixels of the plot have the colour of the curves."""
    picture = np.asarray(layout.draw(cells, step)).astype(int)
    return int((np.abs(picture - (40, 90, 160)).sum(axis=2) < 12).sum())


def test_curves_grow_with_the_steps():
    curve = [(step, 15.0 + step) for step in range(30)]
    layout = FrameLayout(LOW_RES, SIDE, 1, 38.0, [curve])
    cells = [Cell(np.full((3, SIDE, SIDE), 128, np.uint8), "#0", False)]
    lengths = [ink(layout, cells, step) for step in (0, 10, 20, 29)]
    assert lengths[0] > 0
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 4
    assert ink(layout, cells, None) == lengths[-1]


@pytest.mark.parametrize("db", [float("-inf"), float("inf"), float("nan"), -300.0, 400.0])
def test_curves_with_extreme_matches_are_drawn(db):
    layout = FrameLayout(LOW_RES, SIDE, 1, 38.0, [[(0, db), (1, 20.0), (2, 21.0)]])
    cells = [Cell(np.full((3, SIDE, SIDE), 128, np.uint8), "#0", False)]
    assert ink(layout, cells, None) > 0


@pytest.mark.parametrize("side", [16, 64, 128, 512])
def test_cells_have_a_readable_size_at_every_resolution(side):
    layout = FrameLayout(LOW_RES, side, 4, 38.0, [[(0, 20.0)]] * 4)
    cells = [Cell(np.full((3, side, side), 99, np.uint8), "#0", False)] * 4
    picture = np.asarray(layout.draw(cells, 0))
    assert (picture == 99).all(axis=2).sum() >= 4 * 120**2
    assert layout.width < 800
