"""Trains a tiny prior with SIGKILLs at random moments, then once without; run by test_training.

Usage: train_and_kill.py FOLDER. The parent imports torch once and does no arithmetic; each training
is a forked child. Writes how many images each killed child had logged when it died.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training import loop

IMAGES = 240


def train(run_dir):
    """Train to the end in a child process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    config = loop.TrainConfig(StyleGAN2Config(8, 16, 16, 2, (8, 8)), batch=4, r1_interval=4)
    trainer = loop.Trainer(images, run_dir, config, torch.device("cpu"))
    for _ in trainer.train(IMAGES, 1e9, 24):
        pass
    os._exit(0)


def steps_logged(run_dir):
    log = run_dir / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def train_and_kill(run_dir, rng):
    """Start a training and kill it some steps and some milliseconds later."""
    goal = steps_logged(run_dir) + rng.randint(3, 12)
    pid = train(run_dir)
    while steps_logged(run_dir) < goal:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the training ended before it was killed"
    sys.stdout.write(f"{steps_logged(run_dir) * 4}\n")
    sys.stdout.flush()


def main(folder):
    torch.set_num_threads(1)
    loop.fit_statistics = functools.partial(fit_statistics, count=1000)
    killed, whole = folder / "killed", folder / "whole"
    killed.mkdir()
    whole.mkdir()
    rng = random.Random(1)
    for _ in range(3):
        train_and_kill(killed, rng)
    for run_dir in (killed, whole):
        _, status = os.waitpid(train(run_dir), 0)
        assert status == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
