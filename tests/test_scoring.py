"""Scores of a prior: a function of the prior and the images, with features kept on disk."""

from __future__ import annotations

import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_priors import LinearPrior

from pulse_sr.errors import InputError, UsageError
from pulse_sr.jobs import scoring
from pulse_sr.jobs.scoring import (
    COPY_RATIO,
    COPY_SHARE,
    Scorer,
    evenly,
    read_images,
    sample_chunks,
)
from pulse_sr.metrics import sliced_wasserstein
from pulse_sr.metrics.feature_networks import NETWORKS, judge_of
from pulse_sr.metrics.image_set import FRECHET, KERNEL, PRECISION, RECALL, SPREAD

COUNT = 12
PRIOR = LinearPrior(resolution=16)
EXPECTED_NAMES = {
    "Fréchet (SqueezeNet)",
    "kernel x 1000 (SqueezeNet)",
    "sliced Wasserstein x 1000, 16 px",
    "sliced Wasserstein x 1000, mean",
    "precision (SqueezeNet)",
    "recall (SqueezeNet)",
    "spread / that of the training images",
    "nearer to a training image than 95 % of others",
    "distance to nearest training image / that of others",
}


@pytest.fixture(autouse=True)
def few_patches(monkeypatch):
    monkeypatch.setattr(sliced_wasserstein, "PATCHES", 2**10)


def samples_as_images(seeds):
    return (PRIOR.sample(seeds) * 255).round().byte().numpy()


IMAGES = samples_as_images(range(3 * COUNT))


def test_scores_of_the_training_distribution_are_good():
    scores = Scorer(IMAGES, COUNT).score(PRIOR)
    assert scores.values.keys() == EXPECTED_NAMES
    assert scores.distances.shape == (COUNT,)
    assert abs(scores.values[KERNEL]) < 1
    assert min(scores.values[PRECISION], scores.values[RECALL]) > 0.5
    assert scores.values[SPREAD] == pytest.approx(1, abs=0.1)
    assert scores.values[COPY_RATIO] == pytest.approx(1, abs=0.15)


def test_scores_of_another_distribution_are_worse():
    other = LinearPrior(resolution=16)
    other.c, other.B = 0.2, 0.1 * other.B
    scorer = Scorer(IMAGES, COUNT)
    good, poor = scorer.score(PRIOR).values, scorer.score(other).values
    assert poor[FRECHET] > 1.5 * good[FRECHET]
    assert poor[KERNEL] > good[KERNEL] + 1
    assert poor[SPREAD] == pytest.approx(0.1 * good[SPREAD], rel=0.1)
    assert poor[PRECISION] + poor[RECALL] < good[PRECISION] + good[RECALL]


def test_the_names_say_which_network_judged(tmp_path):
    """The features of two networks are kept apart."""
    network = NETWORKS["efficientnet-lite0"]
    Scorer(IMAGES, COUNT, cache=tmp_path)
    values = Scorer(IMAGES, COUNT, cache=tmp_path, network=network).score(PRIOR).values
    renamed = {name.replace("SqueezeNet", "EfficientNet-Lite0") for name in EXPECTED_NAMES}
    assert values.keys() == renamed
    assert (
        min(values["precision (EfficientNet-Lite0)"], values["recall (EfficientNet-Lite0)"]) > 0.5
    )
    assert len(list(tmp_path.glob("features-*.safetensors"))) == 2


def test_a_network_that_took_part_in_the_training_does_not_judge():
    prior = LinearPrior(resolution=16)
    prior.card = {"trained_with": ["squeezenet"]}
    with pytest.raises(UsageError, match="trained with squeezenet, which can not judge") as caught:
        Scorer(IMAGES, COUNT).score(prior)
    assert "efficientnet-lite0" in caught.value.hint
    assert judge_of([]).name == "squeezenet"
    assert judge_of(["squeezenet"]).name == "efficientnet-lite0"
    with pytest.raises(UsageError, match="can not judge"):
        judge_of(["squeezenet", "efficientnet-lite0"])


def test_copies_are_found():
    """A prior that gives back training images, some of them mirrored."""
    scorer = Scorer(IMAGES, COUNT)
    copies = torch.from_numpy(IMAGES[:COUNT].copy())
    copies[::2] = copies[::2].flip(3)
    scores = scorer.score_images(iter(copies.split(5)))
    assert scores.values[COPY_SHARE] == 1
    assert scores.values[COPY_RATIO] == 0
    assert float(scores.distances.max()) == 0


