"""Sliced Wasserstein distances against closed forms, SciPy and a plain float64 version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import wasserstein_distance

from pulse_sr.metrics import sliced_wasserstein as sw
from pulse_sr.metrics.case import Case
from pulse_sr.metrics.gathered import gatherer

TAPS = np.array([1, 4, 6, 4, 1]) / 16


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain_blur(image, gain=1.0):
    return ndimage.convolve(image, gain**2 * np.outer(TAPS, TAPS), mode="mirror")


@pytest.fixture
def few_patches(monkeypatch):
    monkeypatch.setattr(sw, "PATCHES", 2**11)


def test_a_shift_on_the_line_costs_its_length():
    points = uniform(3, 500, seed=1)
    shifted = points[:, torch.randperm(500, generator=torch.Generator().manual_seed(2))]
    shifted = shifted + torch.tensor([[0.0], [0.25], [-3.0]])
    found = sw.wasserstein_1(points, shifted)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, [0, 0.25, 3], atol=1e-6)


def test_the_line_against_scipy():
    a, b = uniform(2, 400, seed=3), uniform(2, 400, seed=4).square()
    expected = [wasserstein_distance(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(sw.wasserstein_1(a, b), expected, rtol=1e-6)


def test_pyramid_against_scipy():
    image = uniform(1, 2, 32, 32, seed=5).double()
    fine, coarse = sw.laplacian_pyramid(image)
    for channel in range(2):
        pixels = image[0, channel].numpy()
        smaller = plain_blur(pixels)[::2, ::2]
        spread = np.zeros_like(pixels)
        spread[::2, ::2] = smaller
        np.testing.assert_allclose(coarse[0, channel], smaller, atol=1e-12)
        np.testing.assert_allclose(fine[0, channel], pixels - plain_blur(spread, 2.0), atol=1e-12)


@pytest.mark.parametrize(
    ("side", "sides"),
    [(64, [64, 32, 16]), (32, [32, 16]), (16, [16]), (8, [8]), (48, [48, 24]), (33, [33])],
)
def test_the_pyramid_ends_at_16_px(side, sides):
    levels = sw.laplacian_pyramid(torch.zeros(1, 3, side, side))
    assert [level.shape[-1] for level in levels] == sides


def test_a_flat_picture_has_no_details():
    *details, coarsest = sw.laplacian_pyramid(torch.full((1, 3, 64, 64), 0.7))
    assert max(float(level.abs().max()) for level in details) < 1e-6
    torch.testing.assert_close(coarsest, torch.full((1, 3, 16, 16), 0.7))


def test_patches_are_windows_of_all_places():
    """Pixels that name their place: x + 100 y, and the channel in the thousands."""
    places = torch.arange(16.0) + 100 * torch.arange(16.0)[:, None]
    image = torch.stack([places, places + 1000, places + 2000])[None]
    (patches,) = sw.patch_sets(image, 3000, torch.Generator().manual_seed(0))
    assert patches.shape == (3000, 3, 49)
    corners = patches[:, 0, 0]
    window = (torch.arange(7) + 100 * torch.arange(7)[:, None]).flatten()
    assert torch.equal(patches[:, 0], corners[:, None] + window)
    assert torch.equal(patches[:, 2], patches[:, 0] + 2000)
    expected = {x + 100 * y for x in range(10) for y in range(10)}
    assert {int(corner) for corner in corners} == expected


def test_every_set_has_as_many_patches():
    assert [sw.patches_per_image(n) for n in (1, 400, 1000, sw.PATCHES, 10**6)] == [
        65536,
        164,
        66,
        1,
        1,
    ]


def test_distance_of_two_known_distributions():
    """All patches on one axis: -1 and 1 here, uniform with the same deviation there.

    On the line they are E|1 - sqrt(3) v| apart for v uniform in [0, 1]; a random direction in 49
    dimensions sees the share gamma(49/2) / (sqrt(pi) gamma(25)) of it, the deviation of the channel
    is a seventh of the axis' own. 512 directions give that share within 3.3 %.
    """
    count = 4096
    two, even = torch.zeros(2, count, 1, 49)
    two[:, 0, 20] = torch.tensor([-1.0, 1.0]).repeat(count // 2)
    even[:, 0, 20] = math.sqrt(3) * (2 * (torch.arange(count) + 0.5) / count - 1)
    on_the_line = (1 / math.sqrt(3)) / 2 + (math.sqrt(3) - 1) ** 2 / (2 * math.sqrt(3))
    share = math.gamma(49 / 2) / (math.sqrt(math.pi) * math.gamma(25))
    (found,) = sw.sliced_wasserstein([two], [even])
    assert found == pytest.approx(1000 * 7 * on_the_line * share, rel=0.1)


def test_distance_against_plain_float64():
    a, b = uniform(300, 3, 49, seed=6), uniform(300, 3, 49, seed=7).square()
    rng = torch.Generator().manual_seed(5)
    directions = torch.randn(512, 147, generator=rng).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def normalised(patches):
        x = patches.double().numpy()
        return (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)

    x, y = (normalised(each).reshape(300, 147) @ directions.T for each in (a, b))
    expected = 1000 * np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)).mean()
    assert sw.sliced_wasserstein([a], [b], seed=5) == [pytest.approx(expected, rel=1e-5)]


def test_colour_and_contrast_of_a_whole_set_do_not_count(few_patches):
    a = sw.patch_sets(uniform(16, 3, 32, 32, seed=8), 128, torch.Generator().manual_seed(1))
    b = [0.3 * level + 0.5 for level in a]
    assert max(sw.sliced_wasserstein(a, b)) < 0.01


def test_grain_is_seen_on_the_fine_level(few_patches):
    """Even grain against rare specks of the same strength, on one smooth ground."""
    ground = torch.nn.functional.interpolate(uniform(64, 3, 8, 8, seed=9), scale_factor=4)
    grain = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(10))
    specks = (uniform(64, 1, 32, 32, seed=11) < 0.002).float() * 0.002**-0.5

    def patches(x, seed):
        return sw.patch_sets(x, 32, torch.Generator().manual_seed(seed))

    even = ground + 0.5 * grain
    chance = sw.sliced_wasserstein(patches(even, 1), patches(even, 2))
    found = sw.sliced_wasserstein(patches(even, 1), patches(ground + 0.5 * specks, 2))
    assert len(found) == 2
    assert found[0] > 4 * chance[0]
    assert found[0] > 2 * found[1]


def test_sets_of_other_sizes_are_refused():
    a, b = uniform(10, 3, 49), uniform(11, 3, 49)
    with pytest.raises(ValueError, match="differ"):
        sw.sliced_wasserstein([a], [b])
    with pytest.raises(ValueError, match="differ"):
        sw.sliced_wasserstein([a], [a, a])
    with pytest.raises(ValueError, match="7x7"):
        sw.laplacian_pyramid(torch.zeros(1, 3, 6, 6))


def test_patches_of_an_evaluation_lie_in_one_piece_of_memory(few_patches):
    """As many bytes as there are patches, and they are those of `patch_sets`."""
    images = (255 * uniform(3, 2, 3, 32, 32, seed=12)).byte()
    gather = gatherer("patches", 3, 5, None, "cpu")
    pairs = [gather(Case(each[:1], each[1])) for each in images]
    count, rng = sw.patches_per_image(3), torch.Generator().manual_seed(2 * 5)
    for pair, each in zip(pairs, images, strict=True):
        wanted = sw.patch_sets((each[:1].double() / 255).float(), count, rng)
        for ours, expected in zip(pair[0], wanted, strict=True):
            assert torch.equal(ours, expected)
    for level in range(2):
        places = [pair[0][level].data_ptr() for pair in pairs]
        assert np.diff(places).tolist() == [4 * count * 3 * 49] * 2


def test_an_evaluation_with_images_of_several_sizes_keeps_their_patches(few_patches):
    gather = gatherer("patches", 3, 0, None, "cpu")
    sides = (32, 64, 32)
    pairs = [
        gather(Case(torch.zeros(1, 3, s, s).byte(), torch.zeros(3, s, s).byte())) for s in sides
    ]
    assert [len(pair[0]) for pair in pairs] == [2, 3, 2]
