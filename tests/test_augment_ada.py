"""ADA's pipeline: its draws, its geometry and its colours against closed forms and statistics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.training.augment import colour, resampling
from pulse_sr.training.augment.ada import AdaptiveAugment, colour_matrix, inverse_geometry
from pulse_sr.training.augment.resampling import BilinearAdjoint, BilinearSample, warp

DATA = Path(__file__).parent / "data"
NEUTRAL = {"scale": 1.0, "stretch": 1.0, "contrast": 1.0, "saturation": 1.0}
COUNT = 20000


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def draws_of(count=1, **chosen):
    """Draws of which only `chosen` are not neutral, the same for every image."""
    names = AdaptiveAugment(p=1).draw(1, rng_of(0))
    draws = {}
    for name, like in names.items():
        value = torch.tensor(chosen.pop(name, NEUTRAL.get(name, 0.0)), dtype=torch.float64)
        draws[name] = value.expand(count, *like.shape[1:]).clone()
    assert not chosen
    return draws


def photo(side):
    """A sharp photo `[1, 3, side, side]`, float64 in [-1, 1]."""
    with Image.open(DATA / "chelsea__orig.png") as image:
        side_of_crop = min(image.size)
        crop = image.convert("RGB").crop((0, 0, side_of_crop, side_of_crop))
        pixels = np.asarray(crop.resize((side, side), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double() / 127.5 - 1


def psnr(a, b):
    return 10 * math.log10(4 / (a - b).square().mean())


# Draws


@pytest.fixture(scope="module")
def drawn():
    return AdaptiveAugment(p=0.3).draw(COUNT, rng_of(0))


def near(share):
    """Four standard deviations of a share of `COUNT` draws."""
    return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / COUNT))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("flip", 0.15),  # one of two choices is to do nothing
        ("quarter_turns", 0.225),  # one of four
        ("luma_flip", 0.15),
        ("rotation_before", 1 - math.sqrt(0.7)),
        ("rotation_after", 1 - math.sqrt(0.7)),
        *((name, 0.3) for name in ("shift", "scale", "stretch", "offset", "brightness")),
        *((name, 0.3) for name in ("contrast", "hue", "saturation")),
    ],
)
def test_each_transform_is_applied_with_probability_p(drawn, name, share):
    changed = (drawn[name] != NEUTRAL.get(name, 0.0)).view(COUNT, -1).any(dim=1)
    assert changed.double().mean().item() == near(share)


def test_a_rotation_occurs_with_probability_p(drawn):
    rotated = (drawn["rotation_before"] != 0) | (drawn["rotation_after"] != 0)
    assert rotated.double().mean().item() == near(0.3)


def test_the_transforms_are_chosen_independently(drawn):
    both = (drawn["scale"] != 1) & (drawn["hue"] != 0)
    assert both.double().mean().item() == near(0.3 * 0.3)


@pytest.mark.parametrize(
    ("name", "deviation"), [("scale", 0.2), ("stretch", 0.2), ("contrast", 0.5), ("saturation", 1)]
)
def test_factors_are_powers_of_two_with_a_normal_exponent(drawn, name, deviation):
    """Mean and standard deviation of about 6000 exponents, within 4 of their own deviations."""
    exponent = drawn[name][drawn[name] != 1].double().log2()
    tolerance = 4 * deviation / math.sqrt(len(exponent))
    assert exponent.mean().item() == pytest.approx(0, abs=tolerance)
    assert exponent.std().item() == pytest.approx(deviation, abs=tolerance)
    assert (exponent.abs() < deviation).double().mean().item() == pytest.approx(0.683, abs=0.025)


@pytest.mark.parametrize(
    ("name", "reach"),
    [("shift", 0.125), ("rotation_before", math.pi), ("rotation_after", math.pi), ("hue", math.pi)],
)
def test_shifts_and_angles_are_uniform(drawn, name, reach):
    value = drawn[name][drawn[name] != 0].double() / reach
    assert -1 <= value.min() < -0.99
    assert 0.99 < value.max() <= 1
    assert value.std().item() == pytest.approx(1 / math.sqrt(3), abs=0.02)


@pytest.mark.parametrize(("name", "deviation"), [("offset", 0.125), ("brightness", 0.2)])
def test_offsets_and_brightness_are_normal(drawn, name, deviation):
    value = drawn[name][drawn[name] != 0].double()
    assert value.std().item() == pytest.approx(deviation, rel=0.05)
    assert (value.abs() < deviation).double().mean().item() == pytest.approx(0.683, abs=0.025)


def test_how_much_is_drawn_does_not_depend_on_p():
    after = []
    for p in (0.0, 0.4, 1.0):
        rng = rng_of(0)
        AdaptiveAugment(p).draw(5, rng)
        after.append(torch.rand(1, generator=rng).item())
    assert after[0] == after[1] == after[2]


def test_p_counts_when_the_draws_are_made():
    x = torch.rand(2, 3, 16, 16, generator=rng_of(0))
    augmentation = AdaptiveAugment(p=0.8)
    draws = augmentation.draw(2, rng_of(1))
    before = augmentation.apply(x, draws)
    augmentation.p = 0.0
    assert torch.equal(augmentation.apply(x, draws), before)


# The filter


def test_sym6_is_an_orthogonal_filter_with_six_vanishing_moments():
    h = np.array(resampling.SYM6)
    n = np.arange(12)
    assert sum(h) == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(6):
        product = sum(h[: 12 - 2 * shift] * h[2 * shift :])
        assert product == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-11)
    for moment in range(6):
        assert abs(sum((-1.0) ** n * (n - 5.5) ** moment * h)) < 1e-8
    assert abs(sum((-1.0) ** n * (n - 5.5) ** 6 * h)) > 100


def test_up_and_down_sampling_gives_the_line_back():
    """Except within three pixels of the border, where the mirror image is filtered backwards."""
    x = torch.rand(20, generator=rng_of(0), dtype=torch.float64)
    fine = resampling.upsampling(20, x) @ x
    places = resampling.output_places(20, x) * 2 + 19
    y = resampling.downsampling(20, x) @ fine[resampling.mirror(places.long(), 39)]
    assert (y - x)[3:-3].abs().max() < 1e-11
    assert (y - x).abs().max() < 0.1


def test_the_mirror_goes_on_without_end():
    index = torch.arange(-30, 40)
    expected = np.pad(np.arange(6), (30, 34), mode="reflect")
    assert resampling.mirror(index, 6).tolist() == expected.tolist()


# The sample


def grid_of(count, side):
    return torch.rand(count, side, side, 2, generator=rng_of(1), dtype=torch.float64) * 3 - 1.5


def test_the_sample_is_differentiable_twice():
    x = torch.rand(2, 2, 5, 4, generator=rng_of(0), dtype=torch.float64, requires_grad=True)
    grid = grid_of(2, 6)
    assert torch.autograd.gradcheck(lambda x: BilinearSample.apply(x, grid), x)
    assert torch.autograd.gradgradcheck(lambda x: BilinearSample.apply(x, grid) ** 3, x)
    dy = torch.rand(2, 2, 6, 6, generator=rng_of(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda dy: BilinearAdjoint.apply(dy, grid, x.shape), dy)


def test_the_adjoint_of_the_sample():
    """<A x, y> = <x, A' y>."""
    x = torch.randn(3, 3, 9, 7, generator=rng_of(0), dtype=torch.float64)
    y = torch.randn(3, 3, 12, 12, generator=rng_of(1), dtype=torch.float64)
    grid = grid_of(3, 12)
    left = (BilinearSample.apply(x, grid) * y).sum()
    right = (x * BilinearAdjoint.apply(y, grid, x.shape)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-12)


