"""`run --align`: photos to faces and back, with the guarantees that every run has."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import fake_search
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import laplace

from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.landmarks.yunet import YuNet
from pulse_sr.alignment.paste import mask
from pulse_sr.cli import main
from pulse_sr.images.original import read_original
from pulse_sr.images.pixels import to_pillow
from pulse_sr.images.read import read_image
from pulse_sr.jobs.photo import Photos
from pulse_sr.jobs.photo_canvas import Canvas
from pulse_sr.jobs.photo_record import read_photo
from pulse_sr.jobs.provenance import COMMENT
from pulse_sr.jobs.stems import Names, clean_stem, face_names
from pulse_sr.jobs.store import write_page
from pulse_sr.models import registry
from pulse_sr.operators.degrading import degrade
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel, save_model

DATA = Path(__file__).parent / "data"


@pytest.fixture
def call(fake_api, tmp_path, monkeypatch):
    """Runs the command line in an empty folder, with the bundled prior's framing."""
    monkeypatch.chdir(tmp_path)
    card = {**fake_search.PRIOR.card, "alignment": registry.load().card["alignment"]}
    prior = SimpleNamespace(**{**vars(fake_search.PRIOR), "card": card})
    fake_api.load_prior = lambda name=None, device="auto": prior

    def invoke(*words):
        return CliRunner().invoke(main, ["run", *(str(word) for word in words)])

    return invoke


def soft(which):
    """A portrait whose face has detail for a search at 32 px, not for 64."""
    sharp = Image.open(DATA / f"portrait_{which}.jpg").convert("RGB")
    small = sharp.resize((50, 61), Image.Resampling.LANCZOS)
    return small.resize((225, 275), Image.Resampling.BICUBIC)


@pytest.fixture
def portrait(tmp_path):
    """A function that puts a soft portrait somewhere: portrait("x/a.jpg", "b")."""

    def put(name, which="a"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soft(which).save(path, quality=95)
        return path

    return put


@pytest.fixture
def party(tmp_path):
    """A photo of three people, the smallest face some 20 px large."""
    canvas = Image.new("RGB", (460, 300), (90, 110, 130))
    for which, left, width, degrees in (("a", 10, 180, 8), ("b", 220, 120, -12), ("a", 390, 30, 0)):
        face = soft(which)
        face = face.resize((width, round(width * 275 / 225)), Image.Resampling.LANCZOS)
        turned = face.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(90, 110, 130))
        canvas.paste(turned, (left, 30))
    path = tmp_path / "party.png"
    canvas.save(path)
    return path


def nearest(file, scale):
    """Writes a network that repeats pixels."""
    network = build_network("compact", {"scale": scale, "width": 4, "convolutions": 1})
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    save_model(file, SrModel("nearest", "compact", network))
    return file


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def record(folder):
    return json.loads(Path(folder, "result.json").read_text())


def manifest(out="pulse_out"):
    return json.loads(Path(out, "manifest.json").read_text())


