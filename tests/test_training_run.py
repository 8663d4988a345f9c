"""A training run: resume after SIGKILL, checkpoints, the log, the average, what it learns."""

from __future__ import annotations

import errno
import json
import math
import os

import numpy as np
import pytest
import torch
from tiny_training import (
    NETWORK,
    assert_same_state,
    few_statistics,
    log_of,
    noise_images,
    schedule,
    train,
    trainer_in,
)

from pulse_sr.data.order import rng_of
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files import atomic
from pulse_sr.files.lock import lock_run
from pulse_sr.priors.files import read_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.loop import Schedule


@pytest.fixture(autouse=True)
def _few_statistics(monkeypatch):
    few_statistics(monkeypatch)


# resuming


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augment": "ada"},
        {"loss": "relativistic", "r2": True, "penalty_interval": 1},
        {"path_weight": 2.0, "augment": "off"},
    ],
)
def test_a_run_in_pieces_is_the_run_in_one(tmp_path, options):
    train(tmp_path / "whole", 160, **options)
    train(tmp_path / "pieces", 40, 100, 160, **options)
    assert_same_state(tmp_path / "whole", tmp_path / "pieces")
    a, b = read_prior(tmp_path / "whole"), read_prior(tmp_path / "pieces")
    assert torch.equal(a.sample([1, 2]), b.sample([1, 2]))


def test_the_strength_of_ada_and_the_path_mean_go_on(tmp_path):
    """Both live outside the networks; the state keeps them bit by bit."""
    options = {"augment": "ada", "path_weight": 2.0}
    before = train(tmp_path, 60, **options)
    before.task.heuristic.p = 0.3123456789012345
    before.checkpoint()
    after = trainer_in(tmp_path, **options)
    assert after.task.heuristic.state() == before.task.heuristic.state()
    assert after.task.gan.augmentation.p == 0.3123456789012345
    assert after.task.gan.path_mean == before.task.gan.path_mean != 0


