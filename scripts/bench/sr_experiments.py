"""Losses and optimizers of supervised super-resolution at equal small budgets, row by row.

Usage: python scripts/bench/sr_experiments.py -o RUNS [--photos DATA HELD_BACK]
           [--faces DATA HELD_BACK] [--digits IMAGES LABELS --weights-dir DIR --judge DIR]
           [--row NAME...] [--seeds N...] [--kimg F] [--limit N] [--results FILE] [--list]

Every row of `sr_experiment_rows.py` is trained with every seed, all rows of one seed first. Killed,
it goes on; what FILE holds is not trained again. DATA and HELD_BACK are what `train-sr` takes; of
IMAGES and LABELS (idx files of MNIST) the first tenth is held back. DIR of `--weights-dir` and
`--judge` are two classifiers of other seeds (`train_digit_classifier.py`): the one that digits are
learned from, and the one that reads the enlarged ones.

Scores are means over held-back pictures, rounded to 8 bits: "psnr" (dB, RGB, no border), "ssim",
"distance" (SqueezeNet features), "log_spectrum" (loss "fft-log"), "accuracy" (the judge). "curve"
is [patches, mean loss of the generator's pixels]... "cpu_seconds" are those of the last call.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sr_experiment_rows import FINDINGS, ROWS, Finding, Row
from torch import Tensor

from pulse_sr.data.crops import CropStream, list_photos
from pulse_sr.data.idx import IdxSource, read_idx
from pulse_sr.data.open import open_source
from pulse_sr.data.sources import ImageSource
from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import write_text_atomic
from pulse_sr.files.lock import folder_lock
from pulse_sr.files.tensors import read_tensors
from pulse_sr.images.find import find_images
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.read import read_image
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import LEAST_SIDE, feature_distance
from pulse_sr.operators.building import make_operator
from pulse_sr.sr.digit_classifier import DigitClassifier
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

#: A finding is one that holds, or does not, from so many seeds on that all say the same.
SEEDS_FOR_A_CLAIM = 3
MISSING = "weights missing"
Document = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What rows of a kind learn from, and what they are scored on.

    Attributes:
        source: all pictures.
        skipped: so many of the first ones are held back.
        kimg: thousands of patches of a row.
        truths: the held-back pictures, uint8 `[N, 3, H, W]` of equal size each.
        labels: of the held-back digits `[N]`; None: photos.
        judge: reads them.
    """

    source: ImageSource
    skipped: int
    kimg: float
    truths: list[Tensor]
    labels: Tensor | None = None
    judge: DigitClassifier | None = None

    def pairs(self, config: SrConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Low-res and true pictures `[N, 3, ...]` in [0, 1], made as a recipe says."""
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
    for seed in options.seeds:
        for name in names:
            if ROWS[name].data not in data:
                continue
            config = _config(ROWS[name], seed, data[ROWS[name].data].kimg)
            mark = hashlib.sha256(json.dumps(config.to_json()).encode()).hexdigest()[:12]
            begun = {"row": name, "seed": seed, "config": mark, "kimg": config.images / 1000}
            if any(begun.items() <= row.items() for row in stored_rows(options.results)):
                continue
            found = run_row(data[ROWS[name].data], config, options, f"{name}-{seed}-{mark}")
            store(begun | found, options.results)
            print(json.dumps(begun | found), flush=True)
    rows = stored_rows(options.results)
    for each in summary(rows)["findings"]:
        print(f"{each['table']:12} {each['verdict']:28} {each['says']}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("held_back", type=Path, nargs="?")
    parser.add_argument("-o", "--out", type=Path, default=Path("experiments"))
    parser.add_argument("--row", nargs="*", choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--kimg", type=float, default=4.0, help="thousands of patches of a row")
    parser.add_argument("--limit", type=int, default=8, help="held-back photos")
    parser.add_argument("--digits", type=Path, nargs=2, metavar=("IMAGES", "LABELS"))
    parser.add_argument("--digits-kimg", type=float, default=8.0)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--results", type=Path, default=Path("docs/results/sr-experiments.json"))
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    options = parser.parse_args()
    if not (options.list or options.held_back or options.digits):
        parser.error("give PHOTOS and HELD_BACK, or --digits, or all of them")
    if options.digits and not options.judge:
        parser.error("--digits expects --judge")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    return options


def _data(options: argparse.Namespace, kinds: set[str]) -> dict[str, Data]:
    found = {}
    if options.held_back and "photos" in kinds:
        paths = find_images([str(options.held_back)])[: options.limit]
        truths = [torch.from_numpy(_middle(read_image(path).pixels))[None] for path in paths]
        found["photos"] = Data(open_source(options.photos), 0, options.kimg, truths)
    if options.digits and "digits" in kinds:
        source = IdxSource(options.digits[0])
        count = len(source.names) // 10
        digits = torch.from_numpy(read_idx(options.digits[0])[:count].copy())
        labels = torch.from_numpy(read_idx(options.digits[1])[:count].copy()).long()
        judge = DigitClassifier().eval()
        judge.load_state_dict(read_tensors(options.judge / DIGITS_NAME))
        truths = [digits[:, None].expand(-1, 3, -1, -1)]
        found["digits"] = Data(source, count, options.digits_kimg, truths, labels, judge)
    return found


def _middle(pixels: Pixels) -> Pixels:
    """The middle square of the side that SqueezeNet sees without enlarging."""
    top, left = (max(0, (side - LEAST_SIDE) // 2) for side in pixels.shape[-2:])
    return pixels[:, top : top + LEAST_SIDE, left : left + LEAST_SIDE].copy()


def _config(row: Row, seed: int, kimg: float) -> SrConfig:
    return replace(row.config.stretched(kimg), seed=seed)


def run_row(data: Data, config: SrConfig, options: argparse.Namespace, name: str) -> Document:
    """Trains a row, or goes on with it, and scores its averaged network."""
    folder = options.out / name
    machine = Machine(torch.device("cpu"), False, None, False, Processes())
    try:
        step = build_step(config, machine, options.weights_dir)
    except SetupError as error:
        return {"status": MISSING, "reason": error.message}
    photos = list_photos(data.source, config.side)
    kept = tuple(place for place in photos.positions if place >= data.skipped)
    stream = CropStream(replace(photos, positions=kept), config.side, config.seed, config.per_photo)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = SrTrainer(stream, folder, SrTask(step, Pairs(config), name), photos.content_sha256)
    started = time.process_time()
    for _ in trainer.train(Schedule(config.images, checkpoint_seconds=60.0, snapshot_images=1e9)):
        pass
    network = trainer.model().network.eval()
    found = {"status": "ok", "cpu_seconds": round(time.process_time() - started, 1)}
    return found | {"scores": scores(network, data, config), "weights": _digest(network)}


def _digest(network: torch.nn.Module) -> str:
    total = hashlib.sha256()
    for value in network.state_dict().values():
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()[:12]


@torch.no_grad()
def scores(network: torch.nn.Module, data: Data, config: SrConfig) -> dict[str, float]:
    """Means over the held-back pictures."""
    found: dict[str, list[Tensor]] = {}
    for low, high in data.pairs(config):
        made = (network(low).clamp(0, 1) * 255).round() / 255
        here = {"psnr": psnr(made, high).clamp(max=100.0), "ssim": ssim(made, high)}
        if data.judge is not None:
            right = data.judge(grey_of(made)[:, None]).argmax(dim=1) == data.labels
            here["accuracy"] = right.float()
        else:
            here["distance"] = feature_distance(made, high)
            here["log_spectrum"] = PLAIN["fft-log"](made, high)[None]
        for name, values in here.items():
            found.setdefault(name, []).append(values.double())
    return {name: round(float(torch.cat(each).mean()), 5) for name, each in found.items()}


def stored_rows(file: Path) -> list[Document]:
    """The rows that are done."""
    return list(json.loads(file.read_text())["rows"]) if file.exists() else []


def store(row: Document, file: Path) -> None:
    """Adds a row, in the place of one of other settings; several processes may write one file."""
    with folder_lock(file.parent):
        place = (row["row"], row["seed"])
        kept = [each for each in stored_rows(file) if (each["row"], each["seed"]) != place]
        write_text_atomic(file, json.dumps(summary([*kept, row]), indent=1) + "\n")


def summary(rows: list[Document]) -> Document:
    """The results with what they say of each finding."""
    return {
        "torch": torch.__version__,
        "findings": [judged(finding, rows) for finding in FINDINGS],
        "rows": sorted(rows, key=lambda each: (list(ROWS).index(each["row"]), each["seed"])),
    }


def judged(finding: Finding, rows: list[Document]) -> Document:
    """How many seeds agree with a finding."""
    first, second = (_by_seed(rows, name, finding.score) for name in (finding.row, finding.than))
    seeds = sorted(first.keys() & second.keys())
    held = sum(_agrees(finding.expects, first[seed], second[seed]) for seed in seeds)
    verdict = f"{held} of {len(seeds)} seeds, no claim"
    if len(seeds) >= SEEDS_FOR_A_CLAIM and held in (0, len(seeds)):
        verdict = "holds" if held else "does not hold"
    found: Document = {**vars(finding), "seeds": len(seeds), "agree": held, "verdict": verdict}
    if seeds and finding.score != "weights":
        found["means"] = [
            round(math.fsum(each[seed] for seed in seeds) / len(seeds), 5)
            for each in (first, second)
        ]
    return found


def _by_seed(rows: list[Document], name: str, score: str) -> Mapping[int, Any]:
    done = [each for each in rows if each["row"] == name and each["status"] == "ok"]
    if score == "weights":
        return {each["seed"]: each["weights"] for each in done}
    return {each["seed"]: each["scores"][score] for each in done}


def _agrees(expects: str, first: Any, second: Any) -> bool:
    if expects == "equal":
        return bool(first == second)
    return bool(first > second if expects == "higher" else first < second)


if __name__ == "__main__":
    main()
