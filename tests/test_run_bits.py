"""The bytes that `run` writes do not depend on the order of the inputs nor on their company.

Part of what runs again with other kernels (`scripts/foreign_cpu.sh`): products of matrices may
round a sample by its place in the batch on one CPU and not on another.
"""

from __future__ import annotations

import random

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from random_priors import random_stylegan2

from pulse_sr.cli import main
from pulse_sr.priors.files import FILE_NAME, save_prior

#: Width and height: whole cache lines and odd numbers of values.
SIZES = ((8, 8), (8, 5), (11, 16), (16, 16))
INPUTS, COMPANY = 24, 4
METHODS = ("phased", "pulse")

pytestmark = pytest.mark.kernels


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Of 8 channels: a sample's styles fill half a cache line."""
    path = tmp_path_factory.mktemp("prior") / FILE_NAME
    save_prior(path, random_stylegan2(0, noise_strength=0.1))
    return path.parent


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = torch.Generator().manual_seed(0)
    paths = []
    for number in range(INPUTS + COMPANY):
        width, height = SIZES[number % len(SIZES)]
        coarse = torch.rand(1, 3, 3, 3, generator=rng)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray((smooth * 255).byte().permute(1, 2, 0).numpy()).save(paths[-1])
    return paths


def samples(prior, paths, out, method):
    """Bytes of all samples, by input and name."""
    words = ["--prior", prior, "-o", out, "--method", method, "--samples", 2, "--steps", 6]
    words += ["--batch", 5, "--device", "cpu", "--target-db", 30]
    result = CliRunner().invoke(main, ["run", *map(str, [*paths, *words])])
    assert result.exit_code == 0, result.output
    return {(path.parent.name, path.name): path.read_bytes() for path in out.glob("*/sample_*.png")}


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_of_samples_depend_on_nothing_else_in_the_run(prior, inputs, tmp_path, method):
    own, company = inputs[:INPUTS], inputs[INPUTS:]
    first = samples(prior, own, tmp_path / "first", method)
    assert len(first) == 2 * INPUTS
    assert len(set(first.values())) == 2 * INPUTS
    mixed = [*own, *company]
    random.Random(1).shuffle(mixed)
    for name, paths in (("back", own[::-1]), ("mixed", mixed), ("one", own[6:7])):
        again = samples(prior, paths, tmp_path / name, method)
        assert [key for key in first if key in again and again[key] != first[key]] == []
        assert len(again) == 2 * len(paths)
