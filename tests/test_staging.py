"""Inputs and results at URLs: object stores in memory, a web server of this machine, lists."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from pulse_sr.cli import main
from pulse_sr.errors import SetupError
from pulse_sr.files import remote
from pulse_sr.images.find import listed_inputs

PORTRAIT = Path(__file__).parent / "data" / "portrait_a.jpg"


@pytest.fixture
def memory():
    """An empty object store."""
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture
def web(tmp_path):
    """A web server; gives its URL and the folder that it shows."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def call(*words):
    return CliRunner().invoke(main, ["run", *(str(word) for word in words)])


def summary(*words):
    result = call(*words, "--json", "-q")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def put_faces(memory, face, count):
    for k in range(count):
        memory.pipe_file(f"/in/{k}.png", face(f"{k}.png", k).read_bytes())


def test_a_run_at_urls_is_the_run_of_this_machine(memory, face, tmp_path, fake_api):
    put_faces(memory, face, 2)
    memory.pipe_file("/in/notes.md", b"no picture")
    told = summary("memory://in", "-o", "memory://bucket/out", "--samples", 2)
    assert [each["path"] for each in told["images"]] == ["memory:///in/0.png", "memory:///in/1.png"]
    assert told["out"] == "memory://bucket/out"
    call(tmp_path / "0.png", tmp_path / "1.png", "-o", tmp_path / "out", "--samples", 2)
    local = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    there = {name.removeprefix("/bucket/out/") for name in memory.find("/bucket/out")}
    assert there == local - {"index.html"}
    for name in there:
        here, data = (tmp_path / "out" / name).read_bytes(), memory.cat(f"/bucket/out/{name}")
        if name.endswith(".png"):
            assert data == here, name
    record = json.loads(memory.cat("/bucket/out/1/result.json"))
    assert record["input"]["path"] == "memory:///in/1.png"
    assert "pulse-sr-" not in memory.cat("/bucket/out/manifest.json").decode()


def test_a_run_at_a_url_resumes_and_adds_samples(memory, face, fake_api):
    put_faces(memory, face, 2)
    words = ("memory://in/*.png", "-o", "memory://out")
    summary(*words, "--samples", 2)
    first = memory.cat("/out/0/sample_00.png")
    again = summary(*words, "--samples", 2)
    assert [each["status"] for each in again["images"]] == ["skipped"] * 2
    more = summary(*words, "--samples", 3)
    assert [(each["searched"], each["samples"]) for each in more["images"]] == [(1, 3)] * 2
    assert memory.cat("/out/0/sample_00.png") == first
    memory.pipe_file("/in/0.png", memory.cat("/in/1.png"))
    changed = summary(*words, "--samples", 3)
    assert [(each["stem"], each["status"]) for each in changed["images"]] == [
        ("0", "done"),
        ("1", "skipped"),
    ]
    ordered = summary(*words, "--samples", 3, "--cluster")
    assert [each["status"] for each in ordered["images"]] == ["skipped"] * 2
    assert "cluster" in json.loads(memory.cat("/out/0/result.json"))


def test_the_record_of_an_input_is_sent_last(memory, face, fake_api, monkeypatch):
    put_faces(memory, face, 1)
    sent = []

    def send(path, url):
        if url.endswith("result.json"):
            raise SetupError("the connection is gone")
        sent.append(url)
        remote_send(path, url)

    remote_send = remote.send
    monkeypatch.setattr("pulse_sr.jobs.staging.send", send)
    result = call("memory://in", "-o", "memory://out", "--samples", 2)
    assert (result.exit_code, "the connection is gone" in result.output) == (3, True)
    assert "memory://out/0/sample_00.png" in sent
    monkeypatch.undo()
    assert "/out/0/result.json" not in memory.find("/out")


