"""Following a training: what is written when, and what happens after a kill.

The trainer here learns nothing: its prior is a new random one at every snapshot.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from toy_priors import LinearPrior

from pulse_sr.errors import UsageError
from pulse_sr.jobs import training
from pulse_sr.jobs.score_book import ScoreBook
from pulse_sr.jobs.scoring import COPY_RATIO, COPY_SHARE, Scores
from pulse_sr.jobs.training import grid_name, neighbourhood, run_training
from pulse_sr.jobs.training_card import flops_of, parameters_of
from pulse_sr.metrics import sliced_wasserstein
from pulse_sr.metrics.feature_networks import NETWORKS
from pulse_sr.metrics.image_set import FRECHET, KERNEL, SPREAD
from pulse_sr.metrics.neighbours import TrainingImages
from pulse_sr.priors import bank as banks
from pulse_sr.priors.bank import draw_bank, read_bank
from pulse_sr.priors.base import LatentStatistics
from pulse_sr.priors.files import FILE_NAME, read_prior, save_prior
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.training.loop import Progress, Schedule
from pulse_sr.training.options import Observation

SIDE, BATCH, EVERY = 8, 100, 1000
NETWORK = StyleGAN2Config(SIDE, 16, 16, 2, (8, 8))
SCHEDULE = Schedule(until_images=3000, snapshot_images=EVERY)
FILES = {"interpolation.png", "neighbours.png", "curves.png", "scores.jsonl", "README.md"}


class Killed(Exception):
    """Takes the place of a SIGKILL."""


class FakeTrainer:
    """Counts images, writes the log, and at every snapshot a prior drawn anew."""

    def __init__(self, run_dir, images_shown=0, first=True):
        self.run_dir, self.images_shown, self.seconds = run_dir, images_shown, images_shown / 100
        self.images = np.random.default_rng(0).integers(0, 256, (30, 3, SIDE, SIDE), dtype=np.uint8)
        self.config = types.SimpleNamespace(mirror=True, architecture="stylegan2", trained_with=[])
        self.device = torch.device("cpu")
        self.processes = types.SimpleNamespace(first=first)
        self.log_file = run_dir / "log.jsonl"
        run_dir.mkdir(exist_ok=True)

    def prior(self):
        with torch.random.fork_rng():
            torch.manual_seed(self.images_shown)
            generator = Generator(NETWORK)
        statistics = LatentStatistics(torch.zeros(16), torch.ones(16), torch.eye(16), count=10)
        card = {"licence": "CC0", "training": {"images": self.images_shown, "batch": BATCH}}
        return StyleGAN2Prior("fake", generator, statistics, card)

    def train(self, schedule):
        while self.images_shown < schedule.until_images:
            self.images_shown += BATCH
            self.seconds = self.images_shown / 100
            snapshot = self.images_shown % schedule.snapshot_images == 0
            waited = self.images_shown % 500 == 0
            losses = {"generator": 1.0, "real_sign": 0.5, "fake_sign": -0.5}
            progress = Progress(
                self.images_shown, self.seconds, 100.0, losses, snapshot or waited, snapshot
            )
            with open(self.log_file, "a") as file:
                file.write(json.dumps(progress.to_json()) + "\n")
            if progress.checkpointed:
                save_prior(self.run_dir / FILE_NAME, self.prior())
            yield progress


class QuickScorer:
    """Scores that are a function of the prior, without the seconds that real ones take."""

    samples, references, threshold, others = 10, 10, 0.1, "held-back images"
    network = NETWORKS["squeezenet"]

    def __init__(self, images, samples, **options):
        self.training = TrainingImages(images)

    def reference_scores(self):
        return "10 held-back images", {FRECHET: 0.5, KERNEL: 0.0}

    def score(self, prior):
        value = float(prior.sample(range(4)).double().mean())
        values = {FRECHET: value, KERNEL: 2 * value, SPREAD: 0.9}
        return Scores(values | {COPY_SHARE: 0.05, COPY_RATIO: 1.0}, torch.arange(10.0))


@pytest.fixture
def quick(monkeypatch):
    """No real scores, no curves (`test_training_report` draws those), a small seed bank."""
    monkeypatch.setattr(training, "Scorer", QuickScorer)
    monkeypatch.setattr(training, "draw_curves", lambda *_: b"a PNG")
    monkeypatch.setattr(banks, "draw_bank", functools.partial(draw_bank, count=32))


def follow(trainer, kill_at=math.inf, schedule=SCHEDULE, **options):
    """Run to the end or to a kill right after a record was followed; returns what was said."""
    said = []

    def report(progress):
        if progress.images >= kill_at:
            raise Killed

    options = {"samples": 10} | options
    run_training(trainer, schedule, Observation(**options), report, said.append)
    return said


def test_the_end_leaves_a_fresh_seed_bank(tmp_path, quick):
    """A run that goes on replaces the bank of the prior it began with."""
    for until in (1000, 2000):
        follow(
            FakeTrainer(tmp_path, until - 1000),
            schedule=dataclasses.replace(SCHEDULE, until_images=until),
        )
        prior = read_prior(tmp_path)
        bank = read_bank(tmp_path / "latents.safetensors", prior.sha256)
        assert torch.equal(bank.thumbnails, draw_bank(prior, 32).thumbnails)


def records_of(folder):
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def best_images(folder):
    return read_prior(folder / "best.safetensors").card["training"]["images"]


def test_every_snapshot_leaves_pictures_scores_and_a_card(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Scorer", QuickScorer)
    said = follow(FakeTrainer(tmp_path), command="pulse-sr train-prior x")
    names = {file.name for file in tmp_path.iterdir()}
    assert names >= FILES | {grid_name(EVERY * k) for k in (1, 2, 3)} | {"best.safetensors"}
    assert not [name for name in names if name.endswith(".tmp")]
    for name in ("interpolation.png", "neighbours.png", "curves.png", grid_name(3000)):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) >= 4 * SIDE
    records = records_of(tmp_path)
    assert [record["images"] for record in records] == [1000, 2000, 3000]
    assert [line.split("  ")[0] for line in said] == ["1.0 kimg", "2.0 kimg", "3.0 kimg"]
    card = (tmp_path / "README.md").read_text()
    assert "![fakes-000003.png](fakes-000003.png)" in card
    assert "`pulse-sr train-prior x`" in card
    assert "3,000 images shown" in card
    assert f"| {FRECHET} | {records[-1]['scores'][FRECHET]:.3f} |" in card


def test_the_card_is_written_at_checkpoints_that_are_no_snapshots_too(tmp_path, quick):
    with pytest.raises(Killed):
        follow(FakeTrainer(tmp_path), kill_at=500)
    assert "500 images shown" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "curves.png").exists()
    assert not (tmp_path / "scores.jsonl").exists()


def test_the_best_prior_is_kept(tmp_path, quick):
    follow(FakeTrainer(tmp_path))
    records = records_of(tmp_path)
    lowest = min(records, key=lambda record: record["scores"][FRECHET])
    assert best_images(tmp_path) == lowest["images"]
    least = math.inf
    for record in records:
        assert record["best"] == (record["scores"][FRECHET] < least)
        least = min(least, record["scores"][FRECHET])


def test_a_kill_between_state_and_scores_loses_no_score(tmp_path, quick):
    follow(FakeTrainer(tmp_path / "whole"))
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        follow(FakeTrainer(folder), kill_at=1900)
    trainer = FakeTrainer(folder, images_shown=2000)  # the state was written, nothing else was
    save_prior(folder / FILE_NAME, trainer.prior())
    follow(trainer)
    assert records_of(folder) == records_of(tmp_path / "whole")
    assert best_images(folder) == best_images(tmp_path / "whole")


@pytest.mark.parametrize("samples", [10, 0])
@pytest.mark.parametrize("stage", ["pictures", "card"])
def test_a_kill_between_state_and_card_leaves_nothing_old(tmp_path, quick, samples, stage):
    """At the last checkpoint: nothing is trained any more, but it has not been looked at."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    follow(FakeTrainer(whole), samples=samples)
    earlier = dataclasses.replace(SCHEDULE, until_images=2900)
    follow(FakeTrainer(folder), samples=samples, schedule=earlier)
    written = [file for file in whole.iterdir() if file.name != "README.md"]
    for file in written if stage == "card" else (whole / "log.jsonl", whole / FILE_NAME):
        shutil.copy(file, folder)
    follow(FakeTrainer(folder, images_shown=3000), samples=samples)
    assert "| 3,000 images shown in" in (folder / "README.md").read_text()
    for file in whole.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_kill_before_the_last_scores_of_a_run(tmp_path, quick):
    """The run has ended by the count of images: nothing is trained, but it is scored."""
    schedule = Schedule(until_images=1500, snapshot_images=EVERY)
    with pytest.raises(Killed):
        follow(FakeTrainer(tmp_path), kill_at=1400, schedule=schedule)
    trainer = FakeTrainer(tmp_path, images_shown=1500)
    save_prior(tmp_path / FILE_NAME, trainer.prior())
    follow(trainer, schedule=schedule)
    assert [record["images"] for record in records_of(tmp_path)] == [1000, 1500]
    follow(FakeTrainer(tmp_path, images_shown=1500), schedule=schedule)
    assert len(records_of(tmp_path)) == 2


