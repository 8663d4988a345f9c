"""Grey, masks, noise, files and chains of them: the algebra against dense matrices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.errors import UsageError
from pulse_sr.operators.building import (
    build_operator,
    check_operator,
    make_operator,
)
from pulse_sr.operators.conjugate_gradients import solve
from pulse_sr.operators.filed import FiledOperator
from pulse_sr.operators.jpeg import jpeg_round_trip
from pulse_sr.operators.masked import MaskedOperator
from pulse_sr.operators.projection import project_to_noise, project_to_rounding_limit
from pulse_sr.operators.resampling import gaussian_matrix, resampling_matrix
from pulse_sr.operators.separable import SeparableOperator
from pulse_sr.operators.spec import parse_operator

pytestmark = pytest.mark.kernels

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # BT.601
HIGH, LOW = (16, 24), (4, 6)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def mask(tmp_path):
    """A function that writes a mask: mask((h, w), share of known pixels) -> (spec, bool [h, w])."""

    def make(size: tuple[int, int], known: float = 0.5, name: str = "mask.png"):
        pixels = np.random.default_rng(3).random(size) < known
        Image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / name)
        return f"mask:{tmp_path / name}", torch.from_numpy(pixels)

    return make


def dense(A, channels: int = 3, size: tuple[int, int] = HIGH) -> torch.Tensor:
    """The linear part as a matrix, column by column."""
    basis = torch.eye(channels * math.prod(size), dtype=torch.float64)
    return A.linear(basis.view(-1, channels, *size)).flatten(1).mT


def cases(mask):
    low_mask, _ = mask(LOW, name="low.png")
    high_mask, _ = mask(HIGH, 0.98, name="high.png")
    same_mask, _ = mask(HIGH, 0.5, name="same.png")
    return {
        f"{kernel}{rest}": LOW
        for kernel in ("bicubic", "gaussian:2")
        for rest in ("", "|gray", f"|{low_mask}", f"|gray|{low_mask}|noise:0.1", "|jpeg:50")
    } | {
        "gaussian:0.7|pillow": LOW,
        "area|gaussian:0.4|jpeg:90|gray": LOW,
        f"{high_mask}|area": LOW,
        f"jpeg:50|area|{low_mask}": LOW,
        "gray": HIGH,
        same_mask: HIGH,
        f"{same_mask}|gray": HIGH,
        "jpeg:20": HIGH,
        "noise:0.1": HIGH,
    }


# --- one protocol for all ---------------------------------------------------------------------


def test_adjoint_identity(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        x = uniform(2, 3, *HIGH)
        y = uniform(*A.linear(x).shape, seed=1)
        left, right = (A.linear(x) * y).sum(), (x * A.adjoint(y)).sum()
        torch.testing.assert_close(left, right, rtol=1e-10, atol=0, msg=spec)


def test_gain_is_the_mean_of_the_diagonal(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        matrix = dense(A)
        assert A.gain == pytest.approx(float(matrix.square().sum(dim=1).mean()), rel=1e-10), spec


@pytest.mark.parametrize("spec", ["bicubic", "area|gray", "gray", "gaussian:1.6|pillow|jpeg:90"])
def test_projection_to_the_noise_stops_where_the_residual_is_noise(spec):
    """Images that are off by white noise: the residual falls as the noise does."""
    low = HIGH if spec == "gray" else LOW
    A = make_operator(spec, low, HIGH)
    x, y = uniform(3, *HIGH), uniform(3, *low, seed=1)
    residual = float((A.observe(y) - A.linear(x)).square().mean())
    left = [
        float(
            (A.observe(y) - A.linear(project_to_noise(A, x, y, share * residual))).square().mean()
        )
        for share in (2, 1, 0.9, 0.5, 0.1, 1e-6)
    ]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.7 * residual  # detail that may be noise stays: only the mean colour moves
    assert left[-1] < 1e-6 * residual


@pytest.mark.parametrize("spec", ["bicubic", "area|gray", "gaussian:1.6|pillow|jpeg:90"])
@pytest.mark.parametrize("sigma", [0.01, 0.04])
def test_mean_colour_and_lowest_frequencies_are_those_of_a_noisy_input(spec, sigma):
    A = make_operator(spec, LOW, HIGH)
    truth = 0.25 + 0.5 * uniform(3, *HIGH)
    generator = torch.Generator().manual_seed(3)
    clean = A.linear(truth)
    y = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    rows, columns = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in HIGH)
    drift = 0.06 + 0.04 * rows[:, None] - 0.03 * columns
    made = project_to_noise(A, truth + drift, A.picture(y), sigma**2)
    before, after = (float((A.linear(each) - clean).mean().abs()) for each in (truth + drift, made))
    pixels = clean.numel() / clean.shape[-3]
    assert after < 0.02 * before + 4 * sigma / math.sqrt(pixels)
    across = torch.linspace(-1, 1, clean.shape[-1], dtype=torch.float64)
    slopes = [float(((A.linear(each) - clean) * across).mean()) for each in (truth + drift, made)]
    assert abs(slopes[1]) < 0.1 * abs(slopes[0]) + 4 * sigma / math.sqrt(pixels)


def test_projections_are_the_dense_solves(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        matrix = dense(A)
        x, picture = uniform(3, *HIGH), uniform(3, *low, seed=1)
        y = A.observe(picture)
        residual = y.flatten() - matrix @ x.flatten()
        for noise_ratio in (1e-2, 3.0):
            gram = matrix @ matrix.mT + noise_ratio * torch.eye(len(matrix)).double()
            step = matrix.mT @ torch.linalg.solve(gram, residual)
            expected = x + step.view_as(x)
            made = A.project_soft(x, picture, noise_ratio)
            torch.testing.assert_close(made, expected, rtol=0, atol=1e-9, msg=spec)
        if isinstance(A, FiledOperator):
            continue
        expected = x + (torch.linalg.pinv(matrix) @ residual).view_as(x)
        torch.testing.assert_close(A.project(x, picture), expected, rtol=0, atol=1e-8, msg=spec)
        torch.testing.assert_close(A(A.project(x, y)), y, rtol=0, atol=1e-10, msg=spec)


def test_whitening_is_the_dense_root_and_keeps_white_observations(mask):
    """Of a mask: where the unknown pixels are zero."""
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        linear = A.linear_part if isinstance(A, FiledOperator) else A
        masked = isinstance(linear, MaskedOperator)
        matrix = dense(linear.full if masked else linear)
        picture = uniform(2, 3, *low)
        y = A.observe(picture)
        grid = linear.full.observe(picture) if masked else y
        if masked:
            grid = grid * linear.known
        for noise_ratio in (1e-4, 3.0):
            gram = matrix @ matrix.mT + noise_ratio * torch.eye(len(matrix)).double()
            values, vectors = torch.linalg.eigh(gram)
            weights = values.rsqrt() / values.reciprocal().mean().sqrt()
            root = (vectors * weights) @ vectors.mT
            assert float(root.square().sum()) == pytest.approx(len(root))
            expected = (root @ grid.flatten(1).mT).mT.view_as(grid)
            if masked:
                expected = linear.select(expected)
            made = A.whiten(y, noise_ratio)
            torch.testing.assert_close(made, expected, rtol=0, atol=1e-10, msg=spec)


def test_observations_are_what_a_gives_and_pictures_show_them(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        y = A.observe(uniform(2, 3, *low))
        assert y.shape == A(uniform(2, 3, *HIGH)).shape, spec
        assert torch.equal(A.observe(y), y), spec
        picture = A.picture(y)
        assert picture.shape == (2, 3, *low), spec
        torch.testing.assert_close(A.observe(picture), y, rtol=0, atol=1e-15, msg=spec)


def test_float32_and_single_images_work_alike(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        x, picture = uniform(3, *HIGH), uniform(3, *low, seed=1)
        expected = A.project_soft(x, picture, 0.01)
        made = A.project_soft(x.float()[None], picture.float(), 0.01)
        assert made.dtype == torch.float32
        torch.testing.assert_close(made[0].double(), expected, rtol=0, atol=2e-4, msg=spec)


# --- what the stages mean ---------------------------------------------------------------------


def test_gray_is_the_luma_of_each_pixel():
    x = uniform(3, *HIGH)
    A = make_operator("gray", HIGH, HIGH)
    torch.testing.assert_close(A(x)[0], torch.einsum("c,chw->hw", LUMA, x), rtol=0, atol=1e-15)
    grey = uniform(1, *HIGH).expand(3, *HIGH)  # as a grey file is read
    torch.testing.assert_close(A.observe(grey), grey[:1], rtol=0, atol=1e-15)


def test_gray_before_and_after_resampling_are_the_same():
    x = uniform(3, *HIGH)
    first, second = (make_operator(spec, LOW, HIGH) for spec in ("gray|bicubic", "bicubic|gray"))
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=1e-14)
    plain = make_operator("bicubic", LOW, HIGH)(x)
    torch.testing.assert_close(first(x)[0], torch.einsum("c,chw->hw", LUMA, plain))


def test_a_blur_before_resampling_is_the_product_of_both():
    A = make_operator("gaussian:1.3|pillow", LOW, HIGH)
    expected = resampling_matrix("pillow", LOW[0], HIGH[0]) @ gaussian_matrix(16, 16, 1.3)
    np.testing.assert_allclose(A.vertical.numpy(), expected, atol=1e-15)
    after = make_operator("pillow|gaussian:1.3", LOW, HIGH)
    expected = gaussian_matrix(6, 6, 1.3) @ resampling_matrix("pillow", LOW[1], HIGH[1])
    np.testing.assert_allclose(after.horizontal.numpy(), expected, atol=1e-15)


def test_a_low_res_mask_picks_the_known_pixels(mask):
    spec, known = mask(LOW)
    A = make_operator(f"bicubic|{spec}", LOW, HIGH)
    assert isinstance(A, MaskedOperator)
    x = uniform(2, 3, *HIGH)
    full = make_operator("bicubic", LOW, HIGH)(x)
    assert torch.equal(A(x), full[..., known][..., None, :])
    picture = uniform(3, *LOW)
    assert torch.equal(A.picture(A.observe(picture)), picture * known)


def test_in_painting_keeps_the_known_pixels_and_nothing_else_changes(mask):
    spec, known = mask(HIGH)
    A = make_operator(spec, HIGH, HIGH)
    x, picture = uniform(3, *HIGH), uniform(3, *HIGH, seed=1)
    assert torch.equal(A.project(x, picture)[:, known], picture[:, known])
    assert torch.equal(A.project(x, picture)[:, ~known], x[:, ~known])


def test_colourisation_keeps_the_luma_and_changes_all_channels_least():
    A = make_operator("gray", HIGH, HIGH)
    x, grey = uniform(3, *HIGH), uniform(1, *HIGH, seed=1).expand(3, *HIGH)
    step = A.project(x, grey) - x
    torch.testing.assert_close(A(x + step)[0], grey[0], rtol=0, atol=1e-14)
    # The least change is along the weights of luma.
    ratio = step / LUMA[:, None, None]
    torch.testing.assert_close(ratio[0], ratio[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ratio[0], ratio[2], rtol=1e-9, atol=1e-12)


def test_a_high_res_mask_leaves_what_no_unknown_pixel_reaches(tmp_path):
    pixels = np.full((16, 16), 255, np.uint8)
    pixels[5, 9] = 0
    Image.fromarray(pixels).save(tmp_path / "m.png")
    before, after = (
        make_operator(spec, 4, 16)
        for spec in (f"mask:{tmp_path / 'm.png'}|area", f"area|mask:{tmp_path / 'm.png'}")
    )
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1, 2] = False  # 4x4 px to one
    assert torch.equal(before.known, expected)
    assert torch.equal(after.known, expected)
    # Bicubic sees 16x16 px with falling weight: the neighbours are lost too.
    bicubic = make_operator(f"mask:{tmp_path / 'm.png'}|bicubic", 4, 16)
    assert not bicubic.known[1, 1]
    assert bicubic.known[3, 0]


def test_jpeg_is_the_file_and_its_projection_the_one_without_it():
    x = uniform(2, 3, *HIGH)
    A = make_operator("bicubic|jpeg:60", LOW, HIGH)
    plain = make_operator("bicubic", LOW, HIGH)
    assert isinstance(A, FiledOperator)
    assert torch.equal(A(x), jpeg_round_trip(plain(x), 60))
    picture = uniform(3, *LOW)
    assert torch.equal(A.project_soft(x, picture, 0.1), plain.project_soft(x, picture, 0.1))
    with pytest.raises(UsageError, match="JPEG file"):
        A.project(x, picture)
    with pytest.raises(UsageError, match="JPEG file"):
        A.check_exact()


def test_the_search_can_follow_the_gradient_through_a_file():
    x = uniform(1, 3, *HIGH).float().requires_grad_()
    A = make_operator("gaussian:1|area|jpeg:30", LOW, HIGH)
    A(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0


def test_noise_is_never_drawn():
    x = uniform(3, *HIGH)
    A = make_operator("bicubic|noise:0.2", LOW, HIGH)
    assert isinstance(A, SeparableOperator)
    assert torch.equal(A(x), make_operator("bicubic", LOW, HIGH)(x))


@pytest.mark.parametrize(
    ("spec", "variance"),
    [
        ("bicubic", 0.0),
        ("bicubic|noise:0.02", 0.02**2),
        ("noise:0.1|area", 0.1**2 / 16),  # the mean of 4x4 pixels
        ("area|noise:0.1|gray", 0.1**2 * float((LUMA**2).sum())),
        ("noise:0.1|area|noise:0.02", 0.1**2 / 16 + 0.02**2),
    ],
)
def test_noise_variance_of_the_low_res_picture(spec, variance):
    A = make_operator(spec, LOW, HIGH)
    assert A.noise_variance == A.random_variance == pytest.approx(variance, rel=1e-12)
    floor = -10 * math.log10(variance) if variance else math.inf
    assert A.noise_limit_db == pytest.approx(floor)


def test_noise_of_a_file_is_near_what_it_does():
    """Root mean square error of the decoded photograph, within a factor of two."""
    with np.load(Path(__file__).parent / "data" / "imresize.npz") as file:
        photo = torch.from_numpy(file["x_photo"][:, :64].transpose(2, 0, 1).astype(np.float64))
    for quality in (20, 50, 90):
        A = make_operator(f"jpeg:{quality}", 64, 64)
        actual = float((A(photo) - photo).square().mean().sqrt())
        assert 0.5 < A.noise_variance**0.5 / actual < 2
        assert A.noise_limit_db == math.inf  # A knows what the file does


def test_lr_psnr_counts_known_pixels_once(mask):
    spec, known = mask(LOW)
    A = make_operator(f"area|{spec}", LOW, HIGH)
    x = uniform(2, 3, *HIGH)
    picture = make_operator("area", LOW, HIGH)(x)
    wrong = picture + 0.5 * ~known + 0.1 * known  # unknown pixels may hold anything
    assert A.lr_psnr(x, wrong).tolist() == pytest.approx([20.0, 20.0])
    assert A.lr_psnr(x, picture + 0.5 * ~known).tolist() == [math.inf, math.inf]


def test_written_images_reach_the_floor_through_every_linear_stage(mask):
    for spec, low in cases(mask).items():
        A = make_operator(spec, low, HIGH)
        truth = (uniform(3, *HIGH) * 0.5 + 0.25).mul(255).round() / 255
        if not isinstance(A, FiledOperator):
            result = project_to_rounding_limit(A, uniform(1, 3, *HIGH, seed=4), A.picture(A(truth)))
            assert torch.equal((result * 255).round() / 255, result), spec
            assert A.lr_psnr(result, A(truth)).min() >= 50, spec


# --- windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "low"), [("bicubic|gray", LOW), ("area|gaussian:0.8|noise:0.1", LOW), ("gray", HIGH)]
)
def test_a_window_is_the_picture_without_its_padding(spec, low):
    x = uniform(3, *HIGH)
    rows, columns = (1, low[0] - 1), (2, low[1])
    window = make_operator(spec, low, HIGH).observed(rows, columns)
    assert window.low == (rows[1] - rows[0], columns[1] - columns[0])
    if "gaussian" in spec:  # the blur happened to the picture that was cut out
        cut = make_operator("area", low, HIGH)(x)[:, slice(*rows), slice(*columns)]
        blur = (gaussian_matrix(length, length, 0.8) for length in window.low)
        vertical, horizontal = (torch.from_numpy(each) for each in blur)
        expected = vertical @ cut @ horizontal.mT
    else:
        expected = make_operator(spec, low, HIGH)(x)[:, slice(*rows), slice(*columns)]
    torch.testing.assert_close(window(x), expected, rtol=0, atol=1e-13)


def test_a_file_holds_the_window_only():
    x = uniform(3, *HIGH)
    window = make_operator("area|jpeg:30", LOW, HIGH).observed((1, 4), (0, 5))
    cut = make_operator("area", LOW, HIGH)(x)[:, 1:4, 0:5]
    assert torch.equal(window(x), jpeg_round_trip(cut, 30))


def test_a_mask_fits_the_grid_or_the_window(mask):
    grid, known = mask(LOW, name="grid.png")
    window, known_window = mask((3, 5), name="window.png")
    A = make_operator(f"area|{grid}", LOW, HIGH).observed((1, 4), (0, 5))
    assert torch.equal(A.known, known[1:4, 0:5])
    C = build_operator(parse_operator(f"area|{window}"), LOW, HIGH, (1, 4), (0, 5))
    assert torch.equal(C.known, known_window)


def test_an_operator_of_own_matrices_has_windows_too():
    V, U = uniform(4, 16), uniform(6, 24, seed=1)
    A = SeparableOperator("mine", V, U)
    x = uniform(3, *HIGH)
    made = A.observed((1, 3), (2, 6))(x)
    torch.testing.assert_close(made, (V @ x @ U.mT)[:, 1:3, 2:6], rtol=0, atol=1e-13)


# --- refusals ---------------------------------------------------------------------------------


def test_an_operator_that_keeps_the_size_refuses_another(mask):
    with pytest.raises(UsageError, match="keeps the size, got 6x4 px from 24x16 px") as caught:
        make_operator("gray", LOW, HIGH)
    assert caught.value.hint == "--operator 'bicubic|gray', or --scale 1"


def test_masks_that_do_not_fit_or_hide_everything(mask, tmp_path):
    wrong, _ = mask((5, 7), name="wrong.png")
    with pytest.raises(UsageError, match="the mask has 7x5 px, expected 6x4 px"):
        make_operator(f"area|{wrong}", LOW, HIGH)
    nothing, _ = mask(LOW, 0.0, name="nothing.png")
    with pytest.raises(UsageError, match="no pixel of the low-res picture known"):
        make_operator(f"area|{nothing}", LOW, HIGH)
    with pytest.raises(UsageError, match="does not exist"):
        make_operator(f"area|mask:{tmp_path / 'none.png'}", LOW, HIGH)


def test_an_operator_can_be_checked_before_there_is_an_input(mask, tmp_path):
    spec, _ = mask((3, 5))
    check_operator(parse_operator(f"area|{spec}"), 16, 4)
    check_operator(parse_operator(spec), 16, 1)
    with pytest.raises(UsageError, match="does not exist"):
        check_operator(parse_operator(f"area|mask:{tmp_path / 'none.png'}"), 16, 4)
    with pytest.raises(UsageError, match="keeps the size"):
        check_operator(parse_operator("gray"), 16, 4)
    with pytest.raises(UsageError, match="integer factor"):
        check_operator(parse_operator("bicubic"), 16, 1)


# --- conjugate gradients ----------------------------------------------------------------------


def test_conjugate_gradients_solve_and_leave_the_converged_alone():
    M = uniform(6, 6)
    M = M @ M.mT + torch.eye(6, dtype=torch.float64)
    b = uniform(2, 1, 1, 6, seed=2)
    b[1] = 0.0  # solved before the first step
    u = solve(lambda v: v @ M, b, 1e-13)
    torch.testing.assert_close(u, torch.linalg.solve(M, b.squeeze().mT).mT.view_as(b))
    assert torch.equal(u[1], torch.zeros(1, 1, 6, dtype=torch.float64))
    eye = torch.eye(6, dtype=torch.float64)
    products = []
    solve(lambda v: products.append(1) or v @ eye, b, 1e-13)
    assert len(products) == 1  # one step for the identity
