"""The grammar of `--operator`: what happened to the unknown face, stage by stage.

    SPEC  = STAGE { "|" STAGE }                     in the order in which it happened
    STAGE = a kernel | gaussian:SIGMA | gray | noise:STD | jpeg:QUALITY | mask:FILE

One stage changes the size: the kernel (`bicubic`, `area`, ...), or without one the last `gaussian`,
which blurs and decimates. Every other `gaussian` only blurs. Without either, low-res and high-res
have the same size: `mask:FILE` alone is in-painting, `gray` alone is colourisation.

This file reads and checks words. It imports neither torch nor numpy, so that settings can be
checked before anything is loaded; `pulse_sr.operators` builds what they mean.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pulse_sr.errors import UsageError, shown
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.paths import check_path, problem_of_name

#: Resampling conventions, see `pulse_sr.operators.resampling`.
KERNELS = ("bicubic", "matlab", "pillow", "pillow:lanczos", "pillow:box", "area")
#: Every stage as it is written; a word in capitals stands for a value.
STAGES = (*KERNELS, "gaussian:SIGMA", "gray", "noise:STD", "jpeg:QUALITY", "mask:FILE")

#: In place of an operator: find out which one, by what a prior can explain (`inversion.blind`).
AUTO = "auto"

#: Of an operator: characters (a mask has a path), stages, pixels of a sigma.
LONGEST_OPERATOR, _MOST_STAGES, _MOST_SIGMA = 5000, 32, 1024.0

_EXAMPLES = {
    "gaussian": "gaussian:1.6",
    "gray": "gray",
    "noise": "noise:0.02",
    "jpeg": "jpeg:75",
    "mask": "mask:known.png",
}
_OTHER_NAMES = {"grey": "gray", "jpg": "jpeg", "lanczos": "pillow:lanczos", "box": "pillow:box"}


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        kind: "kernel", "gaussian", "gray", "noise", "jpeg" or "mask".
        text: the stage as it was written, without spaces around it.
        value: sigma in pixels of the picture at that stage, noise std in units of [0, 1], or JPEG
            quality; 0 where there is none.
        file: the mask file; empty for the others.
        resizes: whether this stage goes from the high-res to the low-res size.
    """

    kind: str
    text: str
    value: float = 0.0
    file: str = ""
    resizes: bool = False


@dataclass(frozen=True)
class OperatorSpec:
    """A checked operator.

    Attributes:
        text: the canonical form, stages joined by `|`.
        stages: in the order in which they happened.
    """

    text: str
    stages: tuple[Stage, ...]

    @property
    def resizes(self) -> bool:
        """Whether a stage changes the size; if not, the scale is 1."""
        return any(stage.resizes for stage in self.stages)

    @property
    def has_jpeg(self) -> bool:
        """Whether a stage is a JPEG file, which no projection can meet exactly."""
        return any(stage.kind == "jpeg" for stage in self.stages)

    @property
    def noisy(self) -> bool:
        """Whether the low-res picture carries noise that must not be reproduced."""
        return self.has_jpeg or any(stage.kind == "noise" for stage in self.stages)

    @property
    def in_gray(self) -> bool:
        """Whether only the luma of a picture is known."""
        return any(stage.kind == "gray" for stage in self.stages)

    @property
    def mask_file(self) -> str:
        """The file of the stage `mask`; empty without one."""
        return next((stage.file for stage in self.stages if stage.kind == "mask"), "")

    @property
    def of_a_face(self) -> bool:
        """Whether a face cut from a photo can have gone through it.

        Not where the size is kept, since the whole picture then is the face; and not with a mask,
        which belongs to the whole picture.
        """
        return self.resizes and not self.mask_file

    @property
    def title(self) -> str:
        """The text for people, a mask without its folders."""
        words = [
            f"mask:{Path(stage.file).name}" if stage.kind == "mask" else stage.text
            for stage in self.stages
        ]
        return "|".join(words)

    def mask_sha256(self) -> str:
        """Returns the sha256 of the mask file's bytes, empty without a mask.

        Raises:
            UsageError: the file can not be read.
        """
        masks = [stage for stage in self.stages if stage.kind == "mask"]
        return _mask_sha256(masks[0]) if masks else ""

    def identity(self) -> str:
        """Returns the text with the content of a mask file in place of its name.

        Operators of the same identity do the same to a picture, so this belongs in a fingerprint.

        Raises:
            UsageError: a mask file can not be read.
        """
        words = [
            f"mask:sha256={_mask_sha256(stage)}" if stage.kind == "mask" else stage.text
            for stage in self.stages
        ]
        return "|".join(words)


