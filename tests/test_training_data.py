"""Training images of a folder: what is taken, how it is decoded, what the cache promises."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from packed_images import images_in
from PIL import Image

from pulse_sr.data.cache import cache_images
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import (
    NOT_TRAINING_DATA,
    decode,
    decode_bytes,
    require_resolution,
    walk_files,
)
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.images.read import read_image


def picture(seed, size=(16, 16), mode="RGB"):
    """A smooth picture, so that JPEG keeps it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def data(tmp_path):
    """Twenty images of 16 px in three nested folders."""
    for i in range(20):
        save(tmp_path / "data" / str(i % 3) / f"{i:02d}.png", picture(i))
    return tmp_path / "data"


@pytest.fixture
def warnings(caplog, monkeypatch):
    """What the library warns of, as text."""
    monkeypatch.setattr(logging.getLogger("pulse_sr"), "propagate", True)
    caplog.set_level(logging.WARNING, "pulse_sr")
    return caplog


def cached(data, cache, resolution=8, **options):
    return cache_images(open_source(data), cache, resolution, **options)


def unfinished(cache):
    return [path.name for path in cache.iterdir() if path.name.startswith(".")]


# which files


def test_a_folder_gives_all_formats_in_any_case_and_no_other_files(tmp_path):
    names = ["a.png", "B.JPG", "c.JpEg", "d.webp", "e.gif", "f.TIF", "g.bmp", "h.ppm", "i.tga"]
    for name in names:
        save(tmp_path / "deep" / "er" / name, picture(0))
    for name in ("notes.txt", "labels.csv", "a.json", "none", ".hidden.png", "._a.png"):
        (tmp_path / name).write_text("no image")
    save(tmp_path / ".thumbnails" / "a.png", picture(0))
    assert {path.name for path in images_in(tmp_path)} == set(names)


def test_the_order_is_that_of_the_parts_of_the_paths(tmp_path):
    """`a/x` before `a-b/x`: a folder stays together, though `-` sorts before `/`."""
    for name in ("a-b/x.png", "a/x.png", "a/b/y.png", "A.png", "a.png"):
        save(tmp_path / name, picture(0))
    expected = ["A.png", "a/b/y.png", "a/x.png", "a-b/x.png", "a.png"]
    assert list(open_source(tmp_path).names) == expected
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == expected


def test_links_are_followed_once_and_loops_end(data, tmp_path):
    save(tmp_path / "elsewhere" / "more.png", picture(30))
    (data / "more").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(tmp_path / "elsewhere")
    (data / "0" / "up").symlink_to(data)
    (data / "1" / "self").symlink_to(".")
    names = list(open_source(data).names)
    assert len(names) == 21
    assert names[-1] == "again/more.png"


def test_a_marked_folder_is_left_out_unless_it_is_asked_for(data):
    save(data / "lr_16" / "deep" / "00.png", picture(0))
    (data / "lr_16" / NOT_TRAINING_DATA).touch()
    assert len(images_in(data)) == 20
    assert len(images_in(data / "lr_16")) == 1


