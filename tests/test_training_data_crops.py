"""Random patches of photos: where they are cut from, and that position and seed decide it.

A photo here says in each pixel where it stands: red is x, green is y, blue its number.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.data.crops import CropStream, list_photos
from pulse_sr.data.feed import PrefetchFeed, open_feed
from pulse_sr.data.open import open_source
from pulse_sr.errors import InputError

CPU = torch.device("cpu")
SIDE = 12
SIZES = ((40, 30), (12, 50), (33, 12), (20, 20), (64, 48))


def photo(number, width, height):
    y, x = np.mgrid[:height, :width]
    return np.dstack([x, y, np.full_like(x, number)]).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        Image.fromarray(photo(number, *size)).save(folder / f"{number}.png")
    return folder


def stream_of(folder, seed=0, per_photo=1):
    return CropStream(list_photos(open_source(folder), SIDE), SIDE, seed, per_photo)


def places(batch):
    """(photo, left, top) of each patch, which has to be one of that photo, pixel by pixel."""
    found = []
    for patch in batch.numpy():
        left, top, number = (int(value) for value in patch[:, 0, 0])
        whole = photo(number, *SIZES[number]).transpose(2, 0, 1)
        np.testing.assert_array_equal(patch, whole[:, top : top + SIDE, left : left + SIDE])
        found.append((number, left, top))
    return found


def test_patches_are_patches_of_the_photos(folder):
    batch = stream_of(folder).batch(0, 100)
    assert batch.dtype == torch.uint8
    assert batch.shape == (100, 3, SIDE, SIDE)
    found = places(batch)
    for number, (width, height) in enumerate(SIZES):
        mine = [(left, top) for which, left, top in found if which == number]
        assert len(mine) == 20
        assert len(set(mine)) > 5 or width == height == SIDE


def test_every_place_is_reached_and_none_is_preferred(tmp_path):
    """14x13 px has 3x2 places; each comes with 1/6 of 1200, give or take 4 deviations of 13."""
    Image.fromarray(photo(0, 14, 13)).save(tmp_path / "0.png")
    batch = stream_of(tmp_path, per_photo=1200).batch(0, 1200)
    corners = batch[:, :2, 0, 0].tolist()
    counts = [corners.count([left, top]) for left in range(3) for top in range(2)]
    assert sum(counts) == 1200
    assert all(150 < count < 250 for count in counts)


def test_an_epoch_has_each_photo_so_many_times_in_a_row(folder):
    numbers = [which for which, _, _ in places(stream_of(folder, per_photo=3).batch(0, 30))]
    assert numbers[0::3] == numbers[1::3] == numbers[2::3]
    assert sorted(numbers[0:15:3]) == sorted(numbers[15::3]) == [0, 1, 2, 3, 4]


def test_position_and_seed_decide_everything(folder):
    """However the stream is dealt out, and wherever a run takes it up again."""
    whole = stream_of(folder, per_photo=2).batch(7, 16)
    again = stream_of(folder, per_photo=2)
    assert torch.equal(torch.cat([again.batch(15, 8), again.batch(7, 8)]), whole.roll(8, 0))
    halves = [again.batch(7, 16, rows) for rows in (slice(0, 8), torch.arange(8, 16))]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(stream_of(folder, seed=1, per_photo=2).batch(7, 16), whole)


def test_only_the_photos_of_the_own_rows_are_read(folder, monkeypatch):
    stream = stream_of(folder)
    read, original = [], stream.photos.source.read
    monkeypatch.setattr(
        stream.photos.source, "read", lambda wanted: read.extend(wanted) or original(wanted)
    )
    batch = stream.batch(0, 4, slice(2, 4))
    assert sorted(read) == sorted(which for which, _, _ in places(batch))
    assert len(read) == 2


def test_a_feed_gives_the_patches_of_the_stream(folder):
    plain = stream_of(folder)
    with open_feed(stream_of(folder), 4, CPU, torch.tensor([3, 0]), device_bytes=10**9) as feed:
        assert isinstance(feed, PrefetchFeed)
        for start in (0, 4, 8, 400, 0):
            assert torch.equal(feed.batch(start), plain.batch(start, 4)[[3, 0]])


def test_a_rotated_photo_is_cut_upright(tmp_path):
    """Stored on its side, 8 px high: upright it is 8 px wide, too narrow; 16x40 is not."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: a clockwise quarter turn shows it upright
    upright = photo(0, 16, 40)
    for name, pixels in (("a", upright), ("b", upright[:, :8])):
        Image.fromarray(np.rot90(pixels)).save(tmp_path / f"{name}.png", exif=exif)
    stream = stream_of(tmp_path)
    assert stream.photos.skipped == (("b.png", "is 8x40, smaller than a patch of 12 px"),)
    for patch in stream.batch(0, 20).numpy():
        left, top = (int(value) for value in patch[:2, 0, 0])
        expected = upright.transpose(2, 0, 1)[:, top : top + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(patch, expected)


def test_a_jpeg_is_decoded_in_full(tmp_path):
    """Flat grey survives JPEG; a reduced decoding would leave no patch of the full side."""
    Image.fromarray(np.full((500, 400, 3), 77, np.uint8)).save(tmp_path / "a.jpg")
    photos = list_photos(open_source(tmp_path), 400)
    batch = CropStream(photos, 400, seed=0).batch(0, 2)
    assert torch.equal(batch, torch.full((2, 3, 400, 400), 77, dtype=torch.uint8))


def test_what_is_no_photo_is_named_and_left_out(folder):
    (folder / "5.png").write_bytes(b"no picture")
    Image.fromarray(photo(6, 11, 300)).save(folder / "6.png")
    stream = stream_of(folder)
    assert [name for name, _ in stream.photos.skipped] == ["5.png", "6.png"]
    assert {which for which, _, _ in places(stream.batch(0, 5))} == {0, 1, 2, 3, 4}


def test_no_photo_at_all_is_said(tmp_path):
    Image.fromarray(photo(0, 11, 11)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"holds no photo.*a\.png is 11x11, smaller than"):
        list_photos(open_source(tmp_path), SIDE)


def test_other_photos_are_other_data(folder):
    before = list_photos(open_source(folder), SIDE).content_sha256
    (folder / "2.png").rename(folder / "2b.png")
    assert list_photos(open_source(folder), SIDE).content_sha256 == before
    Image.fromarray(photo(9, 33, 12)).save(folder / "2b.png")
    assert list_photos(open_source(folder), SIDE).content_sha256 != before


def test_a_photo_damaged_below_its_header_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    stream = stream_of(tmp_path)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.png is truncated or damaged"):
        stream.batch(0, 1)