def test_scores_after_the_state_are_dropped_and_made_again(tmp_path, quick):
    follow(FakeTrainer(tmp_path))
    before = records_of(tmp_path)
    with open(tmp_path / "scores.jsonl", "a") as file:
        file.write('{"images": 50')  # a line that a kill of another program cut short
    book = ScoreBook(tmp_path, 2000)
    assert [record["images"] for record in book.records] == [1000, 2000]
    assert records_of(tmp_path) == book.records
    trainer = FakeTrainer(tmp_path, images_shown=2000)
    follow(trainer)
    after = records_of(tmp_path)
    assert [record["scores"] for record in after] == [record["scores"] for record in before]


def test_damaged_scores_are_passed_over_and_what_is_not_finite_is_null(tmp_path):
    file = tmp_path / "scores.jsonl"
    record = {"images": 1000, "best": False, "scores": {FRECHET: 1.0}}
    later = record | {"images": 3000, "best": True}
    file.write_text(
        f'{json.dumps(record)}\n{{"images": 20\n[1]\n{{"images": 5}}\n{json.dumps(later)}\n'
    )
    book = ScoreBook(tmp_path, 4000)
    assert book.records == [record, later]
    assert records_of(tmp_path) == book.records
    assert not book.add({"images": 4000, "scores": {FRECHET: math.nan}})
    assert "NaN" not in file.read_text()
    again = ScoreBook(tmp_path, 4000)
    assert again.best == later
    assert math.isnan(again.records[-1]["scores"][FRECHET])


