"""The page in headless Chromium, as a visitor sees it.

Screenshots go to $PULSE_SR_SCREENSHOTS, or to a folder of pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image
from random_priors import random_stylegan2

from pulse_sr.priors.files import save_prior

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="the extra `web` is not installed")

DATA = Path(__file__).parent / "data"
FACE = Path(__file__).parents[1] / "examples" / "face_lr.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
#: So many samples take the tiny prior some seconds, in which a search can be stopped.
LONG = 64
#: Milliseconds for what a search is waited for, and for everything else.
SEARCH_MS, SOON_MS = 300_000, 60_000

#: What `run` writes for an input beside its record (docs/web.md).
PICTURES = ("input", "mean", "std", "interval", "disagreement", "grid", "sample_00", "sample_01")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one server, which begins first: the largest group does
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]


class Server:
    """`pulse-sr serve` as its own process, with a folder for its temporary files."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pulse_sr", "serve", "--port", "0", *words],
            env={**os.environ, "TMPDIR": str(folder)},
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stderr.readline()
        while line.startswith("info: "):
            line = self.process.stderr.readline()
        assert "the page is at" in line, line + self.process.stderr.read()
        self.address = re.search(r"http://\S+(?=;)", line)[0]
        self.port = int(self.address.rsplit(":", 1)[1])

    def files(self):
        """What lies in its folder beside the lock."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]

    def end(self):
        """Ends it as a service manager does; returns the exit code and what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The page with the bundled prior."""
    running = Server(tmp_path_factory.mktemp("real"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page with a tiny prior, for what does not depend on how faces look."""
    prior = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_prior(prior, random_stylegan2(0))
    limits = ("--max-upload", "1", "--queue", "2", "--max-samples", "64")
    running = Server(tmp_path_factory.mktemp("served"), "--prior", str(prior), *limits)
    yield running
    if running.process.poll() is None:
        running.end()


@pytest.fixture(scope="module")
def chromium():
    words = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield browser
        browser.close()


class Visitor:
    """An open page, with what its browser asked for."""

    def __init__(self, chromium, server, **screen):
        self.context = chromium.new_context(accept_downloads=True, **screen)
        self.page = self.context.new_page()
        self.page.set_default_timeout(SOON_MS)
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(server.address)
        self.page.wait_for_selector("#upload input[type=file]", state="attached")

    def drop(self, path):
        self.page.set_input_files("#upload input[type=file]", path)

    def see(self, text, within="body", timeout=SOON_MS):
        self.page.locator(within).get_by_text(text).first.wait_for(timeout=timeout)

    def choose_samples(self, count):
        self.page.fill("#samples input[type=number]", str(count))
        self.page.press("#samples input[type=number]", "Tab")

    def start(self, path, samples=1):
        self.drop(path)
        self.page.wait_for_selector("#preview img")
        self.choose_samples(samples)
        self.page.click("#find")

    def samples(self):
        self.page.wait_for_selector("#gallery img", timeout=SEARCH_MS)
        return self.page.locator("#gallery .caption-label").all_inner_texts()

    def whole(self):
        """Whether every picture on the page could be loaded."""
        script = "[...document.images].every(each => each.complete && each.naturalWidth > 0)"
        self.page.wait_for_function(script)
        return True


@pytest.fixture
def visit(chromium, request):
    """A function that opens the page as a new visitor."""
    opened = []

    def open_page(where=None, **screen):
        opened.append(Visitor(chromium, where or request.getfixturevalue("server"), **screen))
        return opened[-1]

    yield open_page
    for each in opened:
        each.context.close()


