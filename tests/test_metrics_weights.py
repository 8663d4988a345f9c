"""Metrics by weight files of the user's, with made-up files in their place.

`perceptual_losses.npz`: see `test_sr_perceptual.py`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_backbones import features_of
from test_metrics_inception import Stand

from pulse_sr.errors import SetupError
from pulse_sr.metrics.case import Case
from pulse_sr.metrics.evaluation import Evaluation
from pulse_sr.metrics.inception import FILE
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.perceptual import PerceptualMetric
from pulse_sr.metrics.registry import REGISTRY, Settings
from pulse_sr.sr.backbones import ALEXNET, VGG16
from pulse_sr.sr.losses import perceptual

DATA = Path(__file__).parent / "data"
GOLDEN = np.load(DATA / "perceptual_losses.npz", allow_pickle=False)
IMAGES = np.load(DATA / "losses.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, file in (("VGG16", VGG16), ("ALEXNET", ALEXNET)):
        buffer = io.BytesIO()
        torch.save(features_of(file.title), buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        files[name] = replace(file, name=f"{name.lower()}-{digest[:8]}.pth")
        (folder / files[name].name).write_bytes(buffer.getvalue())
    return folder, files


@pytest.fixture
def folder(made, monkeypatch):
    for name, file in made[1].items():
        monkeypatch.setattr(perceptual, name, file)
    return made[0]


@pytest.mark.parametrize("name", ["dists", "lpips-vgg", "lpips-alex"])
def test_each_image_has_the_number_of_other_programs(folder, name):
    """One by one what DISTS' and torchmetrics' own code gives; they computed in float64."""
    metric = PerceptualMetric(name, folder)
    a, b = (
        torch.from_numpy(IMAGES[f"img_{each}"])[:2].repeat_interleave(3, 2).repeat_interleave(3, 3)
        for each in "ab"
    )
    found = [metric(a[i : i + 1], b[i])[0] for i in range(2)]
    assert found == pytest.approx(GOLDEN[name.replace("-", "_")].tolist(), rel=1e-4)
    assert metric(a, a[0])[0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="32 px or more"):
        metric(a[..., :31], a[0, ..., :31])


def test_dists_reduces_larger_images(folder):
    """Of 512 px the number is that of the same picture at 256 px."""
    metric = PerceptualMetric("dists", folder)
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 3, 256, 256, generator=rng) for _ in range(2))
    large = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (a, b)]
    reduced = [
        torch.nn.functional.interpolate(x, size=(256, 256), mode="bilinear", antialias=True)
        for x in large
    ]
    assert metric(large[0], large[1][0]) == metric(reduced[0], reduced[1][0])


@pytest.mark.parametrize("name", ["lpips-alex", "lpips-vgg", "dists"])
def test_weights_that_are_missing(tmp_path, name):
    with pytest.raises(SetupError, match=r"download.pytorch.org/models/(alexnet|vgg16)-") as caught:
        PerceptualMetric(name, tmp_path)
    assert str(tmp_path) in caught.value.hint


@pytest.mark.filterwarnings("ignore:`torch.jit.(script|save)` is deprecated:FutureWarning")
def test_kid_by_the_file_of_inception(tmp_path):
    """With a stand-in of the same interface: mean red, doubled, 2048 times."""
    torch.jit.save(torch.jit.script(Stand()), tmp_path / FILE)
    evaluation = Evaluation(["fid", "kid"], 4, Settings(weights=tmp_path))
    rng = torch.Generator().manual_seed(1)
    pairs = [torch.randint(0, 9, (2, 3, 8, 8), generator=rng, dtype=torch.uint8) for _ in range(4)]
    for ours, theirs in pairs:
        evaluation.add(Case(ours[None], theirs))
    fid, kid = evaluation.table()
    features = [
        torch.stack([2 * pair[side, 0].float().mean().expand(2048) for pair in pairs])
        for side in (0, 1)
    ]
    assert kid.value == pytest.approx(1000 * kernel_distance(*features), rel=1e-4)
    assert "needs 2049 images in each set" in fid.skipped


def test_every_metric_says_what_it_is():
    for name, metric in REGISTRY.items():
        assert metric.title, name
        assert len(metric.words(Settings().convention)) > 10, name
        assert (metric.of_case is None) != (metric.of_sets is None), name
        assert metric.better in ("higher", "lower", ""), name
