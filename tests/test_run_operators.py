"""Every operator through `run`: what the files then match, in which way, and what is said of it.

Faces are the bundled prior's own, so the truth is known, and searches take few steps: the
projection has to do most of the work.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from searched import STEPS, document, pixels, psnr, samples, save, search

from pulse_sr.api import load_prior
from pulse_sr.cli import main
from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.images.pixels import to_uint8
from pulse_sr.inversion.blind import detection as blind
from pulse_sr.jobs.searching import run
from pulse_sr.operators.building import build_steps
from pulse_sr.operators.degrading import degrade, degrade_picture, simulate
from pulse_sr.operators.spec import parse_operator


@pytest.fixture(scope="module")
def prior():
    return load_prior(device="cpu")


@pytest.fixture(scope="module")
def truth(prior):
    """A face of the prior, uint8 [3, 128, 128]."""
    return to_uint8(prior.sample([20_000_003])[0].double().numpy())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Blind mode looks at fewer faces; the widths that are told apart here need no more."""
    monkeypatch.setattr(blind, "FACES", 128)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_mask(path, side, hole):
    """White but for a square hole (first, last + 1) in the middle of both directions."""
    mask = np.full((side, side), 255, np.uint8)
    mask[slice(*hole), slice(*hole)] = 0
    save(path, mask)
    return mask > 0


@pytest.mark.parametrize("spec", ["bicubic", "matlab", "gaussian:1.6|pillow", "area|gray"])
def test_a_clean_operator_is_met_exactly(here, prior, truth, spec):
    low = degrade(truth, spec, 8)
    record, found = search(save("face.png", low), prior, spec)
    assert (record.status, found["status"], found["ok_db"]) == ("done", "ok", 45.0)
    assert found["operator"] == {"spec": spec, "scale": 8, "chosen_by": "option"}
    assert found["options"]["project"] == "exact"
    for written in samples(found, "out/face"):
        # 58.9 dB less the rounding of what `degrade` makes.
        assert psnr(degrade(written, spec, 8), low) > 55


def unrounded(written, spec, low):
    """What `degrade` makes before it rounds, without noise, in grey levels."""
    steps, _ = build_steps(parse_operator(spec), low, written.shape[-2:])
    return 255 * simulate(torch.from_numpy(written / 255), steps, None).numpy()


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        # -20 log10(std), and the most that a file of this quality may cost.
        ("bicubic|noise:0.02", 33.98),
        ("pillow|jpeg:40", 45.0),
    ],
)
def test_noise_and_files_are_met_softly_and_judged_by_their_level(here, prior, truth, spec, level):
    made = degrade_picture(truth, spec, 4, np.random.default_rng(0))
    name = "face.png" if made.jpeg is None else "face.jpg"
    Path(name).write_bytes(made.jpeg or b"")
    low = made.pixels if made.jpeg else pixels(save(name, made.pixels))
    _, found = search(name, prior, spec)
    assert found["options"]["project"] == "soft"
    assert found["ok_db"] <= level + 0.005
    for each, written in zip(found["samples"], samples(found, "out/face"), strict=True):
        assert each["lr_psnr"] > each["lr_psnr_search"]
        assert each["status"] == ("ok" if each["lr_psnr"] >= found["ok_db"] else "below_target")
        # Without a file, `degrade` rounds: at 50 dB that is no noise beside an error of a level.
        again = degrade(written, spec, 4) if made.jpeg else unrounded(written, spec, low.shape[-2:])
        assert psnr(again, low) == pytest.approx(each["lr_psnr"], abs=0.3)


def test_a_search_stops_at_the_noise(here, prior, truth):
    """The face itself plus noise: beyond 34 dB there is only noise to fit."""
    low = degrade(truth, "bicubic|noise:0.1", 4, np.random.default_rng(0))
    _, found = search(save("face.png", low), prior, "bicubic|noise:0.1", steps=30)
    assert found["ok_db"] == 20.0
    assert [each["status"] for each in found["samples"]] == ["ok"] * 2
    assert all(each["steps"] < 30 for each in found["samples"])
    assert all(20 <= each["lr_psnr_search"] < 22 for each in found["samples"])


def test_in_painting_keeps_the_known_pixels_and_fills_the_hole(here, prior, truth):
    known = make_mask("known.png", 128, (40, 80))
    face = np.where(known, truth, np.uint8(0))
    _, found = search(save("face.png", face), prior, "mask:known.png")
    assert (found["status"], found["operator"]["scale"]) == ("ok", 1)
    first, second = samples(found, "out/face")
    for written in (first, second):
        assert (written[:, known] == truth[:, known]).all()
        assert written[:, ~known].std() > 1  # neither black nor one colour
    assert (first[:, ~known] != second[:, ~known]).any()


