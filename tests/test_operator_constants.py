"""What an operator makes of its own accord (weights, cosines, places) is made once.

A call is then the same operations on the same tensors every time, as a CUDA graph has them. The
graph is emulated (tests/emulated_graph.py): it refuses what comes from the host.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulated_graph import EmulatedGraph
from PIL import Image

from pulse_sr.operators import jpeg, separable
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator

HIGH, LOW = (16, 24), (4, 6)
SPECS = {
    "bicubic": LOW,
    "bicubic|gray": LOW,
    "bicubic|{low}": LOW,
    "bicubic|jpeg:40": LOW,
    "bicubic|noise:0.02": LOW,
    "gaussian:0.8|area|jpeg:90|gray|jpeg:60|{low}|noise:0.02": LOW,
    "gray": HIGH,
    "{high}": HIGH,
    "jpeg:40": HIGH,
}


def forget() -> None:
    """What operators of all sizes share."""
    for constant in (separable._weights, jpeg._cosines, jpeg._steps):
        constant.cache_clear()


@pytest.fixture(params=SPECS)
def operator(request, tmp_path) -> Operator:
    """One whose constants are not there yet."""
    forget()
    files = {}
    for name, size in (("low", LOW), ("high", HIGH)):
        known = np.random.default_rng(3).random(size) < 0.5
        Image.fromarray((known * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
        files[name] = f"mask:{tmp_path / name}.png"
    return make_operator(request.param.format(**files), SPECS[request.param], HIGH)


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, *HIGH, generator=torch.Generator().manual_seed(seed))


def with_gradient(operator: Operator, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A(x), and the gradient of its energy."""
    y = operator(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    return y.detach(), gradient


def test_a_call_and_its_gradient_are_replayed_on_other_images(operator: Operator) -> None:
    x = images(0).requires_grad_()
    graph = EmulatedGraph()
    for _ in range(2):  # constants are made in the first call
        graph.warm_up(lambda: with_gradient(operator, x))
    found = graph.record(lambda: with_gradient(operator, x))
    with torch.no_grad():
        x.copy_(images(1))
    graph.replay()
    expected = with_gradient(operator, images(1).requires_grad_())
    for ours, other in zip(found, expected, strict=True):
        assert torch.equal(ours, other)


def test_a_first_call_in_inference_mode_does_not_break_gradients(operator: Operator) -> None:
    with torch.inference_mode():
        first = operator(images(0))
    y, gradient = with_gradient(operator, images(0).requires_grad_())
    assert torch.equal(y, first)
    assert gradient.abs().sum() > 0


def test_constants_are_as_exact_as_the_images(operator: Operator) -> None:
    """float64 after float32 is as it is alone."""
    operator(images(0))
    after = operator(images(0).double())
    forget()
    assert torch.equal(after, operator(images(0).double()))
