"""Zips as training data where they are not as tars are: damage, bombs; and chosen fields."""

from __future__ import annotations

import json
import stat
import struct
import zipfile

import pytest
from packed_images import contents, encoded, encrypt, numbered, pack, patch

from pulse_sr.data.cache import cache_images
from pulse_sr.data.open import open_source
from pulse_sr.errors import InputError, UsageError


def opened(path):
    """The openers of the images by name."""
    source = open_source(path)
    return {source.names[place]: opener for place, opener in source.read()}


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_way_of_packing_gives_the_bytes(tmp_path, method):
    files = numbered(0, 5, size=(90, 90))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert contents(open_source(tmp_path / "a.zip")) == list(files.values())


def test_a_zip_is_known_by_its_bytes_and_not_by_its_name(tmp_path):
    path = pack(tmp_path / "a.zip", numbered(0, 3)).rename(tmp_path / "faces.data")
    assert list(open_source(path).names) == ["000.png", "001.png", "002.png"]


def test_folders_and_names_with_backslashes(tmp_path):
    """Some programs of Windows write them, against the specification."""
    files = {"a/": b"", "b\\": b"", "a\\0.png": encoded(0), "__MACOSX\\._0.png": b"no"}
    source = open_source(pack(tmp_path / "a.zip", files))
    assert (list(source.names), dict(source.left_out)) == (["a/0.png"], {})


def test_links_in_a_zip_are_the_files_they_point_to(tmp_path):
    path = pack(tmp_path / "a.zip", {"a/one.png": encoded(0)})
    with zipfile.ZipFile(path, "a") as archive:
        for name, target in (("b/soft.png", "../a/one.png"), ("c.png", "/etc/passwd")):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    found = opened(path)
    assert found["b/soft.png"]() == encoded(0)
    with pytest.raises(InputError, match=r"c\.png links to a file that the archive does not hold"):
        found["c.png"]()


def test_a_folder_of_zips_and_tars_is_one_set(tmp_path):
    pack(tmp_path / "set" / "a.zip", numbered(0, 3))
    pack(tmp_path / "set" / "b.tar", numbered(3, 6))
    source = open_source(tmp_path / "set")
    assert (len(source.names), source.title) == (6, "set")
    assert contents(source) == [encoded(i) for i in range(6)]


# damage


def test_a_damaged_member_is_named_and_skipped(tmp_path):
    path = pack(tmp_path / "a.zip", numbered(0, 18))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("007.png")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 60 : info.header_offset + 70] = b"x" * 10
    path.write_bytes(data)
    found = cache_images(open_source(path), tmp_path / "cache", 8)
    ((name, reason),) = found.skipped
    assert (found.images, name) == (17, "007.png")
    assert reason.startswith("cannot be read: ")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_zip_that_is_cut_is_refused_in_one_line(tmp_path, share):
    path = pack(tmp_path / "a.zip", numbered(0, 18))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UsageError, match=r"a\.zip is not .* zip .*: the list of its files, at"):
        list(open_source(path).names)


def test_a_zip_without_files_holds_no_images(tmp_path):
    path = pack(tmp_path / "a.zip", {})
    with pytest.raises(InputError, match="holds 0 images"):
        cache_images(open_source(path), tmp_path / "cache", 8)


def test_encrypted_members_are_named_and_an_encrypted_zip_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", numbered(0, 18))
    encrypt(path, "003.png")
    found = cache_images(open_source(path), tmp_path / "cache", 8)
    assert found.skipped == (("003.png", "is encrypted"),)
    whole = pack(tmp_path / "b.zip", numbered(0, 2))
    encrypt(whole, "000.png", "001.png")
    with pytest.raises(UsageError, match=r"b\.zip is encrypted"):
        list(open_source(whole).names)


# what it unpacks to


def test_a_member_that_declares_too_much_is_not_unpacked(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.png": encoded(0)})
    patch(path, "a.png", 22, struct.pack("<I", (1 << 30) + 1), central_offset=24)
    with pytest.raises(InputError, match=r"a\.png has 1073741825 bytes, the limit is 1073741824"):
        opened(path)["a.png"]()


def test_a_member_that_unpacks_to_more_than_it_declares_is_cut_there(tmp_path):
    """100 MB of zeros that say they are 1000 bytes: no more than those are kept, then refused."""
    path = pack(tmp_path / "a.zip", {"a.png": bytes(100_000_000)})
    patch(path, "a.png", 22, struct.pack("<I", 1000), central_offset=24)
    with pytest.raises(InputError, match=r"a\.png cannot be read: Bad CRC-32"):
        opened(path)["a.png"]()


def test_a_bomb_within_the_limit_is_refused_by_its_ratio(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.png": bytes(70 << 20), "b.png": encoded(0)})
    found = opened(path)
    assert found["b.png"]() == encoded(0)
    with pytest.raises(InputError, match=r"a\.png would be unpacked from \d+ to 73400320 bytes"):
        found["a.png"]()


# the field that is the image


def samples(count, first=0):
    """WebDataset samples whose image is one of three pictures."""
    files = {}
    for i in range(first, first + count):
        files[f"{i:03d}.image.png"] = encoded(i)
        files[f"{i:03d}.mask.png"] = encoded(1000)
        files[f"{i:03d}.seg.png"] = encoded(2000)
        files[f"{i:03d}.json"] = json.dumps({"framing": {"name": f"of {i}"}}).encode()
    return files


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
@pytest.mark.parametrize("member", ["image.png", "IMAGE", ".image.png"])
def test_the_chosen_field_is_the_image(tmp_path, kind, member):
    path = tmp_path / f"a.{kind}"
    if kind == "folder":
        path.mkdir()
        for name, content in samples(3).items():
            (path / name).write_bytes(content)
    else:
        pack(path, samples(3))
    source = open_source(path, member)
    assert contents(source) == [encoded(i) for i in range(3)]
    assert dict(source.left_out) == {".mask.png": 3, ".seg.png": 3}
    assert source.framings() == {i: {"name": f"of {i}"} for i in range(3)}
    assert len(open_source(path).names) == 9  # not said: as ever


def test_a_choice_that_matches_nothing_lists_the_fields(tmp_path):
    path = pack(tmp_path / "a.zip", samples(3) | {"LICENSE": b"CC0"})
    with pytest.raises(UsageError, match="no file has the field picture") as caught:
        list(open_source(path, "picture").names)
    for words in ("image.png (3)", "mask.png (3)", "seg.png (3)", "json (3)"):
        assert words in caught.value.message


def test_another_choice_is_not_the_cache_of_the_first(tmp_path):
    path = pack(tmp_path / "a.zip", samples(18))
    found = [cache_images(open_source(path, m), tmp_path / "cache", 8) for m in ("image", "seg")]
    assert found[0].content_sha256 != found[1].content_sha256
    assert (found[1].copies, found[0].copies) == (17, 0)
    again = cache_images(open_source(path, "image"), tmp_path / "cache", 8)
    assert again.content_sha256 == found[0].content_sha256
