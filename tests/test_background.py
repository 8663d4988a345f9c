"""Work beside the caller: order, limits, errors, and no thread that stays."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from pulse_sr.inversion import background
from pulse_sr.inversion.background import AHEAD, Background, read_ahead


def threads_of(name):
    return [each for each in threading.enumerate() if each.name.startswith(name)]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Source:
    """Numbers from 0, counting how many were taken."""

    def __init__(self, error_at=None):
        self.taken, self.error_at = 0, error_at

    def __iter__(self):
        return self

    def __next__(self):
        number = self.taken
        if number == self.error_at:
            raise RuntimeError(f"number {number} is broken")
        if number == 8:
            raise StopIteration
        self.taken += 1
        return number


def test_items_are_taken_in_order_and_a_few_ahead():
    """While the consumer has item k, the thread gets to k + AHEAD and no farther."""
    source = Source()
    with contextlib.closing(read_ahead(source)) as items:
        assert source.taken == 0
        for k, item in enumerate(items):
            assert item == k
            ahead = min(8, k + 1 + AHEAD)
            wait_until(lambda ahead=ahead: source.taken == ahead)
            time.sleep(0.005)
            assert source.taken == ahead
    assert k == 7
    assert not threads_of("read-ahead")


def test_an_error_comes_in_its_place_and_ends_the_items():
    items = read_ahead(Source(error_at=3))
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="number 3 is broken"):
        next(items)
    assert list(items) == []
    assert not threads_of("read-ahead")


def test_closing_early_ends_the_thread_and_takes_no_more():
    source = Source()
    items = read_ahead(source)
    assert next(items) == 0
    assert threads_of("read-ahead")
    items.close()
    assert not threads_of("read-ahead")
    taken = source.taken
    assert taken <= 1 + AHEAD
    assert list(items) == []
    assert source.taken == taken


def test_the_item_under_way_is_waited_for_and_the_others_are_not_begun():
    begun, gate = [], threading.Event()

    def slow():
        for number in range(5):
            begun.append(number)
            if number == 1:
                gate.wait(10)
            yield number

    items = read_ahead(slow())
    assert next(items) == 0
    wait_until(lambda: begun == [0, 1])
    threading.Timer(0.05, gate.set).start()
    items.close()
    assert begun == [0, 1]
    assert not threads_of("read-ahead")


def test_one_thread_keeps_the_order_and_gives_results_and_errors():
    done = []

    def work(number):
        done.append(number)
        return 1 / number

    with Background("test-work", most=3) as pool:
        futures = [pool.submit(work, number) for number in (4, 0, 2)]
    assert done == [4, 0, 2]
    assert [futures[0].result(), futures[2].result()] == [0.25, 0.5]
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    assert not threads_of("test-work")


def test_no_more_than_the_limit_is_unfinished():
    gate, handed = threading.Event(), []

    def hand_over(pool):
        for number in range(5):
            pool.submit(gate.wait, 10)
            handed.append(number)

    with Background("test-work", most=2) as pool:
        caller = threading.Thread(target=hand_over, args=(pool,))
        caller.start()
        wait_until(lambda: len(handed) == 2)
        time.sleep(0.05)
        assert len(handed) == 2  # the third is waited for
        gate.set()
        caller.join(10)
        assert len(handed) == 5


def test_what_was_handed_over_is_completed_after_an_interruption():
    done = []

    def interrupted():
        with Background("test-work", most=3) as pool:
            for number in range(3):
                pool.submit(lambda number=number: (time.sleep(0.02), done.append(number)))
            assert len(done) < 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [0, 1, 2]
    assert not threads_of("test-work")


def test_an_interruption_while_waiting_loses_nothing(monkeypatch):
    done = []

    def interrupt(*words, **more):
        raise KeyboardInterrupt

    with Background("test-work", most=1) as pool:
        pool.submit(done.append, "first")
        monkeypatch.setattr(background, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(done.append, "second")
    assert done == ["first", "second"]


def test_what_was_not_begun_can_be_dropped():
    gate, done = threading.Event(), []
    pool = Background("test-work", most=3)
    first = pool.submit(lambda: (gate.wait(10), done.append(0)))
    wait_until(first.running)
    later = [pool.submit(done.append, number) for number in (1, 2)]
    threading.Timer(0.05, gate.set).start()
    pool.close(complete=False)
    assert done == [0]
    assert all(future.cancelled() for future in later)
    assert not threads_of("test-work")
