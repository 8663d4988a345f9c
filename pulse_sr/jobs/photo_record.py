"""What is read back of `photo.json`, the record of a photo with all its faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Required, TypedDict

from pulse_sr.files.documents import FileName, Place, Side, read_json
from pulse_sr.jobs.manifest import PHOTO
from pulse_sr.jobs.result_record import InputShape

Corner = tuple[float, float]


class FaceShape(TypedDict):
    """A face, its quad in the enlarged photo."""

    stem: FileName
    number: Place
    quad: tuple[Corner, Corner, Corner, Corner]


class BackgroundShape(TypedDict, total=False):
    """What enlarged the photo outside its faces."""

    source: str
    network: str


class PhotoShape(TypedDict, total=False):
    """What is read back of `photo.json`."""

    input: Required[InputShape]
    fingerprint: Required[str]
    upscale: Required[Place]
    width: Required[Side]
    height: Required[Side]
    files: Required[list[FileName]]
    faces: Required[list[FaceShape]]
    left_out: Required[list[str]]
    background: BackgroundShape


def read_photo(folder: Path) -> dict[str, Any] | None:
    """Returns the `photo.json` of a folder, or None if it is missing or damaged."""
    document: dict[str, Any] | None = read_json(folder / PHOTO, PhotoShape)
    return document
