"""Damaged and hostile files, given to the commands that read their kind.

The end is success, or one line and a documented exit code; nothing outside the results is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from campaign import corpus_archives, corpus_documents, corpus_images, corpus_models
from campaign.children import call
from campaign.commands import RECIPE, copy_place
from campaign.corpus_images import Case
from campaign.judging import content_of, difference, fault_of
from campaign.kills import run_undisturbed

#: A file of settings of `run`.
SETTINGS = """
samples = 2
steps = 2
seed = 0
scale = 4
operator = "bicubic"
project = "exact"
target-db = 40.0
align = "never"
"""
_PRIOR = "--prior in/prior.safetensors --align never --scale 4 --samples 2 --steps 2 --batch 2"


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        cases: the files, from a seed and the folder of prepared inputs.
        calls: the command lines that get each in turn, `{}` for its path; `out` is for results.
        base: whose inputs lie in `in`.
        place: where in a finished run the file goes in place of one of ours; empty: beside it.
    """

    cases: Callable[[int, Path], Iterator[Case]]
    calls: tuple[str, ...]
    base: str = "run"
    place: str = ""


def _records(seed: int, out: Path) -> Iterator[Case]:
    """The records of a finished run."""
    for name in ("result.json", "manifest.json"):
        whole = next(out.rglob(name)).read_bytes()
        yield from corpus_documents.record_cases(seed, name, whole, 12)


KINDS = {
    "pictures": Kind(
        lambda seed, place: corpus_images.cases(seed),
        (
            "degrade {} -o out --scale 2",
            "upscale {} -o out --model in/model.safetensors --tile 32",
            "align {} -o out",
            f"run {{}} -o out {_PRIOR} --fit pad --dry-run",
            "check-op {} {}",
        ),
        "upscale",
    ),
    "archives": Kind(
        lambda seed, place: corpus_archives.cases(seed),
        (
            "train-prior {} -o out --arch stylegan2 --batch 2 --dry-run",
            "train-prior {} -o out --check-data",
            "train-sr {} -o out --config compact-x4 --dry-run",
        ),
        "train-sr",
    ),
    "priors": Kind(
        lambda seed, place: corpus_models.tensor_cases(
            seed, (place / "in/prior.safetensors").read_bytes()
        ),
        ("prior info {}", f"run in/faces -o out {_PRIOR.replace('in/prior.safetensors', '{}')}"),
    ),
    "networks": Kind(
        lambda seed, place: corpus_models.tensor_cases(
            seed, (place / "in/model.safetensors").read_bytes()
        ),
        ("upscale in/pictures/0.png -o out --model {}", "prior import {} -o out/new"),
        "upscale",
    ),
    "pickles": Kind(
        lambda seed, place: corpus_models.pickle_cases(seed, (place / "in/tiny.pkl").read_bytes()),
        ("prior import {} -o out/new",),
        "prior import",
    ),
    "records": Kind(
        lambda seed, place: _records(seed, place / "out"),
        (
            f"run in/faces -o out {_PRIOR.replace('steps 2', 'steps 6')}",
            "eval out -o out-eval --reference in/faces --metrics psnr",
        ),
        place="out",
    ),
    "settings": Kind(
        lambda seed, place: corpus_documents.toml_cases(seed, SETTINGS),
        ("run in/faces -o out --prior in/prior.safetensors --config {} --dry-run",),
    ),
    "recipes": Kind(
        lambda seed, place: corpus_documents.toml_cases(seed, RECIPE),
        ("train-sr in/photos -o out --config {} --dry-run",),
        "train-sr",
    ),
}


def try_inputs(kind_name: str, every: int, seed: int, work: Path) -> Iterator[str]:
    """Give the files of a kind to their commands.

    Args:
        kind_name: of `KINDS`.
        every: each file goes to one command of so many in turn; 1: to all of them.
        seed: of the files.
        work: an empty folder.

    Yields:
        what went wrong with a file, empty for nothing.
    """
    kind = KINDS[kind_name]
    usual = run_undisturbed(kind.base, work)
    sound = work / "undisturbed"
    for number, (name, data) in enumerate(kind.cases(seed, sound)):
        for index, words in enumerate(kind.calls):
            if (number + index) % min(every, len(kind.calls)):
                continue
            place = work / f"{number}-{index}"
            if kind.place:
                shutil.copytree(sound, place)
            else:
                copy_place(usual.place, place)
            wrong = _try(kind, name, data, words, place)
            yield wrong and f"{name}, {words.split()[0]}: {wrong}"
            if not wrong:
                shutil.rmtree(place)


def _try(kind: Kind, name: str, data: bytes, words: str, place: Path) -> str:
    if kind.place:
        file = next((place / kind.place).rglob(Path(name).name))
    else:
        (place / "given").mkdir()
        file = place / "given" / name
    file.write_bytes(data)
    before = content_of_user(place)

    def ready() -> None:
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        torch.set_num_threads(1)

    given = file.relative_to(place).as_posix()
    line = [given if each == "{}" else each for each in words.split()]
    wrong = fault_of(call([*line, "-q"], place, ready))
    return wrong or difference(content_of_user(place), before)


def content_of_user(place: Path) -> dict[str, str]:
    """All but results and cache, by its bytes."""
    return {
        name: digest
        for name, digest in content_of(place, plainly=True).items()
        if not name.startswith(("out/", "out-eval/", "cache/"))
    }
