"""The log as curves, the sheet of neighbours, the model card, TensorBoard."""

from __future__ import annotations

import io
import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pulse_sr.errors import UsageError
from pulse_sr.metrics.image_set import FRECHET, KERNEL, SPREAD
from pulse_sr.report import training_history
from pulse_sr.report.training_card import CardFacts, Measured, Memorised, render_card
from pulse_sr.report.training_curves import draw_curves, smoothed
from pulse_sr.report.training_history import History, read_history
from pulse_sr.report.training_neighbours import Neighbourhood, neighbour_sheet
from pulse_sr.report.training_tensorboard import TensorBoardLog


def record(images, **numbers):
    return {"images": images, "seconds": 1.0, "images_per_second": 40.0} | numbers


def test_history_is_the_mean_of_each_stretch():
    history = History()
    for images in range(10, 400, 10):
        history.add(record(images, generator=images / 10))
    images, values = history.curve("generator")
    assert images.tolist() == [0.05, 0.15, 0.25]  # the stretch from 300 on goes on
    assert values.tolist() == [5.0, 14.5, 24.5]  # 1 to 9, 10 to 19, 20 to 29
    assert history.names == ["images_per_second", "generator"]


def test_history_joins_stretches_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(training_history, "_MOST_POINTS", 8)
    history = History()
    for i in range(1000):
        history.add(record(i * 10, generator=float(i)))
    images, values = history.curve("generator")
    assert len(images) <= 8
    width = float(images[1] - images[0])
    assert width == pytest.approx(1.6)
    np.testing.assert_allclose(values, np.arange(len(values)) * 160 + 79.5)


def test_gaps_and_numbers_that_are_not_finite_are_left_out():
    history = History()
    for images, r1 in ((50, None), (60, 2.0), (70, float("nan")), (250, 4.0), (350, 5.0)):
        history.add(record(images, r1=r1))
    images, values = history.curve("r1")
    assert images.tolist() == [0.05, 0.25]
    assert values.tolist() == [2.0, 4.0]


def test_a_log_is_read_up_to_the_state(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps(record(i, generator=float(i))) for i in (50, 150, 250, 350)]
    log.write_text("\n".join(lines) + '\n{"images": 450, "gen')
    images, _ = read_history(log, 250).curve("generator")
    assert images.tolist() == [0.05, 0.15]
    assert read_history(tmp_path / "none.jsonl", 100).names == []


def test_smoothing_keeps_a_constant_and_a_slope_and_takes_away_noise():
    assert smoothed(np.full(40, 3.0)) == pytest.approx(3.0)
    line = np.arange(300.0)
    np.testing.assert_allclose(smoothed(line)[10:-10], line[10:-10])
    noise = np.random.default_rng(0).standard_normal(1000)
    assert smoothed(noise).std() < 0.25 * noise.std()
    assert smoothed(np.array([7.0])).tolist() == [7.0]


def colours_in(png):
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return picture.size, np.asarray(picture.convert("RGB")).reshape(-1, 3)


def share_of(colours, rgb):
    return float((np.abs(colours.astype(int) - rgb).max(axis=1) < 30).mean())


def test_curves_fill_a_panel_each():
    history = History()
    for i in range(500):
        history.add(record(i * 100, generator=1.0, discriminator=2.0, real_sign=0.3, r1=0.1))
    scores = [{"images": k * 1000, "scores": {FRECHET: 9.0 - k, KERNEL: 5.0}} for k in (1, 2)]
    (width, height), colours = colours_in(draw_curves(history, scores, {FRECHET: 2.0}))
    assert width == 1200
    assert height == 3 * 290  # losses, sign, penalties, speed, two scores
    assert share_of(colours, (31, 119, 180)) > 0.002  # the first line of a panel
    assert share_of(colours, (255, 127, 14)) > 0.0004  # the second loss


def test_curves_of_a_run_that_just_began():
    (width, _), _ = colours_in(draw_curves(History(), [], {}))
    assert width == 1200
    history = History()
    history.add(record(16, generator=1.0))
    colours_in(draw_curves(history, [], {}))


def neighbourhood(sample, *neighbours):
    """Flat pictures, each named by its grey."""
    images = np.stack([np.full((3, 32, 32), value, np.uint8) for value, _ in neighbours])
    distances = [distance for _, distance in neighbours]
    return Neighbourhood(np.full((3, 32, 32), sample, np.uint8), "seed 1", images, distances)


def red_share(sheet):
    red = (sheet[0].astype(int) - sheet[1] > 90) & (sheet[1] < 120)
    return float(red.mean())


def test_sheet_shows_every_picture_and_marks_what_is_too_near():
    rows = [neighbourhood(20 + 9 * i, (23 + 9 * i, 0.2), (26 + 9 * i, 0.3)) for i in range(5)]
    sheet = neighbour_sheet(rows, "a heading", 0.1)
    for i in range(5):
        for grey in (20 + 9 * i, 23 + 9 * i, 26 + 9 * i):
            assert (sheet == grey).all(axis=0).sum() >= 96**2, grey
    assert red_share(sheet) == 0
    near = [*rows[:4], neighbourhood(200, (200, 0.01), (210, 0.3))]
    assert red_share(neighbour_sheet(near, "a heading", 0.1)) > 0
    assert red_share(neighbour_sheet(near, "a heading", None)) == 0


