"""What may come in, what is refused and how, and what is written."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from pictures import chw, picture, smooth
from PIL import Image, ImageCms, ImageFile, ImageOps

from pulse_sr.errors import InputError, UsageError
from pulse_sr.images import decode
from pulse_sr.images.find import find_images
from pulse_sr.images.jpeg import jpeg_noise_level
from pulse_sr.images.original import read_original
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.read import read_image
from pulse_sr.images.write import OWN_MARK, write_png
from pulse_sr.jobs.task import sha256_of_input


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


# --- reading ----------------------------------------------------------------------------------


def test_rgb_png_and_its_facts(tmp_path: Path) -> None:
    path = save(Image.fromarray(picture()), tmp_path / "a.png")
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, chw(picture()))
    assert image.pixels.dtype == np.uint8
    assert (image.width, image.height, image.mode) == (8, 6, "RGB")
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (image.path, image.is_jpeg, image.jpeg_noise, image.notes) == (str(path), False, 0.0, ())


#: Pillow 12 refuses the TIFF file of this mode that it wrote itself.
_PILLOW_12 = int(PIL.__version__.split(".")[0]) < 13
YCBCR = pytest.param("YCbCr", marks=pytest.mark.skipif(_PILLOW_12, reason="Pillow 12 is too old"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", YCBCR, "HSV", "LAB"])
def test_every_8_bit_mode(tmp_path: Path, mode: str) -> None:
    original = Image.fromarray(smooth(6, 8))
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        stored = ImageCms.profileToProfile(original, srgb, lab, outputMode="LAB")
        expected, tolerance = np.asarray(original), 4
    else:
        stored = original.convert(mode)
        expected, tolerance = np.asarray(stored.convert("RGB")), 0
    if mode == "HSV":  # no file format keeps it
        rgb, _ = decode._to_rgb("a", stored, None)
        np.testing.assert_array_equal(rgb, expected)
        return
    suffix = "tif" if mode in ("CMYK", "YCbCr", "LAB") else "png"
    image = read_image(save(stored, tmp_path / f"a.{suffix}"))
    assert image.mode == mode
    assert np.abs(image.pixels.astype(int) - chw(expected)).max() <= tolerance
    grey = "grey: copied to three channels"
    assert image.notes == ((grey,) if mode in ("1", "L", "LA") else ())


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65406, 65535]], np.uint16)
    image = read_image(save(Image.fromarray(values), tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(image.pixels[0], np.rint(values / 65535.0 * 255))
    np.testing.assert_array_equal(image.pixels[0], image.pixels[2])
    assert "16-bit: rounded to 8 bits" in image.notes


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 1000], [40000, 65535]], ">u2")
    stored = Image.frombytes("I;16B", (2, 2), values.tobytes())
    image = read_image(save(stored, tmp_path / "a.tif"))
    assert image.mode == "I;16B"
    np.testing.assert_array_equal(image.pixels[0], np.rint(values / 65535.0 * 255))


def png16(values: np.ndarray, **chunks: bytes) -> bytes:
    """A 16-bit PNG, which Pillow itself cannot write; uint16 [h, w, c], c as many as `kinds`."""
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, kinds[channels], 0, 0, 0)
    more = b"".join(chunk(kind.encode(), body) for kind, body in chunks.items())
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels


def test_16_bit_colour_is_rounded_not_cut(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(png16(values))
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, chw(np.rint(values / 257.0)))
    assert image.notes == ("16-bit: rounded to 8 bits",)


def deep(channels: int) -> np.ndarray:
    """uint16 [5, 7, c]; opacity, the last of 2 and 4, is full but for a corner."""
    values = np.random.default_rng(channels).integers(0, 65536, (5, 7, channels), np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
        values[0, :2, -1] = (0, 30000)
    return values


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_stay_whichever_way_they_lie(
    tmp_path: Path, channels: int, orientation: int
) -> None:
    values, exif = deep(channels), Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    path.write_bytes(png16(values, eXIf=exif.tobytes().removeprefix(b"Exif\0\0")))
    found = read_original(path)
    order = np.arange(35, dtype=np.uint8).reshape(5, 7)
    turned = Image.fromarray(order)
    turned.getexif()[0x0112] = orientation
    expected = values.reshape(35, channels)[np.asarray(ImageOps.exif_transpose(turned))]
    colours = 1 if channels < 3 else 3
    np.testing.assert_array_equal(found.colour, expected[..., :colours].transpose(2, 0, 1))
    if channels in (2, 4):
        np.testing.assert_array_equal(found.opacity, expected[..., -1])
    else:
        assert found.opacity is None
    assert found.notes == (("rotated by EXIF",) if orientation > 1 else ())
    seen = read_image(path)
    opaque = expected[..., -1] == 65535 if channels in (2, 4) else np.full(expected.shape[:2], True)
    np.testing.assert_array_equal(
        seen.pixels[:colours, opaque], np.rint(expected[opaque, :colours].T / 257.0)
    )
    assert sum("16-bit" in note for note in seen.notes) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_see_through_level_of_16_bits_is_that_level_alone(tmp_path: Path, channels: int) -> None:
    """One with the same high byte, or the same low byte, is opaque."""
    values = deep(channels)
    values[:3, 0] = np.array([[40000], [40001], [40000 % 256]])
    path = tmp_path / "a.png"
    path.write_bytes(png16(values, tRNS=struct.pack(">H", 40000) * channels))
    found = read_original(path)
    expected = np.full((5, 7), 65535, np.uint16)
    expected[0, 0] = 0
    np.testing.assert_array_equal(found.opacity, expected)
    np.testing.assert_array_equal(found.colour, values.transpose(2, 0, 1))
    seen = read_image(path)
    assert "alpha composited on the mean colour" in seen.notes
    rounded = np.rint(values.transpose(2, 0, 1) / 257.0)
    np.testing.assert_array_equal(seen.pixels[:channels, expected > 0], rounded[:, expected > 0])


def test_a_tiff_that_names_no_unit_has_no_density(tmp_path: Path) -> None:
    plain = save(Image.fromarray(picture()), tmp_path / "a.tif")
    dense = save(Image.fromarray(picture()), tmp_path / "b.tif", dpi=(300, 150))
    assert read_original(plain).about.dpi is None
    assert read_original(dense).about.dpi == (300, 150)


@pytest.mark.parametrize(("low", "high"), [(-1, 10), (0, 65536)])
def test_integers_beyond_16_bits_are_refused_with_their_range(
    tmp_path: Path, low: int, high: int
) -> None:
    values = np.array([[low, high]], np.int32)
    path = save(Image.fromarray(values), tmp_path / "a.tif")
    with pytest.raises(InputError, match=f"a.tif has integer pixels from {low} to {high}"):
        read_image(path)


def test_floats(tmp_path: Path) -> None:
    unit = np.array([[0.0, 0.25, 1.0]], np.float32)
    image = read_image(save(Image.fromarray(unit), tmp_path / "unit.tif"))
    assert image.pixels[0].tolist() == [[0, 64, 255]]
    wide = np.array([[-3.0, 1.5, 100.4, 300.0]], np.float32)
    image = read_image(save(Image.fromarray(wide), tmp_path / "wide.tif"))
    assert image.pixels[1].tolist() == [[0, 2, 100, 255]]
    assert "float: taken as 0..255, clipped and rounded" in image.notes
    for bad in (np.nan, np.inf):
        wide[0, 0] = bad
        path = save(Image.fromarray(wide), tmp_path / "bad.tif")
        with pytest.raises(InputError, match=r"bad\.tif has 1 NaN or infinite pixels of 4"):
            read_image(path)


def test_alpha_is_composited_on_the_mean_of_the_opaque_pixels(tmp_path: Path) -> None:
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, :, 3] = [255, 255, 0, 51]
    rgba[0, :, 0] = [100, 200, 7, 50]
    image = read_image(save(Image.fromarray(rgba), tmp_path / "a.png"))
    # mean of the opaque: 150; the last is 20 % of 50 over it
    assert image.pixels[0].tolist() == [[100, 200, 150, 130]]
    assert image.notes == ("alpha composited on the mean colour",)


def test_palette_and_grey_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 50, 60, 70, 255, 255, 255])
    palette.putdata([0, 1, 2])
    path = save(palette, tmp_path / "p.png", transparency=2)
    assert read_image(path).pixels[:, 0].T.tolist() == [[10, 20, 30], [50, 60, 70], [30, 40, 50]]
    grey = Image.fromarray(np.array([[10, 30, 99]], np.uint8))
    path = save(grey, tmp_path / "l.png", transparency=99)
    assert read_image(path).pixels[0].tolist() == [[10, 30, 20]]


def test_without_opaque_pixels_the_mean_is_weighted_and_nothing_at_all_is_refused(
    tmp_path: Path,
) -> None:
    rgba = np.full((1, 2, 4), 100, np.uint8)
    rgba[0, 1, :3] = 200
    image = read_image(save(Image.fromarray(rgba), tmp_path / "half.png"))
    assert image.pixels[0].tolist() == [[130, 170]]  # mean 150, 39 % of the pixel over it
    rgba[..., 3] = 0
    path = save(Image.fromarray(rgba), tmp_path / "none.png")
    with pytest.raises(InputError, match=r"none\.png is fully transparent"):
        read_image(path)


# Where the stored corner "top-left" must appear, from the EXIF standard: (row, column) of the
# picture's first stored pixel and of the pixel stored to the right of it.
EXIF = {
    1: ((0, 0), (0, 1)),
    2: ((0, -1), (0, -2)),
    3: ((-1, -1), (-1, -2)),
    4: ((-1, 0), (-1, 1)),
    5: ((0, 0), (1, 0)),
    6: ((0, -1), (1, -1)),
    7: ((-1, -1), (-2, -1)),
    8: ((-1, 0), (-2, 0)),
}


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture()
    image = read_image(save(Image.fromarray(stored), tmp_path / f"a.{suffix}", exif=exif))
    assert (image.height, image.width) == ((8, 6) if orientation >= 5 else (6, 8))
    first, second = EXIF[orientation]
    assert image.pixels[:, first[0], first[1]].tolist() == stored[0, 0].tolist()
    assert image.pixels[:, second[0], second[1]].tolist() == stored[0, 1].tolist()
    assert image.notes == (("rotated by EXIF",) if orientation > 1 else ())


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    options = {"save_all": True, "append_images": frames[1:]}
    image = read_image(save(frames[0], tmp_path / "a.png", **options))
    np.testing.assert_array_equal(image.pixels, chw(picture(seed=0)))
    assert image.notes == ("animated: first frame used",)
    assert (
        "animated: first frame used"
        in read_image(save(frames[0], tmp_path / "a.gif", **options)).notes
    )


# --- JPEG noise -------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
def test_jpeg_noise_is_within_a_factor_of_two_of_the_truth(tmp_path: Path, quality: int) -> None:
    pixels = smooth(64, 64)
    path = save(Image.fromarray(pixels), tmp_path / "a.jpg", quality=quality, subsampling=0)
    image = read_image(path)
    truth = np.sqrt(np.mean((image.pixels / 255.0 - chw(pixels) / 255.0) ** 2))
    assert image.is_jpeg
    assert 0.5 * truth < image.jpeg_noise < 2.0 * truth


def test_jpeg_noise_formula_and_cap() -> None:
    assert jpeg_noise_level([1] * 64) == pytest.approx(np.sqrt(1 / 12 + 1 / 12) / 255)
    assert jpeg_noise_level([255] * 64, [255] * 64) <= 0.1
    assert jpeg_noise_level([8] * 64, [8] * 64) > jpeg_noise_level([8] * 64)


def test_grey_and_cmyk_jpeg(tmp_path: Path) -> None:
    for mode in ("L", "CMYK"):
        path = save(Image.fromarray(smooth(16, 16)).convert(mode), tmp_path / "a.jpg", quality=90)
        image = read_image(path)
        assert image.mode == mode
        assert 0.0 < image.jpeg_noise < 0.1
        with Image.open(path) as stored:
            np.testing.assert_array_equal(image.pixels, chw(np.asarray(stored.convert("RGB"))))


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"a.png is empty \(0 bytes\)"), (b"hello, I am text", "a.png is not an image")],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.tif", "a.webp"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("allowed", [False, True])
def test_truncated_files_are_refused_never_filled_with_grey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep: float, allowed: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)  # some libraries set it
    path = save(Image.fromarray(picture(64, 64)), tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert name in caught.value.message
    assert "\n" not in caught.value.message
    assert allowed == ImageFile.LOAD_TRUNCATED_IMAGES


def test_damaged_png_is_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(picture(64, 64)), tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png is truncated or damaged"):
        read_image(path)


def huge_png(width: int, height: int) -> bytes:
    """Only a header that claims the size: decoding it would fail in another way."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
    return header + struct.pack(">I", zlib.crc32(body)) + struct.pack(">I", 10) + b"IDAT"


