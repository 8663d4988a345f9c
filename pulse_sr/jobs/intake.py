"""The inputs of a run as what is searched: whole pictures, or the faces of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pulse_sr.alignment.geometry import framing_of
from pulse_sr.alignment.intake import SURELY_LOW_RES, PhotoFaces, faces_to_search, identity_of
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.errors import PulseError
from pulse_sr.images.face import FaceOfPhoto, face_of_record
from pulse_sr.images.read import read_image, read_size
from pulse_sr.jobs.manifest import Row, base_of
from pulse_sr.jobs.result_record import read_record
from pulse_sr.jobs.stems import Names, face_names
from pulse_sr.jobs.task import Input, fingerprint
from pulse_sr.operators.spec import AUTO, parse_operator
from pulse_sr.priors.base import Prior

#: How a face of a photo becomes a low-res face where nothing else was asked for.
OWN_OPERATOR = "bicubic"


@dataclass(frozen=True)
class Part:
    """What is one task of an input.

    Attributes:
        stem: of its folder.
        face: of a photo; None: the whole picture.
        left_out: of a photo that is only enlarged, why each of its faces is left as it is.
    """

    stem: str
    face: FaceOfPhoto | None = None
    left_out: tuple[str, ...] = ()


class Intake:
    """Decides for each input of a run what is searched.

    The pixels of a photo are not kept for the search: a plan has room for any number of inputs. So
    a photo is decoded here and again before its first face is searched; a picture that is
    surely a low-res face is decoded there alone.

    Args:
        out: the run folder.
        rows: of its manifest.
        config: the settings of the search.
        prior: the prior; its card names the framing.
        options: which faces of photos.
        stems: the stems of all inputs, whose names the faces must not take.
    """

    def __init__(
        self,
        out: Path,
        rows: Sequence[Row],
        config: SearchConfig,
        prior: Prior,
        options: RunOptions,
        stems: Sequence[str],
    ) -> None:
        self.out, self.config, self.prior, self.options = out, config, prior, options
        self.names = Names(rows, stems)
        self.rows: dict[str, list[Row]] = {}
        for row in rows:
            self.rows.setdefault(base_of(row), []).append(row)

    def parts(self, entry: Input) -> list[Part]:
        """Returns what is searched of one input: the faces of a photo, or the whole picture.

        Raises:
            InputError: there is nothing to search in the photo.
            SetupError: the face detector can not work.
        """
        faces = self._recorded(entry)
        if faces is None:
            found = self._look(entry.path)
            if found is None or not found.searched:
                return [Part(entry.stem, left_out=() if found is None else found.left_out)]
            faces = found.searched
        names = face_names(entry.stem, faces[0].of, self.names)
        return [Part(names[face.index - 1], face) for face in faces]

    def _look(self, path: Path) -> PhotoFaces | None:
        """Finds the faces; a file that can not be read is left to the search, which says so."""
        if self.options.align == "never" or not parse_operator(self._operator).of_a_face:
            return None
        try:
            if self.options.align == "auto" and max(read_size(path)) <= SURELY_LOW_RES:
                return None
            image = read_image(path)
        except PulseError:
            return None
        return faces_to_search(
            image,
            self.prior.resolution,
            framing_of(self.prior.card),
            self._landmarks,
            self.options,
            operator=self._operator,
            scale=self.config.scale,
            fit=self.config.fit,
        )

    @cached_property
    def _operator(self) -> str:
        """What makes low-res faces of crops; with "auto" there is nothing to find out."""
        return OWN_OPERATOR if self.config.operator.strip() == AUTO else self.config.operator

    def _recorded(self, entry: Input) -> tuple[FaceOfPhoto, ...] | None:
        """The faces that an earlier run found with equal settings; None if it has to be looked."""
        faces = []
        for row in self.rows.get(entry.stem, []):
            record = read_record(self.out / row["stem"]) or {}
            face = face_of_record(record.get("face"))
            if face is None or row.get("sha256") != entry.sha256:
                return None
            identity = identity_of(face, entry.sha256)
            if record.get("fingerprint") != fingerprint(identity, self.prior.sha256, self.config):
                return None
            if {**record, **self.options.selection()} != record:
                return None
            faces.append(face)
        faces.sort(key=lambda face: face.index)
        return tuple(faces) if faces and faces[0].searched == len(faces) else None

    @cached_property
    def _landmarks(self) -> Landmarks:
        from pulse_sr.alignment.landmarks.choice import make_landmarks

        return make_landmarks()
