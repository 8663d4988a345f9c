"""The folder of one input: files, numbers, marks, and which folder belongs to which input."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import fake_search
import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.config import SearchConfig
from pulse_sr.errors import SetupError
from pulse_sr.images.read import read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import put_rows, read_rows
from pulse_sr.jobs.stems import assign_stems
from pulse_sr.jobs.task import fingerprint
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.operators.building import make_operator


def result_of(path, samples=3, indices=None, **options):
    config = SearchConfig(samples=samples, **options)
    wanted = range(samples) if indices is None else indices
    return fake_search.search(read_image(path), fake_search.PRIOR, config, list(wanted))


def read_float(path):
    return np.asarray(Image.open(path), dtype=np.float64).transpose(2, 0, 1) / 255


def test_save_writes_the_documented_files(face, tmp_path):
    folder = result_of(face("x.png")).save(tmp_path / "out")
    assert folder == tmp_path / "out" / "x"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["input.png", "mean.png", "std.png", "interval.png", "disagreement.png", "grid.png"]
        + ["result.json"]
        + [f"sample_{i:02d}.png" for i in range(3)]
    )
    assert (tmp_path / "out" / "index.html").is_file()
    [row] = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"stem", "path", "sha256", "status", "seconds"} <= set(row)
    assert row["status"] == "ok"


@pytest.mark.parametrize("size", [(16, 16), (16, 10), (7, 16)])
def test_numbers_equal_what_the_files_say(face, tmp_path, size):
    """Independent: PSNR from the definition, the operator as a plain matrix product."""
    folder = result_of(face("x.png", size=size)).save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    low = read_float(folder / "input.png")
    assert low.shape[1:] == size[::-1]
    A = make_operator("bicubic", 16, 64).vertical.numpy()
    top, left = (16 - size[1]) // 2, (16 - size[0]) // 2
    for entry in document["samples"]:
        high = read_float(folder / entry["file"])
        assert high.shape == (3, 64, 64)
        down = (A @ high @ A.T)[:, top : top + size[1], left : left + size[0]]
        db = -10 * math.log10(np.mean((down - low) ** 2))
        assert entry["lr_psnr"] == pytest.approx(db, abs=1e-4)  # written to 1e-4 dB
        assert entry["status"] == ("ok" if db >= 45 else "below_target")
        assert entry["lr_psnr"] == float(
            Image.open(folder / entry["file"]).text["pulse-sr:lr_psnr"]
        )
    stack = np.stack([read_float(folder / each["file"]) for each in document["samples"]])
    assert document["diversity"]["pixel_std"] == pytest.approx(stack.std(0).mean(), abs=1e-6)
    gaps = [np.sqrt(np.mean((stack[a] - stack[b]) ** 2)) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert document["diversity"]["min_pair_rms"] == pytest.approx(min(gaps), abs=1e-6)
    width = (stack.max(0) - stack.min(0)).mean()  # three samples: the interval is their range
    assert document["diversity"]["interval_width"] == pytest.approx(width, abs=1e-6)
    assert document["diversity"]["interval_level"] == 0.9
    assert document["diversity"]["interval_coverage_at_most"] == 0.5
    # Rounding to 8 bits: half a step.
    assert np.abs(read_float(folder / "mean.png") - stack.mean(0)).max() <= 0.5 / 255 + 1e-9


def test_result_json_has_the_documented_keys(face, tmp_path):
    folder = result_of(face("x.png")).save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert document["schema"] == 1
    assert document["version"] == "0.1.0"
    assert document["input"]["path"].endswith("x.png")
    assert {k: document["input"][k] for k in ("width", "height", "mode")} == {
        "width": 16,
        "height": 16,
        "mode": "RGB",
    }
    assert document["operator"] == {"spec": "bicubic", "scale": 4, "chosen_by": "option"}
    assert document["prior"]["name"] == "fake-64"
    assert document["options"]["steps"] == 100
    assert document["options"]["project"] == "exact"
    assert set(document["timing"]) == {"load_s", "search_s", "write_s"}
    assert {"method", "seed", "device", "torch"} <= set(document)
    assert document["arithmetic"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert document["arithmetic"]["threads"] == torch.get_num_threads()
    assert all(document["arithmetic"].values())
    keys = {"file", "seed", "status", "steps", "lr_psnr_search", "lr_psnr", "hr_rms_change"}
    assert all(keys <= set(entry) for entry in document["samples"])


def test_a_poor_sample_is_written_and_marked(face, tmp_path):
    result = result_of(face("x.png"), samples=2)
    result.samples_list[1].pixels[:] = 128
    folder = result.save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert [entry["status"] for entry in document["samples"]] == ["ok", "below_target"]
    assert document["status"] == "below_target"
    assert (folder / "sample_01.png").is_file()


def test_one_sample_has_no_pair(face, tmp_path):
    folder = result_of(face("x.png"), samples=1).save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert document["diversity"] == {
        "pixel_std": 0.0,
        "min_pair_rms": None,
        "interval_level": 0.9,
        "interval_width": 0.0,
        "interval_coverage_at_most": 0.0,
    }


def test_pictures_carry_the_marks(face, tmp_path):
    folder = result_of(face("x.png")).save(tmp_path / "out")
    names = ("mean.png", "std.png", "interval.png", "disagreement.png", "grid.png")
    for name in ("sample_00.png", *names):
        picture = Image.open(folder / name)
        assert picture.mode == "RGB"
        assert picture.text["Comment"] == (
            "synthetic face: a plausible reconstruction, not the person"
        )
        assert picture.text["Software"].startswith("pulse-sr")
        assert "trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]
        assert "Iptc4xmpExt:DigitalSourceType" in picture.text["XML:com.adobe.xmp"]
        settings = json.loads(picture.text["pulse-sr:settings"])
        assert settings["method"] == "phased"
        assert settings["prior_sha256"] == "f" * 64
    assert "Comment" not in Image.open(folder / "input.png").text  # the input is no synthetic face


def test_equal_searches_give_equal_bytes_wherever_they_lie(face, tmp_path):
    one = result_of(face("a/x.png", seed=3)).save(tmp_path / "one")
    two = result_of(face("b/other.png", seed=3)).save(tmp_path / "two")
    for path in sorted(one.glob("*.png")):
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_more_samples_leave_the_first_untouched(face, tmp_path):
    path = face("x.png")
    out = tmp_path / "out"
    folder = result_of(path, samples=4).save(out)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.glob("sample_*")}
    result_of(path, samples=8, indices=[4, 5, 6, 7]).save(out)
    for name, (content, changed) in before.items():
        assert (folder / name).read_bytes() == content
        assert (folder / name).stat().st_mtime_ns == changed
    whole = result_of(path, samples=8).save(tmp_path / "whole")
    for picture in sorted(whole.glob("*.png")):
        assert picture.read_bytes() == (folder / picture.name).read_bytes(), picture.name


def test_other_settings_remove_the_old_samples(face, tmp_path):
    path = face("x.png")
    folder = result_of(path, samples=4).save(tmp_path / "out")
    (folder / "mine.txt").write_text("a file of the user")
    result_of(path, samples=2, seed=5).save(tmp_path / "out")
    assert sorted(each.name for each in folder.glob("sample_*")) == [
        "sample_00.png",
        "sample_01.png",
    ]
    assert (folder / "mine.txt").exists()


@pytest.mark.parametrize("lost", ["result.json", "grid.png", "input.png"])
def test_a_folder_without_all_its_files_is_incomplete(face, tmp_path, lost):
    result = result_of(face("x.png"))
    folder = result.save(tmp_path / "out")
    mark = fingerprint(result.observation.sha256, result.prior_sha256, result.config)
    assert store.done_indices(folder, mark) == (0, 1, 2)
    (folder / lost).unlink()
    assert store.done_indices(folder, mark) == ()


def test_a_lost_sample_is_the_only_one_missing(face, tmp_path):
    result = result_of(face("x.png"))
    folder = result.save(tmp_path / "out")
    mark = fingerprint(result.observation.sha256, result.prior_sha256, result.config)
    (folder / "sample_01.png").unlink()
    assert store.done_indices(folder, mark) == (0, 2)


def test_damaged_json_counts_as_missing(face, tmp_path):
    result = result_of(face("x.png"))
    folder = result.save(tmp_path / "out")
    (folder / "result.json").write_text('{"schema": 1, "sam')
    mark = fingerprint(result.observation.sha256, result.prior_sha256, result.config)
    assert store.done_indices(folder, mark) == ()


def test_the_record_is_written_last(face, tmp_path, monkeypatch):
    def break_down(*_):
        raise SetupError("the disk is full")

    monkeypatch.setattr(store, "write_pictures", break_down)
    with pytest.raises(SetupError):
        result_of(face("x.png")).save(tmp_path / "out")
    assert (tmp_path / "out" / "x" / "sample_00.png").is_file()
    assert not (tmp_path / "out" / "x" / "result.json").exists()


def distances_of(folder):
    """Independent: one pair at a time."""
    files = sorted(folder.glob("sample_*.png"))
    images = [torch.from_numpy(read_float(path))[None].float() for path in files]
    d = np.zeros((len(files), len(files)))
    for i, j in combinations(range(len(files)), 2):
        d[i, j] = d[j, i] = feature_distance(images[i], images[j]).item()
    return d


def test_the_covering_order_is_recorded_and_moves_no_file(face, tmp_path):
    path = face("x.png")
    plain = result_of(path, samples=4).save(tmp_path / "plain")
    folder = result_of(path, samples=4).save(tmp_path / "out", cluster=True)
    document = json.loads((folder / "result.json").read_text())
    d = distances_of(folder)
    order = document["cluster"]["order"]
    assert order[0] == document["cluster"]["typical"] == d.sum(1).argmin()
    for k in range(1, 4):
        left = d[order[:k]].min(0)
        assert left[order[k]] == pytest.approx(left.max(), abs=1e-5)
        assert document["cluster"]["radii"][k - 1] == pytest.approx(left.max(), abs=1e-4)
    assert [each["index"] for each in document["samples"]] == list(range(4))
    for picture in sorted(plain.glob("*.png")):
        same = picture.read_bytes() == (folder / picture.name).read_bytes()
        assert same == (picture.name != "grid.png"), picture.name


def test_the_order_of_a_complete_folder_is_set_and_unset(face, tmp_path):
    path = face("x.png")
    clustered = result_of(path, samples=3).save(tmp_path / "clustered", cluster=True)
    folder = result_of(path, samples=3).save(tmp_path / "out")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    store.set_order(folder, cluster=True)
    assert (folder / "grid.png").read_bytes() == (clustered / "grid.png").read_bytes()
    both = [json.loads((each / "result.json").read_text()) for each in (folder, clustered)]
    assert both[0]["cluster"] == both[1]["cluster"]
    store.set_order(folder, cluster=False)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_setting_an_order_that_is_there_writes_nothing(face, tmp_path):
    folder = result_of(face("x.png"), samples=3).save(tmp_path / "out", cluster=True)
    before = {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}
    store.set_order(folder, cluster=True)
    assert {each.name: each.stat().st_mtime_ns for each in folder.iterdir()} == before


def test_stems_are_unique_and_stay(tmp_path):
    inputs = [
        (tmp_path / name, name) for name in ("a/x.png", "b/x.jpg", "c/X.png", "x-2.png", "d/y.png")
    ]
    stems = assign_stems(tmp_path, inputs)
    assert stems == ["x", "x-2", "X-3", "x-2-2", "y"]
    for i in (1, 4):  # what one of several shards has done
        path, sha256 = inputs[i]
        put_rows(tmp_path, [{"stem": stems[i], "path": str(path), "sha256": sha256}])
    assert assign_stems(tmp_path, inputs) == stems
    assert assign_stems(tmp_path, inputs[1:2]) == ["x-2"]
    assert assign_stems(tmp_path, inputs[:1]) == ["x"]


def test_a_moved_input_keeps_its_folder(face, tmp_path):
    path = face("a/x.png")
    result_of(path).save(tmp_path / "out")
    moved = tmp_path / "b" / "x.png"
    moved.parent.mkdir()
    path.rename(moved)
    sha256 = read_image(moved).sha256
    assert assign_stems(tmp_path / "out", [(moved, sha256)]) == ["x"]
    assert assign_stems(tmp_path / "out", [(moved, "another")]) == ["x-2"]


def test_a_name_can_not_replace_the_manifest(tmp_path):
    assert assign_stems(tmp_path, [(Path("manifest.json.png"), "1")]) == ["manifest.json-2"]
    assert assign_stems(tmp_path, [(Path("..png"), "1")]) != ["."]


def test_rows_are_replaced_by_stem(tmp_path):
    put_rows(tmp_path, [{"stem": "b", "status": "failed"}])
    put_rows(tmp_path, [{"stem": "a", "status": "ok"}])
    put_rows(tmp_path, [{"stem": "b", "status": "ok"}])
    assert read_rows(tmp_path) == [{"stem": "a", "status": "ok"}, {"stem": "b", "status": "ok"}]


def test_result_properties_are_torch_tensors(face):
    result = result_of(face("x.png"))
    assert result.samples.shape == (3, 3, 64, 64)
    assert result.samples.dtype == torch.float32
    assert 0 <= float(result.samples.min()) <= float(result.samples.max()) <= 1
    stack = np.stack([sample.pixels for sample in result.samples_list]) / 255.0
    assert np.allclose(result.mean.numpy(), stack.mean(0), atol=1e-6)
    assert np.allclose(result.std.numpy(), stack.std(0), atol=1e-6)
    assert result.lr_psnr == [sample.lr_psnr for sample in result.samples_list]
    low, high = result.interval()
    assert np.allclose(low.numpy(), stack.min(0), atol=1e-6)
    assert np.allclose(high.numpy(), stack.max(0), atol=1e-6)
    low, high = result.interval(0.25)  # of three: at the places 1.5 and 2.5
    wanted = np.quantile(stack, [0.375, 0.625], axis=0, method="weibull")
    assert np.allclose(torch.stack([low, high]).numpy(), wanted, atol=1e-6)
    assert sorted(result.covering.order) == [0, 1, 2]
