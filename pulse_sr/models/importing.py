"""Foreign checkpoints become priors of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulse_sr.files.checkpoints import read_checkpoint
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


def read_foreign(path: Path) -> Imported:
    """The generator in a checkpoint of another program.

    Raises:
        UsageError: there is no such file, it is of no known family, or its network can not be
            searched.
        SetupError: the file is damaged.
    """
    content = read_checkpoint(path)
    for each in IMPORTERS:
        found = each(content, path)
        if found is not None:
            return found
    raise refuse(path, f"no generator of a known program ({_describe(content)})")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        names = ", ".join(str(key)[:40] for key in list(content)[:6])
        return f"a dictionary of {len(content)} entries: {names}"
    return f"a {type(content).__name__}"
