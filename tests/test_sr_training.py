"""Supervised training: recipes, low-res patches, phases, resuming, sharing.

Tolerances: a batch in parts against the batch in one 1e-9 in float64; two processes against one
1e-5 (sums of float32 in another order).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tiny_sr_training
import torch
from safetensors.torch import load_file
from tiny_sr_training import ADVERSARIAL, CONFIG, PRETRAINING, step_of, train, trainer_in

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.operators.degrading import degrade
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.sr.files import read_model
from pulse_sr.training.memory import fit_memory
from pulse_sr.training.processes import Processes
from pulse_sr.training.sr.build import check_losses
from pulse_sr.training.sr.config import Phase
from pulse_sr.training.sr.losses import DIGITS_NAME, build_loss
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.recipes import preset_names, read_recipe

SCRIPT = Path(tiny_sr_training.__file__)


@pytest.fixture
def photos(tmp_path):
    return tiny_sr_training.write_photos(tmp_path / "photos")


def state_of(folder):
    return load_file(folder / "state.safetensors")


def losses_of(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"], record["images_per_second"]
    return records


def assert_same_run(a, b):
    first, second = state_of(a), state_of(b)
    assert first.keys() == second.keys()
    assert [k for k in first if not torch.equal(first[k], second[k])] == []
    assert losses_of(a) == losses_of(b)


def started(words, folder, patches):
    return subprocess.Popen(
        [sys.executable, *words, str(SCRIPT), str(folder), str(patches)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


# recipes


@pytest.mark.parametrize("name", preset_names())
def test_a_recipe_of_the_package_is_whole(name):
    """It says where it comes from, its losses exist, its operator makes patches of its scale."""
    recipe = read_recipe(name)
    assert recipe.title
    assert len(recipe.source.split()) > 5
    check_losses(recipe)
    low, high = Pairs(recipe)(
        torch.zeros(1, 3, recipe.side, recipe.side, dtype=torch.uint8), torch.arange(1), 0
    )
    assert high.shape == (1, 3, recipe.patch, recipe.patch)
    assert low.shape == (1, 3, recipe.patch // recipe.scale, recipe.patch // recipe.scale)


def test_the_named_recipes_are_there():
    named = {"srresnet", "srgan", "srgan-mse", "srgan-vgg22", "srgan-vgg54", "esrgan"}
    named |= {"esrgan-lpips-ragp-fft", "face-srgan", "mnist-srgan", "mnist-srgan-cnn"}
    assert named | {"compact-x4", "compact-face-x8"} <= set(preset_names())


RECIPE = """
title = "t"
source = "s"
patch = 16
[network]
architecture = "compact"
scale = 2
[[phases]]
kimg = 1
lr = 1e-3
losses = { l1 = 1 }
"""


def test_a_users_recipe_is_read(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(RECIPE)
    recipe = read_recipe(str(file))
    assert recipe.phases == (Phase(kimg=1, lr=1e-3, losses={"l1": 1}),)
    assert (recipe.scale, recipe.images, recipe.side) == (2, 1000, 24)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("patch = 16", "pach = 16", "unknown key 'pach'"),
        ("patch = 16", "patch = 15", "multiple of scale 2"),
        ("patch = 16", "patch = true", "patch expects a whole number"),
        ("lr = 1e-3", "", "phase 1: lr is missing"),
        ("lr = 1e-3", "lr = nan", "lr expects a number from 1e-09 to 1, got nan"),
        ("kimg = 1", "kimg = 0", "kimg expects"),
        ("{ l1 = 1 }", '{ l1 = "1" }', "losses expects"),
        ("{ l1 = 1 }", "{ }", "learns nothing"),
        ("{ l1 = 1 }", '{ l1 = 1 }\nadversarial = "hinge"', "belong together"),
        ("patch = 16", 'operator = "gray"', "does not lead from patches"),
        ("patch = 16", 'operator = "auto"', "auto is for searches"),
        ("[network]", "[network", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, old, new, expected):
    file = tmp_path / "own.toml"
    file.write_text(RECIPE.replace(old, new))
    with pytest.raises(UsageError) as caught:
        read_recipe(str(file))
    assert expected in caught.value.message
    assert str(file) in caught.value.message


def test_unknown_names_get_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="no recipe") as caught:
        read_recipe("srgam")
    assert "srgan" in caught.value.hint
    for changed in ({"losses": {"l3": 1.0}}, {"adversarial": "hing", "adversarial_weight": 1.0}):
        phase = replace(PRETRAINING, **changed)
        with pytest.raises(UsageError, match="no "):
            check_losses(replace(CONFIG, phases=(phase,)))


def test_rates_follow_the_phases():
    halving = Phase(kimg=10, lr=1.0, losses={"l1": 1}, halve_at=(2, 4))
    assert [halving.rate(n) for n in (0, 1999, 2000, 4000, 9999)] == [1, 1, 0.5, 0.25, 0.25]
    cosine = Phase(kimg=10, lr=1.0, lr_end=0.2, losses={"l1": 1}, decay="cosine")
    assert [cosine.rate(n) for n in (0, 5000, 10000)] == pytest.approx([1.0, 0.6, 0.2])
    config = replace(CONFIG, phases=(halving, cosine))
    assert [config.phase_at(n) for n in (0, 9999, 10000, 30000)] == [
        (0, 0), (0, 0), (1, 10000), (1, 10000),
    ]  # fmt: skip
    longer = config.stretched(40)
    assert (longer.images, longer.phases[0].halve_at) == (40_000, (4, 8))


# what is learned from


def test_low_res_patches_are_those_of_the_whole_photo():
    """The margin hides from the operator that a patch has borders inside the photo."""
    config = replace(CONFIG, operator="matlab", flips="off")
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    whole = degrade(photo, "matlab", 2)
    top, left, side = 10, 20, config.side
    patch = torch.from_numpy(photo[None, :, top : top + side, left : left + side].copy())
    low, high = Pairs(config)(patch, torch.arange(1), 0)
    inner = (slice(None), slice(14, 30), slice(24, 40))
    assert np.array_equal((high[0] * 255).round().byte().numpy(), photo[inner])
    inner = (slice(None), slice(7, 15), slice(12, 20))
    assert np.array_equal((low[0] * 255).round().byte().numpy(), whole[inner])


def test_patches_are_turned_over_alike_and_all_ways():
    """Low-res patches of a symmetric operator are those of the turned ones; eight ways occur."""
    config = replace(CONFIG, operator="matlab", batch=64)
    rng = np.random.default_rng(0)
    patch = torch.from_numpy(rng.integers(0, 256, (3, config.side, config.side), dtype=np.uint8))
    low, high = Pairs(config)(patch.expand(64, -1, -1, -1), torch.arange(64), 0)
    assert len({each.numpy().tobytes() for each in high}) == 8
    still = replace(config, flips="off")
    again, _ = Pairs(still)(
        torch.nn.functional.pad(high * 255, (4, 4, 4, 4), mode="replicate").round().byte(),
        torch.arange(64),
        0,
    )
    assert torch.equal(again[..., 2:-2, 2:-2], low[..., 2:-2, 2:-2])
    mirrored, _ = Pairs(replace(config, flips="mirror"))(
        patch.expand(64, -1, -1, -1), torch.arange(64), 0
    )
    assert len({each.numpy().tobytes() for each in mirrored}) == 2


def test_draws_belong_to_a_place_in_the_batch():
    """Noise and flips of an item are the same whoever makes it."""
    pairs = Pairs(CONFIG)
    patches = torch.randint(0, 256, (8, 3, CONFIG.side, CONFIG.side), dtype=torch.uint8)
    whole, _ = pairs(patches, torch.arange(8), 16)
    part, _ = pairs(patches[3:5], torch.arange(3, 5), 16)
    assert torch.equal(whole[3:5], part)
    other, _ = pairs(patches, torch.arange(8), 24)
    assert not torch.equal(whole, other)


# steps


def test_the_loss_goes_down_and_the_network_is_written(photos, tmp_path):
    run = tmp_path / "run"
    phase = replace(PRETRAINING, kimg=1.2, lr=3e-3)
    _, records = train(run, 1200, phases=(phase,), operator="matlab", discriminator={})
    losses = [record.losses["l1"] for record in records]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    model = read_model(run)
    assert (model.name, model.scale, model.architecture) == ("tiny", 2, "compact")
    assert model.card["licence"] == "CC0-1.0"
    assert model.card["training"]["images"] == 1200
    average = {k[6:]: v for k, v in state_of(run).items() if k.startswith("G_ema/")}
    assert all(torch.equal(average[k], v) for k, v in model.network.state_dict().items())


def test_an_adversarial_phase_trains_both(photos, tmp_path):
    """The judge learns in its phase alone; the optimizer of the generator begins anew with it."""
    trainer, records = train(tmp_path / "run", 192)
    judge = {k: v.clone() for k, v in trainer.task.sr.discriminator.state_dict().items()}
    fresh = step_of().discriminator.state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in judge.items())
    assert "discriminator" not in records[-1].losses
    trainer, records = train(tmp_path / "run", 200)
    assert {"discriminator", "gradient_penalty", "adversarial"} <= records[-1].losses.keys()
    moved = trainer.task.sr.discriminator.state_dict()
    assert any(not torch.equal(moved[k], v) for k, v in judge.items())
    steps = {float(each["step"]) for each in trainer.task.sr.optimizers["adam_g"].state.values()}
    assert steps == {1.0}


@pytest.mark.parametrize("loss", ["logistic", "ragan", "rahinge", "rcls", "wasserstein"])
def test_the_generator_learns_from_the_judge(loss):
    """With no other loss, the gradient of the generator is that of the judge's opinion."""
    phase = replace(ADVERSARIAL, losses={}, adversarial=loss)
    step = step_of(replace(CONFIG, phases=(phase,)))
    low, high = torch.rand(8, 3, 8, 8), torch.rand(8, 3, 16, 16)
    before = [p.clone() for p in step.generator.parameters()]
    report = step.run(low, high, 0)
    assert all(math.isfinite(float(value)) for value in report.values())
    assert float(report["generator"]) == pytest.approx(0.1 * float(report["adversarial"]))
    assert any(not torch.equal(a, b) for a, b in zip(before, step.generator.parameters()))  # noqa: B905