def test_the_input_shows_unknown_pixels_as_squares_of_two_greys(here, prior, truth):
    known = make_mask("known.png", 128, (40, 80))
    search(save("face.png", truth), prior, "mask:known.png", samples=1)
    shown = pixels("out/face/input.png")
    assert (shown[:, known] == truth[:, known]).all()
    assert set(np.unique(shown[:, ~known])) == {153, 204}


def test_a_mask_with_a_scale_hides_low_res_pixels(here, prior, truth):
    known = make_mask("known.png", 16, (5, 9))
    low = degrade(truth, "bicubic|mask:known.png", 8)
    _, found = search(save("face.png", low), prior, "bicubic|mask:known.png")
    assert found["status"] == "ok"
    first, second = (degrade(each, "bicubic", 8).astype(int) for each in samples(found, "out/face"))
    assert psnr(first[:, known], low[:, known]) > 55
    assert psnr(first[:, ~known], second[:, ~known]) < 40


def test_the_content_of_a_mask_decides_whether_a_run_is_complete(here, prior, truth):
    make_mask("known.png", 128, (40, 80))
    save("face.png", truth)
    _, found = search("face.png", prior, "mask:known.png", samples=1)
    Path("other").mkdir()
    Path("known.png").rename("other/known.png")
    record, _ = search("face.png", prior, "mask:other/known.png", samples=1)
    assert record.status == "skipped"
    make_mask("other/known.png", 128, (40, 81))
    record, other = search("face.png", prior, "mask:other/known.png", samples=1)
    assert record.status == "done"
    assert found["operator"]["mask"]["file"] == "known.png"
    assert len(found["operator"]["mask"]["sha256"]) == 64
    assert other["operator"]["mask"]["sha256"] != found["operator"]["mask"]["sha256"]


def test_colourisation_gives_colours_to_a_grey_file(here, prior, truth):
    grey = np.asarray(Image.fromarray(truth.transpose(1, 2, 0)).convert("L"))
    _, found = search(save("face.png", grey), prior, "gray")
    assert (found["status"], found["input"]["mode"]) == ("ok", "L")
    assert (pixels("out/face/input.png") == grey).all()
    for written in samples(found, "out/face"):
        luma = np.asarray(Image.fromarray(written.transpose(1, 2, 0)).convert("L"))
        assert psnr(luma, grey) > 55
        assert np.abs(written[0].astype(int) - written[2]).mean() > 5


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_grey_input_gives_grey_faces(here, prior, truth, kind):
    low = degrade(truth, "bicubic|gray", 8)[0]
    path = here / f"face.{kind}"
    Image.fromarray(low).save(path, **({"quality": 85} if kind == "jpg" else {}))
    record, found = search(path, prior, "bicubic")
    assert record.status == "done"
    assert any("so the faces are" in note for note in found["input"]["notes"])
    for written in samples(found, "out/face"):
        assert (written == written[:1]).all()
    if kind == "png":
        assert found["status"] == "ok"


def test_of_a_colour_file_gray_sees_the_luma_only(here, prior, truth):
    low = degrade(truth, "area", 8)
    _, found = search(save("face.png", low), prior, "area|gray", samples=1)
    shown = pixels("out/face/input.png")
    assert (shown == shown[:1]).all()
    assert any("only its luma" in note for note in found["input"]["notes"])
    assert found["samples"][0]["lr_psnr"] > 50


def test_where_no_exact_projection_exists_it_is_soft_unless_asked_for(here, prior, truth):
    save("face.png", degrade(truth, "gaussian:20", 8))
    _, found = search("face.png", prior, "gaussian:20", samples=1)
    assert found["options"]["project"] == "soft"
    config = SearchConfig(operator="gaussian:20", project="exact")
    [record] = run(["face.png"], "no", config, prior)
    assert (record.status, record.exit_code) == ("failed", 2)
    assert "cannot be inverted" in record.error


# --operator auto


