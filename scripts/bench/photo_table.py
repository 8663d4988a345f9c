"""How good photos come back from `run`, beside Lanczos and a network of the package.

Usage: python scripts/bench/photo_table.py portraits FOLDER -o OUT [--sizes 12,16,...] [--limit N]
       python scripts/bench/photo_table.py groups PHOTO... -o OUT [--upscale 2]
       python scripts/bench/photo_table.py table OUT/table.json

portraits: every portrait is made small until the crop of its face has so many px, enlarged by
`--upscale` (4) in each way, and compared with the original inside the face: in the crop, at the
side that it has in the enlarged photo, at most 128 px. Numbers are means over the samples. A face
that the photo shows as fine as the prior could is not searched: there `run` is Lanczos.

groups: the photo as it is. Of every face that was searched: the variance of the Laplacian over that
of the photo enlarged by Lanczos; PSNR of the result made small again against the photo; and the
largest of the mean changes of a channel along the outermost part of the rim.

table: the means of portraits, from their `table.json`, for scripts/render_tables.py.

OUT holds the small photos, the runs, which resume, and `table.json`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import laplace

from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.faces import frame_faces
from pulse_sr.alignment.geometry import Points, framing_of
from pulse_sr.alignment.landmarks.choice import make_landmarks
from pulse_sr.alignment.paste import enlarged_quad, mask_box
from pulse_sr.bench.frame import describe_machine
from pulse_sr.config import SearchConfig
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes, read_json
from pulse_sr.images.find import find_images
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.read import LowResImage, read_image
from pulse_sr.images.write import write_png
from pulse_sr.jobs.searching import run
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.metrics.ssim import ssim
from pulse_sr.models import registry
from pulse_sr.models.registry import load_network
from pulse_sr.report.table import Document, markdown, result_document
from pulse_sr.sr.enlarging import Enlarge, by_network

Row = dict[str, Any]
NETWORK, TABLE = "compact-x4", "table.json"
_RESULTS = Path("docs/results/photo-portraits.json")
_COLUMNS = {
    "crop, px": "{size}",
    "photos": "{photos}",
    "searched": "{searched}",
    "method": "{method}",
    "PSNR, dB": "{psnr:.2f}",
    "SSIM": "{ssim:.3f}",
    "feature distance": "{features:.3f}",
}
_LARGEST = 128  # px: the bundled prior's resolution
_RIM = 0.02  # weights of the rim's outermost part


def main() -> None:
    """Prints a table; the rows are in OUT/table.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("portraits", "groups", "table"))
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("photo_table"))
    parser.add_argument("--sizes", default="12,16,24,32,48,64", help="px of the crop of the face")
    parser.add_argument("--limit", type=int, help="portraits, in the order of names")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--upscale", type=int)
    options = parser.parse_args()
    upscale = options.upscale or (4 if options.what == "portraits" else 2)
    if options.what == "table":
        write_atomic(_RESULTS, json_bytes(portraits_document(read_json(options.inputs[0]) or [])))
    elif options.what == "portraits":
        paths = find_images([str(each) for each in options.inputs])[: options.limit]
        sizes = [int(each) for each in options.sizes.split(",")]
        rows = _portraits(paths, sizes, options.out, options.samples, upscale)
        print(markdown(portraits_document(rows)))
    else:
        rows = list(_groups(options.inputs, options.out, options.samples, upscale))
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items()))
        write_atomic(options.out / TABLE, json_bytes(rows))


def _portraits(
    paths: Sequence[Path], sizes: Sequence[int], out: Path, samples: int, upscale: int
) -> list[Row]:
    """The rows of portraits, written after each: those that OUT has are not made again."""
    landmarks, framing = make_landmarks(), framing_of(registry.load().card)
    network = by_network(load_network(NETWORK, torch.device("cpu")))
    rows: list[Row] = read_json(out / TABLE) or []
    known = {row["photo"] for row in rows}
    for path in paths:
        if path.stem not in known:
            photo = read_image(path)
            face = max(frame_faces(photo, landmarks, framing), key=lambda each: each.face.score)
            made = {size: _reduced(photo, face.quad, face.side, size, out) for size in sizes}
            options = {"align": "always", "upscale": upscale, "min_size": 8.0, "min_score": 0.5}
            small, folder = [file for file, _ in made.values()], out / "run" / path.stem
            list(run(small, folder, SearchConfig(samples=samples), **options))
            rows += _portrait_rows(photo, face.quad, made, folder, upscale, network)
            write_atomic(out / TABLE, json_bytes(rows))
    return rows


def _portrait_rows(
    photo: LowResImage,
    whole_quad: Points,
    made: dict[int, tuple[Path, Points]],
    folder: Path,
    upscale: int,
    network: Enlarge,
) -> Iterator[Row]:
    """The numbers of one portrait, by size and method."""
    for size, (file, quad) in made.items():
        side = min(size * upscale, _LARGEST)
        truth, place = _crop(photo.pixels, whole_quad, side), enlarged_quad(quad, upscale)
        pixels = read_image(file).pixels
        record = read_json(folder / file.stem / "photo.json") or {"faces": []}
        pictures = {
            "Lanczos": [_lanczos(pixels, upscale)],
            NETWORK: [network(pixels)] if upscale == 4 else [],
            "run": [read_image(each).pixels for each in _photos(folder / file.stem)],
        }
        for method, found in pictures.items():
            scores = _scores([_crop(each, place, side) for each in found], truth)
            about = {"photo": Path(photo.path).stem, "size": size, "method": method}
            yield {**about, "searched": len(record["faces"]), **scores}


