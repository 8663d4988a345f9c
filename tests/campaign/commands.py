"""Six commands at tiny sizes: what they read, what they are called with, where results go.

Each place is a folder with `in` (what the user gave), `out` (the results, with a file of the
user's among them), and `cache`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from foreign_checkpoints import nvidia_pickle
from PIL import Image
from random_priors import random_stylegan2
from safetensors.torch import load_file
from tiny_sr_training import write_photos
from tiny_training import few_statistics

import pulse_sr.jobs.importing
import pulse_sr.jobs.searching
from campaign.children import Child, in_child
from campaign.judging import content_of
from pulse_sr.priors.files import save_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel, save_model

DATA = Path(__file__).resolve().parents[1] / "data"
#: A file of the user's in the folder of results.
OWN, OWN_TEXT = "notes.txt", "mine\n"

RECIPE = """
title = "tiny"
source = "tests"
patch = 16
batch = 4
[network]
architecture = "compact"
scale = 2
width = 8
convolutions = 1
[[phases]]
kimg = 0.12
lr = 1e-3
losses = { l1 = 1 }
"""


@dataclass(frozen=True)
class Command:
    """One of them.

    Attributes:
        words: its command line.
        write: makes what it reads in the folder `in`.
        keeps: what is never made again: what has a "record", or a row in the "list" of the folder.
        repeats: whether it may be called again where its result is complete.
    """

    words: str
    write: Callable[[Path], object]
    keeps: str = ""
    repeats: bool = True

    def prepare(self, place: Path) -> None:
        """Make a place for it."""
        (place / "in").mkdir(parents=True)
        in_child(lambda: self.write(place / "in"))

    def start(self, place: Path, before: Callable[[], object] = lambda: None) -> Child:
        """Start it in its place."""

        def ready() -> None:
            os.environ["XDG_CACHE_HOME"] = str(place / "cache")
            torch.set_num_threads(1)
            before()

        return Child([*self.words.split(), "--device", "cpu", "-q"], place, ready)


def copy_place(place: Path, to: Path) -> Path:
    """A fresh place with the same inputs and an untouched folder of results."""
    shutil.copytree(place / "in", to / "in")
    (to / "out").mkdir()
    (to / "out" / OWN).write_text(OWN_TEXT)
    return to


def result_of(place: Path) -> dict[str, str]:
    """What lies in a place: inputs, results, cache, and whatever else."""
    return content_of(place)


def leftovers(place: Path) -> list[str]:
    """The temporary files in it."""
    return [path.relative_to(place).as_posix() for path in place.rglob(".*.tmp")]


def use_small_statistics() -> None:
    """Let priors fit their latent space to 1000 samples, not 100 000.

    `run` leaves half-written files that are younger than a minute to other shards: here are none.
    """
    pulse_sr.jobs.searching._LEFT_BEHIND_S = 0.0
    import pytest

    few_statistics(pytest.MonkeyPatch())
    pulse_sr.jobs.importing.fit_statistics = lambda network: fit_statistics(network, 1000)


def _pictures(folder: Path, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(80, 170, (4, 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def _for_run(folder: Path) -> None:
    (folder / "faces").mkdir()
    _pictures(folder / "faces", 2, 8)
    save_prior(folder / "prior.safetensors", random_stylegan2(1))


def _for_upscale(folder: Path) -> None:
    (folder / "pictures").mkdir()
    _pictures(folder / "pictures", 3, 40)
    torch.manual_seed(0)
    network = build_network("compact", {"scale": 2, "width": 4, "convolutions": 1})
    card = {"licence": "CC0-1.0"}
    save_model(folder / "model.safetensors", SrModel("tiny", "compact", network, card))


def _for_train_prior(folder: Path) -> None:
    (folder / "images").mkdir()
    _pictures(folder / "images", 20, 8)


def _for_train_sr(folder: Path) -> None:
    write_photos(folder / "photos")
    (folder / "recipe.toml").write_text(RECIPE)


def _for_align(folder: Path) -> None:
    (folder / "photos").mkdir()
    for each in "ab":
        shutil.copy(DATA / f"portrait_{each}.jpg", folder / "photos")


def _for_import(folder: Path) -> None:
    stored = load_file(DATA / "stylegan2_tiny.safetensors")
    weights = {key[2:]: value for key, value in stored.items() if key.startswith("G.")}
    (folder / "tiny.pkl").write_bytes(nvidia_pickle(weights))


COMMANDS = {
    "run": Command(
        "run in/faces -o out --prior in/prior.safetensors --align never --scale 4 "
        "--samples 2 --steps 6 --batch 2",
        _for_run,
        keeps="record",
    ),
    "upscale": Command(
        "upscale in/pictures -o out --model in/model.safetensors --tile 32",
        _for_upscale,
        keeps="record",
    ),
    "train-prior": Command(
        "train-prior in/images -o out --arch stylegan2 --channel-base 64 --channel-max 8 "
        "--w-dim 16 --batch 4 --augment ada --path-length 2 "
        "--score-samples 0 --kimg 0.08 --snapshot 0.04 --precision fp32",
        _for_train_prior,
    ),
    "train-sr": Command(
        "train-sr in/photos -o out --config in/recipe.toml --snapshot 0.04", _for_train_sr
    ),
    "align": Command("align in/photos -o out", _for_align, keeps="list"),
    "prior import": Command("prior import in/tiny.pkl -o out/prior", _for_import, repeats=False),
}