def test_a_photo_is_searched_as_its_face_and_comes_back_with_it(call, portrait):
    path = portrait("mp.jpg")
    result = call("mp.jpg", "--samples", 2, "--upscale", 1)
    assert result.exit_code == 0
    assert "[1/1] mp  done" in result.stderr
    document = record("pulse_out/mp")
    photo, face = read_image(path), document["face"]
    assert document["align"] == "auto"
    assert (document["input"]["width"], document["input"]["sha256"]) == (225, photo.sha256)
    assert (face["base"], face["index"], face["of"], face["side"]) == ("mp", 1, 1, 32)
    quad = np.array(face["quad"])
    low_res = degrade(crop_quad(photo.pixels, quad, 64, parity=False), "bicubic", 2)
    assert (read_image("pulse_out/mp/input.png").pixels == low_res).all()
    weight = mask(quad, slice(0, photo.height), slice(0, photo.width))
    whole = json.loads(Path("pulse_out/mp/photo.json").read_text())
    assert (whole["files"], whole["upscale"]) == (["photo_00.png", "photo_01.png"], 1)
    for k, sample in enumerate(document["samples"]):
        pasted = read_image(f"pulse_out/mp/photo_{k:02d}.png").pixels
        assert (pasted[:, weight == 0] == photo.pixels[:, weight == 0]).all()
        # Cut out again, the middle is the sample (blurred a little by two resamplings).
        again = crop_quad(pasted, quad, 64, parity=False).astype(float)[:, 16:48, 16:48]
        wanted = read_image(f"pulse_out/mp/{sample['file']}").pixels[:, 16:48, 16:48]
        assert np.abs(again.mean(axis=(1, 2)) - wanted.mean(axis=(1, 2))).max() < 1.0
        assert np.corrcoef(again.ravel(), wanted.ravel())[0, 1] > 0.95
        assert Image.open(f"pulse_out/mp/photo_{k:02d}.png").text["Comment"] == COMMENT
    assert "photo_00.png" in Path("pulse_out/index.html").read_text()


@pytest.mark.parametrize("upscale", [2, 3])
def test_a_photo_comes_back_larger_with_sample_k_of_every_face(call, party, upscale):
    assert call("party.png", "--samples", 2, "--scale", 4, "--upscale", upscale).exit_code == 0
    photo = read_image(party)
    size = (photo.width * upscale, photo.height * upscale)
    picture = to_pillow(photo.pixels).resize(size, Image.Resampling.LANCZOS)
    plain = np.asarray(picture).transpose(2, 0, 1)
    whole = json.loads(Path("pulse_out/party/photo.json").read_text())
    assert [face["number"] for face in whole["faces"]] == [1, 2, 3]
    for k in (0, 1):
        made = read_image(f"pulse_out/party/photo_{k:02d}.png").pixels
        untouched = np.ones(made.shape[1:], bool)
        for face in whole["faces"]:
            quad = np.array(face["quad"])
            untouched &= mask(quad, slice(0, size[1]), slice(0, size[0])) == 0
            sample = read_image(f"pulse_out/{face['stem']}/sample_{k:02d}.png").pixels
            again = crop_quad(made, quad, 64, parity=False).astype(float)[:, 16:48, 16:48]
            assert np.corrcoef(again.ravel(), sample[:, 16:48, 16:48].ravel())[0, 1] > 0.9
        assert (made[:, untouched] == plain[:, untouched]).all()
        assert untouched.mean() > 0.3


@pytest.mark.parametrize(("scale", "upscale"), [(2, 2), (4, 3)])
def test_a_network_enlarges_what_is_not_a_face(call, portrait, tmp_path, scale, upscale):
    """The network repeats pixels: outside the faces the photo is known beforehand."""
    model = nearest(tmp_path / "nearest.safetensors", scale)
    path = portrait("mp.jpg")
    words = ("mp.jpg", "--samples", 1, "--scale", 2, "--upscale", upscale)
    assert call(*words).exit_code == 0
    plain = read_image("pulse_out/mp/photo_00.png").pixels
    assert call(*words, "--background", model).exit_code == 0
    made = read_image("pulse_out/mp/photo_00.png").pixels
    large = read_image(path).pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    if scale > upscale:
        size = (plain.shape[2], plain.shape[1])
        planes = [Image.fromarray(each.astype(np.float32)) for each in large]
        small = [np.asarray(each.resize(size, Image.Resampling.LANCZOS)) for each in planes]
        large = np.stack(small).clip(0, 255)
    whole = json.loads(Path("pulse_out/mp/photo.json").read_text())
    quad = np.array(whole["faces"][0]["quad"])
    weight = mask(quad, slice(0, made.shape[1]), slice(0, made.shape[2]))
    assert np.abs(made[:, weight == 0].astype(int) - large[:, weight == 0]).max() <= 1
    assert (made[:, weight == 1] == plain[:, weight == 1]).all()  # nothing of the network in it
    named = {"network": "nearest", "network_sha256": sha256(model.read_bytes())}
    assert whole["background"] == {"source": str(model), **named}
    assert f"--background {model}" in Path("pulse_out/index.html").read_text()


