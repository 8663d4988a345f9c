"""The order of the training images, and feeds that keep the batches of that order ready."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from pulse_sr.data.feed import PrefetchFeed, ResidentFeed, open_feed
from pulse_sr.data.order import ImageStream

CPU = torch.device("cpu")


def numbered(count):
    """Image k has the value k everywhere."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 3, 2, 2))


def values(batch):
    return batch[:, 0, 0, 0].tolist()


def noise(count=23, side=4):
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


# the order


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, [[0, 4, 7, 10, 11], [2, 3, 5, 6, 8], [1, 4, 9, 9, 10], [3, 6, 7, 9, 11]]),
        (7, [[0, 1, 3, 4, 5], [6, 7, 8, 9, 10], [1, 2, 9, 10, 11], [4, 5, 6, 7, 11]]),
    ],
)
def test_the_order_stays_what_it_was(seed, expected):
    """Recorded from the first version of the training: runs that it began are resumed."""
    stream = ImageStream(numbered(12), seed)
    assert [values(stream.batch(start, 5)) for start in (0, 5, 10, 100)] == expected


def test_every_image_comes_once_in_an_epoch():
    stream = ImageStream(numbered(12), seed=0)
    epochs = [
        [v for start in range(12 * e, 12 * e + 12, 4) for v in values(stream.batch(start, 4))]
        for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_the_order_depends_on_the_seed_and_the_position_alone():
    images = noise(12)
    stream = ImageStream(images, seed=0)
    batches = [stream.batch(start, 5) for start in range(0, 60, 5)]  # across epochs
    for number, batch in enumerate(batches):
        assert torch.equal(ImageStream(images, seed=0).batch(5 * number, 5), batch)
    assert torch.equal(stream.batch(0, 5), batches[0])
    assert not all(
        torch.equal(ImageStream(images, seed=1).batch(5 * n, 5), b) for n, b in enumerate(batches)
    )


def test_a_batch_may_be_larger_than_the_set():
    assert values(ImageStream(numbered(3), 0).batch(6, 9)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_parts_of_several_processes_are_the_whole_batch():
    stream = ImageStream(noise(), seed=3)
    for start in (0, 20, 46):
        whole = stream.batch(start, 8)
        parts = [stream.batch(start, 8, slice(rank, None, 2)) for rank in range(2)]
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)
        parts = [stream.batch(start, 8, slice(4 * rank, 4 * rank + 4)) for rank in range(2)]
        assert torch.equal(torch.cat(parts), whole)
        picked = torch.tensor([5, 0, 5])
        assert torch.equal(stream.batch(start, 8, picked), whole[picked])


# feeds


@pytest.fixture(params=[PrefetchFeed, ResidentFeed])
def kind(request):
    return request.param


@pytest.mark.parametrize("rows", [None, slice(1, 3), torch.tensor([3, 0])])
def test_a_feed_gives_the_batches_of_the_stream(kind, rows):
    """In sequence, after a jump as on resuming, and again from the start."""
    images = noise()
    plain = ImageStream(images, seed=5)
    with kind(ImageStream(images, seed=5), 4, CPU, rows) as feed:
        for start in [*range(0, 100, 4), 400, 404, 0, 4, 3, 3]:
            batch = feed.batch(start)
            assert batch.dtype == torch.uint8
            assert torch.equal(batch, plain.batch(start, 4, rows))


class RecordingStream(ImageStream):
    """Notes what is asked for; may raise, or wait at a batch until it is let go on."""

    def __init__(self, images, seed=0):
        super().__init__(images, seed)
        self.asked = []
        self.may_go = threading.Event()
        self.reached = threading.Semaphore(0)
        self.broken_at = self.waits_at = None

    def batch(self, start, count, rows=None):
        self.asked.append(start)
        self.reached.release()
        if start == self.waits_at:
            self.may_go.wait(10)
        if start == self.broken_at:
            raise OSError(5, f"of batch {start}")
        return super().batch(start, count, rows)


def image_threads():
    return [each for each in threading.enumerate() if each.name.startswith("images")]


def test_the_next_batches_are_ready_before_they_are_asked_for():
    stream = RecordingStream(noise())
    with PrefetchFeed(stream, 4, CPU, ahead=3) as feed:
        feed.batch(0)
        for _ in range(4):
            assert stream.reached.acquire(timeout=10)
        assert stream.asked == [0, 4, 8, 12]
        assert not stream.reached.acquire(timeout=0.05)  # and no more than these
        feed.batch(4)
        assert stream.reached.acquire(timeout=10)
        assert stream.asked == [0, 4, 8, 12, 16]


def test_an_error_comes_with_its_batch_and_not_before():
    stream = RecordingStream(noise())
    stream.broken_at = 8
    with PrefetchFeed(stream, 4, CPU) as feed:
        for start in (0, 4):
            assert len(feed.batch(start)) == 4
        for _ in range(2):
            with pytest.raises(OSError, match="of batch 8"):
                feed.batch(8)
        assert len(feed.batch(12)) == 4
    assert image_threads() == []


def test_no_thread_stays_when_the_consumer_stops():
    stream = RecordingStream(noise())

    def consume():
        with PrefetchFeed(stream, 4, CPU) as feed:
            feed.batch(0)
            assert len(image_threads()) == 1
            raise RuntimeError("of the consumer")

    with pytest.raises(RuntimeError, match="of the consumer"):
        consume()
    assert image_threads() == []


def test_closing_does_not_gather_what_nobody_wants():
    stream = RecordingStream(noise())
    stream.waits_at = 4
    feed = PrefetchFeed(stream, 4, CPU, ahead=3)
    feed.batch(0)  # the thread is at 4, and 8 and 12 are to come
    threading.Timer(0.05, stream.may_go.set).start()
    feed.close()
    feed.close()
    assert stream.asked in ([0], [0, 4])
    assert image_threads() == []


def test_a_set_that_fits_lies_on_the_device():
    stream = ImageStream(noise(), 0)
    size = stream.images.nbytes
    assert isinstance(open_feed(stream, 4, CPU, device_bytes=size), ResidentFeed)
    assert isinstance(open_feed(stream, 4, CPU, device_bytes=size - 1), PrefetchFeed)
    assert isinstance(open_feed(stream, 4, CPU), PrefetchFeed)


def test_a_set_is_copied_to_the_device_in_pieces(monkeypatch):
    images = noise()
    monkeypatch.setattr("pulse_sr.data.feed._CHUNK_BYTES", 5 * images[0].nbytes)
    feed = ResidentFeed(ImageStream(images, 0), 23, CPU)
    assert torch.equal(feed.batch(0), torch.from_numpy(images))  # an epoch, sorted


@pytest.mark.gpu
@pytest.mark.parametrize("device_bytes", [0, None])
def test_a_gpu_gets_the_same_batches(device_bytes):
    images, device = noise(), torch.device("cuda")
    plain = ImageStream(images, seed=5)
    with open_feed(ImageStream(images, seed=5), 4, device, device_bytes=device_bytes) as feed:
        assert isinstance(feed, PrefetchFeed if device_bytes == 0 else ResidentFeed)
        for start in range(0, 100, 4):
            batch = feed.batch(start)
            assert batch.device.type == "cuda"
            assert torch.equal(batch.cpu(), plain.batch(start, 4))
