"""What the page shows of a search that has ended, and the archive of its files.

Shape legend: S samples, R high-res side, h w low-res.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pulse_sr.errors import InputError
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.write import write_png
from pulse_sr.inversion.result import Result
from pulse_sr.jobs import store
from pulse_sr.jobs.comparison import enlargements, measured
from pulse_sr.jobs.manifest import RECORD
from pulse_sr.jobs.photo import AFTER, BEFORE
from pulse_sr.jobs.provenance import XMP, settings_of, text_chunks
from pulse_sr.models.registry import list_networks, load_network
from pulse_sr.sr.enlarging import Enlarge, network_bands
from pulse_sr.sr.files import SrModel
from pulse_sr.web.search import Search

#: Pictures are shown with this side or more, in px: browsers do not enlarge them.
_SHOWN = 512
#: Files of a run folder that name paths of this computer.
_TEXTS = (".json", ".html")


@dataclass(frozen=True)
class ShownSample:
    """A sample for the page: the picture, and how well it matches in dB."""

    picture: Path
    lr_psnr: float
    fine: bool


@dataclass(frozen=True)
class ShownFace:
    """What the page shows of one face.

    Attributes:
        name: such as "Face 2".
        about: low-res and high-res size, operator, method, seconds.
        samples: the faces that were found.
        bicubic: the input enlarged without knowledge of faces.
        mean, disagreement: over the samples.
        supervised: what a network makes of it; None: none enlarges so many times.
        network: its name, and how well it matches.
    """

    name: str
    about: str
    samples: tuple[ShownSample, ...]
    bicubic: Path
    mean: Path
    disagreement: Path
    supervised: Path | None
    network: str


@dataclass(frozen=True)
class Outcome:
    """What the page shows of one search.

    Attributes:
        faces: each that was searched.
        photo: the photo enlarged, and the same with the faces; None for a small face.
        failed: a sentence about each face that failed.
        archive: the ZIP of what `run` wrote.
    """

    faces: tuple[ShownFace, ...]
    photo: tuple[Path, Path] | None
    failed: tuple[str, ...]
    archive: Path


def gather(search: Search, shown: Path) -> Outcome:
    """Prepares what the page shows.

    Args:
        search: one that has ended with results.
        shown: a folder for pictures that only the page needs.

    Raises:
        InputError: the record of a face can not be read.
        SetupError: the disk is full, or a network is damaged.
    """
    shown.mkdir()  # not its parents: they are gone where the visit has ended
    plan, faces = search.plan, []
    for task in plan.tasks:
        result = search.results.get(task.stem)
        if result is not None:
            name = "The face" if task.face is None else f"Face {task.face.index}"
            faces.append(_face(name, plan.out / task.stem, result, shown / task.stem))
    base = plan.out / plan.tasks[0].base
    photo = (base / BEFORE, base / AFTER)
    return Outcome(
        tuple(faces),
        photo if all(each.is_file() for each in photo) else None,
        tuple(each.error for each in search.records if each.status == "failed"),
        archive(plan.out, plan.tasks[0].path, shown.parent),
    )


def archive(run_folder: Path, upload: Path, place: Path) -> Path:
    """Writes the files of a run folder into a ZIP.

    They are what `run` writes, but for the folder of the upload: the records and the page name the
    picture alone, as if the command had been started beside it.

    Args:
        run_folder: of the search.
        upload: its input.
        place: the folder of the ZIP.
    """
    target = place / f"pulse-sr-{upload.stem[:80]}.zip"
    private = f"{upload.parent}/".encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in sorted(run_folder.rglob("*")):
            if not path.is_file() or path.name.startswith("."):
                continue
            data = path.read_bytes()
            if path.suffix in _TEXTS:
                data = data.replace(private, b"")
            packed.writestr(str(path.relative_to(run_folder)), data)
    return target


def _face(name: str, folder: Path, result: Result, shown: Path) -> ShownFace:
    record = store.read_record(folder)
    if record is None:
        raise InputError(f"{folder.name}/{RECORD} can not be read", "search again")
    shown.mkdir()
    model = _network(result.scale, torch.device(result.device))
    pictures = enlargements(result, None if model is None else _way(model, result.scale))
    settings = settings_of(result)
    supervised, network = None, ""
    if model is not None:
        supervised = shown / "supervised.png"
        own = text_chunks({**settings, "network": model.name, "network_sha256": model.sha256})
        write_png(supervised, _large(pictures["supervised"]), own, XMP)
        match = measured(pictures["supervised"], result.observation, None)
        network = f"{model.name}: {match['lr_psnr']:.1f} dB"
    write_png(shown / "bicubic.png", _large(pictures["bicubic"]))
    write_png(shown / "mean.png", _large(pictures["mean"]), text_chunks(settings), XMP)
    about = (
        f"{result.observation.side} px to {result.resolution} px, "
        f"operator {result.observation.operator.spec}, method {result.config.method}, "
        f"seed {result.config.seed}, {sum(record['timing'].values()):.0f} s"
    )
    return ShownFace(
        name=name,
        about=about,
        samples=_samples(result, record["samples"], shown),
        bicubic=shown / "bicubic.png",
        mean=shown / "mean.png",
        disagreement=folder / "disagreement.png",
        supervised=supervised,
        network=network,
    )


def _network(scale: int, device: torch.device) -> SrModel | None:
    """The bundled network that enlarges so many times, or the next one that does more."""
    enough = [model for model in list_networks() if (model.scale or 0) >= scale]
    if not enough:
        return None
    return load_network(min(enough, key=lambda model: model.scale or 0).name, device)


def _way(model: SrModel, scale: int) -> Enlarge:
    return lambda low: np.concatenate(list(network_bands(model, low, scale)), axis=1)


def _samples(
    result: Result, entries: Sequence[store.Document], shown: Path
) -> tuple[ShownSample, ...]:
    """The samples in display size; the numbers are those of the files as written."""
    made = []
    for sample, entry in zip(result.samples_list, entries, strict=True):
        path = shown / f"shown_{entry['file']}"
        own = text_chunks(settings_of(result), entry["lr_psnr"])
        write_png(path, _large(sample.pixels), own, XMP)
        made.append(ShownSample(path, entry["lr_psnr"], entry["status"] == "ok"))
    return tuple(made)


def _large(pixels: Pixels) -> Pixels:  # [3, R, R]
    """A picture in display size, bicubic."""
    factor = _SHOWN / max(pixels.shape[1:])
    if factor <= 1:
        return pixels
    picture = to_pillow(pixels)
    size = (round(picture.width * factor), round(picture.height * factor))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1).copy()
