"""Networks of other programs in `upscale`: read as data, known by their weights."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from pulse_sr.cli import main
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.models.registry import load_network
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.enlarging import by_network

RRDB = {"scale": 4, "width": 8, "blocks": 2, "growth": 4}
COMPACT = {"scale": 4, "width": 6, "convolutions": 3}


def save(path: Path, state: dict[str, torch.Tensor], wrapped: str = "") -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapped: state} if wrapped else OrderedDict(state), path)
    return path


def random(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", ["", "params", "params_ema"])
@pytest.mark.parametrize("architecture", ["rrdb", "compact"])
def test_esrgan_s_own_files_give_what_the_network_gives(
    tmp_path: Path, architecture: str, wrapped: str, suffix: str
) -> None:
    if wrapped and suffix == ".safetensors":
        pytest.skip("they hold tensors alone")
    config = RRDB if architecture == "rrdb" else COMPACT
    network = random(build_network(architecture, config))
    file = save(tmp_path / f"net{suffix}", network.state_dict(), wrapped)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 13), np.uint8)
    model = load_network(file)
    assert (model.architecture, model.scale) == (architecture, 4)
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels / 255.0).float()[None])[0]
    made = by_network(model)(pixels)
    levels = np.rint(wanted.clamp(0, 1).numpy() * 255.0)
    assert np.abs(made.astype(int) - levels).max() <= 1


def test_a_network_that_spandrel_knows(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.SPAN import SPAN

    network = random(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2))
    save(tmp_path / "span.pth", network.state_dict(), "params")
    Image.fromarray(np.full((10, 12, 3), 90, np.uint8)).save(tmp_path / "a.png")
    words = ["upscale", str(tmp_path / "a.png"), "--model", str(tmp_path / "span.pth")]
    made = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (24, 20)


def test_what_is_no_network_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    unknown = save(tmp_path / "a.pth", {"x.weight": torch.zeros(3)})
    with pytest.raises(UsageError, match="no network that is known"):
        load_network(unknown)
    (tmp_path / "b.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"b\.pth is no file of a network"):
        load_network(tmp_path / "b.pth")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"params": Evil()}, tmp_path / "c.pth")
    with pytest.raises(UsageError, match="system"):
        load_network(tmp_path / "c.pth")
    assert not (tmp_path / "canary").exists()


def test_a_pickled_module_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UsageError, match="no state dict"):
        load_network(tmp_path / "module.pth")


def test_a_file_that_names_endless_layers_or_holds_no_numbers_is_one_line(tmp_path: Path) -> None:
    """What is asked for is compared with what is there before anything is built."""
    state = random(build_network("rrdb", RRDB)).state_dict()
    many = {**state, "body.999999999.rdb1.conv1.weight": torch.zeros(1)}
    with pytest.raises(SetupError, match=r"tensor body\.999999999\S* is of a layer beyond"):
        load_network(save(tmp_path / "many.safetensors", many))
    state["conv_first.bias"][0] = torch.nan
    with pytest.raises(SetupError, match=r"tensor conv_first\.bias are nan or infinite"):
        load_network(save(tmp_path / "nan.safetensors", state))


def test_a_prior_is_no_network_and_the_other_way_round(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["upscale", "x.png", "--model", "faces-128"])
    assert made.exit_code == 2
    assert load_network("compact-face-x8").scale == 8
