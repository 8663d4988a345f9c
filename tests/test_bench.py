"""The benchmark's baseline computes what we compute, and its report has the documented form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from pulse_sr.bench import search as bench
from pulse_sr.bench import search_turns
from pulse_sr.bench.baseline import BaselineBicubic, BaselineGenerator, BaselineSearch
from pulse_sr.bench.frame import compared, records
from pulse_sr.bench.options import SearchBench
from pulse_sr.bench.search_turns import Turns, fit_memory, take_turns
from pulse_sr.bench.sides import begin, low_res_target
from pulse_sr.cli import main
from pulse_sr.cli.bench_text import search_lines
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.operators.building import make_operator
from pulse_sr.priors import stylegan1
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.report.table import markdown
from pulse_sr.search.engine import Best, search
from pulse_sr.search.latents import diagonal_map, draw_noise
from pulse_sr.search.pulse import Pulse


@pytest.fixture(scope="module")
def prior():
    """A 32-px generator; every weight, bias and noise strength is random."""
    generator = Generator(StyleGAN2Config.from_base(32, 512, 16, w_dim=16, mapping_layers=2))
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
        [torch.randn(prior.num_ws, prior.latent_dim, generator=g) for g in generators]
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


def compare_trajectories(prior, steps, generator=None):
    """The original's loop and ours, one start, on the plain StyleGAN2 or on `generator`."""
    latent, noise = start(prior)
    target = low_res_target(prior)
    theirs = BaselineSearch(prior, target, latent, noise, steps=steps, generator=generator)
    losses = list(theirs.run())
    method = Pulse(prior, diagonal_map(prior.statistics), latent, noise, steps=steps)
    operator = make_operator("bicubic", target.shape[-1], prior.resolution)
    records = list(search(method, operator, target, Best(target_mse=0.0)))

    assert losses == pytest.approx([float(r.loss.sum()) for r in records], rel=1e-4)
    torch.testing.assert_close(theirs.latent, method.latent, atol=1e-3, rtol=0)
    for a, b in zip(theirs.noise, method.noise, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    # The steps did move something, or the comparison would say nothing.
    assert float((theirs.latent.detach() - latent).abs().max()) > 0.1
    assert float((theirs.noise[0].detach() - noise[0]).abs().max()) > 0.05


def test_baseline_trajectory_equals_ours(prior):
    compare_trajectories(prior, 3)


def test_the_trajectory_of_stylegan1_is_the_original_loops():
    """PULSE's loop on PULSE's generator, whose images have golden values in test_importers."""
    config = StyleGAN2Config.from_base(32, 512, 16, w_dim=16, mapping_layers=2)
    generator = stylegan1.Generator(config)
    rng = torch.Generator().manual_seed(0)
    for value in generator.parameters():
        value.data = torch.randn(value.shape, generator=rng) * (0.3 if value.dim() < 2 else 1.0)
    prior = stylegan1.StyleGAN1Prior("one", generator, fit_statistics(generator, 1000))
    compare_trajectories(prior, 3, lambda w, noise: (generator.synthesis(w, noise) + 1) / 2)


@pytest.fixture(scope="module")
def report(prior):
    return bench.bench_search(prior, SearchBench(2, steps=3, baseline_steps=2, repeats=1))


@pytest.mark.slow
@pytest.mark.xdist_group("report")  # one process makes it
def test_report_has_the_documented_form(report):
    assert set(report) == {"ratio", "rows", "environment"}
    assert json.loads(json.dumps(report)) == report
    names = [row["name"] for row in report["rows"]]
    assert names == [
        "pulse: one step",
        "phased: one step",
        "pulse: 2 samples x 100 steps",
        "phased: 2 samples x 100 steps",
        "pulse-sr --help (baseline: import torch)",
    ]
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["baseline_s"] / row["ours_s"])
    assert report["ratio"] == report["rows"][0]["ratio"]
    assert all(row["ours_peak_mb"] > row["ours_added_mb"] > 0 for row in report["rows"][2:4])
    assert report["rows"][2]["measured_steps"] == 3
    assert report["rows"][2]["baseline_measured_steps"] == 2
    assert report["rows"][4]["ratio"] > 1  # the help does not import torch
    environment = report["environment"]
    assert {"torch", "python", "cpu", "threads", "device", "prior_sha256"} <= set(environment)
    for row in report["rows"][:2]:
        found, rate = row["roofline"], environment["matrix_rates"]["float32"]
        assert found["step_s"] == row["ours_s"]
        assert found["share"] == pytest.approx(found["bound_s"] / found["step_s"])
        assert found["compute_s"] == pytest.approx(found["flop"] / rate)
        assert found["memory_s"] == pytest.approx(found["bytes"] / environment["copy_bandwidth"])
        assert max(found["compute_s"], found["memory_s"]) <= found["bound_s"]


