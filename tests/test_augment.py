"""DiffAugment against stored outputs of the official code (tolerance 1e-6), and its draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_sr.training import augment
from pulse_sr.training.augment import POLICIES, diff_augment

GOLDEN = np.load(Path(__file__).parent / "data" / "diffaug.npz", allow_pickle=False)
CASES = json.loads(str(GOLDEN["meta_json"]))["cases"]
ALL = tuple(POLICIES)


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def official(case, x):
    """The transforms with the draws that the official code made, in its order."""

    def draw(name):
        return torch.from_numpy(GOLDEN[f"{case['key']}_{name}"])

    for name in ("brightness", "saturation", "contrast"):
        x = getattr(augment, name)(x, draw(f"{name}_rand"))
    x = augment.translation(x, draw("translation_x").flatten(), draw("translation_y").flatten())
    rows, columns = draw("cutout_offset_x"), draw("cutout_offset_y")
    return augment.cutout(x, rows.flatten(), columns.flatten())


@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c["shape"])))
def test_the_transforms_are_the_official_ones(case):
    assert case["policy"] == "color,translation,cutout"
    x = torch.from_numpy(GOLDEN[f"{case['key']}_x"]).requires_grad_()
    y = official(case, x)
    assert (y - torch.from_numpy(GOLDEN[f"{case['key']}_y"])).abs().max() < 1e-6
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(GOLDEN[f"{case['key']}_cot"]))
    assert (dx - torch.from_numpy(GOLDEN[f"{case['key']}_dx"])).abs().max() < 1e-6


def test_the_policies_have_the_official_names_and_order():
    assert ALL == ("color", "translation", "cutout")


def test_no_policy_changes_nothing():
    x = torch.rand(2, 3, 8, 8, generator=rng_of(0))
    assert diff_augment(x, (), rng_of(1)) is x


@pytest.mark.parametrize("name", ALL)
def test_each_image_has_draws_of_its_own(name):
    """Twelve copies of one image: with one draw for the batch they would all be equal."""
    x = torch.rand(1, 3, 16, 16, generator=rng_of(0)).expand(12, -1, -1, -1)
    y = diff_augment(x, (name,), rng_of(1))
    distinct = {image.numpy().tobytes() for image in y}
    assert len(distinct) >= 8


def test_the_same_generator_gives_the_same_images():
    x = torch.rand(4, 3, 16, 16, generator=rng_of(0))
    first, second = (diff_augment(x, ALL, rng_of(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, diff_augment(x, ALL, rng_of(6)))


def shifts(x):
    """Where the bright pixel of each image went, relative to (8, 8)."""
    places = diff_augment(x, ("translation",), rng_of(0)).sum(dim=1).flatten(1).argmax(dim=1)
    return {(8 - p // 16, 8 - p % 16) for p in places.tolist()}


def test_every_translation_occurs_and_no_other():
    """Up to an eighth of the side, both ways, in rows and columns independently: 5 x 5 shifts."""
    x = torch.zeros(1000, 3, 16, 16)
    x[:, :, 8, 8] = 1
    assert shifts(x) == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}


@pytest.mark.parametrize("side", [6, 8])
def test_every_cutout_centre_occurs_and_no_other(side):
    """Centres 0 to the side; to the side less one where the window is odd (side 6: 3)."""
    window = side // 2
    last = side - 1 if window % 2 else side
    x = torch.ones(4000, 1, side, side)
    found = {image.numpy().tobytes() for image in diff_augment(x, ("cutout",), rng_of(0))}
    expected = set()
    for row in range(last + 1):
        for column in range(last + 1):
            image = torch.ones(1, side, side)
            rows, columns = (
                [min(max(centre - window // 2 + i, 0), side - 1) for i in range(window)]
                for centre in (row, column)
            )
            for r in rows:
                image[0, r, columns] = 0
            expected.add(image.numpy().tobytes())
    assert found == expected


def test_the_colour_draws_span_their_ranges():
    """Brightness shifts by -0.5 to 0.5: uniform, so 2000 draws come within 0.01 of both ends."""
    u = torch.rand(2000, 1, 1, 1, generator=rng_of(0))
    shift = augment.brightness(torch.zeros(2000, 1, 1, 1), u)
    assert shift.min() == pytest.approx(-0.5, abs=0.01)
    assert shift.max() == pytest.approx(0.5, abs=0.01)
    x = torch.rand(1, 3, 4, 4, generator=rng_of(1))
    grey = augment.saturation(x, torch.zeros(1, 1, 1, 1))
    assert (grey - x.mean(dim=1, keepdim=True)).abs().max() < 1e-6
    assert (augment.saturation(x, torch.full((1, 1, 1, 1), 0.5)) - x).abs().max() < 1e-6
    assert (augment.contrast(x, torch.full((1, 1, 1, 1), 0.5)) - x).abs().max() < 1e-6
