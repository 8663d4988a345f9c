"""`pulse-sr eval`: folders of any kind in, tables and plots with their conventions out."""

from __future__ import annotations

import base64
import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import smooth
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pulse_sr.cli import main
from pulse_sr.cli.console import progress_bar
from pulse_sr.images.write import OWN_MARK
from pulse_sr.jobs.stems import clean_stem
from pulse_sr.operators.degrading import degrade

SIDE = 96
FAST = "psnr,ssim,lr-psnr,brisque,niqe-set"


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noisy(pixels, rng, deviation=8):
    return np.clip(pixels + rng.normal(0, deviation, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Six truths, and results with more noise from one to the next."""
    rng = np.random.default_rng(0)
    for i in range(6):
        truth = np.roll(smooth(SIDE, SIDE), 13 * i, axis=1)
        write(tmp_path / "truth" / f"face{i}.png", truth)
        write(tmp_path / "results" / f"face{i}.png", noisy(truth, rng, 4 + 2 * i))
    return tmp_path


@pytest.fixture
def run(folders, monkeypatch):
    monkeypatch.chdir(folders)

    def call(*words, results="results"):
        arguments = ["eval", results, "--reference", "truth", *map(str, words)]
        return CliRunner().invoke(main, arguments)

    return call


def make_run_folder(root, samples=3):
    """What `run` leaves: records, samples, inputs; one input failed."""
    rng = np.random.default_rng(1)
    for i in range(4):
        with Image.open(root / "truth" / f"face{i}.png") as image:
            truth = np.array(image)
        folder = root / "run" / f"face{i}"
        low = degrade(truth.transpose(2, 0, 1), "bicubic", 8)
        write(folder / "input.png", low.transpose(1, 2, 0))
        names = [f"sample_{k:02d}.png" for k in range(samples)]
        for name in names:
            write(folder / name, noisy(truth, rng))
        record = {
            "status": "ok",
            "samples": [{"file": name} for name in names],
            "operator": {"spec": "bicubic", "scale": 8},
            "grid": {"side": 12, "rows": [0, 12], "columns": [0, 12]},
        }
        (folder / "result.json").write_text(json.dumps(record))
    broken = {"status": "failed", "error": "no face was found"}
    (root / "run" / "face4").mkdir()
    (root / "run" / "face4" / "result.json").write_text(json.dumps(broken))


def test_a_folder_of_pictures(run, folders):
    found = run("--metrics", FAST)
    assert found.exit_code == 0, found.output
    assert "RGB, no crop, 8 bits, peak 255, mean over images; identical: 200 dB" in found.stdout
    assert "LR consistency" in found.stdout
    assert "skipped: the low-res input and its operator are not known" in found.stdout
    document = json.loads((folders / "results-eval" / "metrics.json").read_text())
    values = {row["metric"]: row for row in document["table"]}
    truth, result = (
        np.array(Image.open(folders / name / "face5.png")).astype(float)
        for name in ("truth", "results")
    )
    wanted = 10 * np.log10(255**2 / np.mean((truth - result) ** 2))
    assert document["images"][5]["values"]["psnr"] == pytest.approx(wanted, abs=1e-9)
    each = [row["values"]["psnr"] for row in document["images"]]
    assert values["psnr"]["value"] == pytest.approx(np.mean(each))
    low, high = values["psnr"]["interval"]
    assert min(each) < low < np.mean(each) < high < max(each)
    with (folders / "results-eval" / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stem"] for row in rows] == [f"face{i}" for i in range(6)]
    assert float(rows[5]["psnr"]) == pytest.approx(wanted)
    with (folders / "results-eval" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == FAST.split(",")
    assert all(row["convention"] for row in rows)


def test_the_convention_is_that_of_the_options(run):
    words = "--metrics", "psnr,niqe-set", "--channels", "y", "--crop", "4", "--json", "-o", "out"
    document = json.loads(run(*words).stdout)
    assert document["settings"]["convention"] == (
        "Y (BT.601, studio range), without 4 px at each side"
    )
    assert document["table"][0]["convention"].startswith(document["settings"]["convention"])
    assert "without 4 px at each side" in document["table"][1]["convention"]
    plain = json.loads(run("--metrics", "psnr", "--json").stdout)
    assert document["table"][0]["value"] != plain["table"][0]["value"]


def test_a_run_folder(run, folders):
    """Samples count as one input; LR consistency by the operator that the record names."""
    make_run_folder(folders)
    metrics = "psnr,lr-psnr,squeezenet,psnr-mean,diversity,coverage,spectrum"
    found = run("--metrics", metrics, "--json", results="run")
    assert found.exit_code == 1  # one input has failed before
    document = json.loads(found.stdout)
    values = {row["metric"]: row["value"] for row in document["table"]}
    assert document["inputs"] == 4
    assert len(document["images"][0]["each"]["psnr"]) == 3
    assert values["psnr-mean"] > values["psnr"] + 2  # noise averages out: 4.8 dB less clipping
    assert 40 < values["lr-psnr"] < 60
    assert 0 < values["diversity"] < 100
    assert 30 < values["coverage"] < 100
    assert document["failed"] == [{"stem": "face4", "error": "no face was found", "hint": ""}]
    assert document["without_result"] == ["face5"]
    [calibration] = document["calibration"]
    assert calibration["levels"] == [0.5]
    assert sum(calibration["ranks"]) == pytest.approx(1)
    for name in ("perception.png", "calibration.png", "spectra.png"):
        with Image.open(folders / "run-eval" / name) as image:
            assert image.width > 600
        assert name in document["files"]


@pytest.mark.parametrize("record", ["result.json", "compare.json"])
def test_padding_counts_only_where_the_reference_has_it(run, folders, record):
    """The reference of an input that was not square: as large as the result, or as the input."""
    whole = np.array(Image.open(folders / "truth" / "face0.png"))
    result = noisy(whole, np.random.default_rng(2))
    grid = {"side": 12, "rows": [0, 12], "columns": [2, 10]}
    low = degrade(result.transpose(2, 0, 1), "bicubic", 8).transpose(1, 2, 0)[:, 2:10]
    document = {"operator": {"spec": "bicubic"}, "grid": grid}
    if record == "result.json":
        document |= {"status": "ok", "samples": [{"file": "sample.png"}]}
    else:
        document["methods"] = [
            {"method": "sample", "title": "", "file": "sample.png", "lr_psnr": 9}
        ]
    write(folders / "padded" / "face0" / "sample.png", result)
    write(folders / "low" / "face0.png", low)
    (folders / "padded" / "face0" / record).write_text(json.dumps(document))
    for truth, columns in ((whole, slice(0, 96)), (whole[:, 16:80], slice(16, 80))):
        write(folders / "truth" / "face0.png", truth)
        found = run("--metrics", "psnr,lr-psnr", "--lr", "low", "--json", results="padded")
        assert found.exit_code == 0, found.output
        values = json.loads(found.stdout)["images"][0]["values"]
        error = result[:, columns].astype(float) - whole[:, columns]
        assert values["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))
        assert values["lr-psnr"] > 55  # of the whole result: the part alone has other borders
    write(folders / "truth" / "face0.png", whole[:, 15:79, :][:88])
    found = run("--metrics", "psnr", "--lr", "low", results="padded")
    assert found.exit_code == 1
    assert "has 96x96 px, its reference truth/face0.png 64x88 px" in found.stderr


def test_lr_consistency_of_pictures(run, folders):
    for i in range(6):
        with Image.open(folders / "truth" / f"face{i}.png") as image:
            low = degrade(np.array(image).transpose(2, 0, 1), "bicubic", 8)
        write(folders / "low" / f"face{i}.png", low.transpose(1, 2, 0))
    words = "--metrics", "lr-psnr", "--lr", "low", "--operator", "bicubic", "--json"
    [row] = json.loads(run(*words).stdout)["table"]
    assert row["inputs"] == 6
    assert 40 < row["value"] < 65
    alone = run("--metrics", "psnr", "--operator", "bicubic")
    assert alone.exit_code == 2
    assert "--lr" in alone.stderr


def test_groups(run, folders):
    """Of two columns of labels; a measurement is none; files are told apart by their folder."""
    rng = np.random.default_rng(3)
    truth = smooth(SIDE, SIDE)
    for i in range(24):
        write(folders / "truth" / f"face{i}.png", truth)
        write(folders / "results" / f"face{i}.png", noisy(truth, rng, 6 if i < 12 else 9))
    lines = ["set,file,kind,sharpness"]
    lines += [f"truth,face{i}.jpg,{'few' if i < 12 else 'much'},{i}.5" for i in range(23)]
    lines += ["other,face0.jpg,much,7", "truth,face23.jpg,,1"]
    (folders / "labels.csv").write_text("\n".join(lines))
    found = run("--metrics", "psnr,niqe-set", "--by", "labels.csv")
    assert found.exit_code == 0
    assert "few (12)" in found.stdout
    assert "much (11)" in found.stdout
    assert "largest gap of PSNR" in found.stdout
    document = json.loads((folders / "results-eval" / "metrics.json").read_text())
    assert list(document["groups"]) == ["kind"]
    values = {row["stem"]: row["values"]["psnr"] for row in document["images"]}
    wanted = {
        "few": np.mean([values[f"face{i}"] for i in range(12)]),
        "much": np.mean([values[f"face{i}"] for i in range(12, 23)]),
    }
    groups = {k: v["table"][0]["value"] for k, v in document["groups"]["kind"].items()}
    assert groups == pytest.approx(wanted)
    gap = document["gaps"]["kind"]["psnr"]
    assert (gap["least"], gap["most"]) == ("much", "few")
    assert gap["value"] == pytest.approx(wanted["few"] - wanted["much"])
    assert gap["by_chance"] < gap["low"] < gap["value"] < gap["high"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,kind\nface0,a\nface1,a\n", "makes no groups"),
        ("file\nface0\n", "one of files and one of labels"),
        ("file,kind\nface0,a\nface0,b\nface1,b\n", "2 different rows for face0"),
    ],
)
def test_labels_that_make_no_groups(run, folders, text, message):
    (folders / "labels.csv").write_text(text)
    found = run("--metrics", "psnr", "--by", "labels.csv")
    assert found.exit_code == 2
    assert message in found.stderr


def test_groups_whose_pictures_can_not_be_read(run, folders):
    """What was measured is written: the other group alone, its inputs counted anew."""
    lines = [f"face{i}.png,{'ab'[i % 2]}" for i in range(6)]
    (folders / "labels.csv").write_text("file,kind\n" + "\n".join(lines))
    for i in (0, 2, 4):
        (folders / "results" / f"face{i}.png").write_bytes(b"no picture")
    found = run("--metrics", "psnr", "--by", "labels.csv", "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert list(document["groups"]["kind"]) == ["b"]
    assert document["groups"]["kind"]["b"]["table"][0]["value"] == document["table"][0]["value"]
    assert document["gaps"] == {"kind": {}}


def test_the_page_has_tables_and_plots(run, folders):
    """What came from outside is text there; nothing is loaded from elsewhere."""
    lines = [f"face{i}.png,{'<i>' if i % 2 else 'b'}" for i in range(6)]
    (folders / "labels.csv").write_text("file,kind\n" + "\n".join(lines))
    (folders / "results" / "face0.png").rename(folders / "results" / "<b>.png")
    run("--metrics", "psnr,squeezenet,frechet", "--by", "labels.csv")
    out = folders / "results-eval"
    page = (out / "index.html").read_text()
    document = json.loads((out / "metrics.json").read_text())
    for text in (
        "RGB, no crop, 8 bits, peak 255, mean over images",
        f"{document['table'][0]['value']:.4g} dB",
        "skipped: it needs 513 images in each set",
        "&lt;i&gt; (3)",
        "<summary>1 results have no reference</summary>",
        "&lt;b&gt;",
    ):
        assert text in page
    assert "<i>" not in page
    assert "index.html" in document["files"]
    plot = base64.b64encode((out / "perception.png").read_bytes()).decode()
    assert f'src="data:image/png;base64,{plot}"' in page
    assert "http" not in page
    assert run("--metrics", "psnr").exit_code == 1  # the page is ours to write again


def test_what_does_not_match_is_named(run, folders):
    (folders / "results" / "face0.png").rename(folders / "results" / "other.png")
    write(folders / "results" / "face1.png", smooth(64, 80))
    (folders / "results" / "face2.png").write_bytes(b"no picture")
    found = run("--metrics", "psnr")
    assert found.exit_code == 1
    assert "1 results have no reference: other" in found.stderr
    assert "1 references have no result: face0" in found.stderr
    assert "has 80x64 px, its reference truth/face1.png 96x96 px" in found.stderr
    assert "face2.png is not an image" in found.stderr
    assert "3 inputs measured" in found.stderr


@pytest.mark.parametrize(
    ("words", "results", "message"),
    [
        (["--metrics", "psnrr"], "results", "did you mean 'psnr'?"),
        (["-o", "results"], "results", "results lies where the results go"),
        ([], "nowhere", "RESULT_DIR expects a folder that exists, got 'nowhere'"),
        (["--crop", "-1"], "results", "--crop expects a whole number from 0 to 4096"),
        (["--by", "none.csv"], "results", "--by expects a CSV file"),
    ],
)
def test_calls_that_are_wrong(run, words, results, message):
    found = run(*words, results=results)
    assert found.exit_code == 2
    assert message in found.stderr


def test_no_stem_in_common(run, folders):
    for path in list((folders / "truth").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    found = run()
    assert found.exit_code == 2
    assert "(face0, face1, face2, ... against xface0, xface1, xface2, ...)" in found.stderr


def test_names_of_any_length_are_those_that_results_have(run, folders):
    """Results of long names are cut: 250 letters of the reference are still the same picture."""
    written = []
    for i in range(6):
        name = f"{i}" + "n" * 245
        (folders / "truth" / f"face{i}.png").rename(folders / "truth" / f"{name}.png")
        written.append(f"{name}.png,{'ab'[i % 2]}")
        cut = clean_stem(f"{name}.png")
        assert len(cut) == 200
        (folders / "results" / f"face{i}.png").rename(folders / "results" / f"{cut}.png")
    (folders / "labels.csv").write_text("file,group\n" + "\n".join(written))
    found = run("--metrics", "psnr", "--by", "labels.csv", "--json", "-o", "out")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert len(document["images"]) == 6
    assert not document["without_reference"]


def test_two_pictures_of_one_stem(run, folders):
    write(folders / "results" / "face0.bmp", smooth(SIDE, SIDE))
    found = run()
    assert found.exit_code == 2
    assert "face0.bmp and face0.png: two pictures named face0" in found.stderr


def test_weights_that_are_missing(run, folders):
    """File, address, checksum and folder; nothing takes the place of the metric."""
    (folders / "weights").mkdir()
    words = "--metrics", "lpips-alex,dists,fid", "--weights", "weights"
    found = run(*words)
    assert found.exit_code == 3
    for text in (
        "alexnet-owt-7be5be79.pth are missing in weights",
        "https://download.pytorch.org/models/vgg16-397923af.pth (553 MB, sha256 begins with 397",
        "inception-2015-12-05.pt are missing in weights",
        "put the file into weights",
    ):
        assert text in found.stdout
    document = json.loads((folders / "results-eval" / "metrics.json").read_text())
    assert [row["value"] for row in document["table"]] == [None, None, None]


def test_too_few_images_for_a_frechet_distance(run):
    found = run("--metrics", "frechet,kernel", "--json")
    frechet, kernel = json.loads(found.stdout)["table"]
    assert frechet["value"] is None
    assert "needs 513 images in each set" in frechet["skipped"]
    assert "there are 6" in frechet["skipped"]
    assert kernel["value"] > 0


def test_files_of_others_are_left_alone(run, folders):
    (folders / "out").mkdir()
    (folders / "out" / "metrics.csv").write_text("mine")
    found = run("--metrics", "psnr", "-o", "out")
    assert found.exit_code == 2
    assert (folders / "out" / "metrics.csv").read_text() == "mine"
    assert run("--metrics", "psnr,squeezenet", "-o", "again").exit_code == 0
    assert (folders / "again" / "perception.png").exists()
    assert run("--metrics", "psnr", "-o", "again").exit_code == 0
    assert not (folders / "again" / "perception.png").exists()


def test_a_dry_run_writes_nothing(run, folders):
    found = run("--dry-run", "--json")
    assert found.exit_code == 0
    document = json.loads(found.stdout)
    assert document["inputs"] == [f"face{i}" for i in range(6)]
    assert document["settings"]["convention"] == "RGB, no crop"
    assert not (folders / "results-eval").exists()


def test_the_same_call_gives_the_same_numbers(run, folders):
    first = json.loads(run("--metrics", "psnr,sliced-wasserstein,kernel", "--json").stdout)
    second = json.loads(run("--metrics", "psnr,sliced-wasserstein,kernel", "--json").stdout)
    assert first["table"] == second["table"]


@pytest.mark.parametrize("side", [1, 7, 33])
def test_all_metrics_of_flat_pictures(run, folders, side):
    """Every metric has a number or says why it has none; identical pictures count as 200 dB."""
    for i in range(6):
        flat = np.full((side, side + 2, 3), 40 * i, np.uint8)
        for name in ("truth", "results"):
            write(folders / name / f"face{i}.png", flat)
    found = run("--json")
    assert found.exit_code == 0, found.output
    rows = {row["metric"]: row for row in json.loads(found.stdout)["table"]}
    assert rows["psnr"]["value"] == 200
    assert rows["squeezenet"]["value"] == 0
    assert all((row["value"] is None) == bool(row["skipped"]) for row in rows.values())
    assert rows["brisque"]["skipped"].startswith("BRISQUE")
    if side < 11:
        assert "SSIM needs images of 11 px" in rows["ssim"]["skipped"]


@pytest.mark.parametrize("side", [1, 7, 33])
def test_metrics_of_samples_of_flat_pictures(run, folders, side):
    """Two samples of each input that are the truth: no diversity, no distance, all of it held."""
    for i in range(6):
        flat = np.full((side, side, 3), 40 * i, np.uint8)
        write(folders / "truth" / f"face{i}.png", flat)
        for name in ("sample_00.png", "sample_01.png"):
            write(folders / "run" / f"face{i}" / name, flat)
        record = {"status": "ok", "samples": [{"file": f"sample_0{k}.png"} for k in range(2)]}
        (folders / "run" / f"face{i}" / "result.json").write_text(json.dumps(record))
    found = run("--metrics", "psnr-mean,diversity,pixel-distance,coverage", "--json", results="run")
    assert found.exit_code == 0, found.output
    rows = {row["metric"]: row for row in json.loads(found.stdout)["table"]}
    assert rows["psnr-mean"]["value"] == 200
    assert rows["pixel-distance"]["value"] == 0
    assert rows["coverage"]["value"] == 100
    assert rows["diversity"]["value"] == 0


def test_pictures_of_several_sizes(run, folders):
    """Metrics of images take them; those that need one size say so."""
    write(folders / "truth" / "face0.png", smooth(120, 97))
    write(folders / "results" / "face0.png", smooth(120, 97))
    found = run("--metrics", "psnr,ssim,brisque,kernel,spectrum,sliced-wasserstein", "--json")
    rows = {row["metric"]: row for row in json.loads(found.stdout)["table"]}
    assert [rows[name]["inputs"] for name in ("psnr", "ssim", "brisque", "kernel")] == [6] * 4
    for name in ("spectrum", "sliced-wasserstein"):
        assert rows[name]["skipped"].endswith("there are 96x96 and 97x120")


def test_a_picture_without_a_number_is_named(run, folders):
    """By metrics of images, which go without it, and by those of sets, which have none then."""
    for name in ("truth", "results"):
        write(folders / name / "face4.png", smooth(5, 5))
    ssim, spectrum = json.loads(run("--metrics", "ssim,spectrum", "--json").stdout)["table"]
    assert ssim["inputs"] == 5
    assert spectrum["value"] is None
    for row in (ssim, spectrum):
        assert row["skipped"].startswith("1 of 6 inputs, the first is face4: ")


def test_a_folder_of_upscale(run, folders):
    """Pictures beside records and a manifest, which tells what failed."""
    rows = [{"stem": f"face{i}", "path": "x", "status": "ok"} for i in range(6)]
    rows.append({"stem": "lost", "path": "y", "status": "failed", "error": "y is empty"})
    (folders / "results" / "manifest.json").write_text(json.dumps(rows))
    (folders / "results" / "face0.json").write_text("{}")
    found = run("--metrics", "psnr", "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["inputs"] == 6
    assert document["failed"] == [{"stem": "lost", "error": "y is empty", "hint": ""}]


@pytest.fixture
def compared(folders):
    """What `compare` leaves: two pictures of each input, of which its record names the methods."""
    for i in range(4):
        folder = folders / "compared" / f"face{i}"
        folder.mkdir(parents=True)
        (folders / "results" / f"face{i}.png").rename(folder / "sample.png")
        write(folder / "nearest.png", smooth(SIDE, SIDE))
        methods = [
            {"method": name, "title": name, "file": f"{name}.png", "lr_psnr": 40.0}
            for name in ("nearest", "sample")
        ]
        record = {"operator": {"spec": "bicubic"}, "methods": methods}
        (folder / "compare.json").write_text(json.dumps(record))
    return folders


def test_a_folder_of_compare(run, compared):
    sample = json.loads(run("--metrics", "psnr", "--json", results="compared").stdout)
    assert sample["images"][0]["samples"] == ["compared/face0/sample.png"]
    words = "--metrics", "psnr", "--picture", "nearest", "--json"
    nearest = json.loads(run(*words, results="compared").stdout)
    assert nearest["inputs"] == 4
    assert nearest["images"][0]["values"]["psnr"] == 200
    (compared / "compared" / "face1" / "compare.json").write_text("{}")
    found = run("--metrics", "psnr", "--json", results="compared")
    assert found.exit_code == 1
    assert "face1/compare.json is damaged" in json.loads(found.stdout)["failed"][0]["error"]


def test_a_picture_that_there_is_not(run, compared):
    found = run("--picture", "none", results="compared")
    assert found.exit_code == 1
    assert "compare.json has no picture 'none' (nearest, sample)" in found.stderr
    found = run("--picture", "nearest")
    assert found.exit_code == 2
    assert "results has no */compare.json" in found.stderr


def test_samples_that_were_gathered_in_a_folder(run, folders):
    """Pictures of this program are results too, beside other files and subfolders."""
    own = PngInfo()
    own.add_text(OWN_MARK, "{}")
    for path in (folders / "results").iterdir():
        with Image.open(path) as image:
            image.save(path, pnginfo=own)
    (folders / "results" / "notes.txt").write_text("x")
    found = run("--metrics", "psnr", "-o", "results/eval")
    assert found.exit_code == 0
    assert found.stderr == "6 inputs measured; tables and plots in results/eval\n"
    found = run("--metrics", "psnr", results="results/eval")
    assert found.exit_code == 2
    assert "has no images" in found.stderr


def test_the_folder_of_one_input(run, folders, monkeypatch):
    make_run_folder(folders)
    monkeypatch.chdir(folders / "run" / "face2")
    words = "eval", ".", "--reference", "../../truth", "--metrics", "psnr", "--json", "-o", "../out"
    document = json.loads(CliRunner().invoke(main, words).stdout)
    assert [row["stem"] for row in document["images"]] == ["face2"]


def test_a_run_folder_without_a_whole_record(run, folders):
    make_run_folder(folders)
    for path in (folders / "run").glob("*/result.json"):
        path.write_text("{")
    found = run(results="run")
    assert found.exit_code == 1
    assert "run holds no pictures to measure: run/face0/result.json is damaged" in found.stderr


@pytest.mark.parametrize("text", ["[]", "{", '{"status": "ok", "samples": 3}', '{"status": "ok"}'])
def test_a_damaged_record_fails_its_input_alone(run, folders, text):
    make_run_folder(folders)
    (folders / "run" / "face1" / "result.json").write_text(text)
    found = run("--metrics", "psnr", "--json", results="run")
    document = json.loads(found.stdout)
    assert found.exit_code == 1
    assert document["inputs"] == 3
    assert [row["stem"] for row in document["failed"]] == ["face1", "face4"]
    assert "result.json is damaged" in document["failed"][0]["error"]


def test_the_bar_of_a_terminal():
    assert progress_bar(0, 8, 0.0) == f"[{'-' * 24}] 0/8, 0 s left"
    assert progress_bar(2, 8, 10.0) == f"[{'#' * 6}{'-' * 18}] 2/8, 30 s left"
    assert progress_bar(1, 100, 10.0).endswith("1/100, 16 min left")