def test_a_best_prior_of_dropped_scores_is_dropped_too(tmp_path):
    (tmp_path / "scores.jsonl").write_text(
        "".join(
            json.dumps({"images": i, "best": best, "scores": {FRECHET: 1.0}}) + "\n"
            for i, best in ((1000, True), (2000, True))
        )
    )
    (tmp_path / "best.safetensors").write_bytes(b"of 2000 images")
    book = ScoreBook(tmp_path, 1500)
    assert book.best is None
    assert [record["images"] for record in book.records] == [1000]
    assert not (tmp_path / "best.safetensors").exists()


def test_a_prior_file_of_another_checkpoint_is_not_the_best(tmp_path):
    trainer = FakeTrainer(tmp_path, images_shown=2000)
    save_prior(tmp_path / FILE_NAME, trainer.prior())
    book = ScoreBook(tmp_path, 1000)
    assert not book.add({"images": 1000, "scores": {FRECHET: 1.0}})
    assert not (tmp_path / "best.safetensors").exists()
    assert book.add({"images": 2000, "scores": {FRECHET: 3.0}})


def test_without_scores_there_are_pictures_and_a_card(tmp_path, quick):
    assert follow(FakeTrainer(tmp_path), samples=0) == []
    names = {file.name for file in tmp_path.iterdir()}
    assert names >= FILES - {"scores.jsonl"}
    assert not names & {"scores.jsonl", "best.safetensors"}
    card = (tmp_path / "README.md").read_text()
    assert "## Scores\n\nNot measured." in card


