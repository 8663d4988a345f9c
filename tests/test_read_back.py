"""What is read back: damaged records are done again in one line, damaged models refused in one."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tiny_training
import torch
from click.testing import CliRunner
from fake_search import make_face
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pulse_sr.cli import main
from pulse_sr.errors import SetupError
from pulse_sr.files.documents import MOST_BYTES, FileName, check_shape, load_json, parse_json
from pulse_sr.jobs.score_book import ScoreBook
from pulse_sr.models import downloads, registry
from pulse_sr.priors.bank import read_bank, save_bank
from pulse_sr.priors.base import SeedBank
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel, save_model
from pulse_sr.training.checkpoint import read_checkpoint_header

DEEP = b"[" * 100_000 + b"]" * 100_000
#: What can happen to any document.
BYTES = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "binary": lambda data: bytes(range(256)) * 4,
    "a number": lambda data: b"3",
    "null": lambda data: b"null",
    "text": lambda data: b'"text"',
    "deep": lambda data: DEEP,
    "deep inside": lambda data: data.rstrip()[:-1] + b', "more": ' + DEEP + b"}",
    "a huge number": lambda data: data.rstrip()[:-1] + b', "more": 1' + b"0" * 400 + b"}",
    "5,000 digits": lambda data: data.rstrip()[:-1] + b', "more": 1' + b"0" * 5000 + b"}",
    "nan": lambda data: data.rstrip()[:-1] + b', "more": NaN}',
    "infinite": lambda data: data.rstrip()[:-1] + b', "more": [-Infinity]}',
    "1e400": lambda data: data.rstrip()[:-1] + b', "more": 1e400}',
    "a key twice": lambda data: data.rstrip()[:-1] + b', "version": "2"}',
}


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def lines_about(result, word):
    return [line for line in result.stderr.splitlines() if word in line]


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --------------------------------------------------------------------------------------------------
# The reader


@pytest.mark.parametrize("damage", BYTES)
def test_the_reader_refuses(damage, tmp_path):
    file = tmp_path / "record.json"
    file.write_bytes(BYTES[damage](b'{"version": "1", "numbers": [1, 2.5]}'))
    with pytest.raises(ValueError, match=r"."):
        load_json(file, dict)


def test_the_reader_refuses_what_is_too_large(tmp_path):
    file = tmp_path / "record.json"
    with file.open("wb") as opened:  # a hole on the disk, 200 MB to who reads it
        opened.write(b"{}")
        opened.truncate(200 * 10**6)
    with pytest.raises(ValueError, match="more than 128 MB"):
        load_json(file)
    with pytest.raises(ValueError, match="more than 128 MB"):
        parse_json(" " * (MOST_BYTES + 1))


def test_the_reader_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(ValueError, match="no regular file"):
        load_json(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("sample_00.png", True),
        ("...", True),
        ("ü \udc80", True),
        ("../x", False),
        ("..", False),
        (".", False),
        ("", False),
        ("/etc/passwd", False),
        ("a/b", False),
        ("a\\b", False),
        ("a\0", False),
        ("x" * 256, False),
    ],
)
def test_names_stay_in_their_folder(name, fine):
    if fine:
        check_shape(name, FileName)
        return
    with pytest.raises(ValueError, match="Expected"):
        check_shape(name, FileName)


# --------------------------------------------------------------------------------------------------
# Records and manifests of the commands


class Case:
    """A command over one input in a folder of its own, and what it wrote."""

    def __init__(self, tmp_path, words, out, record):
        self.words, self.out, self.record = words, out, record
        self.beside = tmp_path / "beside.txt"
        self.beside.write_text("the user's")

    def call(self):
        return run(*self.words)


def make_run(tmp_path, model):
    face, out = make_face(tmp_path / "in" / "a.png"), tmp_path / "out"
    words = ["run", face, "-o", out, "--samples", "1", "--align", "never"]
    return Case(tmp_path, words, out, out / "a" / "result.json")


def make_compare(tmp_path, model):
    face, out = make_face(tmp_path / "in" / "a.png"), tmp_path / "out"
    words = ["compare", face, "-o", out, "--samples", "1", "--model", model]
    return Case(tmp_path, words, out, out / "a" / "compare.json")


def make_upscale(tmp_path, model):
    face, out = make_face(tmp_path / "in" / "a.png"), tmp_path / "out"
    words = ["upscale", face, "-o", out, "--model", model, "--device", "cpu"]
    return Case(tmp_path, words, out, out / "a.json")


def make_align(tmp_path, model):
    photo, out = make_face(tmp_path / "in" / "a.png", size=(64, 64)), tmp_path / "out"
    points = tmp_path / "points.json"
    points.write_text(json.dumps({"a.png": [[[25, 25], [40, 25], [32, 33], [26, 40], [38, 40]]]}))
    limits = ["--min-score", "0", "--min-size", "1", "--min-sharpness", "0"]
    words = ["align", photo, "-o", out, "--size", "16", "--lr", "8", "--landmarks", points, *limits]
    return Case(tmp_path, words, out, out / "a.json")


def make_eval(tmp_path, model):
    for folder in ("in", "truth"):
        make_face(tmp_path / folder / "a.png")
        make_face(tmp_path / folder / "b.png", seed=1)
    out = tmp_path / "out"
    words = ["eval", tmp_path / "in", "--reference", tmp_path / "truth", "-o", out]
    return Case(tmp_path, [*words, "--metrics", "psnr"], out, out / "metrics.json")


MAKERS = {
    "run": make_run,
    "compare": make_compare,
    "upscale": make_upscale,
    "align": make_align,
    "eval": make_eval,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of scale 4 that takes no time."""
    network = build_network("compact", {"scale": 4, "width": 4, "convolutions": 1})
    file = tmp_path_factory.mktemp("model") / "own.safetensors"
    save_model(file, SrModel("own", "compact", network, {"licence": "CC0-1.0"}))
    return file