# Geometry


def plane_wave(side, inverse=None):
    """cos of a slanted wave three sides long, at each pixel or where a matrix makes it read."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    if inverse is not None:
        places = places @ torch.from_numpy(inverse).T
    phase = (places[..., 0] + 0.6 * places[..., 1]) * 2 * math.pi / (3 * side) + 0.4
    inside = (places[..., :2].abs() < (side - 1) / 2 - 1).all(dim=-1)
    return phase.cos().expand(1, 3, side, side), inside


def rotation(degrees):
    """Counter-clockwise as it is seen, y pointing down."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def move(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


@pytest.mark.parametrize("side", [32, 65])
@pytest.mark.parametrize(
    ("draws", "transform"),
    [
        ({"scale": 1.5}, lambda side: np.diag([1.5, 1.5, 1])),
        ({"stretch": 1.25}, lambda side: np.diag([1.25, 0.8, 1])),
        ({"rotation_before": math.radians(20)}, lambda side: rotation(20)),
        ({"rotation_after": math.radians(-70)}, lambda side: rotation(-70)),
        ({"offset": [0.11, -0.07]}, lambda side: move(0.11 * side, -0.07 * side)),
        ({"shift": [0.1, -0.07]}, lambda side: move(round(0.1 * side), round(-0.07 * side))),
        (
            {
                "flip": 1.0,
                "quarter_turns": 3.0,
                "shift": [0.125, 0.0],
                "scale": 1.2,
                "rotation_before": math.radians(30),
                "stretch": 0.9,
                "rotation_after": math.radians(50),
                "offset": [0.05, 0.1],
            },
            lambda side: (
                move(0.05 * side, 0.1 * side)
                @ rotation(50)
                @ np.diag([0.9, 1 / 0.9, 1])
                @ rotation(30)
                @ np.diag([1.2, 1.2, 1])
                @ move(round(0.125 * side), 0)
                @ rotation(270)
                @ np.diag([-1, 1, 1.0])
            ),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_transform_moves_a_wave_as_it_should(draws, transform, side):
    """Where the source lies inside the image, within 2e-2.

    The filter's origin lies 0.05 pixels from its centre of mass, which turns with the image.
    """
    inverse = np.linalg.inv(transform(side))
    expected, inside = plane_wave(side, inverse)
    x, _ = plane_wave(side)
    y = warp(x, inverse_geometry(draws_of(**draws), side, side))
    assert inside.double().mean() > 0.2
    assert (y - expected)[..., inside].abs().max() < 2e-2
    assert (y - x)[..., inside].abs().max() > 0.05


@pytest.mark.parametrize(
    ("draws", "expected", "decibels"),
    [
        ({"flip": 1.0}, lambda x: x.flip(3), 44),
        ({"quarter_turns": 1.0}, lambda x: torch.rot90(x, 1, (2, 3)), 44),
        ({"quarter_turns": 2.0}, lambda x: torch.rot90(x, 2, (2, 3)), 41),
        ({"rotation_before": -math.pi / 2}, lambda x: torch.rot90(x, 3, (2, 3)), 44),
        (
            {"shift": [0.125, -0.0625]},
            lambda x: torch.nn.functional.pad(x, [8, 0, 0, 4], mode="reflect")[..., 4:, :64],
            54,
        ),
    ],
    ids=["flip", "quarter turn", "half turn", "rotation by 90 degrees", "whole pixels"],
)
def test_pixels_that_only_change_places_stay_sharp(draws, expected, decibels):
    x = photo(64)
    y = warp(x, inverse_geometry(draws_of(**draws), 64, 64))
    assert psnr(y, expected(x)) > decibels


def test_an_image_that_nothing_touches_keeps_its_bits():
    draws = draws_of(3)
    draws["rotation_after"][1] = 0.4
    draws["hue"][1] = 1.0
    x = photo(16).float().repeat(3, 1, 1, 1)
    y = AdaptiveAugment().apply(x, draws)
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[2], x[2])
    assert not torch.equal(y[1], x[1])


def test_the_adjoint_of_the_warp():
    inverse = inverse_geometry(
        {name: drawn.double() for name, drawn in AdaptiveAugment(1).draw(4, rng_of(0)).items()},
        9,
        9,
    )
    x = torch.randn(4, 3, 9, 9, generator=rng_of(1), dtype=torch.float64, requires_grad=True)
    y = torch.randn(4, 3, 9, 9, generator=rng_of(2), dtype=torch.float64)
    out = warp(x, inverse)
    (adjoint,) = torch.autograd.grad(out, x, y)
    assert (out * y).sum().item() == pytest.approx((x * adjoint).sum().item(), rel=1e-12)


def test_float32_is_close_to_float64():
    draws = AdaptiveAugment(p=1).draw(8, rng_of(0))
    x = photo(64).repeat(8, 1, 1, 1)
    exact = AdaptiveAugment().apply(x, draws)
    assert psnr(AdaptiveAugment().apply(x.float(), draws), exact) > 80


# Colours

COLOURS = torch.tensor([[0.5, -0.25, 0.1], [-1.0, 1.0, 0.0]], dtype=torch.float64)


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def mapped(matrix):
    return COLOURS @ matrix[0, :3, :3].T + matrix[0, :3, 3]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (colour.brightness(one(0.2)), COLOURS + 0.2),
        (colour.contrast(one(1.5)), COLOURS * 1.5),
        (colour.luma_flip(one(0.0)), COLOURS),
        (colour.luma_flip(one(1.0)), COLOURS - 2 * COLOURS.mean(dim=1, keepdim=True)),
        (colour.hue(one(2 * math.pi)), COLOURS),
        # A third of a turn about the axis of greys takes red to green, green to blue.
        (colour.hue(one(2 * math.pi / 3)), COLOURS.roll(1, dims=1)),
        (colour.hue(one(math.pi)), 2 * COLOURS.mean(dim=1, keepdim=True) - COLOURS),
        (colour.saturation(one(0.0)), COLOURS.mean(dim=1, keepdim=True).expand(2, 3)),
        (colour.saturation(one(3.0)), 3 * COLOURS - 2 * COLOURS.mean(dim=1, keepdim=True)),
    ],
    ids=["add", "multiply", "no flip", "flip", "turn", "third", "half", "grey", "triple"],
)
def test_the_colour_matrices_are_their_closed_forms(matrix, expected):
    assert (mapped(matrix) - expected).abs().max() < 1e-14
    assert matrix[0, 3].tolist() == [0, 0, 0, 1]


def test_two_luma_flips_cancel():
    flip = colour.luma_flip(one(1.0))
    assert (flip @ flip - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-14


def test_the_colour_transforms_are_applied_in_their_order():
    draws = draws_of(brightness=0.1, contrast=2.0, luma_flip=1.0, hue=2 * math.pi / 3)
    draws |= {"saturation": one(0.5)}
    x = (COLOURS + 0.1) * 2
    x = (x - 2 * x.mean(dim=1, keepdim=True)).roll(1, dims=1)
    x = (x + x.mean(dim=1, keepdim=True)) / 2
    assert (mapped(colour_matrix(draws)) - x).abs().max() < 1e-14


def test_images_get_their_colours_by_the_matrix():
    draws = draws_of(2, hue=2 * math.pi / 3)
    draws["brightness"][1] = 0.25
    x = photo(8).repeat(2, 1, 1, 1)
    expected = x.roll(1, dims=1)
    expected[1] += 0.25
    assert (AdaptiveAugment().apply(x, draws) - expected).abs().max() < 1e-12
