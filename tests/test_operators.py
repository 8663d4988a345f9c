"""Resampling against its public references, and the algebra that the search relies on.

The other stages are in test_operator_stages.py.
"""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d

import pulse_sr.operators
from pulse_sr.errors import UsageError
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.operators.projection import project_to_rounding_limit
from pulse_sr.operators.ranking import CANDIDATE_SPECS
from pulse_sr.operators.resampling import gaussian_matrix, matlab_matrix, resampling_matrix

pytestmark = pytest.mark.kernels

DATA = Path(__file__).parent / "data"
ALL_SPECS = [*CANDIDATE_SPECS]
PILLOW = {
    "pillow": Image.Resampling.BICUBIC,
    "pillow:lanczos": Image.Resampling.LANCZOS,
    "pillow:box": Image.Resampling.BOX,
}


@pytest.fixture(scope="module")
def pulse() -> dict[str, np.ndarray]:
    """Inputs and outputs of PULSE's own BicubicDownSample, float32."""
    with np.load(DATA / "pulse_bicubic.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def imresize() -> dict[str, np.ndarray]:
    """Inputs and outputs of BasicSR's imresize, float32 [H, W, 3]."""
    with np.load(DATA / "imresize.npz", allow_pickle=False) as file:
        return dict(file)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def photo(imresize: dict[str, np.ndarray]) -> np.ndarray:
    """A real photograph, uint8 [3, 64, 64]."""
    pixels = imresize["x_photo"][:, :64].transpose(2, 0, 1)
    return np.rint(pixels * 255).astype(np.uint8)


# --- kernels against the implementations they are named after ---------------------------------


@pytest.mark.parametrize(
    "name", ["64_f2", "64_f4", "64_f8", "128_f4", "128_f8", "128_f16", "rect_f4"]
)
def test_bicubic_is_pulse(pulse: dict[str, np.ndarray], name: str) -> None:
    x = torch.from_numpy(pulse[f"x_{name.split('_')[0]}"])
    expected = torch.from_numpy(pulse[f"y_{name}"])
    A = make_operator("bicubic", tuple(expected.shape[-2:]), tuple(x.shape[-2:]))
    torch.testing.assert_close(A(x.double()).float(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(A(x), expected, rtol=0, atol=2e-6)  # float32 as in the search


def test_bicubic_gradient_is_pulse(pulse: dict[str, np.ndarray]) -> None:
    x = torch.from_numpy(pulse["x_64"]).requires_grad_()
    A = make_operator("bicubic", 16, 64)
    (A(x) * torch.from_numpy(pulse["grad_cot"])).sum().backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(pulse["grad_x"]), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("high", "low"), [(8, 1), (16, 2), (12, 3), (4, 2)])
def test_padding_wider_than_the_line_reflects_again_as_numpy_pad(high: int, low: int) -> None:
    x = uniform(high).numpy()
    factor = high // low
    before = (3 * factor) // 2
    padded = np.pad(x, (before, 3 * factor - before), mode="reflect")
    # The filter itself, read off the middle row of a line long enough to need no padding there.
    row = resampling_matrix("bicubic", 9, 9 * factor)[4]
    taps = row[4 * factor - before :][: 4 * factor]
    expected = [padded[i * factor :][: 4 * factor] @ taps for i in range(low)]
    np.testing.assert_allclose(resampling_matrix("bicubic", low, high) @ x, expected, atol=1e-12)


@pytest.mark.parametrize("tag", ["32x48", "33x47", "31x29", "64x40", "photo"])
@pytest.mark.parametrize("divisor", [2, 3, 4, 8])
def test_matlab_is_imresize(imresize: dict[str, np.ndarray], tag: str, divisor: int) -> None:
    x = imresize[f"x_{tag}"].astype(np.float64).transpose(2, 0, 1)
    expected = imresize[f"y_{tag}_1over{divisor}"].transpose(2, 0, 1)
    vertical = matlab_matrix(expected.shape[1], x.shape[1], 1 / divisor)
    horizontal = matlab_matrix(expected.shape[2], x.shape[2], 1 / divisor)
    np.testing.assert_allclose(vertical @ x @ horizontal.T, expected, rtol=0, atol=3e-6)


def test_matlab_enlarges_and_defaults_to_the_ratio_of_sizes(
    imresize: dict[str, np.ndarray],
) -> None:
    x = imresize["x_31x29"].astype(np.float64).transpose(2, 0, 1)
    A = make_operator("matlab", (62, 58), (31, 29))
    expected = imresize["y_31x29_2"].transpose(2, 0, 1)
    np.testing.assert_allclose(A(torch.from_numpy(x)).numpy(), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("spec", PILLOW)
@pytest.mark.parametrize("sizes", [(64, 16), (48, 10), (33, 9), (16, 40), (7, 3)])
def test_pillow_is_pillow(spec: str, sizes: tuple[int, int]) -> None:
    high, low = sizes
    x = uniform(high, high).numpy().astype(np.float32)
    A = make_operator(spec, low, high)
    y = A(torch.from_numpy(x.astype(np.float64))).numpy()
    floats = np.asarray(Image.fromarray(x).resize((low, low), PILLOW[spec]))
    np.testing.assert_allclose(y, floats, rtol=0, atol=1e-6)
    bytes_ = np.rint((x * 0.6 + 0.2) * 255).astype(np.uint8)  # room for overshoot
    expected = np.asarray(Image.fromarray(bytes_).resize((low, low), PILLOW[spec]))
    ours = A(torch.from_numpy(bytes_.astype(np.float64))).clamp(0, 255).round().numpy()
    assert np.abs(ours - expected).max() <= 1  # Pillow rounds (and clips) after each axis


def test_area_is_the_box_mean_with_fractional_coverage() -> None:
    x = uniform(12).numpy()
    np.testing.assert_allclose(
        resampling_matrix("area", 3, 12) @ x, x.reshape(3, 4).mean(1), atol=1e-15
    )
    expected = [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]  # 3 px to 2: each covers one and a half
    np.testing.assert_allclose(resampling_matrix("area", 2, 3), expected, atol=1e-15)


@pytest.mark.parametrize("factor", [3, 7])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.6, 9.0])
def test_gaussian_is_scipy_for_odd_factors(factor: int, sigma: float) -> None:
    x = uniform(63).numpy()
    expected = gaussian_filter1d(x, sigma)[(factor - 1) // 2 :: factor]
    A = gaussian_matrix(63 // factor, 63, sigma)
    np.testing.assert_allclose(A @ x, expected, atol=1e-12)


def test_gaussian_for_even_factors_is_centred_between_two_pixels() -> None:
    row = gaussian_matrix(5, 20, 1.6)[2]  # centre 9.5
    np.testing.assert_allclose(row, row[::-1], atol=1e-15)
    np.testing.assert_allclose(row[10] / row[11], np.exp((1.5**2 - 0.5**2) / (2 * 1.6**2)))
    tiny = gaussian_matrix(2, 4, 0.001)
    np.testing.assert_allclose(tiny, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])


@pytest.mark.parametrize("spec", ALL_SPECS)
@pytest.mark.parametrize(("low", "high"), [(8, 16), (8, 64), (1, 4), (4, 64)])
def test_every_kernel_keeps_a_flat_picture(spec: str, low: int, high: int) -> None:
    matrix = make_operator(spec, low, high).vertical
    assert matrix.shape == (low, high)
    assert matrix.dtype == torch.float64
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-14)


# --- algebra ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_adjoint_identity(spec: str) -> None:
    A = make_operator(spec, (6, 9), (24, 36))
    x, y = uniform(2, 3, 24, 36), uniform(2, 3, 6, 9, seed=1)
    torch.testing.assert_close((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("spec", ALL_SPECS)
@pytest.mark.parametrize("factor", [4, 8])
def test_pseudo_inverse_and_projection_are_exact(spec: str, factor: int) -> None:
    A = make_operator(spec, 8, 8 * factor)
    x, y = uniform(2, 3, 8 * factor, 8 * factor), uniform(2, 3, 8, 8, seed=1)
    torch.testing.assert_close(A(A.pinv(y)), y, rtol=0, atol=1e-10)
    projected = A.project(x, y)
    torch.testing.assert_close(A(projected), y, rtol=0, atol=1e-10)
    # The least change: the step has no part that A cannot see.
    step = projected - x
    torch.testing.assert_close(A.pinv(A(step)), step, rtol=0, atol=1e-10)


def test_pseudo_inverse_is_numpys() -> None:
    A = make_operator("bicubic", 6, 24)
    y = uniform(6, 6)
    V = np.linalg.pinv(A.vertical.numpy())
    np.testing.assert_allclose(A.pinv(y).numpy(), V @ y.numpy() @ V.T, atol=1e-12)


@pytest.mark.parametrize("spec", ["bicubic", "gaussian:3.2"])
@pytest.mark.parametrize("noise_ratio", [1e-3, 0.1, 10.0])
def test_soft_projection_is_the_dense_solve(spec: str, noise_ratio: float) -> None:
    A = make_operator(spec, (3, 4), (12, 16))
    x, y = uniform(12, 16), uniform(3, 4, seed=1)
    dense = torch.kron(A.vertical, A.horizontal)  # row-major pixels
    gram = dense @ dense.T + noise_ratio * torch.eye(12, dtype=torch.float64)
    step = dense.T @ torch.linalg.solve(gram, y.reshape(-1) - dense @ x.reshape(-1))
    expected = x + step.reshape(12, 16)
    torch.testing.assert_close(A.project_soft(x, y, noise_ratio), expected, rtol=0, atol=1e-11)


def test_soft_projection_without_noise_becomes_the_exact_one() -> None:
    A = make_operator("bicubic", 8, 32)
    x, y = uniform(3, 32, 32), uniform(3, 8, 8, seed=1)
    torch.testing.assert_close(A.project_soft(x, y, 1e-12), A.project(x, y), rtol=0, atol=1e-9)
    with pytest.raises(UsageError, match="noise_ratio"):
        A.project_soft(x, y, 0.0)


def test_observed_window_is_a_crop_of_the_low_res_image() -> None:
    A = make_operator("bicubic", 8, 32)
    x, y = uniform(3, 32, 32), uniform(3, 4, 8, seed=1)
    window = A.observed((2, 6), (0, 8))
    torch.testing.assert_close(window(x), A(x)[:, 2:6], rtol=0, atol=1e-15)
    projected = window.project(x, y)
    torch.testing.assert_close(window(projected), y, rtol=0, atol=1e-10)
    # Row 0 is seen by low-res rows 0 and 1 only, so the projection must leave it alone.
    assert torch.equal(projected[:, 0], x[:, 0])
    for rows in [(3, 3), (-1, 4), (0, 9)]:
        with pytest.raises(UsageError, match="rows"):
            A.observed(rows, (0, 8))


def test_lr_psnr_is_per_sample_and_infinite_when_identical() -> None:
    A = make_operator("area", 4, 16)
    x = uniform(3, 3, 16, 16)
    y = A(x)
    y[1] += 0.1  # mean squared error 0.01: 20 dB
    assert A.lr_psnr(x, y).tolist() == [np.inf, pytest.approx(20.0, abs=1e-9), np.inf]
    assert A.lr_psnr(x, y).dtype == torch.float64
    assert A.lr_psnr(x.float()[0], y[0]).item() > 140  # float32 images, float64 arithmetic


def test_result_follows_the_dtype_and_first_use_in_inference_mode_does_not_break_gradients() -> (
    None
):
    A = make_operator("bicubic", 4, 16)
    with torch.inference_mode():
        A.project(torch.rand(3, 16, 16), torch.rand(3, 4, 4))
        A.project_soft(torch.rand(3, 16, 16), torch.rand(3, 4, 4), 0.1)
    x = torch.rand(3, 16, 16, requires_grad=True)
    y = torch.rand(3, 4, 4)
    (A.project(x, y).square().sum() + A.project_soft(x, y, 0.1).square().sum()).backward()
    assert x.grad is not None
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert A(x.detach().to(dtype)).dtype == dtype
    with pytest.raises(TypeError, match="floating-point"):
        A(torch.zeros(3, 16, 16, dtype=torch.uint8))


def test_second_derivatives() -> None:
    A = make_operator("bicubic", (2, 3), (4, 6))
    x = uniform(1, 4, 6).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda image: A(image).pow(3), (x,))


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["bicubik", "", "pillow-lanczos", "pillow:bicubic", "gaussian"])
def test_unknown_operator_lists_the_known_ones(spec: str) -> None:
    with pytest.raises(UsageError, match=r"bicubic, matlab, pillow, .*gaussian:SIGMA"):
        make_operator(spec, 8, 64)


@pytest.mark.parametrize("sigma", ["", "0", "-1", "nan", "inf", "1e9", "abc"])
def test_unusable_sigma(sigma: str) -> None:
    with pytest.raises(UsageError, match="sigma"):
        make_operator(f"gaussian:{sigma}", 8, 64)


@pytest.mark.parametrize(("low", "high"), [(9, 64), (64, 64), (64, 32)])
def test_bicubic_needs_an_integer_factor(low: int, high: int) -> None:
    with pytest.raises(UsageError, match=f"{high} / {low}"):
        make_operator("bicubic", low, high)


@pytest.mark.parametrize(("spec", "low"), [("gaussian:6", 32), ("pillow", 128)])
def test_operator_that_cannot_be_inverted_says_so(spec: str, low: int) -> None:
    A = make_operator(spec, low, 64)
    with pytest.raises(UsageError, match="cannot be inverted") as caught:
        A.project(uniform(3, 64, 64), uniform(3, low, low))
    assert caught.value.hint == "--project soft"


# --- projection to the 8-bit floor ------------------------------------------------------------


def blurred_start(pixels: np.ndarray, size: int) -> torch.Tensor:
    """What a search that stopped early gives: the truth blurred, plus coloured errors, ~25 dB."""
    truth = torch.from_numpy(pixels / 255.0)[None]
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    generator = torch.Generator().manual_seed(3)
    error = torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64) * 0.06
    error = torch.nn.functional.interpolate(error, size=(size, size), mode="bicubic")
    return (blurred + error).clamp(0, 1)[0]


