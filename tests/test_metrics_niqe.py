"""NIQE: golden values of BasicSR, and the formulas of the paper one block at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.metrics.niqe import niqe, niqe_features, niqe_of_set
from pulse_sr.operators.resampling import matlab_matrix

WEIGHTS = Path(__file__).parent.parent / "pulse_sr" / "metrics" / "weights" / "niqe_pris_params.npz"

#: NIQE by XPixelGroup/BasicSR@8d56e3a045f9 (`calculate_niqe`, convert_to "y"): the whole image, and
#: without 4 px at each side. It computes in float32, which moves the last digits.
GOLDEN = {
    "orig": (3.1152617128036715, 3.22542737900177),
    "bicubic_x4": (8.471814584947326, 8.171432540185686),
}


def photo(version="orig"):
    """scikit-image's `chelsea` (CC0), [3, 256, 256] in [0, 1]."""
    with Image.open(Path(__file__).parent / "data" / "chelsea__orig.png") as image:
        picture = image.convert("RGB")
    if version == "bicubic_x4":
        for side in (64, 256):
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture).transpose(2, 0, 1)).double() / 255


def gray(luma):
    """RGB [3, H, W] of a gray image whose BT.601 luma (16 to 235) is `luma`."""
    return torch.from_numpy((luma - 16.0) / 219.0).expand(3, -1, -1)


def normalised(image):
    """Equations 1 to 3, pixel by pixel of the window: 7 x 7, sigma 7/6, edge pixels repeated."""
    line = np.exp(-0.5 * (np.arange(-3, 4) * 6 / 7) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    height, width = image.shape
    padded = np.pad(image, 3, mode="edge")
    mean, square = np.zeros_like(image), np.zeros_like(image)
    for i in range(7):
        for j in range(7):
            mean += window[i, j] * padded[i : i + height, j : j + width]
    for i in range(7):
        for j in range(7):
            part = padded[i : i + height, j : j + width]
            square += window[i, j] * part**2
    return (image - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)


def fitted(x):
    """Alpha and both betas of an asymmetric generalised Gaussian, by search of a grid of 0.001."""
    left = math.sqrt(np.mean(x[x < 0] ** 2))
    right = math.sqrt(np.mean(x[x > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    grid = np.arange(0.2, 10.001, 0.001)
    gammas = [
        math.gamma(2 / a) / math.gamma(1 / a) * (math.gamma(2 / a) / math.gamma(3 / a))
        for a in grid
    ]
    alpha = grid[np.argmin((np.array(gammas) - r) ** 2)]
    scale = math.sqrt(math.gamma(1 / alpha) / math.gamma(3 / alpha))
    return alpha, left * scale, right * scale


def described(block):
    """The 18 features of a block of normalised coefficients."""
    alpha, left, right = fitted(block)
    features = [alpha, (left + right) / 2]
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbours = np.roll(np.roll(block, rows, axis=0), columns, axis=1)
        alpha, left, right = fitted(block * neighbours)
        mean = (right - left) * math.gamma(2 / alpha) / math.gamma(1 / alpha)
        features += [alpha, mean, left, right]
    return features


@pytest.mark.parametrize("version", GOLDEN)
def test_golden_values(version):
    """Within 1e-3, the tolerance of the golden values; found: 1e-5."""
    image = photo(version)
    whole, cropped = GOLDEN[version]
    assert niqe(image) == pytest.approx(whole, abs=1e-3)
    assert niqe(image[None, :, 4:-4, 4:-4].float()) == pytest.approx(cropped, abs=1e-3)


def test_features_are_those_of_the_formulas():
    """Two blocks below one another, in float64; the columns behind the first 96 do not count."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.uniform(40, 200, (16, 8)), np.ones((12, 13)))
    image = np.round(np.clip(smooth + 12 * rng.standard_normal(smooth.shape), 16, 235))
    half = matlab_matrix(96, 192) @ image[:, :96] @ matlab_matrix(48, 96).T
    fine, coarse = normalised(image[:, :96]), normalised(half)
    wanted = [
        [*described(fine[96 * i : 96 * (i + 1)]), *described(coarse[48 * i : 48 * (i + 1)])]
        for i in range(2)
    ]
    found = niqe_features(gray(image))
    assert (found.shape, found.dtype) == ((2, 36), torch.float64)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_distance_is_that_of_two_gaussians():
    """sqrt(d' pinv((C + C0) / 2) d) with the covariance over B - 1."""
    with np.load(WEIGHTS) as model:
        mean, covariance = model["mu_pris_param"][0], model["cov_pris_param"]
    features = np.random.default_rng(1).standard_normal((60, 36)) @ np.linalg.cholesky(covariance).T
    features += mean + 0.3
    difference = features.mean(axis=0) - mean
    pooled = (np.cov(features, rowvar=False) + covariance) / 2
    wanted = math.sqrt(difference @ np.linalg.solve(pooled, difference))
    assert niqe_of_set(torch.from_numpy(features)) == pytest.approx(wanted, rel=1e-7)


def test_blocks_of_a_set_are_those_of_its_images_in_order():
    image = photo()
    quarters = torch.stack([image[:, y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)])
    features = niqe_features(quarters)
    assert features.shape == (4, 36)
    torch.testing.assert_close(features[2:3], niqe_features(quarters[2]), rtol=0, atol=0)
    assert niqe_features(torch.stack([image, image])).shape == (8, 36)
    assert niqe(image) == niqe_of_set(niqe_features(image))


def test_blur_and_noise_are_farther_from_photos():
    image = photo()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3)).double()
    assert niqe((image + 0.06 * noise).clamp(0, 1)) > niqe(image) + 1
    assert niqe(photo("bicubic_x4")) > niqe(image) + 1


def test_a_block_without_contrast_is_left_out():
    """Beside three blocks of a photo, one of a single colour changes nothing."""
    features = niqe_features(photo())
    flat = niqe_features(torch.full((3, 96, 96), 0.4))
    assert not flat.isfinite().all()
    assert niqe_of_set(torch.cat([features, flat])) == niqe_of_set(features)


def test_flat_parts_are_on_neither_side():
    """The scale of a side is of the pixels on that side; those of a flat half are on none."""
    rng = np.random.default_rng(5)
    luma = np.full((96, 96), 117.0)
    luma[:, :48] = np.round(rng.uniform(60, 180, (96, 48)))
    coefficients = normalised(luma)
    coefficients[:, 51:] = 0.0
    wanted = fitted(coefficients)
    alpha, mean_scale = niqe_features(gray(luma))[0, :2].tolist()
    assert alpha == pytest.approx(wanted[0], abs=1e-6)
    assert mean_scale == pytest.approx((wanted[1] + wanted[2]) / 2, rel=1e-6)


def test_what_has_no_niqe_is_refused():
    with pytest.raises(ValueError, match=r"96 px or more, got \(3, 95, 200\)"):
        niqe_features(torch.zeros(3, 95, 200))
    with pytest.raises(ValueError, match="96 px or more"):
        niqe_features(torch.zeros(0, 3, 128, 128))
    for wrong in (torch.zeros(1, 128, 128), torch.zeros(3, 128, 128, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"expected float images \[N, 3, H, W\]"):
            niqe_features(wrong)
    with pytest.raises(ValueError, match="1 usable blocks of 96 px in 1"):
        niqe(photo()[:, :128, :128])
    with pytest.raises(ValueError, match="expected one image, got 2"):
        niqe(torch.zeros(2, 3, 192, 192))
    with pytest.raises(ValueError, match=r"expected features \[B, 36\]"):
        niqe_of_set(torch.zeros(4, 35))
