"""The searches that `evaluate_search.py` knows by name: the methods, and variants of `phased`.

A variant changes constants of `PhasedSettings`; `bank` says how many samples the seed bank has
(0: none, random starts), `target_db` at which LR-PSNR a sample stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from pulse_sr import config
from pulse_sr.priors.bank import COUNT
from pulse_sr.search.phased import PhasedSettings

METHODS = (*config.METHODS, "strict-pulse")

#: What docs/search.md shows; the first is the default, under the name that the table gives it.
TRIED: dict[str, dict[str, Any]] = {
    "default": {},
    "no bank: best of 64 random points": {"bank": 0},
    "no bank: one random point": {"bank": 0, "starts": 1},
    "bank of 4096, shares of 512": {"bank": 4096, "share": 512},
    "bank of 10240, shares of 1280": {"bank": 10240, "share": 1280},
    "shares of 32": {"share": 32},
    "1 candidate": {"candidates": 1},
    "24 candidates": {"candidates": 24},
    "tie 0.02": {"tie": 0.02},
    "tie 0.2": {"tie": 0.2},
    "tie 0.5": {"tie": 0.5},
    "tie 1": {"tie": 1.0},
    "row rate 0.02": {"ws_rate": 0.02},
    "row rate 0.1": {"ws_rate": 0.1},
    "offset on 16 px": {"least_side": 16},
    "offset on 32 px": {"least_side": 32},
    "offset ball 0.15": {"delta_radius": 0.15},
    "offset ball 0.6": {"delta_radius": 0.6},
    "offset rate 0.005": {"delta_rate": 0.005},
    "offset rate 0.02": {"delta_rate": 0.02},
    "offset rate 0.05": {"delta_rate": 0.05},
    "offset from 10 % of the steps": {"delta_start": 0.1},
    "offset from 15 % of the steps": {"delta_start": 0.15},
    "offset from 30 % of the steps": {"delta_start": 0.3},
    "offset from 50 % of the steps": {"delta_start": 0.5},
    "noise maps up to the input's side": {"noise_reach": 1.0},
    "noise maps fixed": {"noise_reach": 0.0},
}

#: What a variant changes beside the constants of the method.
OWN_KEYS: dict[str, type] = {"bank": int, "target_db": float}


@dataclass(frozen=True)
class Variant:
    """One search to evaluate.

    Attributes:
        name: what the table calls it.
        method: one of `pulse_sr.config.METHODS`.
        strict: PULSE's original behaviour, without projection.
        bank: size of the seed bank, 0 for none.
        target_db: LR-PSNR at which a sample stops searching.
        phased: constants of the method.
    """

    name: str
    method: str = "phased"
    strict: bool = False
    bank: int = COUNT
    target_db: float = config.SearchConfig.target_db
    phased: PhasedSettings = field(default_factory=PhasedSettings)


def named(name: str) -> Variant:
    """The variant of a name: of a method, of `TRIED`, or `KEY=VALUE,...` itself.

    Raises:
        ValueError: no such name, key or value.
    """
    if name in METHODS:
        strict = name == "strict-pulse"
        return Variant(name, name.removeprefix("strict-"), strict)
    changes = dict(TRIED[name]) if name in TRIED else _parsed(name)
    own = {key: changes.pop(key) for key in OWN_KEYS if key in changes}
    return Variant(name, phased=PhasedSettings(**changes), **own)


def _parsed(text: str) -> dict[str, Any]:
    kinds = {each.name: type(each.default) for each in fields(PhasedSettings)} | OWN_KEYS
    changes = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in kinds:
            known = ", ".join((*METHODS, *TRIED))
            raise ValueError(f"no variant {text!r}; known: {known}; or {', '.join(kinds)}=VALUE")
        changes[key] = kinds[key](value)
    return changes
