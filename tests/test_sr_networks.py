"""Networks against other programs' outputs, parameter counts of the papers, and names of files.

`sr_networks.npz`: small networks with random weights, run in float64 by BasicSR 1.4.2 (MSRResNet,
RRDBNet, SRVGGNetCompact), Real-ESRGAN 0.3.0 (UNetDiscriminatorSN), deepinv 0.5.0 (SRResNet) and
spandrel 0.4.2 (ESRGAN with the names of its first files). Keys: `<network>/<weight>`, weights of
which are float16, `<network>:x` and `<network>:y`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pulse_sr.errors import UsageError
from pulse_sr.sr.architectures import NETWORKS, build_network
from pulse_sr.sr.compact import CompactNet
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.sr.discriminators import (
    SpectralDiscriminator,
    SSDDiscriminator,
    UNetDiscriminator,
    VGGDiscriminator,
)
from pulse_sr.sr.interpolation import interpolate_networks
from pulse_sr.sr.key_names import compact_config, rrdb_config, rrdb_weights, weights_of
from pulse_sr.sr.rrdb import RRDBNet
from pulse_sr.sr.srresnet import MSRResNet, SRResNet

GOLDEN = np.load(Path(__file__).parent / "data" / "sr_networks.npz", allow_pickle=False)
KINDS = ("weight", "bias")
SMALL = {"width": 4, "blocks": 2}
#: Where published weights and `golden_realesrgan.npz` lie; they are not part of the repository.
REFERENCE = Path(os.environ.get("PULSE_SR_REALESRGAN", "/nonexistent"))


def stored(name):
    return {
        key.removeprefix(f"{name}/"): torch.from_numpy(GOLDEN[key]).double()
        for key in GOLDEN.files
        if key.startswith(f"{name}/")
    }


def check(name, network, weights):
    """Counters of batch normalisation are not stored and do not matter here."""
    left = network.double().load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in left.missing_keys)
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(GOLDEN[f"{name}:x"]).double()).numpy()
    assert np.abs(found - GOLDEN[f"{name}:y"]).max() < 1e-12


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("msrresnet_x4", MSRResNet(4, 3, **SMALL)),
        ("msrresnet_x2", MSRResNet(2, 1, **SMALL)),
        ("compact_x4", CompactNet(4, 3, width=6, convolutions=2)),
        ("compact_x2", CompactNet(2, 1, width=6, convolutions=2)),
        ("unet", UNetDiscriminator(width=4)),
    ],
)
def test_networks_are_those_of_other_programs(name, network):
    check(name, network, stored(name))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_rrdb_is_that_of_basicsr_and_its_shape_is_read_off_its_weights(scale):
    weights = rrdb_weights(stored(f"rrdb_x{scale}"))
    config = rrdb_config(weights)
    assert config == RRDBNet(scale, growth=2, **SMALL).config
    check(f"rrdb_x{scale}", RRDBNet(**config), weights)


def test_srresnet_is_that_of_deepinv():
    """The same layers under names of its own."""
    renamed = {}
    for key, value in stored("srresnet_x4").items():
        for theirs, ours in {
            "fe.": "conv_first.",
            "blocks.": "body.",
            "block.": "conv_body.",
            "upsampling.": "upsample.",
            "final_conv.0": "conv_last",
        }.items():
            if key.startswith(theirs):
                renamed[key.replace(theirs, ours, 1).replace(".layers.", ".main.")] = value
                break
    check("srresnet_x4", SRResNet(4, 3, **SMALL), renamed)


def test_names_of_the_first_esrgan_files():
    weights = rrdb_weights(stored("esrgan_first_x4"))
    check("esrgan_first_x4", RRDBNet(**rrdb_config(weights)), weights)


@pytest.mark.parametrize(("scale", "unshuffle", "tail"), [(2, 1, (3, 5, 7)), (1, 1, (2, 4))])
def test_first_esrgan_files_of_other_scales(scale, unshuffle, tail):
    """`model.2` is where the enlargements begin, three entries each; then two convolutions."""
    network = RRDBNet(scale, width=4, blocks=1, growth=2, unshuffle=unshuffle)
    ours = [f"conv_up{i + 1}" for i in range(len(tail) - 2)] + ["conv_hr", "conv_last"]
    names = {f"model.{at}": name for at, name in zip(tail, ours, strict=True)}
    names |= {"model.0": "conv_first", "model.1.sub.1": "conv_body"}
    state = network.state_dict()
    old = {f"{n}.{kind}": state[f"{m}.{kind}"] for n, m in names.items() for kind in KINDS}
    for block in ("1", "2", "3"):
        for conv in range(1, 6):
            for kind in KINDS:
                old[f"model.1.sub.0.RDB{block}.conv{conv}.0.{kind}"] = state[
                    f"body.0.rdb{block}.conv{conv}.{kind}"
                ]
    found = rrdb_weights(old)
    assert rrdb_config(found) == network.config
    assert found.keys() == state.keys()
    assert all(found[key] is old_value for key, old_value in zip(found, old.values(), strict=True))
    network.load_state_dict(found)


def test_names_of_esrgan_files():
    state = {f"{name}.weight": torch.zeros(1) for name in ("conv_first", "conv_last")}
    names = {
        "RRDB_trunk.0.RDB1.conv1.weight": "body.0.rdb1.conv1.weight",
        "RRDB_trunk.22.RDB3.conv5.bias": "body.22.rdb3.conv5.bias",
        "trunk_conv.weight": "conv_body.weight",
        "upconv1.bias": "conv_up1.bias",
        "upconv2.weight": "conv_up2.weight",
        "HRconv.weight": "conv_hr.weight",
    }
    state |= dict.fromkeys(names, torch.zeros(1))
    assert set(rrdb_weights(state)) == {"conv_first.weight", "conv_last.weight", *names.values()}


def test_foreign_files_are_refused():
    with pytest.raises(ValueError, match="RRDBNet"):
        rrdb_weights(MSRResNet(4, 3, **SMALL).state_dict())
    with pytest.raises(ValueError, match="compact"):
        compact_config(MSRResNet(4, 3, **SMALL).state_dict())
    with pytest.raises(ValueError, match="no tensors"):
        weights_of({"params": {"epoch": 3}})


def test_the_averaged_weights_of_a_checkpoint_come_first():
    one, two = {"module.a": torch.ones(1)}, {"a": torch.zeros(1)}
    assert weights_of({"params": two, "params_ema": one}) == {"a": one["module.a"]}
    assert weights_of(two) == two


def test_parameter_counts_are_the_published_ones():
    assert parameters(RRDBNet()) == 16_697_987
    assert parameters(RRDBNet(blocks=6)) == 4_467_779
    assert parameters(SRResNet()) == 1_549_462
    assert parameters(MSRResNet()) == 1_517_571
    assert parameters(CompactNet()) == 621_424
    assert parameters(UNetDiscriminator()) == 4_376_897


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_enlarges_any_size_and_is_built_again_from_its_config(name, scale, channels):
    size = {"convolutions": 1} if name == "compact" else {"blocks": 1}
    network = build_network(name, {"scale": scale, "channels": channels, "width": 4, **size})
    again = build_network(name, network.config)
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, channels, 5, 7, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        enlarged = network.eval()(images)
        assert enlarged.shape == (2, channels, 5 * scale, 7 * scale)
        assert torch.equal(enlarged, again.eval()(images))


def test_all_parameters_of_every_network_learn():
    for name in NETWORKS:
        network = build_network(name, {"width": 4})
        network(torch.rand(2, 3, 6, 6)).square().mean().backward()
        kernels = [p for p in network.parameters() if p.dim() == 4]
        assert all(p.grad is not None and p.grad.any() for p in kernels), name


@pytest.mark.parametrize(
    ("network", "arguments"),
    [(SRResNet, {"scale": 3}), (RRDBNet, {"scale": 3}), (CompactNet, {"base": "cubic"})],
)
def test_arguments_that_make_no_sense(network, arguments):
    with pytest.raises(ValueError, match=r"scale|base"):
        network(**arguments)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_discriminator_of_srgan(batch_norm):
    """The layers of the paper's figure 4 at 96 px."""
    network = VGGDiscriminator(batch_norm=batch_norm)
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in convolutions] == [1, 2] * 4
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 7 * batch_norm
    assert network.classifier[0].in_features == 512 * 6 * 6
    with pytest.raises(ValueError, match=r"expected \(3, 96, 96\)"):
        network(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("size", [28, (17, 40)])
def test_discriminators_of_small_grey_images(size):
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.rand(2, 1, height, width)
    vgg = VGGDiscriminator(size, channels=1, width=4, hidden=8)
    assert vgg(images).shape == (2, 1)
    assert UNetDiscriminator(channels=1, width=4)(images).shape == (2, 1, height, width)
    assert SpectralDiscriminator(size)(images).shape == (2, 1)


def test_without_batch_norm_an_image_does_not_feel_the_others():
    network = VGGDiscriminator(28, channels=1, width=4, hidden=8, batch_norm=False).double()
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    alone = torch.cat([network(image[None]) for image in images])
    assert (network(images) - alone).abs().max() < 1e-14


def test_the_spectral_discriminator_sees_textures_not_light():
    """Scaling and moving all values leaves the normalised profile of the other rings alone."""
    network = SpectralDiscriminator(32).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert (network(images) - network(0.5 * images + 0.3)).abs().max() < 1e-6
    assert (network(images) - network(images.roll((3, 5), dims=(2, 3)))).abs().max() < 1e-9
    assert (network(images) - network(torch.rand(2, 3, 32, 32).double())).abs().min() > 1e-3
    with pytest.raises(ValueError, match="another spectrum"):
        network(torch.rand(1, 3, 24, 24).double())


def test_ssd_weighs_pixels_and_spectra():
    spatial, spectral = UNetDiscriminator(1, width=4).eval(), SpectralDiscriminator(16)
    network = SSDDiscriminator(spatial, spectral, weight=0.25)
    images = torch.rand(2, 1, 16, 16)
    expected = 0.25 * spatial(images) + 0.75 * spectral(images)[..., None, None]
    assert torch.allclose(network(images), expected)
    network(images).mean().backward()
    assert spectral.linear.weight.grad is None
    assert spatial.conv0.weight.grad.any()
    network.spectral_logits(images).mean().backward()
    assert spectral.linear.weight.grad.any()


def test_the_classifier_of_digits():
    assert DigitClassifier()(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_interpolation_of_two_networks():
    start, end = (SRResNet(2, 1, width=4, blocks=1) for _ in range(2))
    end(torch.rand(1, 1, 4, 4))  # batch normalisation counts
    a, b = start.state_dict(), end.state_dict()
    between = interpolate_networks(a, b, 0.8)
    assert torch.allclose(
        between["conv_last.weight"], 0.2 * a["conv_last.weight"] + 0.8 * b["conv_last.weight"]
    )
    assert between["conv_body.1.num_batches_tracked"] == 1
    for alpha, ends in ((0, a), (1, b)):
        found = interpolate_networks(a, b, alpha)
        assert all(torch.equal(v, ends[k]) for k, v in found.items() if v.is_floating_point())
    with pytest.raises(UsageError, match=r"differ in conv_first\.0\.weight"):
        interpolate_networks(a, SRResNet(2, 3, width=4, blocks=1).state_dict(), 0.5)
    with pytest.raises(UsageError, match="expected a number from 0 to 1"):
        interpolate_networks(a, b, 1.2)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="PULSE_SR_REALESRGAN names no folder")
@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("x4plus", "realesrgan_x4plus"),
        ("anime", "realesrgan_x4plus_anime"),
        ("video", "realesr_animevideov3_x4"),
    ],
)
@pytest.mark.parametrize("case", ["congress", "odd", "synth"])
def test_published_weights_give_what_ncnn_makes_of_them(model, file, case):
    golden = np.load(REFERENCE / "golden_realesrgan.npz", allow_pickle=False)
    weights = {k: v.float() for k, v in load_file(REFERENCE / f"{file}_fp16.safetensors").items()}
    if model == "video":
        network = CompactNet(**compact_config(weights))
    else:
        network = RRDBNet(**rrdb_config(rrdb_weights(weights)))
    network.load_state_dict(weights)
    with torch.inference_mode():
        found = network(torch.from_numpy(golden[f"in_{case}"])[None])[0].numpy()
    assert np.abs(found - golden[f"out_{model}_{case}"]).max() < 2e-5
    assert np.abs(found - golden[f"orig_{model}_{case}"]).max() < 2e-3
