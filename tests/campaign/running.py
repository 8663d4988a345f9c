"""The parts of the campaign, side by side; each is done once, however often it is interrupted."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from campaign import disasters, fuzzing, inputs, kills, tables
from campaign.children import BROKEN, import_all
from campaign.commands import COMMANDS, use_small_statistics
from campaign.corpus_documents import toml_cases
from campaign.corpus_images import cases as image_cases

ROOT = Path(__file__).resolve().parents[2]
#: Signals of a kind and disasters of a kind for each command; to how many commands in turn each
#: file goes; seconds of fuzzing for each reader.
SHORT = {"kills": 1, "disasters": 1, "every": 5, "seconds": 20}
LONG = {"kills": 50, "disasters": 10, "every": 1, "seconds": 1800}


@dataclass(frozen=True)
class Part:
    """What one process does.

    Attributes:
        name: of its results.
        run: gives what is counted and what went wrong, empty for nothing.
    """

    name: str
    run: Callable[[Path], Iterator[tuple[str, str]]]


def parts_of(size: dict[str, int], seed: int) -> list[Part]:
    """All parts; those that take longest come first."""
    found = []
    for name in COMMANDS:
        for number in kills.SIGNALS:
            found.append(Part(f"signals/{name}/{number}", _kills(name, number, size, seed)))
        found.append(Part(f"disasters/{name}", _disasters(name, size, seed)))
    found += [Part(f"inputs/{kind}", _inputs(kind, size, seed)) for kind in inputs.KINDS]
    found += [Part(f"fuzzing/{name}", _fuzzing(name, size, seed)) for name in fuzzing.READERS]
    return sorted(found, key=lambda part: "train-prior" not in part.name)


def _kills(name: str, number: str, size: dict[str, int], seed: int) -> Callable:
    def run(work: Path) -> Iterator[tuple[str, str]]:
        for wrong in kills.kill(name, number, size["kills"], seed, work):
            yield number, wrong

    return run


def _disasters(name: str, size: dict[str, int], seed: int) -> Callable:
    return lambda work: disasters.strike(name, size["disasters"], seed, work)


def _inputs(kind: str, size: dict[str, int], seed: int) -> Callable:
    def run(work: Path) -> Iterator[tuple[str, str]]:
        for wrong in inputs.try_inputs(kind, size["every"], seed, work):
            yield kind, wrong

    return run


def _fuzzing(reader: str, size: dict[str, int], seed: int) -> Callable:
    def run(work: Path) -> Iterator[tuple[str, str]]:
        seeds, found = work / "seeds", work / "found"
        seeds.mkdir()
        for number, data in enumerate(_seeds_of(reader, seed, work)):
            (seeds / f"{number}").write_bytes(data[: fuzzing.MOST_BYTES])
        words = [sys.executable, "-m", "campaign.fuzzing", reader, str(seeds), str(found)]
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            [*words, str(size["seconds"])],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
        )
        report = found / "report.json"
        if not report.exists():
            yield reader, f"the fuzzer ended with {done.returncode}: {done.stderr[-500:]}"
            return
        document = json.loads(report.read_text())
        yield "executions", str(document["executions"])
        yield "guided", str(document["guided"])
        for what, file in document["findings"].items():
            yield reader, f"{what} (input: {found / file})"

    return run


def _seeds_of(reader: str, seed: int, work: Path) -> Iterator[bytes]:
    """What the fuzzer of a reader begins with."""
    if reader == "image":
        yield from (data for name, data in image_cases(seed) if "bomb" not in name)
    elif reader == "operator":
        for text in ("bicubic|noise:0.02|jpeg:75", "gaussian:1.6|gray", "mask:a.png", "pillow:box"):
            yield text.encode()
    elif reader == "config":
        for whole in (inputs.SETTINGS, inputs.RECIPE):
            yield from (data for _, data in toml_cases(seed, whole))
    else:
        kind = {"record": "records", "checkpoint": "pickles", "weights": "priors"}[reader]
        kills.run_undisturbed(inputs.KINDS[kind].base, work)
        yield from (data for _, data in inputs.KINDS[kind].cases(seed, work / "undisturbed"))


def run_part(part: Part, folder: Path, results: Path) -> None:
    """Do a part and write what came of it; nothing if it was done before."""
    work = folder / part.name.replace("/", "-").replace(" ", "-")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    started, tried, wrong, facts = time.monotonic(), collections.Counter(), [], {}
    for what, said in part.run(work):
        if what in ("executions", "guided"):
            facts[what] = json.loads(said.lower())
            continue
        tried[what] += 1
        if said:
            wrong.append(said)
            print(f"{part.name}: {said}", flush=True)
    seconds = round(time.monotonic() - started, 1)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = round(sum(each.ru_utime + each.ru_stime for each in used), 1)
    document = {"name": part.name, "tried": dict(tried), "wrong": wrong}
    document |= {"seconds": seconds, "processor_seconds": processor}
    results.write_text(json.dumps(document | facts))
    print(
        f"{part.name}: {sum(tried.values())} in {seconds:.0f} s ({processor:.0f} s computing)",
        flush=True,
    )
    if not wrong:
        shutil.rmtree(work)


def run_all(parts: list[Part], folder: Path, jobs: int) -> int:
    """Do the parts that have no result yet, `jobs` at once; returns how many processes failed."""
    running, failed = set[int](), 0

    def wait() -> int:
        pid, status = os.waitpid(-1, 0)
        running.discard(pid)
        return int(status != 0)

    try:
        for part in parts:
            results = result_file(part, folder)
            if results.exists():
                continue
            if len(running) >= jobs:
                failed += wait()
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                _be(part, folder, results)
            running.add(pid)
        while running:
            failed += wait()
    except KeyboardInterrupt:
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    return failed


def _be(part: Part, folder: Path, results: Path) -> None:
    """The whole life of the process of a part."""
    code = BROKEN
    try:
        run_part(part, folder, results)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def result_file(part: Part, folder: Path) -> Path:
    """Where the result of a part lies."""
    return folder / f"{part.name.replace('/', '-').replace(' ', '-')}.json"


def main() -> int:
    """Runs the campaign, or the tests with coverage; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--long", action="store_true", help="all of it; what was done is kept")
    parser.add_argument("--work", type=Path, help="folder for results and inputs of findings")
    parser.add_argument("--only", nargs="+", default=[""], help="parts whose names contain one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parts at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="the JSON of the tables, to be written")
    parser.add_argument("--coverage", action="store_true", help="the tests, with their coverage")
    options = parser.parse_args()
    if options.coverage:
        return tables.write_coverage(options.results or tables.RESULTS)
    size = LONG if options.long else SHORT
    known = parts_of(size, options.seed)
    parts = [each for each in known if any(word in each.name for word in options.only)]
    if not parts:
        parser.error(f"no part has {' or '.join(options.only)} in its name")
    with contextlib.ExitStack() as stack:
        work = options.work
        if work is None and options.long:
            work = Path(tempfile.gettempdir()) / "pulse-sr-campaign"
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        folder = work.resolve() / ("long" if options.long else "short")
        folder.mkdir(parents=True, exist_ok=True)
        import_all()
        use_small_statistics()
        failed = run_all(parts, folder, options.jobs)
        found = [result_file(each, folder) for each in parts]
        documents = [json.loads(each.read_text()) for each in found if each.exists()]
        print(tables.summary(documents))
        if options.long or options.results:
            command = f"python -m tests.campaign{' --long' * options.long}"
            tables.write_campaign(options.results or tables.RESULTS, documents, command)
    return int(bool(failed or any(each["wrong"] for each in documents)))
