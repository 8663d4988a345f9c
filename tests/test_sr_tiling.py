"""Networks in tiles, files of networks, PNG row by row.

Tolerance: tiled against whole 1e-5 of the range, over 16 bits.
"""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.images.png import About, png_parts
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.enlarging import bicubic, network_bands
from pulse_sr.sr.files import SrModel, read_model, read_model_header, save_model
from pulse_sr.sr.tiling import Tiling, choose_tiling, enlarge, receptive_radius

#: Network, its arguments, its receptive radius: half the kernels added up, over the scale after an
#: enlargement; the bilinear one of `compact` reaches 1 px, the nearest one 0.
CASES = [
    ("compact", {"scale": 4, "width": 8, "convolutions": 3, "base": "bilinear"}, 5),
    ("compact", {"scale": 8, "width": 8, "convolutions": 1}, 3),
    ("srresnet", {"scale": 2, "width": 8, "blocks": 1}, 4 + 2 + 1 + 1 + 2),
    ("rrdb", {"scale": 4, "width": 8, "blocks": 1, "growth": 4}, 19),
]


def network_of(name, arguments):
    torch.manual_seed(0)
    network = build_network(name, arguments).eval()
    for weight in network.parameters():  # so that far pixels count
        weight.data.mul_(1.5)
    return network


def picture(height, width, dtype=np.uint16, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (channels, height, width), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_bands_that_are_made_smaller_are_the_whole_picture_made_smaller(dtype, factor):
    """Pillow's resize of the whole enlarged picture is what bands must give."""
    network = build_network("compact", {"scale": 4, "width": 4, "convolutions": 1})
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, 150, 37), dtype)
    model = SrModel("x", "compact", network.eval())
    large = whole(enlarge(model.network, pixels, Tiling(32, 8)))
    size = (37 * factor, 150 * factor)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in large]
    expected = np.stack(
        [np.asarray(each.resize(size, Image.Resampling.LANCZOS)) for each in planes]
    )
    expected = np.rint(np.clip(expected, 0, np.iinfo(dtype).max))
    bands = list(network_bands(model, pixels, factor, tile=32))
    assert len(bands) > 2
    made = whole(bands)
    assert made.dtype == dtype
    assert made.shape == (3, 150 * factor, 37 * factor)
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1