def test_half_precision_changes_little():
    """bfloat16 autocast: losses within 2 %, weights stay float32."""
    config = replace(CONFIG, phases=(ADVERSARIAL,))
    low, high = torch.rand(8, 3, 8, 8), torch.rand(8, 3, 16, 16)
    reports = []
    for bf16 in (False, True):
        step = step_of(config)
        step.bf16 = bf16
        reports.append({k: v.item() for k, v in step.run(low, high, 0).items()})
        assert {p.dtype for p in step.generator.parameters()} == {torch.float32}
    for name in ("l1", "generator", "discriminator", "gradient_penalty"):
        assert reports[1][name] == pytest.approx(reports[0][name], rel=0.02)
    assert reports[0] != reports[1]


def test_a_batch_in_parts_is_the_batch_in_one():
    config = replace(CONFIG, phases=(ADVERSARIAL,))
    low, high = torch.rand(8, 3, 8, 8).double(), torch.rand(8, 3, 16, 16).double()
    weights = []
    for parts in (1, 4):
        step = step_of(config)
        for network in (step.generator, step.discriminator):
            network.double()
        step.micro_steps = parts
        for shown in (0, 8):
            step.run(low[step.rows()], high[step.rows()], shown)
        weights.append([p.clone() for p in step.generator.parameters()])
    differences = [(a - b).abs().max().item() for a, b in zip(*weights, strict=True)]
    assert max(differences) < 1e-6  # `_judge` and the losses are in float32


