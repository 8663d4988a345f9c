"""Losses and optimizers of supervised super-resolution at equal small budgets, row by row.

Usage: python scripts/bench/sr_experiments.py [--photos DATA HELD_BACK] [--faces DATA HELD_BACK]
           [--digits IMAGES LABELS --weights-dir DIR --judge DIR] [--row NAME...] [--seeds N...]
           [--kimg F] [--limit N] [--results FILE] [--curves FILE] [--list]

Every row of `sr_experiment_rows.py` is trained with every seed, one row after the other. Killed, it
goes on with the first that is missing; what FILE holds is not trained again. DATA and HELD_BACK are
what `train-sr` takes, the latter a folder; of IMAGES and LABELS (idx files of MNIST) the first
tenth is held back. DIR of `--weights-dir` and `--judge` are two classifiers of other seeds
(`train_digit_classifier.py`): the one that digits are learned from, and the one that reads the
enlarged ones.

Scores are means over held-back pictures, rounded to 8 bits: "psnr" (dB, RGB, no border), "ssim",
"distance" (SqueezeNet features), "log_spectrum" (loss "fft-log"), "accuracy" (the judge); "curve"
has the PSNR in the course of the training. The tables of FILE are those of docs/experiments.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sr_experiment_report import draw, summary
from sr_experiment_rows import BUDGETS, ROWS
from torch import Tensor

from pulse_sr.data.crops import CropStream, list_photos
from pulse_sr.data.idx import IdxSource, read_idx
from pulse_sr.data.open import open_source
from pulse_sr.data.sources import ImageSource
from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import write_atomic, write_text_atomic
from pulse_sr.files.lock import folder_lock
from pulse_sr.files.tensors import read_tensors
from pulse_sr.images.find import find_images
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.read import read_image
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import LEAST_SIDE, feature_distance
from pulse_sr.operators.building import make_operator
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.sr.enlarging import bicubic
from pulse_sr.sr.losses.content import ssim
from pulse_sr.sr.spectrum import grey_of
from pulse_sr.training.loop import Schedule
from pulse_sr.training.processes import Processes
from pulse_sr.training.run import Machine
from pulse_sr.training.sr.build import build_step
from pulse_sr.training.sr.config import SrConfig
from pulse_sr.training.sr.losses import DIGITS_NAME, PLAIN
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.plan import SrTrainer
from pulse_sr.training.sr.task import SrTask

MISSING = "weights missing"
#: Points of a curve.
POINTS = 5
Document = dict[str, Any]
#: `[N, 3, h, w]` in [0, 1] to s times as large.
Enlarge = Callable[[Tensor], Tensor]
Scores = dict[str, float]


@dataclass(frozen=True)
class Data:
    """What rows of a kind learn from, and what they are scored on.

    Attributes:
        source: all pictures.
        skipped: so many of the first ones are held back.
        truths: the held-back pictures, uint8 `[N, 3, H, W]` of equal size each.
        labels: of the held-back digits `[N]`; None: photos.
        judge: reads them.
        made: what `pairs` gave before, by scale and operator.
    """

    source: ImageSource
    skipped: int
    truths: list[Tensor]
    labels: Tensor | None = None
    judge: DigitClassifier | None = None
    made: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def pairs(self, config: SrConfig) -> list[tuple[Tensor, Tensor]]:
        """Low-res and true pictures `[N, 3, ...]` in [0, 1], made as a recipe says."""
        if (config.scale, config.operator) not in self.made:
            self.made[config.scale, config.operator] = list(self._pairs(config))
        return self.made[config.scale, config.operator]

    def _pairs(self, config: SrConfig) -> Iterator[tuple[Tensor, Tensor]]:
        for truth in self.truths:
            height, width = (side // config.scale * config.scale for side in truth.shape[-2:])
            high = truth[..., :height, :width]
            size = (height // config.scale, width // config.scale)
            operator = make_operator(config.operator, size, (height, width))
            low = operator(high.double() / 255).clamp(0, 1).mul(255).round() / 255
            yield low.float(), high / 255


def main() -> None:
    """Trains what is missing, writes the results after every row, and prints the findings."""
    options = _options()
    if options.list:
        print("\n".join(ROWS))
        return
    torch.set_num_threads(1)
    names = options.row or list(ROWS)
    data = _data(options, {ROWS[name].data for name in names})
    for name in names:
        for seed in options.seeds:
            if ROWS[name].data in data:
                _complete(name, seed, data[ROWS[name].data], options)
    document = summary(stored_rows(options.results))
    for each in document["tables"]["findings"]["rows"]:
        print(f"{each['table']:12} {each['verdict']:28} {each['says']} ({each['row']})")
    if options.curves:
        write_atomic(options.curves, draw(document["rows"]))


def _complete(name: str, seed: int, data: Data, options: argparse.Namespace) -> None:
    """Trains and scores a row, if the results lack it."""
    row = ROWS[name]
    if not row.trained and seed != options.seeds[0]:
        return
    config = replace(row.config.stretched(options.kimg or BUDGETS[row.data]), seed=seed)
    mark = hashlib.sha256(json.dumps(config.to_json()).encode()).hexdigest()[:12]
    begun = {"row": name, "seed": seed, "config": mark, "kimg": config.images / 1000}
    if any(begun.items() <= row.items() for row in stored_rows(options.results)):
        return
    if row.trained:
        found = run_row(data, config, options.weights_dir)
    else:
        found = {"status": "ok", "scores": scores(_bicubic(config.scale), data, config)}
    store(begun | found, options.results)
    print(json.dumps(begun | found), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in ("photos", "faces"):
        parser.add_argument(f"--{kind}", type=Path, nargs=2, metavar=("DATA", "HELD_BACK"))
    parser.add_argument("--digits", type=Path, nargs=2, metavar=("IMAGES", "LABELS"))
    parser.add_argument("--row", nargs="*", choices=ROWS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--kimg", type=float, help="thousands of patches of a row")
    parser.add_argument("--limit", type=int, default=8, help="held-back photos, and faces")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--results", type=Path, default=Path("docs/results/sr-experiments.json"))
    parser.add_argument("--curves", type=Path, help="a PNG of all rows")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    options = parser.parse_args()
    if options.digits and not options.judge:
        parser.error("--digits expects --judge")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    return options


def _data(options: argparse.Namespace, kinds: set[str]) -> dict[str, Data]:
    found = {}
    for kind in kinds & {"photos", "faces"}:
        if folders := getattr(options, kind):
            paths = find_images([str(folders[1])])[: options.limit]
            truths = [torch.from_numpy(_middle(read_image(path).pixels))[None] for path in paths]
            found[kind] = Data(open_source(folders[0]), 0, truths)
    if options.digits and "digits" in kinds:
        source = IdxSource(options.digits[0])
        count = len(source.names) // 10
        digits = torch.from_numpy(read_idx(options.digits[0])[:count].copy())
        labels = torch.from_numpy(read_idx(options.digits[1])[:count].copy()).long()
        judge = DigitClassifier().eval()
        judge.load_state_dict(read_tensors(options.judge / DIGITS_NAME))
        truths = [digits[:, None].expand(-1, 3, -1, -1)]
        found["digits"] = Data(source, count, truths, labels, judge)
    return found


def _middle(pixels: Pixels) -> Pixels:
    """The middle square of the side that SqueezeNet sees without enlarging."""
    top, left = (max(0, (side - LEAST_SIDE) // 2) for side in pixels.shape[-2:])
    return pixels[:, top : top + LEAST_SIDE, left : left + LEAST_SIDE].copy()


def _bicubic(scale: int) -> Enlarge:
    way = bicubic(scale)

    def enlarge(low: Tensor) -> Tensor:
        made = [way((each * 255).round().byte().numpy()) for each in low]
        return torch.from_numpy(np.stack(made)) / 255

    return enlarge


def run_row(data: Data, config: SrConfig, weights: Path | None) -> Document:
    """Trains a row and scores its averaged network."""
    machine = Machine(torch.device("cpu"), False, None, False, Processes())
    try:
        step = build_step(config, machine, weights)
    except SetupError as error:
        return {"status": MISSING, "reason": error.message}
    photos = list_photos(data.source, config.side)
    kept = tuple(place for place in photos.positions if place >= data.skipped)
    stream = CropStream(replace(photos, positions=kept), config.side, config.seed, config.per_photo)
    started, curve, due = time.process_time(), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        trainer = SrTrainer(stream, Path(folder), SrTask(step, Pairs(config)))
        network = trainer.averages.first.eval()
        for progress in trainer.train(Schedule(config.images, snapshot_images=math.inf)):
            if progress.images >= due or progress.images >= config.images:
                due += config.images / POINTS
                curve.append([progress.images, scores(network, data, config, False)["psnr"]])
    spent = {"status": "ok", "cpu_seconds": round(time.process_time() - started, 1), "curve": curve}
    return spent | {"scores": scores(network, data, config), "weights": _digest(network)}


def _digest(network: torch.nn.Module) -> str:
    total = hashlib.sha256()
    for value in network.state_dict().values():
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()[:12]


@torch.no_grad()
def scores(enlarge: Enlarge, data: Data, config: SrConfig, all_of_them: bool = True) -> Scores:
    """Means over the held-back pictures; else the PSNR alone, which takes little time."""
    found: dict[str, list[Tensor]] = {}
    for low, high in data.pairs(config):
        made = (enlarge(low).clamp(0, 1) * 255).round() / 255
        here = {"psnr": psnr(made, high).clamp(max=100.0)}
        if all_of_them:
            here |= _other_scores(made, high, data)
        for name, values in here.items():
            found.setdefault(name, []).append(values.double())
    return {name: round(float(torch.cat(each).mean()), 5) for name, each in found.items()}


def _other_scores(made: Tensor, high: Tensor, data: Data) -> dict[str, Tensor]:
    found = {"ssim": ssim(made, high)}
    if data.judge is not None:
        right = data.judge(grey_of(made)[:, None]).argmax(dim=1) == data.labels
        return found | {"accuracy": right.float()}
    log_spectrum = PLAIN["fft-log"](made, high)[None]
    return found | {"distance": feature_distance(made, high), "log_spectrum": log_spectrum}


def stored_rows(file: Path) -> list[Document]:
    """The rows that are done."""
    return list(json.loads(file.read_text())["rows"]) if file.exists() else []


def store(row: Document, file: Path) -> None:
    """Adds a row, in the place of one of other settings; several processes may write one file."""
    with folder_lock(file.parent):
        place = (row["row"], row["seed"])
        kept = [each for each in stored_rows(file) if (each["row"], each["seed"]) != place]
        write_text_atomic(file, json.dumps(summary([*kept, row]), indent=1) + "\n")


if __name__ == "__main__":
    main()
