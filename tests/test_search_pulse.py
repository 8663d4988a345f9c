"""PULSE's search, step by step, against stored runs of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_priors import SigmoidPrior, standard_statistics

from pulse_sr.operators.building import make_operator
from pulse_sr.priors.base import LatentStatistics
from pulse_sr.search.engine import Best, search
from pulse_sr.search.latents import diagonal_map
from pulse_sr.search.losses import geocross
from pulse_sr.search.pulse import Pulse

TRAJECTORY = np.load(Path(__file__).parent / "data" / "pulse_trajectory.npz", allow_pickle=False)

TOLERANCE = {1: 2e-5, 2: 2e-5, 3: 2e-5, 5: 1e-4, 10: 1e-4, 20: 5e-4, 50: 5e-4, 100: 5e-4}


def trajectory(name):
    return torch.from_numpy(TRAJECTORY[name])


def golden_search(variant):
    """The stored problem; the fitted variant searches through PULSE's latent map."""
    width = TRAJECTORY["M"].shape[2]
    statistics, to_style, eps = standard_statistics(width), lambda u: u, 2e-3
    if variant == "fitted":
        cholesky = trajectory("fit_std").diag()
        statistics = LatentStatistics(trajectory("fit_mean"), trajectory("fit_std"), cholesky, 1)
        to_style, eps = diagonal_map(statistics), 1e-8
    prior = SigmoidPrior(trajectory("M"), statistics)
    method = Pulse(prior, to_style, trajectory("latent_init"), (), steps=100, eps=eps)
    best = Best(target_mse=0.0)
    operator = make_operator("bicubic", 8, 32)
    return method, best, search(method, operator, trajectory(f"{variant}_ref_lr"), best)


@pytest.mark.parametrize("variant", ["plain", "fitted"])
def test_pulse_follows_the_original_step_by_step(variant):
    """Latents to `TOLERANCE` absolute, loss curves 2e-5 relative, rates 1e-12."""
    method, _, records = golden_search(variant)
    curves = {"TOTAL": [], "L2": [], "GEOCROSS": []}
    latents, rates = {}, []
    for record in records:  # before the update: the state after `step` updates
        latents[record.step] = method.latent.detach().clone()
        if record.step == 1:
            expected = trajectory(f"{variant}_grad_step1")
            assert (method.latent.grad - expected).abs().max() <= 1e-4 * expected.abs().max()
        curves["TOTAL"].append(record.loss.sum().item())
        curves["L2"].append(record.mse.clamp_min(method.eps).sum().item())
        curves["GEOCROSS"].append(geocross(method.w).sum().item())
        rates.append(method.rates(record.step)[0])
    latents[100] = method.latent.detach()
    for step, tolerance in TOLERANCE.items():
        expected = trajectory(f"{variant}_latent_step{step}")
        assert (latents[step] - expected).abs().max() < tolerance, step
    for name, curve in curves.items():
        expected = TRAJECTORY[f"{variant}_loss_{name}"]
        assert curve == pytest.approx(expected, rel=2e-5), name
    assert np.abs(np.array(rates) - TRAJECTORY[f"{variant}_lr"]).max() < 1e-12
