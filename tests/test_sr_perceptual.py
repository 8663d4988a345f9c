"""Losses through ImageNet networks, with made-up weights in files of the published shapes.

`perceptual_losses.npz`: DISTS by the authors' package and LPIPS by torchmetrics 1.9.0, in float64,
with the weights of `fake_backbones.py`, of two pairs of `losses.npz` enlarged three times by
repetition; gradients at every fifth row and seventh column. `dists_formula.npz`: the authors' DISTS
on stored features, in float32.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_backbones import features_of
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from pulse_sr.errors import SetupError
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.sr import backbones
from pulse_sr.sr.backbones import ALEXNET, VGG16, VGG19, find_weights, layer_index, read_weights
from pulse_sr.sr.losses import perceptual
from pulse_sr.sr.losses.perceptual import (
    PERCEPTUAL,
    DISTSLoss,
    LPIPSLoss,
    VGGLoss,
    dists_of_features,
    l2_pool,
)

DATA = Path(__file__).parent / "data"
GOLDEN = np.load(DATA / "perceptual_losses.npz", allow_pickle=False)
FORMULA = np.load(DATA / "dists_formula.npz", allow_pickle=False)
IMAGES = np.load(DATA / "losses.npz", allow_pickle=False)


def images():
    pair = (torch.from_numpy(IMAGES[f"img_{name}"])[:2].double() for name in "ab")
    return [x.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3) for x in pair]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of made-up files, and what the published files would be called with their sums."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, file in (("VGG16", VGG16), ("VGG19", VGG19), ("ALEXNET", ALEXNET)):
        buffer = io.BytesIO()
        torch.save({**features_of(file.title), "classifier.0.bias": torch.zeros(3)}, buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        files[name] = replace(file, name=f"{file.name.rsplit('-', 1)[0]}-{digest[:8]}.pth")
        (folder / files[name].name).write_bytes(buffer.getvalue())
    return folder, files


@pytest.fixture
def folder(weights, monkeypatch):
    for name, file in weights[1].items():
        monkeypatch.setattr(perceptual, name, file)
    return weights[0]


@pytest.mark.parametrize(
    ("stored", "build"),
    [
        ("dists", DISTSLoss),
        ("lpips_vgg", lambda folder: LPIPSLoss("vgg", folder)),
        ("lpips_alex", lambda folder: LPIPSLoss("alex", folder)),
    ],
)
def test_losses_are_those_of_other_programs(folder, stored, build):
    loss = build(folder).double().train()
    a, b = images()
    a.requires_grad_()
    value = loss(a, b)
    assert value.item() == pytest.approx(GOLDEN[stored].mean(), rel=1e-6)
    (gradient,) = torch.autograd.grad(value, a)
    expected = GOLDEN[f"{stored}_grad"]
    assert np.abs(gradient[..., ::5, ::7].numpy() - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("layer", "end", "criterion"),
    [("relu2_2", 9, F.mse_loss), ("relu5_4", 36, F.mse_loss), ("conv5_4", 35, F.l1_loss)],
)
def test_vgg_losses_take_the_layer_they_name(folder, layer, end, criterion):
    """The layers of torchvision's network, by their places in it."""
    network = make_layers(cfgs["E"])[:end]
    state = read_weights(perceptual.VGG19, folder)
    network.load_state_dict({k: state[k] for k in network.state_dict()})
    a, b = (x[..., ::3, ::3] for x in images())
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    maps = [network.double()((x - mean.double()) / std.double()) / 12.75 for x in (a, b)]
    expected = criterion(*maps).item()
    loss = VGGLoss(layer, criterion, folder=folder).double()
    assert loss(a, b).item() == pytest.approx(expected, rel=1e-6)
    assert (maps[0].min() < 0) == layer.startswith("conv")


def test_the_named_losses(folder):
    """Each is zero at the original, takes grey images, and teaches the image alone."""
    original = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    for name, build in PERCEPTUAL.items():
        loss = build(folder)
        assert abs(loss(original, original).item()) < 1e-6, name
        enlarged = (original * 0.9).requires_grad_()
        loss(enlarged, original).backward()
        assert enlarged.grad.isfinite().all(), name
        assert enlarged.grad.any(), name
        assert all(p.grad is None for p in loss.parameters()), name
    a, b = VGGLoss(folder=folder), PERCEPTUAL["vgg54"](folder)
    assert (a.scale, len(a.features), a.criterion) == (b.scale, len(b.features), b.criterion)
    before = PERCEPTUAL["vgg54-before-relu"](folder)
    assert isinstance(before.features[-1], nn.Conv2d)
    assert before.scale == 1