def parse_operator(text: str) -> OperatorSpec:
    """Reads an operator such as `gaussian:1.6|pillow|jpeg:40`.

    Args:
        text: see the module; spaces around stages do not matter.

    Raises:
        UsageError: an unknown stage, a value out of range, or stages that do not go together. The
            message names the stage and what was expected.
    """
    words = text.split("|")
    if len(words) > _MOST_STAGES:
        raise UsageError(f"operator {shown(text)} has {len(words)} stages, at most {_MOST_STAGES}")
    stages = [_parse_stage(word.strip()) for word in words]
    _check_together(stages)
    resizing = _resizing_stage(stages)
    if resizing is not None:
        stages[resizing] = replace(stages[resizing], resizes=True)
    return OperatorSpec("|".join(stage.text for stage in stages), tuple(stages))


def _parse_stage(word: str) -> Stage:
    if word in KERNELS:
        return Stage("kernel", word)
    if word == "gray":
        return Stage("gray", word)
    kind, colon, value = word.partition(":")
    if colon and kind == "gaussian":
        expected = f"sigma must be a number above 0 and at most {_MOST_SIGMA:g}"
        return Stage(kind, word, _number(word, value, expected, _MOST_SIGMA))
    if colon and kind == "noise":
        expected = "the standard deviation must be a number above 0 and at most 1"
        return Stage(kind, word, _number(word, value, expected, 1.0))
    if colon and kind == "jpeg":
        return Stage(kind, word, _quality(word, value))
    if colon and kind == "mask":
        if not value:
            raise _wrong(word, "expected the path of a picture, white where pixels are known")
        if problem_of_name(value):
            raise _wrong(word, f"the path {problem_of_name(value)}")
        return Stage(kind, word, file=value)
    raise UsageError(
        f"unknown operator stage {shown(word)}, expected one of {', '.join(STAGES)}",
        _suggestion(word),
    )


def _number(word: str, value: str, expected: str, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (0.0 < number <= most and math.isfinite(number)):
        raise _wrong(word, f"{expected}, got {shown(value)}")
    return number


def _quality(word: str, value: str) -> float:
    if not (value.isascii() and value.isdecimal() and len(value) <= 3 and 1 <= int(value) <= 100):
        raise _wrong(word, f"the quality must be a whole number from 1 to 100, got {shown(value)}")
    return float(value)


def _check_together(stages: Sequence[Stage]) -> None:
    for kind in ("kernel", "gray", "mask"):
        same = [stage.text for stage in stages if stage.kind == kind]
        if len(same) > 1:
            what = "change the size" if kind == "kernel" else f"are {kind}"
            hint = f"--operator {same[-1]} (blur before it with gaussian:SIGMA|{same[-1]})"
            two = f"{shown(same[0])} and {shown(same[1])}"
            raise UsageError(
                f"operator stages {two} both {what}, expected one at most",
                hint if kind == "kernel" else f"--operator {same[-1]}",
            )
    kinds = [stage.kind for stage in stages]
    if "mask" in kinds and "jpeg" in kinds[kinds.index("mask") :]:
        raise UsageError(
            "operator stage 'jpeg' comes after 'mask', expected before it: a JPEG file mixes "
            "unknown pixels into known ones",
            "--operator 'jpeg:75|mask:known.png'",
        )


def _resizing_stage(stages: Sequence[Stage]) -> int | None:
    """The place of the stage that changes the size: the kernel, else the last `gaussian`."""
    for kind in ("kernel", "gaussian"):
        places = [i for i, stage in enumerate(stages) if stage.kind == kind]
        if places:
            return places[-1]
    return None


def _wrong(word: str, expected: str) -> UsageError:
    example = _EXAMPLES[word.partition(":")[0]]
    return UsageError(f"operator stage {shown(word)}: {expected}", f"--operator {example}")


def _suggestion(word: str) -> str:
    """The nearest stage by its name, with a value where it takes one."""
    name = word.partition(":")[0].casefold()[:100]
    known = sorted({*KERNELS, *_EXAMPLES, *_OTHER_NAMES})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        return "--operator bicubic"
    found = _OTHER_NAMES.get(near[0], near[0])
    return f"did you mean {_EXAMPLES.get(found, found)!r}?"


def _mask_sha256(stage: Stage) -> str:
    check_path(stage.file, called=f"operator stage {shown(stage.text)}: ")
    try:
        return file_sha256(stage.file)
    except OSError as error:
        raise UsageError(
            f"operator stage {shown(stage.text)}: the file cannot be read: {error.strerror}",
            "check the path",
        ) from error
