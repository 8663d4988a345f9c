"""Enlarges pictures with SIGKILLs at random moments, then once without; run by test_upscale.

Usage: upscale_and_kill.py FOLDER KILLS. The parent imports torch once and does no arithmetic; each
call of the command is a forked child. Writes for each kill how many pictures were complete and how
many files half written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pulse_sr.cli import main as pulse_sr

#: Pictures for each kill; a child ends one or two of them.
PICTURES = 3


def write_pictures(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        size = rng.integers(40, 90, 2)
        pixels = rng.integers(0, 256, (*size, 3 + number % 2), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def upscale(folder, out):
    """Enlarge all pictures in a child process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    words = [str(folder), "-o", str(out), "--device", "cpu", "--tile", "32", "-q"]
    pulse_sr(["upscale", *words], standalone_mode=False)
    os._exit(0)


def finish(folder, out):
    """Enlarge what is left, undisturbed; returns the seconds."""
    started = time.perf_counter()
    _, status = os.waitpid(upscale(folder, out), 0)
    assert status == 0
    return time.perf_counter() - started


def complete(out):
    """When the pictures that have a record were written."""
    records = (each for each in out.glob("*.json") if each.name != "manifest.json")
    return {each.stem: each.with_suffix(".png").stat().st_mtime_ns for each in records}


def upscale_and_kill(folder, out, seconds, rng):
    """Kill a call in the midst of a picture, or before the first one; returns what is complete."""
    goal = len(complete(out)) + rng.choice((0, 1, 1, 2))
    pid = upscale(folder, out)
    while len(complete(out)) < goal:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the pictures were complete before it was killed"
    return complete(out)


def content(out):
    """The bytes of the pictures, the records without seconds, and all names."""
    found = {}
    for path in out.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            found[path.name] = without_seconds(json.loads(found[path.name]))
    return found


def without_seconds(value):
    if isinstance(value, list):
        return [without_seconds(each) for each in value]
    if isinstance(value, dict):
        times = ("seconds", "timing")
        return {key: without_seconds(each) for key, each in value.items() if key not in times}
    return value


def main(folder, kills):
    torch.set_num_threads(1)
    pictures, killed, whole = (folder / name for name in ("pictures", "killed", "whole"))
    write_pictures(pictures, PICTURES * kills)
    seconds = finish(pictures, whole) / (PICTURES * kills)
    rng, kept = random.Random(1), {}
    for _ in range(kills):
        found = upscale_and_kill(pictures, killed, seconds, rng)
        assert kept.items() <= found.items(), "a complete picture was lost or made again"
        kept = found
        sys.stdout.write(f"{len(kept)} {len(list(killed.glob('.*.tmp')))}\n")
        sys.stdout.flush()
    finish(pictures, killed)
    assert kept.items() <= complete(killed).items(), "a complete picture was lost or made again"
    assert content(killed) == content(whole)
    assert not list(killed.glob(".*")), "temporary files were left"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
