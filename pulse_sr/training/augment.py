"""DiffAugment: differentiable augmentation of real and generated images alike.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020.

Each transform is a pure function of the images and of its random draws, so that a test can give the
draws. Shapes: N images, C channels, H W size; images around [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def brightness(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Shift all pixels by `u - 0.5`; `u` uniform in [0, 1), `[N, 1, 1, 1]`."""
    return x + (u - 0.5)


def saturation(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Scale the distance to the grey value by `2 u`."""
    mean = x.mean(dim=1, keepdim=True)
    return (x - mean) * (u * 2) + mean


def contrast(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Scale the distance to the image's mean by `u + 0.5`."""
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    return (x - mean) * (u + 0.5) + mean


def translation(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Read pixel (h + rows, w + columns), zero outside; integer draws `[N]`."""
    h, w = x.shape[2:]
    pad_h, pad_w = translation_range(h), translation_range(w)
    padded = F.pad(x, [pad_w, pad_w, pad_h, pad_h])
    return torch.stack(
        [
            image[:, pad_h + r : pad_h + r + h, pad_w + c : pad_w + c + w]
            for image, r, c in zip(padded, rows.tolist(), columns.tolist(), strict=True)
        ]
    )


def translation_range(size: int) -> int:
    """The largest shift of `translation`: an eighth of the side."""
    return int(size / 8 + 0.5)


def cutout(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Zero a window of half the side centred at (rows, columns), cut at the border."""
    mask = torch.ones(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
    half = [int(size * 0.5 + 0.5) for size in x.shape[2:]]
    for i, (r, c) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        # The reference clamps the indices of the window, so its last row and column may repeat.
        top, left = r - half[0] // 2, c - half[1] // 2
        bottom, right = top + half[0] - 1, left + half[1] - 1
        limit = [min(max(v, 0), s - 1) for v, s in ((top, x.shape[2]), (bottom, x.shape[2]))]
        limit += [min(max(v, 0), s - 1) for v, s in ((left, x.shape[3]), (right, x.shape[3]))]
        mask[i, :, limit[0] : limit[1] + 1, limit[2] : limit[3] + 1] = 0
    return x * mask


def _uniform(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(x.shape[0], 1, 1, 1, generator=generator).to(x.device, x.dtype)


def _random_color(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    for transform in (brightness, saturation, contrast):
        x = transform(x, _uniform(x, generator))
    return x


def _random_translation(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shifts = [
        torch.randint(-limit, limit + 1, (x.shape[0],), generator=generator)
        for limit in map(translation_range, x.shape[2:])
    ]
    return translation(x, *shifts)


def _random_cutout(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    centres = [
        torch.randint(0, size + (1 - int(size * 0.5 + 0.5) % 2), (x.shape[0],), generator=generator)
        for size in x.shape[2:]
    ]
    return cutout(x, *centres)


POLICIES: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "color": _random_color,
    "translation": _random_translation,
    "cutout": _random_cutout,
}


def diff_augment(x: torch.Tensor, policy: tuple[str, ...], rng: torch.Generator) -> torch.Tensor:
    """Apply the transforms of `policy` in their order, each image with draws of its own.

    Args:
        x: images `[N, 3, H, W]` around [-1, 1].
        policy: names out of `POLICIES`; empty for none.
        rng: CPU generator of the draws.

    Returns:
        `[N, 3, H, W]`.
    """
    for name in policy:
        x = POLICIES[name](x, rng)
    return x
