"""Pack training images into one small archive, to be carried to another machine.

    python scripts/pack_images.py faces/train runs/faces-128.zip --quality 72

The images are cropped and resized as `pulse-sr train-prior` does and stored as JPEG
without colour subsampling, under their old names, so that the order of the training stays the same.
The 8,832 faces of the bundled prior take 30 MB at 128 px and quality 72.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import click

from pulse_sr.data.open import open_source
from pulse_sr.data.picture import decode_bytes
from pulse_sr.images.pixels import to_pillow


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--resolution", type=int, default=128, show_default=True)
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True)
def main(folder: Path, archive: Path, resolution: int, quality: int) -> None:
    """Write the images of FOLDER to ARCHIVE."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    source = open_source(folder)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for position, read in source.read():
            name, content = source.names[position], io.BytesIO()
            picture = to_pillow(decode_bytes(name, read(), resolution).pixels)
            picture.save(content, "JPEG", quality=quality, subsampling=0, optimize=True)
            name += "" if name.lower().endswith((".jpg", ".jpeg")) else ".jpg"
            file.writestr(name, content.getvalue())
    print(f"{archive}: {len(source.names)} images, {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
