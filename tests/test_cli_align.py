"""`pulse-sr align`: files, names, resuming, what is left out and why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from packed_images import images_in
from PIL import Image

from pulse_sr.alignment.geometry import affine_of, framing_of
from pulse_sr.cli import main
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import NOT_TRAINING_DATA
from pulse_sr.images.read import read_image
from pulse_sr.operators.degrading import degrade

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words):
        return CliRunner().invoke(main, ["align", *(str(word) for word in words)])

    return invoke


@pytest.fixture
def portrait(tmp_path):
    """A function that puts a portrait somewhere: portrait("x/a.jpg", "b")."""

    def put(name, which="a"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / f"portrait_{which}.jpg", path)
        return path

    return put


def group(path, places, size):
    """A picture of several portraits: (which, left, top, width, degrees) each."""
    canvas = Image.new("RGB", size, (90, 110, 130))
    for which, left, top, width, degrees in places:
        face = Image.open(DATA / f"portrait_{which}.jpg").convert("RGB")
        face = face.resize((width, round(width * 275 / 225)), Image.Resampling.LANCZOS)
        turned = face.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(90, 110, 130))
        canvas.paste(turned, (left, top))
    canvas.save(path)


def sidecar(path):
    return json.loads(Path(path).read_text())


def test_a_portrait_becomes_a_crop_with_a_sidecar(call, portrait):
    portrait("photos/mp.jpg")
    result = call("photos", "-o", "out", "--size", 128, "--lr", "32,16")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "[1/1] mp  1 face" in result.stderr
    assert "1 faces of 1 images; crops in out" in result.stderr
    crop, record = read_image("out/mp.png"), sidecar("out/mp.json")
    assert (crop.width, crop.height, record["size"]) == (128, 128, 128)
    assert record["source"]["path"] == "photos/mp.jpg"
    assert record["score"] > 0.9
    assert len(record["landmarks"]) == 5
    assert record["landmarks_from"] == "yunet"
    assert record["framing"]["name"] == "template"
    assert record["transform"] == affine_of(np.array(record["quad"]), 128).tolist()
    for low in (16, 32):
        made = read_image(f"out/lr_{low}/mp.png").pixels
        assert (made == degrade(crop.pixels, "bicubic", 128 // low)).all()
    assert Path("out/report/contact_sheet.png").is_file()
    [row] = json.loads(Path("out/manifest.json").read_text())
    assert (row["stem"], row["status"], row["names"]) == ("mp", "ok", ["mp"])


def test_the_framing_is_ffhq_on_request(call, portrait):
    portrait("mp.jpg")
    call("mp.jpg", "-o", "own")
    call("mp.jpg", "-o", "ffhq", "--framing", "ffhq")
    own, ffhq = sidecar("own/mp.json"), sidecar("ffhq/mp.json")
    assert (ffhq["framing"]["name"], ffhq["framing"]["template"]) == ("ffhq", None)
    assert ffhq["real_size"] > 1.2 * own["real_size"]


def test_several_faces_get_numbers_from_left_to_right_that_nobody_else_has(call, portrait):
    places = [("a", 10, 10, 150, 10), ("b", 190, 30, 120, -15), ("a", 330, 60, 60, 0)]
    group("party.png", places, (420, 240))
    portrait("party-2.jpg", "b")
    result = call("party.png", "party-2.jpg", "-o", "out", "--lr", "32,64")
    assert result.exit_code == 0
    names = ["party-face1", "party-face2", "party-face3"]
    rows = json.loads(Path("out/manifest.json").read_text())
    assert {row["stem"]: row["names"] for row in rows} == {"party": names, "party-2": ["party-2"]}
    lefts = [sidecar(f"out/{name}.json")["box"][0] for name in names]
    assert lefts == sorted(lefts)
    # The small face has some 42 px: no 64-px version of it is made up.
    assert set(sidecar("out/party-face3.json")["lr"]) == {"32"}
    assert set(sidecar("out/party-face1.json")["lr"]) == {"32", "64"}
    alone = call("party.png", "-o", "alone")
    assert "party  3 faces" in alone.stderr
    assert Path("alone/party-1.png").is_file()


def test_fifty_faces(call):
    places = [("ab"[i % 2], i % 10 * 62, i // 10 * 76, 60, 0) for i in range(50)]
    group("crowd.png", places, (620, 380))
    result = call("crowd.png", "-o", "out", "--size", 32)
    assert result.exit_code == 0
    assert "crowd  50 faces" in result.stderr
    assert len(list(Path("out").glob("crowd-*.png"))) == 50


def test_what_is_left_out_and_why(call, portrait):
    places = [("a", 10, 10, 200, 0), ("b", 240, 40, 40, 0)]
    group("two.png", places, (300, 260))
    blurred = Image.open(portrait("mp.jpg")).resize((18, 22)).resize((225, 275))
    blurred.save("blurred.png")
    result = call("two.png", "blurred.png", "-o", "out", "--min-size", 50, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    two, soft = document["images"]
    assert two["names"] == ["two"]
    assert [row["reason"].split(":")[0] for row in two["left_out"]] == ["too small"]
    assert soft["status"] == "failed"
    assert "blurred: sharpness" in soft["error"]
    assert "error: no usable face in blurred.png: blurred" in result.stderr
    strict = call("two.png", "-o", "strict", "--min-score", 0.99)
    assert "score 0.9" in strict.stderr
    assert strict.exit_code == 1


def test_inputs_without_a_face_are_one_line_each(call, portrait):
    Image.effect_noise((300, 200), 40).convert("RGB").save("noise.png")
    Image.new("RGB", (1, 1)).save("one.png")
    Path("text.png").write_text("no picture")
    portrait("mp.jpg")
    result = call("noise.png", "one.png", "text.png", "mp.jpg", "-o", "out")
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "in noise.png" in errors[0]
    assert errors[1] == "error: no face found in one.png (1x1 px)"
    assert errors[2].startswith("error: text.png is not an image")
    assert "1 faces of 4 images, 3 without a usable face" in result.stderr


def test_upside_down_by_exif_cmyk_and_grey_are_read_as_people_see_them(call, portrait):
    photo = Image.open(portrait("mp.jpg")).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3
    photo.rotate(180).save("upside.jpg", exif=exif, quality=95)
    photo.convert("CMYK").save("cmyk.jpg", quality=95)
    photo.convert("L").save("grey.png")
    result = call("mp.jpg", "upside.jpg", "cmyk.jpg", "grey.png", "-o", "out")
    assert result.exit_code == 0
    reference = read_image("out/mp.png").pixels.astype(float)
    for name in ("upside", "cmyk"):
        assert np.abs(read_image(f"out/{name}.png").pixels - reference).mean() < 6


def test_a_face_at_the_border_is_mirrored(call, portrait):
    Image.open(portrait("mp.jpg")).crop((60, 40, 150, 220)).save("edge.png")
    call("edge.png", "-o", "out")
    assert 0.3 < sidecar("out/edge.json")["inside"] < 0.95
    assert read_image("out/edge.png").pixels[:, :, :20].mean() > 40


def test_the_same_command_resumes(call, portrait):
    portrait("p/a.jpg"), portrait("p/b.jpg", "b")
    call("p", "-o", "out", "--lr", 16)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    result = call("p", "-o", "out", "--lr", 16)
    assert "[1/2] a  complete: 1 face" in result.stderr
    assert {p: p.stat().st_mtime_ns for p in times} == times
    for lost in ("out/a.png", "out/b.json", "out/lr_16/a.png", "out/manifest.json"):
        Path(lost).unlink()
        assert call("p", "-o", "out", "--lr", 16).exit_code == 0
        assert {p: p.read_bytes() for p in before} == before
    other = call("p", "-o", "out", "--size", 64)  # other settings: everything is made again
    assert "complete" not in other.stderr
    assert read_image("out/a.png").width == 64
    assert not Path("out/lr_16/a.png").exists()
    again = call("p", "-o", "out", "--size", 64, "--overwrite")
    assert "complete" not in again.stderr


def test_near_duplicates_are_noted_or_left_out(call, portrait):
    Image.open(portrait("p/a.jpg")).save("p/copy.jpg", quality=60)
    portrait("p/other.jpg", "b")
    result = call("p", "-o", "noted")
    assert "copy nearly equals a" in result.stderr
    assert sidecar("noted/copy.json")["near_duplicate_of"] == "a"
    assert sidecar("noted/other.json")["near_duplicate_of"] is None
    result = call("p", "-o", "skipped", "--skip-duplicates")
    assert "near-duplicate of a" in result.stderr
    assert sorted(path.name for path in Path("skipped").glob("*.png")) == ["a.png", "other.png"]


def test_licence_files_of_the_folder_come_along(call, portrait):
    portrait("p/a.jpg"), portrait("q/b.jpg", "b")
    for folder in "pq":
        Path(folder, "LICENSE.txt").write_text(folder)
    result = call("p", "q", "-o", "out")
    assert "licence files copied: LICENSE.txt, LICENSE-2.txt" in result.stderr
    assert Path("out/LICENSE.txt").read_text() == "p"
    assert Path("out/LICENSE-2.txt").read_text() == "q"


def test_own_landmarks(call, portrait):
    portrait("mp.jpg")
    points = [[78, 125], [139, 124], [106, 154], [81, 185], [135, 186]]
    Path("points.json").write_text(json.dumps({"mp.jpg": [points]}))
    assert call("mp.jpg", "-o", "out", "--landmarks", "points.json").exit_code == 0
    record = sidecar("out/mp.json")
    assert record["landmarks"] == points
    assert record["landmarks_from"].startswith("file ")
    points[0][0] += 8  # another content of the file gives another crop
    Path("points.json").write_text(json.dumps({"mp.jpg": [points]}))
    result = call("mp.jpg", "-o", "out", "--landmarks", "points.json")
    assert "complete" not in result.stderr
    Path("points.json").write_text("{}")
    assert (
        "no landmarks for mp.jpg"
        in call("mp.jpg", "-o", "new", "--landmarks", "points.json").stderr
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.png", "-o", "out"], 2, "nowhere.png does not exist"),
        (["mp.jpg"], 2, "--out"),
        (["mp.jpg", "-o", "."], 2, "lies where the results go"),
        (["mp.jpg", "-o", "out", "--lr", "48"], 2, "--lr 48 does not divide"),
        (["mp.jpg", "-o", "out", "--lr", "many"], 2, "16,32"),
        (["mp.jpg", "-o", "out", "--lr", "16", "--operator", "nothing"], 2, "nothing"),
        (["mp.jpg", "-o", "out", "--landmarks", "dlib"], 2, "yunet, fan or a JSON file"),
        (["mp.jpg", "-o", "out", "--prior", "nobody"], 2, "no prior 'nobody'"),
        (["mp.jpg", "-o", "out", "--landmarks", "fan", "--weights", "none.pth"], 3, "missing"),
    ],
)
def test_wrong_calls(call, portrait, words, code, message):
    portrait("mp.jpg")
    result = call(*words)
    assert result.exit_code == code
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not Path("out").exists()


def test_dry_run_writes_nothing(call, portrait, tmp_path):
    portrait("mp.jpg")
    result = call("mp.jpg", "-o", "out", "--lr", "16", "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert document["settings"]["lr"] == [16]
    assert document["settings"]["framing"]["name"] == "template"
    assert document["images"] == ["mp.jpg"]
    assert "mp.jpg" in call("mp.jpg", "-o", "out", "--dry-run").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mp.jpg"]


def test_options_from_toml(call, portrait):
    portrait("mp.jpg")
    Path("c.toml").write_text('size = 64\nlr = "16,32"\nskip-duplicates = true\n')
    document = json.loads(
        call("mp.jpg", "-o", "out", "--config", "c.toml", "--dry-run", "--json").stdout
    )
    assert (document["settings"]["size"], document["settings"]["lr"]) == (64, [16, 32])


def test_training_takes_the_crops_and_nothing_else(call, portrait):
    portrait("p/a.jpg"), portrait("p/b.jpg", "b")
    call("p", "-o", "out", "--lr", "16,32")
    assert [path.name for path in images_in(Path("out"))] == ["a.png", "b.png"]
    assert Path("out/lr_16", NOT_TRAINING_DATA).is_file()
    # The prior's card takes over how the faces lie.
    assert framing_of({"alignment": open_source("out").alignment()}).template is not None
    assert open_source("p").alignment() is None
    # The folder itself may be trained on when it is named.
    assert [path.name for path in images_in(Path("out/lr_16"))] == ["a.png", "b.png"]


def python(words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_script_is_the_same_command(portrait, tmp_path):
    portrait("mp.jpg")
    words = [ROOT / "scripts" / "align_faces.py", "mp.jpg", "-o", "out", "--size", "64"]
    process = python(words, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "1 faces of 1 images" in err
    assert (tmp_path / "out" / "mp.json").is_file()


def test_an_interruption_keeps_what_is_done(portrait, tmp_path, call):
    portrait("p/a.jpg"), portrait("p/b.jpg", "b")
    code = """
        import time
        from pulse_sr.cli import main
        from pulse_sr.alignment.landmarks.yunet import YuNet
        find = YuNet.find
        def slow(self, image):
            if "b.jpg" in image.path:
                print("looking", flush=True)
                time.sleep(60)
            return find(self, image)
        YuNet.find = slow
        main(["align", "p", "-o", "out"], prog_name="pulse-sr")
    """
    process = python(["-c", textwrap.dedent(code)], tmp_path)
    assert process.stdout.readline() == "looking\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert "1 faces of 1 images, 1 not started" in err
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert "[1/2] a  complete" in call("p", "-o", "out").stderr


def test_help_imports_neither_torch_nor_numpy_nor_opencv(tmp_path):
    code = """
        import sys
        from pulse_sr.cli import main
        try:
            main(["align", "--help"], prog_name="pulse-sr")
        finally:
            print(sorted({"torch", "numpy", "PIL", "scipy", "cv2"} & set(sys.modules)))
    """
    out, _ = python(["-c", textwrap.dedent(code)], tmp_path).communicate(timeout=60)
    assert "INPUT..." in out
    assert out.strip().endswith("[]")