@pytest.mark.parametrize("spec", ["bicubic", "matlab", "pillow:lanczos", "area"])
@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_written_images_reach_the_8_bit_floor(
    imresize: dict[str, np.ndarray], spec: str, scale: int
) -> None:
    pixels = photo(imresize)
    A = make_operator(spec, 64 // scale, 64)
    y = torch.from_numpy(degrade(pixels, spec, scale) / 255.0)
    starts = torch.stack(
        [
            blurred_start(pixels, 64),
            torch.full((3, 64, 64), 0.5, dtype=torch.float64),
            torch.from_numpy(pixels[:, ::-1, ::-1].copy() / 255.0),  # another picture altogether
        ]
    )
    result = project_to_rounding_limit(A, starts, y)
    written = (result * 255.0).round()
    assert torch.equal(written / 255.0, result)  # already what the file will hold
    assert written.min() >= 0
    assert written.max() <= 255
    assert A.lr_psnr(written / 255.0, y).min() >= 50.0
    assert A.lr_psnr(result[0], y) >= 57.0  # the realistic start


def test_without_a_target_only_the_rounding_of_the_picture_remains(
    imresize: dict[str, np.ndarray],
) -> None:
    """Rounding to 8 bits costs 48.1 + 10.8 dB of noise, averaged down by about the factor."""
    pixels = photo(imresize)
    for scale, floor in [(2, 65.0), (4, 70.0), (8, 75.0)]:
        A = make_operator("bicubic", 64 // scale, 64)
        y = torch.from_numpy(degrade(pixels, "bicubic", scale) / 255.0)
        result = project_to_rounding_limit(
            A, blurred_start(pixels, 64)[None], y, 30, target_db=200.0
        )
        assert A.lr_psnr(result, y).item() >= floor


def test_a_sample_does_not_depend_on_the_batch() -> None:
    A = make_operator("bicubic", 8, 64)
    x, y = uniform(5, 3, 64, 64).float(), uniform(5, 3, 8, 8, seed=1) * 0.6 + 0.2
    together = project_to_rounding_limit(A, x, y)
    for i in (0, 3):
        assert torch.equal(project_to_rounding_limit(A, x[i : i + 1], y[i : i + 1])[0], together[i])
    order = [4, 2, 0, 1, 3]
    assert torch.equal(project_to_rounding_limit(A, x[order], y[order]), together[order])


def test_a_sample_that_is_good_already_is_only_rounded() -> None:
    A = make_operator("area", 8, 32)
    x = (uniform(1, 3, 32, 32) * 255).round() / 255
    assert torch.equal(project_to_rounding_limit(A, x, A(x)), x)
    assert torch.equal(project_to_rounding_limit(A, x + 1e-4, A(x) * 0.5, passes=0), x)


def test_an_impossible_target_returns_the_best_image_not_the_last(
    imresize: dict[str, np.ndarray],
) -> None:
    A = make_operator("bicubic", 16, 64)
    y = (uniform(1, 3, 16, 16, seed=5) > 0.5).double()  # black and white noise: out of range
    x = torch.from_numpy(photo(imresize) / 255.0)[None]
    by_passes = [
        A.lr_psnr(project_to_rounding_limit(A, x, y, passes), y).item() for passes in range(8)
    ]
    assert by_passes == sorted(by_passes)
    assert by_passes[-1] > by_passes[0] + 10


def test_example_in_the_docstring_and_repr() -> None:
    assert doctest.testmod(pulse_sr.operators).failed == 0
    assert isinstance(make_operator("area", 2, 4), Operator)
