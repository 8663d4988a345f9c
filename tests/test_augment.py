"""Augmentations: what all of them keep to, and DiffAugment against stored outputs of the official
code (tolerance 1e-6), with the range of its draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_sr.errors import UsageError
from pulse_sr.training.augment import diffaug
from pulse_sr.training.augment.ada import AdaptiveAugment
from pulse_sr.training.augment.base import NoAugment
from pulse_sr.training.augment.diffaug import POLICIES, DiffAugment

GOLDEN = np.load(Path(__file__).parent / "data" / "diffaug.npz", allow_pickle=False)
CASES = json.loads(str(GOLDEN["meta_json"]))["cases"]
ALL = tuple(POLICIES)
ORDERS = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}
AUGMENTATIONS = {
    "off": NoAugment(),
    **{name: DiffAugment((name,)) for name in ALL},
    "diffaug": DiffAugment(ALL),
    "ada": AdaptiveAugment(p=0.8),
}
each_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
each_augmentation = pytest.mark.parametrize(
    "augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS
)


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def images(count, side, seed=0, **options):
    return torch.rand(count, 3, side, side, generator=rng_of(seed), **options) * 2 - 1


# What all augmentations keep to


@each_augmentation
@each_order
def test_shape_dtype_and_memory_order_stay(augmentation, order):
    draws = augmentation.draw(3, rng_of(0))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = images(3, 16).to(dtype).contiguous(memory_format=order)
        y = augmentation.apply(x, draws)
        assert (y.shape, y.dtype, y.stride()) == (x.shape, x.dtype, x.stride())


@each_augmentation
def test_the_memory_order_makes_no_difference(augmentation):
    """Up to the rounding of sums in another order: 1e-5 in float32."""
    x = images(4, 16)
    draws = augmentation.draw(4, rng_of(0))
    y = augmentation.apply(x.contiguous(memory_format=torch.channels_last), draws)
    assert (y - augmentation.apply(x, draws)).abs().max() < 1e-5


@each_augmentation
@each_order
def test_an_image_does_not_depend_on_its_batch(augmentation, order):
    """The same bits alone, in a micro-batch and in the whole batch."""
    x = images(6, 16).contiguous(memory_format=order)
    draws = augmentation.draw(6, rng_of(3))
    whole = augmentation.apply(x, draws)
    for part in (slice(0, 1), slice(4, 5), slice(2, 6)):
        alone = augmentation.apply(x[part], {name: drawn[part] for name, drawn in draws.items()})
        assert torch.equal(alone, whole[part])


@each_augmentation
@each_order
def test_autocast_changes_nothing(augmentation, order):
    x = images(3, 16).contiguous(memory_format=order)
    draws = augmentation.draw(3, rng_of(0))
    with torch.autocast("cpu", torch.bfloat16):
        y = augmentation.apply(x, draws)
    assert torch.equal(y, augmentation.apply(x, draws))


@each_augmentation
@each_order
def test_the_derivatives_of_first_and_second_order(augmentation, order):
    """Against finite differences, in float64; R1 takes the second."""
    x = images(2, 5, dtype=torch.float64).contiguous(memory_format=order).requires_grad_()
    draws = augmentation.draw(2, rng_of(1))

    def apply(x):
        return augmentation.apply(x, draws)

    assert torch.autograd.gradcheck(apply, x)
    assert torch.autograd.gradgradcheck(lambda x: apply(x) ** 2, x)


@each_augmentation
def test_r1_under_autocast_goes_through_the_augmentation(augmentation):
    """D(x) = sum of y^2 / 2 has the gradient A'y; here in the way the trainer asks for it."""
    draws = augmentation.draw(2, rng_of(0))
    penalties = []
    for enabled in (False, True):
        x = images(2, 16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = augmentation.apply(x, draws).square().sum() / 2
            (gradient,) = torch.autograd.grad(logits, x, create_graph=True)
            penalty = gradient.square().sum()
        (second,) = torch.autograd.grad(penalty, x)
        penalties.append((penalty.item(), second))
    assert penalties[1][0] == pytest.approx(penalties[0][0], rel=0.02)
    exact = penalties[0][1]
    assert (penalties[1][1] - exact).norm() < 0.02 * exact.norm()


@each_augmentation
def test_the_same_generator_gives_the_same_draws(augmentation):
    first, second, other = (augmentation.draw(4, rng_of(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(len(drawn) == 4 for drawn in first.values())
    assert not first or any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("augmentation", [NoAugment(), DiffAugment(()), AdaptiveAugment(p=0)])
def test_no_augmentation_hands_the_images_on(augmentation):
    x = images(2, 8)
    assert augmentation.apply(x, augmentation.draw(2, rng_of(1))) is x


# DiffAugment


def official(case, x):
    """The transforms with the draws that the official code made, in its order."""

    def draw(name):
        return torch.from_numpy(GOLDEN[f"{case['key']}_{name}"]).flatten()

    x = diffaug.color(x, *(draw(f"{name}_rand") for name in POLICIES["color"]))
    x = diffaug.translation(x, draw("translation_x"), draw("translation_y"))
    return diffaug.cutout(x, draw("cutout_offset_x"), draw("cutout_offset_y"))


@each_order
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c["shape"])))
def test_the_transforms_are_the_official_ones(case, order):
    assert case["policy"] == "color,translation,cutout"
    x = torch.from_numpy(GOLDEN[f"{case['key']}_x"]).contiguous(memory_format=order)
    x.requires_grad_()
    y = official(case, x)
    assert (y - torch.from_numpy(GOLDEN[f"{case['key']}_y"])).abs().max() < 1e-6
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(GOLDEN[f"{case['key']}_cot"]))
    assert (dx - torch.from_numpy(GOLDEN[f"{case['key']}_dx"])).abs().max() < 1e-6


