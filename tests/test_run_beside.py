"""Reading and writing beside the search: what is on disk when, in which order, whatever happens.

The stand-ins for the search say when something is asked for; gates make the writer slow.
"""

from __future__ import annotations

import errno
import itertools
import json
import threading
import time
from functools import partial

import fake_search
import pytest
from test_background import wait_until

from pulse_sr.config import SearchConfig
from pulse_sr.errors import SetupError
from pulse_sr.files import lock
from pulse_sr.inversion.background import AHEAD
from pulse_sr.jobs import manifest, searching, store
from pulse_sr.jobs.executors import local
from pulse_sr.jobs.manifest import put_rows, read_rows
from pulse_sr.jobs.reading import Reader

NAMES = "abcdefghijkl"

#: How many results `run` lets wait for the threads that write, as below.
MOST = 3


@pytest.fixture(autouse=True)
def one_writer(monkeypatch):
    """As on a small machine, so that the order of writing is known."""
    monkeypatch.setattr(local, "_WRITERS", 1)


@pytest.fixture
def faces(face):
    def make(count):
        return [face(f"{name}.png", i) for i, name in enumerate(NAMES[:count])]

    return make


def run(inputs, out, search, **switches):
    config = SearchConfig(samples=1)
    return searching.run(inputs, out, config, fake_search.PRIOR, search=search, **switches)


def found(request, config):
    return request, fake_search.search(request.image, fake_search.PRIOR, config, request.indices)


def each_in_turn(requests, prior, config, progress=None, samples=None):
    for request in requests:
        yield found(request, config)


def own_threads():
    names = ("read-ahead", "write", "project")
    return [each for each in threading.enumerate() if each.name.startswith(names)]


@pytest.fixture
def reads(monkeypatch):
    """The names of the inputs that were read."""
    seen, real = [], Reader.read

    def read(reader, place, task):
        seen.append(task.stem)
        return real(reader, place, task)

    monkeypatch.setattr(Reader, "read", read)
    return seen


@pytest.fixture
def before_writing(monkeypatch):
    """A function that has another one called with the stem before each result is written."""
    real = store.write_result

    def install(call):
        def write(folder, *words, **more):
            call(folder.name)
            return real(folder, *words, **more)

        monkeypatch.setattr(store, "write_result", write)

    return install


def two_at_a_time(requests, prior, config, progress=None, samples=None):
    """A stream whose second input of every pair is done first."""
    requests = iter(requests)
    while pair := list(itertools.islice(requests, 2)):
        for request in reversed(pair):
            yield found(request, config)


def test_records_come_in_the_order_of_the_inputs(faces, tmp_path):
    """Also where others are done first, and one can not be read."""
    paths = faces(5)
    (tmp_path / "c.png").write_text("no picture")
    records = list(run(paths, tmp_path / "out", two_at_a_time))
    assert [r.stem for r in records] == list("abcde")
    assert [r.status for r in records] == ["done", "done", "failed", "done", "done"]


def test_an_input_is_written_while_the_next_is_searched(faces, tmp_path):
    out = tmp_path / "out"

    def search(requests, prior, config, progress=None, samples=None):
        for request in requests:
            wait_until(partial(all_written, request.place))
            yield found(request, config)

    def all_written(count):
        return all((out / path.stem / "result.json").is_file() for path in paths[:count])

    paths = faces(3)
    assert [r.status for r in run(paths, out, search)] == ["done"] * 3


def test_a_record_comes_when_its_files_are_there(faces, tmp_path, before_writing, monkeypatch):
    """And its row, where no batch is waited for."""
    monkeypatch.setattr(manifest, "_BATCH_S", 0.0)
    monkeypatch.setattr(manifest, "_BATCH_SHARE", 0.0)
    before_writing(lambda stem: time.sleep(0.03))
    out = tmp_path / "out"
    for number, record in enumerate(run(faces(5), out, each_in_turn)):
        assert record.stem == NAMES[number]
        assert json.loads((out / record.stem / "result.json").read_text())["status"] == "ok"
        assert record.stem in {row["stem"] for row in read_rows(out)}


def test_inputs_are_read_shortly_before_they_are_searched(faces, tmp_path, reads):
    """Two are read beyond the one that is searched; one that vanishes before that fails alone."""
    paths = faces(5)

    def search(requests, prior, config, progress=None, samples=None):
        for request in requests:
            if request.place == 0:
                wait_until(lambda: len(reads) == 1 + AHEAD)
                time.sleep(0.02)
                assert reads == ["a", "b", "c"]
                paths[1].unlink()
                paths[3].unlink()
            yield found(request, config)

    records = run(paths, tmp_path / "out", search)
    assert [r.status for r in records] == ["done", "done", "done", "failed", "done"]


