"""Nothing of the user's is touched: inputs where results go are refused, other files stay."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_search import PRIOR, make_face, search
from PIL import Image
from test_read_back import MAKERS, files_of, lines_about, model, prior_file, run  # noqa: F401

from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, UsageError
from pulse_sr.images.read import read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.checking import write_check
from pulse_sr.models import registry

MINE = b"the user's own"


@pytest.fixture
def here(tmp_path, monkeypatch, fake_api):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_refused(result, folder, before, code=2):
    """One line, the code, and every byte as it was."""
    assert result.exit_code == code, result.output
    assert len(lines_about(result, "error: ")) == 1
    assert "unexpected" not in result.output
    assert files_of(folder) == before


# --------------------------------------------------------------------------------------------------
# Inputs


#: Command -> what it is told of an input, and where below OUT an input could be replaced.
INPUTS = {
    "run": (["run", "--samples", "1", "--steps", "1", "--align", "never"], ["a", "a/steps"]),
    "compare": (["compare", "--samples", "1", "--steps", "1"], ["", "a", "other"]),
    "upscale": (["upscale", "--device", "cpu"], [""]),
    "align": (["align", "--size", "16", "--lr", "8,4"], ["", "lr_8", "lr_4", "report"]),
}


@pytest.mark.parametrize("linked", ["plain", "input linked", "folder linked", "out linked"])
@pytest.mark.parametrize(
    ("command", "place"),
    [(name, place) for name, (_, places) in INPUTS.items() for place in places],
)
def test_an_input_where_results_go_is_refused(here, command, place, linked):
    """Also through links, and in `--dry-run`."""
    picture, out = make_face(here / "out" / place / "a.png"), Path("out")
    given = picture.relative_to(here)
    if linked == "input linked":
        (here / "elsewhere").mkdir()
        given = here / "elsewhere" / "a.png"
        given.symlink_to(picture)
    elif linked == "folder linked":
        (here / "way").symlink_to(picture.parent)
        given = Path("way", "a.png")
    elif linked == "out linked":
        (here / "linked").symlink_to(here / "out")
        out = Path("linked")
    before = files_of(here)
    for dry in ([], ["--dry-run"]):
        words, _ = INPUTS[command]
        check_refused(run(*words, given, "-o", out, *dry), here, before)


@pytest.mark.parametrize("command", ["run", "compare", "upscale", "align"])
def test_a_link_in_the_place_of_results_is_refused(here, command):
    """The input lies elsewhere, but where it is named a result could take the place of the link."""
    places = INPUTS[command][1]
    picture = make_face(here / "elsewhere" / "a.png")
    link = here / "out" / places[0] / "a.png"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(picture)
    before = files_of(here)
    check_refused(run(*INPUTS[command][0], link, "-o", "out"), here, before)
    assert link.is_symlink()


def test_the_picture_that_was_overwritten(here):
    """A folder of the name of the input, with files of the names of results."""
    make_face(here / "mean" / "mean.png")
    make_face(here / "sample_old" / "sample_old.png", seed=1)
    before = files_of(here)
    for picture in ("mean/mean.png", "sample_old/sample_old.png"):
        check_refused(run("run", picture, "-o", ".", "--samples", "1"), here, before)


def test_an_input_that_is_the_folder_of_its_results_is_refused(here):
    make_face(here / "a.png").rename(here / "a")
    before = files_of(here)
    check_refused(run("run", "a", "-o", ".", "--samples", "1"), here, before)


def test_a_truth_where_results_go_is_refused(here):
    face, truth = make_face(here / "a.png"), make_face(here / "out" / "a" / "truth.png")
    before = files_of(here)
    check_refused(run("compare", face, "--truth", truth, "-o", "out"), here, before)


def test_degrade_does_not_replace_its_inputs(here):
    make_face(here / "a.png", size=(16, 16))
    (here / "b").mkdir()
    (here / "b" / "a.png").symlink_to(here / "a.png")
    before = files_of(here)
    for words in (("a.png", "-o", "."), ("b/a.png", "-o", "."), ("a.png", "-o", "b")):
        check_refused(run("degrade", *words, "--scale", "2"), here, before)


@pytest.mark.parametrize("results", ["out", "out/truth", "."])
def test_eval_does_not_write_around_its_inputs(here, results):
    make_face(here / "out" / "truth" / "a.png")
    make_face(here / "in" / "a.png")
    before = files_of(here)
    for words in (("in", "--reference", "out/truth"), ("out/truth", "--reference", "in")):
        check_refused(run("eval", *words, "-o", results, "--metrics", "psnr"), here, before)


@pytest.mark.parametrize("command", ["train-prior", "train-sr"])
@pytest.mark.parametrize("place", ["out", "out/data", "linked"])
def test_a_training_does_not_write_into_its_data(here, command, place):
    (here / "out").mkdir()
    (here / "linked").symlink_to(here / "out")
    for number in range(4):
        make_face(here / place / f"{number}.png", seed=number, size=(64, 64))
    before = files_of(here)
    more = ["--config", "compact-x4"] if command == "train-sr" else []
    check_refused(run(command, place, "-o", "out", *more), here, before)
    check_refused(run(command, place, "-o", "out", *more, "--dry-run"), here, before)


# --------------------------------------------------------------------------------------------------
# Files in the way


@pytest.fixture
def made(request, tmp_path, model, fake_api):  # noqa: F811  the fixture of the other file
    return MAKERS[request.param](tmp_path, model)


#: Command, a file that it would write, and the exit code of a call that meets the user's.
IN_THE_WAY = [
    *(("run", name, 2) for name in ("index.html", "manifest.json")),
    *(("run", f"a/{name}", 1) for name in ("input.png", "sample_00.png", "std.png", "mean.png/")),
    *(("run", f"a/{name}", 0) for name in ("result.json", "result.json/")),  # it goes to a-2
    ("run", "a", 1),
    *(("compare", f"a/{name}", 1) for name in ("compare.png", "nearest.png")),
    ("compare", "a/compare.json", 0),
    ("compare", "manifest.json", 2),
    *(
        ("upscale", name, code)
        for name, code in (("a.png", 1), ("a.json", 1), ("manifest.json", 2))
    ),
    *(("align", name, 1) for name in ("a.png", "a.json", "lr_8/a.png", "lr_8")),
    ("align", "manifest.json", 2),
    *(("eval", name, 2) for name in ("metrics.json", "metrics.csv", "images.csv", "spectra.png")),
]


@pytest.mark.parametrize(("made", "name", "code"), IN_THE_WAY, indirect=["made"])
def test_a_file_of_the_user_is_left_alone(made, name, code, tmp_path):
    file = made.out / name
    if name.endswith("/"):
        file.mkdir(parents=True)
        file = file / "inside.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"mine": true}' if file.suffix == ".json" else MINE)
    before = files_of(tmp_path)
    for _ in range(2):  # a failure that was written down changes nothing
        result = made.call()
        assert result.exit_code == code, result.output
        assert "unexpected" not in result.output
        assert len(lines_about(result, "error: ")) == (code > 0)
        after = files_of(tmp_path)
        assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("made", ["run", "compare", "upscale", "align", "eval"], indirect=True)
def test_other_files_stay_when_results_are_made_again(made, tmp_path):
    """Names as of results, of which no record speaks."""
    assert made.call().exit_code == 0
    names = ("sample_old.png", "sample_07.png", "photo_03.png", "sample_00_step_0000.png", "x.json")
    mine = [made.record.parent / name for name in names]
    for file in mine:
        file.write_bytes(MINE)
    result = run(*made.words, "--overwrite") if "eval" not in made.words else made.call()
    assert result.exit_code == 0, result.output
    assert [file.read_bytes() for file in mine] == [MINE] * len(mine)


@pytest.mark.parametrize(
    ("made", "folder"), [("run", "a"), ("compare", "a"), ("align", "lr_8")], indirect=["made"]
)
def test_nothing_is_written_through_a_link_out(made, folder, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "keep.txt").write_bytes(MINE)
    made.out.mkdir()
    (made.out / folder).symlink_to(target)
    result = made.call()
    assert result.exit_code == 1, result.output
    assert len(lines_about(result, "leads out of")) >= 1
    assert [path.name for path in target.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize("made", ["align"], indirect=True)
def test_nothing_is_removed_through_a_link_out(made, tmp_path):
    """The record names lr_8/a.png; what is there under that name now is the user's."""
    assert made.call().exit_code == 0
    target = tmp_path / "mine"
    shutil.move(made.out / "lr_8", target)
    (made.out / "lr_8").symlink_to(target)
    before = files_of(target)
    run(*made.words, "--overwrite")
    assert files_of(target) == before


