"""Checkpoints of other programs give the images that those programs give.

The golden arrays are those of the programs themselves; tolerance 1e-4 absolute on images.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import fastgan_golden
import numpy as np
import pytest
import torch
from foreign_checkpoints import (
    nvidia_pickle,
    pickled,
    plain_module,
    projected_gan_pickle,
    tensorflow_pickle,
)
from safetensors.torch import load_file

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.models.importing import read_foreign
from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.priors.fastgan_prior import FastGANPrior
from pulse_sr.priors.recalibration import recalibrate
from pulse_sr.priors.statistics import standard_statistics
from pulse_sr.priors.stylegan2_bilinear import BilinearPrior

FOLDER = Path(__file__).parent / "data"


def arrays(name):
    stored = np.load(FOLDER / f"{name}.npz", allow_pickle=False)
    return {key: torch.from_numpy(stored[key]) for key in stored.files if key != "meta_json"}


def tensors(name, prefix=""):
    found = load_file(FOLDER / f"{name}.safetensors")
    return {key[len(prefix) :]: value for key, value in found.items() if key.startswith(prefix)}


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def off(maps):
    return [None] * len(maps)


# rosinality

ROSINALITY = "stylegan2_rosinality_tiny"


@pytest.fixture(scope="module")
def rosinality(tmp_path_factory):
    path = tmp_path_factory.mktemp("rosinality") / "550000.pt"
    golden = tensors(ROSINALITY)
    content = {
        "g_ema": tensors(ROSINALITY, "g_ema."),
        "d": tensors(ROSINALITY, "d."),
        "latent_avg": golden["latent_avg"],
    }
    torch.save(content, path)
    return read_foreign(path).generator.eval()


def test_rosinality_images(rosinality):
    golden = arrays(ROSINALITY)
    w = rosinality.mapping(golden["z"])
    assert relative(w, golden["w"]) < 1e-5
    ws = rosinality.mapping.truncate(w, 8)
    maps = rosinality.synthesis.fixed_noise()
    given = [golden[f"noise_{i}"] for i in range(7)]
    pulled = rosinality.mapping.truncate(w, 8, psi=0.6)
    for styles, noise, name in [
        (ws, maps, "img_buffer_noise"),
        (ws, off(maps), "img_zero_noise"),
        (ws, given, "img_explicit_noise"),
        (golden["latents_mix"], given, "img_mix"),
        (golden["wplus"], given, "img_wplus"),
    ]:
        assert (rosinality.synthesis(styles, noise) - golden[name]).abs().max() < 1e-4, name
    assert relative(pulled, golden["latents_trunc"]) < 1e-5


def test_rosinality_gradients(rosinality):
    golden = arrays(ROSINALITY)
    ws = golden["wplus"].clone().requires_grad_()
    noise = [golden[f"noise_{i}"].clone().requires_grad_() for i in range(7)]
    (rosinality.synthesis(ws, noise) * golden["grad_cot"]).sum().backward()
    assert relative(ws.grad, golden["grad_wplus"]) < 5e-5
    for i, each in enumerate(noise):
        assert relative(each.grad, golden[f"grad_noise_{i}"]) < 5e-5


# PULSE

PULSE = "pulse_stylegan1_small"


@pytest.fixture(scope="module")
def pulse_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pulse")
    for name in ("synthesis", "mapping"):
        content = tensors(PULSE, f"G_{name}.")
        torch.save(content, folder / f"{name}.pt", _use_new_zipfile_serialization=False)
    return folder


def test_pulse_images_and_gradients(pulse_folder):
    golden = arrays(PULSE)
    generator = read_foreign(pulse_folder / "synthesis.pt").generator.eval()
    assert (generator.mapping(golden["z"]) - golden["mapping_out"]).abs().max() < 1e-5
    ws = golden["latents"].clone().requires_grad_()
    noise = [golden[f"noise_{i}"] for i in range(12)]
    image = generator.synthesis(ws, noise)
    assert (image - golden["image"]).abs().max() < 3e-4  # of values up to 23
    (image * golden["grad_cot"]).sum().backward()
    assert relative(ws.grad, golden["grad_latents"]) < 2e-4


# NVIDIA

NVIDIA = "stylegan2_tiny"


def written(tmp_path, data, name="network.pkl"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("write", [nvidia_pickle, tensorflow_pickle])
def test_nvidia_images_and_gradients(tmp_path, write):
    """Constant noise and none, truncation 1 and 0.7, from both releases' layouts."""
    golden = arrays(NVIDIA)
    path = written(tmp_path, write(tensors(NVIDIA, "G.")))
    generator = read_foreign(path).generator.eval()
    w = generator.mapping(golden["z"])
    maps = generator.synthesis.fixed_noise()
    for psi, name in ((1.0, "psi1"), (0.7, "trunc")):
        ws = generator.mapping.truncate(w, 8, psi=psi)
        assert relative(ws, golden[f"ws_{name}"]) < 1e-5
        for noise, kind in ((maps, "const"), (off(maps), "none")):
            image = generator.synthesis(ws, noise)
            assert (image - golden[f"img_{name}_{kind}"]).abs().max() < 1e-4
    ws = golden["ws_psi1"].clone().requires_grad_()
    (generator.synthesis(ws, maps) * golden["grad_cot"]).sum().backward()
    assert relative(ws.grad, golden["grad_ws"]) < 5e-5


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_learning_rate_of_the_mapping_is_read(tmp_path, protocol):
    """A mapping of another multiplier holds other weights for the same styles."""
    golden, weights = arrays(NVIDIA), tensors(NVIDIA, "G.")
    for key in weights:
        if key.startswith("mapping.fc"):
            weights[key] = weights[key] / 5
    path = written(tmp_path, nvidia_pickle(weights, lr_multiplier=0.05, protocol=protocol))
    generator = read_foreign(path).generator
    assert relative(generator.mapping(golden["z"]), golden["ws_psi1"][:, 0]) < 1e-5


