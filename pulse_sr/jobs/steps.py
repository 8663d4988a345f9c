"""`--save-steps`: frames of the search and their animation, in the folder of an input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulse_sr import __version__
from pulse_sr.config import SearchConfig
from pulse_sr.files.atomic import write_atomic
from pulse_sr.images.find import is_own_picture
from pulse_sr.images.pixels import Pixels
from pulse_sr.jobs.drawing import is_whole, read_pixels
from pulse_sr.jobs.provenance import COMMENT, XMP
from pulse_sr.report.animation import (
    MATCHES,
    StepFrames,
    Written,
    all_frames,
    frame_path,
    frames_of,
    read_matches,
    remove_frames,
    render_animation,
)

FOLDER, ANIMATION = "steps", "search.gif"

Document = dict[str, Any]


def begin_steps(folder: Path, config: SearchConfig, *, keep: bool) -> StepFrames:
    """Returns what the search tells its steps to.

    Args:
        folder: of the input.
        config: the settings.
        keep: keep the frames of samples that are there already, since more are added to them.

    Raises:
        SetupError: an old file can not be removed.
    """
    if not keep:
        clear_steps(folder)
    chunks = {"Software": f"pulse-sr {__version__}", "Comment": COMMENT}
    return StepFrames(folder / FOLDER, config.total_steps, chunks, XMP)


def finish_steps(
    folder: Path,
    frames: StepFrames,
    samples: Sequence[Document],
    pixels: Pixels,
    target_db: float | None,
) -> None:
    """Writes the matches and the animation of the samples as written.

    Adds to the entry of each sample how many `frames` it has.

    Args:
        folder: of the input; the samples are there already.
        frames: what the search was told to.
        samples: entries of all samples of the folder.
        pixels: of the samples as written, [S, 3, R, R].
        target_db: LR-PSNR at which the search ends a sample; None: it ends none early.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    frames.close()
    for each in samples:
        found = frames_of(folder / FOLDER, each["index"])
        if found:
            each["frames"] = len(found)
    written = [
        Written(each["index"], own, each["lr_psnr"])
        for each, own in zip(samples, pixels, strict=True)
        if each.get("frames")
    ]
    if written:
        low_res = read_pixels(folder / "input.png")
        data = render_animation(folder / FOLDER, low_res, written, target_db, COMMENT)
        write_atomic(folder / ANIMATION, data)


def step_files(folder: Path) -> list[Path]:
    """The files that the steps of a search may be written to: of the frames, those there."""
    frames = folder / FOLDER
    return [folder / ANIMATION, frames / MATCHES, *all_frames(frames)]


def named_steps(folder: Path) -> set[str]:
    """The names of such files that the table of the matches has; none where it is damaged."""
    frames = folder / FOLDER
    matches = read_matches(frames)
    names = {
        frame_path(frames, index, step).name
        for index, pairs in matches.items()
        for step, _ in pairs
    }
    return names | {MATCHES, ANIMATION} if matches else set()


def has_steps(folder: Path, entry: Document) -> bool:
    """Whether the frames of a sample and the animation are there and whole."""
    frames = frames_of(folder / FOLDER, entry["index"])
    files = (folder / ANIMATION, folder / FOLDER / MATCHES)
    there = bool(frames) and len(frames) == entry.get("frames", 0)
    return (
        there
        and all(path.is_file() for path in files)
        and all(is_whole(path) for path in frames.values())
    )


def clear_steps(folder: Path) -> None:
    """Removes the frames, their folder where nothing else is in it, and the animation."""
    if is_own_picture(folder / ANIMATION):
        (folder / ANIMATION).unlink()
    frames = folder / FOLDER
    if frames.is_symlink():
        return
    remove_frames(frames)
    if frames.is_dir() and not any(frames.iterdir()):
        frames.rmdir()