def test_the_samples_of_fewer_are_removed_by_record(face, tmp_path):
    """Other settings: what the record named goes, nothing else."""
    picture, out = read_image(face("a.png")), tmp_path / "out"
    search(picture, PRIOR, SearchConfig(samples=3), range(3)).save(out)
    (out / "a" / "sample_09.png").write_bytes((out / "a" / "sample_00.png").read_bytes())
    search(picture, PRIOR, SearchConfig(samples=1, seed=1), range(1)).save(out)
    names = {path.name for path in (out / "a").glob("sample_*")}
    assert names == {"sample_00.png", "sample_09.png"}


def test_save_is_guarded_too(face, tmp_path):
    """The Python call refuses what the command does."""
    result = search(read_image(face("a.png")), PRIOR, SearchConfig(samples=1), range(1))
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "mean.png").write_bytes(MINE)
    with pytest.raises(InputError, match=r"mean\.png exists and was not made by pulse-sr"):
        result.save(out)
    inside = search(read_image(face("b/b.png")), PRIOR, SearchConfig(samples=1), range(1))
    with pytest.raises(UsageError, match="lies where the results go"):
        inside.save(tmp_path)
    assert files_of(out) == {out / "a" / "mean.png": MINE}


def test_a_killed_run_goes_on(face, tmp_path):
    """Pictures without a record are ours where they say so."""
    picture, out = read_image(face("a.png")), tmp_path / "out"
    result = search(picture, PRIOR, SearchConfig(samples=2), range(2))
    first = files_of(result.save(out).parent)
    for name in ("a/result.json", "manifest.json", "index.html"):
        (out / name).unlink()
    result.save(out)
    again = files_of(out)
    assert {p: b for p, b in again.items() if p.suffix == ".png"} == {
        p: b for p, b in first.items() if p.suffix == ".png"
    }


