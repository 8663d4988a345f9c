"""The scores of a run and its best prior.

scores.jsonl       one record a scored checkpoint: images, seconds, samples, references, scores
                   (value by name), and whether it was the best so far
best.safetensors   the prior of the last record that says `best`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pulse_sr.files.atomic import write_atomic, write_text_atomic
from pulse_sr.files.documents import Amount, Count, check_shape, json_line, record_in
from pulse_sr.metrics.image_set import FRECHETS
from pulse_sr.priors.files import FILE_NAME, read_header

SCORES_NAME, BEST_NAME = "scores.jsonl", "best.safetensors"


class RecordShape(TypedDict):
    """What is read back of a record."""

    images: Count
    seconds: NotRequired[Amount]
    scores: dict[str, float | None]
    best: bool


def frechet_of(scores: Mapping[str, float]) -> float:
    """The Fréchet distance among the scores of a prior: the lower the better."""
    return next(scores[name] for name in FRECHETS.values() if name in scores)


class ScoreBook:
    """The records of `scores.jsonl` as far as the state of the run goes.

    Attributes:
        records: in the order of images shown.
    """

    def __init__(
        self,
        run_dir: Path,
        images_shown: int,
        judged_by: Callable[[Mapping[str, float]], float] = frechet_of,
        header_of: Callable[[Path], dict[str, Any]] = read_header,
    ) -> None:
        """Read the scores; drop those of checkpoints that lie after the state.

        Args:
            run_dir: folder of the run.
            images_shown: up to its state.
            judged_by: scores to the number that is lowest for the best model.
            header_of: reads the header of the model's file.

        Raises:
            SetupError: when the folder can not be written.
        """
        self._judged_by, self._header_of = judged_by, header_of
        self._run_dir, self._file = run_dir, run_dir / SCORES_NAME
        found, whole = _read(self._file)
        self.records = [record for record in found if record["images"] <= images_shown]
        dropped = found[len(self.records) :]
        if any(record["best"] for record in dropped):
            # Its weights took the place of those that an earlier record speaks of.
            (run_dir / BEST_NAME).unlink(missing_ok=True)
            self.records = [record | {"best": False} for record in self.records]
        if dropped or not whole:
            self._write()

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the prior in `best.safetensors`."""
        return next((record for record in reversed(self.records) if record["best"]), None)

    @property
    def last_images(self) -> int:
        """Images shown at the last scored checkpoint; 0 before the first."""
        return int(self.records[-1]["images"]) if self.records else 0

    def add(self, record: dict[str, Any]) -> bool:
        """Keep a record; where it is the best so far, `model.safetensors` too.

        One of the same checkpoint, which a kill came after, goes.

        Args:
            record: images, seconds and scores among its entries.

        Returns:
            whether it is the best.

        Raises:
            SetupError: when the disk is full.
        """
        self.records = [each for each in self.records if each["images"] < record["images"]]
        best = self.best
        value = self._judged_by(record["scores"])
        better = best is None or value < self._judged_by(best["scores"])
        better = better and math.isfinite(value) and self._keep_model(record["images"])
        self.records.append(record | {"best": better})
        self._write()
        return better

    def _keep_model(self, images: int) -> bool:
        """Copy the prior file, unless it belongs to another checkpoint, since a kill came before
        the state was written, or there is none yet, since the run goes on with another one."""
        model = self._run_dir / FILE_NAME
        if not model.is_file():
            return False
        written_at = self._header_of(model)["card"].get("training", {}).get("images", images)
        if written_at != images:
            return False
        write_atomic(self._run_dir / BEST_NAME, model.read_bytes())
        return True

    def _write(self) -> None:
        write_text_atomic(self._file, "".join(map(json_line, self.records)))


def _read(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """The records, and whether every line was one."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    found = [_record(each) for each in map(record_in, lines) if each is not None]
    records = [each for each in found if each is not None]
    return records, len(records) == len(lines)


def _record(found: dict[str, Any]) -> dict[str, Any] | None:
    """A record as it was added, nan for null; None for another JSON object."""
    try:
        check_shape(found, RecordShape)
    except ValueError:
        return None
    return found | {"scores": {k: math.nan if v is None else v for k, v in found["scores"].items()}}
