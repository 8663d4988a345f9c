"""Two processes under torchrun against one process with the whole batch.

Tolerance: losses 1e-4 absolute, weights 1e-4.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file

from pulse_sr.errors import UsageError
from pulse_sr.training import processes
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.gan.plan import plan_training
from pulse_sr.training.processes import Processes, agree_on_name

TINY = ["--channel-base", "64", "--channel-max", "8", "--w-dim", "16", "--batch", "16"]
TINY += ["--device", "cpu", "--score-samples", "0", "--path-length", "2", "--augment", "ada"]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def command(folder, out, processes, *extra):
    words = [sys.executable, "-m"]
    if processes > 1:
        words += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        words += ["--max-restarts", "2", "-m"]
    return [*words, "pulse_sr", "train-prior", str(folder), "-o", str(out), *TINY, *extra]


def run(folder, out, processes, *extra):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(folder, out, processes, *extra)
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


def records(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(out):
    tensors = load_file(out / "state.safetensors")
    return {name: each for name, each in tensors.items() if name.startswith(("G/", "D/"))}


def test_two_processes_give_the_losses_of_one_with_the_whole_batch(folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    run(folder, one, 1, "--kimg", "0.16")
    done = run(folder, two, 2, "--kimg", "0.16", "--json")
    assert "2 processes" in done.stderr
    assert done.stderr.count("prior in") == 1
    assert json.loads(done.stdout)["images"] == 160
    first, second = records(one), records(two)
    assert [r["images"] for r in first] == [r["images"] for r in second] == list(range(16, 161, 16))
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds", "images_per_second"}:
            assert a[name] == pytest.approx(b[name], abs=1e-4), name
    a, b = weights(one), weights(two)
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-4


def test_a_killed_process_is_restarted_from_the_newest_checkpoint(folder, tmp_path):
    """torchrun starts all of them again; what they reach is what nobody interrupted."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(folder, whole, 2, "--kimg", "1.6", "--snapshot", "0.16")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(folder, killed, 2, "--kimg", "1.6", "--snapshot", "0.16")
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as launcher:
        while not (killed / "state.safetensors").exists():
            assert launcher.poll() is None, launcher.stderr.read()
            time.sleep(0.01)
        os.kill(a_worker(launcher.pid), signal.SIGKILL)
        _, errors = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, errors
    assert [r["images"] for r in records(killed)] == [r["images"] for r in records(whole)]
    a, b = weights(whole), weights(killed)
    assert all(torch.equal(a[name], b[name]) for name in a)


def a_worker(launcher):
    """A child of the launcher that trains."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(launcher)], capture_output=True, text=True
    ).stdout
    workers = [line.split()[0] for line in listing.splitlines() if "train-prior" in line]
    return int(workers[-1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_name_is_never_that_of_an_earlier_start(order):
    """The store keeps what the processes of the start before have said; one came to nothing."""
    store = dist.HashStore()
    store.set("hello/1", "dead")
    names = set()
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            agreed = []
            for rank in order:
                agreed.append(pool.submit(agree_on_name, store, rank, 3))
                time.sleep(0.1)
            (name,) = {each.result(timeout=60) for each in agreed}
        names.add(name)
    assert len(names) == 3


def test_processes_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", datetime.timedelta(seconds=0.1))
    with pytest.raises(RuntimeError, match=r"nothing is heard of processes \[1\]"):
        agree_on_name(dist.HashStore(), 0, 2)
    store = dist.HashStore()
    store.set("answer/1", "another name")
    with pytest.raises(RuntimeError, match="the first process does not answer"):
        agree_on_name(store, 1, 2)


def test_a_batch_that_can_not_be_shared_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="--batch is 12, expected a multiple of 8 for 2 processes"):
        plan_training(folder, tmp_path, GanOptions(batch=12), Processes(rank=0, count=2))
