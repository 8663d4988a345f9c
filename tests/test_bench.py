"""The benchmark's baseline computes what we compute, and its report has the documented form."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from pulse_sr.bench import search as bench
from pulse_sr.bench.baseline import BaselineBicubic, BaselineGenerator, BaselineSearch
from pulse_sr.bench.sides import low_res_target, measure_alone
from pulse_sr.cli import main
from pulse_sr.operators import make_operator
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.search.engine import Best, search
from pulse_sr.search.latents import diagonal_map, draw_noise
from pulse_sr.search.pulse import Pulse


@pytest.fixture(scope="module")
def prior():
    """A 32-px generator; every weight, bias and noise strength is random."""
    generator = Generator(StyleGAN2Config.from_base(32, 256, 16, w_dim=12, mapping_layers=2))
    rng = torch.Generator().manual_seed(0)
    for value in generator.parameters():
        value.data = torch.randn(value.shape, generator=rng) * (0.3 if value.dim() < 2 else 1.0)
    for name, value in generator.named_buffers():
        if name.endswith("noise_const"):
            value.copy_(torch.randn(value.shape, generator=rng))
    return StyleGAN2Prior("tiny", generator, fit_statistics(generator, 1000))


def start(prior, samples=3):
    generators = [torch.Generator().manual_seed(i) for i in range(samples)]
    latent = torch.stack(
        [torch.randn(prior.num_rows, prior.latent_dim, generator=g) for g in generators]
    )
    return latent, draw_noise(prior.noise_shapes, generators)


def test_baseline_image_equals_ours(prior):
    w, noise = start(prior)
    ours, theirs = prior.synthesize(w, noise), BaselineGenerator(prior)(w, noise)
    assert theirs.is_contiguous()
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(4, 32), (8, 32), (8, 16), (16, 128)])
def test_baseline_downscaling_equals_ours(low, high):
    x = torch.rand(2, 3, high, high, generator=torch.Generator().manual_seed(0))
    ours = make_operator("bicubic", low, high)(x)
    theirs = BaselineBicubic(high // low, x.device)(x)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def test_baseline_trajectory_equals_ours(prior):
    latent, noise = start(prior)
    target = low_res_target(prior)
    theirs = BaselineSearch(prior, target, latent, noise, steps=3)
    losses = list(theirs.run())
    method = Pulse(prior, diagonal_map(prior.statistics), latent, noise, steps=3)
    operator = make_operator("bicubic", target.shape[-1], prior.resolution)
    records = list(search(method, operator, target, Best(target_mse=0.0)))

    assert losses == pytest.approx([float(r.loss.sum()) for r in records], rel=1e-4)
    torch.testing.assert_close(theirs.latent, method.latent, atol=1e-3, rtol=0)
    for a, b in zip(theirs.noise, method.noise, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    # The three steps did move something, or the comparison would say nothing.
    assert float((theirs.latent.detach() - latent).abs().max()) > 0.1
    assert float((theirs.noise[0].detach() - noise[0]).abs().max()) > 0.05


@pytest.fixture(scope="module")
def report(prior):
    return bench.bench_search(prior, samples=2, steps=3, repeats=1)


@pytest.mark.slow
def test_report_has_the_documented_form(report):
    assert set(report) == {"ratio", "rows", "environment"}
    assert json.loads(json.dumps(report)) == report
    for row in report["rows"]:
        assert {"name", "ours_s", "baseline_s", "ratio"} <= set(row)
        assert row["ratio"] == pytest.approx(row["baseline_s"] / row["ours_s"])
    assert report["ratio"] == report["rows"][0]["ratio"]
    assert {"torch", "python", "cpu", "threads", "device", "prior_sha256"} <= set(
        report["environment"]
    )


@pytest.mark.slow
def test_report_has_steps_whole_runs_and_the_start(report):
    names = [row["name"] for row in report["rows"]]
    assert names == [
        "pulse: one step",
        "phased: one step",
        "pulse: 2 samples x 100 steps",
        "phased: 2 samples x 100 steps",
        "pulse-sr --help (baseline: import torch)",
    ]
    assert all(row["ours_peak_mb"] > row["ours_added_mb"] > 0 for row in report["rows"][2:4])
    assert report["rows"][2]["measured_steps"] == 3
    assert report["rows"][4]["ratio"] > 1  # the help does not import torch


def test_whole_runs_are_scaled_to_100_steps():
    times = {"pulse": [[0.01] * 50, [0.03] * 50], "phased": [[0.02] * 50, [0.02] * 50]}
    times["baseline"] = [[0.06] * 50, [0.06] * 50]
    alone = {side: {"peak_mb": 300.0, "system_s": 0.5} for side in times}
    row = bench.run_rows(times, alone, samples=8)[0]
    values = (row["ours_s"], row["baseline_s"], row["ratio"], row["measured_steps"])
    assert values == pytest.approx((2.0, 6.0, 3.0, 50))
    assert (row["ours_peak_mb"], row["baseline_system_s"]) == (300.0, 0.5)
    assert "ours_peak_mb" not in bench.run_rows(times, {}, samples=8)[0]


def test_step_rows_are_medians_and_show_the_spread():
    times = {"pulse": [[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]], "phased": [[1.0], [1.0]]}
    times["baseline"] = [[6.0, 6.0, 6.0], [8.0, 8.0, 8.0]]
    row = bench.step_rows(times)[0]
    assert (row["ours_s"], row["baseline_s"]) == (4.0, 7.0)
    assert row["ratio_range"] == [2.0, 3.0]


def test_measuring_one_side_alone(prior):
    result = measure_alone(prior, "baseline", samples=1, steps=2)
    assert result["seconds"] > 0
    assert result["peak_mb"] >= result["added_mb"] >= 0


@pytest.mark.slow
def test_command_prints_only_json(monkeypatch, fake_api, report):
    def fake(prior, samples, steps, repeats, progress):
        assert (samples, steps, repeats) == (4, 7, 2)
        return report

    monkeypatch.setattr(bench, "bench_search", fake)
    words = ["bench", "search", "--samples", "4", "--steps", "7", "--repeats", "2"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == report
    shown = CliRunner().invoke(main, words).stdout
    assert "ours_s" in shown
    assert "peak memory" in shown


def test_command_refuses_what_it_does_not_know(fake_api):
    assert CliRunner().invoke(main, ["bench", "nothing"]).exit_code == 2
    assert CliRunner().invoke(main, ["bench", "search", "--steps", "1"]).exit_code == 2


def test_other_priors_are_refused():
    from pulse_sr.errors import UsageError

    with pytest.raises(UsageError, match="StyleGAN2"):
        bench.bench_search(object())
