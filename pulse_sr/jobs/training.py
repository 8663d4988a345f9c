"""A training run as a person follows it: pictures, scores, best prior and card beside the state.

RUN/fakes-000020.png     64 samples of fixed seeds at 20 thousand images
RUN/interpolation.png    ways between fixed samples
RUN/neighbours.png       samples beside their nearest training images
RUN/curves.png           the log and the scores
RUN/scores.jsonl         the scores; RUN/best.safetensors the prior of the best one
RUN/README.md            the model card
RUN/latents.safetensors  the seed bank of the prior, at the end
RUN/tb                   TensorBoard events, if they were asked for

The trainer writes the state, the prior and the log; this module only looks at them.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pulse_sr.files.atomic import write_atomic, write_text_atomic
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.write import write_png
from pulse_sr.jobs.score_book import ScoreBook
from pulse_sr.jobs.scoring import FIRST_SEED, Scorer, Scores, read_images
from pulse_sr.jobs.training_card import card_facts
from pulse_sr.metrics.feature_networks import judge_of
from pulse_sr.metrics.image_set import FRECHETS, KERNELS, SPREAD
from pulse_sr.metrics.neighbours import TrainingImages
from pulse_sr.priors.bank import write_bank
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME, read_prior
from pulse_sr.report.training_card import render_card
from pulse_sr.report.training_curves import draw_curves
from pulse_sr.report.training_history import read_history
from pulse_sr.report.training_neighbours import Neighbourhood, neighbour_sheet
from pulse_sr.report.training_tensorboard import TensorBoardLog
from pulse_sr.training.collapse import CollapseWatch
from pulse_sr.training.gan.plan import PriorTrainer
from pulse_sr.training.log import read_log
from pulse_sr.training.loop import Progress, Schedule, Trainer, crossed
from pulse_sr.training.options import Observation
from pulse_sr.training.snapshot import interpolation_strip, sample_grid

CARD_NAME = "README.md"
#: What both cards say of the checkpoint that they are of.
_SHOWN = re.compile(r"^\| training \| ([\d,]+) (?:images shown|patches) in ", re.MULTILINE)
#: Samples of the neighbour sheet: so many of fixed seeds, and the nearest ones of those scored.
_SHEET_SAMPLES, _SHEET_NEIGHBOURS = 6, 3
#: Held-back images that are read at most.
_MOST_HELD_BACK = 5000


class Looks(ABC):
    """Looks at a run while it trains, and first at what a kill left unseen.

    The card is written last: the checkpoint that it speaks of has been looked at.

    Args:
        trainer: of the run.
        book: its scores so far.
        watch: tells of losses that speak of a collapse.
        say: called with a line for the user: scores, warnings.
        tensorboard: write events.
        scored: whether checkpoints are scored.
    """

    trainer: Trainer

    def __init__(
        self,
        trainer: Trainer,
        book: ScoreBook,
        watch: CollapseWatch,
        say: Callable[[str], None],
        *,
        tensorboard: bool,
        scored: bool,
    ) -> None:
        run_dir, images = trainer.run_dir, trainer.images_shown
        self.trainer, self._book, self._watch, self._say = trainer, book, watch, say
        self._scored = scored
        self._events = TensorBoardLog(run_dir / "tb", images) if tensorboard else None
        self._history = read_history(trainer.log_file, images)

    def catch_up(self, schedule: Schedule) -> None:
        """Look at the checkpoint the run goes on from, if a kill came before that was done."""
        images = self.trainer.images_shown
        ended = images >= schedule.until_images
        unscored = ended and self._scored and images > self._book.last_images
        if images and (unscored or _images_of_card(self.trainer.run_dir / CARD_NAME) != images):
            log = read_log(self.trainer.log_file, images - 1)
            before = max((record["images"] for record in log), default=0)
            self._see(ended or crossed(before, images, schedule.snapshot_images))

    def follow(self, progress: Progress) -> None:
        """Take in a record of the run; look at the network where it is time to."""
        self._history.add(progress.to_json())
        for line in self._watch.observe(progress.images, progress.losses):
            self._say(f"warning: {line}")
        if self._events is not None:
            self._events.add_scalars("training", progress.images, progress.to_json())
        if progress.checkpointed:
            self._see(progress.snapshot)

    @abstractmethod
    def _see(self, snapshot: bool) -> None:
        """Write what a checkpoint shows, the card last; of a snapshot pictures and scores too."""

    def close(self) -> None:
        """Finish what is written bit by bit."""
        if self._events is not None:
            self._events.close()


def _images_of_card(card: Path) -> int | None:
    """How many images the run had been shown when its card was written; None: it does not say."""
    try:
        found = _SHOWN.search(card.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(found[1].replace(",", "")) if found else None


def follow_training(
    trainer: Trainer,
    schedule: Schedule,
    report: Callable[[Progress], None],
    begin: Callable[[], Looks],
) -> bool:
    """Train to the end of the schedule, with somebody looking.

    Of several processes only the first one looks; the others wait for it in their next step.

    Args:
        trainer: of this process.
        schedule: when to stop, to checkpoint and to look.
        report: called with every record.
        begin: gives who looks; called before the first step, in the first process alone.

    Returns:
        whether this is the first process.
    """
    observer = begin() if trainer.processes.first else None
    if observer is not None:
        observer.catch_up(schedule)
    for progress in trainer.train(schedule):
        if observer is not None:
            observer.follow(progress)
        report(progress)
    if observer is not None:
        observer.close()
    return observer is not None


def run_training(
    trainer: PriorTrainer,
    schedule: Schedule,
    observation: Observation,
    report: Callable[[Progress], None],
    say: Callable[[str], None],
) -> None:
    """Train to the end of the schedule, looking at every snapshot and writing what was seen.

    A checkpoint whose scores a kill prevented is scored first. Of several processes only the first
    one looks; the others wait for it in their next step. At the end, the seed bank of the prior is
    written: while the prior changes, one would be stale at the next checkpoint.

    Args:
        trainer: of this process.
        schedule: when to stop, to checkpoint and to look.
        observation: what to look at.
        report: called with every record.
        say: called with a line for the user: scores, warnings.

    Raises:
        UsageError: for a folder or a file of `observation` that is not there.
        SetupError: when the disk is full.
    """

    if not follow_training(trainer, schedule, report, lambda: Observer(trainer, observation, say)):
        return
    file = trainer.run_dir / FILE_NAME
    if file.is_file():
        write_bank(read_prior(file, trainer.device), file)


class Observer(Looks):
    """Everything that is kept between two looks at the training of a prior."""

    trainer: PriorTrainer

    def __init__(
        self, trainer: PriorTrainer, observation: Observation, say: Callable[[str], None]
    ) -> None:
        self.trainer, self.observation = trainer, observation
        self._scorer = self._make_scorer() if observation.samples else None
        if self._scorer is None:
            self._training = TrainingImages(trainer.images, trainer.config.mirror)
        else:
            self._training = self._scorer.training
        self._reference = None if self._scorer is None else self._scorer.reference_scores()
        super().__init__(
            trainer,
            ScoreBook(trainer.run_dir, trainer.images_shown),
            CollapseWatch(),
            say,
            tensorboard=observation.tensorboard,
            scored=self._scorer is not None,
        )

    def _make_scorer(self) -> Scorer:
        observation, trainer = self.observation, self.trainer
        held_back = None
        if observation.held_back is not None:
            side = trainer.images.shape[-1]
            held_back = read_images(
                observation.held_back, side, _MOST_HELD_BACK, observation.member
            )
        return Scorer(
            trainer.images,
            observation.samples,
            mirror=trainer.config.mirror,
            held_back=held_back,
            inception=observation.inception,
            cache=trainer.run_dir,
            device=trainer.device,
            network=judge_of(trainer.config.trained_with),
        )

    def _see(self, snapshot: bool) -> None:
        prior = self.trainer.prior()
        if snapshot:
            self._look(prior)
        self._write_curves()
        self._write_card(prior)

    def _look(self, prior: Prior) -> None:
        images, run_dir = self.trainer.images_shown, self.trainer.run_dir
        grid = sample_grid(prior)
        write_png(run_dir / grid_name(images), grid)
        write_png(run_dir / "interpolation.png", interpolation_strip(prior))
        scores = None if self._scorer is None else self._score(prior, self._scorer)
        self._write_neighbours(prior, scores)
        if self._events is not None:
            self._events.add_picture("samples", images, grid)
            self._events.flush()

    def _score(self, prior: Prior, scorer: Scorer) -> Scores:
        trainer, started = self.trainer, time.perf_counter()
        scores = scorer.score(prior)
        record: dict[str, Any] = {
            "images": trainer.images_shown,
            "seconds": round(trainer.seconds, 3),
            "samples": scorer.samples,
            "references": scorer.references,
            "scores": scores.values,
        }
        best, judge = self._book.add(record), scorer.network.name
        frechet, kernel = FRECHETS[judge], KERNELS[judge]
        self._say(
            f"{trainer.images_shown / 1000:.1f} kimg  {frechet} {scores.values[frechet]:.3f}  "
            f"{kernel} {scores.values[kernel]:.3f}  ({scorer.samples} samples, "
            f"{time.perf_counter() - started:.0f} s{', best so far' if best else ''})"
        )
        for line in self._watch.observe_spread(trainer.images_shown, scores.values[SPREAD]):
            self._say(f"warning: {line}")
        if self._events is not None:
            self._events.add_scalars("scores", trainer.images_shown, scores.values)
        return scores

    def _write_neighbours(self, prior: Prior, scores: Scores | None) -> None:
        seeds, kimg = list(range(_SHEET_SAMPLES)), self.trainer.images_shown / 1000
        about = f"{prior.name} at {kimg:.1f} thousand images: fixed seeds"
        threshold = None
        if scores is not None and self._scorer is not None:
            nearest = scores.distances.argsort(stable=True)[:_SHEET_SAMPLES]
            seeds += [FIRST_SEED + int(place) for place in nearest]
            about += f"; on the right the nearest of {self._scorer.samples} samples"
            threshold = self._scorer.threshold
        rows = [neighbourhood(prior, seed, self._training) for seed in seeds]
        sheet = neighbour_sheet(rows, about, threshold)
        write_png(self.trainer.run_dir / "neighbours.png", sheet)

    def _write_curves(self) -> None:
        reference_scores = self._reference[1] if self._reference else {}
        picture = draw_curves(self._history, self._book.records, reference_scores)
        write_atomic(self.trainer.run_dir / "curves.png", picture)

    def _write_card(self, prior: Prior) -> None:
        others = self._scorer.others if self._scorer else ""
        facts = card_facts(
            self.trainer, prior, self._book, self._reference, others, self.observation.command
        )
        write_text_atomic(self.trainer.run_dir / CARD_NAME, render_card(facts))


def grid_name(images: int) -> str:
    """File name of the sample grid after so many images."""
    return f"fakes-{images // 1000:06d}.png"


def neighbourhood(prior: Prior, seed: int, training: TrainingImages) -> Neighbourhood:
    """A sample and the training images that it is nearest to."""
    sample = to_uint8(prior.sample([seed]).cpu().numpy())
    found = training.nearest(torch.from_numpy(sample), min(_SHEET_NEIGHBOURS, len(training.images)))
    images = training.images[found.indices[0].numpy()].copy()
    mirrored = found.mirrored[0].numpy()
    images[mirrored] = images[mirrored][..., ::-1]
    return Neighbourhood(sample[0], f"seed {seed}", images, found.distances[0].tolist())
