"""What is left of `scripts/gpu_run.sh`: a summary, the logs in one archive, the trained state.

    python scripts/gpu/results.py WORK OUT BUDGET ELAPSED [RUN]

WORK holds `steps.tsv` (step, limit, seconds, exit code, note) and `logs/STEP.out` and `.log`.
BUDGET and ELAPSED are seconds, RUN is the folder of the training. OUT gets at most 8 files of less
than 16 MiB.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import parts

MOST_FILES = 8
MOST_FILE_BYTES = 16 * 2**20 - 1
MOST_BYTES = 64 * 2**20
STATE = "state.safetensors"
_SUMMARIES = ("summary.json", "summary.txt")
_STATUS = {0: "ok", 124: "timed out", 137: "timed out", 130: "stopped", 143: "stopped"}
_BAD = ("failed", "timed out", "stopped")
_NO_TESTS = 5
#: Below this an op is bound by its launch, and its bandwidth says nothing.
_LARGE_BYTES = 64 * 2**20

Record = dict[str, Any]


def read_records(file: Path) -> list[Record]:
    """Reads what the steps have left; an exit code of `-` is a step that was left out."""
    records = []
    for line in file.read_text().splitlines() if file.exists() else []:
        step, limit, seconds, code, note = line.split("\t")
        record: Record = {"step": step, "limit_s": int(limit), "seconds": int(seconds)}
        record["exit_code"] = None if code == "-" else int(code)
        records.append(record | {"status": status_of(record), "note": note})
    return records


def status_of(record: Record) -> str:
    """A word or two on how a step ended."""
    code = record["exit_code"]
    if code is None:
        return "skipped"
    if code == _NO_TESTS and record["step"] in ("tests", "memcheck", "racecheck"):
        return "no tests"
    return _STATUS.get(code, "failed")


# ------------------------------------------------------------------ key numbers


def of_environment(out: str, log: str) -> dict[str, Any]:
    """The devices, torch, and what is missing."""
    report = json.loads(out)
    found = {"devices": report.get("devices", []), "torch": report["versions"].get("torch")}
    return found | {"python": report["python"], "missing": report["missing"]}


def of_tests(out: str, log: str) -> dict[str, Any]:
    """The last line of pytest."""
    found = re.findall(r"^.*(?:\d+ \w+|no tests ran).* in [\d.:]+s.*$", out, re.M)
    return {"result": found[-1].strip("= ")} if found else {}


def of_sanitizer(out: str, log: str) -> dict[str, Any]:
    """The tool's own summary and pytest's."""
    found = re.findall(r"^=+ (.*SUMMARY: .*)$", out + log, re.M)
    return of_tests(out, log) | ({"tool": found[-1]} if found else {})


def of_build(out: str, log: str) -> dict[str, Any]:
    """What became of each library."""
    found = re.findall(r"^(?:cpu|cuda): .*$|^compiled the .*$", log + out, re.M)
    return {"libraries": found} if found else {}


def of_bench_ops(out: str, log: str) -> dict[str, Any]:
    """Ratios, ceilings, and the bandwidth of large shapes by op and direction."""
    report = json.loads(out)
    environment = report["environment"]
    found: dict[str, Any] = {"ratio": report["ratio"], "rows": len(report["rows"])}
    in_graphs = [row["graph_ratio"] for row in report["rows"] if "graph_ratio" in row]
    if in_graphs:
        found["ratio_in_graphs"] = statistics.geometric_mean(in_graphs)
    names = ("copy_bandwidth", "matrix_rate", "left_out_for_time", "left_out_for_memory")
    found |= {name: environment[name] for name in names}
    shares: dict[str, list[float]] = {}
    for row in report["rows"] + report["pytorch"]:
        if row["bytes"] >= _LARGE_BYTES:
            name = f"{row['op']} {row['direction']} {row['dtype']} {row['layout']}"
            shares.setdefault(name, []).append(row["copy_fraction"])
    return found | {"copy_fraction": {k: statistics.median(v) for k, v in shares.items()}}


def of_bench_search(out: str, log: str) -> dict[str, Any]:
    """The ratio, the time of a step and of a sample, and what the roofline says of the step."""
    report = json.loads(out)
    rows, environment = report["rows"], report["environment"]
    found: dict[str, Any] = {"ratio": report["ratio"]}
    found |= {key: rows[0][key] for key in ("ours_s", "baseline_s")}
    found["seconds_per_sample"] = per_sample = {}
    for row in rows:
        method = row["name"].split(":")[0]
        if "ours_s_per_sample" in row:
            per_sample[method] = row["ours_s_per_sample"]
        if "baseline_s_per_sample" in row:
            per_sample["baseline"] = row["baseline_s_per_sample"]
            found["baseline"] = {
                "steps": row["baseline_measured_steps"],
                "samples at once": row["baseline_samples"],
            }
        if "baseline_missing" in row:
            found["baseline"] = row["baseline_missing"]
        if "roofline" in row:
            names = "share", "compute_s", "memory_s", "bound_s", "step_s", "flop", "bytes"
            found[f"roofline {method}"] = {name: row["roofline"][name] for name in names}
    found["copy_bandwidth"] = environment["copy_bandwidth"]
    return found | {"matrix_rate": environment["matrix_rates"]}


def of_bench_match(out: str, log: str) -> dict[str, Any]:
    """How long until all samples match, against each of the other sides."""
    names = ("ours_s", "baseline_s", "ratio", "ours_reached", "baseline_reached", "samples")
    return {row["name"]: {n: row[n] for n in names} for row in json.loads(out)["rows"]}


def of_bench_train(out: str, log: str) -> dict[str, Any]:
    """The ratio, and rates and memory of the first row."""
    report = json.loads(out)
    first = report["rows"][0]
    names = ("ours_images_per_s", "baseline_images_per_s", "ours_peak_mb", "baseline_peak_mb")
    return {"ratio": report["ratio"]} | {key: first[key] for key in names if key in first}


def of_training(out: str, log: str) -> dict[str, Any]:
    """How far the training came."""
    started = re.findall(r"from (\d+) shown", log)
    report = json.loads(out)
    before = int(started[-1]) if started else 0
    return {"images_before": before, "images": report["images"], "seconds": report["seconds"]}


NUMBERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "environment": of_environment,
    "build": of_build,
    "tests": of_tests,
    "memcheck": of_sanitizer,
    "racecheck": of_sanitizer,
    "bench-ops": of_bench_ops,
    "bench-search": of_bench_search,
    "bench-match": of_bench_match,
    "bench-1024": of_bench_search,
    "bench-train": of_bench_train,
    "training": of_training,
}


def key_numbers(step: str, logs: Path) -> dict[str, Any]:
    """Returns the numbers of a step, or nothing where it left none that can be read."""
    texts = [(logs / f"{step}.{end}") for end in ("out", "log")]
    out, log = (file.read_text(errors="replace") if file.exists() else "" for file in texts)
    try:
        return NUMBERS[step](out, log) if step in NUMBERS else {}
    except (ValueError, KeyError, IndexError, TypeError):
        return {}


# ------------------------------------------------------------------ files


def pack_logs(work: Path, run: Path | None, target: Path) -> None:
    """Writes one archive with all that the steps printed and the log of the training."""
    with tarfile.open(target, "w:gz") as archive:
        for file in sorted((work / "logs").iterdir()):
            if file.stat().st_size:
                archive.add(file, f"logs/{file.name}")
        if run is not None and (run / "log.jsonl").exists():
            archive.add(run / "log.jsonl", "logs/training.jsonl")


def place(
    files: Sequence[Path], out: Path, room: int, most_bytes: int = MOST_BYTES
) -> tuple[list[Path], list[str]]:
    """Copies files in the order of value while there is room for them.

    Returns:
        The copies, and a reason for each file that was left out.
    """
    done: list[Path] = []
    left_out = []
    taken = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    for file in files:
        size = file.stat().st_size
        if size > MOST_FILE_BYTES or len(done) >= room or taken + size > most_bytes:
            left_out.append(f"{file.name}: {size} bytes, no room for it")
            continue
        done.append(out / file.name)
        done[-1].write_bytes(file.read_bytes())
        taken += size
    return done, left_out


def place_training(
    run: Path, out: Path, room: int, part_bytes: int = parts.PART_BYTES
) -> list[str]:
    """Splits the state into OUT and adds the prior and the last grid of samples.

    Returns:
        A reason for each file that was left out.
    """
    state = run / STATE
    if not state.exists():
        return [f"{STATE}: the training wrote none"]
    needed = 1 + -(-state.stat().st_size // part_bytes)
    if needed > room or state.stat().st_size > MOST_BYTES - 4 * 2**20:
        return [f"{STATE}: {state.stat().st_size} bytes, no room for it"]
    parts.split(state, out, part_bytes)
    rest = [run / "model.safetensors", *sorted(run.glob("fakes-*.png"))[-1:]]
    return place([file for file in rest if file.exists()], out, room - needed)[1]


# ------------------------------------------------------------------ summary


def as_text(summary: dict[str, Any], logs: Path) -> str:
    """Returns the summary for a reader, with the last lines of what failed."""
    lines = [f"{summary['seconds']} s of {summary['budget_s']} s"]
    for record in summary["steps"]:
        line = f"{record['step']:<13} {record['status']:<10} {record['seconds']:>4} s"
        line += f" of {record['limit_s']:>4} s  {record['note']}"
        lines.append(line.rstrip())
        for key, value in record["numbers"].items():
            lines += [f"    {text}" for text in _lines_of(key, value)]
        if record["status"] in _BAD:
            lines += [f"    | {text}" for text in _tail(record["step"], logs)]
    lines += [f"left out: {reason}" for reason in summary["left_out"]]
    return "\n".join(lines) + "\n"


def _lines_of(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key} {name}: {_number(each)}" for name, each in value.items()]
    if isinstance(value, list):
        return [f"{key}: {each}" for each in value]
    return [f"{key}: {_number(value)}"]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tail(step: str, logs: Path, count: int = 8) -> list[str]:
    for end in ("log", "out"):
        file = logs / f"{step}.{end}"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        if any(line.strip() for line in lines):
            return [line[:200] for line in lines[-count:]]
    return []


def collect(work: Path, out: Path, budget: int, elapsed: int, run: Path | None) -> dict[str, Any]:
    """Fills OUT and returns the summary."""
    out.mkdir(parents=True, exist_ok=True)
    logs = work / "logs"
    archive = work / "logs.tar.gz"
    pack_logs(work, run, archive)
    _, left_out = place([archive], out, room=1)
    if run is not None:
        left_out += place_training(run, out, room=MOST_FILES - len(_SUMMARIES) - 1)
    records = read_records(work / "steps.tsv")
    steps = [record | {"numbers": key_numbers(record["step"], logs)} for record in records]
    summary = {"budget_s": budget, "seconds": elapsed, "steps": steps, "left_out": left_out}
    (out / _SUMMARIES[0]).write_text(json.dumps(summary, indent=2) + "\n")
    (out / _SUMMARIES[1]).write_text(as_text(summary, logs))
    return summary


def main(words: Sequence[str]) -> int:
    """Collects and prints the summary; returns 1 where a step did not end well."""
    work, out, budget, elapsed, *run = words
    places = Path(work), Path(out)
    summary = collect(*places, int(budget), int(elapsed), Path(run[0]) if run else None)
    print((places[1] / _SUMMARIES[1]).read_text(), end="")
    return int(any(record["status"] in _BAD for record in summary["steps"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