def test_real_scores_of_a_run_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "draw_curves", lambda *_: b"a PNG")
    monkeypatch.setattr(sliced_wasserstein, "PATCHES", 2**8)
    schedule = Schedule(until_images=1000, snapshot_images=EVERY)
    for name in ("a", "b"):
        follow(FakeTrainer(tmp_path / name), schedule=schedule)
    (record,) = records_of(tmp_path / "a")
    assert records_of(tmp_path / "b") == [record]
    assert record["samples"] == record["references"] == 10
    assert record["seconds"] == 10.0
    assert all(math.isfinite(value) for value in record["scores"].values())
    text = "".join(file.read_text() for file in (tmp_path / "a").glob("*.[mj]*"))
    assert "FID" not in text


def test_collapse_is_said_in_one_line(tmp_path, quick):
    def train(self, schedule):
        for progress in FakeTrainer.train(self, schedule):
            losses = {"real_sign": 1.0, "fake_sign": -1.0}
            yield dataclasses.replace(progress, images=progress.images * 100, losses=losses)

    trainer = FakeTrainer(tmp_path)
    trainer.train = types.MethodType(train, trainer)
    warnings = [line for line in follow(trainer) if line.startswith("warning")]
    assert len(warnings) == 1
    assert "D has been sure" in warnings[0]


def test_the_other_processes_only_train(tmp_path, quick):
    seen = []
    trainer = FakeTrainer(tmp_path, first=False)
    run_training(trainer, SCHEDULE, Observation(samples=10), seen.append, seen.append)
    assert [progress.images for progress in seen] == list(range(BATCH, 3001, BATCH))
    assert not {file.name for file in tmp_path.iterdir()} & FILES


def test_wrong_files_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    trainer = FakeTrainer(tmp_path)
    with pytest.raises(UsageError, match="--inception"):
        follow(trainer, inception=tmp_path / "none.pt")
    with pytest.raises(UsageError, match="--held-back expects a path that exists"):
        follow(trainer, held_back=tmp_path / "none")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="--tensorboard"):
        follow(trainer, tensorboard=True)
    assert trainer.images_shown == 0


def test_neighbours_of_a_sample_are_shown_as_they_match(tmp_path):
    """A training image that is the mirrored sample is shown mirrored back."""
    prior = FakeTrainer(tmp_path, images_shown=7).prior()
    images = FakeTrainer(tmp_path).images.copy()
    sample = (prior.sample([3])[0].numpy() * 255).round().astype(np.uint8)
    images[4] = sample[..., ::-1]
    found = neighbourhood(prior, 3, TrainingImages(images))
    assert found.distances[0] == 0
    np.testing.assert_array_equal(found.images[0], sample)
    assert found.images.shape == (3, 3, SIDE, SIDE)


def test_operations_and_parameters_are_counted():
    """The toy is one product of a `[3 * 64, rows * width]` matrix and a vector."""
    assert flops_of(LinearPrior(rows=3, width=16, resolution=16)) == 2 * 192 * 48
    generator = Generator(NETWORK)
    statistics = LatentStatistics(torch.zeros(16), torch.ones(16), torch.eye(16), count=10)
    prior = StyleGAN2Prior("fake", generator, statistics)
    by_hand = 2 * (16 * 16 + 16)  # the mapping
    by_hand += 8 * 16  # the constant
    by_hand += 3 * (8 * 8 * 9 + 8 + 1 + 16 * 8 + 8)  # convolution, bias, noise, style
    by_hand += 2 * (3 * 8 + 3 + 16 * 8 + 8)  # RGB
    assert parameters_of(prior) == by_hand
