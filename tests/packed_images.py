"""Small pictures as bytes, packed into tars, zips and folders."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

from pulse_sr.data.sources import FolderSource


def encoded(seed, size=(16, 16), kind="PNG"):
    """A smooth picture as the bytes of a file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def pack(path, files, mode="w"):
    """Writes a tar, or a zip where the name says so.

    A value is the content of a file; in a tar also a function that changes its header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        return pack_zip(path, files, mode)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if callable(content):
                content(info)
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def pack_zip(path, files, mode="w"):
    with zipfile.ZipFile(path, mode, zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def patch(path, name, header_offset, content, central_offset=None):
    """Overwrites bytes in the local header of a member, and those of the directory if asked."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(name).header_offset
    data[start + header_offset : start + header_offset + len(content)] = content
    if central_offset is not None:
        entry = data.index(b"PK\1\2", data.rindex(b"PK\1\2", 0, data.rindex(name.encode())))
        data[entry + central_offset : entry + central_offset + len(content)] = content
    path.write_bytes(data)


def encrypt(path, *names):
    """Says of members that they are encrypted; the module can not write such ones."""
    for name in names:
        patch(path, name, 6, b"\1\0", central_offset=8)


def numbered(first, last, suffix="png", **options):
    return {f"{i:03d}.{suffix}": encoded(i, **options) for i in range(first, last)}


def write_folder(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(source):
    """The bytes of all images, in the order of training."""
    found = dict(source.read())
    return [found[place]() for place in range(len(source.names))]


def images_in(folder):
    """The paths of the images that a folder is as training data, in their order."""
    return [folder / name for name in FolderSource(folder).names]
