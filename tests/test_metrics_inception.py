"""The file that FID needs, with a small TorchScript module of the same interface in its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.metrics.inception import inception_features, load_inception

# What the file is written with here; reading one is silent.
pytestmark = pytest.mark.filterwarnings(
    "error", "ignore:`torch.jit.(script|save)` is deprecated:FutureWarning"
)


class Stand(nn.Module):
    """Mean colours, repeated to `width` features: takes bytes of any size."""

    def __init__(self, width: int = 2048):
        super().__init__()
        self.width = width
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        x = img.to(torch.float32).mean(dim=[2, 3])[:, :1] * self.gain
        if return_features:
            return x.repeat(1, self.width)
        return x


@pytest.fixture
def save(tmp_path):
    def make(module):
        path = tmp_path / "network.pt"
        torch.jit.save(torch.jit.script(module), path)
        return path

    return make


def test_features_of_bytes_of_any_size(save):
    network = load_inception(save(Stand()))
    images = torch.full((5, 3, 20, 24), 7, dtype=torch.uint8)
    images[3] = 100
    features = inception_features(network, images, chunk=2)
    assert features.shape == (5, 2048)
    assert features.dtype == torch.float32
    assert features[:, 0].tolist() == [14, 14, 14, 200, 14]
    assert not features.requires_grad


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="--inception") as caught:
        load_inception(tmp_path / "none.pt")
    assert "inception-2015-12-05.pt" in caught.value.hint


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "network.pt"
    path.write_bytes(b"no zip file")
    with pytest.raises(SetupError, match=r"network\.pt can not be used"):
        load_inception(path)


def test_a_network_of_other_features(save):
    with pytest.raises(SetupError, match=r"\(1, 7\), expected \(1, 2048\)"):
        load_inception(save(Stand(7)))


def test_a_network_without_the_switch(save):
    with pytest.raises(SetupError, match="can not be used"):
        load_inception(save(nn.Conv2d(3, 4, 1)))
