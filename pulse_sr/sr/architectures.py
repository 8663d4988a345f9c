"""The networks that a file of a supervised network can hold: one row each of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn as nn

from pulse_sr.sr.compact import CompactNet
from pulse_sr.sr.rrdb import RRDBNet
from pulse_sr.sr.srresnet import MSRResNet, SRResNet

#: Each keeps its arguments as `config`, takes `[N, C, h, w]` in [0, 1], and enlarges by `scale`.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "srresnet": SRResNet,
    "msrresnet": MSRResNet,
    "rrdb": RRDBNet,
    "compact": CompactNet,
}


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network without its weights.

    Args:
        name: out of `NETWORKS`.
        config: its arguments; `network.config` of a built one gives the same network again.

    Raises:
        ValueError, TypeError: for an unknown name or arguments that make no sense.
    """
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}, expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](**config)