def test_the_steps_of_others_stay(face, tmp_path):
    from pulse_sr.jobs.steps import clear_steps, step_files

    steps = tmp_path / "steps"
    steps.mkdir()
    for name in ("sample_00_step_0000.png", "sample_00_step_x.png", "lr_psnr.csv", "notes.txt"):
        (steps / name).write_bytes(MINE)
    (tmp_path / "search.gif").write_bytes(MINE)
    before = files_of(tmp_path)
    clear_steps(tmp_path)
    assert files_of(tmp_path) == before
    with pytest.raises(InputError, match="was not made by pulse-sr"):
        store.check_place(tmp_path, step_files(tmp_path))


def test_licences_of_others_stay(tmp_path):
    from pulse_sr.jobs.aligning import copy_licences

    for folder, words in (("in", "A"), ("out", "B")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "LICENSE.txt").write_text(words)
    for _ in range(2):
        assert [each.name for each in copy_licences([str(tmp_path / "in")], tmp_path / "out")] == [
            "LICENSE-2.txt"
        ]
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert texts == {"LICENSE.txt": "B", "LICENSE-2.txt": "A"}


@pytest.mark.parametrize("operator", ["bicubic", "bicubic|jpeg:80"])
def test_degrade_replaces_its_own_files_alone(here, operator):
    make_face(here / "in" / "a.png")
    suffix = ".jpg" if "jpeg" in operator else ".png"
    words = ["degrade", "in", "-o", "out", "--operator", operator, "--scale", "2"]
    (here / "out").mkdir()
    target = here / "out" / f"a{suffix}"
    target.write_bytes(MINE)
    before = files_of(here)
    check_refused(run(*words), here, before, code=1)
    target.unlink()
    for scale in ("2", "4"):
        assert run(*words[:-1], scale).exit_code == 0
    with Image.open(target) as image:
        assert image.size == (4, 4)


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "log.jsonl", "curves.png"])
@pytest.mark.parametrize("command", ["train-prior", "train-sr"])
def test_a_training_leaves_a_folder_of_others_alone(here, command, name):
    for number in range(4):
        make_face(here / "data" / f"{number}.png", seed=number, size=(64, 64))
    (here / "out").mkdir()
    (here / "out" / name).write_bytes(MINE)
    before = files_of(here)
    more = ["--config", "compact-x4"] if command == "train-sr" else []
    check_refused(run(command, "data", "-o", "out", *more), here, before)


def test_a_check_of_data_leaves_files_of_others_alone(here):
    from pulse_sr.data.check import check_data

    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (here / "data").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(here / "data" / f"{number}.png")
    found, out = check_data(here / "data", 8), here / "out"
    out.mkdir()
    (out / "duplicates.png").write_bytes(MINE)
    with pytest.raises(UsageError, match="was not made by pulse-sr"):
        write_check(found, out)
    assert files_of(out) == {out / "duplicates.png": MINE}
    (out / "duplicates.png").unlink()
    for _ in range(2):
        write_check(found, out)
    assert (out / "check.json").is_file()


@pytest.mark.parametrize("linked", [False, True])
def test_only_imported_priors_are_removed(here, prior_file, monkeypatch, linked):  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    folder = registry.installed_folder() / "mine"
    folder.parent.mkdir(parents=True)
    own = here / "runs" if linked else folder
    own.mkdir()
    shutil.copy(prior_file, own / "model.safetensors")
    (own / "README.md").write_bytes(MINE)
    if linked:
        folder.symlink_to(own)
    before = files_of(here)
    check_refused(run("prior", "remove", "mine"), here, before)
    assert os.path.lexists(folder)


def test_an_import_writes_to_no_folder_with_files(here, prior_file):  # noqa: F811
    (here / "out").mkdir()
    (here / "out" / "README.md").write_bytes(MINE)
    before = files_of(here)
    check_refused(run("prior", "import", prior_file, "-o", "out"), here, before)


def test_a_record_of_others_keeps_its_folder(here):
    """The user's result.json stays, the results go to another folder."""
    face = make_face(here / "a.png")
    (here / "out" / "a").mkdir(parents=True)
    (here / "out" / "a" / "result.json").write_text('{"score": 3}')
    for more in ([], ["--retry-failed"], ["--overwrite"]):
        result = run("run", face, "-o", "out", "--samples", "1", "--align", "never", *more)
        assert result.exit_code == 0, result.output
        assert (here / "out" / "a-2" / "result.json").is_file()
    assert json.loads((here / "out" / "a" / "result.json").read_text()) == {"score": 3}
