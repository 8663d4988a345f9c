"""The idx files of MNIST as training data."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from pulse_sr.data.crops import CropStream, list_photos
from pulse_sr.data.idx import IdxSource, is_idx, read_idx
from pulse_sr.data.open import open_source
from pulse_sr.errors import InputError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)


def idx(array, kind=8):
    shape = array.shape
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + array.tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_images_come_in_the_order_of_the_file(tmp_path, packed):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(IMAGES)) if packed else idx(IMAGES))
    source = open_source(path)
    assert (source.title, len(source.names)) == ("t10k-images-idx3-ubyte", 20)
    stream = CropStream(list_photos(source, 28), 28, seed=0)
    batch = stream.batch(0, 20).numpy()
    assert (batch[:, 0] == batch[:, 2]).all()
    found = sorted(each.tobytes() for each in batch[:, 0])
    assert found == sorted(each.tobytes() for each in IMAGES)
    assert source.largest_resolution() == 16
    assert [position for position, _ in source.read([3, 1])] == [3, 1]


def test_labels_are_no_images(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.arange(10, dtype=np.uint8)))
    assert np.array_equal(read_idx(path), np.arange(10))
    assert not is_idx(path)
    with pytest.raises(UsageError):
        IdxSource(path)


@pytest.mark.parametrize(
    "data",
    [
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"x",
        gzip.compress(idx(IMAGES))[:-20],
        idx(IMAGES, kind=13),
        b"\0\0",
    ],
    # Not the bytes: gzip puts the time in, and two processes would collect two tests.
    ids=["shorter", "longer", "packed-shorter", "floats", "two-bytes"],
)
def test_a_damaged_file_is_one_line(tmp_path, data):
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(InputError, match="images"):
        read_idx(path)
