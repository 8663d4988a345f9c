"""Bicubic, supervised and latent search side by side: `compare` over many inputs, resumable.

OUT/<stem>/compare.png        all methods in one labelled picture
OUT/<stem>/nearest.png, ...   the picture of each method at the prior's resolution
OUT/<stem>/compare.json       the table, written last: an input without one is compared again
OUT/manifest.json             one row per input: what became of it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pulse_sr.config import CompareOptions, SearchConfig
from pulse_sr.devices import choose_device
from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import make_folder, remove_leftovers
from pulse_sr.files.paths import check_out
from pulse_sr.images.find import find_images, pictures_by_stem
from pulse_sr.images.places import refuse_inputs
from pulse_sr.inversion import stream
from pulse_sr.inversion.stream import SearchProgress
from pulse_sr.jobs.compare_worker import (
    RECORD,
    CompareTask,
    CompareWorker,
    Search,
    complete_row,
)
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Executor, Job
from pulse_sr.jobs.manifest import NAME, PAGE, Index, Row, check_manifest, read_rows
from pulse_sr.jobs.plan import check_search
from pulse_sr.jobs.stems import list_inputs
from pulse_sr.jobs.task import Input, fingerprint, sha256_of_input
from pulse_sr.models import registry
from pulse_sr.priors.base import Prior
from pulse_sr.sr.files import SrModel

DEFAULT_OUT = "compared"
#: Raise it when equal settings start to give other pictures or numbers.
_REVISION = 1

#: Called with the task and how far its search is.
OnProgress = Callable[[CompareTask, SearchProgress], None]


@dataclass(frozen=True)
class ComparePlan:
    """A call that was checked and can start: what `--dry-run` shows.

    Attributes:
        tasks: the inputs.
        out: the folder of the results.
        config: of the search.
        prior: the generator.
        model: the network; None: the bundled one of the scale of each input.
        overwrite: compare complete inputs again too.
    """

    tasks: tuple[CompareTask, ...]
    out: Path
    config: SearchConfig
    prior: Prior
    model: SrModel | None
    overwrite: bool

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            **asdict(self.config),
            "steps": self.config.total_steps,
            "prior": self.prior.name,
            "resolution": self.prior.resolution,
            "model": self.model.name if self.model else "the bundled one of the scale",
            "out": str(self.out),
        }

    def actions(self) -> list[tuple[str, Path, Path | None]]:
        """("compare" or "skip", input, truth) for each input."""
        return [
            (
                "skip"
                if not self.overwrite and complete_row(self.out / task.stem, task)
                else "compare",
                task.path,
                task.truth,
            )
            for task in self.tasks
        ]

    def carry_out(
        self,
        search: Search | None = None,
        progress: OnProgress | None = None,
        executor: Executor = run_local,
    ) -> Generator[Row, None, None]:
        """Compares the inputs; yields the manifest row of each when it is done.

        Args:
            search: stands in for `pulse_sr.inversion.stream.search_images`.
            progress: called during each search, by an executor of this process.
            executor: who does the work.

        Raises:
            SetupError: the disk is full.
        """
        make_folder(self.out)
        remove_leftovers(self.out)
        for task in self.tasks:
            remove_leftovers(self.out / task.stem)
        index = Index(self.out, read_rows(self.out))
        report = None if progress is None else lambda request, step: progress(request.task, step)
        worker = CompareWorker(
            index,
            self.prior,
            self.config,
            self.model,
            search or stream.search_images,
            report,
            self.overwrite,
        )
        yield from Job(self.tasks, worker, index, lambda out: None).carry_out(executor)


def plan_compare(
    inputs: Sequence[str | Path],
    out: str | Path = DEFAULT_OUT,
    config: SearchConfig | None = None,
    options: CompareOptions | None = None,
    *,
    prior: Prior | None = None,
    model: SrModel | None = None,
    device: str | None = None,
) -> ComparePlan:
    """Finds inputs and truths, loads prior and network; writes nothing.

    Args:
        inputs: files, folders and globs of low-res faces.
        out: folder of the results.
        config: of the search.
        options: what it is compared with.
        prior, model: loaded ones, in place of those of `options`.
        device: where they are loaded to; None: that of `config`.

    Raises:
        UsageError: a path does not exist, an input lies in `out` or has no truth, or an option does
            not suit the prior.
        SetupError: prior or network can not be loaded, or there is no such device.
    """
    out, config, options = check_out(out), config or SearchConfig(), options or CompareOptions()
    paths = find_images(inputs, recursive=options.recursive, out=out)
    truths = _truths(paths, options.truth)
    refuse_inputs([*paths, *filter(None, truths)], out, below=[out])
    check_manifest(out)
    place = choose_device(device or config.device)
    prior = prior or registry.load_prior(options.prior, place)
    check_search(config, prior, "never")
    if model is None and options.model is not None:
        model = registry.load_network(options.model, place)
    networks = [each["sha256"] for each in registry.bundled("sr").values()]
    settings = [_REVISION, config.samples, [model.sha256] if model else networks]
    tasks = []
    for entry, truth in zip(list_inputs(out, paths, (NAME, PAGE), RECORD), truths, strict=True):
        tasks.append(_task(entry, truth, settings, fingerprint(entry.sha256, prior.sha256, config)))
    return ComparePlan(tuple(tasks), out, config, prior, model, options.overwrite)


def compare(
    inputs: Sequence[str | Path],
    out: str | Path = DEFAULT_OUT,
    config: SearchConfig | None = None,
    prior: Prior | str | Path | None = None,
    model: SrModel | str | Path | None = None,
    *,
    truth: str | Path | None = None,
    overwrite: bool = False,
    search: Search | None = None,
    progress: OnProgress | None = None,
) -> Generator[Row, None, None]:
    """Sets enlargements of low-res faces side by side; yields the row of each input when done.

    A row has stem, path, sha256, status ("ok" or "failed"), seconds, notes, and `methods`: of each
    its name, title, file, `lr_psnr`, and with a truth `psnr`, `ssim` and `distance`
    (`jobs.comparison`); for failures error and hint. Rows of inputs that were complete already have
    `resumed` true. The call itself checks everything; the work happens while iterating.

    Args:
        inputs: files, folders and globs.
        out: folder of the results.
        config: of the search; None is `SearchConfig()`.
        prior: a loaded prior, a name or a path; None: the default one.
        model: a loaded network, a name or a path; None: the bundled one of the scale of each input,
            where there is one.
        truth: the high-res picture, or a folder of them with the names of the inputs.
        overwrite: compare complete inputs again too.
        search: stands in for `pulse_sr.inversion.stream.search_images`.
        progress: called during each search.

    Raises:
        UsageError, SetupError: see `plan_compare`; while iterating, SetupError (disk full) ends the
            job. Errors of one input become rows with the status "failed".
    """
    own_prior = prior if isinstance(prior, Prior) else None
    own_model = model if isinstance(model, SrModel) else None
    options = CompareOptions(
        truth=truth,  # type: ignore[arg-type]  # the option makes a path of it
        prior=None if prior is None or own_prior else str(prior),
        model=None if model is None or own_model else str(model),
        overwrite=overwrite,
    )
    plan = plan_compare(inputs, out, config, options, prior=own_prior, model=own_model)
    return plan.carry_out(search, progress)


def _task(entry: Input, truth: Path | None, settings: list[Any], searched: str) -> CompareTask:
    truth_sha256 = "" if truth is None else sha256_of_input(truth)
    identity = json.dumps([*settings, searched, truth_sha256])
    return CompareTask(
        entry.path,
        entry.sha256,
        entry.stem,
        truth=truth,
        truth_sha256=truth_sha256,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
    )


def _truths(paths: Sequence[Path], truth: Path | None) -> Sequence[Path | None]:
    """The truth of each input."""
    if truth is None:
        return [None] * len(paths)
    if not truth.is_dir():
        if len(paths) != 1:
            raise UsageError(
                f"--truth {truth} is one picture, there are {len(paths)} inputs",
                "give a folder of pictures with the names of the inputs",
            )
        return [truth]
    named = pictures_by_stem(truth)
    lacking = [path for path in paths if path.stem not in named]
    if lacking:
        raise UsageError(
            f"--truth {truth} has no picture named {lacking[0].stem}, the truth of {lacking[0]}",
            "a truth has the name of its input; any suffix will do",
        )
    return [named[path.stem] for path in paths]
