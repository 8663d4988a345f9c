"""The commands that make priors of other programs' files: import, get, list, info, remove, run."""

from __future__ import annotations

import http.server
import json
import math
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from foreign_checkpoints import nvidia_pickle
from PIL import Image
from test_importers import PULSE, tensors

import pulse_sr
from pulse_sr.alignment.geometry import framing_of
from pulse_sr.cli import main
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.digest import file_sha256
from pulse_sr.jobs import importing
from pulse_sr.models import downloads, registry
from pulse_sr.priors.bank import bank_path, read_bank

NVIDIA = "stylegan2_tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importing, "fit_statistics", lambda g: fit(g, 2000))
    return tmp_path / "cache" / "pulse-sr" / "priors"


fit = importing.fit_statistics


@pytest.fixture
def pickle_file(tmp_path):
    weights = tensors(NVIDIA, "G.")
    for key in weights:  # images that are not saturated
        if ".torgb.weight" in key:
            weights[key] = weights[key] / 4
    path = tmp_path / "tiny faces.pkl"
    path.write_bytes(nvidia_pickle(weights))
    return path


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_import_writes_a_whole_prior(pickle_file, cache):
    result = call("prior", "import", pickle_file, "--licence", "CC0-1.0", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["architecture"], facts["resolution"]) == (
        "tiny-faces",
        "stylegan2",
        32,
    )
    folder = cache / "tiny-faces"
    assert sorted(p.name for p in folder.iterdir()) == sorted(importing.FILES)
    assert facts["sha256"] == file_sha256(folder / "model.safetensors")
    assert facts["imported"]["sha256"] == file_sha256(pickle_file)
    assert facts["licence"] == "CC0-1.0"
    assert "CC0-1.0" in (folder / "README.md").read_text()
    assert Image.open(folder / "samples.png").size == (96, 96)
    prior = pulse_sr.load_prior("tiny-faces", "cpu")
    bank = read_bank(bank_path(prior.file), prior.sha256)
    assert len(bank.thumbnails) == 1024
    assert prior.statistics.count == 2000
    with torch.no_grad():
        v = torch.nn.functional.leaky_relu(prior.map(torch.randn(20_000, 32)), 5)
    assert (v.mean(dim=0) - prior.statistics.mean).abs().max() < 0.1 * v.std(dim=0).max()
    assert call("prior", "info", "tiny-faces").exit_code == 0
    assert "tiny-faces" in call("prior", "list").output


