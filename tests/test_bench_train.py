"""The plain port of FastGAN's training computes what ours computes, and its report has its form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from pulse_sr.bench import frame
from pulse_sr.bench import train as bench
from pulse_sr.bench import train_baseline as plain
from pulse_sr.bench import train_sr_sides as sr_sides
from pulse_sr.bench.options import TrainBench
from pulse_sr.bench.train_sides import training_config
from pulse_sr.cli import main
from pulse_sr.errors import SetupError
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.gan.build import build_augmentation, build_objective
from pulse_sr.training.gan.fastgan_objective import FastGANObjective
from pulse_sr.training.sr.build import build_step

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
        assert float(a.detach().std()) > 0.1
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_losses_of_d_are_the_same(objective, theirs, draws):
    found, (on_real, on_fake) = draws
    real = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    augmentation = DiffAugment(("color", "translation"))
    ours, _, _ = objective.discriminator_loss(
        real.contiguous(memory_format=torch.channels_last),
        generated(theirs, found),
        found,
        lambda x: augmentation.apply(x, on_real),
        lambda x: augmentation.apply(x, on_fake),
    )
    fakes = [plain.augment(each, on_fake) for each in generated(theirs, found)]
    of_real = theirs.real_loss(plain.augment(real, on_real), found["real_margin"], 2)
    of_fake = theirs.fake_loss(*fakes, found["fake_margin"])
    assert (of_real + of_fake).item() == pytest.approx(ours.item(), abs=1e-3)


def test_loss_and_gradients_of_g_are_the_same(objective, theirs, draws):
    found, (_, augments) = draws
    augmentation = DiffAugment(("color", "translation"))
    ours = objective.generator_loss(
        torch.empty(0), objective.generate(found), lambda x: augmentation.apply(x, augments)
    )
    images = [plain.augment(each, augments) for each in generated(theirs, found)]
    loss = theirs.generator_loss(*images)
    assert loss.item() == pytest.approx(ours.item(), abs=1e-3)
    names = ["to_big.weight_orig", "feat_8.1.weight_orig", "se_64.main.1.weight_orig"]
    gradients = [
        torch.autograd.grad(value, [weights[name] for name in names])
        for value, weights in (
            (ours, dict(objective.generator.named_parameters())),
            (loss, theirs.generator.parameters),
        )
    ]
    for a, b in zip(*gradients, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-2


@pytest.mark.parametrize("resolution", [128, 256, 512, 1024])
def test_every_resolution_has_the_same_weights_and_logits(resolution):
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        ours = FastGANObjective(FastGANConfig(resolution, 8, 16))
        images = torch.rand(1, 3, resolution, resolution).double() * 2 - 1
    for network in (ours.generator, ours.discriminator):
        network.double()
    networks = (
        plain.PlainGenerator(ours.generator),
        plain.PlainDiscriminator(ours.generator.config, ours.discriminator),
    )
    for network in networks:
        network.advance = False
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).double()
    noise = [torch.zeros(1, 1, *shape).double() for shape in ours.generator.config.noise_shapes]
    small = F.interpolate(images, ours.generator.config.small_side)
    with torch.no_grad():
        for a, b in zip(networks[0](z, noise), ours.generator(z, noise), strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
        logits = networks[1](images, small).logits
        torch.testing.assert_close(logits, ours.discriminator(images)[0], atol=1e-9, rtol=0)


# the benchmark


def records(seconds):
    return [{"seconds": s, "system_s": s / 10, "peak_mb": s * 100, "added_mb": s} for s in seconds]


def test_a_row_holds_medians_and_the_spread_of_the_repeats():
    turns = {
        "ours": [records([1.0, 2.0, 3.0]), records([2.0, 2.0, 4.0])],
        "baseline": [records([4.0, 5.0, 6.0]), records([8.0, 9.0, 5.0])],
    }
    row = bench.make_row("FastGAN 64 px, batch 4", 4, turns, 1)
    assert row["name"] == "FastGAN 64 px, batch 4"
    assert (row["ours_s"], row["baseline_s"]) == (2.0, 5.5)
    assert row["ratio"] == 2.75
    assert row["ratio_range"] == [2.5, 4.0]
    assert (row["ours_images_per_s"], row["baseline_images_per_s"]) == (2.0, 4 / 5.5)
    assert (row["ours_peak_mb"], row["baseline_peak_mb"]) == (400.0, 500.0)
    assert (row["ours_system_s"], row["baseline_added_mb"]) == (pytest.approx(0.2), 5.0)


def test_the_plain_training_moves_all_weights_that_count(theirs):
    weights = theirs.generator.parameters
    before = [p.detach().clone() for p in weights.values()]
    losses = theirs.step()
    assert set(losses) == {"discriminator", "generator"}
    pairs = zip(weights.items(), before, strict=True)
    still = {name for (name, after), was in pairs if torch.equal(after, was)}
    assert not still


def test_the_plain_step_of_srgan_is_ours():
    """Two steps: the losses of the second one see what the first one did to both networks."""
    recipe = sr_sides.adversarial_recipe(4)
    network = {"architecture": "srresnet", "scale": 4, "width": 8, "blocks": 2}
    judge = {"architecture": "vgg", "width": 8, "hidden": 16}
    config = replace(recipe, network=network, discriminator=judge, patch=32)
    machine = sr_sides.machine_of(CPU)
    ours, copy = build_step(config, machine), build_step(config, machine)
    theirs = sr_sides.PlainTraining(copy.generator, copy.discriminator, config, CPU)
    for _ in range(2):
        low, high = theirs.pairs()
        assert low.shape == (4, 3, 8, 8)
        assert high.is_contiguous()
        found, expected = ours.run(low, high, 0), theirs.update(low, high)
        for name, value in expected.items():
            assert found[name].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--resolution", "64", "--batch", "2", "--ngf", "8"],
        ["train-sr", "--batch", "2"],
    ],
)
def test_the_command_prints_a_report_of_both_sides(words):
    words = ["bench", *words, "--device", "cpu", "--steps", "1", "--repeats", "2"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    (row,) = report["rows"]
    assert report["ratio"] == row["ratio"] == pytest.approx(row["baseline_s"] / row["ours_s"])
    assert report["environment"]["precision"] == "fp32"
    assert min(row["ours_peak_mb"], row["baseline_peak_mb"]) > 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resolution", "100"], "100"),
        (["--device", "cuda:99"], "cuda"),
    ],
)
def test_what_can_not_be_measured_is_said(words, said):
    done = CliRunner().invoke(main, ["bench", "train", *words])
    assert done.exit_code in (2, 3)
    assert said in done.stderr


def test_a_side_that_ends_by_itself_is_an_error(monkeypatch):
    monkeypatch.setattr(frame.sys, "executable", "false")
    with pytest.raises(SetupError, match="ended by itself"):
        bench.bench_train(TrainBench(2, 8, 1, 1, "cpu"), [64])