def test_another_background_makes_the_photo_again_without_a_search(call, portrait, tmp_path):
    model = nearest(tmp_path / "nearest.safetensors", 2)
    portrait("mp.jpg")
    words = ("mp.jpg", "--samples", 1, "--scale", 2)
    call(*words)
    before = Path("pulse_out/mp/photo_00.png").read_bytes()
    assert "1 skipped" in call(*words, "--background", model).stderr
    assert Path("pulse_out/mp/photo_00.png").read_bytes() != before
    assert "1 skipped" in call(*words).stderr
    assert Path("pulse_out/mp/photo_00.png").read_bytes() == before
    settings = json.loads(call(*words, "--background", model, "--dry-run", "--json").stdout)
    assert settings["settings"]["background_sha256"] == sha256(model.read_bytes())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--background", "no-such"), "no network 'no-such'"),
        (("--background", "compact-x4", "--upscale", 8), "enlarges by 4, --upscale is 8"),
        (("--background", "compact-x4", "--upscale", 1), "--upscale 1 keeps their size"),
    ],
)
def test_a_background_that_does_not_suit_is_one_line(call, portrait, words, expected):
    portrait("mp.jpg")
    result = call("mp.jpg", "--samples", 1, *words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not Path("pulse_out").exists()


def test_inputs_where_results_would_go_are_refused(call, face, party, tmp_path):
    """Once `run mean/mean.png -o .` replaced its input, and removed files named like samples."""
    face("mean/mean.png")
    face("sample_old/sample_old.png")
    (tmp_path / "party-2").mkdir()
    twin = shutil.copy(party, "party-2/party.png")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for words in (("mean/mean.png",), ("sample_old/sample_old.png",), (twin, "--scale", 4)):
        result = call(*words, "--samples", 1, "-o", ".")
        assert result.exit_code == 2
        assert "lies where the results go, in ." in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == files
    assert not Path("manifest.json").exists()


def test_the_photo_keeps_opacity_profile_dates_and_density(call, portrait):
    with Image.open(DATA / "photos" / "p3.png") as found:
        profile = found.info["icc_profile"]
    source = Image.open(DATA / "portrait_a.jpg").convert("RGB")
    alpha = Image.new("L", source.size, 255)
    alpha.paste(77, (0, 0, 30, 275))
    source.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112], exif[0x0132], exif[0x010F] = 1, "2020:01:02 03:04:05", "Camera"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0xA431] = "serial 1234"
    exif.get_ifd(0x8825)[1] = "N"
    source.save("mp.png", icc_profile=profile, exif=exif, dpi=(300, 300))
    assert call("mp.png", "--samples", 1, "--scale", 2, "--upscale", 1).exit_code == 0
    with Image.open("pulse_out/mp/photo_00.png") as made:
        assert made.info["icc_profile"] == profile
        assert made.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        kept = made.getexif()
        assert (kept[0x0112], kept[0x0132]) == (1, "2020:01:02 03:04:05")
        assert kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert b"serial" not in kept.tobytes()
        assert not kept.get_ifd(0x8825)
        assert 0x010F not in kept
        pixels = np.asarray(made).transpose(2, 0, 1)
    before = np.asarray(source).transpose(2, 0, 1)
    quad = np.array(record("pulse_out/mp")["face"]["quad"])
    outside = mask(quad, slice(0, 275), slice(0, 225)) == 0
    assert (pixels[3] == before[3]).all()
    assert (pixels[:, outside] == before[:, outside]).all()
    assert (pixels[:3, ~outside] != before[:3, ~outside]).any()


