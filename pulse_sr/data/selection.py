"""Which files of a data set are images to learn from, and which kinds are left out.

In WebDataset's way of naming, a sample is the files that share a key: the path up to the first dot
of the file's name. What follows is the field: `000.jpg` is the image of the sample `000`,
`000.json` its sidecar, and `000.seg.png` another field.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse

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
    visible = _visible(list(names))
    if member is not None:
        images = _of_field(visible, member.lower().lstrip("."))
    else:
        images = [name for name in visible if is_image_name(posixpath.basename(name))]
        if in_samples:
            images = _of_samples(images)
    used = set(images).union(*(sidecars_of(name, member) for name in images))
    others = (name for name in visible if name not in used)
    return Selection(images, Counter(map(_kind, filterfalse(_is_licence, others))))


def sidecars_of(image: str, member: str | None) -> list[str]:
    """Where the JSON file of an image may stand, the likelier place first.

    Args:
        image: its path below the data set.
        member: the field that it was chosen by, if one was: the file may be that of its sample.
    """
    own = posixpath.splitext(image)[0] + ".json"
    return [own] if member is None else [own, _key(image) + ".json"]


def _visible(names: list[str]) -> list[str]:
    folders = (posixpath.split(name) for name in names)
    apart = tuple(f"{at}/" for at, name in folders if at and name == NOT_TRAINING_DATA)
    return [name for name in names if not (_is_hidden(name) or name.startswith(apart))]


def _is_hidden(name: str) -> bool:
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part != ".." for part in name.split("/"))


def _is_licence(name: str) -> bool:
    return is_licence_name(posixpath.basename(name))


def _key(name: str) -> str:
    """The path up to the first dot of the file's name."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])


def _field(name: str) -> str:
    """What follows that dot, in lower case; empty without one."""
    return posixpath.basename(name).lower().partition(".")[2]


def _of_field(names: list[str], wanted: str) -> list[str]:
    fields = {wanted, *(wanted + suffix for suffix in image_suffixes())}
    found = [name for name in names if _field(name) in fields]
    if found or not names:
        return found
    count = Counter(_field(name) or "(none)" for name in names).most_common()
    known = ", ".join(f"{name} ({number})" for name, number in count[:_MOST_FIELDS])
    more = f" and {len(count) - _MOST_FIELDS} more" if len(count) > _MOST_FIELDS else ""
    images = (name for name, _ in count if is_image_name(f"_.{name}"))
    raise UsageError(
        f"--member: no file has the field {wanted}; there are {known}{more}",
        f"--member {next(images, 'FIELD')}",
    )


def _of_samples(images: list[str]) -> list[str]:
    plain = {_key(name) for name in images if _is_plain(name)}
    return [name for name in images if _is_plain(name) or _key(name) not in plain]


def _is_plain(image: str) -> bool:
    return "." + _field(image) in image_suffixes()


def _kind(name: str) -> str:
    """An image that was not chosen goes by its whole field."""
    return f".{_field(name)}" if is_image_name(posixpath.basename(name)) else kind_of(name)
