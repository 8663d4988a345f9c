"""The inputs of a run as what is searched: whole pictures, or the faces of a photo."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pulse_sr.alignment.geometry import framing_of
from pulse_sr.alignment.intake import FaceOfPhoto, face_of_record, faces_to_search
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, PulseError
from pulse_sr.images.read import read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import Row, base_of, read_rows
from pulse_sr.jobs.stems import Input, Names, face_names
from pulse_sr.jobs.task import fingerprint
from pulse_sr.operators.spec import AUTO, parse_operator

log = logging.getLogger(__name__)

#: How a face of a photo becomes a low-res face where nothing else was asked for.
OWN_OPERATOR = "bicubic"


@dataclass(frozen=True)
class Target:
    """One folder of a run, before it is known what there is to do.

    Attributes:
        stem: name of the folder.
        base: stem of the input.
        mark: the fingerprint.
        face: the face of the photo, None for the whole picture.
        refusal: why there is nothing to search in the input.
    """

    stem: str
    base: str
    mark: str
    face: FaceOfPhoto | None = None
    refusal: PulseError | None = None


class Intake:
    """Decides for each input of a run what is searched.

    Args:
        out: the run folder.
        config: the settings of the search.
        prior: the prior; its card names the framing.
        align: "auto", "always" or "never".
        stems: the stems of all inputs, whose names the faces must not take.
    """

    def __init__(
        self, out: Path, config: SearchConfig, prior: Any, align: str, stems: Sequence[str]
    ) -> None:
        self.out, self.config, self.prior, self.align = out, config, prior, align
        rows = read_rows(out)
        self.names = Names(rows, stems)
        self.rows: dict[str, list[Row]] = {}
        for row in rows:
            self.rows.setdefault(base_of(row), []).append(row)

    def targets(self, entry: Input) -> list[Target]:
        """Returns what is searched of one input; a photo that shows nothing is one refused target.

        Raises:
            SetupError: the face detector can not work.
        """
        path, sha256, stem = entry.path, entry.sha256, entry.stem
        try:
            faces = self._recorded(sha256, stem)
            if faces is None:
                faces = self._look(path)
        except InputError as refusal:
            mark = self._mark(f"{sha256} {self.align}")
            return [Target(stem, stem, mark, refusal=refusal)]
        if not faces:
            return [Target(stem, stem, self._mark(sha256))]
        names = face_names(stem, len(faces), self.names)
        return [
            Target(name, stem, self._mark(face.identity(sha256)), face)
            for name, face in zip(names, faces, strict=True)
        ]

    def _mark(self, identity: str) -> str:
        return fingerprint(identity, self.prior.sha256, self.config)

    def _look(self, path: Path) -> list[FaceOfPhoto]:
        """Finds the faces; a file that can not be read is left to the search, which says so."""
        operator = self._operator
        if self.align == "never" or not parse_operator(operator).of_a_face:
            return []
        try:
            image = read_image(path)
        except PulseError:
            return []
        config = self.config
        return faces_to_search(
            image,
            self.prior.resolution,
            framing_of(self.prior.card),
            self._landmarks,
            mode=self.align,
            operator=operator,
            scale=config.scale,
            fit=config.fit,
        )

    @property
    def _operator(self) -> str:
        """What makes low-res faces of crops; with "auto" there is nothing to find out."""
        return OWN_OPERATOR if self.config.operator.strip() == AUTO else self.config.operator

    def _recorded(self, sha256: str, stem: str) -> list[FaceOfPhoto] | None:
        """The faces that an earlier run found with equal settings; None if it has to be looked."""
        faces = []
        for row in self.rows.get(stem, []):
            record = store.read_record(self.out / row["stem"]) or {}
            entry = record.get("face")
            if not isinstance(entry, dict) or row.get("sha256") != sha256:
                return None
            try:
                face = face_of_record(entry)
            except (KeyError, TypeError, ValueError):
                return None
            if record.get("align") != self.align:
                return None
            if record.get("fingerprint") != self._mark(face.identity(sha256)):
                return None
            faces.append(face)
        faces.sort(key=lambda face: face.index)
        whole = [face.index for face in faces] == list(range(1, len(faces) + 1))
        return faces if faces and whole and faces[0].of == len(faces) else None

    @cached_property
    def _landmarks(self) -> Landmarks:
        from pulse_sr.alignment.landmarks.choice import make_landmarks

        return make_landmarks()