def changed(**extra):
    return tensors(NVIDIA, "G.") | extra


FILTER = "synthesis.b8.conv0.resample_filter"
GREY = {f"synthesis.b{r}.torgb.weight": torch.zeros(1, 32, 1, 1) for r in (4, 8, 16, 32)}
REFUSED = {
    "a conditional network of 10 classes": lambda: nvidia_pickle(changed(), c_dim=10),
    "a StyleGAN3 network of 32 px": lambda: nvidia_pickle(
        {"synthesis.input.freqs": torch.zeros(4, 2), "mapping.fc0.weight": torch.zeros(4, 4)}
    ),
    "a StyleGAN2 of the residual architecture": lambda: nvidia_pickle(
        changed(**{"synthesis.b8.skip.weight": torch.zeros(8, 8, 1, 1)})
    ),
    "resample_filter is not": lambda: nvidia_pickle(changed(**{FILTER: torch.ones(4, 4) / 16})),
    "a StyleGAN2 of 1 channels": lambda: nvidia_pickle(changed(**GREY)),
    "a network of the class Generator": lambda: nvidia_pickle({"a.weight": torch.zeros(1)}),
    "a dictionary of 1 entries: weights": lambda: pickled({"weights": [1.0]}, 4),
    "a list": lambda: pickled([1.0], 4),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_can_not_be_searched_is_named(tmp_path, words):
    path = written(tmp_path, REFUSED[words]())
    with pytest.raises(UsageError, match="holds") as error:
        read_foreign(path)
    assert words in error.value.message
    assert "\n" not in error.value.message


def test_missing_and_infinite_tensors_are_damage(tmp_path):
    weights = changed()
    del weights["synthesis.b16.conv1.bias"]
    with pytest.raises(SetupError, match=r"do not fit .*b16\.conv1\.bias"):
        read_foreign(written(tmp_path, nvidia_pickle(weights)))
    weights = changed(**{"synthesis.b4.const": torch.full((32, 4, 4), torch.nan)})
    with pytest.raises(SetupError, match=r"b4\.const are nan or infinite"):
        read_foreign(written(tmp_path, nvidia_pickle(weights)))
    weights = changed()
    del weights["mapping.fc0.weight"], weights["mapping.fc0.bias"]
    with pytest.raises((SetupError, UsageError)):
        read_foreign(written(tmp_path, nvidia_pickle(weights)))


def test_a_small_file_builds_no_large_network(tmp_path):
    """A width that is told by a shape alone: 8192 x 8192 x 9 numbers for each convolution."""
    wide = {f"synthesis.b{r}.conv1.weight": torch.zeros(8192, 1) for r in (4, 8, 16, 32)}
    with pytest.raises(SetupError, match="do not fit"):
        read_foreign(written(tmp_path, nvidia_pickle(changed(**wide))))


def test_a_tensor_of_no_dimensions_is_damage(tmp_path):
    scalar = changed(**{"synthesis.b4.torgb.weight": torch.tensor(1.0)})
    with pytest.raises(SetupError, match="layers are incomplete"):
        read_foreign(written(tmp_path, nvidia_pickle(scalar)))


def test_modules_that_hold_one_another_come_to_an_end(tmp_path):
    """Twelve levels, each ten times in the one above: few bytes."""
    module = plain_module("torch.nn.Module", nn_state({}))
    for _ in range(12):
        module = plain_module("torch.nn.Module", nn_state({str(i): module for i in range(10)}))
    with pytest.raises(SetupError, match="without end"):
        read_foreign(written(tmp_path, pickled({"G_ema": module}, 4)))


def nn_state(modules):
    return torch.nn.Module().__dict__ | {"_modules": modules}


def test_safetensors_are_told_to_need_no_import():
    with pytest.raises(UsageError, match="needs no import"):
        read_foreign(FOLDER / f"{NVIDIA}.safetensors")


def test_half_of_pulses_files_is_not_enough(pulse_folder, tmp_path):
    shutil.copy(pulse_folder / "mapping.pt", tmp_path)
    with pytest.raises(UsageError, match=r"synthesis\.pt is not beside it"):
        read_foreign(tmp_path / "mapping.pt")


# FastGAN


def fastgan_file(path, module="module.", **more):
    content = {"g": {f"{module}{k}": v for k, v in fastgan_golden.weights("G.").items()}, "d": {}}
    torch.save(content | more, path)
    return path


def fastgan_prior(generator):
    return FastGANPrior("x", generator, standard_statistics(generator.config.z_dim))


def zero_maps(config):
    return [torch.zeros(1, 1, *shape) for shape in config.noise_shapes]


@pytest.mark.parametrize("module", ["", "module."])
def test_fastgan_images(tmp_path, module):
    found = read_foreign(fastgan_file(tmp_path / "50000.pth", module)).generator
    prior, z = fastgan_prior(found), fastgan_golden.golden("z")
    image = prior.synthesize(z[:, None].expand(-1, prior.num_ws, -1), zero_maps(found.config))
    expected = fastgan_golden.golden("g_big_zero_noise")
    image = fastgan_golden.every_fourth(image * 2 - 1)
    assert (image - expected).abs().max() < 1e-4


def test_fastgan_with_a_list_of_averages(tmp_path):
    """In the order of the network beside it; batch norm as `recalibrate` finds it for them."""
    network = fastgan_golden.official_generator()
    parameters = dict(network.named_parameters())
    order = [key for key in fastgan_golden.weights("G.") if key in parameters]
    averages = {k: p.detach() * (2 if p.ndim == 4 else 1) for k, p in parameters.items()}
    scaled = [averages[key] for key in order]
    path = fastgan_file(tmp_path / "all_50000.pth", g_ema=scaled, opt_g={})
    found = read_foreign(path)
    assert any("batch norm" in note for note in found.notes)
    network.load_state_dict(averages, strict=False)
    for _ in range(5):
        advance_spectral_norm(network)
    recalibrate(network)
    # In float64: the sums of convolutions in float32 differ by 1e-4 with the number of threads.
    z = fastgan_golden.golden("z").double()
    noise = [each.double() for each in zero_maps(network.config)]
    with torch.no_grad():
        expected = network.double()(z, noise)[0]
        prior = fastgan_prior(found.generator.double())
        image = prior.synthesize(z[:, None].expand(-1, prior.num_ws, -1), noise) * 2 - 1
    assert (image - expected).abs().max() < 1e-4
    with pytest.raises(SetupError, match="g_ema does not fit"):
        read_foreign(fastgan_file(tmp_path / "x.pth", g_ema=scaled[1:]))


@pytest.mark.parametrize("lite", [False, True])
def test_projected_gan(tmp_path, lite):
    """Against formulas of its own: normalised latents, noise everywhere or nowhere, an RGB bias."""
    variant = "projected-lite" if lite else "projected"
    network = FastGANGenerator(FastGANConfig(64, 8, 16, variant)).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("running_mean", ".weight", ".bias")):
                value.add_(torch.randn(value.shape) * 0.3)
    weights = {f"synthesis.{k}": v for k, v in network.state_dict().items()}
    bias = torch.tensor([0.1, 0.2, 0.3])
    weights["synthesis.to_big.bias"] = bias
    path = written(tmp_path, projected_gan_pickle(weights, 64))
    found = read_foreign(path).generator
    z = torch.randn(3, 16)
    noise = [torch.randn(3, 1, *shape) for shape in network.config.noise_shapes]
    assert len(noise) == (0 if lite else 8)
    with torch.no_grad():
        expected = network(3 * z, noise)[0] + bias[:, None, None]
        image = fastgan_prior(found).synthesize(z[:, None].expand(-1, 2, -1), noise) * 2 - 1
    assert (image - expected).abs().max() < 1e-4


