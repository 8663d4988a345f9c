"""Signs that a training has gone wrong, said once each.

GANs fail in few ways: D tells real from generated without effort, so that G learns nothing; G makes
the same image of all latents; a number overflows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

#: What helps a GAN whose losses are not finite.
STEADIER = "try a smaller --lr, a larger --gamma or --precision fp32"
#: Images over which D has to be sure before it is said.
SATURATED_IMAGES = 20_000
#: Mean sign of the logits from which D counts as sure.
SURE = 0.97
#: Samples that differ this many times as much as the training images, or less, have collapsed.
LEAST_SPREAD = 0.25


class CollapseWatch:
    """Looks at the records of a run; every kind of failure is reported once."""

    def __init__(self, steadier: str = STEADIER) -> None:
        """Nothing is observed yet.

        Args:
            steadier: what a user can do when losses are not finite.
        """
        self._steadier = steadier
        self._said: set[str] = set()
        self._signs: deque[tuple[int, float, float]] = deque()
        self._first_images: int | None = None

    def observe(self, images: int, losses: Mapping[str, float]) -> list[str]:
        """Take in a record of the log.

        Args:
            images: shown so far.
            losses: numbers by name; `real_sign` and `fake_sign` are the mean signs of D's logits.

        Returns:
            what is wrong and was not said before, a line each.
        """
        found = []
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            found += self._say(
                "finite",
                f"at {images / 1000:.1f} kimg {', '.join(broken)} is not a finite number; "
                f"{self._steadier}",
            )
        if self._is_saturated(images, losses):
            found += self._say(
                "saturated",
                f"D has been sure of nearly every image for {SATURATED_IMAGES / 1000:g} kimg "
                f"(at {images / 1000:.1f} kimg): G learns little; try stronger augmentation "
                "(--augment ada, --cutout), a larger --gamma or more images",
            )
        return found

    def observe_spread(self, images: int, spread: float) -> list[str]:
        """Take in how much samples differ from each other, over how much training images do."""
        if spread >= LEAST_SPREAD:
            return []
        return self._say(
            "spread",
            f"at {images / 1000:.1f} kimg samples differ from each other only {spread:.2f} times "
            "as much as the training images: mode collapse; take up an earlier prior "
            "(best.safetensors) or start again with a larger --gamma or a smaller --lr",
        )

    def _is_saturated(self, images: int, losses: Mapping[str, float]) -> bool:
        if "real_sign" not in losses or "fake_sign" not in losses:
            return False
        if self._first_images is None:
            self._first_images = images
        self._signs.append((images, losses["real_sign"], losses["fake_sign"]))
        while self._signs[0][0] <= images - SATURATED_IMAGES:
            self._signs.popleft()
        if images - self._first_images < SATURATED_IMAGES:
            return False
        real = sum(each[1] for each in self._signs) / len(self._signs)
        fake = sum(each[2] for each in self._signs) / len(self._signs)
        return real > SURE and fake < -SURE

    def _say(self, kind: str, line: str) -> list[str]:
        if kind in self._said:
            return []
        self._said.add(kind)
        return [line]
