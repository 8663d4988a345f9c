"""Finds the compiled ops, and decides where they are used.

Nothing is built at import. On a CPU the compiled library is used where it has been built ahead of
time (`pulse-sr doctor --build`); on a GPU it is built at the first use. Without it the PyTorch
reference of each op gives the same results.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from stylegan_ops import build

_log = logging.getLogger(__name__)

#: Values of the `impl` argument of every op.
IMPLS = ("auto", "cuda", "cpp", "ref")

#: Environment variable that says what `impl="auto"` means: `auto`; `ref`, the PyTorch reference
#: everywhere; `compiled`, the compiled ops everywhere, with an error where there are none.
CHOICE_VARIABLE = "STYLEGAN_OPS"
_CHOICES = ("auto", "ref", "compiled")

#: op -> whether `auto` uses its compiled CPU path: where that measured faster than PyTorch's own
#: (`pulse-sr bench ops`, docs/benchmarks.md).
FASTER_ON_CPU = {"bias_act": False, "upfirdn2d": True, "style_epilogue": True}

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_on_load: list[Callable[[], None]] = []
#: target -> whether it is loaded; a target that is not here has not been tried.
_loaded: dict[str, bool] = {}


def on_load(register: Callable[[], None]) -> Callable[[], None]:
    """Decorator: call this once the operators exist, to attach shapes and gradients to them."""
    _on_load.append(register)
    return register


def use_compiled(op: str, x: Tensor, impl: str) -> bool:
    """Whether `op` on `x` goes to the compiled library, which is then loaded.

    Args:
        op: a key of `FASTER_ON_CPU`.
        x: the input.
        impl: `auto`; `cuda` or `cpp`, the compiled op for a tensor that lies there; `ref`.

    Raises:
        ValueError: for an unknown `impl`, or one that does not go with the device of `x`.
        BuildError: the compiled op was asked for by name and can not be had.
    """
    if impl == "ref" or x.dtype not in _DTYPES or x.device.type not in ("cpu", "cuda"):
        return False
    return _decide(op, x.device.type, impl)


def _decide(op: str, device: str, impl: str) -> bool:
    if impl not in IMPLS:
        raise ValueError(f"impl is {impl!r}, expected one of {', '.join(IMPLS)}")
    target = "cuda" if device == "cuda" else "cpu"
    if impl != "auto":
        if (impl == "cuda") != (target == "cuda"):
            raise ValueError(f"impl is {impl!r}, but the tensor is on the device {device!r}")
        require(target)
        return True
    choice = os.environ.get(CHOICE_VARIABLE, "auto")
    if choice not in _CHOICES:
        raise ValueError(f"{CHOICE_VARIABLE}={choice!r}, expected one of {', '.join(_CHOICES)}")
    if choice == "ref":
        return False
    if choice == "compiled":
        require(target)
        return True
    return _available(target) and (target == "cuda" or FASTER_ON_CPU[op])


# The decision is a constant to torch.compile, which must not trace into building and loading. This
# is what `torch.compiler.assume_constant_result` does, without its import of 1.3 seconds.
_decide._dynamo_marked_constant = True  # type: ignore[attr-defined]


def require(target: str) -> None:
    """Load the library of `target` ("cpu" or "cuda"), building it where it is missing.

    Raises:
        BuildError: it can not be built.
    """
    if not _loaded.get(target):
        _load(target, build.build(target, _log.info))


def _available(target: str) -> bool:
    """Loads what is built; builds for a GPU what is not. A failure is said once."""
    if target not in _loaded:
        state = build.state(target)
        try:
            if state.status == "built":
                assert state.path is not None  # a built library has one
                _load(target, state.path)
            elif target == "cuda" and state.status == "missing":
                _load(target, build.build(target, _log.info))
            else:
                _refuse(target, state.reason, state.hint)
        except build.BuildError as error:
            _refuse(target, error.reason, error.hint)
    return _loaded[target]


def _refuse(target: str, reason: str, hint: str) -> None:
    _loaded[target] = False
    if target == "cuda":
        _log.warning("the fused CUDA ops are not used (slower, same results): %s; %s", reason, hint)


def _load(target: str, path: Path) -> None:
    if target == "cuda" and not _loaded.get("cpu"):
        require("cpu")  # it defines the operators that the CUDA library adds kernels to
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        shutil.rmtree(path.parent, ignore_errors=True)  # so that it is built anew
        raise build.BuildError(
            f"{path} can not be loaded: {error}", "pulse-sr doctor --build", ""
        ) from error
    _loaded[target] = True
    if target == "cpu":
        for register in _on_load:
            register()


def used_by_generators(device: str) -> str:
    """What `auto` uses for a generator on a device type: "compiled" or "PyTorch"."""
    return "compiled" if _decide("style_epilogue", device, "auto") else "PyTorch"


def implementations() -> dict[str, dict[str, str]]:
    """op -> device type -> "compiled" or "PyTorch": what `auto` uses as things are now."""
    built = {target: build.state(target).status == "built" for target in ("cpu", "cuda")}
    words = {False: "PyTorch", True: "compiled"}
    return {
        op: {"cpu": words[built["cpu"] and faster], "cuda": words[built["cuda"]]}
        for op, faster in FASTER_ON_CPU.items()
    }