@pytest.fixture(scope="module")
def made():
    """What each command wrote, made once: command -> (case, files)."""
    return {}


@pytest.fixture
def case(request, tmp_path_factory, made, model, fake_api):
    """The command of the parameter, and its folder as it was after the first call."""
    if request.param not in made:
        found = MAKERS[request.param](tmp_path_factory.mktemp("case"), model)
        first = found.call()
        assert first.exit_code == 0, first.output
        made[request.param] = found, files_of(found.out.parent)
    found, files = made[request.param]
    for path in files_of(found.out.parent):
        path.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return found


def without_seconds(record):
    return {key: value for key, value in record.items() if key not in ("timing", "seconds")}


def check_done_again(case, before, damaged, lines=1):
    """The command ends well, says so in one line, and writes the same again, and nothing else."""
    beside = {p: b for p, b in files_of(case.out.parent).items() if case.out not in p.parents}
    result = case.call()
    assert result.exit_code == 0, result.output
    assert "unexpected" not in result.output
    assert len(lines_about(result, " damaged")) == lines, result.stderr
    assert without_seconds(json.loads(case.record.read_bytes())) == without_seconds(before)
    for path, content in beside.items():
        assert path.read_bytes() == content
    again = case.call()
    assert (again.exit_code, lines_about(again, " damaged")) == (0, [])
    names = {path.relative_to(case.out.parent) for path in files_of(case.out.parent)}
    assert not {name for name in names if "damaged" in name.name} - damaged


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("case", MAKERS, indirect=True)
def test_a_damaged_record_is_done_again(case, damage):
    data = case.record.read_bytes()
    before = json.loads(data)
    case.record.write_bytes(BYTES[damage](data))
    check_done_again(case, before, set())


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("case", ["run", "compare", "upscale", "align"], indirect=True)
def test_a_damaged_manifest_is_written_again(case, damage):
    """What was there in its place is kept, since it may not be ours."""
    manifest, before = case.out / "manifest.json", json.loads(case.record.read_bytes())
    rows = json.loads(manifest.read_bytes())
    # These write into an object, a manifest is a list of them.
    data = manifest.read_bytes()
    broken = BYTES[damage](data)
    if broken[:1] == b"[" and broken[-1:] == b"}":
        broken = broken[:-1] + b"]"
        broken = broken.replace(b', "more": ', b", ").replace(
            b', "version": "2"', b', {"a":1,"a":2}'
        )
    manifest.write_bytes(broken)
    if damage in ("a number", "null", "text"):  # JSON, but not ours
        result = case.call()
        assert result.exit_code == 2, result.output
        [line] = lines_about(result, "error")
        assert "was not made by pulse-sr" in line
        assert manifest.read_bytes() == broken
        return
    check_done_again(
        case, before, {(case.out / "manifest.json.damaged-1").relative_to(case.out.parent)}
    )
    assert (case.out / "manifest.json.damaged-1").read_bytes() == broken
    names = ("stem", "path", "sha256", "status")
    found = json.loads(manifest.read_bytes())
    assert [[row[n] for n in names] for row in found] == [[row[n] for n in names] for row in rows]


