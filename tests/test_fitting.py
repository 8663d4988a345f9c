"""How a picture is placed on the grid of a prior, and which sides it may have."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import chw, picture, smooth
from PIL import Image

from pulse_sr.errors import InputError, UsageError
from pulse_sr.images.fit import fit_to_prior
from pulse_sr.images.read import LowResImage


def image_of(pixels: np.ndarray, notes: tuple[str, ...] = ()) -> LowResImage:
    _, height, width = pixels.shape
    return LowResImage(pixels, "face.png", "0" * 64, width, height, "RGB", False, 0.0, notes)


def test_square_input_that_fits_is_untouched() -> None:
    pixels = chw(picture(16, 16))
    for fit in (None, "pad", "crop"):
        fitted = fit_to_prior(image_of(pixels, ("a note",)), 64, fit, None)
        np.testing.assert_array_equal(fitted.pixels, pixels)
        assert (fitted.side, fitted.rows, fitted.columns) == (16, (0, 16), (0, 16))
        assert fitted.notes == ("a note",)


@pytest.mark.parametrize("fit", [None, "pad"])
def test_padding_is_placed_not_painted(fit: str | None) -> None:
    pixels = chw(picture(16, 11))
    fitted = fit_to_prior(image_of(pixels), 64, fit, None)
    np.testing.assert_array_equal(fitted.pixels, pixels)
    assert (fitted.side, fitted.rows, fitted.columns) == (16, (0, 16), (2, 13))
    wide = fit_to_prior(image_of(chw(picture(6, 8))), 64, fit, None)
    assert (wide.side, wide.rows, wide.columns) == (8, (1, 7), (0, 8))
    assert "padded from 8x6 to 8x8: the padding is unobserved" in wide.notes


def test_crop_takes_the_centre() -> None:
    pixels = chw(picture(16, 22))
    fitted = fit_to_prior(image_of(pixels), 64, "crop", None)
    np.testing.assert_array_equal(fitted.pixels, pixels[:, :, 3:19])
    assert (fitted.side, fitted.rows, fitted.columns) == (16, (0, 16), (0, 16))


@pytest.mark.parametrize("side", [2, 3, 24, 33, 64, 100])
def test_a_side_that_does_not_divide_names_those_that_do(side: int) -> None:
    with pytest.raises(InputError, match=f"{side}x{side} px.* 64 px.* 4, 8, 16, 32$") as caught:
        fit_to_prior(image_of(chw(picture(side, side))), 64, None, None)
    assert "--fit pad" in caught.value.hint


@pytest.mark.parametrize(
    ("side", "expected"), [(2, 4), (12, 8), (13, 16), (24, 16), (25, 32), (300, 32)]
)
def test_explicit_fit_resizes_to_the_nearest_side(side: int, expected: int) -> None:
    pixels = smooth(side, side)
    fitted = fit_to_prior(image_of(chw(pixels)), 64, "pad", None)
    reference = Image.fromarray(pixels).resize((expected, expected), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fitted.pixels, chw(np.asarray(reference)))
    assert fitted.side == expected
    assert f"resized from {side}x{side} to {expected}x{expected} (bicubic)" in fitted.notes


def test_explicit_fit_of_a_rectangle_keeps_its_shape() -> None:
    fitted = fit_to_prior(image_of(chw(smooth(60, 45))), 128, "pad", None)
    assert fitted.pixels.shape == (3, 64, 48)
    assert (fitted.side, fitted.rows, fitted.columns) == (64, (0, 64), (8, 56))
    cropped = fit_to_prior(image_of(chw(smooth(60, 45))), 128, "crop", None)
    assert (cropped.pixels.shape, cropped.side) == ((3, 32, 32), 32)  # 45 is nearer to 32 than 64


def test_scale_fixes_the_side() -> None:
    square = image_of(chw(picture(16, 16)))
    assert fit_to_prior(square, 64, None, 4).side == 16
    with pytest.raises(InputError, match=r"16x16 px.*--scale 8 of a 64 px prior.* 8$"):
        fit_to_prior(square, 64, None, 8)
    assert fit_to_prior(square, 64, "pad", 8).pixels.shape == (3, 8, 8)
    for scale in (0, 1, 3, 32, 64, 128):
        with pytest.raises(UsageError, match=f"--scale {scale} .*expected one of 2, 4, 8, 16"):
            fit_to_prior(square, 64, None, scale)
    with pytest.raises(UsageError, match="stretch"):
        fit_to_prior(square, 64, "stretch", None)
