"""`pulse-sr doctor`: what is installed, what works, and what repairs the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, print_result, printable, say, table
from pulse_sr.cli.options import CONTEXT, standard_options

_Rows = list[tuple[str, ...]]


@click.command("doctor", context_settings=CONTEXT)
@click.option("--build", is_flag=True, help="First compile the ops ahead of time.")
@standard_options
def command(build: bool, console: Console) -> int:
    """Show versions, devices, compilers, compiled ops and priors, and what repairs the rest.

    Example for a bug report: pulse-sr doctor --json
    """
    from pulse_sr.jobs.diagnosis import collect

    if build:
        _build(console)
    report = collect()
    if console.as_json:
        emit_json(report)
    else:
        for title, rows in _sections(report):
            indented = [(f"  {row[0]}", *map(printable, row[1:])) for row in rows]
            print_result("\n".join([title, table(indented)]) if rows else f"{title}: none")
        for problem in report["problems"]:
            print_result(printable(f"to repair: {problem['repair']}  ({problem['what']})"))
    return 3 if any(problem["needed"] for problem in report["problems"]) else 0


def _build(console: Console) -> None:
    """Compiles what can be compiled; a failure is raised after all were tried."""
    from pulse_sr.errors import SetupError
    from pulse_sr.jobs.diagnosis import build_ops

    failures = []
    for built in build_ops(console.live):
        if built.path is not None:
            console.line(f"{built.target}: {built.path}")
        elif built.failed:
            failures.append(built)
            console.clear()
            for line in built.log.splitlines():
                say(f"  {printable(line)}")
        else:
            console.line(f"{built.target}: unavailable: {built.reason}")
    if failures:
        raise SetupError("; ".join(built.reason for built in failures), failures[0].hint)


def _sections(report: dict[str, Any]) -> Iterator[tuple[str, _Rows]]:
    """Returns titles with rows; parts that need torch are absent where it does not work."""
    yield "versions", _version_rows(report)
    yield "machine", _machine_rows(report)
    if "libraries" in report:
        yield "compilers", [_compiler_row(*item) for item in report["compilers"].items()]
        yield "compiled ops", [_library_row(*item) for item in report["libraries"].items()]
        yield "used by", _op_rows(report["ops"])
        yield "bundled priors", _prior_rows(report["priors"])
    yield "packages", [(name, found or "missing") for name, found in report["packages"].items()]


def _version_rows(report: dict[str, Any]) -> _Rows:
    versions = {**report["versions"]}
    if "cuda" in versions:
        versions["CUDA of torch"] = versions.pop("cuda") or "none"
    for name in ("torchvision", "numpy"):
        versions[name] = report["packages"][name] or "missing"
    return [(name, str(version)) for name, version in versions.items()]


def _machine_rows(report: dict[str, Any]) -> _Rows:
    rows: _Rows = [(name, str(value)) for name, value in report["machine"].items()]
    for gpu in report.get("devices", []):
        text = f"{gpu['name']}, {gpu['memory_gb']} GB, capability {gpu['capability']}"
        rows.append((gpu["device"], text))
    if "devices" in report and not report["devices"]:
        rows.append(("cuda", "no GPU"))
    if report.get("driver"):
        rows.append(("NVIDIA driver", report["driver"]))
    if report.get("cache"):
        rows.append(("cache of the ops", report["cache"]))
    return rows


def _op_rows(ops: dict[str, dict[str, str]]) -> _Rows:
    rows: _Rows = [(op, where["cpu"], where["cuda"]) for op, where in ops.items()]
    return [("op", "on CPU", "on CUDA"), *rows]


def _prior_rows(priors: list[dict[str, str]]) -> _Rows:
    return [(prior["name"], prior["status"], prior["sha256"]) for prior in priors]


def _compiler_row(name: str, found: dict[str, str]) -> tuple[str, ...]:
    if "problem" in found:
        return name, found["problem"]
    extra = f" in {found['toolkit']}" if "toolkit" in found else ""
    version = f": {found['version']}" if "version" in found else ""
    return name, f"{found['path']}{version}{extra}"


def _library_row(target: str, facts: dict[str, Any]) -> tuple[str, ...]:
    text = facts["path"] or facts["reason"]
    built_for = facts["details"].get("architectures")
    return target, facts["status"], f"{text} (for {built_for})" if built_for else text
