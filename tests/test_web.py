"""The page without a browser: uploads, searches, visits, limits, what is served."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_sr.cli import main
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.models.registry import load_prior
from pulse_sr.web import server, visits
from pulse_sr.web.gate import UPLOAD, Gate
from pulse_sr.web.looking import look, plan_search
from pulse_sr.web.options import ServeOptions
from pulse_sr.web.results import archive
from pulse_sr.web.search import Search
from pulse_sr.web.visits import Visits

pytest.importorskip("gradio", reason="the extra `web` is not installed")

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def prior():
    return load_prior()


@pytest.fixture
def small(tmp_path):
    """A low-res face of 16 px, as an upload."""
    path = tmp_path / "upload" / "mp.png"
    path.parent.mkdir()
    sharp = Image.open(DATA / "portrait_a.jpg").convert("RGB").crop((45, 60, 180, 195))
    sharp.resize((16, 16), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def party(tmp_path):
    """A photo of two people, whose faces are small, and of one who is large and sharp."""
    canvas = Image.new("RGB", (700, 360), (90, 110, 130))
    for name, left, height in (("a", 30, 110), ("b", 200, 110), ("a", 370, 275)):
        sharp = Image.open(DATA / f"portrait_{name}.jpg").convert("RGB")
        size = (round(sharp.width * height / sharp.height), height)
        canvas.paste(sharp.resize(size, Image.Resampling.LANCZOS), (left, 50))
    path = tmp_path / "upload" / "party.png"
    path.parent.mkdir(exist_ok=True)
    canvas.save(path)
    return path


# ---- what an upload is ----


def test_a_small_picture_is_a_face(prior, small):
    found = look(small, prior, 16)
    assert (found.is_photo, found.faces, found.side) == (False, (), None)
    with Image.open(found.preview) as preview:
        assert preview.size == (720, 720)
        assert np.asarray(preview)[0, 0].tolist() == list(Image.open(small).getpixel((0, 0)))


def test_the_faces_of_a_photo_have_numbers_and_those_left_out_reasons(prior, party):
    found = look(party, prior, 16)
    assert (found.is_photo, found.faces, found.found, found.side) == (True, (1, 2), 3, None)
    [reason] = [each for each in found.remarks if "face 3" in each]
    assert "as fine as the prior" in reason


def test_a_sharp_portrait_begins_with_a_side_at_which_it_can_be_searched(prior, tmp_path):
    path = tmp_path / "mp.jpg"
    path.write_bytes((DATA / "portrait_a.jpg").read_bytes())
    found = look(path, prior, 16)
    assert (found.faces, found.side) == ((1,), 16)
    assert any("made small first (16 px)" in each for each in found.remarks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "not an image"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "x.png"),
    ],
)
def test_what_is_no_picture_is_refused(prior, tmp_path, content, message):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        look(path, prior, 16)


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(prior, tmp_path):
    path = tmp_path / "x.png"
    Image.new("L", (1200, 1000)).save(path)
    with pytest.raises(InputError, match="1200x1000 px, this page takes 1 megapixels"):
        look(path, prior, 1.0)


def test_a_photo_without_a_face_is_refused(prior, tmp_path):
    path = tmp_path / "x.png"
    Image.effect_noise((400, 300), 30).save(path)
    with pytest.raises(InputError, match="no face"):
        look(path, prior, 16)


# ---- a search ----


ENDLESS = {"steps": 1_000_000, "target_db": 100.0}


def started(prior, path, out, limit=600.0, faces=(), **config):
    plan = plan_search(path, out, prior, SearchConfig(samples=1, **config), faces)
    search = Search(plan, limit)
    search.start()
    return search


def test_a_search_shows_how_far_it_is_and_ends_with_results(prior, small, tmp_path):
    search = started(prior, small, tmp_path / "1" / "run", steps=3)
    assert search.wait(60)
    assert search.error == ""
    assert search.state.words.startswith("Searching: step 3 of 3")
    assert search.state.picture.startswith("data:image/jpeg;base64,")
    assert list(search.results) == ["mp"]


def test_a_search_that_is_stopped_ends_at_its_next_step(prior, small, tmp_path):
    search = started(prior, small, tmp_path / "run", **ENDLESS)
    while not search.state.picture:
        assert not search.wait(0.05), search.error
    search.stop()
    assert search.wait(20)
    assert search.error == "The search was stopped."
    assert not search.running
    assert not (tmp_path / "run" / "mp" / "result.json").exists()


def test_a_search_ends_at_the_time_limit(prior, small, tmp_path):
    search = started(prior, small, tmp_path / "run", limit=1.0, **ENDLESS)
    assert search.wait(30)
    assert "after 1 s, the limit of this page" in search.error


def test_the_error_of_a_search_is_said(prior, small, tmp_path):
    search = started(prior, small, tmp_path / "run", scale=2)  # 16 px are not 64
    assert search.wait(60)
    assert "64" in search.error


# ---- the archive ----


def test_the_archive_holds_what_run_writes_without_the_folders_of_the_server(small, tmp_path):
    run = tmp_path / "1" / "run"
    (run / "mp").mkdir(parents=True)
    record = {"input": {"path": str(small)}}
    (run / "mp" / "result.json").write_text(json.dumps(record))
    (run / "index.html").write_text(f"pulse-sr run {small}")
    (run / ".1-0123456789ab.tmp").write_bytes(b"half a file")
    with zipfile.ZipFile(archive(run, small, tmp_path)) as packed:
        assert sorted(packed.namelist()) == ["index.html", "mp/result.json"]
        assert json.loads(packed.read("mp/result.json")) == {"input": {"path": "mp.png"}}
        assert packed.read("index.html") == b"pulse-sr run mp.png"


# ---- visits ----


@pytest.fixture
def guests(tmp_path):
    return Visits(tmp_path / "root")


def upload(guests, name="a.png", content=b"picture"):
    path = guests.cache / "0f" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_nothing_is_left_of_a_visit(guests):
    taken = guests.take("one", upload(guests))
    assert taken.read_bytes() == b"picture"
    assert len(taken.parent.parent.name) == 32  # 128 random bits
    assert taken.parent.parent.stat().st_mode & 0o077 == 0
    guests.close("one")
    assert files(guests.folder) == files(guests.cache) == []
    guests.close("one")  # once more does no harm


def test_the_same_file_of_two_visitors_goes_with_the_last(guests):
    cached = upload(guests)
    guests.take("one", cached)
    kept = guests.take("two", cached)
    guests.close("one")
    assert cached.is_file()
    assert kept.is_file()
    guests.close("two")
    assert files(guests.cache) == []


def test_another_picture_takes_the_place_of_the_first(guests):
    first = guests.take("one", upload(guests, "a.png"))
    folder = guests.of("one").next_folder()
    folder.mkdir()
    (folder / "mean.png").write_bytes(b"")
    guests.take("one", upload(guests, "b.png"))
    assert not first.exists()
    assert [path.name for path in files(guests.folder)] == ["b.png"]
    assert [path.name for path in files(guests.cache)] == ["b.png"]


def test_idle_visits_and_uploads_that_nobody_took_are_swept(guests, monkeypatch):
    guests.take("one", upload(guests, "a.png"))
    guests.take("two", upload(guests, "b.png"))
    old = upload(guests, "c.png")
    os.utime(old, (1, 1))
    guests.of("one").seen -= visits.IDLE_S + 1
    guests.sweep()
    assert [path.name for path in files(guests.folder)] == ["b.png"]
    assert [path.name for path in files(guests.cache)] == ["b.png"]


def test_what_was_written_while_a_visit_ended_is_swept(guests):
    guests.take("one", upload(guests))
    late = guests.of("one").folder / "1" / "shown"
    guests.close("one")
    late.mkdir(parents=True)
    guests.sweep()
    assert list(guests.folder.iterdir()) == []


def test_there_is_a_limit_to_visits(guests, monkeypatch):
    monkeypatch.setattr(visits, "MOST_VISITS", 2)
    guests.of("one"), guests.of("two")
    with pytest.raises(UsageError, match="too many"):
        guests.of("three")
    assert guests.of("two")
    assert guests.find("three") is None


def test_an_upload_that_is_gone_is_said(guests, tmp_path):
    with pytest.raises(InputError, match="gone"):
        guests.take("one", tmp_path / "gone.png")


# ---- the answers of the page ----


@pytest.fixture
def page(prior, guests, monkeypatch):
    from pulse_sr.web.page import build

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(guests.cache))
    _, handlers = build(ServeOptions(max_pixels=1.0, max_samples=3), prior, guests)
    return handlers


ONE = SimpleNamespace(session_hash="one")


def value(page, changes, name):
    """What a component was told: its new value, or the arguments of its update."""
    return changes[getattr(page.parts, name)]


def asked(page, guests, path):
    return page.look(str(upload(guests, path.name, path.read_bytes())), ONE)


def searched(page, **choices):
    given = {"faces": [], "side": 0, "operator": "bicubic", "samples": 1, "method": "phased"}
    *_, last = page.search(*(given | {"seed": 0} | choices).values(), ONE)
    return last


def test_a_photo_shows_its_faces_for_a_choice(page, guests, party):
    changes = asked(page, guests, party)
    assert value(page, changes, "faces")["value"] == [1, 2]
    assert value(page, changes, "faces")["visible"]
    assert value(page, changes, "find")["interactive"]
    assert "A photo of 700 x 360 px with 3 faces" in value(page, changes, "seen")["value"]


def test_a_bad_upload_is_a_message_and_no_search(page, guests, tmp_path):
    path = tmp_path / "<b>.png"
    path.write_bytes(b"no picture")
    changes = asked(page, guests, path)
    said = value(page, changes, "seen")["value"]
    assert 'role="alert"' in said
    assert "&lt;b&gt;.png" in said
    assert "<b>.png" not in said
    assert str(guests.folder) not in said
    assert not value(page, changes, "find")["interactive"]
    assert "There is no picture" in value(page, searched(page), "status")["value"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"samples": 4}, "wrong"),
        ({"samples": float("nan")}, "wrong"),
        ({"side": 12}, "No such low-res size"),
        ({"operator": "mask:/etc/passwd"}, "No such operator"),
        ({"method": "../x"}, "No such operator or method"),
        ({"seed": -1}, "wrong"),
    ],
)
def test_what_a_browser_sends_is_checked(page, guests, small, choices, message):
    asked(page, guests, small)
    last = searched(page, **choices)
    assert message in value(page, last, "status")["value"]
    assert guests.of("one").search is None
    assert value(page, last, "find")["interactive"]


def test_only_faces_of_the_photo_are_searched(page, guests, party):
    asked(page, guests, party)
    assert "No face is chosen" in value(page, searched(page, faces=[3, 9]), "status")["value"]


def test_a_search_gives_samples_mean_map_network_and_the_archive(page, guests, small, tmp_path):
    asked(page, guests, small)
    last = searched(page, samples=2)
    captions = [caption for _, caption in value(page, last, "gallery")["value"]]
    assert [caption[:2] for caption in captions] == ["1:", "2:"]
    assert all(float(caption.split()[1]) >= 45 for caption in captions)
    assert "compact-face-x8" in value(page, last, "network")
    assert not value(page, last, "whole")["visible"]
    shown = [value(page, last, name) for name in ("mean", "disagreement", "supervised")]
    assert all(Image.open(each).size >= (512, 512) or "disagreement" in each for each in shown)
    with zipfile.ZipFile(value(page, last, "download")["value"]) as packed:
        names = packed.namelist()
        document = json.loads(packed.read("mp/result.json"))
        assert all(str(guests.folder).encode() not in packed.read(name) for name in names)
    assert document["input"]["path"] == "mp.png"
    assert {f"mp/sample_0{k}.png" for k in (0, 1)} | {"index.html", "manifest.json"} <= set(names)
    event = SimpleNamespace(index=1)
    assert "sample 2" in value(page, page.choose_sample("The face", event, ONE), "pair")
    assert page.choose_sample("The face", SimpleNamespace(index=7), ONE) == {}
    page.leave(ONE)
    assert files(guests.folder) == files(guests.cache) == []


def test_the_faces_of_a_photo_come_back_in_it(page, guests, party):
    asked(page, guests, party)
    last = searched(page, faces=[2])
    assert value(page, last, "whole")["visible"]
    before, after = (Image.open(each) for each in value(page, last, "photo")["value"])
    assert before.size == after.size
    side = before.width / 700
    changed = np.abs(np.asarray(before, float) - np.asarray(after, float)).max(axis=2) > 12
    columns = np.flatnonzero(changed.any(axis=0))
    assert 200 <= columns.min() / side <= columns.max() / side <= 300  # the second face alone
    assert value(page, last, "face")["choices"] == ["Face 2"]


def test_stop_ends_a_search_and_closing_its_generator_too(page, guests, small):
    asked(page, guests, small)
    for end in (
        lambda running: (page.stop(ONE), page.stopped(ONE)),
        lambda running: running.close(),
    ):
        page.queued(ONE)
        running = page.search([], 0, "bicubic", 3, "ilo", 0, ONE)
        next(running)
        search = guests.of("one").search
        assert search.running
        end(running)
        assert not search.running
        running.close()


def test_what_a_stopped_search_still_tells_is_what_stop_told(page, guests, small):
    asked(page, guests, small)
    running = page.search([], 0, "bicubic", 3, "ilo", 0, ONE)
    next(running)
    page.stop(ONE)
    assert page.stopped(ONE) == list(running)[-1]
    assert guests.of("one").outcome is None


def test_a_search_that_was_stopped_before_its_turn_never_begins(page, guests, small):
    asked(page, guests, small)
    page.queued(ONE)
    page.stop(ONE)
    told = page.stopped(ONE)
    assert list(page.search([], 0, "bicubic", 1, "phased", 0, ONE)) == [told]
    assert page.search_refused(ONE) == told != page.refused(ONE)
    assert guests.of("one").search is None
    page.queued(ONE)
    assert page.search_refused(ONE) == page.refused(ONE)
    assert value(page, searched(page, samples=1), "gallery")["value"]


# ---- what comes in ----


class Inner:
    """An application that reads the body and says how long it was."""

    async def __call__(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})


def respond(path, chunks=(b"",), declared=None, pause=0.0, **limits):
    """Status, headers and body of a request whose body comes in pieces."""
    gate = Gate(Inner(), **({"upload_bytes": 100_000, "body_s": 5.0} | limits))
    sent, left = [], list(chunks)

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    headers = [] if declared is None else [(b"content-length", declared)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(gate(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode()


def test_an_upload_up_to_the_limit_goes_through():
    assert respond(UPLOAD, [b"x" * 60_000, b"x" * 40_000])[::2] == (200, "100000")


def test_a_larger_upload_is_refused_also_where_it_says_otherwise():
    assert respond(UPLOAD, declared=b"200000")[::2] == (
        413,
        "The upload is too large: this page takes 0.1 MB.",
    )
    assert respond(UPLOAD, [b"x" * 90_000] * 3, declared=b"10")[0] == 413
    assert respond(UPLOAD, [b"x" * 90_000] * 3)[0] == 413
    assert respond("/gradio_api/queue/join", [b"x" * 300_000])[0] == 413
    assert respond(UPLOAD, declared=b"-1")[0] == 413


def test_an_upload_that_takes_too_long_is_refused():
    status, _, words = respond(UPLOAD, [b"x"] * 100, pause=0.05, body_s=0.2)
    assert (status, words) == (408, "The upload took too long.")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.org/x",
        "/gradio_api/proxy=https://example.org/x",
        "/gradio_api/vibe-code",
        "/gradio_api/process_recording",
        "/gradio_api/run-history/records",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/login",
        "/docs",
        "/../etc/passwd",
    ],
)
def test_what_the_page_does_not_need_is_not_there(path):
    assert respond(path)[0] == 404


def test_answers_say_that_nothing_from_elsewhere_belongs_to_the_page():
    _, headers, _ = respond("/")
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert respond("/gradio_api/file=/x")[1][b"cache-control"] == b"no-store"


@pytest.fixture
def served(prior, guests, monkeypatch):
    """The whole application, as a function of path and headers to an answer."""
    from starlette.testclient import TestClient

    from pulse_sr.web.page import application

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(guests.cache))
    app = application(ServeOptions(max_upload=0.1, queue=2), prior, guests)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def test_files_outside_of_the_visits_are_not_served(served, guests, tmp_path):
    own = guests.take("one", upload(guests))
    (tmp_path / "secret.txt").write_text("secret")
    assert served.get(f"/gradio_api/file={own}").content == b"picture"
    for path in (
        "/etc/passwd",
        f"{tmp_path}/secret.txt",
        f"{guests.folder}/../../secret.txt",
        f"{guests.folder}/%2e%2e/%2e%2e/secret.txt",
        f"{guests.folder}/..%2f..%2fsecret.txt",
        f"{guests.folder}",
        f"/{tmp_path}/secret.txt",
        os.path.abspath(server.__file__),
        "/proc/self/environ",
    ):
        answer = served.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path
        assert "secret" not in answer.text.replace("secret.txt", "")


def test_a_link_in_a_visit_does_not_lead_out(served, guests, tmp_path):
    own = guests.take("one", upload(guests))
    (tmp_path / "secret.txt").write_text("secret")
    own.with_name("link.txt").symlink_to(tmp_path / "secret.txt")
    assert served.get(f"/gradio_api/file={own.with_name('link.txt')}").status_code in (403, 404)


def test_another_name_for_this_computer_is_refused(served):
    assert served.get("/", headers={"host": "attacker.example"}).status_code == 400
    assert served.get("/").status_code == 200


def test_the_page_names_no_other_site(served):
    text = served.get("/").text
    for tag in ('<script src="http', '<link rel="preconnect" href="http', "fonts.googleapis"):
        assert tag not in text
    assert "fonts.g" not in served.get("/theme.css").text


def test_an_upload_above_the_limit_is_refused_with_a_message(served, guests):
    large = {"files": ("a.png", b"x" * 150_000)}
    answer = served.post("/gradio_api/upload", files=large)
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text
    answer = served.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 400_000)})
    assert (answer.status_code, "too large" in answer.text) == (413, True)
    assert [path for path in files(guests.cache) if path.stat().st_size > 100_000] == []


# ---- the server ----


def test_a_port_that_is_taken_is_said():
    with server._listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--port", str(port)])
    assert result.exit_code == 3
    assert f"127.0.0.1:{port} can not be listened on" in result.stderr


@pytest.mark.parametrize(
    "words",
    [["--port", "70000"], ["--host", "a b"], ["--max-upload", "nan"], ["--queue", "0"]],
)
def test_options_of_serve_are_checked(words):
    result = CliRunner().invoke(main, ["serve", *words])
    assert result.exit_code == 2
    assert f"{words[0]} expects" in result.stderr


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError) as raised:
        server.serve(ServeOptions(port=0), print)
    assert "pulse-sr[web]" in raised.value.hint


def test_what_a_killed_server_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "pulse-sr-serve-dead"
    (dead / "visits").mkdir(parents=True)
    (dead / ".lock").write_text("process 1\n")
    strange = tmp_path / "pulse-sr-serve-notes"
    strange.mkdir()
    with server._folder() as first:
        assert not dead.exists()
        assert strange.exists()
        with server._folder():
            assert first.exists()  # its server runs
    assert [path.name for path in tmp_path.iterdir()] == ["pulse-sr-serve-notes"]
