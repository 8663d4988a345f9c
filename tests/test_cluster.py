"""`--engine ray`: the bytes of the local executor, and lost workers lose nothing.

One cluster of this machine with two CPUs serves all tests of the file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import ending_search
import fake_search
import pytest
from click.testing import CliRunner
from PIL import Image
from random_priors import random_stylegan2

from pulse_sr.cli import main
from pulse_sr.config import EngineOptions, SearchConfig
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.inversion.stream import search_images
from pulse_sr.jobs import searching
from pulse_sr.jobs.executors.choice import choose_executor
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import in_order

DATA = Path(__file__).parent / "data"
pytestmark = pytest.mark.xdist_group("ray")
RAY = ("--engine", "ray", "--workers", "2")


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two CPUs, to which the calls connect."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        # The stand-ins of the tests have to be found by the workers.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def two_workers(cluster):
    """The executor with two workers."""
    return choose_executor(EngineOptions(engine="ray", workers=2))


def contents(out):
    """The files of a run folder but its manifest and page; of a record what is not a time."""
    names = {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    files = {str(name): (out / name).read_bytes() for name in names - {Path("manifest.json")}}
    files.pop("index.html", None)
    for name in [name for name in files if name.endswith(".json")]:
        files[name] = {**json.loads(files[name]), "timing": None}
    return files


def rows(out):
    return [{**row, "seconds": 0} for row in json.loads((out / "manifest.json").read_text())]


def run(inputs, out, executor, search=ending_search.search, prior=fake_search.PRIOR, **options):
    config = SearchConfig(samples=2, **options)
    return list(searching.run(inputs, out, config, prior, search=search, executor=executor))


def test_the_search_of_workers_has_the_bytes_of_one_process(face, tmp_path, two_workers):
    prior = random_stylegan2(5, name="tiny", sha256="5" * 64)
    inputs = [face(f"{k}.png", k, size=(8, 8)) for k in range(5)]
    inputs.insert(2, tmp_path / "text.png")
    inputs[2].write_text("no picture")
    both = {}
    for name, executor in (("local", run_local), ("ray", two_workers)):
        records = run(inputs, tmp_path / name, executor, search_images, prior, steps=3, batch=2)
        both[name] = [(r.stem, r.status, r.samples, r.lowest_db, r.error) for r in records]
    assert both["local"] == both["ray"]
    assert [status for _, status, *_ in both["ray"]].count("failed") == 1
    assert len(contents(tmp_path / "ray")) > 5 * 4
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert rows(tmp_path / "local") == rows(tmp_path / "ray")
    assert (tmp_path / "ray" / "index.html").is_file()
    again = run(inputs, tmp_path / "ray", two_workers, search_images, prior, steps=3, batch=2)
    assert [r.status for r in again] == ["skipped"] * 2 + ["failed"] + ["skipped"] * 3


def test_a_lost_worker_loses_nothing_and_a_poisoned_input_fails_alone(face, tmp_path, two_workers):
    names = [f"{k}.png" for k in range(9)] + ["once.png", "poison.png"]
    inputs = [face(name, k) for k, name in enumerate(names)]
    records = run(inputs, tmp_path / "ray", two_workers)
    assert [r.path for r in records] == [str(path) for path in inputs]
    assert [r.status for r in records] == ["done"] * 10 + ["failed"]
    assert "poison.png ended its worker process 2 times" in records[-1].error
    assert (tmp_path / "once.noted").read_text() == "ended\n"
    run(inputs[:-1], tmp_path / "local", run_local)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert [row["status"] for row in rows(tmp_path / "ray")].count("failed") == 1
    # The next call leaves it alone until it is told to try again.
    ended = (tmp_path / "poison.noted").read_text()
    [*_, last] = run(inputs, tmp_path / "ray", two_workers)
    assert last.note.startswith("failed in an earlier run")
    assert (tmp_path / "poison.noted").read_text() == ended


@pytest.mark.parametrize("extra", [(), ("--skip-duplicates",)])
def test_align_finds_twins_in_the_order_of_the_inputs(tmp_path, monkeypatch, cluster, extra):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for k, which in enumerate("abaab"):
        shutil.copy(DATA / f"portrait_{which}.jpg", f"photos/{k}.jpg")
    Path("photos/9.jpg").write_bytes(b"no picture")
    for out, engine in (("local", ()), ("ray", RAY)):
        words = ["align", "photos", "-o", out, "--size", "64", *extra, *engine]
        result = CliRunner().invoke(main, words)
        assert (result.exit_code, "not an image" in result.output) == (1, True), result.output
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert rows(tmp_path / "local") == rows(tmp_path / "ray")
    crops = len(list((tmp_path / "ray").glob("*.png")))
    assert crops == (2 if extra else 5)


def test_upscale_and_compare_have_the_same_engine(tmp_path, monkeypatch, face, cluster):
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        face(f"in/{k}.png", k)
    for command in (
        ("upscale", "in", "--tile", "32"),
        ("compare", "in", "--samples", "1", "--steps", "1"),
    ):
        for out, engine in (("local", ()), ("ray", RAY)):
            result = CliRunner().invoke(main, [*command, "-o", f"{command[0]}-{out}", *engine])
            assert result.exit_code == 0, result.output
        local, ray = (contents(tmp_path / f"{command[0]}-{out}") for out in ("local", "ray"))
        assert local == ray
        assert Image.open(next((tmp_path / f"{command[0]}-ray").rglob("*.png"))).size > (16, 16)


def test_the_cluster_must_have_room_for_the_workers(face, tmp_path, cluster):
    executor = choose_executor(EngineOptions(engine="ray", workers=3))
    with pytest.raises(UsageError, match="--workers 3: the cluster has 2 CPUs"):
        run([face("a.png")], tmp_path / "out", executor)


def test_workers_that_end_while_they_start_end_the_job(face, tmp_path, two_workers):
    prior = SimpleNamespace(**vars(fake_search.PRIOR), weights=ending_search.Ending())
    with pytest.raises(SetupError, match="no worker of the Ray cluster could start"):
        run([face("a.png")], tmp_path / "out", two_workers, prior=prior)


def test_options_of_a_cluster_need_one():
    for words in (("--workers", "2"), ("--address", "auto")):
        result = CliRunner().invoke(main, ["run", "a.png", *words])
        assert result.exit_code == 2
        assert f"{words[0]} is for the workers of a cluster" in result.output


def test_answers_are_put_into_the_order_of_their_places():
    assert list(in_order(each for each in [(2, "c"), (0, "a"), (1, "b")])) == ["a", "b", "c"]
