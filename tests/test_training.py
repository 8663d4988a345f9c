"""Training a prior: losses, data, checkpoints, resume after SIGKILL, learning, the command."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from pulse_sr.cli import main
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.priors.files import read_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config
from pulse_sr.training import loop
from pulse_sr.training.images import (
    ImageStream,
    cache_images,
    decode,
    largest_resolution,
    list_images,
    rng_of,
)
from pulse_sr.training.loop import TrainConfig, Trainer
from pulse_sr.training.prior_steps import (
    discriminator_logits,
    draw_styles,
    generator_loss,
    r1_penalty,
)

NETWORK = StyleGAN2Config(8, 16, 16, 2, (8, 8))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    """Checkpoints fit the latent space to 1000 samples here, not 100 000."""
    monkeypatch.setattr(loop, "fit_statistics", functools.partial(fit_statistics, count=1000))


def noise_images(count=20, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def trainer_in(folder, images=None, bf16=False, **options):
    folder.mkdir(exist_ok=True)
    config = TrainConfig(**{"network": NETWORK, "batch": 4, "r1_interval": 4} | options)
    return Trainer(noise_images() if images is None else images, folder, config, CPU, bf16)


def train(folder, *stops, checkpoint=80, **options):
    """Train in pieces, each with a trainer of its own; returns the last one."""
    for stop in stops:
        trainer = trainer_in(folder, **options)
        list(trainer.train(stop, math.inf, checkpoint))
    return trainer


def assert_same_state(a, b):
    """Every tensor of two checkpoints: networks, averages, optimizer moments. Bit for bit."""
    first, second = load_file(a / "state.safetensors"), load_file(b / "state.safetensors")
    assert first.keys() == second.keys()
    assert {key.split("/")[0] for key in first} == {"G", "G_ema", "D", "adam_g", "adam_d"}
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# losses


class FixedLogits(torch.nn.Module):
    """A discriminator that answers a sum over pixels per image, plus a constant."""

    def __init__(self, weight=1.0, constant=0.0):
        super().__init__()
        self.weight, self.constant = weight, constant
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        return (self.weight * x).sum(dim=[1, 2, 3])[:, None] * 0.01 + self.constant


@pytest.fixture
def generator():
    state = torch.get_rng_state()
    torch.manual_seed(0)
    generator = Generator(NETWORK)
    torch.set_rng_state(state)
    return generator.eval()


def test_the_generator_loss_is_mean_softplus_of_minus_the_logits(generator):
    critic = FixedLogits()
    loss = generator_loss(generator, critic, 6, 0.5, (), rng_of("x"))
    logits = [0.01 * image.sum().item() for image in critic.seen[0]]
    expected = sum(math.log1p(math.exp(-each)) for each in logits) / 6
    assert len(logits) == 6
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_loss_is_the_logistic_one(tmp_path):
    """mean softplus(-real) + softplus(fake), at the step's own logits."""
    trainer = trainer_in(tmp_path, augment=())
    real = torch.linspace(-1, 1, 4 * 3 * 64).view(4, 3, 8, 8)
    seen = []
    trainer.discriminator.register_forward_hook(lambda *a: seen.append(a[2].detach().flatten()))
    loss, real_sign, fake_sign = trainer._discriminator_step(real, rng_of("x"))
    on_real, on_fake = (s.tolist() for s in seen)
    expected = sum(math.log1p(math.exp(-r)) for r in on_real) / 4
    expected += sum(math.log1p(math.exp(f)) for f in on_fake) / 4
    assert loss == pytest.approx(expected, rel=1e-5)
    assert real_sign == sum(np.sign(on_real)) / 4
    assert fake_sign == sum(np.sign(on_fake)) / 4


def test_the_discriminator_step_does_not_reach_the_generator(generator):
    real = torch.zeros(4, 3, 8, 8)
    critic = FixedLogits(torch.ones(1, requires_grad=True))
    _, fake_logits = discriminator_logits(generator, critic, real, 0.5, (), rng_of("x"))
    fake_logits.sum().backward()
    assert all(p.grad is None for p in generator.parameters())


def test_real_and_fake_images_are_augmented_alike(generator):
    """A batch of zeros stays zero under translation; colour moves both batches."""
    critic = FixedLogits()
    real = torch.zeros(4, 3, 8, 8)
    discriminator_logits(generator, critic, real, 0.5, ("color",), rng_of("x"))
    assert not torch.equal(critic.seen[0], real)
    plain = FixedLogits()
    discriminator_logits(generator, plain, real, 0.5, (), rng_of("x"))
    assert torch.equal(plain.seen[0], real)
    assert not torch.equal(critic.seen[1], plain.seen[1])


