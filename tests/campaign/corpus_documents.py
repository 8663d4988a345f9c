"""Damaged and hostile JSON and TOML, made from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from campaign.corpus_images import DAMAGES, Case

#: What stands in place of a value.
VALUES = (
    None, True, -1, 10**30, 1e308, "", "../../x", "/etc/passwd", "x" * 5000, "a\0b", "\ud800",
    [], {}, [[[]]], {"": None},
)  # fmt: skip
_TEXTS = {
    "deep": "[" * 100_000,
    "nan": '{"a": NaN}',
    "digits": "1" * 5000,
    "twice": '{"status": "ok", "status": "ok"}',
    "list": "[]",
    "null": "null",
    "empty": "",
    "mark": "\ufeff{}",
    "half": '{"status": "ok"',
}


def record_cases(seed: int, name: str, whole: bytes, count: int) -> Iterator[Case]:
    """Records of ours that somebody edited, or that were cut off.

    Args:
        seed: of what is changed.
        name: `result.json`, `manifest.json`, ...; the case is `KIND/NAME`.
        whole: a sound one.
        count: how many edited and how many damaged ones.
    """
    document = json.loads(whole)
    for number in range(count):
        rng = random.Random(f"{seed}/{name}/{number}")
        yield f"edited-{number}/{name}", json.dumps(_edited(document, rng)).encode("ascii")
        kind = list(DAMAGES)[number % len(DAMAGES)]
        yield f"{kind}-{number}/{name}", DAMAGES[kind](whole, rng)
    for kind, text in _TEXTS.items():
        yield f"{kind}/{name}", text.encode()


def _edited(document: Any, rng: random.Random) -> Any:
    """One or two values are others, or gone."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(changed))
        if not places:
            break
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of every container inside."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


_TOML_VALUES = (
    "nan", "inf", "-1", "1e400", "0", "9" * 400, "true", '""', '"../x"', '"a\\u0000b"',
    "[]", "[1, [2]]", "{}", "1979-05-27", '"' + "x" * 5000 + '"',
)  # fmt: skip


def toml_cases(seed: int, whole: str) -> Iterator[Case]:
    """About 50 settings, made from sound ones: other values, unknown keys, broken text."""
    lines = whole.strip().splitlines()
    keyed = [number for number, line in enumerate(lines) if " = " in line]
    for number in range(30):
        rng = random.Random(f"{seed}/toml/{number}")
        changed = list(lines)
        place = rng.choice(keyed)
        key = changed[place].split(" = ")[0]
        changed[place] = f"{key} = {rng.choice(_TOML_VALUES)}"
        yield f"value-{number}.toml", "\n".join(changed).encode()
    for number in range(12):
        rng = random.Random(f"{seed}/toml-damage/{number}")
        kind = list(DAMAGES)[number % len(DAMAGES)]
        yield f"{kind}-{number}.toml", DAMAGES[kind](whole.encode(), rng)
    for kind, text in {
        "unknown": "sampels = 4\n",
        "twice": "seed = 1\nseed = 2\n",
        "deep": "a = " + "[" * 50_000,
        "tables": "[a" + ".a" * 20_000 + "]\n",
        "bytes": "\udcff",
        "empty": "",
        "binary": "\0",
        "itself": 'config = "config.toml"\n',
    }.items():
        yield f"{kind}.toml", text.encode("utf-8", "surrogateescape")
