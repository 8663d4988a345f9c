"""Training images in tars and zips: the same bytes as from the folder, named as WebDataset does.

What is of zips alone: `test_training_data_zip`.
"""

from __future__ import annotations

import json
import os
import tarfile

import numpy as np
import pytest
from packed_images import contents, encoded, numbered, pack, write_folder
from PIL import Image

from pulse_sr.data.cache import cache_images
from pulse_sr.data.check import check_data
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import NOT_TRAINING_DATA
from pulse_sr.data.shards import expand_shards
from pulse_sr.data.sources import FolderSource
from pulse_sr.errors import InputError, UsageError

KINDS = pytest.mark.parametrize("kind", ["tar", "zip"])


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.xz", "w:xz"), ("a.zip", "w")]
)
def test_a_tar_is_the_folder_it_was_packed_from(tmp_path, name, mode):
    """Names, bytes, cache: also where the order in the archive is another one."""
    files = {f"{i % 3}/{i:02d}.png": encoded(i) for i in range(18)}
    files |= {"0/x.JPG": encoded(20, kind="JPEG"), "0/x.txt": b"a caption", "1/z.png": b"broken"}
    folder = open_source(write_folder(tmp_path / "data", files))
    tar = open_source(pack(tmp_path / name, dict(reversed(files.items())), mode))
    assert list(tar.names) == list(folder.names)
    assert contents(tar) == contents(folder)
    one, other = (cache_images(s, tmp_path / "cache", 8) for s in (folder, tar))
    assert np.array_equal(one.pixels, other.pixels)
    assert one.names == other.names
    assert one.skipped == other.skipped == (("1/z.png", "is not an image (6 bytes)"),)
    assert one.content_sha256 == other.content_sha256
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert (one.source, other.source) == (str(tmp_path / "data"), str(tmp_path / name))


