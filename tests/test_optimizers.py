"""Optimizers against the trajectory of the authors' package, and over a checkpoint.

`adabelief.npz`: adabelief-pytorch 0.2.1 in float64, 20 steps on a quadratic and on Rosenbrock's
function, lr 2e-4, betas (0.5, 0.999), eps 1e-12, not rectified.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_sr.training.checkpoint import load_optimizer, optimizer_tensors
from pulse_sr.training.optimizers import OPTIMIZERS, make_optimizer

GOLDEN = np.load(Path(__file__).parent / "data" / "adabelief.npz", allow_pickle=False)


def quadratic(x):
    a, b = (torch.from_numpy(GOLDEN[f"quad_{name}"]).double() for name in "Ab")
    return x @ a @ x / 2 - b @ x


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


FUNCTIONS = {"quad": quadratic, "rosen": rosenbrock}


def steps(optimizer, x, function, count):
    for _ in range(count):
        optimizer.zero_grad()
        function(x).backward()
        optimizer.step()
        yield x.detach().clone()


def start(name):
    return torch.from_numpy(GOLDEN[f"{name}_x0"]).double().requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_adabelief_is_that_of_its_authors(name):
    x = start(name)
    optimizer = make_optimizer("adabelief", [x], 2e-4, (0.5, 0.999))
    found = torch.stack([x.detach().clone(), *steps(optimizer, x, FUNCTIONS[name], 20)])
    expected = GOLDEN[f"D_eps1e-12_gan_betas.{name}.x_f64"]
    assert np.abs(found.numpy() - expected).max() < 1e-10


@pytest.mark.parametrize(
    ("name", "betas"),
    [("adam", (0.9, 0.99)), ("adam", (0.0, 0.99)), ("adabelief", (0.5, 0.99))],
)
def test_a_checkpoint_goes_on_bit_by_bit(name, betas):
    whole, first = start("rosen"), start("rosen")
    *_, end = steps(make_optimizer(name, [whole], 1e-3, betas), whole, rosenbrock, 7)
    optimizer = make_optimizer(name, [first], 1e-3, betas)
    list(steps(optimizer, first, rosenbrock, 3))
    tensors = {key: value.clone() for key, value in optimizer_tensors(optimizer).items()}
    second = first.detach().clone().requires_grad_()
    resumed = make_optimizer(name, [second], 1e-3, betas)
    load_optimizer(resumed, tensors)
    *_, again = steps(resumed, second, rosenbrock, 4)
    assert torch.equal(again, end)


def test_the_names_are_known():
    with pytest.raises(ValueError, match="expected one of adam, adabelief"):
        make_optimizer("sgd", [start("quad")], 1e-3)
    assert [type(make_optimizer(name, [start("quad")], 1e-3)).__name__ for name in OPTIMIZERS] == [
        "Adam",
        "AdaBelief",
    ]
    with pytest.raises(ValueError, match="first decay of 0"):
        make_optimizer("adabelief", [start("quad")], 1e-3, (0.0, 0.9))