# rows


def turns(**changes):
    return replace(Turns(8, 50, 8, 50, 2), **changes)


def test_whole_runs_are_scaled_to_100_steps():
    times = {"pulse": [[0.01] * 50, [0.03] * 50], "phased": [[0.02] * 50, [0.02] * 50]}
    times["baseline"] = [[0.06] * 50, [0.06] * 50]
    alone = {side: {"peak_mb": 300.0, "system_s": 0.5} for side in times}
    row = bench.run_rows(times, alone, turns())[0]
    values = (row["ours_s"], row["baseline_s"], row["ratio"], row["measured_steps"])
    assert values == pytest.approx((2.0, 6.0, 3.0, 50))
    assert (row["ours_s_per_sample"], row["baseline_s_per_sample"]) == pytest.approx((0.25, 0.75))
    assert (row["ours_peak_mb"], row["baseline_system_s"]) == (300.0, 0.5)
    assert "ours_peak_mb" not in bench.run_rows(times, {}, turns())[0]


def test_a_baseline_of_fewer_steps_and_samples_is_scaled():
    times = {"pulse": [[0.01] * 50], "phased": [[0.02] * 50], "baseline": [[0.06] * 10]}
    fewer = turns(baseline_samples=2, baseline_steps=10)
    row = bench.run_rows(times, {}, fewer)[0]
    assert (row["ours_s"], row["baseline_s"]) == pytest.approx((1.0, 0.06 * 100 * 4))
    assert (row["measured_steps"], row["baseline_measured_steps"]) == (50, 10)
    assert row["baseline_samples"] == 2
    step = bench.step_rows(times, fewer)[0]
    assert (step["baseline_s"], step["ratio"]) == pytest.approx((0.24, 24.0))
    assert step["ratio_range"] == pytest.approx([24.0, 24.0])


def test_rows_without_a_baseline_say_why():
    times = {"pulse": [[0.01] * 50], "phased": [[0.02] * 50]}
    none = turns(baseline_samples=0)
    alone = {"pulse": {"peak_mb": 300.0, "added_mb": 20.0, "system_s": 0.5}}
    rows = bench.step_rows(times, none) + bench.run_rows(times, alone, none)
    for row in rows:
        assert (row["baseline_s"], row["ratio"]) == (None, None)
        assert row["baseline_missing"] == "out of memory with one sample"
    environment = {"samples": 8, "copy_bandwidth": 5e9, "matrix_rates": {"float32": 1e11}}
    text = "\n".join(search_lines({"rows": rows, "environment": environment}))
    assert "pulse: 8 samples x 100 steps: no baseline, out of memory with one sample" in text
    assert "peak memory 300 MB (the search alone 20), system time 0.50 s" in text


def test_rows_are_medians_and_show_the_spread():
    row = compared("step", [[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]], [[6.0, 6.0, 6.0], [8.0, 8.0, 8.0]])
    assert (row["name"], row["ours_s"], row["baseline_s"], row["ratio"]) == ("step", 4.0, 7.0, 1.75)
    assert row["ratio_range"] == [2.0, 3.0]


# turns