def test_a_cache_of_a_tar_is_decoded_the_same(tmp_path):
    """Not only found: decoded from the archive, with a gap that is closed."""
    files = numbered(0, 17) | {"005.png": b"broken", "aaa.png": b""}
    folder = open_source(write_folder(tmp_path / "data", files))
    tar = open_source(pack(tmp_path / "a.tar.gz", dict(reversed(files.items())), "w:gz"))
    one, other = (cache_images(s, tmp_path / f"cache {s.title}", 8) for s in (folder, tar))
    (first,), (second,) = ((tmp_path / f"cache {t}").glob("*.npy") for t in ("data", "a"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    assert [name for name, _ in other.skipped] == ["005.png", "aaa.png"]
    assert one.skipped == other.skipped


def test_an_unchanged_tar_is_not_even_listed(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.tar", numbered(0, 16))
    before = cache_images(open_source(path), tmp_path / "cache", 8)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *a, **k: pytest.fail("the tar was opened"))
        again = cache_images(open_source(path), tmp_path / "cache", 8)
        assert again.names == before.names
    os.utime(path, ns=(1, 1))
    assert cache_images(open_source(path), tmp_path / "cache", 8).pixels.shape == (16, 3, 8, 8)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    pack(path, numbered(1, 17))
    assert not np.array_equal(
        cache_images(open_source(path), tmp_path / "cache", 8).pixels, before.pixels
    )


# samples


@KINDS
def test_a_sample_gives_its_image_and_not_its_other_fields(tmp_path, kind):
    fields = {
        "000.jpg": encoded(0, kind="JPEG"), "000.seg.png": encoded(1), "000.json": b"{}",
        "000.cls": b"3", "a.b/001.PNG": encoded(2), "a.b/001.mask.png": encoded(3),
    }  # fmt: skip
    assert list(open_source(pack(tmp_path / f"a.{kind}", fields)).names) == [
        "000.jpg",
        "a.b/001.PNG",
    ]


@KINDS
def test_names_with_dots_are_images_where_nothing_says_otherwise(tmp_path, kind):
    files = {"photo.v2.jpg": encoded(0), "photo.v3.jpg": encoded(1), "x.1.5.webp": encoded(2)}
    source = open_source(pack(tmp_path / f"a.{kind}", files))
    assert list(source.names) == list(files)


@KINDS
def test_hidden_and_marked_members_are_left_out(tmp_path, kind):
    files = numbered(0, 2) | {
        "./._000.png": b"of another system",
        "__MACOSX/._000.png": b"the same",
        "lr_16/000.png": encoded(5),
        f"lr_16/{NOT_TRAINING_DATA}": b"",
    }
    assert list(open_source(pack(tmp_path / f"a.{kind}", files)).names) == ["000.png", "001.png"]


@KINDS
def test_members_with_a_dot_in_front_and_absolute_ones_are_read_in_place(tmp_path, kind):
    files = {"./faces/a.png": encoded(0), "/faces/b.png": encoded(1), "../c.png": encoded(2)}
    source = open_source(pack(tmp_path / "deep" / f"a.{kind}", files))
    assert list(source.names) == ["../c.png", "faces/a.png", "faces/b.png"]
    assert contents(source) == [encoded(2), encoded(0), encoded(1)]
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", f"a.{kind}"]


def link(kind, target):
    def change(info):
        info.type, info.linkname = kind, target

    return change


def test_links_are_the_files_they_point_to(tmp_path):
    files = {
        "a/one.png": encoded(0),
        "a/hard.png": link(tarfile.LNKTYPE, "a/one.png"),
        "b/soft.png": link(tarfile.SYMTYPE, "../a/hard.png"),
        "c/lost.png": link(tarfile.SYMTYPE, "nothing.png"),
        "c/loop.png": link(tarfile.SYMTYPE, "loop.png"),
    }
    source = open_source(pack(tmp_path / "a.tar", files))
    opened = {source.names[place]: opener for place, opener in source.read()}
    for name in ("a/one.png", "a/hard.png", "b/soft.png"):
        assert opened[name]() == encoded(0)
    for name in ("c/lost.png", "c/loop.png"):
        with pytest.raises(
            InputError, match=f"{name} links to a file that the archive does not hold"
        ):
            opened[name]()


def test_of_a_member_packed_twice_the_last_counts(tmp_path):
    path = pack(tmp_path / "a.tar", numbered(0, 3))
    pack(path, {"001.png": encoded(50)}, "a")
    assert contents(open_source(path)) == [encoded(0), encoded(50), encoded(2)]


def test_sidecars_and_licences_are_members(tmp_path):
    files = numbered(0, 3) | {
        "000.json": json.dumps({"framing": {"name": "ffhq"}}).encode(),
        "002.json": json.dumps({"framing": {"name": "template"}}).encode(),
        "001.json": json.dumps({"caption": "a face"}).encode(),
        "LICENSE.txt": b"CC0",
        "deep/er/LICENSE": b"of a part",
    }
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.zip", "w")):
        source = open_source(pack(tmp_path / name, files, mode))
        assert source.alignment() == {"name": "ffhq"}
        assert source.framings() == {0: {"name": "ffhq"}, 2: {"name": "template"}}
        assert source.licences() == {"LICENSE.txt": "CC0"}


def test_the_resolution_is_that_of_the_folder(tmp_path):
    files = {f"{i}.png": encoded(i, (side, side + 3)) for i, side in enumerate([10, 40, 300])}
    assert open_source(pack(tmp_path / "a.tar.gz", files, "w:gz")).largest_resolution() == 32


# several tars


@pytest.fixture
def shards(tmp_path):
    for i in range(4):
        pack(tmp_path / "sets" / f"faces-{i:03d}.tar", numbered(5 * i, 5 * i + 5))
    return tmp_path / "sets"


@pytest.mark.parametrize(
    ("pattern", "numbers", "title"),
    [
        ("faces-{000..003}.tar", [0, 1, 2, 3], "faces"), ("faces-*.tar", [0, 1, 2, 3], "faces"),
        ("faces-00[12].tar", [1, 2], "faces-00"), ("faces-{000,003}.tar", [0, 3], "faces"),
        ("faces-{003..002}.tar", [3, 2], "faces"), ("{faces,f*}-001.tar", [1], "001"),
        ("faces-00{2..3}.tar", [2, 3], "faces-00"), ("f*s-{001,00[02]}.tar", [1, 0, 2], "fs"),
    ],
)  # fmt: skip
def test_several_tars_are_one_set(shards, pattern, numbers, title):
    expected = [shards / f"faces-{number:03d}.tar" for number in numbers]
    assert expand_shards(str(shards / pattern)) == expected
    source = open_source(shards / pattern)
    images = [f"{5 * number + i:03d}.png" for number in sorted(numbers) for i in range(5)]
    assert (source.names, source.title) == (images, title)


def test_a_folder_of_tars_is_one_set(shards):
    (shards / "notes.txt").write_text("of a set")
    source = open_source(shards)
    assert (len(source.names), source.title) == (20, "sets")


@pytest.mark.parametrize(
    ("braces", "expected"),
    [("{8..11}", ["8", "9", "10", "11"]), ("{08..10}", ["08", "09", "10"]), ("{1,b}", ["1", "b"])],
)
def test_braces_count_as_a_shell_does(tmp_path, braces, expected):
    for each in expected:
        (tmp_path / f"x{each}.tar").touch()
    found = expand_shards(str(tmp_path / f"x{braces}.tar"))
    assert [path.name for path in found] == [f"x{each}.tar" for each in expected]


def test_a_missing_tar_of_a_range_is_named(shards):
    with pytest.raises(UsageError, match=r"faces-004\.tar is not a folder of images, nor a tar"):
        open_source(shards / "faces-{000..005}.tar")
    with pytest.raises(UsageError, match=r"none-\*\.tar is not a folder"):
        open_source(shards / "none-*.tar")


@KINDS
def test_the_same_names_in_two_tars_are_told_apart(tmp_path, kind):
    for name, first in (("a", 0), ("b", 100)):
        files = {f"{i:02d}.png": encoded(first + i) for i in range(10)}
        files["03.json"] = json.dumps({"framing": {"name": name}}).encode()
        pack(tmp_path / f"{name}.{kind}", files | {"05.png": b"broken"})
    source = open_source(tmp_path / f"{{a,b}}.{kind}")
    assert source.names[3] == "a/03.png"
    assert source.names[13] == "b/03.png"
    assert {place: f["name"] for place, f in source.framings().items()} == {3: "a", 13: "b"}
    found = cache_images(source, tmp_path / "cache", 8)
    assert [name for name, _ in found.skipped] == ["a/05.png", "b/05.png"]
    assert {reason for _, reason in found.skipped} == {"is not an image (6 bytes)"}


def test_a_folder_with_images_is_no_folder_of_tars(shards):
    (shards / "LICENSE").write_text("CC0")
    assert open_source(shards).licences() == {"LICENSE": "CC0"}
    write_folder(shards, numbered(0, 2))
    source = open_source(shards)
    assert isinstance(source, FolderSource)
    assert source.left_out == {".tar": 4}


# damage


def test_a_file_that_is_no_tar_is_a_wrong_call(tmp_path):
    for name, content in (("a.tar", b"hello" * 200), ("empty.tar", b""), ("a.png", encoded(0))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name} is not a folder of images, nor a tar"):
            list(open_source(tmp_path / name).names)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_is_cut_gives_what_it_has_and_is_named(tmp_path, mode):
    path = pack(tmp_path / "a.tar", numbered(0, 30), mode)
    os.truncate(path, path.stat().st_size * 2 // 3)
    found = cache_images(open_source(path), tmp_path / "cache", 8)
    (tar, reason), *cut = found.skipped
    assert tar == "a.tar"
    assert reason.startswith("is damaged after ")
    assert 16 <= found.images < 30
    assert len(cut) <= 1
    whole = open_source(write_folder(tmp_path / "data", numbered(0, found.images)))
    assert np.array_equal(found.pixels, cache_images(whole, tmp_path / "other", 8).pixels)


def test_a_tar_without_its_end_mark_is_named(tmp_path):
    path = pack(tmp_path / "a.tar", numbered(0, 20))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset
    os.truncate(path, end)
    source = open_source(path)
    assert len(source.names) == 19
    assert source.refused == [("a.tar", "is damaged after 19 files: it has no end mark")]


def test_garbage_in_a_tar_is_named(tmp_path):
    path = pack(tmp_path / "a.tar", numbered(0, 20))
    with tarfile.open(path) as tar:
        place = tar.getmembers()[17].offset
    content = bytearray(path.read_bytes())
    content[place : place + 512] = b"x" * 512
    path.write_bytes(content)
    source = open_source(path)
    assert len(source.names) == 17
    assert [name for name, _ in source.refused] == ["a.tar"]


# --check-data


@KINDS
def test_a_check_of_a_tar_finds_what_a_check_of_the_folder_finds(tmp_path, kind):
    files = numbered(0, 20) | {
        "wide.jpg": encoded(30, (32, 16), "JPEG"),
        "again.png": encoded(3),
        "broken.png": b"broken",
        "notes.txt": b"",
        "x/a.raw": b"",
        "y": b"",
        "x/b.RAW": b"",
        ".hidden.txt": b"",
        "000.json": json.dumps({"framing": {"name": "ffhq"}}).encode(),
        "LICENSE": b"CC0",
    }
    folder = check_data(write_folder(tmp_path / "data", files))
    tar = check_data(pack(tmp_path / f"a.{kind}", files), None)
    for name in (
        "images",
        "left_out",
        "unreadable",
        "duplicates",
        "licences",
        "resolution",
        "exit_code",
    ):
        assert getattr(tar, name) == getattr(folder, name), name
    assert (len(tar.images), tar.exit_code, tar.framings[0][1]) == (22, 1, 1)
    assert tar.left_out == {".raw": 2, ".txt": 1, "without a suffix": 1}
    assert tar.data == str(tmp_path / f"a.{kind}")


def test_the_sheets_of_a_tar_show_its_images(tmp_path):
    from pulse_sr.jobs.checking import write_check

    files = numbered(0, 16) | {"again.png": encoded(3)}
    sheets = {}
    for data in (write_folder(tmp_path / "data", files), pack(tmp_path / "data.tar", files)):
        out = tmp_path / f"{data.name}-check"
        write_check(check_data(data), out)
        with Image.open(out / "duplicates.png") as sheet:
            sheets[data.name] = np.asarray(sheet)[60:]  # below the heading, which names the data
    assert np.array_equal(*sheets.values())
