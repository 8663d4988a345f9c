"""What a run will do with each input, decided before anything is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulse_sr.alignment.intake import identity_of
from pulse_sr.config import LANCZOS, RunOptions, SearchConfig
from pulse_sr.devices import choose_device
from pulse_sr.errors import InputError, PulseError, UsageError
from pulse_sr.files.documents import json_text
from pulse_sr.files.paths import check_out
from pulse_sr.images.find import find_images
from pulse_sr.images.places import refuse_inputs
from pulse_sr.jobs import store
from pulse_sr.jobs.drawing import is_whole
from pulse_sr.jobs.intake import Intake, Part
from pulse_sr.jobs.manifest import Row, check_manifest, read_rows
from pulse_sr.jobs.result_record import read_record, sample_name
from pulse_sr.jobs.stems import list_inputs
from pulse_sr.jobs.task import ENLARGE, Input, Task, fingerprint
from pulse_sr.models.registry import load_network
from pulse_sr.operators.building import check_operator
from pulse_sr.operators.spec import AUTO, parse_operator
from pulse_sr.priors.base import Prior
from pulse_sr.sr.files import SrModel

#: What is known of failed inputs, by stem and fingerprint.
Failures = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A run that was checked and can start: what `--dry-run` shows."""

    tasks: tuple[Task, ...]
    out: Path
    config: SearchConfig
    options: RunOptions
    prior: Prior
    background: SrModel | None = None


def plan_run(
    inputs: Sequence[str | Path],
    out: str | Path,
    config: SearchConfig,
    options: RunOptions,
    prior: Prior | None = None,
    *,
    looking: Callable[[int, int], None] | None = None,
    device: str | None = None,
    opening: Callable[[str], None] | None = None,
) -> Plan:
    """Finds the inputs, loads the prior and decides what to do with each input; writes nothing.

    Photos are searched for faces here, so that every face is a task of its own.

    Args:
        inputs: image files, folders or globs.
        out: the run folder.
        config: the settings of the search.
        options: those of the run.
        prior: a loaded prior, in place of `options.prior`.
        looking: called with (inputs looked at, inputs) before each of them.
        device: where prior and network are loaded to; None: that of `config`.
        opening: called with the name of each folder that is written to, before its pictures are
            opened here: so that they can be fetched.

    Raises:
        UsageError: a path does not exist, an input lies where results go, or an option does not
            suit the prior or the network.
        SetupError: the prior or the network can not be loaded.
    """
    out = check_out(out)
    paths = find_images(inputs, recursive=options.recursive, out=out)
    device = device or config.device
    if prior is None:
        prior = _load_prior(options.prior, device)
    check_search(config, prior, options.align)
    check_manifest(out, page=True)
    shard = options.shard
    ordered = sorted(paths, key=lambda path: str(path.resolve())) if shard else paths
    entries = list_inputs(out, ordered)
    plan = Plan((), out, config, options, prior, _background(options, device))
    rows = read_rows(out)
    failures = None if options.overwrite or options.retry_failed else _failures(rows)
    intake = Intake(out, rows, config, prior, options, [each.stem for each in entries])
    tasks: list[Task] = []
    for i, entry in enumerate(entries):
        if shard is None or i % shard[1] == shard[0]:
            if looking is not None:
                looking(i, len(entries))
            tasks += _tasks(plan, intake, entry, failures, opening)
    folders = {out / stem for task in tasks for stem in (task.stem, task.base)}
    refuse_inputs(paths, out, below=folders)
    by_stem = {row["stem"]: row for row in rows}
    steps = options.save_steps
    guarded = (_guarded(task, out, by_stem.get(task.stem), steps=steps) for task in tasks)
    return replace(plan, tasks=tuple(guarded))


def _guarded(task: Task, out: Path, row: Row | None, *, steps: bool) -> Task:
    """The task, which is refused where files in its folder are not ours."""
    if task.refusal is not None or task.action not in ("search", "extend"):
        return task
    try:
        store.check_folder(out, task.stem, task.indices, row, steps=steps)
    except InputError as refusal:
        return replace(task, refusal=refusal)
    return task