def test_r1_is_the_squared_gradient_summed_over_pixels():
    """For the logit 0.01 * sum(weight * x) it is 1e-4 * sum(weight^2), whatever x."""
    weight = torch.arange(192.0).view(3, 8, 8)
    penalty = r1_penalty(FixedLogits(weight), torch.rand(5, 3, 8, 8), (), rng_of("x"))
    assert penalty.shape == (5,)
    expected = 1e-4 * (np.arange(192.0) ** 2).sum()
    assert penalty.tolist() == pytest.approx([expected] * 5, rel=1e-5)


def test_r1_sees_through_the_augmentation():
    """Contrast by u + 0.5 scales the gradient of a critic that only sees differences of pixels."""
    weight = torch.tensor([1.0, -1.0]).repeat(4).expand(3, 8, 8)
    penalty = r1_penalty(FixedLogits(weight), torch.rand(6, 3, 8, 8), ("color",), rng_of("x"))
    rng = rng_of("x")
    _, _, u = (torch.rand(6, generator=rng) for _ in range(3))
    expected = 1e-4 * 192 * (u + 0.5).square()
    assert penalty.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_r1_is_due_every_r1_interval(tmp_path):
    records = list(trainer_in(tmp_path).train(48, math.inf, 1000))
    assert [r.losses.r1 is not None for r in records] == ([True] + [False] * 3) * 3


def test_gamma_follows_the_resolution_and_the_batch():
    assert TrainConfig(StyleGAN2Config.from_base(64), batch=16).gamma == 0.0002 * 64**2 / 16
    assert TrainConfig(NETWORK, gamma=3.0).gamma == 3.0


# style mixing


