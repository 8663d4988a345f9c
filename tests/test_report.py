"""The pictures and the page."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser

import fake_search
import numpy as np
import pytest

from pulse_sr.config import SearchConfig
from pulse_sr.jobs import local
from pulse_sr.jobs.store import read_record
from pulse_sr.report import page
from pulse_sr.report.pictures import (
    SampleLabel,
    colour_map,
    grid,
    mean_image,
    std_image,
    std_map,
)


def random_samples(number=3, side=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 3, side, side), dtype=np.uint8)


def luminance(pixels):
    return np.tensordot([0.2126, 0.7152, 0.0722], pixels.astype(float), axes=1)


def test_mean_rounds_to_the_nearest_byte():
    samples = random_samples()
    exact = samples.astype(float).mean(0)
    assert np.abs(mean_image(samples) - exact).max() <= 0.5


def test_std_map_of_two_flat_samples_is_half_their_distance():
    samples = np.stack([np.full((3, 8, 8), 100), np.full((3, 8, 8), 151)]).astype(np.uint8)
    assert np.allclose(std_map(samples), 25.5 / 255)


def test_colours_get_brighter_with_the_value():
    values = np.linspace(0, 1, 64)[None]
    assert (np.diff(luminance(colour_map(values)[:, 0])) > 0).all()


def test_std_image_is_brighter_where_samples_differ():
    samples = random_samples()
    samples[:, :, :, :32] = 90  # the left half is equal
    picture = luminance(std_image(samples))
    side = picture.shape[1]
    assert side == 192  # 64 px three times enlarged
    assert picture.shape[0] > side  # the scale is below
    assert picture[:side, : side // 2].max() < picture[:side, side // 2 :].min()


@pytest.mark.parametrize(("number", "side"), [(1, 64), (8, 64), (3, 1024), (20, 128)])
def test_grid_shows_every_sample_at_a_readable_size(number, side):
    samples = np.stack([np.full((3, side, side), 40 + 9 * i, np.uint8) for i in range(number)])
    low_res = np.full((3, 16, 12), 7, np.uint8)
    labels = [SampleLabel(i, 2**47 + i, 38.5, 58.25, "ok") for i in range(number)]
    picture = grid(low_res, samples, labels, "a heading")
    for i in range(number):
        area = (picture == 40 + 9 * i).all(axis=0).sum()
        assert area >= 170**2, i


def test_grid_marks_samples_below_the_target():
    samples = random_samples(1)
    fine = grid(samples[0], samples, [SampleLabel(0, 1, 30.0, 44.0, "ok")], "")
    poor = grid(samples[0], samples, [SampleLabel(0, 1, 30.0, 44.0, "below_target")], "")
    assert not np.array_equal(fine, poor)


class Page(HTMLParser):
    """Collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, content):
        self.text += content


def make_run(paths, out, samples=2):
    config = SearchConfig(samples=samples, steps=50)
    list(local.run(paths, out, config, fake_search.PRIOR, search=fake_search.search))
    return (out / "index.html").read_text(encoding="utf-8")


def test_page_holds_every_image_and_needs_nothing_else(face, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    text = make_run([face("a.png", 1), face("b.png", 2), bad], tmp_path / "out")
    parsed = Page(text)
    sources = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert len(sources) == 2 * (1 + 2 + 2 + 1)  # input, two samples, mean and std, grid
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "link", "iframe")]
    assert not re.search(r"https?://", text)
    assert "plausible reconstructions, not the person" in parsed.text
    assert "is empty" in parsed.text
    assert "3 inputs, 2 ok, 1 failed" in parsed.text
    anchors = {attrs["href"][1:] for tag, attrs in parsed.tags if tag == "a"}
    assert anchors == {attrs["id"] for tag, attrs in parsed.tags if tag == "section"}
    assert "prefers-color-scheme:dark" in text


def test_page_escapes_names_and_errors(face, tmp_path):
    name = "<img src=x onerror=alert(1)>\"'&.png"
    good = face(name)
    bad = tmp_path / "<b>bad<b>.png"
    bad.write_text("no picture")
    text = make_run([good, bad], tmp_path / "out")
    assert "<img src=x" not in text
    assert "<b>bad" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert not [attrs for _, attrs in Page(text).tags if "onerror" in attrs]


def test_page_says_how_to_make_the_samples_again(face, tmp_path):
    path = face("with space.png")
    text = make_run([path], tmp_path / "out")
    record = read_record(tmp_path / "out" / "with space")
    command = page.command_of(record)
    assert command in Page(text).text
    words = shlex.split(command)
    assert words == ["pulse-sr", "run", str(path), "--samples", "2", "--steps", "50"]


def test_a_large_page_links_what_it_can_not_hold(face, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EMBED_BYTES", 5000)
    text = make_run([face("a b.png")], tmp_path / "out")
    assert 'src="a%20b/grid.png"' in text
    assert "linked, not embedded" in text
