"""The loop with a task that is no GAN: a linear regression resumes, stops and is shared alike.

Tolerance: two processes against one, 1e-5 (sums of 8 float32 in another order).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import linear_task
import pytest
import torch
from linear_task import LinearConfig, LinearTask, train, trainer_in
from safetensors.torch import load_file

from pulse_sr.errors import UsageError
from pulse_sr.training.loop import Schedule
from pulse_sr.training.memory import fit_memory, saved_bytes
from pulse_sr.training.processes import Processes

SCRIPT = Path(linear_task.__file__)


def state_of(folder):
    return load_file(folder / "state.safetensors")


def log_of(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"], record["images_per_second"]
    return records


def assert_same_run(a, b):
    first, second = state_of(a), state_of(b)
    assert first.keys() == second.keys()
    assert [k for k in first if not torch.equal(first[k], second[k])] == []
    assert log_of(a) == log_of(b)


def started(words, folder, items, seconds=math.inf):
    """The script in a process of its own, or in those of torchrun."""
    return subprocess.Popen(
        [sys.executable, *words, str(SCRIPT), str(folder), str(items), str(seconds)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_the_line_is_found_and_written(tmp_path):
    """Least squares without noise have one solution, known beforehand."""
    trainer, records = train(tmp_path, 3200)
    found = json.loads((tmp_path / "line.json").read_text())
    assert found["line"] == pytest.approx([2.0, -3.0, 0.5], abs=0.01)
    assert found["images"] == trainer.images_shown == 3200
    assert [r.images for r in records if r.checkpointed] == list(range(800, 3201, 800))
    assert {key.split("/")[0] for key in state_of(tmp_path)} == {
        "line", "line_ema", "line_ema_0.2", "sgd",
    }  # fmt: skip


def test_a_run_killed_is_the_uninterrupted_run(tmp_path):
    """SIGKILL somewhere between two checkpoints; the log, and what the task keeps, go on too."""
    killed, whole, items = tmp_path / "killed", tmp_path / "whole", 8_000
    with started([], killed, items) as process:
        log = killed / "log.jsonl"
        while not log.exists() or len(log.read_bytes().splitlines()) < 75:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert 0 < trainer_in(killed).images_shown < items
    with started([], killed, items) as again, started([], whole, items) as other:
        finish(again)
        finish(other)
    assert_same_run(killed, whole)


def test_pieces_are_the_whole(tmp_path):
    for items in (176, 480):
        train(tmp_path / "pieces", items)
    train(tmp_path / "whole", 480)
    assert_same_run(tmp_path / "pieces", tmp_path / "whole")


def test_a_time_limit_ends_a_run_with_a_checkpoint(tmp_path):
    trainer, records = train(tmp_path, seconds=0.1)
    assert records[-1].checkpointed
    assert trainer.seconds_of_call >= 0.1  # pauses between steps included
    assert all(record.seconds < 0.1 for record in records[:-1])
    assert trainer_in(tmp_path).images_shown == records[-1].images > 0


class Second(Processes):
    """The second of two processes, whose partner always agrees with it."""

    def wait(self):
        pass

    def average_(self, tensors):
        pass

    def agree(self, value, device):
        return value


def test_a_process_is_given_its_own_items_alone(tmp_path):
    trainer = trainer_in(tmp_path, processes=Second(rank=1, count=2))
    seen = []
    trainer.task.step = lambda batch, shown: seen.append(batch) or {"loss": batch.mean()}
    list(trainer.train(Schedule(until_seconds=0)))
    assert len(seen) == 1
    assert torch.equal(seen[0], trainer.stream.batch(0, 16)[8:])
    assert not trainer.log_file.exists()


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, 800)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with started(torchrun, two, 800) as process:
        finish(process)
    a, b = state_of(one), state_of(two)
    assert a.keys() == b.keys()
    assert max((a[k].double() - b[k].double()).abs().max().item() for k in a) < 1e-5
    assert [r["images"] for r in log_of(two)] == list(range(16, 801, 16))
    for first, second in zip(log_of(one), log_of(two), strict=True):
        assert first == pytest.approx(second, abs=1e-5)


def test_other_settings_or_data_are_another_run(tmp_path):
    train(tmp_path, 160)
    with pytest.raises(UsageError, match=r"rate was 0\.02, is 0\.03"):
        trainer_in(tmp_path, rate=0.03)
    with pytest.raises(UsageError, match="the images are others"):
        trainer_in(tmp_path, data_sha256="other points")


def test_a_run_goes_on_with_the_state_of_another(tmp_path):
    """An average that the other run has not begins with its first one."""
    before, _ = train(tmp_path / "before", 160)
    after = trainer_in(tmp_path / "after", continued=before.state_file, ema_bank=(0.2, 1.0))
    assert after.images_shown == 160
    assert after.task.worst == before.task.worst > 0
    assert torch.equal(after.averages.bank[1.0].weight, before.averages.first.weight)
    assert torch.equal(after.averages.bank[0.2].weight, before.averages.bank[0.2].weight)
    assert not torch.equal(after.averages.bank[0.2].weight, after.averages.first.weight)


def test_memory_is_planned_from_the_probes():
    """The square saves its input, 4 bytes an item, the product its input, 8; 3 weights, 4 copies
    and 2 averages, 4 bytes each."""
    task = LinearTask(LinearConfig(batch=1000))
    assert saved_bytes(task, task.probes(1000)[0]) == 12_000
    fixed = 4 * (4 * 3 + 2 * 3)
    assert fit_memory(task, fixed + int(1.8 * 12_000)).micro_steps == 1
    assert fit_memory(task, fixed + int(1.8 * 12_000) - 1).micro_steps == task.parts == 2