def test_mixed_styles_change_latent_once_at_a_row_of_their_own(generator):
    """Rows before the crossover are of the first latent, the others of the second."""
    rng = rng_of("x")
    z = torch.randn(2, 200, 16, generator=rng_of("x"))
    first, second = generator.mapping(z.flatten(0, 1)).unflatten(0, (2, 200))
    ws = draw_styles(generator, 200, 1.0, rng)
    assert ws.shape == (200, 4, 16)
    from_first = (ws - first[:, None]).abs().amax(dim=2) < 1e-6
    from_second = (ws - second[:, None]).abs().amax(dim=2) < 1e-6
    assert torch.equal(from_first, ~from_second)
    crossovers = from_first.sum(dim=1)
    assert torch.equal(from_first, torch.arange(4) < crossovers[:, None])
    assert set(crossovers.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(("mixing", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_the_share_of_mixed_styles(generator, mixing, low, high):
    ws = draw_styles(generator, 500, mixing, rng_of("y"))
    mixed = (ws != ws[:, :1]).any(dim=2).any(dim=1)
    assert low <= mixed.float().mean() <= high


# the images


def save(path, size=(8, 8), color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    """Twenty images of different greys, in nested folders."""
    folder = tmp_path / "faces"
    for i in range(20):
        save(folder / f"{i % 3}" / f"{i:02d}.png", (16, 16), (10 * i,) * 3)
    return folder


def test_every_image_comes_once_in_an_epoch():
    images = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 3, 2, 2))
    stream = ImageStream(images, seed=0)
    epochs = [
        [v for start in range(12 * e, 12 * e + 12, 4) for v in stream.batch(start, 4)[:, 0, 0, 0]]
        for e in range(3)
    ]
    assert all(sorted(map(int, epoch)) == list(range(12)) for epoch in epochs)
    assert len({tuple(map(int, epoch)) for epoch in epochs}) == 3


def test_the_order_of_the_images_depends_on_the_seed_and_the_position_alone():
    images = noise_images(12)
    stream = ImageStream(images, seed=0)
    batches = [stream.batch(start, 5) for start in range(0, 60, 5)]  # across epochs
    for number, batch in enumerate(batches):
        assert torch.equal(ImageStream(images, seed=0).batch(5 * number, 5), batch)
    assert torch.equal(stream.batch(0, 5), batches[0])
    assert not all(
        torch.equal(ImageStream(images, seed=1).batch(5 * n, 5), b) for n, b in enumerate(batches)
    )


def test_nested_images_are_found_in_a_stable_order(folder):
    (folder / "notes.txt").write_text("no image")
    save(folder / "deep" / "er" / "X.JPG")
    names = [p.name for p in list_images(folder)]
    assert len(names) == 21
    assert "X.JPG" in names
    assert list_images(folder) == sorted(list_images(folder))


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        list_images(tmp_path / "nowhere")


def test_images_are_cropped_to_their_middle_and_reduced(tmp_path):
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 20, 10))
    image.save(tmp_path / "wide.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        pixels = decode(tmp_path / name, 5)
        assert pixels.shape == (3, 5, 5)
        assert pixels.dtype == np.uint8
        assert (pixels == np.array([0, 0, 255])[:, None, None]).all()


def test_the_largest_resolution_is_a_power_of_two_that_the_median_image_has(tmp_path):
    for i, side in enumerate([10, 40, 40, 100, 300]):
        save(tmp_path / f"{i}.png", (side, side + 7))
    assert largest_resolution(list_images(tmp_path)) == 32


def test_the_cache_holds_the_decoded_images_in_order(folder, tmp_path):
    images = cache_images(folder, tmp_path / "cache", 8)
    assert images.shape == (20, 3, 8, 8)
    expected = [10 * int(p.stem) for p in list_images(folder)]
    assert images[:, 0, 0, 0].tolist() == expected


def test_the_cache_is_used_again_and_keyed(folder, tmp_path):
    cache = tmp_path / "cache"
    cache_images(folder, cache, 8)
    (file,) = cache.iterdir()
    before = file.stat().st_mtime_ns
    cache_images(folder, cache, 8)
    assert [(p, p.stat().st_mtime_ns) for p in cache.iterdir()] == [(file, before)]
    cache_images(folder, cache, 16)
    assert len(list(cache.iterdir())) == 2
    save(folder / "new.png", (16, 16))
    assert len(cache_images(folder, cache, 8)) == 21
    os.utime(folder / "new.png", ns=(1, 1))
    cache_images(folder, cache, 8)
    assert len(list(cache.iterdir())) == 4


def test_a_damaged_image_is_named_and_skipped(folder, tmp_path, caplog):
    (folder / "broken.png").write_bytes((folder / "0" / "00.png").read_bytes()[:40])
    (folder / "text.jpg").write_text("not an image")
    with caplog.at_level(logging.WARNING, "pulse_sr"):
        logging.getLogger("pulse_sr").propagate = True
        images = cache_images(folder, tmp_path / "cache", 8)
    assert len(images) == 20
    assert "broken.png" in caplog.text
    assert "text.jpg" in caplog.text


def test_too_few_images_are_refused_with_their_number(tmp_path):
    for i in range(15):
        save(tmp_path / "few" / f"{i}.png")
    with pytest.raises(InputError, match="holds 15 images, training needs at least 16"):
        cache_images(tmp_path / "few", tmp_path, 8)
    (tmp_path / "few" / "text.png").write_text("not an image")
    with pytest.raises(InputError, match="only 15 of 16 images could be read"):
        cache_images(tmp_path / "few", tmp_path, 8)


def test_an_interrupted_cache_is_no_cache(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def fail(file, array):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            cache_images(folder, cache, 8)
    assert len(cache_images(folder, cache, 8)) == 20


# the run


def test_a_run_in_pieces_is_the_run_in_one(tmp_path):
    train(tmp_path / "whole", 160)
    train(tmp_path / "pieces", 40, 100, 160)
    assert_same_state(tmp_path / "whole", tmp_path / "pieces")
    a, b = read_prior(tmp_path / "whole"), read_prior(tmp_path / "pieces")
    assert torch.equal(a.sample([1, 2]), b.sample([1, 2]))


def test_another_seed_is_another_run(tmp_path):
    """The comparison above can fail."""
    train(tmp_path / "a", 40)
    train(tmp_path / "b", 40, seed=1)
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "a", tmp_path / "b")


def test_a_run_killed_three_times_is_the_uninterrupted_run(tmp_path):
    """SIGKILL at random moments, then completed: the same bits, and a log without a scar."""
    script = Path(__file__).with_name("train_and_kill.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3
    assert_same_state(tmp_path / "killed", tmp_path / "whole")
    logs = [log_of(tmp_path / name) for name in ("killed", "whole")]
    for log in logs:
        assert [record["images"] for record in log] == list(range(4, 241, 4))
    losses = [[(r["generator"], r["discriminator"], r["r1"]) for r in log] for log in logs]
    assert losses[0] == losses[1]


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


def test_the_log_has_one_record_per_step(tmp_path):
    train(tmp_path, 20)
    for record in log_of(tmp_path):
        assert set(record) == {
            "images", "seconds", "images_per_second", "checkpointed",
            "generator", "discriminator", "real_sign", "fake_sign", "r1",
        }  # fmt: skip
        assert record["checkpointed"] == (record["images"] == 20)


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path):
    records = list(trainer_in(tmp_path).train(40, math.inf, 16))
    assert [r.images for r in records if r.checkpointed] == [16, 32, 40]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"state.safetensors", "model.safetensors", "log.jsonl", "fakes-000000.png"}
    assert read_prior(tmp_path).card["training"]["images"] == 40


