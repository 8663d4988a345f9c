"""What a folder of images is worth as training data: a look at it that trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.alignment.duplicates import near_duplicates, perceptual_hash
from pulse_sr.errors import PulseError, UsageError
from pulse_sr.images import read_image
from pulse_sr.training.images import (
    MIN_IMAGES,
    alignment_of,
    centre_square,
    largest_resolution,
    licence_files,
    list_images,
)
from pulse_sr.training.run import describe_network


@dataclass(frozen=True)
class CheckedImage:
    """A readable image.

    Attributes:
        file: path below the data folder.
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
        folder: of the data.
        resolution: side at which training would take the images; None if none is readable.
        supported: what training takes without `--resolution`; None if none is readable.
        images: the readable ones, in the order of training.
        unreadable: the others.
        duplicates: groups of files that show the same picture.
        licences: licence files in the folder.
    """

    folder: Path
    resolution: int | None
    supported: int | None
    images: tuple[CheckedImage, ...] = ()
    unreadable: tuple[UnreadableImage, ...] = ()
    duplicates: tuple[tuple[Path, ...], ...] = ()
    licences: tuple[Path, ...] = ()

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
        try:
            describe_network(self.resolution)
        except UsageError:
            return "too small to train on, the smallest resolution is 8 px"
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
    folder: Path,
    resolution: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataCheck:
    """Reads every image of a data set as training would, and compares them with each other.

    Args:
        folder: of the data, nested.
        resolution: power of two from 8 up; without it, what training would choose.
        progress: called with (images read, all images) after each.

    Raises:
        UsageError: when the folder does not exist or the resolution is out of range.
    """
    paths = list_images(folder)
    if resolution is not None:
        describe_network(resolution)
    images: list[CheckedImage] = []
    unreadable: list[UnreadableImage] = []
    for count, path in enumerate(paths, start=1):
        found = _look_at(path, path.relative_to(folder))
        if isinstance(found, CheckedImage):
            images.append(found)
        else:
            unreadable.append(found)
        if progress is not None:
            progress(count, len(paths))
    return _compare(folder, resolution, paths, images, unreadable)


def _compare(
    folder: Path,
    resolution: int | None,
    paths: list[Path],
    images: list[CheckedImage],
    unreadable: list[UnreadableImage],
) -> DataCheck:
    supported = largest_resolution(paths) if images else None
    groups = near_duplicates([image.phash for image in images])
    return DataCheck(
        folder=folder,
        resolution=(resolution or supported) if images else None,
        supported=supported,
        images=tuple(images),
        unreadable=tuple(unreadable),
        duplicates=tuple(tuple(images[i].file for i in group) for group in groups),
        licences=tuple(file.relative_to(folder) for file in licence_files(folder)),
    )


def _look_at(path: Path, file: Path) -> CheckedImage | UnreadableImage:
    try:
        image = read_image(path)
    except PulseError as error:
        return UnreadableImage(file, error.message.removeprefix(f"{path} "))
    phash = perceptual_hash(centre_square(image.pixels))
    return CheckedImage(file, image.width, image.height, phash, alignment_of([path]))
