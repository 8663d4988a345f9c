"""Which source of landmarks: by name, or a file."""

from __future__ import annotations

import os
from pathlib import Path

from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.errors import UsageError, shown

#: What `--landmarks` takes beside a file.
NAMES = ("yunet", "fan")


def make_landmarks(
    source: str = "yunet",
    *,
    min_score: float | None = None,
    weights: Path | None = None,
    download: bool = False,
    device: str = "cpu",
) -> Landmarks:
    """Returns the source of landmarks.

    Args:
        source: "yunet", "fan", or a JSON file (see `file`).
        min_score: lowest confidence of a face; None is the detector's default.
        weights: weight file of "fan".
        download: let "fan" fetch its weights.
        device: where "fan" computes.

    Raises:
        UsageError: no such source, or an option that it does not have.
        SetupError: the weights of "fan" are missing or damaged.
    """
    from pulse_sr.alignment.landmarks.yunet import MIN_SCORE, YuNet

    if source != "fan" and (weights is not None or download):
        raise UsageError("--weights and --download belong to --landmarks fan", "--landmarks fan")
    score = MIN_SCORE if min_score is None else min_score
    if source == "yunet":
        return YuNet(score)
    if source == "fan":
        from pulse_sr.alignment.landmarks.fan import Fan, check_weights

        fan = Fan(weights, download=download, min_score=score, device=device)
        check_weights(fan.weights, download)  # now, not at the first photo
        return fan
    if not os.path.isfile(source):
        known = ", ".join(NAMES)
        raise UsageError(
            f"--landmarks expects one of {known} or a JSON file, got {shown(source)}",
            "--landmarks yunet",
        )
    from pulse_sr.alignment.landmarks.file import FileLandmarks

    return FileLandmarks(Path(source))