@pytest.fixture
def shoot(request, tmp_path):
    """A function that keeps a screenshot."""
    folder = Path(os.environ.get("PULSE_SR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(visitor, name, whole=False):
        visitor.page.screenshot(path=folder / f"{name}.png", full_page=whole)

    return take


def until(reached, seconds=60.0):
    """Waits for something that no page shows."""
    ends = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_small_face_becomes_samples_and_an_archive(visit, shoot, real, tmp_path):
    visitor = visit(real, viewport={"width": 1280, "height": 900})
    assert visitor.page.locator("#find").is_disabled()
    shoot(visitor, "1-empty")
    visitor.drop(FACE)
    visitor.see("A small face of 16 x 16 px")
    visitor.page.wait_for_selector("#preview img")
    shoot(visitor, "2-uploaded")
    visitor.choose_samples(2)
    visitor.page.click("#find")
    visitor.page.wait_for_selector(".live img")
    shoot(visitor, "3-searching")
    captions = visitor.samples()
    assert [caption[:2] for caption in captions] == ["1:", "2:"]
    assert all(float(caption.split()[1]) >= 45 for caption in captions)
    for name in ("slider", "mean", "disagreement", "supervised"):
        visitor.page.wait_for_selector(f"#{name} img")
    assert visitor.whole()
    visitor.page.locator("#gallery button.thumbnail-item").nth(1).click()
    visitor.see("bicubic, and sample 2")
    shoot(visitor, "4-found", whole=True)
    visitor.page.mouse.wheel(0, 5000)
    notice = visitor.page.locator("#notice").bounding_box()
    assert notice["y"] == 0  # it does not scroll away
    with visitor.page.expect_download() as download:
        visitor.page.click("#download")
    assert download.value.suggested_filename == "pulse-sr-face_lr.zip"
    download.value.save_as(tmp_path / "all.zip")
    expected = {f"face_lr/{name}.png" for name in PICTURES} | {"face_lr/result.json"}
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        assert packed.testzip() is None
        assert set(packed.namelist()) == expected | {"index.html", "manifest.json"}
    foreign = [url for url in visitor.asked if not url.startswith((real.address, "data:", "blob:"))]
    assert foreign == []
    assert visitor.complaints == []


def test_a_photo_shows_numbered_faces_and_comes_back_with_them(visit, shoot, real, tmp_path):
    canvas = Image.new("RGB", (640, 300), (90, 110, 130))
    for name, left in (("a", 60), ("b", 330)):
        sharp = Image.open(DATA / f"portrait_{name}.jpg").convert("RGB")
        canvas.paste(sharp.resize((90, 110), Image.Resampling.LANCZOS), (left, 80))
    canvas.save(tmp_path / "two.jpg", quality=95)
    visitor = visit(real, viewport={"width": 1280, "height": 900})
    visitor.drop(tmp_path / "two.jpg")
    visitor.see("A photo of 640 x 300 px with 2 faces")
    visitor.page.get_by_label("Face 1").uncheck()
    visitor.choose_samples(1)
    visitor.page.click("#find")
    assert len(visitor.samples()) == 1
    visitor.page.wait_for_selector("#photo img")
    assert visitor.whole()
    shoot(visitor, "5-photo", whole=True)


def test_bad_uploads_are_said(visit, shoot, tmp_path):
    visitor = visit(viewport={"width": 390, "height": 844})
    (tmp_path / "notes.png").write_text("no picture")
    visitor.drop(tmp_path / "notes.png")
    visitor.see("is not an image", within="[role=alert]")
    assert visitor.page.locator("#find").is_disabled()
    shoot(visitor, "6-bad-upload")
    visitor.page.reload()
    visitor.page.wait_for_selector("#upload input[type=file]", state="attached")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + os.urandom(1_500_000))
    visitor.drop(tmp_path / "large.png")
    visitor.see("large.png has 1.5 MB, this page takes 1 MB.", within="[role=alert]")
    assert not any("upload?" in url for url in visitor.asked[-5:])  # it was not even sent
    shoot(visitor, "7-too-large")
    visitor.drop(FACE)  # and a good one works
    visitor.see("A small face of 16 x 16 px")
    shoot(visitor, "8-telephone", whole=True)


def test_two_visitors_at_once_get_their_own_faces(visit, shoot):
    first, second = visit(), visit()
    first.start(FACE, samples=2)
    first.page.wait_for_selector(".live img")
    second.start(FACE)
    second.see("Waiting for a turn")
    shoot(second, "9-waiting")
    assert len(first.samples()) == 2
    assert len(second.samples()) == 1
    sources = [each.page.locator("#mean img").get_attribute("src") for each in (first, second)]
    assert sources[0] != sources[1]


def test_stop_stops_and_the_next_search_begins_at_once(visit, shoot):
    visitor = visit()
    visitor.start(FACE, samples=LONG)
    visitor.page.wait_for_selector(".live img")
    visitor.page.click("#stop")
    visitor.see("Stopped. Nothing of this search was kept.")
    shoot(visitor, "10-stopped")
    assert visitor.page.locator("#gallery img").count() == 0
    visitor.choose_samples(1)
    visitor.page.click("#find")
    assert len(visitor.samples()) == 1


def test_a_search_that_waits_is_stopped_too(visit):
    first, second = visit(), visit()
    first.start(FACE, samples=LONG)
    first.page.wait_for_selector(".live img")
    second.start(FACE)
    second.see("Waiting for a turn")
    second.page.click("#stop")
    second.see("Stopped. Nothing of this search was kept.")
    first.page.click("#stop")
    first.see("Stopped. Nothing of this search was kept.")
    assert second.page.locator(".live img").count() == 0


def test_a_reload_ends_the_search_and_removes_what_was_there(visit, server):
    visitor = visit()
    until(lambda: not server.files())  # the visitors before this one have left
    visitor.start(FACE, samples=LONG)
    visitor.page.wait_for_selector(".live img")
    assert server.files()
    visitor.page.reload()
    visitor.see("The faces that are found will be here")
    until(lambda: not server.files())
    visitor.start(FACE)  # nobody else is searching any more
    assert len(visitor.samples()) == 1


def test_a_slow_upload_does_not_keep_others_waiting(server):
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500000\r\n"
        kind = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        slow.sendall((head + kind + "--x\r\n").encode())
        started = time.monotonic()
        files = {"files": ("a.png", b"picture")}
        assert httpx.get(server.address).status_code == 200
        assert httpx.post(f"{server.address}/gradio_api/upload", files=files).status_code == 200
        assert time.monotonic() - started < 10


def test_the_queue_is_bounded(visit, server, shoot):
    first, last = visit(), visit()
    first.start(FACE, samples=LONG)
    first.page.wait_for_selector(".live img")
    listed = httpx.get(f"{server.address}/config").json()["dependencies"]
    [search] = [each["id"] for each in listed if len(each["inputs"]) == 6]
    body = {"data": [[], 0, "bicubic", 1, "phased", 0], "fn_index": search}
    answers = [
        httpx.post(
            f"{server.address}/gradio_api/queue/join", json={**body, "session_hash": f"s{k}"}
        ).status_code
        for k in range(4)
    ]
    assert answers == [200, 200, 503, 503]
    last.drop(FACE)
    last.see("Too many people are waiting.", within="[role=alert]")
    shoot(last, "11-busy")
    first.page.click("#stop")
    first.see("Stopped. Nothing of this search was kept.")


def test_nothing_is_left_when_the_server_ends(visit, server):
    visitor = visit()
    visitor.drop(FACE)
    visitor.page.wait_for_selector("#preview img")
    assert server.files()
    code, said = server.end()
    assert (code, "removed" in said) == (143, True)
    left = [path.name for path in server.folder.iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == []  # torch's own
