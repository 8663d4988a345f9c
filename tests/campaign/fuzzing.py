"""Readers under bytes that coverage guides.

    python -m campaign.fuzzing READER SEEDS FOUND SECONDS

atheris (a libFuzzer for Python) changes the files of SEEDS so that they reach new branches of the
reader. Anything but its documented errors is a finding: the input is kept in FOUND, beside
`report.json`, and the search goes on. Where there is no atheris, the seeds are changed blindly.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

try:
    import atheris
except ImportError:  # no wheel for this Python
    atheris = None

#: Longer inputs only cost time; seconds that one may take.
MOST_BYTES, PATIENCE = 16_384, 20.0
#: Memory is for the system to watch: MB.
MEGABYTES = 2048


def _image(file: Path) -> None:
    from pulse_sr.images.read import read_image

    pixels = read_image(file).pixels
    assert pixels.shape[0] == 3
    assert pixels.size


def _operator(file: Path) -> None:
    from pulse_sr.operators.spec import parse_operator

    spec = parse_operator(file.read_bytes().decode("utf-8", "surrogateescape"))
    assert parse_operator(spec.text) == spec, "the canonical form means something else"


def _config(file: Path) -> None:
    from pulse_sr.cli.options import load_toml
    from pulse_sr.errors import UsageError
    from pulse_sr.training.sr.recipes import read_recipe

    keys = {"samples": int, "target_db": (int, float), "prior": str, "overwrite": bool}
    for read in (lambda: load_toml(file, keys), lambda: read_recipe(str(file))):
        with contextlib.suppress(UsageError):
            read()


def _record(file: Path) -> None:
    from pulse_sr.jobs.manifest import read_rows
    from pulse_sr.jobs.photo_record import read_photo
    from pulse_sr.jobs.result_record import read_record

    read_record(file.parent)
    read_rows(file.parent)
    read_photo(file.parent)


def _checkpoint(file: Path) -> None:
    from pulse_sr.files.checkpoints import read_checkpoint

    read_checkpoint(file)


def _weights(file: Path) -> None:
    from pulse_sr.errors import SetupError
    from pulse_sr.priors.files import read_header, read_prior
    from pulse_sr.sr.files import read_model_header

    with contextlib.suppress(SetupError):
        read_model_header(file)
    read_header(file)
    read_prior(file)


#: Reader -> the function, the file's name, and the packages whose branches guide.
READERS: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "image": (_image, "a.png", ("pulse_sr.images", "PIL")),
    "operator": (_operator, "operator", ("pulse_sr.operators", "pulse_sr.errors")),
    "config": (_config, "a.toml", ("pulse_sr.cli", "pulse_sr.training.sr", "tomllib")),
    "record": (_record, "result.json", ("pulse_sr.jobs", "pulse_sr.files", "json")),
    "checkpoint": (_checkpoint, "a.pkl", ("pulse_sr.files",)),
    "weights": (_weights, "a.safetensors", ("pulse_sr.files", "pulse_sr.priors", "pulse_sr.sr")),
}


class Harness:
    """One reader; keeps each finding once.

    Attributes:
        executions: how many inputs it got.
        findings: what went wrong -> the file with the input.
    """

    def __init__(self, name: str, found: Path, seconds: float) -> None:
        self.name, self.found = name, found
        self.read, file_name, _ = READERS[name]
        self.place = found / "place"
        self.place.mkdir(parents=True, exist_ok=True)
        self.file = self.place / file_name
        self.names = ("manifest.json", "photo.json") if name == "record" else ()
        self.executions, self.findings = 0, dict[str, str]()
        self.end = time.monotonic() + seconds

    def __call__(self, data: bytes) -> None:
        """Give it an input; ends the process when the time is over."""
        from pulse_sr.errors import LONGEST_MESSAGE, PulseError

        for name in (self.file.name, *self.names):
            (self.place / name).write_bytes(data)
        started = time.monotonic()
        try:
            self.read(self.file)
        except PulseError as error:
            if "\n" in error.message or len(error.message) > LONGEST_MESSAGE:
                self.keep(f"a message: {error.message[:200]!r}", data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.keep(f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}", data)
        if time.monotonic() - started > PATIENCE:
            self.keep("it took too long", data)
        self.executions += 1
        if time.monotonic() > self.end:
            self.report()

    def keep(self, what: str, data: bytes) -> None:
        """Keep an input that shows something new."""
        if what not in self.findings:
            file = self.found / f"finding-{len(self.findings)}"
            file.write_bytes(data)
            self.findings[what] = file.name

    def report(self) -> NoReturn:
        """Write what was found and end the process: libFuzzer would go on."""
        report = {
            "reader": self.name,
            "guided": atheris is not None,
            "executions": self.executions,
            "findings": self.findings,
        }
        (self.found / "report.json").write_text(json.dumps(report))
        os._exit(0)


def blind(seeds: Path, seed: int = 0) -> Iterator[bytes]:
    """The seeds, then changed ones without end."""
    from campaign.corpus_images import DAMAGES

    rng = random.Random(seed)
    inputs = [path.read_bytes() for path in sorted(seeds.iterdir())]
    yield from inputs
    while True:
        data = rng.choice([each for each in inputs if each])
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(list(DAMAGES.values()))(data, rng) or b"\0"
        yield data[:MOST_BYTES]


def main(name: str, seeds: str, found: str, seconds: str) -> None:
    """Search one reader for so many seconds."""
    packages = READERS[name][2]
    logging.disable()
    guided: Any = contextlib.nullcontext()
    if atheris is not None:
        guided = atheris.instrument_imports(include=list(packages), enable_loader_override=False)
    with guided:
        harness = Harness(name, Path(found), float(seconds))
        harness(b"")  # imports what it needs
    harness.end = time.monotonic() + float(seconds)
    if atheris is None:
        for data in blind(Path(seeds)):
            harness(data)
    options = [f"-max_len={MOST_BYTES}", f"-rss_limit_mb={MEGABYTES}", "-seed=1", "-timeout=60"]
    sys.stdout.flush()
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={found}/", seeds], harness)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