# lucidrains

LUCIDRAINS = "lucidrains_tiny"


def layer_noise(u):
    """The uniform map [N, R, R, 1] that all layers share, as standard normal maps of each."""
    u = u.permute(0, 3, 2, 1).double()
    normal = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12)).float()
    return [normal[..., :r, :r] for r in (4, 8, 16, 32) for _ in range(2)]


def test_lucidrains_images_and_gradients(tmp_path):
    golden = arrays(LUCIDRAINS)
    torch.save({"GAN": tensors(LUCIDRAINS), "version": "1.9.0"}, tmp_path / "model_1.pt")
    found = read_foreign(tmp_path / "model_1.pt")
    prior = BilinearPrior("x", found.generator, standard_statistics(24))
    w, noise = prior.map(golden["z"]), layer_noise(golden["u"])
    assert relative(w, golden["w"]) < 1e-5
    image = prior.synthesize(w[:, None].expand(-1, 4, -1), noise)
    assert relative(image, golden["img_same"]) < 1e-4
    ws = golden["ws"].clone().requires_grad_()
    image = prior.synthesize(ws, noise)
    assert (image - golden["img"]).abs().max() < 1e-4
    (image * golden["grad_cot"]).sum().backward()
    assert relative(ws.grad, golden["grad_ws"]) < 5e-5
    assert prior.sample([1]).equal(prior.sample([0, 1])[1:])


def test_lucidrains_with_attention_is_refused(tmp_path):
    content = tensors(LUCIDRAINS) | {"GE.attns.2.0.fn.norm.g": torch.zeros(1)}
    torch.save({"GAN": content}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="with attention layers"):
        read_foreign(tmp_path / "x.pt")
