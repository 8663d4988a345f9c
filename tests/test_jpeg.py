"""The JPEG stage: the forward pass is Pillow's codec, the backward pass goes straight through."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.images.jpeg import nearest_quality, quantisation_table, read_quality
from pulse_sr.operators.jpeg import jpeg_round_trip

DATA = Path(__file__).parent / "data"
LUMA_WEIGHTS, RED_WEIGHTS = (0.299, 0.587, 0.114), (0.5, -0.418688, -0.081312)  # JFIF
QUALITIES = (1, 10, 25, 40, 50, 75, 90, 100)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A real photograph, 64x64."""
    with np.load(DATA / "imresize.npz", allow_pickle=False) as file:
        return Image.fromarray(np.rint(file["x_photo"][:, :64] * 255).astype(np.uint8))


def through_pillow(picture: Image.Image, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer))
    return decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1)


def as_tensor(picture: Image.Image, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    pixels = np.asarray(picture)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(pixels / 255.0).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 64), (16, 16), (8, 8), (4, 4), (33, 17), (3, 5), (1, 1)])
def test_forward_is_pillow(photo, size, mode, dtype):
    """Equal to the grey level but for a coefficient that float32 rounds the other way."""
    picture = photo.resize(size).convert(mode)
    for quality in QUALITIES:
        made = jpeg_round_trip(as_tensor(picture, dtype), quality)
        difference = np.abs(made.double().numpy() * 255 - through_pillow(picture, quality))
        assert difference.max() <= 2.001
        assert difference.mean() <= 0.01
        assert made.dtype == dtype


def test_a_hard_picture_is_decoded_as_pillow_does():
    """Saturated noise: every rounding and clipping of the codec is at work."""
    pixels = np.random.default_rng(0).integers(0, 2, (40, 24, 3)).astype(np.uint8) * 255
    for quality in QUALITIES:
        made = jpeg_round_trip(as_tensor(Image.fromarray(pixels)), quality).numpy() * 255
        expected = through_pillow(Image.fromarray(pixels), quality)
        assert np.abs(made - expected).mean() < 0.5
        assert np.abs(made - expected).max() <= 2.001


def test_a_batch_is_coded_image_by_image(photo):
    images = torch.stack([as_tensor(photo), as_tensor(photo).flip(-1)])
    together = jpeg_round_trip(images[:, None], 30)
    assert torch.equal(together[1, 0], jpeg_round_trip(images[1], 30))


def test_input_outside_the_range_is_clipped_and_rounded_as_a_file_is(photo):
    x = as_tensor(photo)
    assert torch.equal(jpeg_round_trip(x * 3 - 1, 60), jpeg_round_trip((x * 3 - 1).clamp(0, 1), 60))
    assert torch.equal(jpeg_round_trip(x + 0.4 / 255, 60), jpeg_round_trip(x, 60))


def test_the_gradient_of_grey_is_the_identity():
    x = torch.rand(1, 9, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    cotangent = torch.randn(1, 9, 20, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(jpeg_round_trip(x, 5), x, cotangent)
    # The codec's 13-bit cosines are orthogonal to about 1e-4.
    torch.testing.assert_close(gradient, cotangent, rtol=0, atol=2e-3)


def test_the_gradient_of_colour_lets_luma_through_and_averages_chroma():
    """A chessboard along luma's weights comes back as it is, one along those of Cr vanishes."""
    x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    y = jpeg_round_trip(x, 30)
    board = torch.full((16, 16), -0.5, dtype=torch.float64)
    board[::2, ::2] = board[1::2, 1::2] = 0.5
    luma, red = (torch.tensor(w).double()[:, None, None] for w in (LUMA_WEIGHTS, RED_WEIGHTS))
    (gradient,) = torch.autograd.grad((y * luma * board).sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, luma * board, rtol=0, atol=2e-3)
    (gradient,) = torch.autograd.grad((y * red * board).sum(), x, retain_graph=True)
    assert gradient[:, 2:-2, 2:-2].abs().max() < 2e-3  # the edge is repeated, so it counts more
    (gradient,) = torch.autograd.grad((y * red * 0.5).sum(), x)  # flat chroma stays
    torch.testing.assert_close(gradient, (red * 0.5).expand(3, 16, 16), rtol=0, atol=2e-3)


@pytest.mark.parametrize("quality", QUALITIES)
def test_tables_are_pillows_and_the_quality_is_read_back(photo, quality, tmp_path):
    file = tmp_path / "a.jpg"
    photo.save(file, quality=quality)
    tables = Image.open(file).quantization
    assert quantisation_table(quality).flatten().tolist() == tables[0]
    assert quantisation_table(quality, chroma=True).flatten().tolist() == tables[1]
    assert read_quality(file) == quality


def test_foreign_tables_give_the_nearest_quality_and_other_files_none(photo, tmp_path):
    table = quantisation_table(70).flatten()
    assert nearest_quality((table + (np.arange(64) % 3 == 0)).tolist()) in (69, 70)
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert read_quality(tmp_path / "a.png") is None
    assert read_quality(tmp_path / "b.jpg") is None