def test_squeezenet_needs_no_file():
    """The distance of the network that the package carries is differentiable."""
    original = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    enlarged = (original * 0.9).requires_grad_()
    feature_distance(enlarged, original).mean().backward()
    assert enlarged.grad.any()


@pytest.mark.parametrize(
    ("layer", "file", "index"),
    [
        ("conv1_1", VGG19, 0),
        ("relu2_2", VGG19, 8),
        ("relu3_4", VGG19, 17),
        ("conv5_4", VGG19, 34),
        ("relu5_4", VGG19, 35),
        ("relu3_3", VGG16, 15),
        ("relu5_3", VGG16, 29),
    ],
)
def test_places_of_layers(layer, file, index):
    assert layer_index(layer, file) == index


@pytest.mark.parametrize("layer", ["relu5_5", "pool1", "relu3_4", "conv0_0"])
def test_layers_that_are_not_there(layer):
    with pytest.raises(ValueError, match=f"VGG-16 has no layer '{layer}'"):
        layer_index(layer, VGG16)


def test_dists_of_stored_features():
    def stored(name):
        return torch.from_numpy(FORMULA[name]).double()

    a, b = ([stored(f"feat_{side}_{i}") for i in range(6)] for side in "xy")
    weights = [stored(f"{name}_random").flatten() for name in ("alpha", "beta")]
    found = dists_of_features(a, b, *weights)
    assert np.abs(found.numpy() - FORMULA["score_random_alpha_beta"]).max() < 2e-6


def test_the_carried_alpha_and_beta_are_the_published_ones(folder):
    """By the score of the stored features, and by their sums."""
    loss = DISTSLoss(folder).double()
    a, b = (
        [torch.from_numpy(FORMULA[f"feat_{side}_{i}"]).double() for i in range(6)] for side in "xy"
    )
    found = dists_of_features(a, b, loss.alpha, loss.beta)
    assert np.abs(found.numpy() - FORMULA["score_public_alpha_beta"]).max() < 1e-6
    assert loss.alpha.sum().item() == pytest.approx(FORMULA["alpha_sum"], rel=1e-6)
    assert loss.beta.sum().item() == pytest.approx(FORMULA["beta_sum"], rel=1e-6)


@pytest.mark.parametrize("case", [0, 1])
def test_l2_pooling_is_that_of_dists(case):
    found = l2_pool(torch.from_numpy(FORMULA[f"l2pool{case}_x"]).double())
    assert np.abs(found.numpy() - FORMULA[f"l2pool{case}_y"]).max() < 1e-6


@pytest.mark.parametrize("file", [VGG16, VGG19, ALEXNET])
def test_a_missing_file_is_named_with_all_that_is_needed(tmp_path, file):
    with pytest.raises(SetupError) as caught:
        find_weights(file, tmp_path)
    for part in (file.name, file.url, file.sha256, str(tmp_path), file.title):
        assert part in caught.value.message
    assert file.url.endswith(file.name)
    assert len(file.sha256) == 8


def test_the_folder_is_that_of_torch_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(SetupError, match="checkpoints") as caught:
        VGGLoss()
    assert str(tmp_path) in caught.value.message


def test_damaged_files(tmp_path):
    path = tmp_path / VGG16.name
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(SetupError, match=f"expected {VGG16.sha256}"):
        read_weights(VGG16, tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    named = replace(VGG16, name=f"vgg16-{digest[:8]}.pth")
    path.rename(tmp_path / named.name)
    with pytest.raises(SetupError, match="not a readable weight file"):
        read_weights(named, tmp_path)


def test_weights_of_another_network(folder, weights):
    with pytest.raises(SetupError, match="does not hold VGG-19"):
        backbones.vgg_features(replace(weights[1]["VGG16"], title="VGG-19", layers="E"), folder)