class Float64(torch.nn.Module):
    """A network that computes in float64."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, x):
        return self.network(x.double())


def refusal(name, asked):
    """What is said of a file whose header asks for something: JSON, its shape, its tensors."""
    if asked == 10**4000 or asked != asked:
        return "is not a readable network"
    if name == "scale" and not (isinstance(asked, int) and 1 <= asked <= 100_000):
        return "is damaged"
    return "does not hold the tensors"


def whole(bands):
    return np.concatenate(list(bands), axis=1)


@pytest.mark.parametrize(("name", "arguments", "radius"), CASES)
def test_the_receptive_radius_is_that_of_the_kernels(name, arguments, radius):
    assert receptive_radius(network_of(name, arguments)) == radius


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, arguments) for name, arguments, _ in CASES),
        ("rrdb", {"scale": 2, "blocks": 1, "width": 8}),
    ],
)
@pytest.mark.parametrize("size", [(61, 75), (24, 9)])
def test_tiles_give_what_the_whole_picture_gives(name, arguments, size):
    network = network_of(name, arguments)
    scale, pixels = arguments["scale"], picture(*size)
    overlap = -(-receptive_radius(network) // 4) * 4
    at_once = whole(enlarge(network, pixels, Tiling(128, 0))).astype(int)
    assert at_once.shape == (3, scale * size[0], scale * size[1])
    x = torch.from_numpy(pixels.astype(np.float32) / 65535)[None]
    with torch.no_grad():
        direct = (network(x)[0].clamp(0, 1) * 65535).round().numpy()
    assert np.abs(at_once - direct).max() <= 1
    # In float64: what differs by 1e-7 would be rounded to another of 65536 levels now and then.
    at_once, tiled = (
        whole(enlarge(Float64(network), pixels, tiling)).astype(int)
        for tiling in (Tiling(128, 0), Tiling(16, overlap))
    )
    assert np.abs(tiled - at_once).max() <= 1e-5 * 65535


def test_without_overlap_tiles_have_seams():
    """What the test above would see."""
    network = network_of(*CASES[0][:2])
    pixels = picture(61, 75)
    at_once, cut = (
        whole(enlarge(network, pixels, tiling)).astype(int)
        for tiling in (Tiling(128, 0), Tiling(16, 0))
    )
    assert np.abs(cut - at_once).max() > 0.01 * 65535


def test_tiles_are_chosen_by_memory(monkeypatch):
    """Wider networks get smaller tiles; a smaller allowance too; what is asked for is kept."""
    narrow = network_of("compact", {"scale": 4, "width": 8, "convolutions": 1})
    wide = network_of("srresnet", {"scale": 4, "width": 64, "blocks": 1})
    assert choose_tiling(narrow).tile > choose_tiling(wide).tile >= 32
    before = choose_tiling(wide).tile
    monkeypatch.setattr("pulse_sr.sr.tiling.CPU_BYTES", 128 << 20)
    assert choose_tiling(wide).tile < before
    assert choose_tiling(wide, 70).tile == 68


def test_bicubic_enlargement_is_torchs_inside():
    """Kernel with a = -0.5, as that of `interpolate` with antialiasing; borders differ."""
    pixels = picture(20, 24, np.uint8)
    x = torch.from_numpy(pixels / 255.0)[None]
    other = F.interpolate(x, scale_factor=4, mode="bicubic", antialias=True)[0].clamp(0, 1) * 255
    inner = (slice(None), slice(8, -8), slice(8, -8))
    difference = bicubic(4)(pixels)[inner] - other.round().numpy()[inner]
    assert np.abs(difference).max() == 0


# PNG


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_in_bands_is_read_back(dtype, channels):
    """By OpenCV, which keeps 16 bits; grey with opacity by Pillow, which OpenCV makes four of."""
    import cv2

    pixels = picture(150, 31, dtype, channels)
    pixels[:, 70:80] = pixels[:, 69:70]  # rows that the one above predicts
    bands = [pixels[:, :1], pixels[:, 1:100], pixels[:, 100:]]
    data = b"".join(png_parts((150, 31), bands, {"Software": "test"}, About(b"profile")))
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.info["Software"] == "test"
    assert image.info["icc_profile"] == b"profile"
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.dtype == dtype
    planes = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    if channels == 2:
        planes = planes[[0, 3]]
    elif channels > 2:
        planes = planes[[2, 1, 0, 3][:channels]]
    assert np.array_equal(planes, pixels)


def test_filters_make_smooth_pictures_small():
    """A ramp is predicted: far below the size of the pixels."""
    ramp = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    data = b"".join(png_parts((200, 300), [np.stack([ramp] * 3)]))
    assert len(data) < 200 * 300 * 3 / 100


def test_bands_that_make_no_picture_are_refused():
    for bands in ([picture(3, 5)], [], [picture(4, 6)], [picture(2, 5), picture(2, 5, np.uint8)]):
        with pytest.raises(ValueError, match=r"band|rows"):
            list(png_parts((4, 5), bands))


# files


def test_a_network_comes_back_from_its_file(tmp_path):
    network = network_of(*CASES[0][:2])
    model = SrModel("small", "compact", network, {"licence": "CC0-1.0"})
    file = tmp_path / "model.safetensors"
    save_model(file, model)
    found = read_model(tmp_path)
    assert (found.name, found.scale, found.card) == ("small", 4, {"licence": "CC0-1.0"})
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.allclose(found.network(x), network(x), atol=1e-6)
    save_model(file, model, torch.float16)
    assert file.stat().st_size < 0.7 * sum(4 * p.numel() for p in network.parameters()) + 2000
    assert next(read_model(file).network.parameters()).dtype == torch.float32


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no network at"):
        read_model(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(SetupError, match="not a readable network"):
        read_model(file)
    network = network_of(*CASES[0][:2])
    save_model(file, SrModel("small", "compact", network))
    data = file.read_bytes()
    file.write_bytes(data.replace(b'\\"width\\": 8', b'\\"width\\": 9'))
    with pytest.raises(SetupError, match="does not hold the tensors"):
        read_model(file)
    tensors = network.state_dict()
    for name in ("width", "convolutions", "scale"):
        for asked in (8192, 10**12, 10**4000, math.nan, -1, [[8]], {}, "8"):
            header = read_model_header(file)
            header["config"][name] = asked
            other = tmp_path / "other.safetensors"
            other.write_bytes(safetensors.torch.save(tensors, {"pulse-sr": json.dumps(header)}))
            with pytest.raises(SetupError, match=rf"other\.safetensors {refusal(name, asked)}"):
                read_model(other)
    for value in (math.nan, math.inf):
        network.body[0].weight.data[0, 0, 0, 0] = value
        save_model(file, SrModel("small", "compact", network))
        with pytest.raises(SetupError, match=r"1 of .* tensor body\.0\.weight are nan or infinite"):
            read_model(file)
    file.write_bytes(data.replace(b'\\"kind\\": \\"sr\\"', b'\\"kind\\": \\"xy\\"'))
    with pytest.raises(SetupError, match="expected 1, 'sr'"):
        read_model(file)
