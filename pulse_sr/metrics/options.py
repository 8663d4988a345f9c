"""The options of `eval`; imports neither torch nor numpy."""

from __future__ import annotations

METRICS = (
    "psnr",
    "ssim",
    "lr-psnr",
    "lpips-alex",
    "lpips-vgg",
    "dists",
    "squeezenet",
    "niqe",
    "brisque",
    "psnr-mean",
    "diversity",
    "pixel-distance",
    "coverage",
    "niqe-set",
    "frechet",
    "kernel",
    "precision",
    "recall",
    "sliced-wasserstein",
    "spectrum",
    "fid",
    "kid",
)
