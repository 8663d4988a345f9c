"""What an upload is: a small face, or a photo with faces that have numbers.

Shape legend: H W photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from pulse_sr.alignment.faces import FramedFace, frame_faces
from pulse_sr.alignment.geometry import framing_of
from pulse_sr.alignment.landmarks.choice import make_landmarks
from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.errors import InputError
from pulse_sr.images.fit import low_res_sides
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.read import LowResImage, read_image, read_size
from pulse_sr.jobs.plan import Plan, plan_run
from pulse_sr.priors.base import Prior
from pulse_sr.report.canvas import font

#: Low-res sides that the page offers start here, and a photo that is too fine is made so small.
SMALLEST_SIDE, USUAL_SIDE = 8, 16
#: The preview in px; small pictures are enlarged so that their pixels can be seen.
_PREVIEW = 720
_FOUND, _LEFT_OUT = (37, 99, 235), (120, 120, 128)


@dataclass(frozen=True)
class Look:
    """What was seen in an upload.

    Attributes:
        path: the picture.
        is_photo: faces are cut from it; otherwise it is a low-res face as a whole.
        width, height: of the picture in px.
        faces: the numbers of the faces that can be searched.
        found: how many faces the photo shows.
        side: the low-res side to begin with; None: what the picture supports.
        remarks: what is to be said of it, one line each.
        preview: the picture with the numbers, for the page.
    """

    path: Path
    is_photo: bool
    width: int
    height: int
    faces: tuple[int, ...]
    found: int
    side: int | None
    remarks: tuple[str, ...]
    preview: Path


def sides_of(prior: Prior) -> list[int]:
    """Returns the low-res sides that the page offers."""
    sides = low_res_sides(prior.resolution, None)
    return [side for side in sides if SMALLEST_SIDE <= side <= prior.resolution // 2]


def plan_search(
    path: Path, out: Path, prior: Prior, config: SearchConfig, faces: Sequence[int] = ()
) -> Plan:
    """Returns the plan of `run` for one upload: photos by their faces, small faces as they are.

    Raises:
        PulseError: see `plan_run`.
    """
    return plan_run([path], out, config, RunOptions(faces=tuple(faces)), prior)


def settings(
    prior: Prior, size: tuple[int, int], side: int | None, **config: object
) -> SearchConfig:
    """Returns the settings of a search; a small picture may be resized to what the prior knows.

    Args:
        prior: the prior.
        size: of the picture in px.
        side: the low-res side; None: what the picture supports.
        **config: other fields of `SearchConfig`.
    """
    scale = None if side is None else prior.resolution // side
    fit = "pad" if max(size) <= prior.resolution else None
    return SearchConfig(scale=scale, fit=fit, **config)  # type: ignore[arg-type]


def look(path: Path, prior: Prior, max_pixels: float) -> Look:
    """Finds out what an upload is.

    Args:
        path: the upload.
        prior: its framing and resolution decide what counts.
        max_pixels: the largest picture, in megapixels.

    Raises:
        InputError: it is no picture, too large, or shows no face that could be searched.
    """
    width, height = read_size(path)
    if width * height > max_pixels * 1e6:
        raise InputError(
            f"{path.name} has {width}x{height} px, this page takes {max_pixels:g} megapixels",
            "make it smaller, or cut the face out",
        )
    image = read_image(path)
    size, out = (image.width, image.height), path.parent / "none"
    side, remarks = None, list(image.notes)
    tasks = plan_search(path, out, prior, settings(prior, size, None)).tasks
    too_fine = tasks[0].refusal is not None or tasks[0].left_out
    if tasks[0].face is None and not too_fine:
        return _small_face(image, remarks)
    framed = frame_faces(image, make_landmarks(), framing_of(prior.card))
    if too_fine:
        side, remarks = _usual_side(prior), [*remarks, _too_fine(prior)]
        tasks = plan_search(path, out, prior, settings(prior, size, side)).tasks
    if tasks[0].face is None:
        raise tasks[0].refusal or InputError(f"{path.name} shows no face")
    remarks += tasks[0].face.left_out
    numbers = tuple(task.face.index for task in tasks if task.face is not None)
    preview = _save(_numbered(image.pixels, framed, numbers), path)
    return Look(path, True, *size, numbers, len(framed), side, tuple(remarks), preview)


def _usual_side(prior: Prior) -> int:
    return max([side for side in sides_of(prior) if side <= USUAL_SIDE], default=SMALLEST_SIDE)


def _too_fine(prior: Prior) -> str:
    side = _usual_side(prior)
    return (
        f"This photo shows its faces as fine as the prior could ({prior.resolution} px), so each "
        f"is made small first ({side} px): what is found then are other faces that would look "
        "the same from afar."
    )


def _small_face(image: LowResImage, remarks: Sequence[str]) -> Look:
    preview = _save(to_pillow(image.pixels), Path(image.path))
    size = (image.width, image.height)
    return Look(Path(image.path), False, *size, (), 0, None, tuple(remarks), preview)


def _numbered(pixels: Pixels, framed: Sequence[FramedFace], searched: Sequence[int]) -> Image.Image:
    """The photo [3, H, W] with the crop of each face and its number."""
    photo = to_pillow(pixels)
    factor = _PREVIEW / max(photo.size)
    size = (max(round(photo.width * factor), 1), max(round(photo.height * factor), 1))
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(photo)
    for number, face in enumerate(framed, start=1):
        colour = _FOUND if number in searched else _LEFT_OUT
        corners = [(float(x + 0.5) * factor, float(y + 0.5) * factor) for x, y in face.quad]
        draw.line([*corners, corners[0]], fill=(255, 255, 255), width=6, joint="curve")
        draw.line([*corners, corners[0]], fill=colour, width=3, joint="curve")
        # Above the crop, so that it does not hide a small face.
        left = min(max(min(x for x, _ in corners), 0), photo.width - 34)
        top = min(max(min(y for _, y in corners) - 36, 0), photo.height - 34)
        draw.rounded_rectangle((left, top, left + 32, top + 32), 6, fill=colour)
        draw.text((left + 16, top + 16), str(number), (255, 255, 255), font(20), anchor="mm")
    return photo


def _save(picture: Image.Image, path: Path) -> Path:
    """Writes the preview beside the upload; small pictures with visible pixels."""
    factor = _PREVIEW // max(picture.size)
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    elif max(picture.size) > _PREVIEW:
        picture.thumbnail((_PREVIEW, _PREVIEW))
    target = path.parent / "preview.png"
    while target == path:
        target = target.with_name(f"_{target.name}")
    picture.save(target)
    return target