@pytest.mark.parametrize(
    ("width", "height", "megapixels"),
    [(8001, 8000, "64.0"), (10000, 9000, "90.0"), (50000, 50000, "2500.0")],
)
def test_more_than_64_megapixels_is_refused_from_the_header_without_pillows_warning(
    tmp_path: Path, width: int, height: int, megapixels: str
) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(huge_png(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=f"big.png has {megapixels} megapixels.* is 64"):
            read_image(path)


def test_exactly_64_megapixels_passes_the_header(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(huge_png(8000, 8000))
    with pytest.raises(InputError, match="truncated or damaged"):
        read_image(path)


def test_missing_path_folder_and_postscript(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(UsageError, match="is a folder"):
        read_image(tmp_path)
    path = save(Image.fromarray(picture()), tmp_path / "a.eps")
    with pytest.raises(InputError, match=r"a\.eps is EPS"):
        read_image(path)


# --- writing ----------------------------------------------------------------------------------


def test_a_pipe_is_refused_and_never_opened(tmp_path: Path) -> None:
    """Opening it would wait for somebody to write."""
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"x\.png is a named pipe, not a regular file"):
        read_image(tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"x\.png is a named pipe, not a regular file"):
        find_images([str(tmp_path / "x.png")])
    assert sha256_of_input(tmp_path / "x.png") == ""


def test_png_round_trip_with_text_and_xmp(tmp_path: Path) -> None:
    pixels = chw(picture())
    text = {"Software": "pulse-sr", "Comment": "a plausible reconstruction – 脸"}
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    write_png(tmp_path / "a.png", pixels, text, xmp)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)
    with Image.open(tmp_path / "a.png") as stored:
        stored.load()
        assert {key: stored.text[key] for key in text} == text
        assert stored.text["XML:com.adobe.xmp"] == xmp
    write_png(tmp_path / "b.png", pixels, text, xmp)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]  # no temporary file stays


