"""FAN: 68 landmarks by the package `face-alignment`, on the faces that YuNet finds.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV
2017. The weights (about 100 MB) are not part of pulse-sr and are only downloaded when asked for.
Finding the faces by YuNet takes the place of the package's own detector, so that its second weight
file (s3fd) is not needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.alignment.landmarks.base import Face
from pulse_sr.alignment.landmarks.yunet import MIN_SCORE, WEIGHTS, YuNet
from pulse_sr.errors import SetupError, first_line
from pulse_sr.images.read import LowResImage

log = logging.getLogger(__name__)

FILE_NAME = "2DFAN4-11f355bf06.pth.tar"
URL = f"https://www.adrianbulat.com/downloads/python-fan/{FILE_NAME}"
#: The authors publish the first ten digits, as part of the file's name; the rest is not known here.
SHA256_PREFIX = "11f355bf06"


class Fan:
    """Finds faces with 68 landmarks.

    Args:
        weights: the weight file; None: `FILE_NAME` in `default_folder()`.
        download: fetch the file if it is missing.
        min_score: lowest confidence of YuNet to report.
        device: "cpu", "cuda" or "cuda:N".
    """

    name = "fan"

    def __init__(
        self,
        weights: Path | None = None,
        *,
        download: bool = False,
        min_score: float = MIN_SCORE,
        device: str = "cpu",
    ) -> None:
        self.weights = weights or default_folder() / FILE_NAME
        self.download = download
        self.device = device
        self._faces = YuNet(min_score)

    def find(self, image: LowResImage) -> list[Face]:
        """Returns the faces from left to right.

        Raises:
            SetupError: the weights are missing, damaged, or could not be downloaded.
        """
        network = self._network
        faces = self._faces.find(image)
        if not faces:
            return []
        boxes = [
            [left, top, left + width, top + height]
            for left, top, width, height in (face.box for face in faces)
        ]
        rgb = np.ascontiguousarray(image.pixels.transpose(1, 2, 0))
        found = network.get_landmarks_from_image(rgb, detected_faces=boxes)
        return [
            Face(np.asarray(points, dtype=np.float64), face.score, face.box)
            for face, points in zip(faces, found, strict=True)
        ]

    @cached_property
    def _network(self) -> Any:
        check_weights(self.weights, self.download)
        return _load(self.weights, self.device)


def default_folder() -> Path:
    """Returns where `face-alignment` itself keeps its weights: torch hub's `checkpoints`."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def check_weights(path: Path, download: bool = False) -> None:
    """Makes sure that the weight file is there and is the published one.

    Raises:
        SetupError: it is missing and `download` is false, could not be fetched, or has another
            checksum; the message holds the address, the checksum and the folder.
    """
    if not path.is_file():
        if not download:
            raise SetupError(
                f"the FAN weights {path} are missing; they are at {URL} "
                f"(sha256 begins with {SHA256_PREFIX}, the rest is not published)",
                f"--download fetches them into {path.parent}, or give a file with --weights; "
                "--landmarks yunet needs none",
            )
        _fetch(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(SHA256_PREFIX):
        raise SetupError(
            f"{path} has sha256 {digest[:12]}..., expected {SHA256_PREFIX}...",
            f"delete it and fetch {URL} again",
        )


def _fetch(path: Path) -> None:
    """Downloads the weights beside their place and renames them; half a file never stays."""
    log.warning("downloading %s to %s", URL, path)
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(URL, temporary)
        os.replace(temporary, path)
    except (OSError, urllib.error.ContentTooShortError) as error:
        raise SetupError(
            f"{URL} could not be downloaded: {getattr(error, 'reason', error)}",
            f"fetch it by other means into {path.parent}, or use --landmarks yunet",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _load(weights: Path, device: str) -> Any:
    """The package's class around our weight file; its own constructor would download."""
    from face_alignment import FaceAlignment, LandmarksType
    from face_alignment.models import FAN

    from pulse_sr.files.checkpoints import read_checkpoint

    class LocalFaceAlignment(FaceAlignment):
        def _load_native(self, name: str, size: int, device: str, dtype: Any) -> Any:
            network = FAN(size)
            network.load_state_dict(read_checkpoint(weights))
            return network.to(device, dtype=dtype).eval()

    try:
        return LocalFaceAlignment(
            LandmarksType.TWO_D,
            device=device,
            face_detector="yunet",  # for its scale of boxes; the boxes themselves come from us
            face_detector_kwargs={"path_to_detector": str(WEIGHTS)},
            compile=False,
        )
    except Exception as error:  # unpickling and loading raise whatever they like
        raise SetupError(
            f"{weights} does not hold the FAN weights: {first_line(error)}", f"fetch {URL} again"
        ) from error