def test_memory_does_not_grow_with_the_inputs(faces, tmp_path, reads, before_writing):
    """A writer that is too slow: the search waits for it, and the reader for the search."""
    written, behind, ahead = [], [], []

    def slow(stem):
        time.sleep(0.02)
        written.append(stem)

    before_writing(slow)

    def search(requests, prior, config, progress=None, samples=None):
        for searched, request in enumerate(requests, start=1):
            ahead.append(len(reads) - searched)
            # All that were searched before this one, but for those that are written.
            behind.append(searched - 1 - len(written))
            yield found(request, config)

    records = list(run(faces(12), tmp_path / "out", search))
    assert [r.status for r in records] == ["done"] * 12
    assert 1 < max(behind) <= MOST
    assert 0 < max(ahead) <= AHEAD


def test_what_was_found_is_written_and_told_after_an_interruption(
    faces, tmp_path, reads, before_writing
):
    """Ctrl-C while two results wait for the thread that writes."""
    gate, out, told = threading.Event(), tmp_path / "out", []
    before_writing(lambda stem: gate.wait(10))

    def search(requests, prior, config, progress=None, samples=None):
        for request in requests:
            if request.place == 2:
                assert not list(out.glob("*/result.json"))
                threading.Timer(0.05, gate.set).start()
                raise KeyboardInterrupt
            yield found(request, config)

    def listen():
        for record in run(faces(8), out, search):
            told.append(record.stem)

    with pytest.raises(KeyboardInterrupt):
        listen()
    assert told == ["a", "b"]
    assert [row["stem"] for row in read_rows(out)] == ["a", "b"]
    assert all((out / stem / "result.json").is_file() for stem in "ab")
    assert "#i2" not in (out / "index.html").read_text()
    assert len(reads) <= 3 + AHEAD
    assert not own_threads()
    again = list(run(faces(8), out, each_in_turn))
    assert [r.status for r in again] == ["skipped"] * 2 + ["done"] * 6


def test_a_full_disk_in_the_writer_ends_the_run(faces, tmp_path, reads, before_writing):
    def fill(stem):
        if stem == "b":
            raise OSError(errno.ENOSPC, "No space left on device")

    before_writing(fill)
    out, told = tmp_path / "out", []
    with pytest.raises(SetupError, match=r"the disk is full: could not write .*b$") as caught:
        told.extend(r.stem for r in run(faces(12), out, each_in_turn))
    assert caught.value.exit_code == 3
    assert "b" not in {row["stem"] for row in read_rows(out)}
    assert (out / "a" / "result.json").is_file()
    assert (out / "index.html").is_file()
    assert len(reads) < 12  # the others are not searched for nothing
    assert not own_threads()


def test_an_error_of_writing_stays_with_its_input(faces, tmp_path, before_writing):
    def fail(stem):
        if stem == "b":
            raise RuntimeError("no ink")

    before_writing(fail)
    records = list(run(faces(3), tmp_path / "out", each_in_turn))
    assert [r.status for r in records] == ["done", "failed", "done"]
    assert records[1].error == "unexpected RuntimeError: no ink"


def test_what_ends_the_reading_comes_after_the_inputs_before(faces, tmp_path, monkeypatch):
    real, out, told = Reader.read, tmp_path / "out", []

    def read(reader, place, task):
        if task.stem == "c":
            raise SetupError("the disk is gone")
        return real(reader, place, task)

    monkeypatch.setattr(Reader, "read", read)

    def listen():
        for record in run(faces(5), out, each_in_turn):
            told.append(record.stem)

    with pytest.raises(SetupError, match="the disk is gone"):
        listen()
    assert told == ["a", "b"]
    assert not own_threads()


def test_a_run_that_nobody_listens_to_leaves_no_thread(faces, tmp_path):
    out = tmp_path / "out"
    records = run(faces(8), out, each_in_turn)
    assert next(records).stem == "a"
    assert own_threads()
    records.close()
    assert not own_threads()
    assert (out / "index.html").is_file()
    # What was found by then is complete, and known to the manifest.
    complete = {path.parent.name for path in out.glob("*/result.json")}
    assert {row["stem"] for row in read_rows(out)} == complete >= {"a"}


def test_several_threads_write_the_same_files_as_one(faces, tmp_path, monkeypatch):
    paths = faces(8)
    list(run(paths, tmp_path / "one", each_in_turn))
    monkeypatch.setattr(local, "_WRITERS", 4)
    list(run(paths, tmp_path / "four", each_in_turn))
    pictures = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png")]
    assert len(pictures) == 8 * 7
    for name in pictures:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes()
    assert [row["stem"] for row in read_rows(tmp_path / "four")] == list(NAMES[:8])


def test_rows_of_several_threads_are_all_kept_without_locks_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    stems = [f"x{number:02d}" for number in range(12)]
    threads = [
        threading.Thread(target=put_rows, args=(tmp_path, [{"stem": each}])) for each in stems
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [row["stem"] for row in read_rows(tmp_path)] == stems