def test_faces_can_be_chosen_and_doubtful_ones_are_named(call, party):
    words = ("party.png", "--samples", 1, "--scale", 4)
    result = call(*words, "--faces", "1,3")
    assert "face 2: not among --faces" in result.stderr
    assert [row["stem"] for row in manifest()] == ["party-1", "party-3"]
    assert "0 done, 2 skipped" in call(*words, "--faces", "1,3").stderr
    strict = call(*words, "--min-score", 0.999, "-o", "strict")
    assert strict.exit_code == 1
    assert "doubtful, score 0.9" in strict.stderr
    again = call(*words, "--faces", 9, "-o", "strict")  # no earlier failure of this call
    assert "face 9: there is none, the photo has 3" in again.stderr
    assert "earlier run" not in again.stderr
    assert "earlier run" in call(*words, "--faces", 9, "-o", "strict").stderr
    assert "face 4: there is none" in call(*words, "--faces", "1,4", "-o", "some").stderr
    small = call(*words, "--min-size", 40, "-o", "small")
    assert "too small to search" in small.stderr
    assert [row["stem"] for row in manifest("small")] == ["party-1", "party-2"]


def test_a_photo_whose_face_is_fine_enough_is_enlarged(call):
    shutil.copy(DATA / "portrait_a.jpg", "mp.jpg")
    assert call("mp.jpg", "--samples", 1, "--scale", 2).exit_code == 0
    reason = "face 1: the photo shows it as fine as the prior could (64 px)"
    for expected in ("done in", "skipped, complete"):
        result = call("mp.jpg", "--samples", 2)  # the prior has 64 px, the face more
        assert result.exit_code == 0
        assert expected in result.stderr
        assert reason in result.stderr
        assert "--scale 2" in result.stderr
    photo = read_image("mp.jpg").pixels
    large = to_pillow(photo).resize((450, 550), Image.Resampling.LANCZOS)
    folder = Path("pulse_out/mp")
    assert (
        read_image(folder / "photo_00.png").pixels == np.asarray(large).transpose(2, 0, 1)
    ).all()
    names = ["photo.json", "photo_00.png", "photo_after.jpg", "photo_before.jpg"]
    assert sorted(path.name for path in folder.iterdir()) == names  # nothing of the search before
    whole = json.loads((folder / "photo.json").read_text())
    assert (whole["files"], whole["faces"], whole["left_out"]) == (["photo_00.png"], [], [reason])
    [row] = manifest()
    assert (row["stem"], row["status"], row["samples"]) == ("mp", "ok", 0)
    page = Path("pulse_out/index.html").read_text()
    assert reason in page
    assert "photo_00.png" in page
    assert "enlarge" in call("mp.jpg", "--dry-run", "-o", "other").output


def test_a_photo_that_changes_before_it_is_enlarged_fails_alone(call, portrait, monkeypatch):
    """Its faces were found fine enough in another file than the one that is there now."""
    shutil.copy(DATA / "portrait_a.jpg", "mp.jpg")
    portrait("other.jpg")
    enlarge = Photos.enlarge

    def changed(photos, task):
        Path("mp.jpg").write_bytes(b"no picture")
        return enlarge(photos, task)

    monkeypatch.setattr(Photos, "enlarge", changed)
    result = call("mp.jpg", "other.jpg", "--samples", 1)
    assert result.exit_code == 1
    assert "error: mp.jpg is not an image" in result.stderr
    assert [row["status"] for row in manifest()] == ["failed", "ok"]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("upscale", [2, 3])
