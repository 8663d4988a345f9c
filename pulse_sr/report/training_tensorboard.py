"""TensorBoard events of a training run, for those who ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulse_sr.errors import UsageError

_NOT_SCALARS = ("images", "checkpointed", "snapshot")


class TensorBoardLog:
    """Scalars and pictures against thousands of images shown, in the folder `tb` of a run."""

    def __init__(self, folder: Path, images_shown: int) -> None:
        """Open the log; what an earlier process wrote after `images_shown` is hidden.

        Raises:
            UsageError: when tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"--tensorboard: the package tensorboard can not be imported ({error})",
                "pip install tensorboard, or leave the option out: curves.png shows the same",
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=images_shown + 1)

    def add_scalars(self, group: str, images: int, values: Mapping[str, Any]) -> None:
        """Write the numbers of `values` as `group/name`."""
        for name, value in values.items():
            if isinstance(value, (int, float)) and name not in _NOT_SCALARS:
                self._writer.add_scalar(f"{group}/{name}", value, images)

    def add_picture(self, name: str, images: int, pixels: Any) -> None:
        """Write a picture, uint8 `[3, H, W]`."""
        self._writer.add_image(name, pixels, images)

    def flush(self) -> None:
        """Write out what is pending."""
        self._writer.flush()

    def close(self) -> None:
        """End the log."""
        self._writer.close()
