"""The metrics against known answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pulse_sr.metrics import frechet, kernel
from pulse_sr.metrics.frechet import fit_gaussian, frechet_distance
from pulse_sr.metrics.kernel import kernel_distance, mean_kernel_within
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import (
    feature_distance,
    pooled_features,
    squeezenet_features,
    squeezenet_weights,
)


@pytest.fixture(scope="module")
def cat():
    """scikit-image's `chelsea` (CC0), [1, 3, 256, 256]."""
    with Image.open(Path(__file__).parent / "data" / "chelsea__orig.png") as image:
        pixels = np.asarray(image.convert("RGB")) / 255.0
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blurred(image, sigma):
    x = torch.arange(-12, 13).float()
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None, None].expand(3, 1, 1, -1)
    image = F.conv2d(F.pad(image, [12] * 4, mode="reflect"), kernel, groups=3)
    return F.conv2d(image, kernel.mT, groups=3)


def test_psnr_of_a_known_error():
    truth = torch.full((2, 3, 8, 8), 0.5)
    images = truth.clone()
    images[0] += 0.1
    values = psnr(images, truth[:1])
    assert values.dtype == torch.float64
    assert float(values[0]) == pytest.approx(20.0, abs=1e-5)
    assert float(values[1]) == math.inf


def test_psnr_refuses_other_sizes_and_bytes():
    with pytest.raises(ValueError, match="differ"):
        psnr(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))
    with pytest.raises(ValueError, match="floats"):
        psnr(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 8, 8))


def test_a_cat_is_a_cat(cat):
    """Wrong channel order, range, padding or pooling would not pass."""
    last, weights = squeezenet_features(cat)[-1], squeezenet_weights(cat.device)
    logits = F.conv2d(last, weights["conv_final.weight"], weights["conv_final.bias"])
    scores = logits.relu().mean(dim=[2, 3])[0]
    assert 281 <= int(scores.argmax()) <= 285
    assert float(scores.softmax(0)[281:286].sum()) > 0.8


