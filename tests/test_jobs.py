"""Runs over many inputs: resume, failures, shards, interruptions."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import fake_search
import pytest

from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.jobs import manifest, searching, store
from pulse_sr.jobs.manifest import read_rows
from pulse_sr.report import page


def run(inputs, out, samples=2, search=fake_search.search, **options):
    switches = {k: options.pop(k) for k in ("overwrite", "retry_failed", "shard") if k in options}
    config = SearchConfig(samples=samples, **options)
    stream = fake_search.one_by_one(search)
    return searching.run(inputs, out, config, fake_search.PRIOR, search=stream, **switches)


class CountingSearch:
    """The fake search, remembering what it was asked for; fails for names in `bad`."""

    def __init__(self, bad=(), error=None):
        self.asked, self.bad, self.error = [], bad, error or InputError("no face", "--fit pad")

    def __call__(self, image, prior, config, indices, progress=None):
        name = image.path.rsplit("/", 1)[-1]
        self.asked.append((name, tuple(indices)))
        if name in self.bad:
            raise self.error
        return fake_search.search(image, prior, config, indices, progress)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("sample_*.png")}


def test_a_second_run_does_nothing(face, tmp_path):
    inputs = [face("a.png", 1), face("b.png", 2)]
    first = list(run(inputs, tmp_path / "out"))
    assert [(r.stem, r.status, r.samples) for r in first] == [("a", "done", 2), ("b", "done", 2)]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")}
    search = CountingSearch()
    again = list(run(inputs, tmp_path / "out", search=search))
    assert [r.status for r in again] == ["skipped", "skipped"]
    assert search.asked == []
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")} == before


def test_more_samples_search_only_the_new_ones(face, tmp_path):
    path, out = face("a.png"), tmp_path / "out"
    list(run([path], out, samples=4))
    four = contents(out)
    search = CountingSearch()
    [record] = run([path], out, samples=8, search=search)
    assert search.asked == [("a.png", (4, 5, 6, 7))]
    assert (record.status, record.searched, record.samples) == ("done", 4, 8)
    eight = contents(out)
    assert len(eight) == 8
    assert all(eight[name] == content for name, content in four.items())
    [record] = run([path], out, samples=4, search=search)
    assert (record.status, record.samples) == ("skipped", 8)
    assert len(contents(out)) == 8


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"steps": 5}, {"project": "off"}, {"overwrite": True}]
)
def test_other_settings_search_again(face, tmp_path, change):
    path, search = face("a.png"), CountingSearch()
    list(run([path], tmp_path / "out", samples=3))
    [record] = run([path], tmp_path / "out", search=search, **change)
    assert search.asked == [("a.png", (0, 1))]
    assert (record.status, record.samples) == ("done", 2)


def test_another_prior_or_another_content_search_again(face, tmp_path):
    from types import SimpleNamespace

    path, out, search = face("a.png"), tmp_path / "out", CountingSearch()
    stream = fake_search.one_by_one(search)
    list(run([path], out))
    other = SimpleNamespace(**{**vars(fake_search.PRIOR), "sha256": "0" * 64})
    list(searching.run([path], out, SearchConfig(samples=2), other, search=stream))
    face("a.png", seed=9)
    list(searching.run([path], out, SearchConfig(samples=2), other, search=stream))
    assert len(search.asked) == 2
    assert [row["stem"] for row in read_rows(out)] == ["a"]


def test_a_bad_input_does_not_stop_the_others(face, tmp_path):
    good, last = face("a.png", 1), face("z.png", 2)
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    wrong = face("wrong.png", 3, size=(17, 17))
    search = CountingSearch()
    records = list(run([good, text, wrong, last], tmp_path / "out", search=search))
    assert [r.status for r in records] == ["done", "failed", "failed", "done"]
    assert "not an image" in records[1].error
    assert "17x17" in records[2].error
    rows = {row["stem"]: row for row in read_rows(tmp_path / "out")}
    assert [rows[s]["status"] for s in ("a", "notes", "wrong", "z")] == [
        "ok",
        "failed",
        "failed",
        "ok",
    ]
    assert rows["wrong"]["error"] == records[2].error
    # A file that can be read has a record of its failure; one that can not has the row alone.
    assert not (tmp_path / "out" / "notes").exists()
    document = json.loads((tmp_path / "out" / "wrong" / "result.json").read_text())
    assert (document["status"], document["error"]) == ("failed", records[2].error)


def test_unexpected_errors_are_one_row_too(face, tmp_path):
    search = CountingSearch(bad=["a.png"], error=RuntimeError("first line\nsecond"))
    records = list(run([face("a.png"), face("b.png")], tmp_path / "out", search=search))
    assert [r.status for r in records] == ["failed", "done"]
    assert records[0].error == "unexpected RuntimeError: first line"


def test_failures_are_retried_only_when_asked(face, tmp_path):
    path, out = face("a.png"), tmp_path / "out"
    broken, fine = CountingSearch(bad=["a.png"]), CountingSearch()
    list(run([path], out, search=broken))
    [record] = run([path], out, search=fine)
    assert (record.status, record.error, fine.asked) == ("failed", "no face", [])
    assert "--retry-failed" in record.note
    [record] = run([path], out, search=fine, retry_failed=True)
    assert record.status == "done"
    assert [row["status"] for row in read_rows(out)] == ["ok"]
    assert "error" not in json.loads((out / "a" / "result.json").read_text())


def test_other_settings_try_a_failure_again(face, tmp_path):
    path, out = face("a.png"), tmp_path / "out"
    list(run([path], out, search=CountingSearch(bad=["a.png"])))
    [record] = run([path], out, seed=1)
    assert record.status == "done"


def test_a_failed_extension_keeps_the_good_samples(face, tmp_path):
    path, out = face("a.png"), tmp_path / "out"
    list(run([path], out, samples=2))
    before = contents(out)
    [record] = run([path], out, samples=4, search=CountingSearch(bad=["a.png"]))
    assert (record.status, record.samples) == ("failed", 2)
    assert contents(out) == before
    [record] = run([path], out, samples=2)
    assert record.status == "skipped"


def test_a_crash_in_the_middle_resumes(face, tmp_path):
    inputs = [face(f"{name}.png", i) for i, name in enumerate("abc")]
    out = tmp_path / "out"
    crash = CountingSearch(bad=["b.png"], error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        list(run(inputs, out, search=crash))
    assert [row["stem"] for row in read_rows(out)] == ["a"]
    assert (out / "index.html").is_file()
    (out / "b").mkdir(exist_ok=True)  # what a kill -9 between two files leaves
    shutil.copy(out / "a" / "sample_00.png", out / "b" / "sample_00.png")
    (out / "manifest.json").unlink()
    search = CountingSearch()
    records = list(run(inputs, out, search=search))
    assert [r.status for r in records] == ["skipped", "done", "done"]
    assert [name for name, _ in search.asked] == ["b.png", "c.png"]
    list(run(inputs, tmp_path / "straight"))
    assert contents(out) == contents(tmp_path / "straight")
    assert [row["stem"] for row in read_rows(out)] == ["a", "b", "c"]


def test_a_manifest_that_lags_behind_is_repaired_from_the_folders(face, tmp_path):
    """A killed process has not written its last batch: what the folders say is right."""
    inputs, out = [face(f"{name}.png", i) for i, name in enumerate("abcd")], tmp_path / "out"
    list(run(inputs[:2], out, samples=1))
    early = (out / "manifest.json").read_bytes()
    list(run(inputs, out, search=CountingSearch(bad=["c.png"])))
    whole = {row["stem"]: row for row in read_rows(out)}
    assert [whole[each]["samples"] for each in "abcd"] == [2, 2, 0, 2]
    (out / "manifest.json").write_bytes(early)
    search = CountingSearch()
    again = list(run(inputs, out, search=search))
    assert [r.status for r in again] == ["skipped", "skipped", "failed", "skipped"]
    assert (search.asked, again[2].error) == ([], "no face")
    repaired = {row["stem"]: row for row in read_rows(out)}
    whole["c"]["seconds"] = 0.0  # the record of a failure has no time
    assert repaired == whole


def test_the_manifest_and_the_page_are_not_written_for_every_input(face, tmp_path, monkeypatch):
    """Else the time of a run grows with the square of its inputs."""
    seen = []

    def count(module, name, kind):
        real = getattr(module, name)

        def do(path, *rest):
            seen.append((kind, path.name))
            return real(path, *rest)

        monkeypatch.setattr(module, name, do)

    count(manifest, "read_json", "read")
    count(manifest, "write_atomic", "write")
    count(store, "write_parts_atomic", "write")
    monkeypatch.setattr(manifest, "_BATCH_S", 60.0)  # all rows are one batch, however slow it is

    def counts(inputs, out):
        seen.clear()
        list(run(inputs, out, samples=1))
        kinds = (("read", manifest.NAME), ("write", manifest.NAME), ("write", manifest.PAGE))
        return [seen.count(kind) for kind in kinds]

    inputs = [face(f"{i}.png", i) for i in range(12)]
    for writes in ([1, 1], [0, 1]):  # at first, and where all of them are complete
        few, many = (counts(inputs[:n], tmp_path / f"{n}") for n in (3, 12))
        assert few == many
        assert few[1:] == writes


def test_what_a_killed_run_left_half_written_goes_away(face, tmp_path):
    """Names as `write_atomic` makes them: process and 12 hex digits."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        gone = child.pid  # waited for: no such process any more
    folder, steps = tmp_path / "out" / "x", tmp_path / "out" / "x" / "steps"
    steps.mkdir(parents=True)
    stale = [folder / f".{gone}-0123456789ab.tmp", steps / f".{gone}-ab0123456789.tmp"]
    alive, other = folder / f".{os.getppid()}-0123456789ab.tmp", folder / ".notes.tmp"
    young, old = (tmp_path / "out" / f".{gone}-{digit * 12}.tmp" for digit in "12")
    for path in (*stale, alive, other, young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    list(run([face("x.png")], tmp_path / "out"))
    assert not any(path.exists() for path in (*stale, old))
    assert alive.exists()
    assert other.exists()
    assert young.exists()  # a shard on another machine may be writing it


def test_equal_stems_get_their_own_folders_and_keep_them(face, tmp_path):
    a, b = face("a/x.png", 1), face("b/x.png", 2)
    out = tmp_path / "out"
    assert [r.stem for r in run([a, b], out)] == ["x", "x-2"]
    again = list(run([b, a], out))
    assert [(r.stem, r.status) for r in again] == [("x-2", "skipped"), ("x", "skipped")]


def test_shards_share_the_work_and_the_folder(face, tmp_path):
    names = ["d/x.png", "a/x.png", "c.png", "b.png", "e.png"]
    inputs = [face(name, i) for i, name in enumerate(names)]
    out = tmp_path / "out"
    second = list(run(inputs[::-1], out, shard=(1, 2)))
    first = list(run(inputs, out, shard=(0, 2)))
    assert len(first) + len(second) == 5
    assert {r.path for r in first + second} == {str(path) for path in inputs}
    assert [r.status for r in first + second] == ["done"] * 5
    assert sorted(row["stem"] for row in read_rows(out)) == ["b", "c", "e", "x", "x-2"]
    assert all(r.status == "skipped" for r in run(inputs, out))


def test_a_name_that_is_no_text_resumes_too(face, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EMBED_BYTES", 0)  # links must hold the name as well
    path = tmp_path / os.fsdecode(b"\xff\xe9.png")
    face("plain.png").rename(path)
    assert [r.status for r in run([path], tmp_path / "out")] == ["done"]
    assert [r.status for r in run([path], tmp_path / "out")] == ["skipped"]
    assert "%FF%E9/grid.png" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("shard", [(2, 2), (0, 0)])
def test_a_wrong_shard_is_refused(face, tmp_path, shard):
    with pytest.raises(UsageError, match="--shard"):
        run([face("a.png")], tmp_path / "out", shard=shard)


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(face, tmp_path):
    out = tmp_path / "out"
    full = CountingSearch(bad=["b.png"], error=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(SetupError) as caught:
        list(run([face("a.png", 1), face("b.png", 2)], out, search=full))
    assert caught.value.exit_code == 3
    assert [row["stem"] for row in read_rows(out)] == ["a"]


def test_the_environment_error_of_a_search_ends_the_run(face, tmp_path):
    lost = CountingSearch(bad=["a.png"], error=SetupError("no device cuda:7"))
    with pytest.raises(SetupError, match="cuda:7"):
        list(run([face("a.png"), face("b.png")], tmp_path / "out", search=lost))
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"operator": "bicubik"}, "bicubik"), ({"scale": 5}, "--scale 5"), ({"scale": 32}, "32")],
)
def test_what_no_input_could_work_with_is_refused_first(face, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        run([face("a.png")], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_missing_path_is_refused_first(face, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        run([face("a.png"), tmp_path / "nowhere.png"], tmp_path / "out")


def test_progress_names_the_task(face, tmp_path):
    seen = []
    config = SearchConfig(samples=2)
    list(
        searching.run(
            [face("a.png")],
            tmp_path / "out",
            config,
            fake_search.PRIOR,
            search=fake_search.one_by_one(fake_search.search),
            progress=lambda task, step: seen.append((task.stem, step.done, step.samples)),
        )
    )
    assert seen == [("a", 1, 2), ("a", 2, 2)]
