"""Losses of supervised networks against numbers of other programs, and what they are blind to.

`losses.npz`: focal_frequency_loss 0.3.0, piq 0.8.0 (DSSIM), torch.fft (relative FFT losses), stored
in float32 (DSSIM in float64) and compared with ours in float64: the tolerances are the rounding of
the stored numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
import torch.nn.functional as F

from pulse_sr.sr.bands import (
    high_frequency_confusion,
    high_frequency_filter,
    low_pass_kernel,
    separate_frequencies,
    sinc_kernel,
)
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.sr.discriminators import SpectralDiscriminator, SSDDiscriminator, UNetDiscriminator
from pulse_sr.sr.losses.adversarial import LOSSES
from pulse_sr.sr.losses.content import charbonnier, dssim, mse_and_dssim, ssim, total_variation
from pulse_sr.sr.losses.frequency import (
    dct_loss,
    fft_loss,
    focal_frequency_loss,
    spectral_loss,
    ssd_gan_loss,
)
from pulse_sr.sr.losses.labels import classifier_loss, pseudo_labels, published_classifier_loss
from pulse_sr.sr.spectrum import azimuthal_mean, dct2

GOLDEN = np.load(Path(__file__).parent / "data" / "losses.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name]).double()


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def pair():
    return golden("img_a").requires_grad_(), golden("img_b")


def noise(*shape, seed=1):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        ("ffl_0", {}),
        ("ffl_1", {"alpha": 0.5}),
        ("ffl_2", {"patches": 2}),
        ("ffl_3", {"average": True}),
        ("ffl_4", {"log_weights": True}),
        ("ffl_5", {"batch_weights": True}),
        ("ffl_6", {"alpha": 2.0}),
    ],
)
def test_focal_frequency_loss_is_that_of_its_authors(stored, options):
    a, b = pair()
    weight = 2.5 if stored == "ffl_6" else 1
    loss = weight * focal_frequency_loss(a, b, **options)
    assert relative(loss, golden(stored)) < 1e-6
    (gradient,) = torch.autograd.grad(loss, a)
    assert relative(gradient, golden(f"{stored}_grad_a")) < 1e-6


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_fft_loss_is_the_relative_distance_of_spectra(norm):
    a, b = pair()
    loss = fft_loss(a, b, norm)
    assert relative(loss, golden(f"fft_rel_{norm}_per_sample").mean()) < 1e-6
    (gradient,) = torch.autograd.grad(loss, a)
    assert relative(gradient, golden(f"fft_rel_{norm}_per_sample_mean_grad_a")) < 1e-6


def test_complex_l2_is_a_pixel_loss_by_parseval_and_the_others_are_not():
    a, b = pair()

    def norm(x):
        return x.square().sum(dim=[1, 2, 3]).sqrt()

    pixels = (norm(a - b) / torch.maximum(norm(a), norm(b))).mean()
    (expected,) = torch.autograd.grad(pixels, a)
    for loss in (fft_loss(a, b, "l2"), dct_loss(a, b, "l2")):
        assert loss.item() == pytest.approx(pixels.item(), rel=1e-12)
        assert relative(torch.autograd.grad(loss, a)[0], expected) < 1e-12
    for spectrum in ("complex", "magnitude", "log"):
        assert abs(fft_loss(a, b, "l1", spectrum) / pixels - 1) > 1e-3
    for spectrum in ("magnitude", "log"):
        assert abs(fft_loss(a, b, "l2", spectrum) / pixels - 1) > 1e-3


@pytest.mark.parametrize("spectrum", ["magnitude", "log"])
def test_magnitudes_do_not_see_where_things_are(spectrum):
    image = noise(2, 3, 16, 20)
    moved = image.roll((3, 7), dims=(2, 3))
    assert fft_loss(moved, image, "l1", spectrum) < 1e-12
    assert fft_loss(moved, image, "l1") > 0.1


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: fft_loss(a, b, "l1"),
        lambda a, b: fft_loss(a, b, "l2"),
        lambda a, b: fft_loss(a, b, "l1", "magnitude"),
        lambda a, b: fft_loss(a, b, "l2", "log"),
        dct_loss,
        spectral_loss,
        focal_frequency_loss,
        charbonnier,
        lambda a, b: total_variation(a),
        mse_and_dssim,
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_gradients_are_finite_where_roots_have_none(loss, flat):
    """At the original itself, and in an image of one colour."""
    image = torch.full((2, 3, 16, 16), 0.5) if flat else noise(2, 3, 16, 16).float()
    enlarged = image.clone().requires_grad_()
    loss(enlarged, image).backward()
    assert enlarged.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: fft_loss(a, b, "l1"),
        lambda a, b: fft_loss(a, b, "l2", "magnitude"),
        lambda a, b: fft_loss(a, b, "l1", "log"),
        dct_loss,
        spectral_loss,
        charbonnier,
        lambda a, b: total_variation(a),
        dssim,
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    a, b = noise(1, 3, 12, 13, seed=2).requires_grad_(), noise(1, 3, 12, 13, seed=3)
    direction = noise(1, 3, 12, 13, seed=4) - 0.5
    (gradient,) = torch.autograd.grad(loss(a, b), a)
    step = 1e-6 * direction
    difference = (loss(a + step, b) - loss(a - step, b)) / 2e-6
    assert difference.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_dct_is_that_of_scipy():
    images = noise(2, 3, 8, 11)
    expected = scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho")
    assert np.abs(dct2(images).numpy() - expected).max() < 1e-13
    a, b = pair()
    x, y = (scipy.fft.dctn(t.detach().numpy(), axes=(2, 3), norm="ortho") for t in (a, b))
    sums = [np.abs(each).sum(axis=(1, 2, 3)) for each in (x - y, x, y)]
    expected = (sums[0] / np.maximum(sums[1], sums[2])).mean()
    assert dct_loss(a, b).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (16, 24)])
def test_the_azimuthal_mean_is_a_mean_over_rings(size):
    values = noise(*size)
    fy, fx = (np.fft.fftfreq(n) * min(size) for n in size)
    rings = np.rint(np.hypot(fy[:, None], fx[None])).astype(int)
    expected = scipy.ndimage.mean(values.numpy(), rings, np.arange(min(size) // 2 + 1))
    assert np.abs(azimuthal_mean(values).numpy() - expected).max() < 1e-14


def test_a_wave_lies_in_one_ring():
    x = torch.arange(32, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 5 * x / 32).expand(32, 32)
    profile = azimuthal_mean(torch.fft.fft2(wave).abs())
    assert profile.argmax() == 5
    assert profile[profile != profile[5]].abs().max() < 1e-10


def test_the_spectral_loss_is_least_at_the_profile_of_the_original():
    original = noise(2, 3, 32, 32)
    blurred, _ = separate_frequencies(original, "mean", 3)
    moved = original.roll((4, 9), dims=(2, 3))
    assert spectral_loss(moved, original).item() == pytest.approx(
        spectral_loss(original, original).item(), rel=1e-9
    )
    assert spectral_loss(blurred, original) > spectral_loss(original, original) + 0.1


def test_dssim_is_that_of_piq():
    a, b = pair()
    assert relative(ssim(a, b), 1 - 2 * golden("dssim_piq_f64")) < 1e-10
    loss = dssim(a, b)
    assert relative(loss, golden("dssim_piq_f64").mean()) < 1e-10
    (gradient,) = torch.autograd.grad(loss, a)
    assert relative(gradient, golden("dssim_piq_mean_grad_a_f64")) < 1e-10
    assert mse_and_dssim(a, b, 0.3).item() == pytest.approx(
        (F.mse_loss(a, b) + 0.3 * loss).item(), rel=1e-12
    )
    assert dssim(b, b).item() == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="11 px"):
        ssim(a[..., :10], b[..., :10])


def test_charbonnier_is_between_l1_and_l2():
    a, b = golden("img_a"), golden("img_b")
    d = (a - b).numpy()
    assert charbonnier(a, b, 0.01).item() == pytest.approx(np.sqrt(d**2 + 0.01).mean(), rel=1e-12)
    assert charbonnier(a, b).item() == pytest.approx(np.abs(d).mean(), rel=1e-6)


def test_total_variation_is_a_mean_length_of_the_gradient():
    image = golden("img_a").numpy()
    total = 0.0
    n, c, height, width = image.shape
    for x in image.reshape(-1, height, width):
        for i in range(height):
            for j in range(width):
                right = x[i, j + 1] - x[i, j] if j + 1 < width else 0
                below = x[i + 1, j] - x[i, j] if i + 1 < height else 0
                total += np.hypot(right, below)
    found = total_variation(torch.from_numpy(image)).item()
    assert found == pytest.approx(total / (n * c * height * width), rel=1e-7)


def test_the_published_classifier_loss_trains_nothing_and_the_other_does():
    torch.manual_seed(3)
    classifier = DigitClassifier().eval().requires_grad_(False)
    originals, enlarged = torch.rand(2, 4, 1, 28, 28).unbind()
    enlarged.requires_grad_()
    published = published_classifier_loss(classifier, enlarged, originals)
    assert not published.requires_grad
    labels = pseudo_labels(classifier, originals)
    working = classifier_loss(classifier, enlarged, labels)
    assert working.item() == published.item()
    (gradient,) = torch.autograd.grad(working, enlarged)
    assert gradient.abs().sum(dim=[1, 2, 3]).min() > 0
    # A weighted sum with a pixel loss has the pixel loss's gradient alone.
    pixels = F.l1_loss(enlarged, originals)
    (alone,) = torch.autograd.grad(pixels, enlarged, retain_graph=True)
    (with_published,) = torch.autograd.grad(pixels + 0.1 * published, enlarged)
    assert torch.equal(alone, with_published)


def test_the_classifier_loss_is_the_mean_negative_log_probability():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    expected = -(np.log(np.exp(2) / (np.exp(2) + 1 + np.exp(-1))) + np.log(1 / (2 + np.exp(1)))) / 2
    assert classifier_loss(lambda _: logits, logits, labels).item() == pytest.approx(expected)


def test_the_sinc_kernel_is_that_of_basicsr():
    """`circular_lowpass_kernel(pi / 3, 5)` of BasicSR 1.4.2, upper left quarter."""
    expected = [
        [0.0167475, 0.03192059, 0.03815384],
        [0.03192059, 0.05266121, 0.06103748],
        [0.03815384, 0.06103748, 0.07023517],
    ]
    found = sinc_kernel(5)
    assert np.abs(found[:3, :3].numpy() - expected).max() < 5e-9
    assert torch.equal(found, found.flip(0, 1))


@pytest.mark.parametrize("kind", ["mean", "gaussian", "sinc"])
def test_low_and_high_frequencies_add_up(kind):
    images = noise(2, 3, 20, 24)
    low, high = separate_frequencies(images, kind, 9)
    assert (low + high - images).abs().max() < 1e-15
    flat, rest = separate_frequencies(torch.full((1, 1, 12, 12), 0.3, dtype=torch.float64), kind, 5)
    assert (flat - 0.3).abs().max() < 1e-15
    assert rest.abs().max() < 1e-15
    x = torch.arange(48, dtype=torch.float64)
    for cycles, kept in ((1, 0.8), (24, 0.15)):
        wave = torch.cos(2 * torch.pi * cycles * x / 48).expand(1, 1, 48, 48)
        share = separate_frequencies(wave, kind, 9)[0][..., 8:-8].abs().amax()
        assert (share > kept) if cycles == 1 else (share < kept)


def test_filters_that_make_no_sense():
    with pytest.raises(ValueError, match="no middle"):
        low_pass_kernel("mean", 4)
    with pytest.raises(ValueError, match="expected one of mean, gaussian, sinc"):
        low_pass_kernel("box", 5)
    with pytest.raises(ValueError, match="expected one of l1, l2"):
        fft_loss(*pair(), norm="max")
    with pytest.raises(ValueError, match="expected one of complex, magnitude, log"):
        fft_loss(*pair(), spectrum="phase")
    with pytest.raises(ValueError, match="do not divide"):
        focal_frequency_loss(*pair(), patches=5)


def test_confusion_takes_high_frequencies_from_the_real_image():
    x = torch.arange(32, dtype=torch.float64)

    def waves(low, high):
        first, second = (torch.cos(2 * torch.pi * k * x / 32) for k in (low, high))
        return (0.5 + 0.2 * first + 0.2 * second).expand(1, 1, 32, 32)

    fake, real = waves(2, 12).clone().requires_grad_(), waves(3, 14)
    mixed = high_frequency_confusion(fake, real, radius=8)
    assert (mixed - waves(2, 14)).abs().max() < 1e-6
    (gradient,) = torch.autograd.grad((mixed * noise(1, 1, 32, 32)).sum(), fake)
    spectrum = torch.fft.fft2(gradient).abs()[0, 0]
    assert spectrum[0, 12] < 1e-6 < spectrum[0, 2]
    assert (
        high_frequency_filter(real, 8) - waves(3, 14) + 0.2 * torch.cos(2 * torch.pi * 14 * x / 32)
    ).abs().max() < 1e-6


def test_the_loss_of_ssd_gan_teaches_both_parts():
    torch.manual_seed(4)
    network = SSDDiscriminator(UNetDiscriminator(1, width=4).eval(), SpectralDiscriminator(16))
    real, fake = torch.rand(2, 3, 1, 16, 16)
    loss = ssd_gan_loss(LOSSES["logistic"], network, network.spectral_logits, real, fake)
    mixed = F.softplus(-network(real)).mean() + F.softplus(network(fake)).mean()
    a, b = network.spectral_logits(real), network.spectral_logits(fake)
    assert torch.allclose(loss, mixed + F.softplus(-a).mean() + F.softplus(b).mean())
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_half_precision_images_have_spectra():
    image = torch.rand(1, 3, 16, 16).bfloat16()
    for loss in (fft_loss, spectral_loss, focal_frequency_loss):
        assert loss(image, image.flip(2)).isfinite()