def test_auto_says_what_it_chose_and_a_run_resumes(here, prior, truth, monkeypatch):
    for name in ("a.png", "b.png"):
        save(name, degrade(truth, "gaussian:6.4", 8))
        truth = truth[:, :, ::-1]
    learnt = []
    monkeypatch.setattr(
        blind, "learn", lambda *words, real=blind.learn: learnt.append(words) or real(*words)
    )

    def call(samples):
        words = ["run", "a.png", "b.png", "--operator", "auto", "--align", "never"]
        words += ["--steps", STEPS, "--batch", 2, "--samples", samples]
        return CliRunner().invoke(main, [str(word) for word in words])

    result = call(1)
    assert result.exit_code == 0
    assert len(learnt) == 1  # once for both inputs
    found = document("pulse_out/a")
    operator, candidates = found["operator"], found["operator"]["candidates"]
    assert (operator["spec"], operator["chosen_by"]) == ("gaussian:6.4", "auto")
    assert (candidates[0]["spec"], candidates[0]["score"]) == ("gaussian:6.4", 0)
    runner_up = f"runner-up {candidates[1]['spec']}, {-candidates[1]['score']:.1f} nats behind"
    assert f"operator auto: gaussian:6.4 ({runner_up}" in result.stderr
    assert f"operator auto: gaussian:6.4 ({runner_up}" in Path("pulse_out/index.html").read_text()
    settings = json.loads(Image.open("pulse_out/a/sample_00.png").text["pulse-sr:settings"])
    assert (settings["operator"], settings["operator_used"]) == ("auto", "gaussian:6.4")
    before = Path("pulse_out/a/sample_00.png").read_bytes()
    assert "skipped, complete" in call(1).stderr
    assert "1 more, now 2 samples" in call(2).stderr
    assert Path("pulse_out/a/sample_00.png").read_bytes() == before


@pytest.mark.parametrize(("name", "after"), [("face.png", "gray"), ("face.jpg", "jpeg:60")])
def test_auto_reads_grey_and_files_from_the_input(here, prior, truth, name, after):
    made = degrade_picture(truth, f"gaussian:6.4|{after}", 8)
    save(name, made.pixels)
    if made.jpeg:
        Path(name).write_bytes(made.jpeg)
    _, found = search(name, prior, "auto", samples=1)
    assert found["operator"]["spec"] == f"gaussian:6.4|{after}"
    assert all(each["spec"].endswith(after) for each in found["operator"]["candidates"])


def test_auto_of_padded_inputs(here, prior, truth):
    low = degrade(truth, "gaussian:6.4", 8)[:, :, 2:14]
    _, found = search(save("face.png", low), prior, "auto", samples=1)
    assert found["operator"]["spec"] == "gaussian:6.4"
    assert found["grid"]["columns"] == [2, 14]


def test_auto_of_a_photo_has_nothing_to_find_out(here, prior):
    portrait = Path(__file__).parent / "data" / "portrait_a.jpg"
    config = SearchConfig(operator="auto", samples=1, steps=STEPS, batch=1, scale=2)
    [record] = run([portrait], "out", config, prior)
    found = document(Path("out", record.stem))
    assert found["operator"] == {"spec": "bicubic", "scale": 2, "chosen_by": "photo"}
    assert found["face"]["operator"] == "bicubic"


def test_dry_run_shows_auto_and_writes_nothing(here, truth):
    save("face.png", degrade(truth, "bicubic", 8))
    result = CliRunner().invoke(main, ["run", "face.png", "--operator", "auto", "--dry-run"])
    assert result.exit_code == 0
    assert ["operator", "auto"] in [line.split() for line in result.stdout.splitlines()]
    assert not Path("pulse_out").exists()


# What does not go together


@pytest.mark.parametrize(
    ("operator", "options", "align", "message"),
    [
        ("gray", {"scale": 4}, "never", "--scale 4 does not suit --operator 'gray'"),
        ("mask:lost.png", {}, "never", "'mask:lost.png': lost.png does not exist"),
        ("gray", {}, "always", "takes whole pictures"),
        ("auto", {"scale": 5}, "never", "--scale 5"),
        ("bicubic", {"scale": 1}, "never", "'bicubic'"),
    ],
)
def test_what_no_input_could_work_with_is_refused_first(
    here, prior, truth, operator, options, align, message
):
    save("face.png", truth)
    with pytest.raises(UsageError, match=message):
        run(["face.png"], "out", SearchConfig(operator=operator, **options), prior, align=align)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("operator", "side", "message"),
    [
        ("gray", 64, "its side is 64: a prior of 128 px needs a side of 128"),
        ("auto", 128, "its side is 128"),
        ("mask:known.png", 128, "the mask has 20x20 px, expected 128x128 px"),
        ("bicubic|mask:known.png", 16, "expected 16x16 px"),
    ],
)
def test_an_input_that_does_not_suit_the_operator_fails_alone(
    here, prior, truth, operator, side, message
):
    make_mask("known.png", 20, (5, 9))
    save("face.png", truth[:, :side, :side])
    [record] = run(["face.png"], "out", SearchConfig(operator=operator), prior, align="never")
    assert record.status == "failed"
    assert message in record.error
