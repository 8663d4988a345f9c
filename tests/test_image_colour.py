"""Colour profiles, TIFF layouts and HEIC, through every way by which a picture comes in."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from pictures import smooth
from PIL import Image, ImageCms

from pulse_sr.cli import main
from pulse_sr.data.picture import decode_bytes, decode_whole
from pulse_sr.errors import InputError
from pulse_sr.images.read import read_image
from pulse_sr.operators.building import make_operator

PHOTOS = Path(__file__).parent / "data" / "photos"
#: One picture in three encodings; `plain_srgb.png` holds the pixels that are right.
TRUTH = np.asarray(Image.open(PHOTOS / "plain_srgb.png")).transpose(2, 0, 1).astype(int)


def of_reader(path: Path) -> NDArray[np.uint8]:
    return read_image(path).pixels


def of_training(path: Path) -> NDArray[np.uint8]:
    return decode_bytes(path.name, path.read_bytes(), None).pixels


def of_patches(path: Path) -> NDArray[np.uint8]:
    return decode_whole(path.name, path.read_bytes())


@pytest.mark.parametrize("way", [of_reader, of_training, of_patches])
@pytest.mark.parametrize("name", ["plain_srgb.png", "p3.png", "adobe.png"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_profiles_end_as_the_same_srgb(
    tmp_path: Path, way: Callable[[Path], NDArray[np.uint8]], name: str, kind: str
) -> None:
    path = PHOTOS / name
    tolerance = 1
    if kind == "jpg":
        with Image.open(path) as image:
            path = tmp_path / "a.jpg"
            image.save(path, quality=100, subsampling=0, icc_profile=image.info.get("icc_profile"))
        tolerance = 5  # JPEG's own rounding, which the profile may widen
    error = np.abs(way(path).astype(int) - TRUTH)
    assert error.max() <= tolerance
    assert error.mean() <= tolerance / 2


def test_what_was_converted_is_noted_and_srgb_is_left_alone(tmp_path: Path) -> None:
    assert any("to sRGB" in note for note in read_image(PHOTOS / "p3.png").notes)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.png"
    Image.fromarray(smooth(6, 8)).save(path, icc_profile=srgb)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, smooth(6, 8).transpose(2, 0, 1))
    assert image.notes == ()


@pytest.mark.parametrize("profile", [b"x", b"x" * 200, "lab"])
def test_a_broken_or_foreign_profile_is_a_note(tmp_path: Path, profile: bytes | str) -> None:
    if isinstance(profile, str):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = tmp_path / "a.png"
    Image.fromarray(smooth(6, 8)).save(path, icc_profile=profile)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, smooth(6, 8).transpose(2, 0, 1))
    assert image.notes == ("colour profile broken: ignored, colours taken as sRGB",)


def test_the_profile_is_carried_out_before_transparency(tmp_path: Path) -> None:
    with Image.open(PHOTOS / "p3.png") as image:
        profile, colours = image.info["icc_profile"], image.convert("RGB")
    alpha = Image.new("L", colours.size, 255)
    alpha.putpixel((0, 0), 128)
    colours.putalpha(alpha)
    path = tmp_path / "a.png"
    colours.save(path, icc_profile=profile)
    error = np.abs(read_image(path).pixels.astype(int) - TRUTH)
    error[:, 0, 0] = 0
    assert error.max() <= 1


def test_16_bits_are_rounded_before_a_profile_is_carried_out(tmp_path: Path) -> None:
    """Pillow's high bytes would be half a level too dark."""
    with Image.open(PHOTOS / "p3.png") as found:
        profile = found.info["icc_profile"]
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    deep = np.clip(levels.astype(np.int64) * 257 - 100, 0, 65535).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "8.png", icc_profile=profile)
    cv2.imwrite(str(tmp_path / "16.png"), deep[..., ::-1])
    data = (tmp_path / "16.png").read_bytes()
    body = b"iCCP" + b"x\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    at = data.index(b"IDAT") - 4
    (tmp_path / "16.png").write_bytes(data[:at] + chunk + data[at:])
    shallow, found = (read_image(tmp_path / name) for name in ("8.png", "16.png"))
    assert found.notes == ("16-bit: rounded to 8 bits", *shallow.notes)
    np.testing.assert_array_equal(found.pixels, shallow.pixels)


def test_a_tiff_that_is_not_opened_is_called_one(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    (tmp_path / "f.tif").write_bytes(tiff(colours, photometric="rgb"))
    with pytest.raises(InputError, match=r"f\.tif is a TIFF .* colours in floating point"):
        read_image(tmp_path / "f.tif")


def test_degrade_reads_profiles(tmp_path: Path) -> None:
    names = ["plain_srgb", "p3", "adobe"]
    out = tmp_path / "out"
    inputs = [str(PHOTOS / f"{name}.png") for name in names]
    made = CliRunner().invoke(main, ["degrade", *inputs, "-o", str(out), "--scale", "2"])
    assert made.exit_code == 0, made.output
    plain, *others = (read_image(out / f"{name}.png").pixels.astype(int) for name in names)
    assert all(np.abs(other - plain).max() <= 1 for other in others)


def test_an_operator_s_mask_is_read_by_the_same_rules(tmp_path: Path) -> None:
    known = np.zeros((32, 32), bool)
    known[8:24, 8:24] = True
    path = tmp_path / "mask.tif"
    path.write_bytes(tiff(np.where(known, 0, 65535).astype("u2"), photometric="miniswhite"))
    A = make_operator(f"mask:{path}", 32, 32)
    kept = A(torch.from_numpy(known).float().expand(1, 3, 32, 32))
    assert kept.shape[-1] == known.sum()
    assert bool((kept == 1).all())


def tiff(values: NDArray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


RAMP = np.stack(np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 12)), axis=-1)
RGB = np.concatenate([RAMP, RAMP.mean(axis=-1, keepdims=True)], axis=-1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "miniswhite", "cielab", "ycbcr"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_a_tiff_is_read_rightly_or_refused(
    tmp_path: Path, dtype: str, photometric: str, planes: str, compression: str | None, order: str
) -> None:
    colour = photometric in ("rgb", "cielab", "ycbcr")
    if not colour and planes == "separate":
        pytest.skip("one channel has one plane")
    values = RGB if colour else RGB[..., 2]
    wanted = values
    if dtype[0] in "ui":
        largest = np.iinfo(dtype).max if dtype[1] != "4" else 65535  # 32 bits hold 16
        values = np.rint(values * largest)
        if photometric == "miniswhite":
            values = largest - values
    stored = values.astype(dtype)
    if planes == "separate":
        stored = np.moveaxis(stored, -1, 0)
    options = {"planarconfig": planes} if colour else {}
    path = tmp_path / "a.tif"
    path.write_bytes(
        tiff(stored, photometric=photometric, compression=compression, byteorder=order, **options)
    )
    try:
        pixels = read_image(path).pixels
    except InputError:
        usual = dtype in ("u1", "u2") and photometric in ("rgb", "minisblack")
        assert planes == "separate" or not usual
        return
    if photometric in ("cielab", "ycbcr"):
        return  # what the numbers mean is Pillow's; the wrong layouts were refused above
    wanted = np.atleast_3d(255 * wanted).transpose(2, 0, 1)
    assert np.abs(pixels - wanted).max() <= 1


def test_heic_of_a_telephone(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    Image.fromarray(smooth(64, 96)).save(path, quality=95)
    pixels = read_image(path).pixels
    assert pixels.shape == (3, 64, 96)
    assert np.abs(pixels.astype(int) - smooth(64, 96).transpose(2, 0, 1)).mean() < 3
