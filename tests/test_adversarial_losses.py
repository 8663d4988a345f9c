"""Losses and gradient penalties against stored outputs of well-known implementations.

`adversarial_losses.npz`: BasicSR (hinge, logistic), RelativisticGAN (RSGAN), R3GAN (penalties).
Golden tolerances: values 1e-5 relative, gradients 1e-4, gradients of penalties 5e-4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from pulse_sr.training.gan.losses import LOSSES
from pulse_sr.training.gan.objective import Objective, gradient_penalty

GOLDEN = np.load(Path(__file__).parent / "data" / "adversarial_losses.npz", allow_pickle=False)
GAMMA = 1.7  # what the stored R3GAN step was made with


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def logits():
    return tuple(golden(f"logits_{kind}").clone().requires_grad_() for kind in ("real", "fake"))


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("logistic", "basicsr_wgan_softplus"),
        ("hinge", "basicsr_hinge"),
        ("relativistic", "RSGAN_BCE_2018"),
    ],
)
@pytest.mark.parametrize("side", ["D", "G"])
def test_losses_are_the_known_ones(name, stored, side):
    real, fake = logits()
    loss = LOSSES[name].discriminator if side == "D" else LOSSES[name].generator
    value = loss(real, fake)
    assert relative(value, golden(f"{stored}_{side}")) < 1e-5
    gradients = torch.autograd.grad(value, (real, fake), allow_unused=True)
    for gradient, kind in zip(gradients, ("real", "fake"), strict=True):
        expected = golden(f"{stored}_{side}_d{kind}")
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        assert (gradient - expected).abs().max() < 1e-4 * max(expected.abs().max(), 1e-3)


def test_only_the_relativistic_loss_compares_pairs():
    assert [name for name, loss in LOSSES.items() if loss.paired] == ["relativistic"]


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
    penalties = [
        gradient_penalty(OneNetwork(critic), images, {}, lambda x: x) for images in (real, fake)
    ]
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
    penalty = gradient_penalty(objective, torch.rand(5, 3, 8, 8), {}, lambda x: x)
    expected = 1e-4 * (np.arange(192.0) ** 2).sum()
    assert penalty.tolist() == pytest.approx([expected] * 5, rel=1e-5)


def test_r1_sees_through_the_augmentation():
    """An augmentation that triples the contrast makes nine times the penalty."""
    objective = OneNetwork(lambda x: 0.01 * x.sum(dim=[1, 2, 3]))
    images = torch.rand(4, 3, 8, 8)
    plain = gradient_penalty(objective, images, {}, lambda x: x)
    tripled = gradient_penalty(objective, images, {}, lambda x: 3 * x)
    assert tripled.tolist() == pytest.approx((9 * plain).tolist(), rel=1e-5)
