"""Pickles of NVIDIA's PyTorch releases: stylegan2-ada-pytorch, and StyleGAN2 from stylegan3.

The networks are pickled whole, as objects of classes whose source text stands in the file. That
text is not used: the tensors and a few attributes say what the network is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from pulse_sr.files.unpickler import Record
from pulse_sr.models.importers.layout import Imported, refuse, state_of, stylegan2_of, tensors_of


def generator_record(content: Any) -> Record | None:
    """The averaged generator of a snapshot, or the one network that was pickled alone."""
    found = content.get("G_ema") if isinstance(content, dict) else content
    return found if isinstance(found, Record) else None


def import_nvidia(content: Any, path: Path) -> Imported | None:
    """A StyleGAN2 generator from a snapshot.

    Raises:
        UsageError: the network is a StyleGAN3, conditional, or another one.
        SetupError: tensors are missing.
    """
    record = generator_record(content)
    if record is None:
        return None
    state, tensors = state_of(record, path), tensors_of(record, path)
    if "synthesis.input.freqs" in tensors:
        resolution = state.get("img_resolution")
        raise refuse(path, f"a StyleGAN3 network of {resolution} px, which is not supported")
    if state.get("c_dim") or "mapping.embed.weight" in tensors:
        raise refuse(path, f"a conditional network of {state.get('c_dim')} classes")
    if "synthesis.b4.const" not in tensors or "mapping.fc0.weight" not in tensors:
        raise refuse(path, f"a network of the class {record.class_name[:80]}, which is unknown")
    first = _first_layer(state, path)
    if first.get("activation", "lrelu") != "lrelu":
        raise refuse(path, f"a mapping with the activation {first['activation']!s:.20}")
    multiplier = _lr_multiplier(first, tensors["mapping.fc0.weight"])
    generator = stylegan2_of(tensors, path, multiplier)
    return Imported("stylegan2", generator, "pickle of NVIDIA's PyTorch StyleGAN2", _notes(tensors))


def _first_layer(state: dict[str, Any], path: Path) -> dict[str, Any]:
    mapping = state_of(state["_modules"]["mapping"], path)
    return state_of(mapping["_modules"]["fc0"], path)


def _lr_multiplier(layer: dict[str, Any], weight: Tensor) -> float:
    """What the layer multiplies its weight with is `multiplier / sqrt(inputs)`."""
    gain = layer.get("weight_gain")
    if not isinstance(gain, float) or not 0 < gain < 10:
        return 0.01
    return float(f"{gain * math.sqrt(weight.shape[1]):.6g}")


def _notes(tensors: dict[str, Tensor]) -> list[str]:
    fixed = any(key.endswith("noise_const") for key in tensors)
    return [] if fixed else ["the fixed noise maps were drawn: the file has none"]
