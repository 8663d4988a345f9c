"""A job without any search: what every worker and every executor can rely on."""

from __future__ import annotations

import itertools
import pickle

import fake_search
import pytest

from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.errors import InputError, SetupError
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Job
from pulse_sr.jobs.manifest import Index, read_rows
from pulse_sr.jobs.plan import plan_run


class Doubling:
    """Tasks are names of files with a number; writes twice of it beside each, two at a time."""

    def __init__(self, folder, stop=None):
        self.folder, self.index, self.stop = folder, Index(folder, read_rows(folder)), stop

    def known(self, task):
        return (task, "known") if (self.folder / f"{task}.out").exists() else None

    def read(self, place, task):
        return place, task, int((self.folder / task).read_text())

    def place(self, request):
        return request[0]

    def failed(self, task, error, seconds):
        self.index.put({"stem": task, "status": "failed"})
        return task, type(error).__name__

    def work(self, requests):
        requests = iter(requests)
        while pair := list(itertools.islice(requests, 2)):
            for request in reversed(pair):
                if request[1] == "d" and self.stop is not None:
                    raise self.stop
                yield request, 2 * request[2]

    def write(self, request, answer):
        (self.folder / f"{request[1]}.out").write_text(str(answer))
        self.index.put({"stem": request[1], "status": "ok"})
        return request[1], answer


def carry_out(worker, tasks, executor=run_local):
    reports = []
    told = []

    def report(out):
        reports.append([row["stem"] for row in read_rows(out)])

    try:
        for record in Job(tasks, worker, worker.index, report).carry_out(executor):
            told.append(record)
    finally:
        assert len(reports) == 1
    return told, reports[0]


@pytest.fixture
def numbers(tmp_path):
    for number, name in enumerate("abcdef"):
        (tmp_path / name).write_text(str(number))
    (tmp_path / "c").write_text("no number")
    return tmp_path


def test_any_work_is_planned_resumed_and_recorded(numbers):
    told, listed = carry_out(Doubling(numbers), "abcdef")
    done = [("a", 0), ("b", 2), ("c", "ValueError"), ("d", 6), ("e", 8), ("f", 10)]
    assert (told, listed) == (done, list("abcdef"))
    (numbers / "e.out").unlink()
    told, listed = carry_out(Doubling(numbers), "abcdef")
    known = [(name, "known") for name in "abdf"]
    assert sorted(told, key=str) == sorted([*known, ("c", "ValueError"), ("e", 8)], key=str)
    assert listed == list("abcdef")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SetupError("no device"), RuntimeError("x")])
def test_what_ends_a_job_leaves_a_whole_manifest_and_a_report(numbers, stop):
    """Also of e, which was found before d was asked for."""
    worker = Doubling(numbers, stop)
    with pytest.raises(type(stop)):
        carry_out(worker, "abdef")
    assert [row["stem"] for row in read_rows(numbers)] == ["a", "b", "e"]
    assert sorted(path.name for path in numbers.glob("*.out")) == ["a.out", "b.out", "e.out"]


def test_another_executor_writes_the_same(numbers):
    def one_by_one(tasks, worker):
        for place, task in enumerate(tasks):
            try:
                request = worker.read(place, task)
            except ValueError as error:
                yield worker.failed(task, error, 0.0)
                continue
            [(_, answer)] = worker.work([request])
            yield worker.write(request, answer)

    here = carry_out(Doubling(numbers), "abcdef", one_by_one)
    files = {path.name: path.read_bytes() for path in numbers.glob("*.out")}
    for path in numbers.glob("*.out"):
        path.unlink()
    assert carry_out(Doubling(numbers), "abcdef") == here
    assert {path.name: path.read_bytes() for path in numbers.glob("*.out")} == files


def test_tasks_can_be_sent_to_another_process(face, tmp_path):
    inputs = [face(f"{name}.png", i) for i, name in enumerate("ab")]
    plan = plan_run(
        inputs, tmp_path / "out", SearchConfig(samples=2), RunOptions(), fake_search.PRIOR
    )
    assert pickle.loads(pickle.dumps(plan.tasks)) == plan.tasks
    refusal = pickle.loads(pickle.dumps(InputError("no face", "--align never")))
    assert (refusal.message, refusal.hint) == ("no face", "--align never")
