"""Pictures that tests read, fit and write."""

from __future__ import annotations

import numpy as np


def picture(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """Random RGB, uint8 [h, w, 3]: no orientation or channel order can be confused."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chw(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture with the spectrum of a photograph (amplitude 1/f), uint8 [h, w, 3]."""
    rng = np.random.default_rng(7)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1.0
    channels = []
    for _ in range(2):
        noise = np.fft.fft2(rng.standard_normal((height, width))) / frequency
        noise[0, 0] = 0
        channels.append(np.fft.ifft2(noise).real)
    grey, tint = (channel / channel.std() for channel in channels)
    rgb = 128 + 45 * grey[..., None] + 6 * tint[..., None] * np.array([1.0, -0.3, -1.0])
    return np.clip(rgb, 0, 255).astype(np.uint8)
