"""Checkpoints of other programs give the images that those programs give.

The golden arrays are those of the programs themselves; tolerance 1e-4 absolute on images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pulse_sr.models.importing import read_foreign

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