def test_what_was_sent_without_its_record_is_made_again(memory, face, fake_api):
    put_faces(memory, face, 1)
    summary("memory://in", "-o", "memory://out", "--samples", 2)
    memory.rm("/out/0/result.json")
    memory.rm("/out/manifest.json")
    [image] = summary("memory://in", "-o", "memory://out", "--samples", 2)["images"]
    assert (image["stem"], image["status"]) == ("0", "done")


def test_a_photo_that_is_enlarged_and_not_searched_is_sent_too(memory, fake_api):
    memory.pipe_file("/in/mp.jpg", PORTRAIT.read_bytes())
    for status in ("done", "skipped"):
        [image] = summary("memory://in", "-o", "memory://out", "--samples", 1)["images"]
        assert (image["status"], "as fine as the prior" in image["note"]) == (status, True)
        names = {name.removeprefix("/out/mp/") for name in memory.find("/out/mp")}
        assert names == {"photo.json", "photo_00.png", "photo_after.jpg", "photo_before.jpg"}


def test_a_list_names_paths_and_urls_of_a_web_server(face, web, tmp_path, fake_api, monkeypatch):
    url, _ = web
    face("web/far.png", 1)
    near = face("near.png", 2)
    file = tmp_path / "list.txt"
    file.write_text(f"# two inputs\n{url}/far.png\n\n{near}\n")
    assert listed_inputs(["a.png", str(file)]) == ["a.png", f"{url}/far.png", str(near)]
    told = summary(file, "-o", tmp_path / "out", "--samples", 1)
    assert [each["path"] for each in told["images"]] == [f"{url}/far.png", str(near)]
    again = summary(file, "-o", tmp_path / "out", "--samples", 1)
    assert [each["status"] for each in again["images"]] == ["skipped"] * 2
    monkeypatch.setattr("pulse_sr.jobs.staging.MAX_BYTES", 100)
    result = call(f"{url}/far.png", "-o", tmp_path / "out")
    assert (result.exit_code, "is larger than 100 bytes" in result.output) == (1, True)
    result = call(f"{url}/none.png", "-o", tmp_path / "out")
    assert (result.exit_code, f"{url}/none.png does not exist" in result.output) == (2, True)


def test_a_place_that_is_no_object_store_gets_files_by_renaming(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"content")
    remote.send(tmp_path / "a.bin", f"local://{tmp_path}/there/b.bin")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["b.bin"]
    assert (tmp_path / "there" / "b.bin").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("url", "code"), [("nonsense://x", 2), ("memory://nothing", 2), ("s3://bucket/x.png", 3)]
)
def test_a_url_that_can_not_be_used_is_one_line(url, code, tmp_path, fake_api, memory):
    if url.startswith("s3") and __import__("importlib").util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    result = call(url, "-o", tmp_path / "out")
    assert result.exit_code == code
    assert result.output.startswith(f"error: {url}")


def test_the_list_must_name_something(tmp_path, fake_api):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    result = call(tmp_path / "empty.txt")
    assert (result.exit_code, "names no inputs" in result.output) == (2, True)


def test_align_and_upscale_take_urls(memory, face, fake_api):
    memory.pipe_file("/in/a.png", face("a.png").read_bytes())
    result = CliRunner().invoke(main, ["upscale", "memory://in", "-o", "memory://large"])
    assert result.exit_code == 0, result.output
    assert set(memory.find("/large")) == {"/large/a.json", "/large/a.png", "/large/manifest.json"}
    result = CliRunner().invoke(main, ["upscale", "memory://in", "-o", "memory://large"])
    assert "1 complete before" in result.output
    memory.pipe_file("/photos/p.jpg", PORTRAIT.read_bytes())
    words = ["align", "memory://photos", "-o", "memory://crops", "--size", "64", "--lr", "16"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    there = {name.removeprefix("/crops/") for name in memory.find("/crops")}
    assert {"p.png", "p.json", "lr_16/p.png", "manifest.json"} <= there
    assert "1 faces of 1 images" in CliRunner().invoke(main, words).output