def put(*path):
    """A change of one entry of a document: the last of the arguments is its value."""
    *keys, last, value = path

    def change(document):
        for key in keys:
            document = document[key]
        document[last] = value

    return change


RESULT = {
    "no samples": put("samples", None),
    "samples of another kind": put("samples", "sample_00.png"),
    "an empty list": put("samples", []),
    "a sample outside": put("samples", 0, "file", "../../beside.txt"),
    "an absolute sample": put("samples", 0, "file", "/etc/passwd"),
    "another sample": put("samples", 0, "file", "sample_01.png"),
    "a negative index": put("samples", 0, "index", -1),
    "an index that is true": put("samples", 0, "index", True),
    "a match of text": put("samples", 0, "lr_psnr", "45"),
    "no match": put("samples", 0, "lr_psnr", None),
    "an unknown status": put("status", "fine"),
    "an input of another kind": put("input", ["a.png"]),
    "a hash of another kind": put("input", "sha256", 5),
    "a scale of 0": put("operator", "scale", 0),
    "a prior without a side": put("prior", "resolution", None),
    "negative seconds": put("timing", "search_s", -1),
    "seconds of text": put("timing", {"search_s": "1"}),
    "a face outside": put("face", {"base": "../x"}),
    "an order of other samples": put(
        "cluster", {"distance": "d", "typical": 5, "order": [5], "radii": [0.0]}
    ),
    "half a diagnosis": put(
        "diagnostics",
        {"samples": [0], "r_hat": {"residual": 1.0, "coordinates": []}, "ess": None},
    ),
    "a diversity of another kind": put("diversity", {"pixel_std": "0", "min_pair_rms": None}),
    "no fingerprint": lambda document: document.pop("fingerprint"),
}


@pytest.mark.parametrize("change", RESULT)
@pytest.mark.parametrize("case", ["run"], indirect=True)
def test_an_edited_result_is_done_again(case, change):
    before = json.loads(case.record.read_bytes())
    edited = json.loads(json.dumps(before))
    RESULT[change](edited)
    case.record.write_text(json.dumps(edited))
    check_done_again(case, before, set())


OTHERS = {
    "compare": {
        "a file outside": put("methods", 0, "file", "../../beside.txt"),
        "methods of another kind": put("methods", 7),
        "a number of text": put("methods", 0, "lr_psnr", "1"),
        "timing of another kind": put("timing", "a", None),
    },
    "upscale": {
        "a width of 0": put("output", "width", 0),
        "a file outside": put("output", "file", "../beside.txt"),
        "no input": put("input", None),
        "timing of another kind": put("timing", []),
    },
    "align": {
        "points of another kind": put("landmarks", [["a", "b"]]),
        "no source": put("source", None),
        "a framing of another kind": put("framing", "ffhq"),
    },
    "eval": {
        "files of another kind": put("files", None),
        "a file outside": put("files", ["../beside.txt"]),
    },
}