def test_memory_is_kept_to_by_parts(photos, tmp_path):
    task = trainer_in(tmp_path / "run").task
    fit_memory(task, 10**9)
    assert task.sr.micro_steps == 1
    buffers = [b.clone() for b in task.sr.generator.parameters()]
    fit_memory(task, 900_000)
    assert task.sr.micro_steps > 1
    assert all(torch.equal(a, b) for a, b in zip(buffers, task.sr.generator.parameters()))  # noqa: B905
    with pytest.raises(UsageError, match="is too little"):
        fit_memory(task, 10_000)


def test_a_penalty_and_batch_norm_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        step_of(replace(CONFIG, discriminator={"architecture": "vgg"}))
    with pytest.raises(UsageError, match="network"):
        step_of(replace(CONFIG, network={"architecture": "compakt", "scale": 2}))


# losses that look through networks


def test_the_digits_teach_unless_as_published(tmp_path):
    """The published form has no gradient, and so trains nothing."""
    torch.manual_seed(0)
    weights = DigitClassifier().state_dict()
    safetensors.torch.save_file(weights, tmp_path / DIGITS_NAME)
    true = torch.rand(4, 3, 28, 28)
    enlarged = torch.rand(4, 3, 28, 28, requires_grad=True)
    value = build_loss("digits", tmp_path, torch.device("cpu"))(enlarged, true)
    (gradient,) = torch.autograd.grad(value, enlarged)
    assert float(gradient.abs().max()) > 0
    published = build_loss("digits-published", tmp_path, torch.device("cpu"))(enlarged, true)
    assert not published.requires_grad
    assert float(published) == pytest.approx(value.item())


@pytest.mark.parametrize("name", ["digits", "vgg54", "vgg34", "lpips-vgg"])
def test_missing_weights_are_named(tmp_path, name):
    with pytest.raises(SetupError) as caught:
        build_loss(name, tmp_path, torch.device("cpu"))
    assert str(tmp_path) in caught.value.message


# the loop


@pytest.mark.parametrize("optimizer", ["adam", "adabelief"])
def test_a_run_in_pieces_is_the_uninterrupted_run(photos, tmp_path, optimizer):
    """Stops in both phases and at their border."""
    train(tmp_path / "whole", 384, optimizer=optimizer)
    train(tmp_path / "pieces", 96, 192, 296, 384, optimizer=optimizer)
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_a_run_killed_is_the_uninterrupted_run(photos, tmp_path):
    """SIGKILL somewhere between two checkpoints of the adversarial phase."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with started([], killed, 384) as process:
        log = killed / "log.jsonl"
        while not (log.exists() and len(log.read_bytes().splitlines()) > 30):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (killed / "model.safetensors").exists() or len(losses_of(killed)) < 48
    finish(started([], killed, 384))
    finish(started([], whole, 384))
    assert_same_run(killed, whole)


def test_other_settings_are_refused(photos, tmp_path):
    train(tmp_path / "run", 96)
    with pytest.raises(UsageError, match="batch was 8, is 16"):
        train(tmp_path / "run", 192, batch=16)


@pytest.mark.slow
def test_processes_share_a_batch(photos, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(started([], one, 288))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finish(started(torchrun, two, 288))
    a, b = state_of(one), state_of(two)
    differences = {k: float((a[k].float() - b[k].float()).abs().max()) for k in a}
    assert max(v for k, v in differences.items() if k.startswith(("G", "D"))) < 1e-4
    assert Processes(1, 2).count == 2