def _reduced(
    photo: LowResImage, quad: Points, side: float, size: int, out: Path
) -> tuple[Path, Points]:
    """The photo with a crop of `size` px, as a file, and where the face is in it."""
    before = np.array([photo.width, photo.height])
    after = np.maximum(np.rint(before * size / side).astype(int), 1)
    width, height = (int(each) for each in after)
    small = to_pillow(photo.pixels).resize((width, height), Image.Resampling.LANCZOS)
    file = out / "small" / f"{Path(photo.path).stem}_{size}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(file, np.asarray(small).transpose(2, 0, 1))
    return file, (quad + 0.5) * after / before - 0.5


def _crop(pixels: Pixels, quad: Points, side: int) -> torch.Tensor:  # [1, 3, S, S] in [0, 1]
    return torch.from_numpy(crop_quad(pixels, quad, side, parity=False) / 255.0)[None]


def _photos(folder: Path) -> list[Path]:
    """The photos that a run wrote; none: no face was found, or there was a reason against it."""
    return sorted(folder.glob("photo_[0-9]*.png"))


def _lanczos(pixels: Pixels, factor: int) -> Pixels:
    size = (pixels.shape[2] * factor, pixels.shape[1] * factor)
    large = to_pillow(pixels).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(large).transpose(2, 0, 1)


@torch.no_grad()
def _scores(crops: Sequence[torch.Tensor], truth: torch.Tensor) -> Row:
    if not crops:
        return {"psnr": None, "ssim": None, "features": None}
    found = torch.cat(list(crops))
    distance = feature_distance(found.float(), truth.float())
    return {
        "psnr": round(float(psnr(found, truth).mean()), 3),
        "ssim": round(float(ssim(found, truth).mean()), 4),
        "features": round(float(distance.mean()), 4),
    }


def portraits_document(rows: Sequence[Row]) -> Document:
    """Means over the photos that have a result of every method, by size and method."""
    table: dict[tuple[int, str], list[Row]] = defaultdict(list)
    lost = {(row["photo"], row["size"]) for row in rows if row["psnr"] is None}
    for row in rows:
        if (row["photo"], row["size"]) not in lost:
            table[row["size"], row["method"]].append(row)
    means = [
        {
            "size": size,
            "method": method,
            "photos": len(found),
            "searched": sum(row["searched"] > 0 for row in found),
            **{name: mean(row[name] for row in found) for name in ("psnr", "ssim", "features")},
        }
        for (size, method), found in table.items()
    ]
    command = "python scripts/bench/photo_table.py portraits FOLDER -o OUT --samples 1"
    return result_document("", command, _COLUMNS, means, describe_machine(torch.device("cpu")))


def _groups(paths: Sequence[Path], out: Path, samples: int, upscale: int) -> Iterator[Row]:
    folder = out / f"run_{upscale}"
    list(run(paths, folder, SearchConfig(samples=samples), upscale=upscale))
    for path in paths:
        photo = read_image(path)
        plain = _lanczos(photo.pixels, upscale)
        record = read_json(folder / path.stem / "photo.json") or {"faces": [], "files": []}
        for name in record["files"]:
            made = read_image(folder / path.stem / name).pixels
            for face in record["faces"]:
                about = {"photo": path.name, "file": name, "face": face["number"]}
                quad = np.array(face["quad"])
                numbers = _face_numbers(photo.pixels, plain, made, quad, upscale)
                yield {**about, "side": face["side"], **numbers}


def _face_numbers(
    photo: Pixels, plain: Pixels, made: Pixels, quad: Points, upscale: int
) -> dict[str, float]:
    found = mask_box(quad, made.shape[2], made.shape[1])
    assert found is not None  # a face that was found lies in its photo
    (rows, columns), weight = found
    patch, before = (each[:, rows, columns].astype(float) for each in (made, plain))
    variances = [laplace(each.mean(axis=0))[weight == 1].var() for each in (patch, before)]
    rim = (weight > 0) & (weight < _RIM)
    change = np.abs((patch - before)[:, rim].mean(axis=1)).max()
    small = (quad + 0.5) / upscale - 0.5
    place = mask_box(small, photo.shape[2], photo.shape[1])
    assert place is not None
    (down, across), inside = place
    return {
        "laplacian": round(float(variances[0] / variances[1]), 3),
        "match_db": _match(made, photo, (down, across), inside, upscale),
        "lanczos_match_db": _match(plain, photo, (down, across), inside, upscale),
        "rim_levels": round(float(change), 3),
    }


def _match(
    large: Pixels,
    photo: Pixels,
    place: tuple[slice, slice],
    inside: NDArray[np.float64],
    upscale: int,
) -> float:
    """PSNR of a picture made small again by Lanczos, where a face is."""
    size = (photo.shape[2], photo.shape[1])
    image = to_pillow(large).resize(size, Image.Resampling.LANCZOS) if upscale > 1 else large
    again = np.asarray(image) if upscale == 1 else np.asarray(image).transpose(2, 0, 1)
    difference = (again[:, *place].astype(float) - photo[:, *place])[:, inside > 0]
    mse = float((difference**2).mean()) / 255.0**2
    return round(float(-10 * np.log10(max(mse, 1e-12))), 2)


if __name__ == "__main__":
    main()