@pytest.mark.parametrize(
    ("size", "sides"), [((224, 224), (109, 54, 27, 13)), ((64, 64), (109, 54, 27, 13))]
)
def test_feature_shapes(size, sides):
    maps = squeezenet_features(torch.rand(2, 3, *size))
    channels = (96, 256, 512, 512)
    expected = [(2, c, s, s) for c, s in zip(channels, sides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert all(float(m.min()) >= 0 for m in maps)


def test_small_images_are_enlarged_bilinearly_to_224():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(image, size=224, mode="bilinear", align_corners=False)
    torch.testing.assert_close(squeezenet_features(image)[-1], squeezenet_features(large)[-1])


def test_features_refuse_bytes():
    with pytest.raises(ValueError, match="uint8"):
        squeezenet_features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_feature_distance_is_zero_for_itself_and_symmetric(cat):
    other = blurred(cat, 2.0)
    assert float(feature_distance(cat, cat)) == 0
    torch.testing.assert_close(feature_distance(cat, other), feature_distance(other, cat))


def test_feature_distance_grows_with_blur_and_noise(cat):
    small = F.interpolate(cat, size=128, mode="bilinear", antialias=True)
    noise = normal(1, 3, 128, 128).float()
    blur = [float(feature_distance(blurred(small, s), small)) for s in (0.5, 1.0, 2.0, 4.0)]
    grain = [
        float(feature_distance((small + s * noise).clamp(0, 1), small)) for s in (0.02, 0.05, 0.15)
    ]
    assert blur == sorted(blur)
    assert grain == sorted(grain)
    assert blur[0] > 0
    assert max(blur + grain) < 2


def test_a_sample_does_not_depend_on_its_company(cat):
    small = F.interpolate(cat, size=64, mode="bilinear", antialias=True)
    batch = torch.cat([blurred(small, 2.0), small, small.flip(3)])
    together = feature_distance(batch, small)
    assert float(together[1]) < 1e-10  # convolutions may round differently for another batch size
    torch.testing.assert_close(together[:1], feature_distance(batch[:1], small))
    pooled = pooled_features(batch, chunk=2)
    assert pooled.shape == (3, 512)
    torch.testing.assert_close(pooled[2:], pooled_features(batch[2:]))


def test_feature_distance_has_a_gradient(cat):
    small = F.interpolate(cat, size=64, mode="bilinear", antialias=True)
    image = blurred(small, 1.0).requires_grad_()
    feature_distance(image, small).sum().backward()
    assert float(image.grad.abs().max()) > 0


def with_moments(count, mean, covariance, seed):
    """Rows whose sample mean and covariance are exactly these."""
    x = normal(count, len(mean), seed=seed)
    x = x - x.mean(dim=0)
    whitening = torch.linalg.inv(torch.linalg.cholesky(x.mT @ x / (count - 1)))
    return x @ whitening.mT @ torch.linalg.cholesky(covariance).mT + mean


def test_frechet_distance_of_commuting_gaussians():
    """With a common eigenbasis it is |m1 - m2|^2 + sum (s1 - s2)^2 over the deviations."""
    basis = torch.linalg.qr(normal(4, 4, seed=1))[0]
    s1, s2 = (
        torch.tensor([1.0, 2.0, 0.5, 3.0]).double(),
        torch.tensor([2.0, 0.1, 0.5, 1.0]).double(),
    )
    m1, m2 = normal(4, seed=2), normal(4, seed=3)
    a = with_moments(50, m1, basis @ (s1**2).diag() @ basis.mT, seed=4)
    b = with_moments(70, m2, basis @ (s2**2).diag() @ basis.mT, seed=5)
    expected = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_general_gaussians_against_scipy():
    from scipy.linalg import sqrtm

    c1, c2 = (m @ m.mT + torch.eye(5) for m in (normal(5, 5, seed=6), normal(5, 5, seed=7)))
    zero = torch.zeros(5).double()
    a, b = with_moments(40, zero, c1, seed=8), with_moments(40, zero, c2, seed=9)
    root = np.real(sqrtm((c1 @ c2).numpy()))
    expected = float(c1.trace() + c2.trace()) - 2 * float(np.trace(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_moments_are_summed_in_float64_block_by_block(monkeypatch):
    """Float32 features far from zero: sums in float32 would lose the covariance."""
    monkeypatch.setattr(frechet, "_BLOCK", 7)
    features = (normal(50, 3, seed=20) + 5000).float()
    found = fit_gaussian(features)
    assert found.count == 50
    np.testing.assert_allclose(found.mean, features.double().mean(dim=0), rtol=1e-14)
    expected = np.cov(features.double().numpy().T)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)


def test_frechet_distance_takes_moments_in_the_place_of_features():
    a, b = normal(30, 6, seed=21), normal(40, 6, seed=22) * 2
    assert frechet_distance(fit_gaussian(a), b) == frechet_distance(a, fit_gaussian(b))


def test_frechet_distance_of_a_set_to_itself_is_zero_also_when_singular():
    features = normal(20, 64, seed=10)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-5)


def test_frechet_distance_ignores_order_and_a_common_shift():
    a, b = normal(30, 6, seed=11), 2 * normal(40, 6, seed=12)
    value = frechet_distance(a, b)
    assert frechet_distance(b.flip(0) + 3, a + 3) == pytest.approx(value, rel=1e-9)


def test_kernel_distance_against_the_definition():
    a, b = normal(7, 5, seed=13), normal(9, 5, seed=14) + 0.5

    def kernel(x, y):
        return (float(x @ y) / 5 + 1) ** 3

    def mean(pairs):
        values = [kernel(x, y) for x, y in pairs]
        return sum(values) / len(values)

    expected = (
        mean([(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
        + mean([(b[i], b[j]) for i in range(9) for j in range(9) if i != j])
        - 2 * mean([(x, y) for x in a for y in b])
    )
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(b, a) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_in_blocks_and_with_a_known_part(monkeypatch):
    a, b = normal(11, 5, seed=15), normal(9, 5, seed=16) + 0.5
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "_BLOCK", 4)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-12)
    assert kernel_distance(a, b, mean_kernel_within(b)) == kernel_distance(a, b)


def test_kernel_distance_is_unbiased():
    """Its mean over many draws of one distribution is zero within the standard error."""
    draws = torch.tensor(
        [
            kernel_distance(normal(12, 4, seed=2 * i), normal(12, 4, seed=2 * i + 1))
            for i in range(400)
        ]
    )
    assert float(draws.mean().abs()) < 3 * float(draws.std()) / 20


def test_one_image_has_no_distribution():
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(normal(1, 4), normal(5, 4))
    with pytest.raises(ValueError, match="two or more"):
        kernel_distance(normal(5, 4), normal(1, 4))