def test_the_plain_loop_takes_its_turns_all_over_the_run():
    fewer = turns(steps=100, baseline_steps=10)
    taken = []
    for step in range(100):
        if fewer.is_turn(step, len(taken)):
            taken.append(step)
    assert taken == list(range(9, 100, 10))
    assert all(turns().is_turn(step, step) for step in range(50))
    assert list(turns(baseline_samples=0).amounts) == ["pulse", "phased"]


def test_when_the_time_is_over_ours_goes_on_and_the_rest_ends(prior):
    over = Turns(1, 4, 1, 4, 3, until=0.0)
    assert over.is_over
    times = take_turns(prior, over, lambda text: None)
    assert {side: [len(run) for run in runs] for side, runs in times.items()} == {
        "pulse": [4],
        "phased": [4],
        "baseline": [2],
    }


@pytest.fixture
def memory(monkeypatch, prior):
    """Lets `fit_memory` find that the plain loop fits with so many samples, or ours does not."""

    def with_room_for(most, ours_fits=True):
        def run(_, turns, progress):
            if turns.baseline_samples > most or not ours_fits:
                raise torch.OutOfMemoryError("no memory")

        monkeypatch.setattr(search_turns, "take_turns", run)
        return fit_memory(prior, turns(samples=8), lambda text: None)

    return with_room_for


def test_the_plain_loop_searches_as_many_as_it_has_memory_for(memory):
    assert [memory(most).baseline_samples for most in (8, 7, 3, 1, 0)] == [8, 4, 2, 1, 0]


def test_without_memory_for_our_sides_there_is_a_hint(memory):
    with pytest.raises(SetupError, match="out of memory with 8 samples"):
        memory(0, ours_fits=False)


def test_each_order_is_a_turn_of_a_side(prior):
    side = begin("baseline", prior, 1, 2, 0)
    found = list(records(lambda: side, prior.device, ["\n", "\n"]))
    assert [set(each) for each in found] == [{"seconds", "system_s", "peak_mb", "added_mb"}] * 2
    assert found[1]["peak_mb"] >= found[0]["peak_mb"] >= found[0]["added_mb"] >= 0
    assert found[0]["seconds"] > 0


@pytest.mark.slow
@pytest.mark.xdist_group("report")
def test_command_prints_only_json(monkeypatch, fake_api, report, tmp_path):
    def fake(prior, options, progress):
        assert options == SearchBench(4, 7, 3, 2, 90.0, precision="bf16")
        return report

    monkeypatch.setattr(bench, "bench_search", fake)
    words = ["bench", "search", "--samples", "4", "--steps", "7", "--repeats", "2"]
    words += ["--baseline-steps", "3", "--precision", "bf16", "--time", "90s"]
    file = tmp_path / "search.json"
    done = CliRunner().invoke(main, [*words, "--json", "--output", str(file)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == report
    document = json.loads(file.read_text())
    assert (document["rows"], document["environment"]) == (report["rows"], report["environment"])
    assert document["command"].startswith("pulse-sr bench search --samples 4 --steps 7")
    assert "| pulse: one step |" in markdown(document)
    shown = CliRunner().invoke(main, words).stdout
    assert "ours_s" in shown
    assert "peak memory" in shown
    assert "phased: one step: roofline" in shown
    assert "(3 and 2 steps)" in shown


def test_command_refuses_what_it_does_not_know(fake_api):
    assert CliRunner().invoke(main, ["bench", "nothing"]).exit_code == 2
    assert CliRunner().invoke(main, ["bench", "search", "--steps", "1"]).exit_code == 2


@pytest.mark.parametrize(
    "options",
    [{"steps": 1}, {"samples": 0}, {"baseline_steps": 1}, {"steps": 4, "baseline_steps": 5}],
)
def test_too_few_steps_or_too_many_of_the_baseline_are_refused(options):
    with pytest.raises(UsageError, match="expects"):
        SearchBench(**options)


def test_other_priors_are_refused():
    with pytest.raises(UsageError, match="StyleGAN2"):
        bench.bench_search(object(), SearchBench())