def test_a_time_limit_ends_a_run_with_a_checkpoint(tmp_path):
    records = list(trainer_in(tmp_path).train(math.inf, 0.2, 10**9))
    assert records[-1].checkpointed
    assert records[-1].seconds >= 0.2
    assert all(r.seconds < 0.2 for r in records[:-1])
    resumed = trainer_in(tmp_path)
    assert resumed.images_shown == records[-1].images
    assert resumed.seconds == pytest.approx(records[-1].seconds, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.003}, "lr was 0.002, is 0.003"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"augment": ()}, "augment was"),
        ({"network": StyleGAN2Config(8, 16, 16, 3, (8, 8))}, "mapping_layers was 2, is 3"),
        ({"network": StyleGAN2Config(8, 8, 8, 2, (8, 8))}, "z_dim was 16, is 8, w_dim was 16"),
        ({"network": StyleGAN2Config(8, 16, 16, 2, (8, 4))}, "channels was [8, 8], is [8, 4]"),
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


def test_the_average_follows_its_half_life(tmp_path):
    """keep * average + (1 - keep) * weights, keep = 0.5^(batch / min(ema, 5 % of the images))."""
    trainer = trainer_in(tmp_path, ema_kimg=0.04)
    for shown, half_life in ((0, 0.0), (400, 20.0), (4000, 40.0)):
        trainer.images_shown = shown
        rng = rng_of("average", shown)
        for parameter in trainer.average.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        before = [p.clone() for p in trainer.average.parameters()]
        trainer._average()
        keep = 0.5 ** (4 / half_life) if half_life else 0.0
        current = trainer.generator.parameters()
        for old, new, weight in zip(before, trainer.average.parameters(), current, strict=True):
            assert (new - (keep * old + (1 - keep) * weight)).abs().max() < 1e-5
    w_avg = [net.mapping.w_avg for net in (trainer.average, trainer.generator)]
    assert torch.equal(*w_avg)


def test_a_trainer_leaves_the_global_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains(tmp_path):
    """The default on a GPU: every loss is finite, weights and averages stay float32."""
    trainer = trainer_in(tmp_path, bf16=True)
    records = list(trainer.train(16, math.inf, 1000))
    assert all(math.isfinite(r.losses.generator + r.losses.discriminator) for r in records)
    assert {p.dtype for p in trainer.generator.state_dict().values()} == {torch.float32}


def test_mirroring_flips_about_half_of_the_real_images(tmp_path):
    images = np.zeros((64, 3, 8, 8), np.uint8)
    images[..., 0] = 255
    trainer = trainer_in(tmp_path, images=images, batch=64)
    real = trainer._real(rng_of("flip"))
    flipped = real[:, 0, 0, 7] == 1
    assert 16 <= flipped.sum() <= 48
    assert torch.equal(real[~flipped][:, 0, 0, 0], torch.ones(64 - int(flipped.sum())))
    trainer.config = SimpleNamespace(batch=64, mirror=False)
    assert (trainer._real(rng_of("flip"))[:, 0, 0, 0] == 1).all()


def test_training_learns_the_colour_of_the_images(tmp_path):
    """Flat orange images: the samples' mean colour comes from over 0.2 away to within 0.1."""
    color = np.array([230, 140, 40])
    shades = np.random.default_rng(0).integers(-10, 11, (64, 3, 1, 1))
    images = (color[:, None, None] + shades + np.zeros((8, 8))).clip(0, 255).astype(np.uint8)
    goal = torch.from_numpy(color / 255).float()
    options = {"batch": 16, "lr": 0.01, "augment": (), "gamma": 0.01, "ema_kimg": 0.2}
    trainer = trainer_in(tmp_path, images=images, **options)

    def distance():
        z = torch.randn(64, 16, generator=rng_of("samples"))
        with torch.no_grad():
            mean = trainer.average(z).clamp(-1, 1).mean(dim=[0, 2, 3]) * 0.5 + 0.5
        return (mean - goal).abs().max().item()

    assert distance() > 0.2
    list(trainer.train(4800, math.inf, 10**9))
    assert distance() < 0.1


