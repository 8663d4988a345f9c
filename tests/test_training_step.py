"""One step of training: against straight formulas in float64, in parts, over processes.

Tolerances: float64 against the formulas 1e-9; parts of a batch in float32 1e-5.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import plain_stylegan2 as plain
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pulse_sr.data.order import rng_of
from pulse_sr.errors import UsageError
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.augment.base import NoAugment
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.gan.build import build_objective
from pulse_sr.training.gan.config import TrainConfig, recipe
from pulse_sr.training.gan.objective import take
from pulse_sr.training.gan.step import Step
from pulse_sr.training.gan.stylegan2_objective import StyleGAN2Objective
from pulse_sr.training.parts import part_of_batch
from pulse_sr.training.processes import Processes

NETWORK = StyleGAN2Config(16, 8, 8, 2, (8, 8, 4))
CPU = torch.device("cpu")
DATA = Path(__file__).parent / "data"


def make_step(micro_steps=1, augmentation=None, bf16=False, **options):
    config = TrainConfig(NETWORK, **{"batch": 8, "gamma": 2.0, "augment": "off"} | options)
    objective = build_objective(config)
    for network in (objective.generator, objective.discriminator):
        network.train()
        with torch.no_grad():  # an untrained network has no noise and no biases to differentiate
            for name, parameter in network.named_parameters():
                if name.endswith(("bias", "noise_strength")) and "affine" not in name:
                    rng = rng_of("init", name)
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng))
    return Step(objective, config, augmentation or NoAugment(), CPU, Processes(), micro_steps, bf16)


def in_float64(step):
    """Networks and draws of a step from now on; returns the list that its draws appear in."""
    drawn = []

    def double(draw):
        def drawing(*words):
            found = draw(*words)
            drawn.append({k: v.double() if v.is_floating_point() else v for k, v in found.items()})
            return drawn[-1]

        return drawing

    step.objective.draw = double(step.objective.draw)
    step.objective.draw_path = double(step.objective.draw_path)
    for network in (step.objective.generator, step.objective.discriminator):
        network.double()
    step.__post_init__()  # optimizers of the double weights
    return drawn


def real_images(count=8, side=16):
    return torch.rand(count, 3, side, side, generator=rng_of("real")) * 2 - 1


def weights_of(step):
    return {
        f"{kind}.{name}": parameter.detach().clone()
        for kind in ("generator", "discriminator")
        for name, parameter in getattr(step.objective, kind).named_parameters()
    }


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


# against straight formulas


class PlainAdam:
    """Adam (Kingma and Ba 2015) with a first decay of zero."""

    def __init__(self, lr, decay, eps=1e-8):
        self.lr, self.decay, self.eps = lr, decay, eps
        self.second, self.steps = {}, {}

    def step(self, weights, loss):
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is None:
                assert name == "b4.out.bias"  # a slope does not depend on it, all else does
                continue
            second = self.second.get(name, 0) * self.decay + (1 - self.decay) * gradient**2
            self.second[name] = second
            self.steps[name] = self.steps.get(name, 0) + 1
            unbiased = second / (1 - self.decay ** self.steps[name])
            weight.data -= self.lr * gradient / (unbiased.sqrt() + self.eps)


def plain_step(weights, config, real, draws, report):
    """Two steps of training written out: G, D and R1, with lazy rates."""
    sides, inner = NETWORK.sides, NETWORK.sides[:0:-1]
    g, d = ({k: v.clone().requires_grad_() for k, v in w.items()} for w in weights)
    ratio = config.penalty_interval / (config.penalty_interval + 1)
    adam_g = PlainAdam(config.lr, 0.99)
    adam_d = PlainAdam(config.lr * ratio, 0.99**ratio)

    def generate(draw):
        z = draw["z"]
        first, second = (plain.mapping(g, z[:, i], NETWORK.mapping_layers) for i in (0, 1))
        rows = torch.arange(NETWORK.num_ws)
        ws = torch.where(
            (rows >= draw["crossover"][:, None])[..., None], second[:, None], first[:, None]
        )
        return plain.synthesis(g, ws, [draw[f"noise{i}"] for i in range(5)], sides)

    for number in range(2):
        loss_g = F.softplus(-plain.discriminator(d, generate(draws.pop(0)), inner)).mean()
        adam_g.step(g, loss_g)
        fake = generate(draws.pop(0)).detach()
        on_real, on_fake = (plain.discriminator(d, x, inner) for x in (real, fake))
        loss_d = (F.softplus(-on_real) + F.softplus(on_fake)).mean()
        adam_d.step(d, loss_d)
        report.append((loss_g.item(), loss_d.item()))
        if number % config.penalty_interval == 0:
            draws.pop(0)
            x = real.clone().requires_grad_()
            (slope,) = torch.autograd.grad(
                plain.discriminator(d, x, inner).sum(), x, create_graph=True
            )
            r1 = slope.square().sum(dim=[1, 2, 3]).mean()
            adam_d.step(d, config.gamma / 2 * config.penalty_interval * r1)
            report.append(r1.item())
    return g, d


def test_two_steps_are_those_of_the_formulas_in_float64():
    """Every weight of both networks after G, D, R1, G, D; the draws are the same."""
    step = make_step(penalty_interval=2, mixing=0.5)
    drawn = in_float64(step)
    before = [
        {k: v.detach().clone() for k, v in network.named_parameters()}
        for network in (step.objective.generator, step.objective.discriminator)
    ]
    real = real_images().double()
    ours = [step.run(real, shown) for shown in (0, 8)]
    report = []
    g, d = plain_step(before, step.config, real, list(drawn), report)
    expected = {f"generator.{k}": v.detach() for k, v in g.items()}
    expected |= {f"discriminator.{k}": v.detach() for k, v in d.items()}
    moved = largest_difference(weights_of(step), {k: before_of(before, k) for k in expected})
    assert moved > 1e-3
    assert largest_difference(weights_of(step), expected) < 1e-9
    losses = [(r["generator"].item(), r["discriminator"].item()) for r in ours]
    assert losses == [pytest.approx(report[i], rel=1e-6) for i in (0, 2)]
    assert ours[0]["r1"].item() == pytest.approx(report[1], rel=1e-6)
    assert "r1" not in ours[1]


def before_of(before, name):
    kind, key = name.split(".", 1)
    return before[kind == "discriminator"][key]


def official_objective():
    """The networks whose weights and outputs are stored."""
    config = StyleGAN2Config.from_base(32, 512, 32, 32, 8)
    objective = StyleGAN2Objective(config)
    tensors = load_file(DATA / "stylegan2_tiny.safetensors")
    weights = {k[2:]: v for k, v in tensors.items() if k.startswith("G.")}
    weights = {k: v for k, v in weights.items() if not k.endswith("resample_filter")}
    objective.generator.load_state_dict(weights)
    return objective


def test_path_lengths_are_the_official_ones():
    """Golden tolerance: 2e-4 relative, lengths and the gradients of their sum."""
    golden = np.load(DATA / "stylegan2_tiny.npz", allow_pickle=False)
    paths = np.load(DATA / "stylegan2_paths.npz", allow_pickle=False)
    objective = official_objective()
    direction = torch.from_numpy(golden["grad_cot"])
    ws = torch.from_numpy(golden["ws_psi1"])[: len(direction)].requires_grad_()
    objective.styles = lambda draws: ws
    noise = objective.generator.synthesis.fixed_noise()
    draws = {f"noise{i}": n.expand(len(ws), -1, -1, -1) for i, n in enumerate(noise)}
    lengths = objective.path_lengths(draws | {"direction": direction})
    assert relative(lengths, paths["pl_lengths"]) < 2e-4
    lengths.sum().backward()
    assert relative(ws.grad, paths["pl_grad_ws"]) < 2e-4
    parameters = dict(objective.generator.named_parameters())
    stored = [name for name in paths.files if name.startswith("pl_grad.")]
    assert len(stored) == 2
    for name in stored:
        assert relative(parameters[name.removeprefix("pl_grad.")].grad, paths[name]) < 2e-4


def relative(actual, stored):
    expected = torch.from_numpy(stored)
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def test_the_path_penalty_moves_towards_the_mean():
    """(length - mean)^2 with the mean of the steps before, which then moves by a hundredth."""
    step = make_step(path_weight=2.0, gamma=0.0)
    step.path_mean = 0.5
    report = step.run(real_images(), 0)
    rng = torch.Generator().manual_seed(rng_of(0, "step", 0).initial_seed())
    reference = make_step(path_weight=2.0, gamma=0.0)
    reference._train_generator(real_images(), reference.objective.draw(8, rng), rng)
    lengths = reference.objective.path_lengths(reference.objective.draw_path(4, rng))
    assert report["path"].item() == pytest.approx((lengths - 0.5).square().mean().item(), rel=1e-4)
    assert step.path_mean == pytest.approx(0.5 + 0.01 * (lengths.mean().item() - 0.5), rel=1e-5)


# parts of a batch


@pytest.mark.parametrize("count", [4, 8, 16])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_keep_the_groups_together(count, parts):
    """Image i belongs to group i mod (N / 4): in the batch and, by its place, in the part."""
    groups = count // 4
    if groups % parts:
        with pytest.raises(ValueError, match="equal parts"):
            part_of_batch(count, 4, 0, parts)
        return
    rows = [part_of_batch(count, 4, part, parts) for part in range(parts)]
    assert sorted(torch.cat(rows).tolist()) == list(range(count))
    for part in rows:
        local = groups // parts
        for i, row in enumerate(part.tolist()):
            mates = {int(r) % groups for j, r in enumerate(part.tolist()) if j % local == i % local}
            assert mates == {row % groups}


OPTIONS = [
    {},
    {"loss": "relativistic", "r2": True, "penalty_interval": 1},
    {"loss": "hinge", "path_weight": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_batch_in_parts_is_the_batch_in_one(options):
    """Gradients add up: losses and weights agree to rounding, whatever fits into memory.

    In float64: Adam's first steps are as long for a gradient of rounding errors as for any other,
    so that in float32 the weights would differ by what a machine makes of sums that cancel. Losses
    are reported in float32.
    """
    augmentation = DiffAugment(("color", "translation"))
    whole, parts = (make_step(n, augmentation, **options) for n in (1, 2))
    for step in (whole, parts):
        in_float64(step)
    for shown in (0, 8):
        a, b = (s.run(real_images()[s.rows()].double(), shown) for s in (whole, parts))
        assert {k: v.item() for k, v in b.items()} == pytest.approx(
            {k: v.item() for k, v in a.items()}, rel=1e-6, abs=1e-7
        )
    assert largest_difference(weights_of(whole), weights_of(parts)) < 1e-9


def test_the_rows_of_all_processes_are_the_batch():
    """Each image is read by one process, which finds it where its parts look for it."""
    found = []
    for rank in (0, 1):
        step = make_step(2, batch=16)
        step.processes = Processes(rank, count=2)
        rows = step.rows()
        for part in step._parts():
            assert torch.equal(rows[part.own], part.rows)
        found += rows.tolist()
    assert sorted(found) == list(range(16))
    assert torch.equal(make_step().rows(), torch.arange(8))


def test_recomputing_activations_changes_no_bit():
    kept, recomputed = make_step(path_weight=2.0), make_step(path_weight=2.0)
    recomputed.objective.set_recompute(True)
    for shown in (0, 8):
        kept.run(real_images(), shown)
        recomputed.run(real_images(), shown)
    assert largest_difference(weights_of(kept), weights_of(recomputed)) == 0


# what is drawn, what is trained


def test_mixed_styles_change_latent_once_at_a_row_of_their_own():
    """Rows before the crossover are of the first latent, the others of the second."""
    objective = make_step(mixing=1.0).objective
    draws = objective.draw(200, rng_of("x"))
    ws = objective.styles(draws)
    first, second = (objective.generator.mapping(draws["z"][:, i]) for i in (0, 1))
    from_first = (ws - first[:, None]).abs().amax(dim=2) < 1e-6
    from_second = (ws - second[:, None]).abs().amax(dim=2) < 1e-6
    assert ws.shape == (200, 6, 8)
    assert torch.equal(from_first, ~from_second)
    crossovers = from_first.sum(dim=1)
    assert torch.equal(from_first, torch.arange(6) < crossovers[:, None])
    assert set(crossovers.tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("mixing", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_the_share_of_mixed_styles(mixing, low, high):
    objective = make_step(mixing=mixing).objective
    ws = objective.styles(objective.draw(500, rng_of("y")))
    mixed = (ws != ws[:, :1]).any(dim=2).any(dim=1)
    assert low <= mixed.float().mean() <= high


def test_the_draws_of_a_part_are_rows_of_those_of_the_batch():
    draws = make_step().objective.draw(8, rng_of("z"))
    part = take(draws, torch.tensor([5, 1]))
    assert part.keys() == draws.keys()
    assert all(torch.equal(part[name], draws[name][[5, 1]]) for name in draws)


def test_each_side_moves_only_its_own_network():
    step = make_step()
    before = weights_of(step)
    draws = step.objective.draw(8, rng_of("z"))
    step._train_generator(real_images(), draws, rng_of("g"))
    between = weights_of(step)
    step._train_discriminator(real_images(), step._generate(draws), draws, rng_of("d"), 0)
    after = weights_of(step)
    for name in before:
        of_g = name.startswith("generator")
        assert torch.equal(before[name], between[name]) == (not of_g), name
        assert torch.equal(between[name], after[name]) == of_g, name


def test_frozen_stages_of_the_discriminator_stay():
    """Counted from the image: the stage of 16 px is the first."""
    step = make_step(freeze_d=1)
    before = weights_of(step)
    step.run(real_images(), 0)
    after = weights_of(step)
    for name in before:
        frozen = name.startswith("discriminator.b16.")
        assert torch.equal(before[name], after[name]) == frozen, name


def test_the_penalty_is_due_every_interval():
    step = make_step(penalty_interval=3)
    due = ["r1" in step.run(real_images(), 8 * number) for number in range(7)]
    assert due == [True, False, False, True, False, False, True]


def test_without_gamma_there_is_no_penalty_and_no_slower_rate():
    step = make_step(gamma=0.0)
    assert "r1" not in step.run(real_images(), 0)
    group = step.optimizers["adam_d"].param_groups[0]
    assert (group["lr"], group["betas"]) == (0.002, (0.0, 0.99))


def test_real_and_generated_images_are_augmented_alike():
    seen = []

    class Watching(NoAugment):
        def apply(self, x, draws):
            seen.append(x.detach().mean().item())
            return x

    step = make_step(augmentation=Watching(), gamma=0.0)
    step.run(torch.full((8, 3, 16, 16), 0.75), 0)
    assert len(seen) == 3
    assert seen[1] == 0.75
    assert 0.75 not in (seen[0], seen[2])


def test_the_mean_style_follows_the_first_latents():
    """w_avg + 0.005 (mean - w_avg), once a step, whatever the parts."""
    whole, parts = make_step(1), make_step(2)
    before = whole.objective.generator.mapping.w_avg.clone()
    mapping = copy.deepcopy(whole.objective.generator.mapping)
    for step in (whole, parts):
        step.objective.observe(step.objective.draw(8, rng_of("w")))
    z = whole.objective.draw(8, rng_of("w"))["z"][:, 0]
    expected = before + 0.005 * (mapping(z).mean(dim=0) - before)
    for step in (whole, parts):
        assert (step.objective.generator.mapping.w_avg - expected).abs().max() < 1e-6


def test_bfloat16_trains():
    """The default on a GPU: every loss is finite, weights stay float32."""
    step = make_step(bf16=True)
    report = step.run(real_images(), 0)
    assert all(math.isfinite(value.item()) for value in report.values())
    assert {w.dtype for w in weights_of(step).values()} == {torch.float32}


# the recipes


def test_recipes_follow_the_papers():
    assert recipe("stylegan2", None, 64, 16)["gamma"] == 0.0002 * 64**2 / 16
    fastgan = recipe("fastgan", None, 256, 8)
    assert (fastgan["loss"], fastgan["lr"], fastgan["betas"]) == ("hinge", 0.0002, (0.5, 0.999))
    assert fastgan["gamma"] == 0
    paired = recipe("stylegan2", "relativistic", 64, 16)
    assert (paired["r2"], paired["penalty_interval"]) == (True, 1)


@pytest.mark.parametrize("option", ["loss", "augment", "heads"])
def test_a_config_out_of_range_is_refused(option):
    with pytest.raises(UsageError, match=f"--{option} expects one of .*, got 'other'"):
        TrainConfig(NETWORK, **{option: "other"})