FACTS = CardFacts(
    name="cats",
    architecture="stylegan2",
    resolution=64,
    latent_dim=128,
    parameters=1_090_000,
    gflop=0.3451,
    card={
        "data": "500 images of cats",
        "licence": "CC0",
        "source": "my garden",
        "training": {"batch": 16, "lr": 0.002, "network": {"channels": [8, 8]}, "images": 1},
    },
    training_images=500,
    images_shown=120_000,
    seconds=7200,
    device="CPU (x86_64), 2 threads",
    versions={"torch": "2.10"},
    command="pulse-sr train-prior cats -o run",
    scores=[Measured("1,000 samples at 120 kimg", {FRECHET: 5.125, KERNEL: 13.0, SPREAD: 0.9})],
    floor=Measured("400 held-back images", {FRECHET: 1.5, KERNEL: -0.1}),
    memorised=Memorised(0.06, 0.97, "held-back images"),
    pictures=[("fakes-000120.png", "Uncurated samples"), ("curves.png", "The log")],
)


def test_card_says_what_it_is_how_it_was_made_and_from_what():
    text = render_card(FACTS)
    assert text.startswith("# Model card: `cats`\n\n![fakes-000120.png](fakes-000120.png)")
    assert "StyleGAN2 skip generator, 64x64 px" in text
    assert "1.09 M parameters, 0.35 GFLOP an image" in text
    assert "`pulse-sr train-prior cats -o run`" in text
    assert "120,000 images shown in 2.0 hours" in text
    assert "CPU (x86_64), 2 threads; torch 2.10" in text
    assert "| data | 500 images of cats |" in text
    assert "| licence | CC0 |" in text
    assert "- source: my garden" in text
    assert "`lr` 0.002" in text
    assert "`network.channels` (8, 8)" in text
    assert text.index("![curves.png](curves.png)") > text.index("## Limits")
    assert "Never identification" in text


def test_card_puts_scores_beside_the_floor_and_names_them_exactly():
    text = render_card(FACTS)
    assert "| | 1,000 samples at 120 kimg | 400 held-back images |" in text
    assert "| Fréchet (SqueezeNet) | 5.125 | 1.500 |" in text
    assert f"| {SPREAD} | 0.900 |  |" in text
    assert "FID" not in text
    assert "KID" not in text
    values = FACTS.scores[0].values | {"FID": 40.0}
    assert "| FID | 40.000 |" in render_card(replace(FACTS, scores=[Measured("x", values)]))


@pytest.mark.parametrize(
    ("share", "ratio", "verdict"),
    [
        (0.06, 0.97, "No sign of copies"),
        (0.3, 0.9, "Some samples are nearer"),
        (0.9, 0.8, "Many samples are close to copies"),
        (0.1, 0.3, "Many samples are close to copies"),
    ],
)
def test_card_says_how_much_was_memorised(share, ratio, verdict):
    text = render_card(replace(FACTS, memorised=Memorised(share, ratio, "held-back images")))
    assert verdict in text
    assert f"{share:.1%} of the samples" in text


def test_card_says_what_is_not_known():
    text = render_card(
        replace(FACTS, card={}, command="", scores=(), floor=None, memorised=None, pictures=())
    )
    assert "unstated: see below" in text
    assert "No licence was stated (`--licence`)" in text
    assert "not known: inputs have to be framed" in text
    assert "## Scores\n\nNot measured." in text
    assert "may be copies of training images" in text
    assert "![" not in text


def test_card_survives_names_with_bars_and_line_breaks():
    text = render_card(replace(FACTS, card={"data": "a|b\nc", "licence": "x"}))
    assert "| data | a\\|b c |" in text


def test_card_warns_of_few_images_and_of_lost_variety():
    text = render_card(FACTS)
    assert "500 images are few" in text
    assert "part of the variety is lost" not in text
    poor = Measured("x", {FRECHET: 1.0, SPREAD: 0.4})
    text = render_card(replace(FACTS, training_images=9000, scores=[poor]))
    assert "are few" not in text
    assert "only 0.40 times as much" in text


class Writer:
    """Stands for `SummaryWriter` and remembers what it was told."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step
        self.scalars, self.pictures, self.open = [], [], True
        Writer.last = self

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_image(self, name, pixels, step):
        self.pictures.append((name, pixels.shape, step))

    def flush(self):
        pass

    def close(self):
        self.open = False


def test_tensorboard_gets_numbers_and_pictures(tmp_path, monkeypatch):
    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = TensorBoardLog(tmp_path / "tb", images_shown=400)
    log.add_scalars("training", 416, {"images": 416, "generator": 1.5, "snapshot": True})
    log.add_picture("samples", 416, np.zeros((3, 4, 5), np.uint8))
    log.close()
    assert (Writer.last.folder, Writer.last.purge_step) == (str(tmp_path / "tb"), 401)
    assert Writer.last.scalars == [("training/generator", 1.5, 416)]
    assert Writer.last.pictures == [("samples", (3, 4, 5), 416)]
    assert not Writer.last.open


def test_tensorboard_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="--tensorboard") as caught:
        TensorBoardLog(tmp_path, 0)
    assert "pip install tensorboard" in caught.value.hint
