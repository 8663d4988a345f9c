"""The pictures and the page."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser

import fake_search
import numpy as np
import pytest
from PIL import Image, ImageDraw

from pulse_sr.config import SearchConfig
from pulse_sr.jobs import searching
from pulse_sr.jobs.manifest import read_rows
from pulse_sr.jobs.result_record import read_record
from pulse_sr.report import page, page_section, spread
from pulse_sr.report.canvas import wrap
from pulse_sr.report.colour_scale import colour_map, overlay, scale_of
from pulse_sr.report.pictures import SampleLabel, grid, role_of
from pulse_sr.report.spread import (
    disagreement,
    disagreement_image,
    interval_image,
    interval_of,
    mean_image,
    region_std,
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


def test_a_scale_holds_all_but_one_percent_and_says_so():
    values = np.full((100, 100), 0.04)
    values[0, :50] = 0.6  # half a percent
    scale = scale_of(values, "std")
    assert (scale.top, scale.exceeded) == (0.05, True)
    values[:2] = 0.6  # two percent
    scale = scale_of(values, "std")
    assert (scale.top, scale.exceeded) == (0.75, False)
    assert scale_of(np.zeros((3, 3)), "std").top > 0


def test_an_overlay_leaves_a_grey_picture_where_there_is_nothing():
    picture = random_samples(1)[0]
    plain = overlay(picture, np.zeros((64, 64)))
    assert (plain[0] == plain[1]).all()
    assert (plain[0] == plain[2]).all()
    # Brighter pixels stay brighter (Rec. 601 luma; half a step of rounding each).
    luma = np.tensordot([0.299, 0.587, 0.114], picture.astype(float), axes=1)
    order = np.argsort(luma.ravel())
    assert (np.diff(plain[0].ravel()[order].astype(int)) >= 0).all()


def test_an_overlay_gets_redder_with_the_value():
    grey = np.full((3, 1, 64), 128, np.uint8)
    red, green, _ = overlay(grey, np.linspace(0, 1, 64)[None])[:, 0].astype(float)
    share = green / red  # from grey (1) over yellow and orange to red (0)
    assert (np.diff(share) <= 0.01).all()  # rounding to 8 bits
    assert (share[0], share[-1] < 0.2) == (1.0, True)


def test_region_std_is_a_gaussian_mean_of_the_variance():
    """Independent: the weights of a 64th of the side as a matrix, the border mirrored; float64."""
    samples = random_samples(4, side=96)
    samples[:, :, 20:40, 20:60] //= 5
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    A = np.zeros((96, 96))
    for i in range(96):
        for offset, weight in zip(range(-5, 6), weights / weights.sum(), strict=True):
            j = i + offset
            A[i, -1 - j if j < 0 else 191 - j if j > 95 else j] += weight
    wanted = np.sqrt(A @ std_map(samples) ** 2 @ A.T)
    np.testing.assert_allclose(region_std(samples), wanted, rtol=0, atol=1e-9)


def test_disagreement_is_coloured_where_samples_differ_and_grey_where_not():
    samples = np.repeat(random_samples(1), 5, axis=0)
    samples[:, :, :32] = random_samples(5)[:, :, :32]
    picture, scale = disagreement(samples)
    colour = np.ptp(picture.astype(int), axis=0)
    assert colour[40:].max() == 0
    assert colour[:28].min() > 60
    assert scale.top >= 0.2
    assert disagreement_image(samples).shape == (3, 192 + 46, 192)  # the scale is below


def test_an_interval_is_the_same_in_parts(monkeypatch):
    samples = random_samples(5, side=20)
    whole = interval_of(samples)
    monkeypatch.setattr(spread, "_VALUES", 700)
    parts = interval_of(samples)
    assert np.array_equal(whole.low, parts.low)
    assert np.array_equal(whole.high, parts.high)


def test_interval_of_three_samples_is_their_range_and_promises_half():
    samples = random_samples(3)
    found = interval_of(samples)
    assert np.array_equal(found.low, samples.min(0) / 255)
    assert np.array_equal(found.high, samples.max(0) / 255)
    assert found.coverage == 0.5
    wanted = (samples.max(0).astype(float) - samples.min(0)).mean(0) / 255
    np.testing.assert_allclose(found.width, wanted, atol=1e-12)


@pytest.mark.parametrize(("number", "side"), [(1, 32), (3, 64), (24, 64), (2, 600)])
def test_interval_image_shows_both_ends_and_the_width(number, side):
    samples = np.stack([np.full((3, side, side), 60 + 5 * i, np.uint8) for i in range(number)])
    picture = interval_image(samples)
    low, high = (
        np.rint(end[0, 0, 0] * 255) for end in (interval_of(samples).low, interval_of(samples).high)
    )
    least = 170**2
    for value in {low, high}:
        assert (picture == value).all(axis=0).sum() >= least * (2 if low == high else 1)
    cell = min(512, side * -(-176 // side))
    assert picture.shape[2] == 2 * 18 + 3 * cell + 2 * 12
    assert picture.shape[1] > cell + 80


def test_lines_break_between_words():
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text = "one two three four five six seven eight nine ten"
    lines = wrap(draw, text, 90, 13)
    assert " ".join(lines) == text
    assert len(lines) > 2


def test_grid_shows_samples_in_the_order_given():
    samples = np.stack([np.full((3, 64, 64), 40 + 30 * i, np.uint8) for i in range(3)])
    labels = [SampleLabel(i, i, 38.0, 50.0, "ok") for i in range(3)]
    picture = grid(samples[0], samples, labels, "", order=(2, 0, 1))
    lefts = [
        np.nonzero((picture == 40 + 30 * i).all(axis=0)[-150:].any(axis=0))[0][0] for i in range(3)
    ]
    assert lefts[2] < lefts[0] < lefts[1]
    plain = grid(samples[0], samples, labels, "")
    assert not np.array_equal(plain, grid(samples[0], samples, labels, "", order=(0, 1, 2)))
    assert [role_of(k) for k in (0, 3)] == ["most typical", ""]


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


def make_run(paths, out, samples=2, **switches):
    config = SearchConfig(samples=samples, steps=50)
    list(
        searching.run(
            paths,
            out,
            config,
            fake_search.PRIOR,
            search=fake_search.one_by_one(fake_search.search),
            **switches,
        )
    )
    return (out / "index.html").read_text(encoding="utf-8")


def test_page_holds_every_image_and_needs_nothing_else(face, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    text = make_run([face("a.png", 1), face("b.png", 2), bad], tmp_path / "out")
    parsed = Page(text)
    sources = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    # Input, two samples, mean, std; the disagreement, the interval; the grid.
    assert len(sources) == 2 * (1 + 2 + 2 + 2 + 1)
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
    command = page_section.command_of(record)
    assert command in Page(text).text
    words = shlex.split(command)
    assert words == ["pulse-sr", "run", str(path), "--samples", "2", "--steps", "50"]


def test_page_says_where_and_how_much_samples_disagree(face, tmp_path):
    text = Page(make_run([face("a.png")], tmp_path / "out", samples=3)).text
    diversity = read_record(tmp_path / "out" / "a")["diversity"]
    assert "Where the samples disagree" in text
    assert f"The 90 % interval is {diversity['interval_width']:.3f} wide" in text
    assert "3 samples can hold the truth in 50 % of the pixels at most" in text
    assert "hardly differ" not in text
    alone = Page(make_run([face("b.png")], tmp_path / "one", samples=1)).text
    assert "Where the samples disagree" not in alone
    assert "One sample says nothing" in alone


def test_page_shows_records_of_before_there_were_intervals(face, tmp_path):
    out = tmp_path / "out"
    make_run([face("a.png")], out)
    record = read_record(out / "a")
    record["diversity"] = {key: record["diversity"][key] for key in ("pixel_std", "min_pair_rms")}
    text = Page(
        "".join(page.render_page(out, read_rows(out), {"a": record}.get, lambda base: None))
    ).text
    assert "Where the samples disagree" not in text
    assert "sample_01.png" in text


def test_page_shows_the_covering_order(face, tmp_path):
    text = make_run([face("a.png")], tmp_path / "out", samples=4, cluster=True)
    record = read_record(tmp_path / "out" / "a")
    order = record["cluster"]["order"]
    captions = re.findall(r"#(\d) ok", Page(text).text)[:4]
    assert captions == [str(k) for k in order]
    assert [each["index"] for each in page_section.shown_samples(record)] == order
    assert f"within {record['cluster']['radii'][2]:.2g} of one of the first three" in text
    assert "most typical" in text
    assert page_section.command_of(record).split().count("--cluster") == 1
    assert "most typical" not in make_run([face("a.png")], tmp_path / "out", samples=4)


def test_a_large_page_links_what_it_can_not_hold(face, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EMBED_BYTES", 5000)
    text = make_run([face("a b.png")], tmp_path / "out")
    assert 'src="a%20b/grid.png"' in text
    assert "linked, not embedded" in text
