"""What decides the crops of `align`, checked once at the border."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from pulse_sr.alignment.geometry import FFHQ, Framing
from pulse_sr.alignment.options import CropOptions, Limits
from pulse_sr.errors import UsageError
from pulse_sr.operators.building import make_operator

#: Part of every fingerprint: raise it when equal settings start to give other crops.
REVISION = 2


@dataclass(frozen=True)
class AlignSettings(CropOptions):
    """What decides the crops.

    Attributes:
        framing: how a face lies in the crop.
        limits: which faces are good enough.
        landmarks: name of the landmark source, or of its content if it is a file.

    Raises:
        UsageError: sizes that do not go together, or an unknown operator.
    """

    framing: Framing = FFHQ
    limits: Limits = field(default_factory=Limits)
    landmarks: str = "yunet"

    def __post_init__(self) -> None:
        super().__post_init__()
        for low in self.lr:
            if not 0 < low < self.size or self.size % low:
                raise UsageError(
                    f"--lr {low} does not divide the crop's side of {self.size} px",
                    f"--size {low * max(2, self.size // max(low, 1))}",
                )
            make_operator(self.operator, low, self.size)

    def fingerprint(self) -> str:
        """Returns a sha256 over all settings."""
        settings = {**asdict(self), "framing": self.framing.describe(), "revision": REVISION}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
