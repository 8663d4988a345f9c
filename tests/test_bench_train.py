"""The plain port of FastGAN's training computes what ours computes, and its report has its form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pulse_sr.bench import train_baseline as plain
from pulse_sr.bench.train_sides import training_config
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.fastgan_objective import FastGANObjective
from pulse_sr.training.run import build_augmentation, build_objective

CPU = torch.device("cpu")
#: Power iterations until `u` and `v` stand still: torch's form does one in every forward pass, ours
#: one in every update.
SETTLED = 100


@pytest.fixture(scope="module")
def config():
    return training_config(64, 4, 8)


@pytest.fixture(scope="module")
def objective(config):
    """Ours at 64 px, with noise that counts and spectral norms that have settled."""
    ours = build_objective(config)
    rng = torch.Generator().manual_seed(1)
    for name, value in ours.generator.named_parameters():
        if value.numel() == 1:
            value.data = torch.randn(1, generator=rng)
        elif name.endswith("bias"):
            value.data = 0.1 * torch.randn(value.shape, generator=rng)
    for _ in range(SETTLED):
        advance_spectral_norm(ours.generator)
        advance_spectral_norm(ours.discriminator)
    for network in (ours.generator, ours.discriminator):
        network.to(memory_format=torch.channels_last).train()
    return ours


@pytest.fixture
def theirs(objective, config):
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8).numpy()
    return plain.BaselineTraining(objective, config, images, CPU)


@pytest.fixture
def draws(objective, config):
    """What a step draws, with one quarter for the whole batch, as the published training has it."""
    rng = torch.Generator().manual_seed(2)
    found = objective.draw(4, rng)
    found["quarter"] = torch.full((4,), 2)
    augmentation = build_augmentation(config)
    return found, [augmentation.draw(4, rng) for _ in range(2)]


def generated(theirs, found):
    noise = [found[f"noise{i}"] for i in range(4)]
    return theirs.generator(found["z"], noise)


def test_images_and_gates_are_the_same(objective, theirs, draws):
    found, _ = draws
    ours = objective.generator(found["z"], [found[f"noise{i}"] for i in range(4)])
    for a, b in zip(generated(theirs, found), ours, strict=True):
        assert a.is_contiguous()
        assert float(a.std()) > 0.1
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_losses_of_d_are_the_same(objective, theirs, draws):
    found, (on_real, on_fake) = draws
    real = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    augmentation = DiffAugment(("color", "translation"))
    ours, _, _ = objective.discriminator_loss(
        real.contiguous(memory_format=torch.channels_last),
        found,
        lambda x: augmentation.apply(x, on_real),
        lambda x: augmentation.apply(x, on_fake),
    )
    fakes = [plain.augment(each, on_fake) for each in generated(theirs, found)]
    of_real = theirs.real_loss(plain.augment(real, on_real), found["real_margin"], 2)
    of_fake = theirs.fake_loss(*fakes, found["fake_margin"])
    assert float(of_real + of_fake) == pytest.approx(float(ours), abs=1e-3)


def test_loss_and_gradients_of_g_are_the_same(objective, theirs, draws):
    found, (_, augments) = draws
    augmentation = DiffAugment(("color", "translation"))
    ours = objective.generator_loss(
        torch.empty(0), found, lambda x: augmentation.apply(x, augments)
    )
    images = [plain.augment(each, augments) for each in generated(theirs, found)]
    loss = theirs.generator_loss(*images)
    assert float(loss) == pytest.approx(float(ours), abs=1e-3)
    names = ["to_big.weight_orig", "feat_8.1.weight_orig", "se_64.main.1.weight_orig"]
    gradients = [
        torch.autograd.grad(value, [dict(network.named_parameters())[name] for name in names])
        for value, network in ((ours, objective.generator), (loss, theirs.generator))
    ]
    for a, b in zip(*gradients, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-2


@pytest.mark.parametrize("resolution", [128, 256, 512, 1024])
def test_every_resolution_has_the_same_weights_and_logits(resolution):
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        ours = FastGANObjective(FastGANConfig(resolution, 8, 16))
        images = torch.rand(1, 3, resolution, resolution) * 2 - 1
    networks = (
        plain.PlainGenerator(ours.generator.config),
        plain.PlainDiscriminator(ours.generator.config),
    )
    networks[0].load_state_dict(ours.generator.state_dict())
    networks[1].load_state_dict(ours.discriminator.state_dict())
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    noise = [torch.zeros(1, 1, *shape) for shape in ours.generator.config.noise_shapes]
    small = F.interpolate(images, ours.generator.config.small_side)
    with torch.no_grad():
        for network in (*networks, ours.generator, ours.discriminator):
            network.eval()
        for a, b in zip(networks[0](z, noise), ours.generator(z, noise), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
        logits = networks[1](images, small).logits
        torch.testing.assert_close(logits, ours.discriminator(images)[0], atol=1e-4, rtol=0)
