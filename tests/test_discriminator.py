"""The StyleGAN2 discriminator against stored outputs of the official one.

Golden tolerances: logits 3e-6 absolute, R1 and its gradients 2e-4 relative.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.gan.discriminator import Discriminator, minibatch_std
from pulse_sr.training.gan.objective import gradient_penalty
from pulse_sr.training.gan.stylegan2_objective import StyleGAN2Objective

FOLDER = Path(__file__).parent / "data"
GOLDEN = np.load(FOLDER / "stylegan2_tiny.npz", allow_pickle=False)
OPS = np.load(FOLDER / "ops.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def discriminator():
    tensors = load_file(FOLDER / "stylegan2_tiny.safetensors")
    weights = {k[2:]: v for k, v in tensors.items() if k.startswith("D.")}
    weights = {k: v for k, v in weights.items() if not k.endswith("resample_filter")}
    network = Discriminator(StyleGAN2Config.from_base(32, 512, 32, 32, 8))
    network.load_state_dict(weights, strict=True)
    return network


@pytest.mark.parametrize(
    ("count", "name"), [(8, "d_logits"), (4, "d_logits_first4"), (2, "d_logits_first2")]
)
def test_logits_are_the_official_ones(discriminator, count, name):
    """The groups of the minibatch deviation change with the batch, and the logits with them."""
    logits = discriminator(golden("d_img")[:count])
    assert (logits - golden(name)).abs().max() < 3e-6


def test_r1_and_the_gradient_of_the_real_loss_are_the_official_ones(discriminator):
    real = golden("d_img")
    objective = StyleGAN2Objective(StyleGAN2Config(8, 8, 8, 1, (8, 8)))
    objective.discriminator = discriminator
    penalty = gradient_penalty(objective, real, {}, lambda images: images)
    assert relative(penalty, golden("r1_penalty_per_image")) < 2e-4
    loss = F.softplus(-discriminator(real)).mean() + 5 * penalty.mean()
    assert relative(loss, golden("d_real_loss_gamma10")) < 2e-4
    loss.backward()
    stored = {name[len("gradD.") :] for name in GOLDEN.files if name.startswith("gradD.")}
    parameters = dict(discriminator.named_parameters())
    assert stored == set(parameters)
    errors = {k: relative(v.grad, golden(f"gradD.{k}")) for k, v in parameters.items()}
    assert max(errors.values()) < 2e-4, max(errors, key=errors.get)


def test_minibatch_std_is_the_official_one():
    x = torch.from_numpy(OPS["mbstd_1_x"]).requires_grad_()
    y = minibatch_std(x, 4)
    assert relative(y, torch.from_numpy(OPS["mbstd_1_y"])) < 1e-5
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(OPS["mbstd_1_dy"]))
    assert relative(dx, torch.from_numpy(OPS["mbstd_1_dx"])) < 1e-5


def test_minibatch_std_groups_are_interleaved():
    """Eight images make two groups: the even and the odd ones. Equal images have no deviation."""
    x = torch.zeros(8, 2, 4, 4)
    x[1::2] = torch.arange(4.0)[:, None, None, None]
    channel = minibatch_std(x)[:, 2, 0, 0]
    assert channel[::2].abs().max() < 2e-4  # sqrt(1e-8)
    assert channel[1::2].sub(1.25**0.5).abs().max() < 1e-6
