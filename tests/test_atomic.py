"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import chw, picture

from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import write_atomic, write_parts_atomic, write_text_atomic
from pulse_sr.images.write import write_png


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_is_a_setup_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(SetupError, match=r"disk is full: could not write .* to .*a\.png"):
            write_png(path, chw(picture()))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == []


def test_atomic_write_replaces_and_names_a_missing_folder(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.json", "é\n")
    write_text_atomic(tmp_path / "a.json", "脸\n")
    assert (tmp_path / "a.json").read_bytes() == "脸\n".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(SetupError, match=r"could not write .*none/a\.json: No such file"):
        write_text_atomic(tmp_path / "none" / "a.json", "")


def test_parts_are_written_as_they_come_or_not_at_all(tmp_path: Path) -> None:
    """An error in the middle leaves what was there, and nothing beside it."""
    path = tmp_path / "page.html"
    write_parts_atomic(path, (bytes([k]) for k in range(3)))
    assert path.read_bytes() == b"\x00\x01\x02"

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_parts_atomic(path, parts())
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    assert path.read_bytes() == b"\x00\x01\x02"
