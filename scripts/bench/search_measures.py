"""What `evaluate_search.py` measures of the samples of a face, as one record of its table.

Shapes: S samples, R the prior's resolution.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from search_inputs import Pixels, enlarge, to_tensor
from search_table import Record, features_to_text

from pulse_sr.metrics.diversity import distance_maps, diversity_score
from pulse_sr.metrics.niqe import BLOCK, niqe_features
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance, pooled_features
from pulse_sr.operators.building import make_operator

#: Methods of which every face has one record, without a search.
UNSEARCHED = ("truth", "bicubic")


def measure(samples: torch.Tensor, truth: torch.Tensor) -> Record:
    """Compare samples [S, 3, R, R] with the truth [1, 3, R, R], and with each other."""
    low, high = samples.amin(dim=0), samples.amax(dim=0)
    with torch.no_grad():
        distances = feature_distance(samples, truth)
    record = {
        "psnr": psnr(samples, truth).tolist(),
        "psnr_mean": psnr(samples.mean(dim=0, keepdim=True), truth).item(),
        "feature_distance": distances.tolist(),
        "diversity": samples.std(dim=0, correction=0).mean().item(),
        "coverage": ((truth[0] >= low) & (truth[0] <= high)).float().mean().item(),
    }
    if len(samples) > 1:
        record["ntire_diversity"] = diversity_score(distance_maps(samples, truth[0]))
    return record | measure_realism(samples)


def measure_realism(images: torch.Tensor) -> Record:
    """Features [S, F] of images [S, 3, R, R], for distances that are taken over a whole set."""
    record = {"features": features_to_text(pooled_features(images))}
    if images.shape[-1] >= BLOCK:
        # Of 10 faces float16 moves the NIQE by 4e-3, float32 by 3e-7.
        record["niqe_features"] = features_to_text(niqe_features(images), np.float32)
    return record


def evaluate_unsearched(method: str, low: Pixels, truth: Pixels, spec: str) -> Record:
    """The record of one of `UNSEARCHED`; of the truth, only how real it looks by these measures."""
    if method == "truth":
        return measure_realism(to_tensor(truth))
    return evaluate_bicubic(low, truth, spec)


def evaluate_bicubic(low: Pixels, truth: Pixels, spec: str) -> Record:
    """Bicubic upscaling as one more method, with one sample."""
    started = time.perf_counter()
    image = to_tensor(enlarge(low, truth.shape[-1]))
    seconds = time.perf_counter() - started
    operator = make_operator(spec, low.shape[-1], truth.shape[-1])
    db = operator.lr_psnr(image.double(), to_tensor(low).double()).tolist()
    own = {"lr_psnr_search": db, "lr_psnr": db, "hr_rms_change": [0.0], "seconds": seconds}
    return own | measure(image, to_tensor(truth))