def test_png_of_a_grey_plane_and_refused_arrays(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture()[..., 0])
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "L"
        np.testing.assert_array_equal(np.asarray(stored), picture()[..., 0])
    for bad in (picture(), np.zeros((3, 4, 4)), np.zeros((1, 3, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            write_png(tmp_path / "b.png", bad)


def test_rounding_is_half_to_even_after_clipping() -> None:
    x = np.array([-1.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 0.999, 7.0])
    assert to_uint8(x).tolist() == [0, 0, 2, 2, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / np.float32(255)), every)


# --- finding ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png", "d.eps", "odd.dat"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_and_globs_give_sorted_images(folder: Path) -> None:
    names = ["a.JPG", "b.png", "c.webp"]
    assert [path.name for path in find_images([str(folder)])] == names
    assert [path.name for path in find_images([f"{folder}/*"])] == names
    assert [path.name for path in find_images([f"{folder}/*.png"])] == ["b.png"]


def test_named_files_keep_their_place_and_come_once(folder: Path) -> None:
    inputs = [f"{folder}/odd.dat", f"{folder}/c.webp", str(folder), f"{folder}/empty/../b.png"]
    found = [path.name for path in find_images(inputs)]
    assert found == ["odd.dat", "c.webp", "a.JPG", "b.png"]


def test_a_file_with_brackets_in_its_name_is_a_file(folder: Path) -> None:
    (folder / "x[1].png").write_bytes(b"x")
    assert [path.name for path in find_images([f"{folder}/x[1].png"])] == ["x[1].png"]


def test_what_is_left_out_is_counted_by_kind_and_named_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "b.mp4", "notes", "sub.png/deep.png", ".hidden"):
        (folder / name).write_bytes(b"x")
    (folder / "out").mkdir()
    (folder / "out" / "z.png").write_bytes(b"x")
    write_png(folder / "old.png", chw(picture()), {OWN_MARK: "{}"})
    found = find_images([str(folder)], out=folder / "out")
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.webp"]
    (note,) = caplog.messages
    for words in ("2 .mp4", "1 without a suffix", "2 subfolders (--rec", "1 pictures of earlier"):
        assert words in note
    deep = find_images([str(folder)], recursive=True, out=folder / "out")
    assert [path.name for path in deep] == ["a.JPG", "b.png", "c.webp", "deep.png"]
    assert "1 in the output folder" in caplog.messages[1]
    assert find_images([str(folder / "old.png")])  # named outright: the user's word


def test_pictures_of_runs_are_no_inputs_and_those_made_for_runs_are(folder: Path) -> None:
    ours = {"Software": "pulse-sr 1"}
    for name in ("result.json", "photo.json", "compare.json"):
        place = folder / name.removesuffix(".json")
        place.mkdir()
        (place / name).write_text("{}")
        write_png(place / "input.png", chw(picture()), ours)
        save(Image.fromarray(picture()), place / "photo_before.jpg", comment="pulse-sr 1")
        write_png(place / "of_the_user.png", chw(picture()))
    save(Image.fromarray(picture()), folder / "after.jpg", comment="synthetic face: plausible")
    save(Image.fromarray(picture()), folder / "film.gif", comment="synthetic face: plausible")
    write_png(folder / "frame.png", chw(picture()), {**ours, "Comment": "synthetic face: so"})
    write_png(folder / "degraded.png", chw(picture()), ours)
    save(Image.fromarray(picture()), folder / "degraded.jpg", comment="pulse-sr 1")
    found = [path.name for path in find_images([str(folder)], recursive=True)]
    asked = ["a.JPG", "b.png", "c.webp", "degraded.jpg", "degraded.png"]
    assert sorted(found) == asked + 3 * ["of_the_user.png"]


def test_inputs_below_the_output_folder_are_taken_where_they_are_asked_for(folder: Path) -> None:
    """`-o .` with a folder or a pattern of a folder in it: nothing there is a result."""
    for text in (str(folder), f"{folder}/*.png", f"{folder}/b.png"):
        assert find_images([text], out=folder.parent)
    with pytest.raises(UsageError, match="in the output folder"):
        find_images([str(folder)], out=folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.png", "no.png does not exist"),
        ("empty", "the folder .*empty has no images"),
        ("*.gif", r"no image matches .*\*.gif"),
        ("x[1]*.png", r"no image matches .*x\[1\]"),
    ],
)
def test_inputs_that_give_nothing(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_images([f"{folder}/{name}"])


def test_pixels_and_digest_come_from_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(picture()), tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(picture(seed=1)).save(buffer, "PNG")
    read = Path.read_bytes

    def read_then_change(self: Path) -> bytes:
        data = read(self)
        self.write_bytes(buffer.getvalue())
        return data

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(Path, "read_bytes", read_then_change)
    image = read_image(path)
    assert image.sha256 == digest
    np.testing.assert_array_equal(image.pixels, chw(picture()))
