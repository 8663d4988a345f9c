"""Heads on frozen features: against plain formulas, what they move, what a state keeps of them.

Tolerances: float64 against the formulas 1e-9; parts of a batch in float32 1e-5.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_training import assert_same_state, few_statistics, schedule, train, trainer_in

from pulse_sr.data.order import rng_of
from pulse_sr.errors import UsageError
from pulse_sr.metrics.feature_networks import NETWORKS, FeatureNetwork
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.files import read_prior
from pulse_sr.training.augment.base import NoAugment
from pulse_sr.training.gan.feature_judges import WIDTHS, FeatureJudges
from pulse_sr.training.gan.heads import FeatureHeads, HeadsTurn
from pulse_sr.training.gan.options import HEADS as CHOICES
from pulse_sr.training.gan.task import GanTask

CPU = torch.device("cpu")
HEADS = {"heads": "squeezenet", "heads_warmup": 0}
PARTS = ("heads", "adam_heads")
FACTORS = (2, 4, 8, 16)


@pytest.fixture(autouse=True)
def _few_statistics(monkeypatch):
    few_statistics(monkeypatch)


def pooled_maps(images, least_side=0):
    """A frozen network that keeps float64: means of squares of pixels, each with its channels."""
    return [F.avg_pool2d(torch.cat([images, images.square()], dim=1), factor) for factor in FACTORS]


def double_heads(weight=0.3):
    """Heads of 64 px in float64 on `pooled_maps`, with biases that matter."""
    scales = (1.0, 2.0, 0.5, 1.0)
    names = ("pooled", "Pooled", pooled_maps, None, lambda device: {})
    network = FeatureNetwork(*names, channels=(6,) * 4, scales=scales)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judges = FeatureJudges(network.channels, scales, [64 // factor for factor in FACTORS])
        for name, parameter in judges.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    judges.double().to(memory_format=torch.channels_last)
    return FeatureHeads(network, judges, weight, augmentation=NoAugment())


def plain_logits(p, images):
    """Mixing and heads written out, from the tensors of a state."""
    maps = pooled_maps(images * 0.5 + 0.5)
    mixed = [None] * 4
    for i in (3, 2, 1, 0):
        mixed[i] = F.conv2d(maps[i], p[f"mixing.across_channels{i}"])
        if i < 3:
            carried = F.conv2d(mixed[i + 1], p[f"mixing.across_scales{i + 1}"], padding=1)
            size = mixed[i].shape[2:]
            mixed[i] = mixed[i] + F.interpolate(carried, size, mode="bilinear")
    found = []
    for i, x in enumerate(mixed):
        names = [k for k in p if k.startswith(f"heads.{i}.") and k.endswith("weight_orig")]
        for number, name in enumerate(names):
            prefix = name.removesuffix(".weight_orig")
            weight = p[name]
            sigma = p[f"{prefix}.weight_u"] @ weight.flatten(1) @ p[f"{prefix}.weight_v"]
            size = weight.shape[-1]
            stride, padding = {4: (2, 1), 3: (1, 1), 1: (1, 0)}[size]
            x = F.conv2d(x, weight / sigma, p[f"{prefix}.bias"], stride, padding)
            if number < len(names) - 1:
                x = torch.where(x > 0, x, 0.2 * x)
        found.append(x.flatten(1))
    return found


def double_images(count, key):
    return torch.rand(count, 3, 64, 64, generator=rng_of(key), dtype=torch.float64) * 2 - 1


def test_losses_and_gradients_are_those_of_the_formulas_in_float64():
    heads = double_heads()
    fake, real = double_images(3, "fake").requires_grad_(), double_images(3, "real")
    turn, rows = heads.turn(3, 0, CPU), torch.arange(3)
    of_generator = turn.generator_loss(fake, rows)
    (ours,) = torch.autograd.grad(of_generator, fake)
    of_judges, signs = turn.judges_loss(real, rows)
    of_judges.backward()

    state = heads.judges.state_dict(keep_vars=True)
    p = {
        k: v.detach().clone().requires_grad_(k.endswith(("orig", "bias"))) for k, v in state.items()
    }
    on_fake, on_real = (plain_logits(p, images) for images in (fake, real))
    assert [each.shape for each in on_fake] == [(3, 16), (3, 16), (3, 16), (3, 16)]
    expected = sum(-each.mean() for each in on_fake) / 4
    (theirs,) = torch.autograd.grad(expected, fake, retain_graph=True)
    assert of_generator.item() == pytest.approx(expected.item(), abs=1e-9)
    assert theirs.abs().max() > 1e-6
    assert (ours - theirs).abs().max() < 1e-9
    pairs = zip(on_real, plain_logits(p, fake.detach()), strict=True)
    hinge = sum(F.relu(1 - a).mean() + F.relu(1 + b).mean() for a, b in pairs) / 4
    hinge.backward()
    assert of_judges.item() == pytest.approx(hinge.item(), abs=1e-9)
    assert signs["heads_real_sign"].item() == pytest.approx(
        torch.cat([each.flatten() for each in on_real]).sign().mean().item()
    )
    for name, parameter in heads.judges.named_parameters():
        assert (parameter.grad - p[name].grad).abs().max() < 1e-9, name


def test_mixing_keeps_the_size_of_the_maps():
    """Maps of the stated sizes come out with a root mean square between 0.7 and 2."""
    mixing = double_heads().judges.mixing
    rng = torch.Generator().manual_seed(0)
    shapes = [(4, 6, 64 // factor, 64 // factor) for factor in FACTORS]
    maps = [
        scale * torch.randn(shape, generator=rng, dtype=torch.float64)
        for scale, shape in zip((1.0, 2.0, 0.5, 1.0), shapes, strict=True)
    ]
    sizes = [each.square().mean().sqrt().item() for each in mixing(maps)]
    assert [len(each[0]) for each in mixing(maps)] == list(WIDTHS)
    assert all(0.7 < size < 2 for size in sizes)
    assert not any(True for _ in mixing.parameters())


def step_with(tmp_path, name, **options):
    return trainer_in(tmp_path / name, **{"batch": 8, "augment": "off"} | options).task.gan


def real_images(count=8, side=8):
    return torch.rand(count, 3, side, side, generator=rng_of("real")) * 2 - 1


def weights_of(step, *names):
    return {
        f"{name}.{key}": value.detach().clone()
        for name in names
        for key, value in GanTask(step).modules()[name].state_dict().items()
    }


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("network", ["squeezenet", "efficientnet-lite0"])
def test_the_gradient_reaches_g_and_the_heads_and_no_frozen_weight(tmp_path, network):
    heard = step_with(tmp_path, "heard", heads=network, heads_warmup=0)
    muted = step_with(tmp_path, "muted", heads=network, heads_warmup=0, heads_weight=0.0)
    frozen = [each.clone() for each in GanTask(heard).frozen()]
    before = weights_of(heard, "heads")
    assert same(weights_of(heard, "G"), weights_of(muted, "G"))
    report = heard.run(real_images(), 0)
    muted.run(real_images(), 0)
    assert not same(weights_of(heard, "G"), weights_of(muted, "G"))
    assert report["heads"].item() > 0
    moved = {k for k, v in weights_of(heard, "heads").items() if not torch.equal(v, before[k])}
    assert {k for k in before if k.endswith("weight_orig")} <= moved
    assert not any("mixing" in k for k in moved)
    assert frozen
    for each, kept in zip(GanTask(heard).frozen(), frozen, strict=True):
        assert torch.equal(each, kept)
        assert not each.requires_grad
        assert each.grad is None


def test_during_the_warm_up_the_other_networks_learn_as_without_heads(tmp_path):
    """The same bits: heads draw from a generator of their own. Afterwards they are heard."""
    warm = step_with(tmp_path, "warm", **HEADS | {"heads_warmup": 16})
    off = step_with(tmp_path, "off")
    before = weights_of(warm, "heads")
    for shown in (0, 8):
        report = warm.run(real_images(), shown)
        assert ("heads" in report) == (shown == 0)  # in every second step
        off.run(real_images(), shown)
    assert same(weights_of(warm, "G", "D"), weights_of(off, "G", "D"))
    assert not same(weights_of(warm, "heads"), before)
    for step in (warm, off):
        step.run(real_images(), 16)
    assert not same(weights_of(warm, "G"), weights_of(off, "G"))


def test_a_batch_in_parts_is_the_batch_in_one(tmp_path):
    whole, parts = (step_with(tmp_path, name, **HEADS) for name in ("whole", "parts"))
    parts.micro_steps = 2
    reports = [step.run(real_images()[step.rows()], 0) for step in (whole, parts)]
    for name in ("heads", "heads_generator", "heads_real_sign"):
        assert reports[0][name].item() == pytest.approx(reports[1][name].item(), abs=1e-5)
    a, b = (weights_of(step, "heads") for step in (whole, parts))
    assert max((a[key] - b[key]).abs().max().item() for key in a) < 1e-4


def test_augmentation_of_the_heads_is_drawn_anew_in_every_step(tmp_path):
    heads = step_with(tmp_path, "run", **HEADS).heads
    first, again, next_one = (heads.turn(8, shown, CPU) for shown in (0, 0, 8))
    assert same(first.on_fake, again.on_fake)
    assert not same(first.on_fake, next_one.on_fake)
    assert not same(first.on_fake, first.on_real)
    assert {"brightness", "translation_rows", "cutout_rows"} <= first.on_fake.keys()


def test_features_of_real_images_are_taken_once_and_without_a_graph(tmp_path):
    step = step_with(tmp_path, "run", **HEADS)
    calls, original = [], step.heads.features
    step.heads.features = lambda images, draws: (
        calls.append(torch.is_grad_enabled()) or original(images, draws)
    )
    step.run(real_images(), 0)
    assert calls == [True, False]  # generated, real
    step.run(real_images(), 8)
    assert calls == [True, False, True]


# states


def test_a_run_in_pieces_is_the_run_in_one(tmp_path):
    """Heads, spectral norms, moments, mixing and the bank of averages, bit for bit."""
    options = {"heads": "squeezenet", "heads_warmup": 16, "ema_bank": (5.0, 20.0)}
    train(tmp_path / "whole", 48, **options)
    train(tmp_path / "pieces", 12, 28, 48, **options)
    parts = (*PARTS, "G_ema_5", "G_ema_20")
    assert_same_state(tmp_path / "whole", tmp_path / "pieces", parts)
    assert read_prior(tmp_path / "whole").card["trained_with"] == ["squeezenet"]
    state = load_file(tmp_path / "whole" / "state.safetensors")
    assert "heads/mixing.across_channels0" in state


def test_mixing_and_heads_are_those_of_the_seed(tmp_path):
    first, again, other = (
        weights_of(step_with(tmp_path, str(i), seed=seed, **HEADS), "heads")
        for i, seed in enumerate((0, 0, 1))
    )
    assert same(first, again)
    assert not torch.equal(
        first["heads.mixing.across_scales1"], other["heads.mixing.across_scales1"]
    )


def test_without_heads_nothing_of_them_is_kept(tmp_path):
    trainer = train(tmp_path, 8)
    assert_same_state(tmp_path, tmp_path)
    assert "heads_weight" not in trainer.config.to_json()
    assert "trained_with" not in read_prior(tmp_path).card


def test_a_state_of_an_earlier_version_goes_on_without_heads(tmp_path, monkeypatch):
    """Its header names neither heads nor a bank; with heads it is another run."""
    trainer = trainer_in(tmp_path)
    fields = trainer.config.to_json()
    earlier = {k: v for k, v in fields.items() if k not in ("heads", "ema_bank")}
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.config), "to_json", lambda self: earlier)
        list(trainer.train(schedule(8)))
    assert trainer_in(tmp_path).images_shown == 8
    with pytest.raises(UsageError, match="heads was off, is squeezenet"):
        trainer_in(tmp_path, heads="squeezenet")
    with pytest.raises(UsageError, match=r"ema_bank was \[\], is \[5.0\]"):
        trainer_in(tmp_path, ema_bank=(5.0,))


def test_heads_can_not_be_left_out_later(tmp_path):
    train(tmp_path, 4, **HEADS)
    with pytest.raises(UsageError, match="heads was squeezenet, is off"):
        trainer_in(tmp_path)


def test_heads_teach_fastgan_too(tmp_path):
    network = FastGANConfig(64, ngf=4)
    options = {"network": network, "loss": "hinge", "gamma": 0.0, "reconstruction": "l1"}
    step = step_with(tmp_path, "fastgan", **options, **HEADS)
    muted = step_with(tmp_path, "muted", **options, **HEADS, heads_weight=0.0)
    images = real_images(side=64)
    report = step.run(images, 0)
    muted.run(images, 0)
    assert {"generator", "discriminator", "heads", "heads_generator"} <= report.keys()
    assert not same(weights_of(step, "G"), weights_of(muted, "G"))


def test_an_unheard_turn_gives_a_value_without_a_gradient(tmp_path):
    heads = double_heads()
    turn = HeadsTurn(heads, {}, {}, heard=False, learning=True)
    fake = double_images(2, "fake").requires_grad_()
    assert not turn.generator_loss(fake, torch.arange(2)).requires_grad
    assert len(turn.kept) == 1


def test_every_choice_is_a_network():
    assert set(CHOICES) == {"off", *NETWORKS}