def test_in_a_face_the_photo_made_small_again_is_the_photo(call, suffix, upscale):
    """By construction, whatever was found: the aim is 45 dB for PNG, 38 for JPEG."""
    portrait = Image.open(DATA / "portrait_a.jpg").convert("RGB")
    canvas = Image.new("RGB", (150, 140), (90, 110, 130))
    canvas.paste(portrait.resize((70, 86), Image.Resampling.LANCZOS), (40, 30))
    canvas.save(f"mp.{suffix}")
    assert call(f"mp.{suffix}", "--samples", 1, "--upscale", upscale).exit_code == 0
    photo, made = (read_image(each) for each in (f"mp.{suffix}", "pulse_out/mp/photo_00.png"))
    small = to_pillow(made.pixels).resize((150, 140), Image.Resampling.LANCZOS)
    quad = np.array(record("pulse_out/mp")["face"]["quad"])
    inside = mask(quad, slice(0, 140), slice(0, 150)) > 0
    error = np.asarray(small).transpose(2, 0, 1)[:, inside].astype(float) - photo.pixels[:, inside]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 48
    size = (150 * upscale, 140 * upscale)
    plain = np.asarray(to_pillow(photo.pixels).resize(size, Image.Resampling.LANCZOS))
    whole = mask((quad + 0.5) * upscale - 0.5, slice(0, size[1]), slice(0, size[0])) == 1
    before, after = (
        laplace(each.astype(float).mean(axis=axis))[whole].var()
        for each, axis in ((plain, 2), (made.pixels, 0))
    )
    assert after > 1.15 * before