def test_a_folder_that_can_not_be_listed_is_named(data, tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("data/1"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files, refused = walk_files(data)
    assert len(files) == 13
    assert refused == [(data / "1", "cannot be listed: Permission denied")]


def test_what_does_not_exist_is_a_wrong_call(tmp_path):
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        open_source(tmp_path / "nowhere")


def test_licences_are_given_with_their_text(data):
    (data / "LICENSE.txt").write_text("CC0")
    (data / "0" / "NOTICE").write_text("of a part")
    assert open_source(data).licences() == {"LICENSE.txt": "CC0"}


def test_framings_come_from_the_sidecars(data):
    source = open_source(data)
    assert (source.alignment(), source.framings()) == (None, {})
    for place in (0, 3):
        sidecar = (data / source.names[place]).with_suffix(".json")
        sidecar.write_text(json.dumps({"framing": {"name": f"of {place}"}}))
    (data / source.names[4]).with_suffix(".json").write_text('{"framing"')
    assert source.alignment() == {"name": "of 0"}
    assert source.framings() == {0: {"name": "of 0"}, 3: {"name": "of 3"}}


@pytest.mark.parametrize("resolution", [0, 4, 12, 48, -8])
def test_resolutions_are_powers_of_two_from_8_up(resolution):
    with pytest.raises(UsageError, match=f"--resolution: resolution is {resolution}, expected"):
        require_resolution(resolution)
    require_resolution(8)
    require_resolution(1024)


def test_the_largest_resolution_is_a_power_of_two_that_the_median_image_has(tmp_path):
    for i, side in enumerate([10, 40, 40, 100, 300]):
        save(tmp_path / f"{i}.png", picture(i, (side, side + 7)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    assert open_source(tmp_path).largest_resolution() == 32
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none of the images could be read"):
        open_source(tmp_path / "none").largest_resolution()


# decoding


def test_images_are_cropped_to_their_middle_and_reduced(tmp_path):
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 20, 10))
    image.save(tmp_path / "wide.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        pixels = decode(tmp_path / name, 5)
        assert pixels.shape == (3, 5, 5)
        assert pixels.dtype == np.uint8
        assert (pixels == np.array([0, 0, 255])[:, None, None]).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("size", [(24, 16), (15, 21), (16, 16)])
def test_a_jpeg_is_what_the_reader_of_all_formats_gives(tmp_path, mode, orientation, size):
    """Decoded on a shorter way, to the same bits: `read_image`, the middle, Lanczos."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.jpg", picture(3, size, mode), exif=exif, quality=90)
    whole = read_image(path)
    side, (height, width) = min(size), whole.pixels.shape[1:]
    left, top = (width - side) // 2, (height - side) // 2
    middle = whole.pixels[:, top : top + side, left : left + side].transpose(1, 2, 0)
    expected = Image.fromarray(middle.copy()).resize((8, 8), Image.Resampling.LANCZOS)
    found = decode_bytes("x", path.read_bytes(), 8)
    assert np.array_equal(found.pixels, np.asarray(expected).transpose(2, 0, 1))
    assert (found.width, found.height) == (width, height)


def test_a_large_jpeg_is_reduced_while_decoding(tmp_path, monkeypatch):
    """At 8 times the resolution or more; the result stays within 40 dB of the long way."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((640, 512), Image.Resampling.BICUBIC)
    image.save(file, "JPEG", quality=95)
    decoded = []
    real = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *a, **k: decoded.append(self.size) or real(self, *a, **k),
    )
    short = {side: decode_bytes("x", file.getvalue(), side) for side in (64, 128)}
    assert decoded == [(256, 256), (512, 512)]
    assert {(each.width, each.height) for each in short.values()} == {(640, 512)}
    full = np.asarray(Image.open(file).crop((64, 0, 576, 512)))
    long = np.asarray(real(Image.fromarray(full), (64, 64), Image.Resampling.LANCZOS))
    error = (short[64].pixels.transpose(1, 2, 0).astype(float) - long) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 40


def test_odd_files_are_decoded_alike_in_the_cache(data, tmp_path):
    """16 bits, alpha, palette, animation, rotation: as `read_image` reads them."""
    sixteen = (np.arange(256, dtype=np.uint32).reshape(16, 16) * 257).astype(np.uint16)
    odd = {
        "sixteen.png": save(data / "sixteen.png", Image.fromarray(sixteen)),
        "alpha.png": save(data / "alpha.png", picture(40, mode="RGBA")),
        "palette.gif": save(data / "palette.gif", picture(41, mode="P")),
        "cmyk.tif": save(data / "cmyk.tif", picture(42, mode="CMYK")),
        "moving.webp": save(
            data / "moving.webp",
            picture(43),
            save_all=True,
            append_images=[picture(44)],
            lossless=True,
        ),
    }
    found = cached(data, tmp_path / "cache", 16)
    assert found.skipped == ()
    for name, path in odd.items():
        assert np.array_equal(found.pixels[found.names.index(name)], read_image(path).pixels), name
    assert np.array_equal(found.pixels[found.names.index("sixteen.png")][0].ravel(), range(256))


# the cache


def test_the_cache_holds_the_decoded_images_in_order(data, tmp_path):
    found = cached(data, tmp_path / "cache")
    assert isinstance(found.pixels, np.memmap)
    assert found.pixels.shape == (20, 3, 8, 8)
    expected = [decode(path, 8) for path in images_in(data)]
    assert np.array_equal(found.pixels, expected)
    assert list(found.names) == [p.relative_to(data).as_posix() for p in images_in(data)]
    assert (found.images, found.skipped, found.notes()) == (20, (), [])
    files = sorted(path.suffix for path in (tmp_path / "cache").iterdir())
    assert files == [".json", ".npy"]


def test_one_thread_and_three_write_the_same_bytes(data, tmp_path):
    for workers in (1, 3):
        cached(data, tmp_path / str(workers), workers=workers)
    one, three = ((tmp_path / n).glob("*.npy") for n in ("1", "3"))
    assert next(one).read_bytes() == next(three).read_bytes()


def test_progress_is_told_after_each_image(data, tmp_path):
    (data / "0" / "00.png").write_text("not an image")
    told = []
    cached(data, tmp_path / "cache", progress=lambda *numbers: told.append(numbers))
    assert told == [(done, 20, 1) for done in range(1, 21)]  # the damaged one is the first
    cached(data, tmp_path / "cache", progress=lambda *numbers: told.append(numbers))
    assert len(told) == 20


def forbid(monkeypatch, name):
    def called(*arguments, **options):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(f"pulse_sr.data.cache.{name}", called)


def test_an_unchanged_folder_is_not_opened_again(data, tmp_path, monkeypatch):
    before = cached(data, tmp_path / "cache")
    forbid(monkeypatch, "decode_files")
    forbid(monkeypatch, "hash_files")
    after = cached(data, tmp_path / "cache")
    assert np.array_equal(after.pixels, before.pixels)
    assert after.content_sha256 == before.content_sha256


def test_the_same_content_is_not_decoded_again(data, tmp_path, monkeypatch):
    """After `touch`, under other names in the same order, and as a copy: hashed, but found."""
    before = cached(data, tmp_path / "cache")
    forbid(monkeypatch, "decode_files")
    os.utime(data / "0" / "00.png", ns=(1, 1))
    assert cached(data, tmp_path / "cache").content_sha256 == before.content_sha256
    shutil.copytree(data, tmp_path / "copy")
    (tmp_path / "copy" / "0" / "00.png").rename(tmp_path / "copy" / "0" / "000.png")
    copy = cached(tmp_path / "copy", tmp_path / "cache")
    assert copy.content_sha256 == before.content_sha256
    assert copy.names[0] == "0/000.png"
    forbid(monkeypatch, "hash_files")  # the index knows the new place and times now
    assert cached(tmp_path / "copy", tmp_path / "cache").names == copy.names


def test_other_content_or_another_resolution_is_another_cache(data, tmp_path):
    cache = tmp_path / "cache"
    first = cached(data, cache)
    assert cached(data, cache, 16).content_sha256 == first.content_sha256
    save(data / "new.png", picture(50))
    assert len(cached(data, cache).pixels) == 21
    stat = (data / "new.png").stat()
    save(data / "new.png", picture(51))
    os.utime(data / "new.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed = cached(data, cache)
    assert np.array_equal(changed.pixels[-1], decode(data / "new.png", 8))
    assert len(list(cache.glob("*.npy"))) == 4
    assert np.array_equal(first.pixels, cached_without(data, "new.png", cache))


def cached_without(data, name, cache):
    (data / name).unlink()
    return cached(data, cache).pixels


def test_files_of_the_same_name_size_and_time_in_another_folder_are_told_apart(tmp_path):
    for folder, first in (("a", 0), ("b", 100)):
        for i in range(16):
            path = save(tmp_path / folder / f"{i}.bmp", picture(first + i))
            os.utime(path, ns=(1, 1))
    a, b = (cached(tmp_path / folder, tmp_path / "cache") for folder in ("a", "b"))
    assert not np.array_equal(a.pixels, b.pixels)
    assert a.content_sha256 != b.content_sha256


def test_a_damaged_file_does_not_count_as_content(data, tmp_path):
    before = cached(data, tmp_path / "cache")
    (data / "0" / "damaged.png").write_text("not an image")
    with_it = cached(data, tmp_path / "cache")
    assert with_it.skipped == (("0/damaged.png", "is not an image (12 bytes)"),)
    assert with_it.content_sha256 == before.content_sha256
    assert np.array_equal(with_it.pixels, before.pixels)


def test_damaged_files_are_named_skipped_and_counted(data, tmp_path, warnings):
    whole = (data / "0" / "00.png").read_bytes()
    photo = save(tmp_path / "whole.jpg", picture(1, (64, 64))).read_bytes()
    (data / "0" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "1" / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (data / "empty.jpg").touch()
    (data / "text.png").write_text("hello")
    (data / "link.png").symlink_to("nowhere.png")
    os.mkfifo(data / "pipe.png")
    found = cached(data, tmp_path / "cache")
    names = ["0/cut.png", "1/cut.jpg", "empty.jpg", "link.png", "pipe.png", "text.png"]
    assert [name for name, _ in found.skipped] == names
    reasons = dict(found.skipped)
    assert reasons["1/cut.jpg"].startswith("is truncated or damaged")
    assert reasons["empty.jpg"] == "is empty (0 bytes)"
    assert reasons["link.png"] == "does not exist"
    assert reasons["pipe.png"] == "is a named pipe, not a regular file"
    assert all(f"skipped: {name} {reason}" in warnings.text for name, reason in found.skipped)
    assert found.notes() == [f"6 files were skipped, the first: 0/cut.png {reasons['0/cut.png']}"]
    assert np.array_equal(found.pixels, [decode(data / name, 8) for name in found.names])
    again = cached(data, tmp_path / "cache")
    assert (again.skipped, again.names) == (found.skipped, found.names)


@pytest.mark.parametrize(("side", "words"), [(9000, "81.0"), (10000, "100.0")])
def test_a_picture_of_too_many_pixels_is_skipped(data, tmp_path, side, words):
    """Seen in the header, before its pixels are in memory; Pillow itself warns from 89 on."""
    save(data / "huge.png", Image.new("1", (side, side)))
    found = cached(data, tmp_path / "cache")
    assert found.skipped == (("huge.png", f"has {words} megapixels, the limit is 64"),)


def test_a_name_that_is_no_text_is_kept(data, tmp_path):
    """Bytes that are not UTF-8, as older systems write them."""
    shutil.copy(data / "0" / "00.png", os.fsencode(data) + b"/\xff\xe9.png")
    found = cached(data, tmp_path / "cache")
    assert os.fsencode(found.names[-1]) == b"\xff\xe9.png"
    assert cached(data, tmp_path / "cache").names == found.names


def test_what_is_odd_about_the_images_is_said(data, tmp_path, warnings):
    save(data / "small.png", picture(60, (4, 4)))
    save(data / "wide.png", picture(61, (40, 16)))
    for i in range(3):
        save(data / f"grey{i}.png", Image.new("RGB", (16, 16), (i, i, i)))
    shutil.copy(data / "0" / "00.png", data / "copy.png")
    found = cached(data, tmp_path / "cache")
    numbers = (found.enlarged, found.cropped, found.one_colour, found.copies)
    assert numbers == (1, 1, 3, 1)
    assert found.notes() == [
        "1 of 26 images are smaller than 8 px and enlarged: a prior learns their blur",
        "1 of 26 images are not square: only their middle is learned",
        "3 of 26 images are of a single colour: nothing can be learned from them",
        "1 of 26 images are exact copies of others: they count more than once",
    ]
    assert all(note in warnings.text for note in found.notes())


def test_too_few_images_are_refused_with_their_number(tmp_path):
    few = tmp_path / "few"
    for i in range(15):
        save(few / f"{i}.png", picture(i))
    with pytest.raises(InputError, match="few holds 15 images, training needs at least 16"):
        cached(few, tmp_path / "cache")
    (few / "text.png").write_text("not an image")
    with pytest.raises(InputError, match="only 15 of 16 images could be read"):
        cached(few, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# interruptions


@pytest.mark.parametrize("damage", ["truncate", "unlink", "index"])
def test_a_damaged_cache_is_written_again(data, tmp_path, damage):
    cache = tmp_path / "cache"
    before = np.array(cached(data, cache).pixels)
    (array,), (index,) = cache.glob("*.npy"), cache.glob("*.json")
    if damage == "truncate":
        os.truncate(array, array.stat().st_size - 1)
    elif damage == "unlink":
        array.unlink()
    else:
        index.write_text('{"version": 1')
    assert np.array_equal(cached(data, cache).pixels, before)


def test_an_exception_leaves_no_file(data, tmp_path):
    def interrupt(done, total, skipped):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(data, tmp_path / "cache", progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []


DECODE = """
import sys
from pathlib import Path
from pulse_sr.errors import PulseError
from pulse_sr.data.cache import cache_images
from pulse_sr.data.open import open_source

def stop(done, total, skipped):
    if done == int(sys.argv[3]):
        print("half", flush=True)
        sys.stdin.read()  # until the parent kills this process

try:
    cache_images(open_source(sys.argv[1]), Path(sys.argv[2]), 8, progress=stop)
except PulseError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


def decoding(data, cache, stop_at=0, **options):
    command = [sys.executable, "-c", DECODE, str(data), str(cache), str(stop_at)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_process_killed_while_decoding_leaves_nothing_that_stays(data, tmp_path):
    cache = tmp_path / "cache"
    with decoding(data, cache, stop_at=9) as child:
        assert child.stdout.readline() == "half\n"
        (left,) = unfinished(cache)
        child.send_signal(signal.SIGKILL)
    assert unfinished(cache) == [left]
    found = cached(data, cache)
    assert unfinished(cache) == []
    assert np.array_equal(found.pixels, [decode(path, 8) for path in images_in(data)])


def test_a_second_process_waits_for_the_one_that_decodes(data, tmp_path):
    """And finds what it wrote: the array is written once."""
    cache = tmp_path / "cache"
    with decoding(data, cache, stop_at=9) as first:
        assert first.stdout.readline() == "half\n"
        with decoding(data, cache, stop_at=20) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.5)
            assert len(unfinished(cache)) == 1  # and did not remove the file of the first
            first.stdin.close()
            assert first.wait(30) == 0
            assert second.wait(30) == 0  # never got to an image, else it would be waiting
            assert second.stdout.read() == ""


def test_a_file_that_can_not_grow_ends_with_3_and_leaves_nothing(data, tmp_path):
    """The limit of the process on the size of files: writing fails after some images."""
    cache = tmp_path / "cache"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    with decoding(data, cache, preexec_fn=limit) as child:
        said = child.stdout.read()
    assert child.returncode == 3
    assert said.startswith(f"could not write the images to {cache}")
    assert "File too large" in said
    assert list(cache.iterdir()) == []


def test_a_disk_that_is_full_at_the_end_is_named(data, tmp_path, monkeypatch):
    """Some file systems find out when the data are flushed."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"the disk is full: .*cache"):
        cached(data, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_space_is_looked_at_before_anything_is_decoded(data, tmp_path, monkeypatch):
    needed = 20 * 3 * 8 * 8
    forbid(monkeypatch, "decode_files")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(SetupError, match=r"take 0 MB, the disk of .*cache has 0 MB left"):
        cached(data, tmp_path / "cache")