def test_another_seed_is_another_run(tmp_path):
    """The comparison above can fail."""
    train(tmp_path / "a", 40)
    train(tmp_path / "b", 40, seed=1)
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.003}, "lr was 0.002, is 0.003"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"augment": "off"}, "augment was diffaug, is off"),
        ({"loss": "hinge"}, "loss was logistic, is hinge"),
        ({"network": StyleGAN2Config(8, 16, 16, 3, (8, 8))}, "mapping_layers was 2, is 3"),
        ({"network": StyleGAN2Config(8, 8, 8, 2, (8, 8))}, "z_dim was 16, is 8, w_dim was 16"),
        ({"network": StyleGAN2Config(8, 16, 16, 2, (8, 4))}, "channels was [8, 8], is [8, 4]"),
        ({"images": noise_images(21)}, "the images are others"),
    ],
)
def test_other_options_in_the_same_folder_are_named(tmp_path, options, message):
    train(tmp_path, 8)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(UsageError) as caught:
        trainer_in(tmp_path, **options)
    assert message in caught.value.message
    assert "-o" in caught.value.hint
    assert (tmp_path / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_damaged_state_is_refused_in_one_line(tmp_path, keep):
    train(tmp_path, 8)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(SetupError) as caught:
        trainer_in(tmp_path)
    assert "state.safetensors" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_folder_takes_one_training_at_a_time(tmp_path):
    with lock_run(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()}.*trains in"):
        lock_run(tmp_path)
    lock_run(tmp_path).close()


# a full disk


def test_a_full_disk_loses_nothing_and_says_so(tmp_path, monkeypatch):
    """The state before stays whole, and the run goes on from it to the very same end."""
    train(tmp_path / "whole", 120, every=40)
    run_dir = tmp_path / "full"
    trainer = trainer_in(run_dir)
    steps = trainer.train(schedule(120, every=40))
    while next(steps).images < 76:
        pass
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(SetupError, match=r"the disk is full.*model\.safetensors"):
            next(steps)
    assert not [p for p in run_dir.iterdir() if p.suffix == ".tmp"]
    resumed = trainer_in(run_dir)
    assert resumed.images_shown == 40
    list(resumed.train(schedule(120, every=40)))
    assert_same_state(run_dir, tmp_path / "whole")


def fail_with(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


# the log and the checkpoints


def test_the_log_is_rewound_to_the_checkpoint(tmp_path):
    """Steps after the state are undone by a kill: their records, and a torn line, go."""
    train(tmp_path, 40)
    kept = (tmp_path / "log.jsonl").read_text()
    assert [r["images"] for r in log_of(tmp_path)] == list(range(4, 41, 4))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"images": 44}\n{"images": 48}\n{"ima')
    train(tmp_path, 60)
    assert (tmp_path / "log.jsonl").read_text().startswith(kept)
    assert [r["images"] for r in log_of(tmp_path)] == list(range(4, 61, 4))


def test_a_log_without_a_state_is_dropped(tmp_path):
    """Killed before the first checkpoint: the run begins anew."""
    (tmp_path / "log.jsonl").write_text('{"images": 4}\n{"images": 8}\n')
    train(tmp_path, 12)
    assert [r["images"] for r in log_of(tmp_path)] == [4, 8, 12]


def test_the_log_has_one_record_per_step_on_a_cpu(tmp_path):
    train(tmp_path, 20, augment="ada")
    common = {"images", "seconds", "images_per_second", "generator", "discriminator"}
    common |= {"real_sign", "fake_sign", "augment_p"}
    for record in log_of(tmp_path):
        due = record["images"] % 16 == 4  # of the steps that begin at 0 and at 16 images
        assert set(record) == common | ({"r1"} if due else set())


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path):
    records = list(trainer_in(tmp_path).train(schedule(40, every=16)))
    assert [r.images for r in records if r.checkpointed] == [16, 32, 40]
    assert [r.images for r in records if r.snapshot] == [16, 32, 40]
    assert {p.name for p in tmp_path.iterdir()} == {
        "state.safetensors", "model.safetensors", "log.jsonl",
    }  # fmt: skip
    assert read_prior(tmp_path).card["training"]["images"] == 40


def test_a_checkpoint_comes_after_its_time(tmp_path):
    """Each step is later than the interval: a state each, and one snapshot at the end."""
    plan = Schedule(until_images=12, checkpoint_seconds=0.0)
    records = list(trainer_in(tmp_path).train(plan))
    assert [r.checkpointed for r in records] == [True, True, True]
    assert [r.snapshot for r in records] == [False, False, True]


def test_a_time_limit_ends_a_run_with_a_checkpoint(tmp_path):
    plan = Schedule(until_seconds=0.2, checkpoint_seconds=math.inf)
    records = list(trainer_in(tmp_path).train(plan))
    assert records[-1].checkpointed
    assert records[-1].seconds >= 0.2
    assert all(r.seconds < 0.2 for r in records[:-1])
    resumed = trainer_in(tmp_path)
    assert resumed.images_shown == records[-1].images
    assert resumed.seconds == pytest.approx(records[-1].seconds, abs=1e-3)


def test_what_others_do_between_two_steps_is_no_training(tmp_path):
    """Scores take time too; the images per second are of training alone."""
    clock = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulse_sr.training.clock.time.perf_counter", lambda: float(next(clock)))
        steps = trainer_in(tmp_path).train(schedule(12))
        first = next(steps)
        for _ in range(1000):
            next(clock)
        second = next(steps)
    assert second.seconds - first.seconds < 100


# the average, the images, the whole


def test_the_average_follows_its_half_life(tmp_path):
    """keep * average + (1 - keep) * weights, keep = 0.5^(batch / min(ema, 5 % of the images))."""
    trainer = trainer_in(tmp_path, ema_kimg=0.04)
    generator = trainer.task.gan.objective.generator
    for shown, half_life in ((0, 0.0), (400, 20.0), (4000, 40.0)):
        trainer.images_shown = shown
        rng = rng_of("average", shown)
        for parameter in trainer.averages.first.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        before = [p.clone() for p in trainer.averages.first.parameters()]
        trainer.averages.update(shown)
        keep = 0.5 ** (4 / half_life) if half_life else 0.0
        now = (trainer.averages.first.parameters(), generator.parameters())
        for old, new, weight in zip(before, *now, strict=True):
            assert (new - (keep * old + (1 - keep) * weight)).abs().max() < 1e-5
    assert torch.equal(trainer.averages.first.mapping.w_avg, generator.mapping.w_avg)


def test_a_trainer_leaves_the_global_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path, 8)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mirror", [True, False])
def test_mirroring_flips_about_half_of_the_real_images(tmp_path, mirror):
    images = np.zeros((64, 3, 8, 8), np.uint8)
    images[..., 0] = 255
    trainer = trainer_in(tmp_path, images=images, batch=64, mirror=mirror)
    seen = []
    trainer.task.gan.run = lambda real, shown: seen.append(real) or {"real_sign": real.mean()}
    list(trainer.train(schedule(64)))
    flipped = seen[0][:, 0, 0, 7] == 1
    assert (16 <= flipped.sum() <= 48) if mirror else not flipped.any()
    assert torch.equal(seen[0][~flipped][:, 0, 0, 0], torch.ones(64 - int(flipped.sum())))


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 0.01},
        {"loss": "hinge", "gamma": 0.01},
        {"loss": "relativistic", "r2": True, "penalty_interval": 1, "gamma": 0.05},
    ],
)
def test_training_learns_the_colour_of_the_images(tmp_path, options):
    """Flat orange images: the samples' mean colour comes from over 0.2 away to within 0.1."""
    color = np.array([230, 140, 40])
    shades = np.random.default_rng(0).integers(-10, 11, (64, 3, 1, 1))
    images = (color[:, None, None] + shades + np.zeros((8, 8))).clip(0, 255).astype(np.uint8)
    goal = torch.from_numpy(color / 255).float()
    options |= {"batch": 16, "lr": 0.01, "augment": "off", "ema_kimg": 0.2, "penalty_interval": 16}
    if options.get("r2"):
        options["penalty_interval"] = 1
    trainer = trainer_in(tmp_path, images=images, **options)

    def distance():
        z = torch.randn(64, 16, generator=rng_of("samples"))
        with torch.no_grad():
            mean = trainer.averages.first(z).clamp(-1, 1).mean(dim=[0, 2, 3]) * 0.5 + 0.5
        return (mean - goal).abs().max().item()

    assert distance() > 0.2
    list(trainer.train(schedule(6400, every=10**9)))
    assert distance() < 0.1


def test_the_state_says_what_the_images_were(tmp_path):
    """A header without them belongs to a run of an earlier version, which could not know."""
    trainer = train(tmp_path, 8)
    from pulse_sr.training.checkpoint import read_checkpoint_header

    header = read_checkpoint_header(trainer.state_file)
    assert header["data"] == "20"
    assert json.dumps(header["config"]) == json.dumps(trainer.config.to_json(), sort_keys=True)
    assert header["config"]["network"]["channels"] == list(NETWORK.channels)
