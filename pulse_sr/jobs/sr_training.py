"""A supervised training as a person follows it: pictures, scores, curves and card beside the state.

RUN/enlarged-000020.png  input, bicubic, network and truth of fixed patches at 20 thousand patches
RUN/curves.png           the log and the scores
RUN/scores.jsonl         PSNR on held-back photos; RUN/best.safetensors the network of the best one
RUN/README.md            the card of the network
RUN/tb                   TensorBoard events, if they were asked for

The trainer writes the state, the network and the log; this module only looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pulse_sr.data.open import open_source
from pulse_sr.data.picture import decode_whole
from pulse_sr.data.sources import ImageSource
from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import write_atomic, write_text_atomic
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.write import write_png
from pulse_sr.jobs.score_book import ScoreBook
from pulse_sr.jobs.training import CARD_NAME, Looks, follow_training
from pulse_sr.jobs.training_card import device_name
from pulse_sr.metrics.psnr import luma_psnr
from pulse_sr.operators.degrading import degrade
from pulse_sr.report.sr_card import SrCardFacts, render_sr_card
from pulse_sr.report.training_curves import draw_curves
from pulse_sr.sr.enlarging import Enlarge, bicubic, by_network
from pulse_sr.sr.files import read_model_header
from pulse_sr.training.collapse import CollapseWatch
from pulse_sr.training.loop import Progress, Schedule
from pulse_sr.training.snapshot import tile
from pulse_sr.training.sr.options import SrObservation
from pulse_sr.training.sr.plan import SrTrainer

SCORE = "PSNR Y, dB"
_PATCHES = 6
#: Held-back photos that are scored at most.
_MOST_HELD_BACK = 100


def run_sr_training(
    trainer: SrTrainer,
    schedule: Schedule,
    observation: SrObservation,
    report: Callable[[Progress], None],
    say: Callable[[str], None],
) -> None:
    """Train to the end of the schedule, looking at every snapshot and writing what was seen.

    Of several processes only the first one looks; the others wait for it in their next step.

    Args:
        trainer: of this process.
        schedule: when to stop, to checkpoint and to look.
        observation: what to look at.
        report: called with every record.
        say: called with a line for the user: scores, warnings.

    Raises:
        UsageError: what is held back is not there.
        InputError: one of the photos that are held back can not be read.
        SetupError: when the disk is full.
    """
    follow_training(trainer, schedule, report, lambda: SrObserver(trainer, observation, say))


def held_back_photos(observation: SrObservation) -> ImageSource | None:
    """The photos that are scored.

    Raises:
        UsageError: there is no such thing, or there are no photos in it.
    """
    if observation.held_back is None:
        return None
    source = open_source(observation.held_back, observation.member)
    if not source.names:
        raise UsageError(f"--held-back {source.location} holds no photo to score", "add some")
    return source


class SrObserver(Looks):
    """Everything that is kept between two looks at the training of a network."""

    trainer: SrTrainer

    def __init__(
        self, trainer: SrTrainer, observation: SrObservation, say: Callable[[str], None]
    ) -> None:
        self.trainer, self.observation = trainer, observation
        self._source = held_back_photos(observation)
        self._bicubic = bicubic(trainer.config.scale)
        self._floor = {} if self._source is None else {SCORE: self._psnr(self._bicubic)}
        run_dir, images = trainer.run_dir, trainer.images_shown
        super().__init__(
            trainer,
            ScoreBook(run_dir, images, lambda scores: -scores[SCORE], read_model_header),
            CollapseWatch(trainer.task.steadier),
            say,
            tensorboard=observation.tensorboard,
            scored=self._source is not None,
        )

    def _see(self, snapshot: bool) -> None:
        if snapshot:
            self._look(by_network(self.trainer.model()))
        run_dir = self.trainer.run_dir
        words = "bicubic enlargement"
        curves = draw_curves(self._history, self._book.records, self._floor, words)
        write_atomic(run_dir / "curves.png", curves)
        write_text_atomic(run_dir / CARD_NAME, render_sr_card(self._card_facts()))

    def _look(self, enlarge: Enlarge) -> None:
        images, run_dir = self.trainer.images_shown, self.trainer.run_dir
        grid = self._grid(enlarge)
        write_png(run_dir / f"enlarged-{images // 1000:06d}.png", grid)
        if self._events is not None:
            self._events.add_picture("enlarged", images, grid)
        if self._source is None:
            return
        scores = {SCORE: self._psnr(enlarge)}
        record = {"images": images, "seconds": round(self.trainer.seconds, 3), "scores": scores}
        best = self._book.add(record)
        self._say(
            f"{images / 1000:.1f} k patches  {SCORE} {scores[SCORE]:.2f} (bicubic "
            f"{self._floor[SCORE]:.2f}; {self._held_back} photos{', best so far' * best})"
        )
        if self._events is not None:
            self._events.add_scalars("scores", images, scores)

    def _grid(self, enlarge: Enlarge) -> Pixels:
        """A row for each of some patches that are the same in every grid."""
        config = self.trainer.config
        rows = self.trainer.stream.batch(0, _PATCHES).numpy()
        cells: list[Pixels] = []
        for truth in rows:
            low = degrade(truth, config.operator, config.scale, np.random.default_rng(0))
            nearest = low.repeat(config.scale, axis=1).repeat(config.scale, axis=2)
            cells += [nearest, self._bicubic(low), enlarge(low), truth]
        return tile(torch.from_numpy(np.stack(cells) / 255.0), 4)

    def _psnr(self, enlarge: Enlarge) -> float:
        """Mean over the held-back photos, without a border of as many pixels as the scale."""
        scale = self.trainer.config.scale
        found = [luma_psnr(enlarge(low), truth, scale) for low, truth in self._pairs()]
        return float(np.mean(found))

    @property
    def _held_back(self) -> int:
        """How many photos are scored."""
        return 0 if self._source is None else min(len(self._source.names), _MOST_HELD_BACK)

    def _pairs(self) -> Iterator[tuple[Pixels, Pixels]]:
        assert self._source is not None  # nothing is scored otherwise
        config = self.trainer.config
        for number, opener in self._source.read(range(self._held_back)):
            photo = decode_whole(self._source.names[number], opener())
            height, width = (size // config.scale * config.scale for size in photo.shape[-2:])
            truth = photo[:, :height, :width]
            rng = np.random.default_rng(number)
            yield degrade(truth, config.operator, config.scale, rng), truth

    def _card_facts(self) -> SrCardFacts:
        trainer, best = self.trainer, self._book.best
        scores: Mapping[str, Any] = {} if best is None else best["scores"]
        model = trainer.model()
        grids = sorted(trainer.run_dir.glob("enlarged-*.png"))
        return SrCardFacts(
            name=model.name,
            architecture=model.architecture,
            scale=model.scale,
            parameters=sum(p.numel() for p in model.network.parameters()),
            recipe=trainer.config.title,
            source=trainer.config.source,
            card=model.card,
            images_shown=trainer.images_shown,
            seconds=trainer.seconds,
            device=device_name(trainer.device),
            command=self.observation.command,
            scores={SCORE: (scores[SCORE], self._floor[SCORE])} if scores else {},
            photos=self._held_back,
            grid=grids[-1].name if grids else "",
        )