@pytest.mark.parametrize(
    ("case", "change"), [(c, k) for c, v in OTHERS.items() for k in v], indirect=["case"]
)
def test_another_edited_record_is_done_again(case, change, request):
    before = json.loads(case.record.read_bytes())
    edited = json.loads(json.dumps(before))
    OTHERS[request.node.callspec.params["case"]][change](edited)
    case.record.write_text(json.dumps(edited))
    check_done_again(case, before, set())


ROWS = {
    "a stem outside": put(0, "stem", "../beside"),
    "an absolute stem": put(0, "stem", "/tmp"),
    "no stem": lambda rows: rows[0].pop("stem"),
    "a row of another kind": put(0, 5),
    "a base outside": put(0, "base", ".."),
    "an unknown status": put(0, "status", None),
    "a file outside": put(0, "file", "../beside.txt"),
    "a crop outside": put(
        0,
        "faces",
        [
            {
                "name": "../beside",
                "score": 1,
                "real_size": 1,
                "near_duplicate_of": None,
                "phash": "0" * 64,
                "lr": {},
            }
        ],
    ),
    "a small crop outside": put(
        0,
        "faces",
        [
            {
                "name": "a",
                "score": 1,
                "real_size": 1,
                "near_duplicate_of": None,
                "phash": "0" * 64,
                "lr": {"8": "lr_8/../../beside.txt"},
            }
        ],
    ),
    "seconds that are negative": put(0, "seconds", -5),
    "methods of another kind": put(0, "methods", [None]),
}


@pytest.mark.parametrize("change", ROWS)
@pytest.mark.parametrize("case", ["run", "compare", "upscale", "align"], indirect=True)
def test_an_edited_row_counts_as_missing(case, change):
    before, manifest = json.loads(case.record.read_bytes()), case.out / "manifest.json"
    rows = json.loads(manifest.read_bytes())
    ROWS[change](rows)
    manifest.write_text(json.dumps(rows))
    aside = (case.out / "manifest.json.damaged-1").relative_to(case.out.parent)
    check_done_again(case, before, {aside})


