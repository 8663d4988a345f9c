"""What a set of images is worth as training data: a look at it that trains nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.alignment.duplicates import near_duplicates, perceptual_hash
from pulse_sr.data.decode import DecodedFile, decode_files
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import MIN_IMAGES, SMALLEST_RESOLUTION, require_resolution
from pulse_sr.data.sources import ImageSource


@dataclass(frozen=True)
class CheckedImage:
    """A readable image.

    Attributes:
        file: path below the data folder or in the tar.
        width: in pixels, after EXIF rotation.
        height: the same.
        phash: perceptual hash of the middle square.
        framing: how the face lies in it, from the sidecar of `align`; None without one.
    """

    file: Path
    width: int
    height: int
    phash: str
    framing: dict[str, Any] | None = None

    @property
    def side(self) -> int:
        """Side of the square that training takes from it."""
        return min(self.width, self.height)

    @property
    def cropped_away(self) -> float:
        """Share of the picture that lies outside that square, 0 to 1."""
        return 1 - self.side / max(self.width, self.height)


@dataclass(frozen=True)
class UnreadableImage:
    """A file that training would leave out, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class DataCheck:
    """What was found.

    Attributes:
        data: a folder, an archive or a pattern of archives, as it was given.
        resolution: side at which training would take the images; None if none is readable.
        supported: what training takes without `--resolution`; None if none is readable.
        images: the readable ones, in the order of training.
        unreadable: the others.
        duplicates: groups of files that show the same picture.
        licences: licence files in the data.
        left_out: how many other files there are, by their kinds.
        member: the field that is the image; None: not said.
    """

    data: str
    resolution: int | None
    supported: int | None
    images: tuple[CheckedImage, ...] = ()
    unreadable: tuple[UnreadableImage, ...] = ()
    duplicates: tuple[tuple[Path, ...], ...] = ()
    licences: tuple[Path, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    member: str | None = None

    @property
    def different(self) -> int:
        """How many different pictures there are: each group of near-duplicates counts once."""
        return len(self.images) - sum(len(group) - 1 for group in self.duplicates)

    @property
    def enlarged(self) -> int:
        """How many images are smaller than the training resolution."""
        return sum(image.side < (self.resolution or 0) for image in self.images)

    @property
    def not_square(self) -> tuple[CheckedImage, ...]:
        """The images that lose something to the cropping."""
        return tuple(image for image in self.images if image.width != image.height)

    @property
    def framings(self) -> list[tuple[dict[str, Any], int]]:
        """The different framings of the sidecars with their numbers of images, first seen first."""
        found: dict[str, tuple[dict[str, Any], int]] = {}
        for framing in (image.framing for image in self.images if image.framing is not None):
            key = json.dumps(framing, sort_keys=True)
            found[key] = (framing, found.get(key, (framing, 0))[1] + 1)
        return list(found.values())

    @property
    def refusal(self) -> str:
        """Why training would not start at all; empty if it would."""
        if self.resolution is None:
            return "no usable image"
        if len(self.images) < MIN_IMAGES:
            return f"too few, training needs at least {MIN_IMAGES}"
        if self.resolution < SMALLEST_RESOLUTION:
            return f"too small to train on, the smallest resolution is {SMALLEST_RESOLUTION} px"
        return ""

    @property
    def exit_code(self) -> int:
        """0, or 1 when images are unreadable or training would not start."""
        return int(bool(self.unreadable or self.refusal))

    def sides(self) -> tuple[int, float, int]:
        """Smallest and median of the shorter sides, and the largest side.

        Raises:
            ValueError: when no image is readable.
        """
        shorter = [image.side for image in self.images]
        longer = [max(image.width, image.height) for image in self.images]
        return min(shorter), float(np.median(shorter)), max(longer)


def check_data(
    data: str | os.PathLike[str],
    resolution: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    member: str | None = None,
) -> DataCheck:
    """Reads every image of a data set as training would, and compares them with each other.

    Args:
        data: a folder, nested, or archives (`pulse_sr.data.open.open_source`).
        resolution: power of two from 8 up; without it, what training would choose.
        progress: called with (images read, all images) after each.
        member: the field of a sample that is its image (`selection.select_images`).

    Raises:
        UsageError: when the data do not exist or the resolution is out of range.
    """
    source = open_source(data, member)
    total = len(source.names)
    if resolution is not None:
        require_resolution(resolution)
    found: dict[int, CheckedImage | UnreadableImage] = {}
    framings = source.framings()
    with contextlib.closing(decode_files(source, None)) as decoded:
        for count, (place, file) in enumerate(decoded, start=1):
            found[place] = _look_at(Path(source.names[place]), file, framings.get(place))
            if progress is not None:
                progress(count, total)
    return _compare(source, resolution, [found[place] for place in range(total)])


def _compare(
    source: ImageSource, resolution: int | None, found: list[CheckedImage | UnreadableImage]
) -> DataCheck:
    images = [each for each in found if isinstance(each, CheckedImage)]
    refused = [UnreadableImage(Path(name), reason) for name, reason in source.refused]
    supported = source.largest_resolution() if images else None
    groups = near_duplicates([image.phash for image in images])
    return DataCheck(
        data=source.location,
        resolution=(resolution or supported) if images else None,
        supported=supported,
        images=tuple(images),
        unreadable=(*refused, *(each for each in found if isinstance(each, UnreadableImage))),
        duplicates=tuple(tuple(images[i].file for i in group) for group in groups),
        licences=tuple(Path(name) for name in source.licences()),
        left_out=source.left_out,
        member=source.member,
    )


def _look_at(
    file: Path, decoded: DecodedFile, framing: dict[str, Any] | None
) -> CheckedImage | UnreadableImage:
    if decoded.pixels is None:
        return UnreadableImage(file, decoded.reason)
    return CheckedImage(file, *decoded.size, perceptual_hash(decoded.pixels), framing)
