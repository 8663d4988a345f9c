"""Measures `--engine ray` on this machine: bytes, killed workers and drivers, speed; and memory.

    python scripts/bench/cluster.py all
    python scripts/bench/cluster.py kills     # or: join driver throughput memory

Prints Markdown. The inputs are 40 random pictures of 16 px, searched with the bundled prior; for
the memory of a long local run, 2,000 of 8 px with a random prior of 32 px.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from PIL import Image

from pulse_sr.priors.files import save_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior

_ENV = os.environ | {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The first `ray start` makes a token in ~/.ray, which the others and the call have to show.
    "RAY_AUTH_MODE": "token",
    # Else other work on the machine goes first.
    "RAY_worker_niceness": "0",
}
_FEW_STEPS = ("--samples", "1", "--steps", "2")
_PARTS: tuple[str, ...] = ("join", "kills", "driver", "throughput", "memory")
#: Seconds that a `ray start` gets to come up.
_NODE_S = 20.0
_TWO_WORKERS = ("--engine", "ray", "--workers", "2")


def make_inputs(folder: Path, count: int, side: int) -> None:
    """Smooth random pictures."""
    folder.mkdir()
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(90, 170, (4, 4, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"face{seed:04d}.png")


def start(inputs: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    """Starts `pulse-sr run`, its lines to OUT.log."""
    command = [sys.executable, "-m", "pulse_sr", "run", str(inputs), "-o", str(out), *words]
    with open(f"{out}.log", "a") as log:
        return subprocess.Popen(command, env=_ENV, stderr=log, stdout=log, text=True)


def run(inputs: Path, out: Path, *words: str) -> float:
    """Runs `pulse-sr run` to its end; returns the seconds it took."""
    started = time.monotonic()
    code = start(inputs, out, *words).wait()
    if code:
        raise SystemExit(f"{out}: exit code {code}\n{Path(f'{out}.log').read_text()}")
    return time.monotonic() - started


def records(out: Path) -> list[Path]:
    """The records of a run folder, the oldest first."""
    return sorted(out.glob("*/result.json"), key=lambda file: file.stat().st_mtime)


def differences(out: Path, reference: Path) -> list[str]:
    """What two run folders differ in, beside times and the folder's own list and page."""
    found = []
    files = [{file.relative_to(root) for file in root.glob("*/*")} for root in (out, reference)]
    found += [str(name) for name in files[0] ^ files[1]]
    for name in files[0] & files[1]:
        contents = [(root / name).read_bytes() for root in (out, reference)]
        if name.suffix == ".json":
            documents = [json.loads(each) for each in contents]
            contents = [json.dumps(each | {"timing": 0}, sort_keys=True) for each in documents]
        if contents[0] != contents[1]:
            found.append(str(name))
    rows = [row["stem"] for row in json.loads((out / "manifest.json").read_text())]
    return found + ([] if rows == sorted(p.parent.name for p in records(reference)) else ["rows"])


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their command lines."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
        parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])

    def below(each: int) -> bool:
        while each in parents:
            each = parents[each]
            if each == pid:
                return True
        return False

    return {each: line for each, line in lines.items() if below(each)}


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until something is so; the process must not end before."""
    while not done():
        if process.poll() is not None:
            raise SystemExit("the run ended before it was to be killed")
        time.sleep(0.02)


def kills(work: Path, inputs: Path, local: Path, address: str, runs: int) -> None:
    """A worker is killed at a random moment of each run."""
    rng = random.Random(0)
    print("\n| run | killed after | seconds | outputs | differ from local |\n|---|---|---|---|---|")
    for number in range(runs):
        out, started = work / f"kill-{number}", time.monotonic()
        process = start(inputs, out, *_FEW_STEPS, *_TWO_WORKERS, "--address", address)
        done = kill_a_worker(process, out, rng)
        code = process.wait()
        seconds = time.monotonic() - started
        wrong = differences(out, local) if code == 0 else [f"exit code {code}"]
        row = (number, f"{done} of 40", f"{seconds:.0f}", len(records(out)), wrong or "none")
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        wait_until_gone()


def kill_a_worker(process: subprocess.Popen[str], out: Path, rng: random.Random) -> int:
    """Kills one of two workers at a random moment; returns how many inputs were done."""
    goal = rng.randint(0, 36)
    wait_for(lambda: len(records(out)) >= goal and len(workers()) == 2, process)
    time.sleep(rng.uniform(0, 0.5))
    done = len(records(out))
    os.kill(rng.choice(workers()), signal.SIGKILL)
    return done


def workers() -> list[int]:
    """The workers of the clusters that were started here."""
    return [pid for pid, line in descendants(os.getpid()).items() if "ray::Host" in line]


def wait_until_gone() -> None:
    """Waits for the workers of a run to end."""
    while workers():
        time.sleep(0.1)


def driver(work: Path, inputs: Path, local: Path, address: str) -> None:
    """The process of the call is killed, and started again."""
    out, words = work / "driver", (*_FEW_STEPS, *_TWO_WORKERS, "--address", address)
    process = start(inputs, out, *words)
    wait_for(lambda: len(records(out)) >= 12, process)
    process.kill()
    process.wait()
    wait_until_gone()
    before = {file: file.stat().st_mtime_ns for file in records(out)}
    run(inputs, out, *words)
    kept = sum(file.stat().st_mtime_ns == when for file, when in before.items())
    print(
        f"\nDriver killed after {len(before)} of 40: {kept} of them were left as they were, "
        f"{len(records(out))} in the end, differ from local: {differences(out, local) or 'none'}",
        flush=True,
    )


@contextlib.contextmanager
def cluster(work: Path, cpus: Sequence[int]) -> Iterator[str]:
    """A Ray cluster of so many `ray start` processes, each with some CPUs; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
    with contextlib.ExitStack() as stack, open(work / "ray.log", "a") as log:
        for number, each in enumerate(cpus):
            role = [f"--address={address}"] if number else ["--head", f"--port={port}"]
            more = [] if number else ["--include-dashboard=false"]
            words = [*ray, *role, *more, f"--num-cpus={each}"]
            node = subprocess.Popen(words, env=_ENV, stdout=log, stderr=log)
            stack.callback(node.wait)
            stack.callback(node.terminate)
            time.sleep(_NODE_S)
        yield address


