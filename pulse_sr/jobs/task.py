"""The unit of work: one input of a run, and the fingerprint that tells whether it was done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_sr.config import SearchConfig
from pulse_sr.errors import PulseError
from pulse_sr.files.digest import file_sha256
from pulse_sr.images.face import FaceOfPhoto

#: Part of every fingerprint: raise it when equal settings start to give other pixels.
REVISION = 6

#: What is done with a photo none of whose faces is searched.
ENLARGE = "enlarge"


@dataclass(frozen=True)
class Input:
    """An input of a job.

    Attributes:
        path: the file.
        sha256: of its bytes; empty if it can not be opened.
        stem: its name in the folder of the job.
    """

    path: Path
    sha256: str
    stem: str


@dataclass(frozen=True, kw_only=True)
class Task(Input):
    """What a run will do with one input, or with one face of a photo.

    Attributes:
        fingerprint: see `fingerprint`.
        action: "search" (all samples), "extend" (some are there), "skip" (complete), "enlarge" or
            "failed_before".
        indices: the samples to search, from 0.
        base: the stem of the input, also where its faces have folders of their own.
        earlier: the manifest row of the failure, for "failed_before".
        face: the face of the photo that is searched; None: the whole picture is.
        left_out: of a photo that is only enlarged, why each of its faces is left as it is.
        refusal: why the input can not be searched, known before the run; None if it can.
    """

    fingerprint: str
    action: str
    indices: tuple[int, ...]
    base: str
    earlier: dict[str, Any] | None = None
    face: FaceOfPhoto | None = None
    left_out: tuple[str, ...] = ()
    refusal: PulseError | None = None


def fingerprint(input_sha256: str, prior_sha256: str, config: SearchConfig) -> str:
    """Returns a sha256 over the input, the prior and every option that decides the pixels.

    The number of samples, the device and all paths are left out (`SearchConfig.pixel_options`); a
    mask is there by its content. With `--operator auto` the choice follows from what is there.

    Raises:
        UsageError: a mask file can not be read.
    """
    identity = {
        "revision": REVISION,
        "input": input_sha256,
        "prior": prior_sha256,
        "options": config.pixel_options(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def sha256_of_input(path: Path) -> str:
    """Returns the sha256 of an input's bytes, or an empty string if it can not be read."""
    if not path.is_file():  # opening a pipe would wait
        return ""
    try:
        return file_sha256(path)
    except OSError:
        return ""