def _tasks(
    plan: Plan,
    intake: Intake,
    entry: Input,
    failures: Failures | None,
    opening: Callable[[str], None] | None,
) -> list[Task]:
    """What to do with one input: with each of its faces, if it is a photo."""
    task = functools.partial(_task, plan, entry, failures=failures, opening=opening)
    try:
        parts = intake.parts(entry)
    except InputError as refusal:
        part = Part(entry.stem)
        chosen = json_text(plan.options.selection(), sort_keys=True)
        return [task(part, f"{entry.sha256} {chosen}", refusal=refusal)]
    return [task(part, _identity(part, entry.sha256)) for part in parts]


def _identity(part: Part, sha256: str) -> str:
    if part.face is not None:
        return identity_of(part.face, sha256)
    return " ".join([sha256, *part.left_out])


def _task(
    plan: Plan,
    entry: Input,
    part: Part,
    identity: str,
    *,
    failures: Failures | None,
    opening: Callable[[str], None] | None,
    refusal: PulseError | None = None,
) -> Task:
    stem = part.stem
    wanted = fingerprint(identity, plan.prior.sha256, plan.config)
    done: tuple[int, ...] = ()
    if not plan.options.overwrite:
        done = store.done_indices(plan.out / stem, wanted, with_steps=plan.options.save_steps)
    folder = plan.out / stem
    samples = 0 if part.left_out else plan.config.samples
    missing = len(done) < samples
    kept = not (missing or part.left_out) and store.has_order(folder, plan.options.cluster)
    if opening is not None and not kept:
        opening(stem)
    if missing:  # those that are there will be read
        done = tuple(k for k in done if is_whole(folder / sample_name(k)))
    indices = tuple(k for k in range(samples) if k not in done)
    earlier = None
    if indices and failures is not None:
        earlier = failures.get((stem, wanted)) or _recorded_failure(plan.out / stem, wanted)
    return Task(
        entry.path,
        entry.sha256,
        stem,
        fingerprint=wanted,
        action=ENLARGE if part.left_out else _action(indices, bool(done), earlier is not None),
        indices=indices,
        base=entry.stem,
        earlier=earlier,
        face=part.face,
        left_out=part.left_out,
        refusal=refusal,
    )


def _action(indices: tuple[int, ...], started: bool, failed_before: bool) -> str:
    if not indices:
        return "skip"
    if failed_before:
        return "failed_before"
    return "extend" if started else "search"


def _failures(rows: Sequence[Row]) -> Failures:
    """The failed rows of the manifest, by stem and fingerprint (which holds the file's hash)."""
    return {
        (row["stem"], str(row.get("fingerprint"))): row
        for row in rows
        if row.get("status") == "failed"
    }


def _recorded_failure(folder: Path, wanted: str) -> dict[str, Any] | None:
    """The failure that a folder records: its row is missing where a process was killed."""
    record = read_record(folder) or {}
    failed = (record.get("status"), record.get("fingerprint")) == ("failed", wanted)
    return record if failed else None


def check_search(config: SearchConfig, prior: Prior, align: str) -> None:
    """Refuses an operator or scale that no input could work with, before anything starts."""
    if config.operator.strip() == AUTO:
        _check_scale(config.scale or 2, prior)
        return
    spec = parse_operator(config.operator)
    if align == "always" and not spec.of_a_face:
        raise UsageError(
            f"--align always cuts faces from photos, --operator {spec.text!r} takes whole pictures",
            "--align never",
        )
    scale = (config.scale or 2) if spec.resizes else 1
    _check_scale(scale, prior)
    check_operator(spec, prior.resolution, scale)


def _check_scale(scale: int, prior: Prior) -> None:
    if prior.resolution % scale or prior.resolution // scale < 4:
        raise UsageError(
            f"--scale {scale} does not suit prior {prior.name} of {prior.resolution} px",
            "--scale expects a divisor of the resolution that leaves 4 px or more",
        )


def _background(options: RunOptions, device: str) -> SrModel | None:
    """The network that enlarges photos outside their faces; None: Lanczos does."""
    if options.background == LANCZOS:
        return None
    if options.upscale == 1:
        raise UsageError(
            f"--background {options.background} enlarges photos, --upscale 1 keeps their size",
            "--upscale 2, or leave --background out",
        )
    model = load_network(options.background, choose_device(device))
    if model.scale < options.upscale:
        raise UsageError(
            f"--background {options.background} enlarges by {model.scale}, "
            f"--upscale is {options.upscale}",
            f"--upscale {model.scale}, or a network of a larger scale",
        )
    return model


def _load_prior(source: str | None, device: str) -> Prior:
    from pulse_sr.jobs.importing import load_prior

    return load_prior(source, device)
