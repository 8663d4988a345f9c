"""Products that round a sample in the same way wherever it stands: what no BLAS promises.

Run again with the kernels of other CPUs (`.ci/kernels`).
"""

from __future__ import annotations

import itertools

import pytest
import torch

from stylegan_ops.products import product, rows_times, sandwich

pytestmark = pytest.mark.kernels

BATCHES = (5, 8, 13)
SIDES = (1, 3, 8, 16, 18, 33, 128)


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def differing(together):
    """Whether one of equal samples has other bits than the first."""
    return any(not torch.equal(each, together[0]) for each in together[1:])


def copies(x, count):
    return x[None].expand(count, *x.shape).contiguous()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shared", ["left", "right", "none"])
def test_equal_samples_have_equal_products_and_gradients(threads, shared):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        for count, (m, k, o) in itertools.product(BATCHES, itertools.product(SIDES, repeat=3)):
            if m * k * o > 3_000 and count != 5:
                continue
            a, b, g = drawn(m, k), drawn(k, o, seed=1), copies(drawn(m, o, seed=2), count)
            if shared != "left":
                a = copies(a, count).requires_grad_()
            if shared != "right":
                b = copies(b, count).requires_grad_()
            y = product(a, b)
            wanted = [each for each in (a, b) if each.requires_grad]
            results = [y, *torch.autograd.grad(y, wanted, g)]
            found += [(count, m, k, o) for each in results if differing(each)]
        assert found == []
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "shapes", [((5, 7, 9), (9, 4)), ((6, 7), (2, 3, 7, 4)), ((3, 4, 8), (3, 8, 2))]
)
def test_it_is_the_product_to_second_order(shapes):
    """Against `@` in float64: 1e-12."""
    a, b = (drawn(*s, seed=i, dtype=torch.float64) for i, s in enumerate(shapes))
    a.requires_grad_(len(shapes[0]) > 2)
    b.requires_grad_(len(shapes[1]) > 2)
    assert (product(a, b) - a @ b).abs().max() < 1e-12
    assert torch.autograd.gradcheck(product, (a, b))
    assert torch.autograd.gradgradcheck(product, (a, b))


def test_a_shared_matrix_has_the_gradient_of_all_samples():
    a, b = drawn(5, 7, 9, dtype=torch.float64), drawn(9, 4, dtype=torch.float64).requires_grad_()
    g = drawn(5, 7, 4, dtype=torch.float64)
    [ours] = torch.autograd.grad(product(a, b), [b], g)
    [expected] = torch.autograd.grad(a @ b, [b], g)
    assert (ours - expected).abs().max() < 1e-12


def test_rows_and_planes():
    x, matrix = drawn(5, 9), drawn(9, 4, seed=1)
    torch.testing.assert_close(rows_times(x, matrix), x @ matrix)
    planes, left, right = drawn(2, 3, 9, 7), drawn(4, 9), drawn(7, 5)
    torch.testing.assert_close(sandwich(left, planes, right), left @ planes @ right)
