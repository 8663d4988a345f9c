"""Losses and gradient penalties against stored outputs of well-known implementations.

`losses.npz`: BasicSR (logistic, hinge, least squares, Wasserstein), RelativisticGAN (RSGAN) and
relativistic-f-divergences (Ra, Rc, gradient penalty), R3GAN (R1, R2); computed in float32, compared
with ours in float64: the tolerances are the rounding of the stored numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from pulse_sr.sr.losses.adversarial import LOSSES, PENALTY_WEIGHT, gradient_penalty
from pulse_sr.training.gan.objective import Objective
from pulse_sr.training.gan.objective import gradient_penalty as r1_penalty

GOLDEN = np.load(Path(__file__).parent / "data" / "losses.npz", allow_pickle=False)
GAMMA = 1.7  # what the stored R3GAN step was made with


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


STORED = {
    "logistic": "basicsr_wgan_softplus",
    "hinge": "basicsr_hinge",
    "relativistic": "RSGAN_BCE_2018",
    "least-squares": "basicsr_lsgan",
    "wasserstein": "basicsr_wgan",
    "ragan": "RaGAN_BCE",
    "rahinge": "RaHinge",
    "rals": "RaLS",
    "rcgan": "RcGAN_BCE",
    "rchinge": "RcHinge",
    "rcls": "RcLS",
}


@pytest.mark.parametrize(
    ("name", "side", "size"),
    [(name, side, "") for name in LOSSES for side in "DG"]
    + [(name, side, "_large") for name in LOSSES if name[:2] in ("ra", "rc") for side in "DG"],
)
def test_losses_are_the_known_ones(name, side, size):
    """Large logits, up to 90, are where a logarithm of a sigmoid would give up."""
    key = f"{STORED[name]}_{side}{size}"
    real, fake = (
        golden(f"logits_{kind}{size}").double().requires_grad_() for kind in ("real", "fake")
    )
    loss = LOSSES[name].discriminator if side == "D" else LOSSES[name].generator
    value = loss(real, fake)
    assert relative(value, golden(key).double()) < 1e-6
    gradients = torch.autograd.grad(value, (real, fake), allow_unused=True)
    for gradient, kind in zip(gradients, ("real", "fake"), strict=True):
        expected = golden(f"{key}_d{kind}").double()
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        assert (gradient - expected).abs().max() < 1e-6 * max(expected.abs().max(), 1e-3)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.paired])
def test_the_sides_of_a_relativistic_loss_exchange_roles(name):
    real, fake = torch.randn(2, 5, 1, 3, generator=torch.Generator().manual_seed(2))
    loss = LOSSES[name]
    assert torch.equal(loss.generator(real, fake), loss.discriminator(fake, real))


def test_a_loss_is_paired_if_its_generator_hears_real_logits():
    real, fake = torch.randn(2, 5, generator=torch.Generator().manual_seed(3))
    real.requires_grad_()
    for name, loss in LOSSES.items():
        assert loss.generator(real, fake.requires_grad_()).requires_grad
        (heard,) = torch.autograd.grad(loss.generator(real, fake), real, allow_unused=True)
        assert (heard is not None) == loss.paired, name


class Critic(nn.Module):
    """The critic whose weights are stored: two convolutions and a linear layer."""

    def __init__(self):
        super().__init__()
        for name in [n for n in GOLDEN.files if n.startswith("critic.")]:
            key = name.removeprefix("critic.").replace(".", "_")
            self.register_parameter(key, nn.Parameter(golden(name).clone()))

    def forward(self, x):
        weights = [p for n, p in self.named_parameters() if n.endswith("weight")]
        biases = [p for n, p in self.named_parameters() if n.endswith("bias")]
        for weight, bias in zip(weights[:2], biases[:2], strict=True):
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), 0.2)
        return F.linear(x.flatten(1), weights[2], biases[2])


class OneNetwork(Objective):
    """An objective of which only the logits are asked."""

    draw = generate = generator_loss = discriminator_loss = None
    stages = make_prior = compile = None

    def __init__(self, discriminator):
        self.discriminator = discriminator

    def logits(self, images, draws, augment):
        return self.discriminator(augment(images))


def test_the_relativistic_step_with_r1_and_r2_is_the_one_of_r3gan():
    """mean(softplus(-(D(x) - D(G(z)))) + gamma / 2 (R1 + R2)) and its parameter gradients.

    The stored gradients were read after both sides had gone back through the critic: they hold the
    gradients of G's loss too.
    """
    critic = Critic()
    real, fake = golden("wgp_x_real"), golden("wgp_x_fake")
    on_real, on_fake = critic(real), critic(fake)
    assert relative(on_real.flatten(), golden("critic_out_real").flatten()) < 1e-5
    penalties = [r1_penalty(OneNetwork(critic), images, {}, lambda x: x) for images in (real, fake)]
    assert relative(penalties[0], golden("r3gan_D_r1")) < 1e-5
    assert relative(penalties[1], golden("r3gan_D_r2")) < 1e-5
    adversarial = LOSSES["relativistic"].discriminator(on_real, on_fake)
    assert relative(adversarial, golden("r3gan_D_adv").mean()) < 1e-5
    both_sides = adversarial + LOSSES["relativistic"].generator(on_real, on_fake)
    (both_sides + GAMMA / 2 * (penalties[0] + penalties[1]).mean()).backward()
    for name, parameter in critic.named_parameters():
        stored = next(
            n
            for n in GOLDEN.files
            if n.startswith("r3gan_D_paramgrad.")
            and n.removeprefix("r3gan_D_paramgrad.").replace(".", "_") == name
        )
        assert relative(parameter.grad, golden(stored)) < 5e-4, name


def test_r1_is_the_squared_gradient_summed_over_pixels():
    """For the logit 0.01 * sum(weight * x) it is 1e-4 * sum(weight^2), whatever x."""
    weight = torch.arange(192.0).view(3, 8, 8)
    objective = OneNetwork(lambda x: 0.01 * (weight * x).sum(dim=[1, 2, 3])[:, None])
    penalty = r1_penalty(objective, torch.rand(5, 3, 8, 8), {}, lambda x: x)
    expected = 1e-4 * (np.arange(192.0) ** 2).sum()
    assert penalty.tolist() == pytest.approx([expected] * 5, rel=1e-5)


def test_r1_sees_through_the_augmentation():
    """An augmentation that triples the contrast makes nine times the penalty."""
    objective = OneNetwork(lambda x: 0.01 * x.sum(dim=[1, 2, 3]))
    images = torch.rand(4, 3, 8, 8)
    plain = r1_penalty(objective, images, {}, lambda x: x)
    tripled = r1_penalty(objective, images, {}, lambda x: 3 * x)
    assert tripled.tolist() == pytest.approx((9 * plain).tolist(), rel=1e-5)


def test_the_gradient_penalty_is_that_of_the_authors():
    """Value and parameter gradients of 10 times the penalty, on the stored critic."""
    critic = Critic().double()
    penalty = PENALTY_WEIGHT * gradient_penalty(
        critic, *(golden(f"wgp_{name}").double() for name in ("x_real", "x_fake", "u"))
    )
    assert relative(penalty, golden("wgp_penalty_lambda10").double()) < 1e-6
    names, parameters = zip(*critic.named_parameters(), strict=True)
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        layer, kind = name.rsplit("_", 1)
        expected = golden(f"wgp_dpenalty.{layer}.{kind}").double()
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        assert (gradient - expected).abs().max() < 1e-6 * max(expected.abs().max(), 1e-3), name


def test_the_gradient_penalty_takes_the_norm_of_an_image():
    """A linear critic has the same gradient everywhere, (|w| - 1)^2; not one norm a pixel."""
    weight = torch.arange(48.0, dtype=torch.float64).view(3, 4, 4) / 100
    images = torch.rand(2, 5, 3, 4, 4, dtype=torch.float64)
    penalty = gradient_penalty(
        lambda x: (weight * x).sum(dim=[1, 2, 3]), *images, torch.rand(5, 1, 1, 1).double()
    )
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-12)


def test_the_gradient_penalty_of_a_flat_critic_has_a_gradient():
    """Where the norm is zero its square root has none."""
    weight = torch.zeros(3, 4, 4, requires_grad=True)
    penalty = gradient_penalty(
        lambda x: (weight * x).sum(dim=[1, 2, 3]),
        *torch.rand(2, 5, 3, 4, 4),
        torch.rand(5, 1, 1, 1),
    )
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert weight.grad.isfinite().all()