def test_scores_repeat_and_use_the_features_kept_before(tmp_path):
    first = Scorer(IMAGES, COUNT, cache=tmp_path).score(PRIOR)
    (file,) = tmp_path.glob("features-*.safetensors")
    calls = []
    network = NETWORKS["squeezenet"]
    counting = replace(network, pooled=lambda x: calls.append(len(x)) or network.pooled(x))
    again = Scorer(IMAGES, COUNT, cache=tmp_path, network=counting)
    assert calls == []  # the features of the references were read
    assert again.score(PRIOR).values == first.values
    file.write_bytes(b"damaged")
    assert Scorer(IMAGES, COUNT, cache=tmp_path).score(PRIOR).values == first.values
    changed = IMAGES.copy()
    changed[0] ^= 1
    Scorer(changed, COUNT, cache=tmp_path)
    assert len(list(tmp_path.glob("features-*.safetensors"))) == 2


def test_reference_scores_by_held_back_images_and_by_training_images_left_over():
    name, values = Scorer(
        IMAGES, COUNT, held_back=samples_as_images(range(500, 510))
    ).reference_scores()
    assert name == "10 held-back images"
    assert values.keys() == EXPECTED_NAMES - {COPY_SHARE, COPY_RATIO}
    name, values = Scorer(IMAGES, COUNT).reference_scores()
    assert name == f"{COUNT} other training images"
    assert abs(values[KERNEL]) < 1
    assert Scorer(IMAGES[: 2 * COUNT - 1], COUNT).reference_scores() is None


def test_held_back_images_set_the_scale_of_the_check_for_copies():
    """Held-back images far from all training images make every sample look near."""
    far = np.full((10, 3, 16, 16), 255, np.uint8)
    scorer = Scorer(IMAGES, COUNT, held_back=far)
    assert scorer.others == "held-back images"
    assert scorer.score(PRIOR).values[COPY_SHARE] == 1
    assert "nearest other one" in Scorer(IMAGES, COUNT).others


def test_fid_is_there_only_with_the_network(tmp_path, monkeypatch):
    class Network(torch.nn.Module):
        def forward(self, img, return_features: bool = False):
            return img.float().mean(dim=[2, 3])

    file = tmp_path / "inception.pt"
    file.write_bytes(b"")
    monkeypatch.setattr(scoring, "load_inception", lambda path, device: Network())
    values = Scorer(IMAGES, COUNT, inception=file).score(PRIOR).values
    assert values.keys() == EXPECTED_NAMES | {"FID", "KID x 1000"}
    mean = (PRIOR.sample(range(1000, 1000 + COUNT)) * 255).round().mean(dim=[2, 3]).double()
    real = torch.from_numpy(IMAGES[evenly(len(IMAGES), COUNT)]).double().mean(dim=[2, 3])
    gap = float((mean.mean(dim=0) - real.mean(dim=0)).square().sum())
    assert values["FID"] > gap


def test_evenly_spread_places():
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, 10).tolist() == [0, 1, 2]


def test_samples_are_those_of_their_seeds():
    chunks = list(sample_chunks(LinearPrior(resolution=64), 70))
    assert [len(chunk) for chunk in chunks] == [64, 6]
    one = LinearPrior(resolution=64).sample([1069])
    assert torch.equal(chunks[1][-1:], (one * 255).round().byte())


def test_a_folder_is_read_evenly_and_a_wrong_one_refused(tmp_path):
    for i in range(6):
        Image.new("RGB", (20, 24), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    images = read_images(tmp_path, 16, 3)
    assert images.shape == (3, 3, 16, 16)
    assert images[:, 0, 0, 0].tolist() == [0, 80, 160]
    with tarfile.open(tmp_path / "few.tar", "w") as tar:
        for i in range(6):
            tar.add(tmp_path / f"{i}.png", f"{i}.png")
    assert np.array_equal(read_images(tmp_path / "few.tar", 16, 3), images)
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"3\.png in .*"):
        read_images(tmp_path, 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="0 images"):
        read_images(tmp_path / "empty", 16)
    with pytest.raises(UsageError, match="3 samples can not be scored"):
        Scorer(IMAGES, 3)