@pytest.mark.parametrize("case", ["run"], indirect=True)
def test_a_record_that_is_a_link_out_gives_nothing_away(case, tmp_path):
    """The page embeds no file that a link in the folder leads to."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the user alone")
    for name in ("sample_00.png", "mean.png"):
        (case.out / "a" / name).unlink()
        (case.out / "a" / name).symlink_to(secret)
    result = case.call()
    assert "unexpected" not in result.output
    assert secret.read_bytes() == b"of the user alone"
    assert b"b2YgdGhlIHVzZXIgYWxvbmU" not in (case.out / "index.html").read_bytes()


def test_a_photo_record_is_read_whole_or_not_at_all(tmp_path):
    from pulse_sr.jobs.photo_record import read_photo

    whole = {
        "input": {"path": "a.png", "sha256": "0" * 64},
        "fingerprint": "f",
        "upscale": 2,
        "width": 8,
        "height": 8,
        "files": ["photo_00.png"],
        "faces": [{"stem": "a", "number": 1, "quad": [[0, 0], [0, 4], [4, 4], [4, 0]]}],
        "left_out": [],
    }
    file = tmp_path / "photo.json"
    file.write_text(json.dumps(whole))
    assert read_photo(tmp_path) == whole
    for change in (
        put("files", ["../x"]),
        put("faces", 0, "quad", [[0, 0]]),
        put("faces", 0, "stem", "/x"),
        put("width", 0),
        put("upscale", True),
        put("left_out", [1]),
        put("background", {"source": 1}),
    ):
        edited = json.loads(json.dumps(whole))
        change(edited)
        file.write_text(json.dumps(edited))
        assert read_photo(tmp_path) is None


def test_a_face_of_a_record_has_its_ranges():
    from pulse_sr.images.face import FaceOfPhoto, face_of_record

    face = FaceOfPhoto(
        index=1,
        of=2,
        searched=1,
        left_out=("small",),
        quad=((0.0, 0.0), (0.0, 8.0), (8.0, 8.0), (8.0, 0.0)),
        real_size=8.0,
        inside=1.0,
        score=0.9,
        detail=8,
        side=8,
        operator="bicubic",
    )
    assert face_of_record(face.describe()) == face
    for name, value in [("index", 3), ("index", 0), ("of", 10**9), ("quad", []), ("side", "8")]:
        assert face_of_record(face.describe() | {name: value}) is None
    assert face_of_record(None) is None


def test_scores_of_another_kind_are_passed_over(tmp_path):
    """A record of scores has numbers; the whole ones go on."""
    good = {"images": 4, "seconds": 1.0, "scores": {"fid": 3.0}, "best": True}
    bad = [
        good | {"images": "4"},
        good | {"images": -1},
        good | {"scores": {"fid": "3"}},
        good | {"best": "yes"},
        [good],
    ]
    lines = [json.dumps(each) for each in (*bad, good)]
    (tmp_path / "scores.jsonl").write_text("\n".join([*lines, DEEP.decode(), '{"images": 1e400}']))
    book = ScoreBook(tmp_path, 4, lambda scores: scores["fid"])
    assert book.records == [good]


# --------------------------------------------------------------------------------------------------
# Models


HEADERS = {
    "another schema": put("schema", [1]),
    "an unknown architecture": put("architecture", "x"),
    "an architecture of another kind": put("architecture", {}),
    "no name": lambda header: header.pop("name"),
    "a name of another kind": put("name", ["x"]),
    "a card of another kind": put("card", []),
    "a licence of another kind": put("card", "licence", 5),
    "an alignment of another kind": put("card", "alignment", "ffhq"),
    "a training of another kind": put("card", "training", {"images": "many"}),
    "judges of another kind": put("card", "trained_with", "x"),
    "a configuration of another kind": put("config", None),
    "a side of text": put("config", "resolution", "wide"),
    "channels of another kind": put("config", "channels", 5),
    "a count of another kind": put("latents", {"count": -1}),
    "no statistics": put("latents", None),
}


def with_header(source, target, header):
    with safe_open(source, "pt") as file:
        key = next(iter(file.metadata()))
        text = header(file.metadata()[key])
    save_file(load_file(source), target, {key: text})
    return target


def edited(change):
    def make(text):
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return make


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory):
    """A prior of 8 px."""
    from pulse_sr.priors.files import save_prior
    from pulse_sr.priors.statistics import fit_statistics
    from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Prior

    generator = Generator(tiny_training.NETWORK)
    card = {"licence": "CC0-1.0", "training": {"images": 4}}
    prior = StyleGAN2Prior("tiny", generator, fit_statistics(generator, 500), card=card)
    file = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_prior(file, prior)
    return file


TEXTS = {
    **{name: edited(change) for name, change in HEADERS.items()},
    "truncated": lambda text: text[: len(text) // 2],
    "deep": lambda text: DEEP.decode(),
    "no object": lambda text: "[]",
    "nan": lambda text: text[:-1] + ', "more": NaN}',
    "twice": lambda text: text[:-1] + ', "card": {}}',
}


@pytest.mark.parametrize("damage", TEXTS)
def test_a_damaged_header_is_one_line_and_exit_3(damage, prior_file, tmp_path):
    file = with_header(prior_file, tmp_path / "tiny.safetensors", TEXTS[damage])
    face, out = make_face(tmp_path / "a.png"), tmp_path / "out"
    for words in (("prior", "info", file), ("run", face, "--prior", file, "-o", out)):
        result = run(*words)
        assert result.exit_code == 3, result.output
        assert len(lines_about(result, "error: ")) == 1
        assert "unexpected" not in result.output
        assert str(file) in result.stderr
        assert not out.exists()


def test_a_damaged_file_of_a_prior_is_left_out_of_the_list(prior_file, tmp_path, monkeypatch):
    """`prior list` lists the others, and `prior remove` removes it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = registry.installed_folder() / "broken"
    folder.mkdir(parents=True)
    with_header(prior_file, folder / "model.safetensors", lambda text: DEEP.decode())
    result = run("prior", "list")
    assert result.exit_code == 0, result.output
    assert "faces-128" in result.stdout
    assert len(lines_about(result, "left out")) == 1
    result = run("prior", "remove", "broken")
    assert result.exit_code == 0, result.output
    assert not folder.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"a": 1}',
        '{"a": {"file": "../x", "sha256": "%s"}}' % ("0" * 64),
        '{"a": {"file": "x", "sha256": "no"}}',
        '{"a": {"file": "/etc/passwd", "sha256": "%s"}}' % ("0" * 64),
        DEEP.decode(),
    ],
    ids=range(9),
)
def test_a_damaged_registry_is_one_line_and_exit_3(text, tmp_path, monkeypatch):
    (tmp_path / "registry.json").write_text(text)
    monkeypatch.setattr(registry, "FOLDERS", dict.fromkeys(("prior", "sr"), tmp_path))
    for words in (("prior", "list"), ("prior", "info"), ("upscale", "--list")):
        result = run(*words)
        assert result.exit_code == 3, result.output
        assert len(lines_about(result, "error: ")) == 1
        assert "unexpected" not in result.output


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"url": 1}}', '{"../x": {}}'])
def test_a_damaged_list_of_downloads_is_one_line_and_exit_3(text, tmp_path, monkeypatch):
    (tmp_path / "downloads.json").write_text(text)
    monkeypatch.setattr(downloads, "TABLE", tmp_path / "downloads.json")
    result = run("prior", "get", "a")
    assert result.exit_code == 3, result.output
    assert len(lines_about(result, "error: ")) == 1


