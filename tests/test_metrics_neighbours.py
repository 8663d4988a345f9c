"""Nearest training images, the check for copies, and the spread of a set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulse_sr.metrics import neighbours
from pulse_sr.metrics.diversity import PairwiseDistance
from pulse_sr.metrics.neighbours import TrainingImages, memorisation


def pictures(count, side=32, seed=0):
    """Smooth random pictures: noise of 4 px, enlarged."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (count, 3, 4, 4)).astype(np.uint8)
    return small.repeat(side // 4, axis=2).repeat(side // 4, axis=3)


def plain_distances(queries, images):
    """Root mean squares in float64, `[S, N]`."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) / 255 for x in (queries, images))
    return np.sqrt(((a[:, None] - b[None]) ** 2).mean(axis=2))


def test_nearest_against_all_distances(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    images, queries = pictures(40), pictures(9, seed=1)
    found = TrainingImages(images, mirror=False).nearest(torch.from_numpy(queries), k=3)
    expected = plain_distances(queries, images)
    np.testing.assert_array_equal(found.indices, expected.argsort(axis=1)[:, :3])
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :3], rtol=1e-5)
    assert not found.mirrored.any()


def test_a_mirrored_training_image_counts_where_training_mirrors():
    images = pictures(20)
    query = torch.from_numpy(images[5:6, ..., ::-1].copy())
    found = TrainingImages(images).nearest(query, k=4)
    assert int(found.indices[0, 0]) == 5
    assert bool(found.mirrored[0, 0])
    assert float(found.distances[0, 0]) == 0
    assert len(set(found.indices[0].tolist())) == 4  # no image twice, once as it is, once mirrored
    alone = TrainingImages(images, mirror=False).nearest(query)
    assert float(alone.distances[0, 0]) > 0.1


def test_mirrored_neighbours_against_all_distances():
    images, queries = pictures(30, seed=2), pictures(6, seed=3)
    found = TrainingImages(images).nearest(torch.from_numpy(queries), k=2)
    expected = np.minimum(
        plain_distances(queries, images), plain_distances(queries, images[..., ::-1])
    )
    np.testing.assert_array_equal(found.indices, expected.argsort(axis=1)[:, :2])
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :2], rtol=1e-5)


def test_details_that_a_thumbnail_does_not_show_decide():
    """Two training images with equal thumbnails: only the pixels tell which one the query is."""
    image = pictures(1, side=64)[0]
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 40 - 20).astype(np.int16)
    other = (image + checks).clip(0, 255).astype(np.uint8)
    images = np.stack([image, other])
    found = TrainingImages(images, mirror=False).nearest(torch.from_numpy(other[None]), k=2)
    assert found.indices.tolist() == [[1, 0]]
    assert found.distances[0].tolist() == pytest.approx([0, 20 / 255], abs=1e-6)


def test_an_excluded_image_is_not_found():
    images = pictures(12)
    places = torch.arange(12)
    training = TrainingImages(images)
    found = training.nearest(torch.from_numpy(images), exclude=places)
    assert (found.indices[:, 0] != places).all()
    assert float(found.distances.min()) > 0.05
    assert float(training.nearest(torch.from_numpy(images)).distances.max()) == 0


def test_as_many_neighbours_as_there_are_images():
    images = pictures(3, side=8)
    found = TrainingImages(images).nearest(torch.from_numpy(images[:1]), k=3)
    assert sorted(found.indices[0].tolist()) == [0, 1, 2]


def test_memorisation_of_copies_and_of_new_images():
    others = torch.linspace(0.1, 0.2, 1001)
    copies = memorisation(torch.zeros(50), others)
    assert (copies.share, copies.ratio) == (1.0, 0.0)
    same = memorisation(others.flip(0), others)
    assert same.share == pytest.approx(0.05, abs=0.002)
    assert same.ratio == pytest.approx(1.0)
    half = memorisation(torch.cat([torch.zeros(500), others[-501:]]), others)
    assert half.share == pytest.approx(0.5, abs=0.001)


def test_pairwise_distance_against_all_pairs():
    images = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    spread = PairwiseDistance()
    for chunk in images.split(4):
        spread.add(chunk)
    pairs = [
        float((images[i].double() - images[j].double()).square().mean())
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    assert spread.value() == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-12)


def test_equal_images_have_no_spread_and_one_image_no_pair():
    spread = PairwiseDistance()
    spread.add(torch.full((1, 3, 4, 4), 0.3))
    with pytest.raises(ValueError, match="no pair"):
        spread.value()
    spread.add(torch.full((3, 3, 4, 4), 0.3))
    assert spread.value() == pytest.approx(0, abs=1e-8)
