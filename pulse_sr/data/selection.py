"""Which files of a data set are images to learn from, and which kinds are left out.

In WebDataset's way of naming, a sample is the files that share a key: the path up to the first dot
of the file's name. What follows is the field: `000.jpg` is the image of the sample `000`,
`000.json` its sidecar, and `000.seg.png` another field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pulse_sr.data.picture import NOT_TRAINING_DATA, is_image_name, is_licence_name
from pulse_sr.errors import UsageError
from pulse_sr.images.find import image_suffixes, kind_of

_MOST_FIELDS = 10


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        images: the names of the images, in the order given.
        left_out: how many other files there are, by suffix or field; sidecars and licences of the
            images are none of them.
    """

    images: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def select_images(names: Iterable[str], member: str | None, *, in_samples: bool) -> Selection:
    """Choose the images among the files of a data set.

    Hidden files, and nested folders with a file `NOT_TRAINING_DATA`, are left out and not counted.

    Args:
        names: paths below the data set, `/` between the parts.
        member: the field that is the image, with its suffix or without (`image.png`, `image`);
            None: every file whose suffix is that of an image.
        in_samples: where a sample has a field that is an image suffix alone, its other fields are
            no images. Others go by their last suffix, so that `photo.v2.jpg` works too.

    Raises:
        UsageError: no file has the field.
    """
    paths = _visible([PurePosixPath(name) for name in names])
    if member is not None:
        images = _of_field(paths, member.lower().lstrip("."))
    else:
        images = [path for path in paths if is_image_name(path.name)]
        if in_samples:
            images = _of_samples(images)
    used = set(images) | {each for path in images for each in sidecars_of(path, member)}
    others = (path for path in paths if path not in used and not is_licence_name(path.name))
    return Selection([str(path) for path in images], Counter(map(_kind, others)))


def sidecars_of(image: PurePosixPath, member: str | None) -> list[PurePosixPath]:
    """Where the JSON file of an image may stand, the likelier place first.

    Args:
        image: its path below the data set.
        member: the field that it was chosen by, if one was: the file may be that of its sample.
    """
    own = image.with_suffix(".json")
    return [own] if member is None else [own, image.with_name(_key(image.name) + ".json")]


def _visible(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    apart = {
        path.parent for path in paths if path.name == NOT_TRAINING_DATA and len(path.parts) > 1
    }
    return [
        path
        for path in paths
        if not any(part.startswith(".") and part != ".." for part in path.parts)
        and apart.isdisjoint(path.parents)
    ]


def _key(name: str) -> str:
    return name.split(".", 1)[0]


def _field(name: str) -> str:
    """What follows the first dot, in lower case; empty without one."""
    return name.lower().partition(".")[2]


def _of_field(paths: list[PurePosixPath], wanted: str) -> list[PurePosixPath]:
    fields = {wanted, *(wanted + suffix for suffix in image_suffixes())}
    found = [path for path in paths if _field(path.name) in fields]
    if found or not paths:
        return found
    count = Counter(_field(path.name) or "(none)" for path in paths).most_common()
    known = ", ".join(f"{name} ({number})" for name, number in count[:_MOST_FIELDS])
    more = f" and {len(count) - _MOST_FIELDS} more" if len(count) > _MOST_FIELDS else ""
    raise UsageError(
        f"--member: no file has the field {wanted}; there are {known}{more}",
        f"--member {count[0][0]}",
    )


def _of_samples(images: list[PurePosixPath]) -> list[PurePosixPath]:
    plain = {path.with_name(_key(path.name)) for path in images if _is_plain(path)}
    return [
        path for path in images if _is_plain(path) or path.with_name(_key(path.name)) not in plain
    ]


def _is_plain(image: PurePosixPath) -> bool:
    return "." + _field(image.name) in image_suffixes()


def _kind(path: PurePosixPath) -> str:
    """An image that was not chosen goes by its whole field."""
    return f".{_field(path.name)}" if is_image_name(path.name) else kind_of(path)