def test_the_policies_have_the_official_names_and_order():
    assert ALL == ("color", "translation", "cutout")


@pytest.mark.parametrize("policy", [("colour",), ("color", "color")])
def test_a_policy_that_can_not_be_applied_is_named(policy):
    with pytest.raises(UsageError, match=",".join(policy)):
        DiffAugment(policy)


@pytest.mark.parametrize("name", ALL)
def test_each_image_has_draws_of_its_own(name):
    """Twelve copies of one image: with one draw for the batch they would all be equal."""
    x = images(1, 16).expand(12, -1, -1, -1)
    y = DiffAugment((name,)).apply(x, DiffAugment((name,)).draw(12, rng_of(1)))
    assert len({image.numpy().tobytes() for image in y}) >= 8


def applied(name, x):
    augmentation = DiffAugment((name,))
    return augmentation.apply(x, augmentation.draw(len(x), rng_of(0)))


def test_every_translation_occurs_and_no_other():
    """Up to an eighth of the side, both ways, in rows and columns independently: 5 x 5 shifts."""
    x = torch.zeros(1000, 3, 16, 16)
    x[:, :, 8, 8] = 1
    places = applied("translation", x).sum(dim=1).flatten(1).argmax(dim=1)
    shifts = {(8 - p // 16, 8 - p % 16) for p in places.tolist()}
    assert shifts == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}


@pytest.mark.parametrize("side", [6, 8])
def test_every_cutout_centre_occurs_and_no_other(side):
    """Centres 0 to the side; to the side less one where the window is odd (side 6: 3)."""
    window = side // 2
    last = side - 1 if window % 2 else side
    found = {
        image.numpy().tobytes() for image in applied("cutout", torch.ones(4000, 1, side, side))
    }
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


def test_the_largest_uniform_number_stays_in_range():
    """Float32 rounds products up; the largest number below 1 must not reach the next integer."""
    u = torch.tensor([0.0, 1 - 2**-24])
    for side in (6, 24, 64, 100, 1024):
        limit = int(side / 8 + 0.5)
        assert diffaug.shift_of(u, side).tolist() == [-limit, limit]
        odd = int(side / 2 + 0.5) % 2
        assert diffaug.centre_of(u, side).tolist() == [0, side - odd]


def test_one_draw_serves_images_of_any_size():
    """Ramps to the right and down keep their means, but for the rounding of draws to pixels."""
    augmentation = DiffAugment(("translation", "cutout"))
    draws = augmentation.draw(50, rng_of(0))
    means = []
    for side in (64, 128):
        right = torch.linspace(-1, 1, side).expand(side, side)
        x = torch.stack([right, right.T, torch.ones(side, side)]).repeat(50, 1, 1, 1)
        means.append(augmentation.apply(x, draws).mean(dim=[2, 3]))
    assert (means[0] - means[1]).abs().max() < 0.03
    assert means[0].std(dim=0).min() > 0.06


def test_the_colour_draws_span_their_ranges():
    """Brightness shifts by -0.5 to 0.5; the neutral draw of the other two is one half."""
    u = DiffAugment(("color",)).draw(2000, rng_of(0))
    half = torch.full((2000,), 0.5)
    shift = diffaug.color(torch.zeros(2000, 1, 1, 1), u["brightness"], half, half)
    assert shift.min() == pytest.approx(-0.5, abs=0.01)
    assert shift.max() == pytest.approx(0.5, abs=0.01)
    x = images(1, 4, seed=1)
    neutral, none = torch.full((1,), 0.5), torch.zeros(1)
    grey = diffaug.color(x, neutral, none, neutral)
    assert (grey - x.mean(dim=1, keepdim=True)).abs().max() < 1e-6
    assert (diffaug.color(x, neutral, neutral, neutral) - x).abs().max() < 1e-6
