"""Damaged and hostile files of weights: safetensors, pickles, archives of torch."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
from collections.abc import Iterator
from typing import Any

import torch
from foreign_checkpoints import Call, named, pickled

from campaign.corpus_images import DAMAGES, Case

_DEEP = 100_000


def tensor_cases(seed: int, whole: bytes) -> Iterator[Case]:
    """About 60 safetensors files, made from a sound one."""
    yield from _damaged(seed, "safetensors", whole, 25)
    size = struct.unpack("<Q", whole[:8])[0]
    body = whole[8 + size :]
    header = json.loads(whole[8 : 8 + size])
    for name, length in {"zero": 0, "most": 2**64 - 1, "large": 2**33, "odd": size - 1}.items():
        yield f"length-{name}.safetensors", struct.pack("<Q", length) + whole[8:]
    texts = {
        "deep": b"[" * _DEEP,
        "deep-object": b'{"a":' * _DEEP,
        "list": b"[]",
        "number": b"1",
        "empty": b"{}",
        "bytes": b"\xff\xfe{}",
        "digits": b'{"a":' + b"9" * 5000 + b"}",
        "twice": b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 2 + b"}",
    }
    for name, text in texts.items():
        yield f"header-{name}.safetensors", struct.pack("<Q", len(text)) + text + body
    first = next(key for key in header if key != "__metadata__")
    for name, entry in {
        "offsets": {"data_offsets": [0, 2**62]},
        "negative": {"data_offsets": [-4, 4]},
        "overlap": {"data_offsets": [0, 4]},
        "shape": {"shape": [2**40, 2**40]},
        "minus": {"shape": [-1]},
        "dtype": {"dtype": "F8192"},
        "strings": {"shape": "many"},
    }.items():
        yield f"{name}.safetensors", _with_header(header | {first: header[first] | entry}, body)
    yield from _cards(header, body)


def _cards(header: dict[str, Any], body: bytes) -> Iterator[Case]:
    """What is said of the network is otherwise."""
    about = header["__metadata__"]
    [kind] = about
    card = json.loads(about[kind])
    changes = (
        ("architecture", "nothing"),
        ("architecture", 5),
        ("config", None),
        ("config", {}),
        ("config", {"resolution": 2**16}),
        ("config", {"resolution": 10**30}),
        ("config", {"width": 2**31, "scale": 2}),
        ("config", {"channels": [2**31] * 8}),
        ("config", {"convolutions": 2**40}),
        ("card", [1]),
        ("name", "../../x"),
        ("name", "x" * 10**6),
    )
    for number, (key, value) in enumerate(changes):
        stored = header | {"__metadata__": {kind: json.dumps(card | {key: value})}}
        yield f"card-{number}-{key}.safetensors", _with_header(stored, body)
    for name, text in {"nan": '{"a": NaN}', "deep": "[" * _DEEP, "none": ""}.items():
        yield (
            f"card-{name}.safetensors",
            _with_header(header | {"__metadata__": {kind: text}}, body),
        )


def _with_header(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def pickle_cases(seed: int, whole: bytes) -> Iterator[Case]:
    """About 60 pickles and archives of torch, made from a sound one."""
    yield from _damaged(seed, "pkl", whole, 20)
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(3, 3)}, stream)
    yield from _damaged(seed, "pt", stream.getvalue(), 15)
    old = io.BytesIO()
    torch.save({"w": torch.zeros(3, 3)}, old, _use_new_zipfile_serialization=False)
    yield from _damaged(seed, "pth", old.getvalue(), 10)
    for name, function, arguments in (
        ("system", ("os", "system"), ("echo harm > harmed",)),
        ("eval", ("builtins", "eval"), ("open('harmed', 'w')",)),
        ("exec", ("builtins", "exec"), ("open('harmed', 'w')",)),
        ("popen", ("subprocess", "Popen"), (["touch", "harmed"],)),
        ("attribute", ("builtins", "getattr"), ("", "format")),
        ("import", ("importlib", "import_module"), ("antigravity",)),
        ("load", ("torch", "load"), ("other.pt",)),
        ("open", ("io", "open"), ("harmed", "w")),
        ("storage", ("torch.storage", "_load_from_bytes"), (b"no",)),
    ):
        call = Call(named(*function), *arguments)
        for protocol in (2, 4):
            yield f"{name}-{protocol}.pkl", pickled({"w": call}, protocol)
    self_holding: list[Any] = []
    self_holding.append(self_holding)
    for name, data in {
        "loop": pickle.dumps(self_holding),
        "deep": b"\x80\x02" + b"]" * _DEEP + b"a" * (_DEEP - 1) + b".",
        "bytes": b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b".",
        "long": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
        "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "digits": b"I" + b"9" * 10_000 + b"\n.",
        "memo": b"\x80\x02K\x01r\xff\xff\xff\xff.",
        "no-memo": b"\x80\x02h\x07.",
        "marks": b"\x80\x02" + b"(" * 10**6 + b".",
        "pops": b"\x80\x02" + b"0" * 9 + b".",
        "protocol": b"\x80\xff.",
        "tar": bytes(257) + b"ustar" + bytes(250),
        "doubling": b"\x80\x02]" + b"2\x86" * 60 + b".",
        "key": b"\x80\x02}]K\x01s.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02K\x01Q.",
        "text": b"weights\n",
        "empty": b"",
    }.items():
        yield f"{name}.pkl", data


def _damaged(seed: int, suffix: str, whole: bytes, count: int) -> Iterator[Case]:
    for number in range(count):
        rng = random.Random(f"{seed}/{suffix}/{number}")
        kind = list(DAMAGES)[number % len(DAMAGES)]
        yield f"{kind}-{number}.{suffix}", DAMAGES[kind](whole, rng)
