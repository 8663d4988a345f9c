"""Foreign checkpoints become priors of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulse_sr.errors import SetupError, UsageError, kind_and_line
from pulse_sr.files.checkpoints import read_checkpoint
from pulse_sr.models.detect import is_foreign
from pulse_sr.models.importers.fastgan import import_fastgan, import_projected_gan
from pulse_sr.models.importers.layout import Imported, refuse
from pulse_sr.models.importers.lucidrains import import_lucidrains
from pulse_sr.models.importers.nvidia import import_nvidia
from pulse_sr.models.importers.pulse import import_pulse
from pulse_sr.models.importers.rosinality import import_rosinality
from pulse_sr.models.importers.tensorflow import import_tensorflow

IMPORTERS: tuple[Callable[[Any, Path], Imported | None], ...] = (
    import_tensorflow,
    import_rosinality,
    import_lucidrains,
    import_pulse,
    import_fastgan,
    import_projected_gan,
    import_nvidia,
)

#: What comes of tensors and attributes that are missing, or have other shapes or kinds.
_INCOMPLETE = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError)


def read_foreign(path: Path) -> Imported:
    """The generator in a checkpoint of another program.

    Raises:
        UsageError: there is no such file, it is of no known family, or its network can not be
            searched.
        SetupError: the file is damaged.
    """
    if path.is_file() and not is_foreign(path):
        raise UsageError(
            f"{path} is a safetensors file: one of pulse-sr needs no import, no other can be read",
            f"pulse-sr run INPUT... --prior {path}",
        )
    content = read_checkpoint(path)
    for each in IMPORTERS:
        try:
            found = each(content, path)
        except _INCOMPLETE as error:
            raise SetupError(
                f"{path}: its layers are incomplete ({kind_and_line(error)})",
                "the file is damaged or of another program: download it again",
            ) from error
        if found is not None:
            return found
    raise refuse(path, f"no generator of a known program ({_describe(content)})")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        names = ", ".join(str(key)[:40] for key in list(content)[:6])
        return f"a dictionary of {len(content)} entries: {names}"
    return f"a {type(content).__name__}"