def test_a_sample_that_is_softer_than_the_photo_is_left_out(tmp_path):
    """A photo of noise, said to have a quarter of its detail, and a sample of one grey."""
    noise = np.random.default_rng(0).integers(90, 150, (120, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    canvas = Canvas(read_original(tmp_path / "noise.png"), 1)
    corners = np.array([[30.0, 30.0], [30.0, 90.0], [90.0, 90.0], [90.0, 30.0]])
    sample = np.full((3, 64, 64), 120, np.uint8)
    assert not canvas.put(sample, corners, 60.0, 15)
    assert (canvas.stored == noise.transpose(2, 0, 1)).all()
    assert canvas.put(sample, corners, 65.0, 15)  # larger than the sample: it was asked for
    assert (canvas.stored != noise.transpose(2, 0, 1)).any()
    canvas.restore()
    assert (canvas.stored == noise.transpose(2, 0, 1)).all()


def test_in_a_face_16_bits_and_wide_colours_stay_where_nothing_changes(tmp_path):
    """A sample that is the photo itself changes no number."""
    corners = np.array([[30.0, 30.0], [30.0, 90.0], [90.0, 90.0], [90.0, 30.0]])
    noise = np.random.default_rng(0).integers(20000, 40000, (120, 120, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), noise)
    with Image.open(DATA / "photos" / "p3.png") as found:
        profile = found.info["icc_profile"]
    wide = np.full((120, 120, 3), (255, 0, 0), np.uint8)  # no colour of sRGB
    wide[::2, ::2] = (0, 255, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png", icc_profile=profile)
    for name in ("deep.png", "wide.png"):
        original = read_original(tmp_path / name)
        canvas = Canvas(original, 1)
        sample = crop_quad(read_image(tmp_path / name).pixels, corners, 60, parity=False)
        assert canvas.put(sample, corners, 60.0, 60)
        assert (canvas.stored == original.colour).all()


def test_one_result_for_each_face_of_a_group(call, party):
    result = call("party.png", "--samples", 1)
    assert result.exit_code == 0
    assert [row["stem"] for row in manifest()] == ["party-1", "party-2", "party-3"]
    assert {row["base"] for row in manifest()} == {"party"}
    sides = [record(f"pulse_out/party-{k}")["face"]["side"] for k in (1, 2, 3)]
    assert sides == [32, 32, 16]  # the small face is not pretended to be 32 px
    lefts = [record(f"pulse_out/party-{k}")["face"]["quad"][0][0] for k in (1, 2, 3)]
    assert lefts == sorted(lefts)


def test_aligned_low_res_faces_are_left_as_they_are(call, face, portrait):
    face("lr.png")
    face("wide.png", size=(16, 12))
    call("lr.png", "wide.png", "--samples", 1)
    call("lr.png", "wide.png", "--samples", 1, "--align", "never", "-o", "never")
    for stem in ("lr", "wide"):
        files = sorted(path.name for path in Path("pulse_out", stem).iterdir())
        assert files == sorted(path.name for path in Path("never", stem).iterdir())
        assert not any(name.startswith("pasted") for name in files)
        sample = Path("pulse_out", stem, "sample_00.png")
        assert sample.read_bytes() == Path("never", stem, "sample_00.png").read_bytes()
        assert "face" not in record(f"pulse_out/{stem}")


def test_the_same_command_resumes_without_looking_again(call, party, monkeypatch):
    call("party.png", "--samples", 1)
    before = {p: p.read_bytes() for p in Path("pulse_out").rglob("sample_00.png")}

    def look(*_):
        raise AssertionError("looked for faces again")

    with monkeypatch.context() as patch:
        patch.setattr(YuNet, "find", look)
        again = call("party.png", "--samples", 1)
        assert "0 done, 3 skipped" in again.stderr
        more = call("party.png", "--samples", 2)
        assert "1 more, now 2 samples" in more.stderr
    assert {p: p.read_bytes() for p in before} == before
    fresh = call("party.png", "--samples", 2, "-o", "fresh")
    assert fresh.exit_code == 0
    assert Path("pulse_out/party/photo_01.png").read_bytes() == (
        Path("fresh/party/photo_01.png").read_bytes()
    )
    for name in ("sample_01.png", "mean.png", "grid.png"):
        for k in (1, 2, 3):
            one = Path(f"pulse_out/party-{k}", name).read_bytes()
            assert one == Path(f"fresh/party-{k}", name).read_bytes()


@pytest.mark.parametrize("lost", ["photo_01.png", "photo.json"])
def test_a_lost_photo_is_made_again_without_a_search(call, portrait, fake_api, lost):
    portrait("mp.jpg")
    words = ("mp.jpg", "--samples", 2, "--scale", 2)
    call(*words)
    before = {p.name: p.read_bytes() for p in Path("pulse_out/mp").glob("photo*")}
    Path("pulse_out/mp", lost).unlink()
    fake_api.search_image = None
    assert "1 skipped" in call(*words).stderr
    assert {p.name: p.read_bytes() for p in Path("pulse_out/mp").glob("photo*")} == before


@pytest.mark.parametrize(
    "change",
    [{"width": "x"}, {"faces": [{}]}, {"files": ["../../x.png"]}, {"background": []}, {"input": 1}],
    ids=str,
)
def test_a_damaged_record_of_a_photo_is_made_again(call, portrait, change):
    portrait("mp.jpg")
    words = ("mp.jpg", "--samples", 1, "--scale", 2)
    call(*words)
    file = Path("pulse_out/mp/photo.json")
    before = file.read_bytes()
    document = json.loads(before) | change
    file.write_text(json.dumps(document))
    assert read_photo(file.parent) is None
    write_page(Path("pulse_out"))
    assert "the whole photo" not in Path("pulse_out/index.html").read_text()
    assert "1 skipped" in call(*words).stderr
    assert file.read_bytes() == before


def test_other_options_or_another_photo_make_it_again(call, portrait):
    path = portrait("mp.jpg")
    call("mp.jpg", "--samples", 1)
    assert "1 done" in call("mp.jpg", "--samples", 1, "--scale", 4).stderr
    assert record("pulse_out/mp")["face"]["side"] == 16
    assert "1 done" in call("mp.jpg", "--samples", 1, "--operator", "area").stderr
    soft("b").save(path)
    assert "1 done" in call("mp.jpg", "--samples", 1, "--operator", "area").stderr


def test_whole_pictures_and_faces_do_not_share_rows(call, party):
    """Another --align gives the input other folders: the page shows the present ones only."""
    call("party.png", "--samples", 1, "--align", "never", "--fit", "crop")
    assert [row["stem"] for row in manifest()] == ["party"]
    call("party.png", "--samples", 1)
    assert [row["stem"] for row in manifest()] == ["party-1", "party-2", "party-3"]
    call("party.png", "--samples", 1, "--align", "never", "--fit", "crop")
    assert [row["stem"] for row in manifest()] == ["party"]
    page = Path("pulse_out/index.html").read_text()
    assert "--align never" in page
    assert "party-2" not in page


def test_inputs_whose_names_collide_with_faces(call, party, portrait):
    portrait("party-1.jpg", "b")
    call("party.png", "party-1.jpg", "--samples", 1)
    stems = {row["stem"]: row["path"] for row in manifest()}
    assert stems == {
        "party-1": "party-1.jpg",
        **{f"party-face{k}": "party.png" for k in (1, 2, 3)},
    }
    again = call("party.png", "party-1.jpg", "--samples", 1)
    assert "0 done, 4 skipped" in again.stderr


@pytest.mark.parametrize("letters", ["n" * 250, "👩‍🚀" * 22], ids=["latin", "emoji"])
def test_names_of_any_length_and_script_are_cut(letters, portrait, call, tmp_path, party):
    """Two long names that begin alike, and a group whose faces get a number on top."""
    assert len(os.fsencode(letters)) <= 251
    long, twin = f"in/{letters}.jpg", f"in/{letters[:-1]}z.png"
    portrait(long)
    shutil.move(party, twin)
    assert call("in", "--samples", 1, "--scale", 4).exit_code == 0
    stems = [row["stem"] for row in manifest()]
    assert len(set(stems)) == 4
    assert "0 done, 4 skipped" in call("in", "--samples", 1, "--scale", 4).stderr
    assert [row["stem"] for row in manifest()] == stems
    for words in (
        ("align", "in", "--size", 64, "--lr", 16, "--min-sharpness", 0, "-o", "crops"),
        ("upscale", "in", "-o", "large"),
        ("degrade", "in", "-o", "small", "--scale", 5),
    ):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    written = [path for path in tmp_path.rglob("*") if "in" not in path.relative_to(tmp_path).parts]
    assert max(len(os.fsencode(path.name)) for path in written) < 240
    names = [name for row in manifest("crops") for name in row["names"]]
    assert len(set(names)) == 3  # the smallest face is too small for `align`
    assert all(Path("crops", f"{name}.json").is_file() for name in names)
    assert len(list(Path("large").glob("*.png"))) == len(list(Path("small").glob("*.png"))) == 2


def test_short_names_stay_and_cut_ones_say_which_they_were():
    assert clean_stem("x/" + "n" * 200 + ".png") == "n" * 200
    cut = [clean_stem("n" * 250 + last + ".png") for last in "ab"]
    assert cut[0] != cut[1]
    assert cut[0] == clean_stem("elsewhere/" + "n" * 250 + "a.png")
    assert all(each.startswith("n" * 190) and len(each) == 200 for each in cut)
    assert clean_stem("...png") == clean_stem(None) == "image"


def test_names_of_faces():
    assert face_names("a", 1, Names([], ["a-1"])) == ["a"]
    assert face_names("a", 2, Names([], ["b"])) == ["a-1", "a-2"]
    assert face_names("A", 2, Names([], ["a-2"])) == ["A-face1", "A-face2"]
    assert face_names("a", 2, Names([], ["a-2", "a-face1"])) == ["a-faceface1", "a-faceface2"]


def test_a_photo_without_a_face_is_one_line_and_a_row(call, portrait):
    Image.effect_noise((300, 200), 30).convert("RGB").save("hills.png")
    portrait("mp.jpg")
    result = call("hills.png", "mp.jpg", "--samples", 1)
    assert result.exit_code == 1
    assert "error: no face found in hills.png (300x200 px)\nhint: --align never" in result.stderr
    row = next(row for row in manifest() if row["stem"] == "hills")
    assert (row["status"], row["error"]) == ("failed", "no face found in hills.png (300x200 px)")
    assert "failed in an earlier run" in call("hills.png", "--samples", 1).stderr
    retried = call("hills.png", "--samples", 1, "--retry-failed").stderr
    assert "earlier run" not in retried
    assert "retry: pulse-sr run hills.png" in retried
    placed = call("hills.png", "--samples", 1, "--align", "never", "--fit", "pad")
    assert placed.exit_code == 0


def test_always_takes_every_input_as_a_photo(call, face, portrait):
    face("lr.png")
    portrait("mp.jpg")
    result = call("lr.png", "mp.jpg", "--samples", 1, "--align", "always")
    assert result.exit_code == 1
    assert "error: no face found in lr.png" in result.stderr
    assert "--align always --retry-failed" in result.stderr
    assert "run mp.jpg --align always" in Path("pulse_out/index.html").read_text()


def test_files_that_can_not_be_read_fail_as_ever(call):
    Path("bad.png").write_text("no picture")
    result = call("bad.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: bad.png is not an image")


def test_dry_run_shows_the_faces_and_writes_nothing(call, party):
    result = call("party.png", "--samples", 2, "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert [task["stem"] for task in document["tasks"]] == ["party-1", "party-2", "party-3"]
    assert document["settings"]["align"] == "auto"
    assert not Path("pulse_out").exists()


def test_shards_together_are_the_whole_run(call, party, portrait):
    portrait("mp.jpg")
    for i in (0, 1):
        assert call("party.png", "mp.jpg", "--samples", 1, "--shard", f"{i}/2").exit_code == 0
    assert [row["stem"] for row in manifest()] == ["mp", "party-1", "party-2", "party-3"]
    assert "0 done, 4 skipped" in call("party.png", "mp.jpg", "--samples", 1).stderr


def test_a_search_that_fails_names_the_photo(call, portrait, fake_api):
    def crash(*_, **__):
        raise ZeroDivisionError("division by zero")

    fake_api.search_image = crash
    portrait("mp.jpg")
    assert call("mp.jpg", "--samples", 1).exit_code == 1
    document = record("pulse_out/mp")
    assert (document["status"], document["input"]["width"]) == ("failed", 225)
    assert document["face"]["side"] == 32


def test_an_unknown_mode_exits_2(call, portrait):
    portrait("mp.jpg")
    assert call("mp.jpg", "--align", "sometimes").exit_code == 2


def test_the_low_res_files_of_align_need_no_other_step(call, portrait, monkeypatch):
    portrait("p/a.jpg"), portrait("p/b.jpg", "b")
    CliRunner().invoke(main, ["align", "p", "-o", "faces", "--size", "64", "--lr", "16,32"])
    for side in (16, 32):
        result = call(f"faces/lr_{side}", "--samples", 1, "-o", f"out_{side}")
        assert result.exit_code == 0
        assert "2 done" in result.stderr
        saved = read_image(f"out_{side}/a/input.png").pixels
        assert (saved == read_image(f"faces/lr_{side}/a.png").pixels).all()


def test_a_photo_is_decoded_once_to_find_its_faces_and_once_to_search_them(
    call, party, monkeypatch
):
    decoded = []

    def read(path):
        decoded.append(Path(path).name)
        return read_image(path)

    monkeypatch.setattr("pulse_sr.jobs.intake.read_image", read)
    monkeypatch.setattr("pulse_sr.jobs.reading.read_image", read)
    assert call("party.png", "--samples", 1).exit_code == 0
    assert len(manifest()) == 3
    assert decoded == ["party.png"] * 2


def test_a_low_res_face_is_decoded_once(call, face, monkeypatch):
    def read(path):
        raise AssertionError("decoded to look for faces")

    face("small.png")
    monkeypatch.setattr("pulse_sr.jobs.intake.read_image", read)
    assert call("small.png", "--samples", 1).exit_code == 0