@pytest.mark.parametrize(
    "change",
    [put("first_seed", "x"), put("first_seed", -1), put("schema", None), put("more", DEEP)],
)
def test_a_bank_with_a_damaged_header_is_none(change, tmp_path):
    bank = SeedBank(5, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    save_bank(tmp_path / "whole", bank, "0" * 64)
    found = read_bank(tmp_path / "whole", "0" * 64)
    assert found is not None
    assert found.first_seed == 5

    def header(text):
        document = json.loads(text)
        change(document)
        return json.dumps(document, default=bytes.decode).replace('"[', "[").replace(']"', "]")

    with_header(tmp_path / "whole", tmp_path / "damaged", header)
    assert read_bank(tmp_path / "damaged", "0" * 64) is None


STATES = {
    "images of text": put("images", "4"),
    "negative images": put("images", -4),
    "no seconds": lambda header: header.pop("seconds"),
    "a configuration of another kind": put("config", []),
    "no path length": put("path_mean", None),
    "no augmentation": lambda header: header.pop("augment"),
    "an augmentation of another kind": put("augment", "p", "strong"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.few_statistics(patch)
        folder = tmp_path_factory.mktemp("trained") / "run"
        tiny_training.train(folder, 4)
    return folder


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_is_one_line(damage, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    state = folder / "state.safetensors"
    with_header(trained / state.name, state, edited(STATES[damage]))
    with pytest.raises(SetupError, match="does not fit this run"):
        tiny_training.trainer_in(folder)


def test_a_state_with_a_deep_header_is_one_line(trained, tmp_path):
    state = with_header(
        trained / "state.safetensors", tmp_path / "state.safetensors", lambda text: DEEP.decode()
    )
    with pytest.raises(SetupError, match="does not fit this run"):
        read_checkpoint_header(state)


def test_the_picture_of_a_fake_search_is_ours(tmp_path):
    """A stand-in for tests writes what the guards know: the tests above mean something."""
    from pulse_sr.images.find import is_own_picture

    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    assert not is_own_picture(tmp_path / "a.png")
    assert torch.get_num_threads() >= 1
