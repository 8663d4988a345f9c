"""Metrics of pictures against the numbers of other programs, and on pictures at their limits.

`metrics.json`: BasicSR (PSNR, SSIM, NIQE), piq 0.8.0 (SSIM in float32) and the package brisque on
photographs without restrictions (scikit-image's `rocket`, public domain, and `chelsea`, CC0).
`metrics_spectra.npz`: profiles by the code of UpConv, features by the package brisque.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.metrics.brisque import brisque, brisque_features
from pulse_sr.metrics.convention import Convention
from pulse_sr.metrics.niqe import niqe
from pulse_sr.metrics.power_spectrum import (
    ring_frequencies,
    ring_mean,
    spectral_discrepancy,
    spectral_profile,
)
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.metrics.ssim import ssim

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "metrics.json").read_text())["values"]
STORED = np.load(DATA / "metrics_spectra.npz", allow_pickle=False)
VERSIONS = [(photo, version) for photo in GOLDEN for version in GOLDEN[photo]]
PAIRS = [(photo, version) for photo, version in VERSIONS if version != "orig"]


def picture(photo, version):
    """[3, H, W] in [0, 1], float64."""
    with Image.open(DATA / f"{photo}__{version}.png") as image:
        pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
    return torch.from_numpy(pixels).double() / 255


@pytest.mark.parametrize(("photo", "version"), PAIRS)
@pytest.mark.parametrize("channels", ["rgb", "y"])
@pytest.mark.parametrize("crop", [0, 4])
def test_psnr_and_ssim_of_basicsr(photo, version, channels, crop):
    """BasicSR rounds Y to float32, which moves the seventh digit."""
    wanted = GOLDEN[photo][version]
    pair = (Convention(channels, crop).of(picture(photo, v)[None]) for v in (version, "orig"))
    a, b = pair
    name = f"crop{crop}_{channels.upper()}"
    assert float(psnr(a, b)) == pytest.approx(wanted[f"psnr_{name}"], abs=1e-4)
    assert float(ssim(a, b)) == pytest.approx(wanted[f"ssim_{name}"], abs=1e-6)


@pytest.mark.parametrize(("photo", "version"), PAIRS)
def test_ssim_of_piq(photo, version):
    wanted = GOLDEN[photo][version]["ssim_piq_nodownsample"]
    found = ssim(picture(photo, version)[None].float(), picture(photo, "orig"))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_full_range_luma_is_another_convention():
    """Y in studio range gives a PSNR that is 20 log10(255 / 219) = 1.32 dB above full range."""
    a, b = picture("rocket", "jpeg30")[None], picture("rocket", "orig")[None]
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)
    full = [(x * weights).sum(dim=1, keepdim=True) for x in (a, b)]
    studio = [Convention("y").of(x) for x in (a, b)]
    assert float(psnr(*studio) - psnr(*full)) == pytest.approx(1.3219, abs=1e-3)


@pytest.mark.parametrize(("photo", "version"), VERSIONS)
def test_brisque_of_the_package(photo, version):
    """Features to rounding where a picture is flat too; the model is stored in float32."""
    image = picture(photo, version)
    wanted = STORED[f"{photo}__{version}.brisque_features_rehanguha"]
    np.testing.assert_allclose(brisque_features(image), wanted, rtol=1e-3)
    assert brisque(image) == pytest.approx(GOLDEN[photo][version]["brisque_rehanguha"], abs=0.05)


@pytest.mark.parametrize(("photo", "version"), [("chelsea", "orig"), ("rocket", "orig")])
def test_niqe_of_basicsr(photo, version):
    wanted, image = GOLDEN[photo][version], picture(photo, version)
    assert niqe(image) == pytest.approx(wanted["niqe_basicsr_y_crop0"], abs=1e-3)
    cropped = Convention("rgb", 4).cropped(image[None])[0]
    assert niqe(cropped) == pytest.approx(wanted["niqe_basicsr_y_crop4"], abs=1e-3)


@pytest.mark.parametrize("case", range(3))
def test_rings_of_upconv(case):
    values = torch.from_numpy(STORED[f"azimuthal_case{case}_in"])[None]
    wanted = STORED[f"azimuthal_case{case}_out"]
    np.testing.assert_allclose(ring_mean(values)[0].numpy(), wanted, rtol=1e-8)


@pytest.mark.parametrize(("photo", "version"), VERSIONS)
def test_spectra_of_upconv(photo, version):
    wanted = STORED[f"{photo}__{version}.radial_20log"]
    found = spectral_profile(picture(photo, version)[None])[0]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-8)


def test_a_wave_lies_in_the_ring_of_its_frequency():
    """12 waves across 96 px: 0.125 cycles per px."""
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * 12 * torch.arange(96, dtype=torch.float64) / 96)
    profile = spectral_profile(wave.expand(1, 3, 96, 96))[0]
    frequencies = ring_frequencies(len(profile))
    assert frequencies[int(profile.argmax())] == pytest.approx(0.125, abs=0.008)


def test_spectral_discrepancy_is_of_shapes_of_means():
    """By hand: profiles (0, 1, 2) and (0, 0, 5) become (0, 0.5, 1) and (0, 0, 1)."""
    a = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1.0, 3.0]], dtype=torch.float64)
    assert spectral_discrepancy(a, b) == pytest.approx(0.25 / 3)
    assert spectral_discrepancy(b, b) == 0
    with pytest.raises(ValueError, match="do not compare"):
        spectral_discrepancy(a, b[:, :2])


def flat(height=32, width=40, value=0.4):
    return torch.full((1, 3, height, width), value, dtype=torch.float64)


def test_identical_pictures():
    x = picture("rocket", "orig")[None]
    assert float(psnr(x, x)) == float("inf")
    assert float(ssim(x, x)) == pytest.approx(1, abs=1e-12)
    assert float(feature_distance(x, x)) == 0


def test_constant_pictures():
    assert float(psnr(flat(), flat(value=0.5))) == pytest.approx(20)
    assert float(ssim(flat(), flat())) == pytest.approx(1)
    assert np.isfinite(float(feature_distance(flat(), flat(value=0.9))))
    assert spectral_profile(flat()).isfinite().all()
    with pytest.raises(ValueError, match=r"without contrast|so little contrast"):
        brisque(flat()[0])


def test_odd_sizes():
    image = picture("rocket", "orig")[:, :97, :193]
    assert ssim(image[None], image[None]).shape == (1,)
    assert np.isfinite([brisque(image), niqe(image)]).all()
    assert spectral_profile(image[None]).shape == (1, int(96 / 2**0.5) - 1)


def test_a_single_pixel():
    dot = flat(1, 1)
    assert float(psnr(dot, dot + 0.1)) == pytest.approx(20)
    assert float(feature_distance(dot, dot)) == 0
    for measure, message in (
        (lambda: ssim(dot, dot), "SSIM needs images of 11 px or more"),
        (lambda: brisque(dot[0]), "BRISQUE needs 16 px or more"),
        (lambda: niqe(dot), "NIQE needs images of 96 px or more"),
        (lambda: spectral_profile(dot), "a spectrum needs"),
        (lambda: Convention("rgb", 1).of(dot), "a border of 1 px leaves nothing of 1x1 px"),
    ):
        with pytest.raises(ValueError, match=message):
            measure()


@pytest.mark.parametrize("measure", [psnr, ssim, feature_distance])
def test_different_sizes(measure):
    with pytest.raises(ValueError, match=r"32, 40\)"):
        measure(flat(), flat(40, 32))


@pytest.mark.parametrize("measure", [psnr, ssim, lambda a, b: Convention("y").of(a)])
def test_integers_are_refused(measure):
    with pytest.raises(ValueError, match="float"):
        measure((255 * flat()).byte(), (255 * flat()).byte())
