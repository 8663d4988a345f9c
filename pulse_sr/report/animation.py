"""The search as a moving picture: all samples of one input side by side, step by step.

`StepFrames` is told of every step and keeps some as files at once, so that memory does not grow;
`render_animation` puts the files together to a GIF with the match in dB beside the faces.

Shape legend: R high-res side, h w low-res.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pulse_sr.files.atomic import write_text_atomic
from pulse_sr.images.find import is_own_picture
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.write import write_png
from pulse_sr.report.animation_frame import Cell, Curve, FrameLayout
from pulse_sr.report.canvas import Pixels

#: Frames of the animation at most, the last one (the files as written) among them.
MOST_FRAMES = 60
#: Samples that are shown; frames are kept of all.
MOST_SHOWN = 16
MATCHES = "lr_psnr.csv"
#: The names of `frame_path`.
_FRAME = re.compile(r"sample_(\d{2,9})_step_(\d{4,9})\.png")

_FRAME_MS, _LAST_MS = 100, 2500

Matches = dict[int, list[tuple[int, float]]]


class StepFrames:
    """Takes in the steps of a search and keeps every n-th as `sample_SS_step_TTTT.png`.

    The match of every step goes to `lr_psnr.csv` (sample, step, lr_psnr) by `close`.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        chunks: Mapping[str, str] | None = None,
        xmp: str | None = None,
    ) -> None:
        """Begin; frames of other samples that are in the folder stay.

        Args:
            folder: where the frames go; it is made when the first one comes.
            steps: how many steps a sample takes at most.
            chunks: text of every PNG.
            xmp: XMP packet of every PNG.
        """
        self.folder = folder
        self.stride = max(1, -(-steps // (MOST_FRAMES - 1)))
        self._chunks, self._xmp = chunks, xmp
        self._matches: Matches = {}

    def on_step(self, sample_index: int, step: int, image: Tensor, lr_db: float) -> None:
        """Take in one step of one sample.

        Args:
            sample_index: of the sample, from 0.
            step: from 0; with 0 the sample begins (anew), and what it had is dropped.
            image: float `[3, R, R]`, clamped to [0, 1]; moved to the CPU only where it is kept.
            lr_db: LR-PSNR of `image` in dB.

        Raises:
            SetupError: the disk is full, or the place can not be written.
        """
        if step == 0:
            self._matches[sample_index] = []
            remove_frames(self.folder, sample_index)
        self._matches.setdefault(sample_index, []).append((step, float(lr_db)))
        if step % self.stride == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            pixels = to_uint8(image.detach().float().cpu().numpy())
            write_png(frame_path(self.folder, sample_index, step), pixels, self._chunks, self._xmp)

    def close(self) -> None:
        """Write the matches, those of other samples in the folder with them."""
        merged = {**read_matches(self.folder), **self._matches}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("sample", "step", "lr_psnr"))
        for index in sorted(merged):
            writer.writerows((index, step, f"{db:.4f}") for step, db in merged[index])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.folder / MATCHES, text.getvalue())


@dataclass(frozen=True)
class Written:
    """A sample as written: uint8 [3, R, R], and its LR-PSNR in dB."""

    index: int
    pixels: Pixels
    lr_psnr: float


def frame_path(folder: Path, sample_index: int, step: int) -> Path:
    """Returns the file of one frame."""
    return folder / f"sample_{sample_index:02d}_step_{step:04d}.png"


def all_frames(folder: Path) -> list[Path]:
    """Returns the frames of all samples."""
    return [path for path in sorted(folder.glob("sample_*.png")) if _FRAME.fullmatch(path.name)]


def frames_of(folder: Path, sample_index: int) -> dict[int, Path]:
    """Returns the frames of a sample by their step, in order."""
    found = ((_FRAME.fullmatch(path.name), path) for path in all_frames(folder))
    return dict(sorted((int(m[2]), path) for m, path in found if m and int(m[1]) == sample_index))


def remove_frames(folder: Path, sample_index: int | None = None) -> None:
    """Removes the frames of a sample; of all samples with None, and then the matches too.

    Files of such names that this program did not make stay.
    """
    for path in all_frames(folder):
        match = _FRAME.fullmatch(path.name)
        if match and sample_index in (None, int(match[1])) and is_own_picture(path):
            path.unlink(missing_ok=True)
    if sample_index is None and read_matches(folder):
        (folder / MATCHES).unlink(missing_ok=True)