def join(work: Path, inputs: Path, local: Path, address: str) -> None:
    """A call for a cluster that is running."""
    out = work / "join"
    seconds = run(inputs, out, *_FEW_STEPS, *_TWO_WORKERS, "--address", address)
    print(
        f"\nTwo `ray start` processes of one CPU each, --workers 2 --address {address}: "
        f"{seconds:.0f} s, {len(records(out))} outputs, differ from local: "
        f"{differences(out, local) or 'none'}",
        flush=True,
    )
    wait_until_gone()


def throughput(work: Path, inputs: Path, turns: int, steps: int) -> None:
    """One worker and two of one thread each, in turns; from the first record to the last."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    search = ("--samples", "1", "--steps", str(steps), "--engine", "ray")
    for turn in range(turns):
        for workers in (1, 2):
            out = work / f"speed-{workers}-{turn}"
            with cluster(work, (workers,)) as address:
                run(inputs, out, *search, "--workers", str(workers), "--address", address)
            times = [file.stat().st_mtime for file in records(out)]
            rates[workers].append((len(times) - 1) / (times[-1] - times[0]))
            print(f"\n{workers} workers: {rates[workers][-1]:.3f} images/s", flush=True)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(
        f"\nimages/s, median of {turns} turns: 1 worker {median(rates[1]):.3f}, 2 workers "
        f"{median(rates[2]):.3f}; ratio of each turn {', '.join(f'{r:.2f}' for r in ratios)}, "
        f"median {median(ratios):.2f}; load {os.getloadavg()[0]:.1f}"
    )


def memory(work: Path, count: int) -> None:
    """Resident memory of a local run of many inputs."""
    torch.manual_seed(0)
    generator = Generator(StyleGAN2Config(32, 16, 16, 2, (8,) * 4))
    prior = StyleGAN2Prior("random-32", generator, fit_statistics(generator, 2000))
    save_prior(work / "random-32.safetensors", prior)
    make_inputs(work / "many", count, 8)
    out = work / "memory"
    words = ("--samples", "1", "--steps", "1", "--align", "never")
    process = start(work / "many", out, *words, "--prior", str(work / "random-32.safetensors"))
    curve: dict[int, float] = {}
    while process.poll() is None:
        done = sum(1 for _ in out.glob("*/result.json")) if out.exists() else 0
        step = done - done % max(1, count // 10)
        curve[step] = max(curve.get(step, 0.0), resident(process.pid))
        time.sleep(1.0)
    print(f"\n| inputs done | peak memory while the next {count // 10} are, MB |\n|---|---|")
    for step, peak in curve.items():
        print(f"| {step} | {peak:.0f} |")


def resident(pid: int) -> float:
    """Resident memory of a process in MB; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return sum(sizes) / 1024


@click.command()
@click.argument("what", type=click.Choice(["all", "cluster", *_PARTS]))
@click.option("--runs", default=10, show_default=True, help="Runs whose worker is killed.")
@click.option("--turns", default=3, show_default=True, help="Turns of the throughput.")
@click.option("--steps", default=60, show_default=True, help="Steps of the throughput.")
@click.option("--count", default=2000, show_default=True, help="Inputs of the memory curve.")
def main(what: str, runs: int, turns: int, steps: int, count: int) -> None:
    """Measure the cluster engine on this machine."""
    wanted = {"all": _PARTS, "cluster": _PARTS[:3]}.get(what, (what,))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        inputs, local = work / "in", work / "local"
        now, load = time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0]
        print(f"{now}, {os.cpu_count()} CPUs, load {load:.1f}", flush=True)
        if set(wanted) - {"memory"}:
            make_inputs(inputs, 40, 16)
        if set(wanted) & {"kills", "driver", "join"}:
            run(inputs, local, *_FEW_STEPS)
            with cluster(work, (1, 1)) as address:
                if "join" in wanted:
                    join(work, inputs, local, address)
                if "kills" in wanted:
                    kills(work, inputs, local, address, runs)
                if "driver" in wanted:
                    driver(work, inputs, local, address)
        if "throughput" in wanted:
            throughput(work, inputs, turns, steps)
        if "memory" in wanted:
            memory(work, count)


if __name__ == "__main__":
    main()