@pytest.mark.parametrize(("factor", "words"), [(0.0, "do not vary"), (1e30, "are not finite")])
def test_a_mapping_without_latents_is_refused(tmp_path, factor, words):
    weights = tensors(NVIDIA, "G.")
    for key in weights:
        if key.startswith("mapping.fc"):
            weights[key] = weights[key] * factor
    path = tmp_path / "flat.pkl"
    path.write_bytes(nvidia_pickle(weights))
    result = call("prior", "import", path, "-o", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_licence_is_unknown_where_none_is_given(pickle_file, tmp_path):
    model = pulse_sr.import_prior(pickle_file, tmp_path / "out")
    assert model.licence == "unknown"
    assert model.path == tmp_path / "out" / "model.safetensors"
    assert "unknown: ask those who made" in (tmp_path / "out" / "README.md").read_text()


def test_run_imports_into_the_cache_first_and_says_so(pickle_file, cache, face, tmp_path, caplog):
    words = ("run", face(size=(8, 8)), "--prior", pickle_file, "--samples", 1, "--steps", 2)
    first = call(*words, "-o", tmp_path / "out", "--align", "never", "--device", "cpu")
    assert first.exit_code == 0, first.output
    assert "is imported into the cache first" in first.stderr + caplog.text
    [folder] = cache.iterdir()
    assert folder.name == f"tiny-faces-{file_sha256(pickle_file)[:8]}"
    caplog.clear()
    again = call(*words, "-o", tmp_path / "again", "--align", "never", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert "is imported into the cache first" not in again.stderr + caplog.text
    assert [each.name for each in cache.iterdir()] == [folder.name]


def test_framings(pickle_file, tmp_path):
    own = framing_of(registry.load().card).template
    file = tmp_path / "framing.json"
    points = {
        "eyes": [[0.3, 0.4], [0.7, 0.4]],
        "nose": [0.5, 0.6],
        "mouth": [[0.4, 0.8], [0.6, 0.8]],
    }
    file.write_text(json.dumps(points))
    for i, (framing, expected) in enumerate(
        [("ffhq", None), ("bundled", own), (str(file), np.array([[0.3, 0.4], [0.7, 0.4]]))]
    ):
        model = pulse_sr.import_prior(pickle_file, tmp_path / str(i), framing=framing)
        template = framing_of(model.card).template
        if expected is None:
            assert template is None
        else:
            assert np.allclose(template[: len(expected)], expected)
    with pytest.raises(UsageError, match=r"--framing nowhere\.json does not exist"):
        pulse_sr.import_prior(pickle_file, tmp_path / "x", framing="nowhere.json")
    with pytest.raises(UsageError, match=r"--framing .* is no framing"):
        pulse_sr.import_prior(pickle_file, tmp_path / "x", framing=str(pickle_file))
    file.write_text('{"eyes": []}')
    with pytest.raises(UsageError, match="is no framing"):
        pulse_sr.import_prior(pickle_file, tmp_path / "x", framing=str(file))


def test_nothing_is_overwritten_and_nothing_half_stays(pickle_file, tmp_path, cache):
    pulse_sr.import_prior(pickle_file, name="a")
    with pytest.raises(UsageError, match="is there already"):
        pulse_sr.import_prior(pickle_file, name="a")
    with pytest.raises(UsageError, match="the name of a bundled prior"):
        pulse_sr.import_prior(pickle_file, name=next(iter(registry.bundled())))
    with pytest.raises(UsageError, match="--name expects letters"):
        pulse_sr.import_prior(pickle_file, name="../x")
    weights = tensors(NVIDIA, "G.")
    weights["synthesis.b32.torgb.weight"] = torch.full((3, 16, 1, 1), 1e38)
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(nvidia_pickle(weights))
    with pytest.raises(SetupError, match="not finite"):
        pulse_sr.import_prior(bad)
    weights["synthesis.b32.torgb.weight"] = torch.full((3, 16, 1, 1), math.nan)
    bad.write_bytes(nvidia_pickle(weights))
    with pytest.raises(SetupError, match=r"synthesis\.b32\.torgb\.weight are nan"):
        pulse_sr.import_prior(bad)
    assert [each.name for each in cache.iterdir()] == ["a"]


def test_remove(pickle_file, cache):
    pulse_sr.import_prior(pickle_file, name="a")
    (cache / "a" / "notes.txt").write_text("mine")
    assert call("prior", "remove", "a").exit_code == 0
    assert [each.name for each in (cache / "a").iterdir()] == ["notes.txt"]
    assert call("prior", "remove", "a").exit_code == 2
    result = call("prior", "remove", next(iter(registry.bundled())))
    assert result.exit_code == 2
    assert "came with the package" in result.stderr


def test_a_damaged_prior_in_the_cache_is_left_out(pickle_file, cache, caplog):
    for name in ("a", "b"):
        pulse_sr.import_prior(pickle_file, name=name)
    for content in (b"\x08\0\0\0\0\0\0\0{}", b""):
        (cache / "a" / "model.safetensors").write_bytes(content)
        names = [model.name for model in registry.list_priors()]
        assert ("a" in names, "b" in names) == (False, True)
    assert "left out:" in caplog.text


def test_where_only_a_card_is_wanted_a_checkpoint_is_to_be_imported(pickle_file):
    with pytest.raises(UsageError, match="a checkpoint of another program") as error:
        registry.load(pickle_file)
    assert error.value.hint == f"pulse-sr prior import {pickle_file}"


def test_a_refused_file_ends_in_one_line(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    result = call("prior", "import", path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0].startswith(f"error: {path} is refused: it holds")
    path.write_bytes(b"\x80\x04x")
    assert call("prior", "import", path).exit_code == 3


@pytest.mark.parametrize("strict", [False, True])
def test_pulse_searches_its_own_generator(tmp_path, face, strict):
    """The original's method on the original's kind of generator, also to the letter."""
    for name in ("synthesis", "mapping"):
        torch.save(tensors(PULSE, f"G_{name}."), tmp_path / f"{name}.pt")
    pulse_sr.import_prior(tmp_path / "mapping.pt", tmp_path / "pulse")
    words = ["run", face(size=(16, 16)), "--prior", tmp_path / "pulse", "--method", "pulse"]
    words += ["--steps", 3, "--samples", 2, "--align", "never", "-o", tmp_path / "out"]
    result = call(*words, *(["--strict-pulse"] if strict else []))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "face" / "result.json").read_text())
    assert [each["steps"] for each in record["samples"]] == [3, 3]
    prior = pulse_sr.load_prior(tmp_path / "pulse", "cpu")
    assert prior.card["architecture"] == "stylegan1"
    alone, both = prior.sample([1]), prior.sample([0, 1])
    assert alone.equal(both[1:])


def test_another_file_beside_makes_another_prior(tmp_path):
    """The half that is named stays the same, the other one is another network's."""
    network = tensors(PULSE, "G_synthesis."), tensors(PULSE, "G_mapping.")
    for name, content in zip(("synthesis", "mapping"), network, strict=True):
        torch.save(content, tmp_path / f"{name}.pt")
    file = tmp_path / "synthesis.pt"
    first = pulse_sr.load_prior(file, "cpu")
    torch.save({key: -value for key, value in network[1].items()}, tmp_path / "mapping.pt")
    second = pulse_sr.load_prior(file, "cpu")
    assert first.name != second.name
    z = first.sample([0])
    assert not z.equal(second.sample([0]))
    assert pulse_sr.load_prior(file, "cpu").name == second.name
    torch.save(network[1], tmp_path / "mapping.pt")
    assert pulse_sr.load_prior(file, "cpu").sample([0]).equal(z)


# download


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file, with ranges; may stop after some bytes."""

    content, stop_after, seen, ranges = b"", None, [], True

    def do_GET(self):
        start = 0
        given = self.headers.get("Range")
        if given and self.ranges:
            start = int(given.removeprefix("bytes=").rstrip("-"))
        type(self).seen.append(start)
        if start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        body = self.content[start:]
        self.send_response(206 if given and self.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.stop_after is None else body[: self.stop_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(pickle_file, monkeypatch):
    """A published checkpoint on a server of this machine."""
    handler = type("Handler", (Server,), {"content": pickle_file.read_bytes(), "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    entry = downloads.Download(
        "tiny",
        f"http://127.0.0.1:{server.server_port}/tiny.pkl",
        file_sha256(pickle_file),
        len(handler.content),
        "LicenseRef-X",
        "faces",
        False,
    )
    table = {"tiny": entry}
    monkeypatch.setattr(downloads, "downloads", lambda: table)
    yield handler, table
    server.shutdown()
    server.server_close()


def test_get_downloads_and_imports(served, cache):
    result = call("prior", "get", "tiny")
    assert result.exit_code == 0, result.output
    card = registry.load("tiny").card
    assert (card["licence"], card["commercial_use"]) == ("LicenseRef-X", False)
    assert card["url"].endswith("/tiny.pkl")
    assert "Not for commercial use" in (cache / "tiny" / "README.md").read_text()
    assert not list((cache.parent / "downloads").iterdir())


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(served, ranges):
    handler, _ = served
    handler.stop_after, handler.ranges = 100_000, ranges
    result = call("prior", "get", "tiny")
    assert result.exit_code == 3
    assert "could not be downloaded" in result.stderr
    assert "the same command goes on" in result.stderr
    handler.stop_after = None
    assert call("prior", "get", "tiny").exit_code == 0
    assert handler.seen == [0, 100_000 if ranges else 0]


def test_another_checksum_is_refused_and_deleted(served, cache):
    _, table = served
    table["tiny"] = replace(table["tiny"], sha256="0" * 64)
    result = call("prior", "get", "tiny")
    assert result.exit_code == 3
    assert "expected 000000000000..." in result.stderr
    assert not list((cache.parent / "downloads").iterdir())
    assert not cache.exists() or not list(cache.iterdir())


def test_without_a_network_it_says_what_to_do(served):
    _, table = served
    table["tiny"] = replace(table["tiny"], url="http://127.0.0.1:9/tiny.pkl")
    result = call("prior", "get", "tiny")
    assert result.exit_code == 3
    assert "http://127.0.0.1:9/tiny.pkl could not be downloaded" in result.stderr
    assert "pulse-sr prior import FILE --name tiny" in result.stderr
    assert call("prior", "get", "nothing").exit_code == 2


def test_the_table_of_downloads_is_complete():
    for name, entry in downloads.downloads().items():
        assert entry.name == name
        assert entry.url.startswith("https://")
        assert len(entry.licence) > 5
        assert len(entry.data) > 5
        assert entry.commercial is False or "NC" not in entry.licence


def test_an_empty_folder_that_is_there_is_filled(pickle_file, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    result = call("prior", "import", pickle_file, "-o", ".", "--licence", "CC-BY-NC-4.0")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir()) == sorted(importing.FILES)
    assert "Not for commercial use" in (tmp_path / "out" / "README.md").read_text()


def test_info_imports_nothing(pickle_file, cache):
    result = call("prior", "info", pickle_file)
    assert result.exit_code == 2
    assert f"pulse-sr prior import {pickle_file}" in result.stderr
    assert not cache.exists()


def test_what_a_killed_import_left_is_cleared_and_nothing_else(tmp_path):
    """Folders of processes that are gone; not of running ones, not with a file of the user's."""
    dead, running = 99_999_999, os.getpid()
    for name, file in (
        (f".prior-{dead}-0123abcd", "model.safetensors"),
        (f".prior-{dead}-0123abce", "mine.txt"),
        (f".prior-{running}-0123abcd", "model.safetensors"),
        (f".other-{dead}-0123abcd", "model.safetensors"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("x")
        (tmp_path / name / f".{dead}-0123456789ab.tmp").write_text("x")
    importing._free_folder(tmp_path / "prior", "prior")
    with importing._staged(tmp_path / "prior") as folder:
        (folder / "model.safetensors").write_text("y")
    left = {path.name for path in tmp_path.glob(".*")} - {"cache"}
    expected = {f".prior-{dead}-0123abce", f".prior-{running}-0123abcd", f".other-{dead}-0123abcd"}
    assert left == expected
    assert (tmp_path / f".prior-{dead}-0123abce" / "mine.txt").is_file()
    assert (tmp_path / "prior" / "model.safetensors").read_text() == "y"
