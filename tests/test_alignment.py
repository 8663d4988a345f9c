"""Geometry, crops, paste-back and the decision photo or low-res face.

FFHQ goldens: `recreate_aligned_images` of NVlabs/ffhq-dataset on the astronaut of scikit-image
(NASA, no known restrictions) and a turned part of it, with 68 points placed by hand. The portraits
are official ones of the United States Congress (Government Printing Office, public domain).
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import smooth
from PIL import Image
from scipy.ndimage import map_coordinates

from pulse_sr.alignment.crop import crop_quad, prepare
from pulse_sr.alignment.detail import detail_side
from pulse_sr.alignment.duplicates import MOST_BITS, SeenHashes, perceptual_hash
from pulse_sr.alignment.faces import frame_faces, reason_against, sharpness
from pulse_sr.alignment.geometry import (
    FFHQ,
    affine_of,
    ffhq_quad,
    five_points,
    framing_of,
    inside_share,
    rounded,
    side_of,
    similarity,
)
from pulse_sr.alignment.intake import faces_to_search, identity_of, low_res_face, low_res_side
from pulse_sr.alignment.landmarks.base import Face, box_of
from pulse_sr.alignment.landmarks.yunet import YuNet
from pulse_sr.alignment.options import Limits
from pulse_sr.alignment.paste import enlarged_quad, mask, paste
from pulse_sr.config import RunOptions
from pulse_sr.errors import InputError, SetupError
from pulse_sr.images.face import face_of_record
from pulse_sr.images.pixels import to_pillow
from pulse_sr.images.read import read_image
from pulse_sr.operators.degrading import degrade

DATA = Path(__file__).parent / "data"
TEMPLATE = {
    "eyes": [[0.30, 0.37], [0.70, 0.37]],
    "nose": [0.50, 0.592],
    "mouth": [[0.344, 0.787], [0.656, 0.787]],
}
FRAMING = framing_of({"alignment": {"template": TEMPLATE}})


class Fixed:
    """Landmarks that were found before."""

    name = "fixed"

    def __init__(self, *faces):
        self.faces = faces

    def find(self, image):
        return list(self.faces)


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "ffhq_align.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def astronaut():
    import skimage.data

    return skimage.data.astronaut().transpose(2, 0, 1)


@pytest.fixture(scope="module")
def portrait():
    return read_image(DATA / "portrait_a.jpg")


@pytest.fixture(scope="module")
def quad(portrait):
    [framed] = frame_faces(portrait, YuNet(), FRAMING)
    return framed.quad


def picture_of(golden, astronaut, case):
    if case.startswith("A"):
        return astronaut, golden["landmarksA"]
    return golden["imageB_rgb"].transpose(2, 0, 1), golden["landmarksB"]


@pytest.mark.parametrize(("case", "side"), [("A256", 256), ("B256", 256), ("A32_shrink", 32)])
def test_ffhq_quads_before_and_after_shrinking_cutting_and_padding(golden, astronaut, case, side):
    pixels, points = picture_of(golden, astronaut, case)
    quad = ffhq_quad(points)
    assert np.abs(quad - golden[f"{case}.quad_initial"]).max() < 1e-9
    stage = prepare(to_pillow(pixels), quad, side)
    assert np.abs(stage.quad + 0.5 - golden[f"{case}.quad_final_plus_half"]).max() < 1e-9
    assert stage.picture.size == tuple(golden[f"{case}.src_size_at_transform"])


@pytest.mark.parametrize(("case", "side"), [("B256", 256), ("A32_shrink", 32)])
def test_ffhq_crops_are_the_golden_pictures(golden, astronaut, case, side):
    pixels, points = picture_of(golden, astronaut, case)
    crop = crop_quad(pixels, ffhq_quad(points), side)
    wanted = read_image(DATA / f"ffhq_align_{case}.png").pixels
    difference = np.abs(crop.astype(int) - wanted)
    assert difference.mean() < 0.5  # exact with Pillow 13
    assert difference.max() < 8


def test_ffhq_of_five_points_is_that_of_the_68_they_come_from(golden):
    points = golden["landmarksA"]
    assert np.abs(ffhq_quad(five_points(points)) - ffhq_quad(points)).max() < 1e-9


@pytest.mark.parametrize("shift", [0.0, -70.0, 90.0])
def test_a_face_is_pasted_alike_whatever_else_the_photo_shows(portrait, shift: float) -> None:
    """The part that is cut out to paste reaches as far as the whole photo would matter."""
    quad = np.array([[60.0, 60.0], [62.0, 140.0], [142.0, 138.0], [140.0, 58.0]]) + shift
    crop = smooth(128, 128).transpose(2, 0, 1)
    whole = paste(portrait.pixels, crop, quad)
    wide = np.pad(portrait.pixels, ((0, 0), (0, 600), (0, 600)), "edge")
    again = paste(wide, crop, quad)[:, : whole.shape[1], : whole.shape[2]]
    inside = (slice(None), slice(0, 250), slice(0, 200))  # the far rim is mirrored, or goes on
    if shift <= 0:
        np.testing.assert_array_equal(again[inside], whole[inside])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_place_of_a_face_in_an_enlarged_photo(factor: int) -> None:
    quad = np.array([[10.5, 12.5], [10.5, 42.5], [40.5, 42.5], [40.5, 12.5]])
    photo = np.zeros((3, 64, 64), np.uint8)
    photo[:, 13:43, 11:41] = 200  # the pixels whose edges the quad is
    large = photo.repeat(factor, axis=1).repeat(factor, axis=2)
    crop = crop_quad(large, enlarged_quad(quad, factor), 30 * factor, parity=False)
    turned = crop[:, ::-1, ::-1].astype(int)  # a shift by an eighth of a pixel would show
    assert np.abs(crop - turned).max() <= 1
    assert (crop[:, 4:-4, 4:-4] > 190).all()
    np.testing.assert_allclose(side_of(enlarged_quad(quad, factor)), 30 * factor)


@pytest.mark.parametrize("k", [16, 32, 64])
@pytest.mark.parametrize("quality", [None, 75])
def test_the_detail_of_an_enlarged_face_is_measured(portrait, k: int, quality: int | None) -> None:
    (framed,) = frame_faces(portrait, YuNet(), FRAMING)
    crop = to_pillow(crop_quad(portrait.pixels, framed.quad, 128, parity=False))
    small = crop.resize((k, k), Image.Resampling.LANCZOS)
    picture = small.resize((128, 128), Image.Resampling.BICUBIC)
    if quality:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        picture = Image.open(buffer)
    assert detail_side(np.asarray(picture).transpose(2, 0, 1)) == k
    assert detail_side(np.asarray(small).transpose(2, 0, 1)) == k


def test_outside_of_parity_a_crop_keeps_the_mean_colour(portrait) -> None:
    quad = np.array([[60.0, 60.0], [62.0, 180.0], [182.0, 178.0], [180.0, 58.0]])
    affine = affine_of(quad, 512)
    grid = np.meshgrid(np.arange(512.0), np.arange(512.0))
    x, y = np.tensordot(affine, np.stack([*grid, np.ones((512, 512))]), axes=1)
    wanted = np.array(
        [map_coordinates(band.astype(float), [y, x], order=1).mean() for band in portrait.pixels]
    )
    means = {
        parity: crop_quad(portrait.pixels, quad, 128, parity=parity).mean(axis=(1, 2))
        for parity in (True, False)
    }
    assert np.abs(means[False] - wanted).max() < 0.03
    assert np.abs(means[True] - (wanted - 0.5)).max() < 0.06  # as FFHQ's own procedure


def test_a_similarity_is_found_exactly_and_never_reflects():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 2))
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, offset = similarity(source, source @ (3.0 * rotation).T + [4.0, -2.0])
    assert np.allclose(matrix, 3.0 * rotation, atol=1e-12)
    assert np.allclose(offset, [4.0, -2.0], atol=1e-12)
    mirrored, _ = similarity(source, source * [-1, 1])
    assert np.linalg.det(mirrored) > 0


def test_a_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))

    def error(matrix, offset):
        return ((source @ matrix.T + offset - target) ** 2).sum()

    matrix, offset = similarity(source, target)
    best = error(matrix, offset)
    for _ in range(200):
        a, b, *shift = rng.normal(scale=0.05, size=4)
        turn = np.eye(2) + np.array([[a, -b], [b, a]])
        assert error(turn @ matrix, offset + shift) > best


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_points_in_one_place_make_no_crop(points):
    for framing in (FFHQ, FRAMING):
        with pytest.raises(ValueError, match=r"one place|finite"):
            framing.quad(points)
    with pytest.raises(ValueError, match="5 or 68"):
        FFHQ.quad(np.zeros((7, 2)))


def test_the_template_comes_from_the_card_and_is_ffhq_without_one():
    assert framing_of({}) is FFHQ
    assert framing_of({"alignment": {"template": None}}) is FFHQ
    template = np.array([*TEMPLATE["eyes"], TEMPLATE["nose"], *TEMPLATE["mouth"]])
    quad = FRAMING.quad(template * 100 - 0.5)
    assert np.allclose(quad, np.array([[0, 0], [0, 100], [100, 100], [100, 0]]) - 0.5)
    with pytest.raises(SetupError, match="not five points"):
        framing_of({"alignment": {"template": {"eyes": [[0, 0]]}}})


def test_the_bundled_prior_names_its_template():
    from pulse_sr.models import registry

    found = framing_of(registry.load().card).template
    assert found is not None
    assert np.allclose(found, FRAMING.template)


def test_the_landmarks_of_a_crop_lie_on_the_template(portrait):
    """The whole way: found in the photo, cropped, found again in the crop."""
    [framed] = frame_faces(portrait, YuNet(), FRAMING)
    crop = crop_quad(portrait.pixels, framed.quad, 128)
    [again] = YuNet().find(replace(portrait, pixels=crop, width=128, height=128))
    assert np.abs((again.points + 0.5) / 128 - FRAMING.template).max() < 0.06


def test_the_affine_of_a_quad_maps_the_crop_to_the_photo(quad):
    affine = affine_of(quad, 64)
    corner = affine @ [-0.5, -0.5, 1]
    assert np.allclose(corner, quad[0])
    assert np.allclose(affine @ [63.5, 63.5, 1], quad[2])


def test_a_crop_across_the_border_is_filled_without_black(portrait):
    quad = np.array([[-60.0, -60], [-60, 140], [140, 140], [140, -60]])
    crop = crop_quad(portrait.pixels, quad, 64)
    assert inside_share(quad, portrait.width, portrait.height) == pytest.approx(0.49, abs=0.02)
    assert crop[:, :18, :18].mean() > 40
    outside = crop_quad(portrait.pixels, quad - 1000, 64)
    assert outside.shape == (3, 64, 64)
    one = crop_quad(np.full((3, 1, 1), 77, np.uint8), quad, 8)
    assert (one == 77).all()


@pytest.mark.parametrize("times", [1, 1.5, 3])
@pytest.mark.parametrize("name", ["portrait_a.jpg", "portrait_b.jpg"])
def test_a_pasted_identity_crop_changes_almost_nothing_and_nothing_outside(name, times):
    photo = read_image(DATA / name)
    [framed] = frame_faces(photo, YuNet(), FRAMING)
    side = math.ceil(framed.side * times)
    crop = crop_quad(photo.pixels, framed.quad, side, parity=False)
    pasted = paste(photo.pixels, crop, framed.quad)
    weight = mask(framed.quad, slice(0, photo.height), slice(0, photo.width))
    change = pasted.astype(float) - photo.pixels
    assert np.sqrt((change[:, weight > 0] ** 2).mean()) < 1.0  # grey levels, so 1/255
    assert not change[:, weight <= 0].any()
    assert 0.4 < (weight == 1).sum() / framed.side**2 < 0.7


def test_a_pasted_identity_crop_of_a_face_at_the_border(golden):
    photo = golden["imageB_rgb"].transpose(2, 0, 1)
    quad = ffhq_quad(golden["landmarksB"])
    assert inside_share(quad, photo.shape[2], photo.shape[1]) < 0.9
    pasted = paste(photo, crop_quad(photo, quad, 512, parity=False), quad)
    weight = mask(quad, slice(0, photo.shape[1]), slice(0, photo.shape[2]))
    change = pasted.astype(float) - photo
    assert np.sqrt((change[:, weight > 0] ** 2).mean()) < 1.0
    assert not change[:, weight <= 0].any()


def test_pasting_is_the_inverse_of_cropping(portrait, quad):
    """A crop of another colour lands where it was cut out, also across the border."""
    for shift in (0.0, -90.0):
        moved = quad + shift
        red = np.zeros((3, 48, 48), np.uint8)
        red[0] = 200
        pasted = paste(portrait.pixels, red, moved)
        again = crop_quad(pasted, moved, 48)
        middle = again[:, 24:34, 24:34].reshape(3, -1).mean(axis=1)
        assert np.abs(middle - [200, 0, 0]).max() < 1.5
    assert (paste(portrait.pixels, red, quad + 5000) == portrait.pixels).all()


def test_the_mask_fades_from_the_border_to_the_inside():
    quad = np.array([[9.5, 9.5], [9.5, 109.5], [109.5, 109.5], [109.5, 9.5]])
    weight = mask(quad, slice(0, 120), slice(0, 120), feather=0.1)
    assert (weight[:10] == 0).all()
    assert (weight[20:100, 20:100] == 1).all()
    assert (np.diff(weight[60, 10:20]) > 0).all()


def test_near_duplicates_are_found_and_others_are_not(portrait, quad):
    crop = crop_quad(portrait.pixels, quad, 128)
    shifted = crop_quad(portrait.pixels, quad + 1.0, 128)
    brighter = np.clip(shifted.astype(float) * 1.1 + 5, 0, 255).astype(np.uint8)
    other_photo = read_image(DATA / "portrait_b.jpg")
    [framed] = frame_faces(other_photo, YuNet(), FRAMING)
    other = crop_quad(other_photo.pixels, framed.quad, 128)
    seen = SeenHashes()
    assert seen.nearest(perceptual_hash(crop)) is None
    seen.add("first", perceptual_hash(crop))
    assert seen.nearest(perceptual_hash(brighter)) == "first"
    assert seen.nearest(perceptual_hash(other)) is None
    for i in range(200):
        seen.add(f"x{i}", perceptual_hash(other))
    assert seen.nearest(perceptual_hash(other)) == "x0"
    assert MOST_BITS < 128


def test_reasons_against_a_face(portrait, quad):
    [framed] = frame_faces(portrait, YuNet(), FRAMING)
    sharp = sharpness(portrait, framed)
    assert reason_against(framed, sharp, Limits()) is None
    assert "score" in reason_against(framed, sharp, Limits(min_score=0.99))
    assert "too small" in reason_against(framed, sharp, Limits(min_size=1000))
    smooth = Image.fromarray(portrait.pixels.transpose(1, 2, 0)).resize((20, 24)).resize((225, 275))
    blurred = replace(portrait, pixels=np.asarray(smooth).transpose(2, 0, 1))
    assert "blurred" in reason_against(framed, sharpness(blurred, framed), Limits())


def test_landmarks_of_another_photo_are_refused(portrait):
    points = np.array([[0, 0], [90000, 0], [45000, 50000], [10000, 90000], [80000, 90000.0]])
    with pytest.raises(InputError, match="make a crop of"):
        frame_faces(portrait, Fixed(Face(points, 1.0, box_of(points))), FRAMING)
    with pytest.raises(InputError, match="one place"):
        frame_faces(portrait, Fixed(Face(points * 0, 1.0, (0, 0, 0, 0))), FRAMING)


@pytest.mark.parametrize(
    ("real", "resolution", "scale", "side"),
    [
        (90, 128, None, 64),  # not pretended to be 16
        (90, 64, None, 32),  # no more than half of the prior's side
        (30, 128, None, 16),
        (8.0, 1024, None, 8),
        (7, 1024, None, None),
        (300, 1024, None, 256),
        (90, 128, 8, 16),
        (12, 128, 8, None),
        (90, 96, None, 48),
    ],
)
def test_the_low_res_side_is_what_the_face_really_has(real, resolution, scale, side):
    assert low_res_side(real, resolution, scale) == side


def test_a_low_res_face_is_what_the_operator_makes_of_the_crop(portrait):
    found = faces_to_search(portrait, 64, FRAMING, YuNet(), RunOptions(), operator="area", scale=2)
    [face] = found.searched
    made = low_res_face(portrait, face, 64)
    crop = crop_quad(portrait.pixels, face.corners, 64, parity=False)
    assert (made.pixels == degrade(crop, "area", 2)).all()
    assert (made.width, made.height, face.side) == (32, 32, 32)
    assert 0 < made.jpeg_noise < portrait.jpeg_noise
    assert made.sha256 == identity_of(face, portrait.sha256) != portrait.sha256
    assert face_of_record({"base": "x", **face.describe()}) == face
    assert identity_of(replace(face, index=3, of=7), "0") == identity_of(face, "0")
    assert identity_of(replace(face, side=16), "0") != identity_of(face, "0")


def resized(image, width, height):
    small = Image.fromarray(image.pixels.transpose(1, 2, 0)).resize((width, height), 1)
    pixels = np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
    return replace(image, pixels=pixels, width=width, height=height)


def aligned(photo, quad, side):
    return replace(photo, pixels=crop_quad(photo.pixels, quad, side), width=side, height=side)


@pytest.mark.parametrize(("side", "resolution"), [(16, 64), (48, 64), (64, 128), (96, 128)])
def test_aligned_low_res_faces_pass_through(portrait, quad, side, resolution):
    image = aligned(portrait, quad, side)
    assert faces_to_search(image, resolution, FRAMING, YuNet(), RunOptions()) is None


def test_small_pictures_without_a_face_pass_through(portrait):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 40)).astype(np.uint8)
    image = replace(portrait, pixels=noise, width=40, height=64)
    assert faces_to_search(image, 64, FRAMING, YuNet(), RunOptions()) is None
    assert faces_to_search(image, 64, FRAMING, YuNet(), RunOptions(align="never")) is None
    with pytest.raises(InputError, match="no face found"):
        faces_to_search(image, 64, FRAMING, YuNet(), RunOptions(align="always"))


def test_a_small_photo_whose_face_does_not_fill_it_is_aligned(portrait):
    small = resized(portrait, 90, 110)
    [face] = faces_to_search(small, 128, FRAMING, YuNet(), RunOptions()).searched
    assert face.side == 64
    assert face.detail == pytest.approx(63, abs=4)
    assert face.real_size == pytest.approx(63, abs=4)


def test_a_high_res_face_is_made_small_where_it_is_asked_for(portrait, quad):
    image, options = aligned(portrait, quad, 128), RunOptions()
    found = faces_to_search(image, 64, FRAMING, YuNet(), options)
    assert found.searched == ()
    assert found.left_out == ("face 1: the photo shows it as fine as the prior could (64 px)",)
    [face] = faces_to_search(image, 64, FRAMING, YuNet(), options, scale=2).searched
    assert face.side == 32


def test_a_large_picture_without_a_face_needs_a_word_of_the_user(portrait):
    grey = replace(portrait, pixels=np.full_like(portrait.pixels, 128))
    with pytest.raises(InputError, match=r"no face found in .* \(225x275 px\)") as caught:
        faces_to_search(grey, 64, FRAMING, YuNet(), RunOptions())
    assert "--align never" in caught.value.hint
    assert faces_to_search(grey, 64, FRAMING, YuNet(), RunOptions(), fit="crop") is None


def test_faces_below_the_wanted_size_are_named(portrait):
    options = RunOptions(align="always", min_size=4)
    with pytest.raises(InputError, match=r"face 1: too small to search \(6 px\)"):
        faces_to_search(resized(portrait, 25, 30), 64, FRAMING, Fixed(tiny()), options, scale=4)


def test_small_faces_beside_large_ones_are_left_out_with_a_word(portrait, caplog):
    [large] = YuNet().find(portrait)
    both = Fixed(large, tiny())
    [face] = faces_to_search(portrait, 256, FRAMING, both, RunOptions()).searched
    assert (face.index, face.of, face.searched) == (1, 2, 1)
    assert face.left_out == ("face 2: too small to search (6 px)",)
    assert "face 2: too small to search (6 px)" in caplog.text


def tiny():
    points = FRAMING.template * 6 + 5
    return Face(points, 0.9, box_of(points))


def test_quads_are_the_same_on_any_machine(quad):
    assert (rounded(quad + 1e-5) == quad).all()
    assert side_of(quad) == pytest.approx(np.hypot(*(quad[3] - quad[0])))