def read_matches(folder: Path) -> Matches:
    """Returns (step, LR-PSNR in dB) of every step by sample; nothing if there is no such file."""
    found: Matches = {}
    try:
        with (folder / MATCHES).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                pair = (int(row["step"]), float(row["lr_psnr"]))
                found.setdefault(int(row["sample"]), []).append(pair)
    except (OSError, KeyError, TypeError, ValueError):  # missing or damaged
        return {}
    return found


def render_animation(
    folder: Path,
    low_res: Pixels,
    written: Sequence[Written],
    target_db: float | None,
    comment: str,
) -> bytes:
    """Draws the GIF of the samples that have frames, the first 16 of them.

    Frame k shows every sample at the k-th kept step; a sample that has ended stays as it is. The
    last frame shows the files as written.

    Args:
        folder: of the frames.
        low_res: uint8 [3, h, w], the input.
        written: the samples.
        target_db: LR-PSNR at which the search ends a sample, drawn as a line; None: no line.
        comment: kept in the file.

    Returns:
        The bytes of the file; it repeats for ever.

    Raises:
        ValueError: no sample has frames.
    """
    matches = read_matches(folder)
    with_frames = [each for each in written if frames_of(folder, each.index)]
    tracks = [
        _Track(each, frames_of(folder, each.index), matches.get(each.index, []))
        for each in with_frames[:MOST_SHOWN]
    ]
    if not tracks:
        raise ValueError(f"no frames in {folder}")
    side = written[0].pixels.shape[-1]
    layout = FrameLayout(low_res, side, len(tracks), target_db, [each.matches for each in tracks])
    steps = sorted({step for track in tracks for step in track.frames})
    last = layout.draw([track.end for track in tracks], None)
    early, middle = (
        layout.draw([track.at(step) for track in tracks], step)
        for step in (steps[0], steps[len(steps) // 2])
    )
    palette = _palette(early, middle, last)
    return _encode(_frames(layout, tracks, steps, last, palette), len(steps) + 1, comment)


@dataclass(frozen=True)
class _Track:
    written: Written
    frames: Mapping[int, Path]
    matches: Curve

    def at(self, step: int) -> Cell:
        kept = max((each for each in self.frames if each <= step), default=min(self.frames))
        with Image.open(self.frames[kept]) as image:
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
        reached = [pair for pair in self.matches if pair[0] <= step]
        ended = bool(self.matches) and step > self.matches[-1][0]
        words = f"#{self.written.index}"
        if reached:
            words += "  ended" if ended else f"  step {reached[-1][0] + 1}"
            words += f"  {reached[-1][1]:.1f} dB"
        return Cell(pixels, words, ended)

    @property
    def end(self) -> Cell:
        words = f"#{self.written.index}  as written  {self.written.lr_psnr:.1f} dB"
        return Cell(self.written.pixels, words, ended=True)


def _frames(
    layout: FrameLayout,
    tracks: Sequence[_Track],
    steps: Sequence[int],
    last: Image.Image,
    palette: Image.Image,
) -> Iterator[Image.Image]:
    """One after the other: a frame as drawn is dropped once it has the colours of the palette."""
    for step in steps:
        frame = layout.draw([track.at(step) for track in tracks], step)
        yield frame.quantize(palette=palette, dither=Image.Dither.NONE)
    yield last.quantize(palette=palette, dither=Image.Dither.NONE)


def _palette(*frames: Image.Image) -> Image.Image:
    """256 colours for all frames: with one palette, what does not change does not flicker."""
    together = Image.new("RGB", (frames[0].width, sum(each.height for each in frames)))
    top = 0
    for each in frames:
        together.paste(each, (0, top))
        top += each.height
    return together.quantize(256, Image.Quantize.MEDIANCUT)


def _encode(frames: Iterator[Image.Image], count: int, comment: str) -> bytes:
    buffer = io.BytesIO()
    next(frames).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames,
        duration=[_FRAME_MS] * (count - 1) + [_LAST_MS],
        loop=0,
        comment=comment,
    )
    return buffer.getvalue()
