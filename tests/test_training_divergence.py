"""A training whose numbers overflow ends with code 1 and keeps its last good state."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import linear_task
import pytest
import torch
from linear_task import train, trainer_in
from safetensors.torch import load_file

from pulse_sr.training.divergence import DivergedError, DivergenceWatch
from pulse_sr.training.log import append_record, read_log, rewind
from pulse_sr.training.loop import Schedule

SCRIPT = Path(linear_task.__file__)
EVERY = Schedule(800, checkpoint_seconds=0)


def strict(text):
    """Parses JSON as its specification has it, without NaN and Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def records(folder):
    return [strict(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def spoil(trainer, steps, spoil_weights=False):
    """Lets the loss be nan in some steps, counted from this call, and the weights if asked."""
    real, taken = trainer.task.step, []

    def step(batch, images_shown):
        taken.append(images_shown)
        report = real(batch, images_shown)
        if len(taken) - 1 not in steps:
            return report
        if spoil_weights:
            trainer.task.line.weight.data.fill_(math.nan)
        return {"loss": torch.tensor(math.nan)}

    trainer.task.step = step
    return trainer


def state_of(folder):
    return {name: (folder / name).read_bytes() for name in ("state.safetensors", "line.json")}


def test_ten_broken_steps_of_twenty_end_the_run(tmp_path):
    """Every second step: after 19 of them there are 10; one good step in between is not enough."""
    trainer = spoil(trainer_in(tmp_path), set(range(0, 100, 2)))
    with pytest.raises(DivergedError, match="loss not finite in 10 of the last 19 steps") as caught:
        list(trainer.train(Schedule(1600)))
    assert caught.value.exit_code == 1
    assert caught.value.hint == "take a smaller rate"
    assert "keeps no state" in caught.value.message
    assert not trainer.state_file.exists()
    found = records(tmp_path)
    assert [record["loss"] is None for record in found] == [True, False] * 9 + [True]


def test_fewer_broken_steps_do_not(tmp_path):
    """Nine of any twenty: the run goes on, and its last state is written."""
    steps = {i for i in range(90) if i % 20 < 9}
    found = list(spoil(trainer_in(tmp_path), steps).train(Schedule(1600)))
    assert found[-1].checkpointed
    assert [i for i, record in enumerate(records(tmp_path)) if record["loss"] is None] == sorted(
        steps
    )


def test_a_checkpoint_that_is_due_waits_for_finite_losses(tmp_path):
    trainer = spoil(trainer_in(tmp_path), {4, 5, 6})
    schedule = Schedule(160, snapshot_images=80)
    found = list(trainer.train(schedule))  # the fifth step crosses 80
    assert [r.images for r in found if r.snapshot] == [128, 160]
    assert all(math.isfinite(record.losses["worst"]) for record in found if record.checkpointed)


@pytest.mark.parametrize("spoil_weights", [False, True])
def test_the_last_good_state_and_its_model_stay(tmp_path, spoil_weights):
    """The run is checkpointed after every step, and broken from the sixth on."""
    train(tmp_path / "good", 80)
    good = trainer_in(tmp_path / "good")
    trainer = spoil(trainer_in(tmp_path / "run"), set(range(5, 100)), spoil_weights)
    with pytest.raises(DivergedError, match=r"keeps the state at 0\.08 kimg"):
        list(trainer.train(EVERY))
    kept = load_file(tmp_path / "run" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert torch.equal(kept["line/weight"], good.task.line.weight)
    model = json.loads((tmp_path / "run" / "line.json").read_text())
    assert model["images"] == 80
    again = trainer_in(tmp_path / "run")
    assert again.images_shown == 80
    list(again.train(Schedule(160)))
    assert [record["images"] for record in records(tmp_path / "run")] == list(range(16, 161, 16))


def test_weights_that_overflow_behind_finite_losses_are_not_written(tmp_path):
    trainer = trainer_in(tmp_path)
    list(trainer.train(Schedule(80)))
    before = state_of(tmp_path)
    trainer.task.line.weight.data[0, 0] = math.inf
    trainer.task.step = lambda batch, shown: {"loss": torch.tensor(1.0)}
    with pytest.raises(DivergedError, match=r"at 0\.096 kimg: line, line_ema, line_ema_0\.2 not"):
        list(trainer.train(Schedule(96)))
    assert state_of(tmp_path) == before


def test_moments_and_other_numbers_are_looked_at_too(tmp_path):
    trainer = trainer_in(tmp_path)
    list(trainer.train(Schedule(80)))
    trainer.task.sgd.state[trainer.task.line.bias]["momentum_buffer"].fill_(math.inf)
    trainer.task.step = lambda batch, shown: {"loss": torch.tensor(1.0)}
    with pytest.raises(DivergedError, match="sgd not finite"):
        list(trainer.train(Schedule(96)))
    trainer = trainer_in(tmp_path)
    trainer.task.state = lambda: {"worst": math.nan}
    with pytest.raises(DivergedError, match="other numbers of the state not finite"):
        list(trainer.train(Schedule(96)))


def test_a_run_that_ends_with_a_broken_step_ends_as_diverged(tmp_path):
    trainer = spoil(trainer_in(tmp_path), {9})
    with pytest.raises(DivergedError, match="loss not finite in 1 of the last 10 steps"):
        list(trainer.train(Schedule(160)))


def test_two_processes_end_together(tmp_path):
    """A rate that no line stands; neither waits for the other."""
    code = (
        "import sys, linear_task as t\n"
        "from pathlib import Path\n"
        "from pulse_sr.errors import PulseError\n"
        "joined = t.join_processes('cpu')\n"
        "try:\n"
        "    t.train(Path(sys.argv[1]), 16000, processes=joined, rate=1e9)\n"
        "except PulseError as error:\n"
        # In one piece: both write to the same pipe, and torchrun's Python does not buffer.
        "    sys.stdout.write(f'{joined.rank} {error.exit_code} {error.message}\\n')\n"
        "t.leave_processes()\n"
        # A thread that outlives Python aborts the process, once in some dozens of times.
        "left = [file.read_text() for file in Path('/proc/self/task').glob('*/comm')]\n"
        "assert not any('gloo' in name for name in left), left\n"
    )
    script = tmp_path / "diverging.py"
    script.write_text(code)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        env=linear_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = sorted(done.stdout.splitlines())
    assert [line[:3] for line in said] == ["0 1", "1 1"], done.stdout
    assert said[0][2:] == said[1][2:]
    assert not (tmp_path / "run" / "state.safetensors").exists()
    assert records(tmp_path / "run")[-1]["loss"] is None


def linear_environment():
    path = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def test_the_watch_counts_the_last_twenty_steps():
    watch = DivergenceWatch()
    watch.observe([True] * 9, {"a": math.nan, "b": 1.0})
    assert watch.verdict(False) == ""
    assert watch.verdict(True) == "a not finite in 9 of the last 9 steps"
    watch.observe([False] * 11, {"a": 1.0})
    assert watch.verdict(True) == ""
    watch.observe([False, True], {"b": math.inf})  # of the first nine, seven are left
    assert watch.verdict(False) == ""


# the log


def test_the_log_is_strict_json_and_damaged_lines_are_passed_over(tmp_path):
    file = tmp_path / "log.jsonl"
    append_record(file, {"images": 16, "loss": math.nan, "more": [math.inf, 1.5]})
    assert strict(file.read_text()) == {"images": 16, "loss": None, "more": [None, 1.5]}
    with open(file, "ab") as log:
        log.write(b'{"images": 24, "lo\n\xff\xfe\n[1]\n{"loss": 1}\n{"images": "x"}\n')
        log.write(b'{"images": NaN}\n{"images": 32, "loss": NaN}\n{"images": 48}\n{"images": 49}')
    assert [record["images"] for record in read_log(file)] == [16, 32, 48, 49]
    assert [record["images"] for record in read_log(file, 32)] == [16, 32]
    rewind(file, 48)
    assert [record["images"] for record in read_log(file)] == [16, 32, 48]
    assert [strict(line).get("loss") for line in file.read_text().splitlines()] == [None] * 3
