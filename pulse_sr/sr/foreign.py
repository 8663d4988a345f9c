"""Networks of other programs: ESRGAN's and Real-ESRGAN's own, and by `spandrel` what it knows.

Files are read as data (`files.checkpoints`): nothing that they name is run. Which network it is
follows from the names and shapes of its weights alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.errors import SetupError, UsageError, cut, first_line
from pulse_sr.files.checkpoints import read_checkpoint
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import check_description
from pulse_sr.files.tensors import UNREADABLE, check_finite, check_shapes, read_tensors
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.key_names import compact_config, rrdb_config, rrdb_weights, weights_of

#: A layer's number may be higher than there are tensors, since activations count too: by so much.
_FREE_PLACES = 100


class ForeignNetwork(nn.Module):
    """A network of `spandrel`, as ours are called: `[N, 3, h, w]` in [0, 1] to `[N, 3, s h, s w]`.

    It may want sides that are a multiple of some number: others are filled up by mirroring, and the
    result is cut.
    """

    def __init__(self, network: nn.Module, scale: int, multiple: int) -> None:
        """Wraps a network.

        Args:
            network: of `spandrel`.
            scale: s.
            multiple: what the sides have to be a multiple of.
        """
        super().__init__()
        self.network, self.multiple = network, multiple
        self.config = {"scale": scale}

    def forward(self, x: Tensor) -> Tensor:
        """Enlarges `[N, 3, h, w]`."""
        height, width = x.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            x = nn.functional.pad(x, (0, right, 0, down), "replicate")
        made: Tensor = self.network(x)
        scale = self.config["scale"]
        return made[..., : height * scale, : width * scale]


def read_foreign(path: Path, device: torch.device | str = "cpu") -> SrModel:
    """Reads a network's file of another program.

    Args:
        path: a safetensors file, or what torch.save has written.
        device: where the network goes.

    Raises:
        UsageError: the file holds no network that enlarges colour pictures, or what no model file
            needs; or `spandrel`, which may know it, is not installed.
        SetupError: it is damaged.
    """
    state = _weights(path)
    try:
        architecture, network = _own(state) or _of_spandrel(path, state)
    except (RuntimeError, *UNREADABLE) as error:
        raise SetupError(
            f"{path} does not hold the tensors of a whole network ({first_line(error)})",
            "the file is damaged, or of a variant that is not known",
        ) from error
    check_finite(network.state_dict(), path)
    network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    digest = file_sha256(path)
    card = {"licence": "unknown: as its authors say", "source": f"foreign file {path.name}"}
    return SrModel(path.stem, architecture, network, card, digest, path)


def _weights(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        start = file.read(9)
    is_safetensors = start[8:] == b"{"
    if not is_safetensors and not start.startswith((b"PK", b"\x80")):  # zip, pickle
        raise UsageError(f"{path} is no file of a network", "give a .safetensors or .pth file")
    try:
        found = read_tensors(path) if is_safetensors else read_checkpoint(path)
    except UNREADABLE as error:
        raise SetupError(f"{path} can not be read ({first_line(error)})", "get it again") from error
    try:
        state = weights_of(found)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path} holds no network ({first_line(error)})", "give another"
        ) from error
    most = _FREE_PLACES + 4 * len(state)
    for name in state:
        # Whoever builds a network of these names makes as many layers as the highest number says.
        if any(int(place[:9]) > most for place in re.findall(r"\d+", name)):
            raise SetupError(
                f"{path}: tensor {cut(name)} is of a layer beyond those of {len(state)} tensors",
                "the file is damaged: get it again",
            )
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _own(state: Mapping[str, Tensor]) -> tuple[str, nn.Module] | None:
    """RRDBNet and the compact network, if it is one of these."""
    for architecture, rename, config_of in (
        ("rrdb", rrdb_weights, rrdb_config),
        ("compact", dict, compact_config),
    ):
        try:
            weights = rename(state)
            config = config_of(weights)
            check_description(config)
            with torch.device("meta"):  # names may ask for more layers than there are
                expected = build_network(architecture, config).state_dict()
            check_shapes(expected, {name: tuple(value.shape) for name, value in weights.items()})
            network = build_network(architecture, config)
            network.load_state_dict(weights)
        except (KeyError, ValueError, IndexError, TypeError, RuntimeError, UsageError, SetupError):
            continue
        return architecture, network
    return None


def _of_spandrel(path: Path, state: Mapping[str, Tensor]) -> tuple[str, nn.Module]:
    try:
        import spandrel
    except ImportError as error:
        raise UsageError(
            f"{path} is neither RRDBNet nor a compact network", "pip install 'pulse-sr[networks]'"
        ) from error
    try:
        found = spandrel.ModelLoader().load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise UsageError(f"{path} holds no network that is known", "give another file") from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UsageError(f"{path} holds a network that needs a mask", "give another file")
    if (found.input_channels, found.output_channels) != (3, 3):
        raise UsageError(f"{path} holds a network for other than RGB pictures", "give another file")
    requirement = found.size_requirements
    return found.architecture.name, ForeignNetwork(
        found.model, int(found.scale), int(requirement.multiple_of)
    )