# the command


TINY = ["--channel-base", "64", "--channel-max", "8", "--w-dim", "16", "--batch", "4"]
TINY += ["--device", "cpu", "--precision", "fp32"]


def invoke(*arguments):
    return CliRunner().invoke(main, ["train-prior", *map(str, arguments)])


def test_a_dry_run_shows_the_settings_and_writes_nothing(folder, tmp_path):
    out = tmp_path / "out"
    result = invoke(folder, "-o", out, "--dry-run", "--cutout", *TINY)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    settings = document["settings"]
    assert document["dry_run"] is True
    assert settings["network"]["resolution"] == 16  # what the images have
    assert settings["network"]["channels"] == [8, 8, 4]
    assert settings["augment"] == ["color", "translation", "cutout"]
    assert (settings["device"], settings["precision"]) == ("cpu", "fp32")
    assert not out.exists()


@pytest.mark.parametrize("extra", [[], ["--resolution", "16"], ["--resolution", "16", "--dry-run"]])
def test_a_folder_that_does_not_exist_ends_with_2(tmp_path, extra):
    out = tmp_path / "out"
    result = invoke(tmp_path / "nowhere", "-o", out, *extra)
    assert result.exit_code == 2
    assert "nowhere is not a folder" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolution", "48"], "--resolution: resolution is 48"),
        (["--resolution", "0"], "--resolution: resolution is 0"),
        (["--batch", "6"], "--batch is 6, expected a multiple of 4"),
    ],
)
def test_values_out_of_range_name_their_option(folder, tmp_path, arguments, message):
    result = invoke(folder, "-o", tmp_path / "out", *arguments, "--dry-run")
    assert result.exit_code == 2
    assert message in result.stderr


def command_line(*arguments):
    words = [sys.executable, "-m", "pulse_sr", "train-prior", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)


def test_the_command_trains_for_its_time_and_leaves_its_files(folder, tmp_path):
    """Three seconds at 16 px, started in a process of its own; a mistake ends with code 2."""
    out = tmp_path / "out"
    done = command_line(folder, "-o", out, "--time", "3s", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["images"] > 0
    assert 3 <= document["seconds"] < 20
    names = {p.name for p in out.iterdir() if not p.name.startswith(("images-", "fakes-"))}
    assert names == {"state.safetensors", "model.safetensors", "log.jsonl", "reals.png"}
    assert len(log_of(out)) == document["images"] / 4
    prior = read_prior(out)
    assert prior.resolution == 16
    assert prior.card["data"] == "20 images of faces"
    wrong = command_line(folder, "-o", out, "--kimg", "1", "--lr", "0.1", *TINY)
    assert wrong.returncode == 2
    assert "lr was 0.002, is 0.1" in wrong.stderr


def test_kimg_stops_the_command_and_toml_sets_it(folder, tmp_path):
    out, toml = tmp_path / "out", tmp_path / "train.toml"
    toml.write_text(
        'kimg = 0.04\nlicence = "CC0"\nchannel_max = 8\nw_dim = 16\nbatch = 4\ndevice = "cpu"\n'
    )
    result = invoke(folder, "-o", out, "--config", toml, "--channel-base", "64")
    assert result.exit_code == 0, result.output
    assert log_of(out)[-1]["images"] == 40
    card = read_prior(out).card
    assert card["licence"] == "CC0"
    assert card["training"]["network"]["w_dim"] == 16
    again = invoke(folder, "-o", out, "--config", toml, "--channel-base", "64", "--kimg", "0.06")
    assert again.exit_code == 0, again.output
    assert [r["images"] for r in log_of(out)] == list(range(4, 61, 4))


def test_an_unknown_key_in_the_toml_file_is_refused(folder, tmp_path):
    toml = tmp_path / "train.toml"
    toml.write_text("colour = 1\n")
    result = invoke(folder, "-o", tmp_path / "out", "--config", toml)
    assert result.exit_code == 2
    assert "colour" in result.stderr
    assert not (tmp_path / "out").exists()
