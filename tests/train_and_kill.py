"""Trains a tiny prior with SIGKILLs at random moments, then once without; run by test_training_run.

Usage: train_and_kill.py FOLDER KILLS. The parent imports torch once and does no arithmetic; each
training is a forked child. Writes how many images each killed child had logged when it died.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import tiny_training
import torch

IMAGES = 900
OPTIONS = {"augment": "ada", "path_weight": 2.0}


def train(run_dir):
    """Train to the end in a child process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    tiny_training.train(run_dir, IMAGES, every=24, **OPTIONS)
    os._exit(0)


def steps_logged(run_dir):
    log = run_dir / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def train_and_kill(run_dir, rng):
    """Start a training and kill it some steps and some milliseconds later."""
    goal = steps_logged(run_dir) + rng.randint(3, 14)
    pid = train(run_dir)
    while steps_logged(run_dir) < goal:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the training ended before it was killed"
    sys.stdout.write(f"{steps_logged(run_dir) * 4}\n")
    sys.stdout.flush()


def main(folder, kills):
    torch.set_num_threads(1)
    tiny_training.few_statistics(pytest.MonkeyPatch())
    killed, whole = folder / "killed", folder / "whole"
    killed.mkdir()
    whole.mkdir()
    rng = random.Random(1)
    for _ in range(kills):
        train_and_kill(killed, rng)
    for run_dir in (killed, whole):
        _, status = os.waitpid(train(run_dir), 0)
        assert status == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
