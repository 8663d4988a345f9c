"""Blind mode on a prior whose faces are known: textures with a spectrum like that of photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_priors import standard_statistics

from pulse_sr.errors import UsageError
from pulse_sr.inversion.blind.detection import (
    FACES,
    choose_operator,
    default_candidates,
    is_gray,
    learn,
)
from pulse_sr.inversion.blind.ranking import Ranking, recorded_ranking
from pulse_sr.operators.degrading import degrade
from pulse_sr.priors.base import Prior


class TexturePrior(Prior):
    """Random textures of power 1 / frequency^2 with little colour; w is white noise of 32x32 px."""

    def __init__(self):
        super().__init__("texture", 32, 1, 3 * 32 * 32, (), standard_statistics(1))
        frequency = torch.hypot(torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32))
        self.amplitude = 0.035 / frequency.clamp_min(1 / 32)

    @property
    def device(self):
        return torch.device("cpu")

    def map(self, z):
        return z

    def synthesize(self, w, noise=None, feature_deltas=None):
        white = w[:, 0].view(-1, 3, 32, 32)
        white = white[:, :1] + 0.1 * white
        spectrum = torch.fft.rfft2(white) * self.amplitude
        return 0.5 + torch.fft.irfft2(spectrum, s=(32, 32)) / 2

    def feature_shape(self, side):
        raise ValueError(f"no feature map of side {side}")


@pytest.fixture(scope="module")
def prior():
    return TexturePrior()


@pytest.fixture(scope="module")
def learned(prior):
    return learn(prior, (16, 16), 2, CANDIDATES)


CANDIDATES = ("bicubic", "gaussian:1.2", "gaussian:1.8", "bicubic|noise:0.05")


def faces(prior, count=20):
    """Faces that were not among those looked at, uint8."""
    return (prior.sample(range(count)) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("spec", CANDIDATES)
def test_the_operator_is_found(prior, learned, spec):
    rng = np.random.default_rng(0)
    low = [degrade(face, spec, 2, rng) for face in faces(prior)]
    chosen = [learned.rank(torch.from_numpy(y / 255.0)).best for y in low]
    assert chosen.count(spec) >= 18


def test_scores_are_relative_sorted_and_described(prior, learned):
    y = torch.from_numpy(degrade(faces(prior, 1)[0], "gaussian:1.8", 2) / 255.0)
    ranking = learned.rank(y)
    values = [score for _, score in ranking.rows]
    assert values[0] == 0
    assert values == sorted(values, reverse=True)
    assert {spec for spec, _ in ranking.rows} == set(CANDIDATES)
    assert ranking.best == ranking.describe()[0]["spec"] == "gaussian:1.8"
    assert ranking.runner_up == ranking.rows[1]
    assert ranking.best in ranking.sentence()
    assert ranking.runner_up[0] in ranking.sentence()


def test_among_equals_the_one_without_a_fitted_value_is_chosen(prior):
    """A Gaussian this narrow takes the mean of the middle pixels, as `area` does at scale 2."""
    y = torch.from_numpy(degrade(faces(prior, 1)[0], "area", 2) / 255.0)
    ranking = choose_operator(prior, y, 2, ["gaussian:0.01", "area"])
    assert ranking.best == "area"
    assert ranking.runner_up[1] == pytest.approx(-2.0, abs=1e-6)


def test_same_seed_same_ranking_and_a_window_is_allowed(prior):
    y = torch.from_numpy(degrade(faces(prior, 1)[0], "area", 2) / 255.0)[:, 2:14]
    first, again = (choose_operator(prior, y, 2, ["area", "gaussian:2"], seed=3) for _ in range(2))
    assert first == again
    assert first.best == "area"
    other = choose_operator(prior, y, 2, ["area", "gaussian:2"], seed=4)
    assert other.rows != first.rows


def test_a_grey_input_gets_grey_candidates(prior):
    y = torch.from_numpy(degrade(faces(prior, 1)[0], "gaussian:1.6|gray", 2) / 255.0)
    assert is_gray(y)
    ranking = choose_operator(prior, y, 2)
    assert ranking.best == "gaussian:1.6|gray"
    assert all(spec.endswith("|gray") for spec, _ in ranking.rows)


def test_default_candidates_have_widths_in_low_res_pixels_and_known_files():
    specs = default_candidates(8, jpeg=40)
    assert specs[0] == "bicubic|jpeg:40"
    assert "gaussian:4.8|jpeg:40" in specs
    assert "bicubic|noise:0.02|jpeg:40" in specs
    with pytest.raises(UsageError, match="scale of 2 or more, got 1"):
        default_candidates(1)


def test_one_candidate_is_no_choice(prior):
    with pytest.raises(UsageError, match="two candidates or more, got 1"):
        learn(prior, (16, 16), 2, ["area"])
    assert FACES > 2 * 10  # more faces than numbers of a face: the covariance has full rank


def test_a_ranking_says_when_the_runner_up_is_as_good_and_survives_a_record():
    near, clear = (Ranking((("a", 0.0), ("b", -behind))) for behind in (1.5, 2.5))
    assert near.sentence() == "operator auto: a (runner-up b, 1.5 nats behind: as good)"
    assert clear.sentence() == "operator auto: a (runner-up b, 2.5 nats behind)"
    assert recorded_ranking({"spec": "a", "candidates": near.describe()}) == near
    assert recorded_ranking({"spec": "a"}) is None
