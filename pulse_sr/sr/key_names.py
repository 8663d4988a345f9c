"""Published weight files of RRDBNet and of the compact network: their names, and what they hold.

Three generations of names are in use for RRDBNet: `model.0.weight` and `model.1.sub.0.RDB1.conv1.0`
(the first ESRGAN), `RRDB_trunk.0.RDB1.conv1` (ESRGAN today) and `body.0.rdb1.conv1` (BasicSR,
Real-ESRGAN), the one of `rrdb.RRDBNet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: Where checkpoints keep their weights, the averaged ones first.
WRAPPERS = ("params_ema", "params", "state_dict")

_ESRGAN = {
    "trunk_conv": "conv_body",
    "upconv": "conv_up",
    "HRconv": "conv_hr",
    "RRDB_trunk": "body",
}


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict within what a published file holds, the averaged weights where there are two.

    Args:
        checkpoint: as `files.checkpoints` or safetensors returns it.

    Raises:
        ValueError: when there is none.
    """
    inner: Any = checkpoint
    if isinstance(checkpoint, Mapping):  # a whole pickled module is none
        inner = next((checkpoint[key] for key in WRAPPERS if key in checkpoint), checkpoint)
    if not isinstance(inner, Mapping):
        raise ValueError("no state dict in the checkpoint")
    weights = {k.removeprefix("module."): v for k, v in inner.items() if isinstance(v, Tensor)}
    if not weights:
        raise ValueError("no tensors in the checkpoint")
    return weights


def rrdb_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of RRDBNet with today's names, whichever of the three it comes with.

    Raises:
        ValueError: when it is no RRDBNet.
    """
    if "model.0.weight" in state:
        renamed = _first_generation(state)
    else:
        renamed = {_second_generation(key): value for key, value in state.items()}
    if not {"conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"} <= renamed.keys():
        raise ValueError("the keys are not those of an RRDBNet")
    return renamed


def _second_generation(key: str) -> str:
    for old, new in _ESRGAN.items():
        key = re.sub(rf"^{old}(?=[\d.])", new, key)
    return key.replace(".RDB", ".rdb")


def _first_generation(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`model` is a sequence: first, residual blocks, enlargements, high resolution, last."""
    tail = sorted({int(key.split(".")[1]) for key in state if not key.startswith("model.1.")} - {0})
    trunk_end = str(max(int(key.split(".")[3]) for key in state if key.startswith("model.1.sub.")))
    names = {"0": "conv_first", str(tail[-2]): "conv_hr", str(tail[-1]): "conv_last"}
    names |= {str(at): f"conv_up{stage}" for stage, at in enumerate(tail[:-2], start=1)}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[1] != "1":
            name = f"{names[parts[1]]}.{parts[-1]}"
        elif parts[3] == trunk_end:
            name = f"conv_body.{parts[-1]}"
        else:
            name = f"body.{parts[3]}.{parts[4].lower()}.{parts[5]}.{parts[-1]}"
        renamed[name] = value
    return renamed


def rrdb_config(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Arguments of `RRDBNet` for a state dict with today's names.

    Raises:
        ValueError: when shapes and names contradict each other.
    """
    width, folded = state["conv_first.weight"].shape[:2]
    channels = state["conv_last.weight"].shape[0]
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
    stages = sum(bool(re.fullmatch(r"conv_up\d+\.weight", key)) for key in state)
    unshuffle = round((folded / channels) ** 0.5)
    if unshuffle**2 * channels != folded or 2**stages % unshuffle:
        raise ValueError(f"{folded} input and {channels} output channels with {stages} doublings")
    return {
        "scale": 2**stages // unshuffle,
        "channels": channels,
        "width": width,
        "blocks": blocks,
        "growth": state["body.0.rdb1.conv1.weight"].shape[0],
        "unshuffle": unshuffle,
    }


def compact_config(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Arguments of `CompactNet` for a state dict of a published file.

    Raises:
        ValueError: when it is no compact network.
    """
    kernels = [
        k for k, v in state.items() if re.fullmatch(r"body\.\d+\.weight", k) and v.dim() == 4
    ]
    kernels.sort(key=lambda key: int(key.split(".")[1]))
    if len(kernels) < 2 or kernels[0] != "body.0.weight":
        raise ValueError("the keys are not those of a compact network")
    width, channels = state[kernels[0]].shape[:2]
    scale = round((state[kernels[-1]].shape[0] / channels) ** 0.5)
    if scale**2 * channels != state[kernels[-1]].shape[0]:
        raise ValueError(f"{state[kernels[-1]].shape[0]} channels for {channels} of the input")
    return {
        "scale": scale,
        "channels": channels,
        "width": width,
        "convolutions": len(kernels) - 2,
    }
