"""The emulation of CUDA on the CPU: what kernels see, and which mistakes it catches."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from cuda_emulation import build

SOURCE = build.HERE / "selftest.cu"
ORDERS = [0, 1, 2, 3, 77]
INVALID_VALUE, INVALID_CONFIGURATION, MISALIGNED, LAUNCH_FAILURE = 1, 9, 716, 719
pointer, message = build.pointer, build.message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda_emulation")


SECOND_SOURCE = """
#include "launch.h"
static __global__ void squares(int* out) {
    PSR_DYNAMIC_SHARED(int, buffer);
    buffer[threadIdx.x] = threadIdx.x * threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}
extern "C" int st_squares(int* out) {
    PSR_LAUNCH(squares, 1, 8, 8 * sizeof(int), nullptr, out);
    return cudaGetLastError();
}
"""


@pytest.fixture(scope="module")
def compiled(folder):
    """Two sources in one library."""
    second = folder / "second.cu"
    second.write_text(SECOND_SOURCE)
    return build.build([SOURCE, second], folder)


@pytest.fixture
def lib(compiled):
    compiled.psr_emulation_set_order(0)
    return compiled


def call(lib, name, *arguments):
    """Calls a test function; arrays become pointers. It must succeed."""
    status = getattr(lib, name)(*(pointer(a) if hasattr(a, "shape") else a for a in arguments))
    assert status == 0, message(lib)
    assert message(lib) == ""


# Whole kernels


@pytest.mark.parametrize("order", ORDERS)
def test_block_reduction(lib, order):
    lib.psr_emulation_set_order(order)
    rng = np.random.default_rng(0)
    blocks, threads = 5, 256
    values = rng.integers(-1000, 1000, blocks * 3 * threads - 100).astype(np.float64)
    sums, total = np.zeros(blocks), np.full(1, 99.0)
    call(lib, "st_block_sums", values, sums, total, len(values), blocks, threads, None)
    padded = np.pad(values, (0, 100)).reshape(blocks, -1)
    np.testing.assert_array_equal(sums, padded.sum(1))
    assert total[0] == values.sum()


def transposed(lib, order, with_barrier=1, shape=(37, 50)):
    lib.psr_emulation_set_order(order)
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    out = np.zeros(shape[::-1], np.float32)
    call(lib, "st_transpose", image, out, *shape, with_barrier)
    return np.array_equal(out, image.T)


@pytest.mark.parametrize("order", ORDERS)
def test_tiled_transpose(lib, order):
    assert transposed(lib, order)


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_gives_wrong_results(lib, order):
    assert not transposed(lib, order, with_barrier=0)


def test_indices_in_three_dimensions(lib):
    grid, block = (3, 2, 4), (5, 2, 3)
    out = np.full((4, 2, 3, 3, 2, 5, 8), -1, np.int32)  # block z, y, x, thread z, y, x
    call(lib, "st_indices", out)
    bz, by, bx, tz, ty, tx = np.meshgrid(*map(np.arange, grid[::-1] + block[::-1]), indexing="ij")
    fixed = [np.full_like(bx, block[1]), np.full_like(bx, grid[2])]
    np.testing.assert_array_equal(out, np.stack([bx, by, bz, tx, ty, tz, *fixed], -1))


def test_launches_from_several_threads(lib):
    """Static shared memory belongs to the launching thread; the launches take turns."""
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: transposed(lib, 0), range(16)))


def test_kernels_of_another_source(lib):
    out = np.zeros(8, np.int32)
    call(lib, "st_squares", out)
    assert out.tolist() == [49, 36, 25, 16, 9, 4, 1, 0]


# Warp operations


def shuffled(lib, operation, offset, width=32, dtype=np.int32):
    values = (np.arange(32) + 100).astype(dtype)
    out = np.zeros(32, dtype)
    name = "st_shuffle_int" if dtype == np.int32 else "st_shuffle_double"
    call(lib, name, operation, offset, width, values, out)
    return (out - 100).astype(int).tolist()


INDEX, UP, DOWN, XOR = range(4)
LANES = list(range(32))


# The right-hand sides are worked out by hand from the CUDA programming guide.
@pytest.mark.parametrize("dtype", [np.int32, np.float64])
@pytest.mark.parametrize(
    ("operation", "offset", "width", "expected"),
    [
        (INDEX, 5, 32, [5] * 32),
        (INDEX, 37, 32, [5] * 32),  # modulo the width
        (INDEX, 3, 8, [3] * 8 + [11] * 8 + [19] * 8 + [27] * 8),
        (INDEX, -1, 16, [15] * 16 + [31] * 16),
        (UP, 1, 32, [0, *LANES[:31]]),
        (UP, 3, 4, [x for s in range(0, 32, 4) for x in (s, s + 1, s + 2, s)]),
        (UP, 0, 32, LANES),
        (DOWN, 16, 32, LANES[16:] + LANES[16:]),
        (DOWN, 2, 4, [x for s in range(0, 32, 4) for x in (s + 2, s + 3, s + 2, s + 3)]),
        (DOWN, 31, 32, [31, *LANES[1:]]),
        (XOR, 1, 32, [x for s in range(0, 32, 2) for x in (s + 1, s)]),
        (XOR, 31, 32, LANES[::-1]),
        # From an earlier group of 8 it can read, from a later one it keeps its own.
        (XOR, 8, 8, [*range(8), *range(8), *range(16, 24), *range(16, 24)]),
        (INDEX, 9, 1, LANES),
    ],
)
def test_shuffles(lib, operation, offset, width, expected, dtype):
    for order in (0, 1, 5):
        lib.psr_emulation_set_order(order)
        assert shuffled(lib, operation, offset, width, dtype) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_votes_masks_and_ended_lanes(lib, order):
    lib.psr_emulation_set_order(order)
    out = np.full((64, 12), 7, np.uint32)
    call(lib, "st_votes", out)
    lane, thread = np.arange(64) % 32, np.arange(64)

    def bits(condition):
        return int(sum(1 << i for i in range(32) if condition(i)))

    expected = np.full((64, 12), 7, np.uint32)
    expected[:, 0] = bits(lambda i: i % 3 == 0)
    expected[:, 1] = thread >= 32  # thread 40 is in the second warp
    expected[:, 2] = thread >= 32
    expected[:, 3] = np.where(lane % 2, 0b10101010, 0b01010101)
    expected[:, 4] = 13  # multiples of 5 below 64
    expected[:, 5] = 1
    expected[:, 6] = 0
    expected[:, 7] = np.where(lane < 12, 0xFFF, 0xFFFFF000)
    expected[:, 8] = thread ^ 1
    alive = lane < 20
    expected[alive, 9] = expected[alive, 10] = 0xFFFFF
    expected[alive, 11] = thread[alive]  # an offset beyond the width of 4: the own value
    np.testing.assert_array_equal(out, expected)


def test_orders_of_threads_and_blocks(lib):
    seen = {}
    for order in ORDERS:
        lib.psr_emulation_set_order(order)
        arrivals = np.full((2, 4, 64), -1, np.int32)  # segment, block, thread
        call(lib, "st_arrival", np.zeros(1, np.int32), arrivals)
        assert sorted(arrivals.ravel()) == list(range(512))
        segment = arrivals // 64 % 2
        assert (segment == np.arange(2)[:, None, None]).all()  # a barrier separates the segments
        seen[order] = arrivals
    counts = np.arange(64)
    assert (seen[0][0, 0] == counts).all()
    assert (seen[1][0, 3] == counts[::-1]).all()
    assert len({a.tobytes() for a in seen.values()}) == len(ORDERS)
    places = seen[2] % 64
    assert (places[0, 0] != places[1, 0]).any()  # a new random order after a barrier


# Numbers


def conversion(lib, patterns, values):
    n = len(values)
    patterns = np.resize(patterns, n).astype(np.uint16)
    outputs = [np.zeros(n, t) for t in (np.float32, np.float32, np.uint16, np.uint16)]
    from_half, from_bfloat, to_half, to_bfloat = outputs
    call(lib, "st_conversions", patterns, from_half, from_bfloat, values, to_half, to_bfloat, n)
    return outputs


def test_every_half_and_bfloat_pattern(lib):
    patterns = np.arange(65536, dtype=np.uint16)
    half = patterns.view(np.float16).astype(np.float32)
    bfloat = (patterns.astype(np.uint32) << 16).view(np.float32)
    for values, column, nan in ((half, 2, 0x7FFF), (bfloat, 3, 0x7FFF)):
        outputs = conversion(lib, patterns, values)
        np.testing.assert_array_equal(outputs[0], half)
        np.testing.assert_array_equal(outputs[1], bfloat)
        assert (np.signbit(outputs[0]) == np.signbit(half))[~np.isnan(half)].all()
        back = np.where(np.isnan(values), nan, patterns)  # CUDA's canonical NaN
        np.testing.assert_array_equal(outputs[column], back)


def test_rounding_to_half_and_bfloat(lib):
    """Ties, neighbours of ties, overflow, underflow, and random patterns."""
    grid = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    grid[-1] = 65536.0  # where infinity would be on the grid
    ties = (grid[1:].astype(np.float64) + grid[:-1]) / 2
    halves = ties.astype(np.float32)
    assert (halves == ties).all()
    upper = np.arange(0x7F81, dtype=np.uint32) << 16
    bfloats = (upper + 0x8000).view(np.float32)
    bfloats = bfloats[:-1]  # the last one is a NaN
    near = [np.nextafter(t, np.float32(d)) for t in (halves, bfloats) for d in (-np.inf, np.inf)]
    random = np.random.default_rng(2).integers(0, 2**32, 300_000, dtype=np.uint32)
    values = np.concatenate([halves, bfloats, *near, random.view(np.float32)])
    values = np.concatenate([values, -values, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], "f")])
    _, _, to_half, to_bfloat = conversion(lib, [0], values)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).view(np.uint16)
    bfloat = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    nan = np.isnan(values)
    np.testing.assert_array_equal(to_half, np.where(nan, 0x7FFF, half))
    np.testing.assert_array_equal(to_bfloat, np.where(nan, 0x7FFF, bfloat))


def test_scalar_functions(lib):
    out, real = np.zeros(7, np.uint64), np.zeros(4)
    atomics = np.array([1, 0, 0, 0, 10, 11, 12, 13], np.float32)
    block = np.zeros(12, np.float32)
    start = (-block.ctypes.data % 16) // 4  # float4 needs 16 bytes
    block[start : start + 8] = atomics
    call(lib, "st_scalars", out, real, block[start:])
    a, b = 0xDEADBEEFCAFEBABE, 0x0123456789ABCDEF
    assert out[0] == 0xDEADBEEF * 0xCAFEBABE >> 32
    assert int(out[1]) == a * b >> 64
    assert out[2] == 8 + 3100 + 320000
    assert out[3] == 5
    assert out[4] == 5 + 3
    assert out[5] == (0xC0200000 + 0x3F800000) % 2**32
    assert out[6] == 7 * 11 * 13
    assert real.tolist() == [0.25, 3.0, 0.25 + 1.0 + 1.5 + 7.0, -0.125]
    assert block[start : start + 4].tolist() == [1.5, 0, 11, 13]


# Mistakes


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (0, LAUNCH_FAILURE, ["barrier divergence", "48 from thread (0,0,0)", "16 from thread (48"]),
        (1, LAUNCH_FAILURE, ["barrier divergence", "16 from thread (0,0,0) on wait in __sync"]),
        (2, LAUNCH_FAILURE, ["barrier divergence", "__syncwarp", "mask 0xffffffff"]),
        (3, LAUNCH_FAILURE, ["__shfl_xor_sync", "has ended or does not exist"]),
        (4, LAUNCH_FAILURE, ["reads from lane 20, which the mask does not name"]),
        (5, LAUNCH_FAILURE, ["is not named in its own mask 0x0000ffff"]),
        (6, LAUNCH_FAILURE, ["inconsistent masks", "lane 0, waits with mask 0xffffffff"]),
        (7, LAUNCH_FAILURE, ["width 24"]),
        (8, LAUNCH_FAILURE, ["outside of dynamic shared memory, at byte 256"]),
        (9, LAUNCH_FAILURE, ["outside of dynamic shared memory, at byte -"]),
        (10, MISALIGNED, ["misaligned address"]),
    ],
)
def test_mistakes_are_reported(lib, kind, status, words, order):
    lib.psr_emulation_set_order(order)
    out = np.zeros(80, np.int64)  # aligned to 8 bytes
    assert lib.st_mistake(kind, pointer(out)) == status
    text = message(lib)
    assert "mistake, block (" in text
    for word in words:
        assert word in text
    if status == LAUNCH_FAILURE and kind < 8:
        assert "selftest.cu:" in text
    assert transposed(lib, order)  # the next launch is not affected


def test_unwritten_shared_memory_is_nan_in_every_block(lib):
    out = np.zeros(64, np.float32)
    call(lib, "st_unwritten", out)
    assert np.isnan(out).all()


def test_limits_of_a_launch(lib):
    good = [(1, 1, 1, 1024, 1, 1), (3, 1, 1, 16, 1, 64), (1, 1, 1, 32, 32, 1)]
    for sizes in good:
        call(lib, "st_nothing", *sizes, 48 * 1024)
    bad = [(0, 1, 1, 1, 1, 1), (1, 1, 0, 1, 1, 1), (1, 1, 1, 0, 1, 1), (1, 65536, 1, 1, 1, 1)]
    bad += [(1, 1, 65536, 1, 1, 1), (2**31, 1, 1, 1, 1, 1), (1, 1, 1, 1025, 1, 1)]
    bad += [(1, 1, 1, 33, 32, 1), (1, 1, 1, 1, 1, 65)]
    for sizes in bad:
        assert lib.st_nothing(*sizes, 0) == INVALID_CONFIGURATION
        assert "invalid configuration" in message(lib)
    assert lib.st_nothing(*good[0], 48 * 1024 + 1) == INVALID_VALUE
    assert "dynamic shared memory" in message(lib)


def test_static_and_dynamic_shared_memory_add_up(lib):
    """A kernel with 40000 static bytes."""
    default, most = 48 * 1024, 227 * 1024
    total = np.zeros(1, np.int32)
    for shared, allowed in [(9000, default), (100_000, 100_000), (most - 40000, most)]:
        total[:] = 0
        call(lib, "st_static_bytes", total, shared, allowed)
        assert total[0] == 40000
    for shared, allowed in [(9200, default), (most - 39999, most)]:
        assert lib.st_static_bytes(pointer(total), shared, allowed) == INVALID_VALUE
        assert "40000 bytes of static shared memory" in message(lib)
    assert lib.st_static_bytes(pointer(total), 100_001, 100_000) == INVALID_VALUE
    assert "this kernel may have 100000" in message(lib)
    assert lib.st_static_bytes(pointer(total), 0, most + 1) == INVALID_VALUE


# Builds


def test_ucontext_gives_the_same(folder, compiled, monkeypatch):
    """The way of other machines than x86-64 and aarch64, next to the first library: two libraries
    with kernels of the same name have separate shared memory. A fresh library reads the order from
    the environment."""
    monkeypatch.setenv("PSR_EMULATION_ORDER", "1")
    copy = folder / "ucontext.cu"
    copy.write_text(SOURCE.read_text())
    lib = build.build([copy], folder, "-O0", "-DPSR_EMULATION_UCONTEXT")
    arrivals = np.zeros((2, 4, 64), np.int32)
    call(lib, "st_arrival", np.zeros(1, np.int32), arrivals)
    assert (arrivals[0, 3] == np.arange(64)[::-1]).all()
    assert transposed(compiled, 0)
    assert transposed(lib, 2)
    assert not transposed(lib, 2, with_barrier=0)
    assert shuffled(lib, XOR, 31) == LANES[::-1]
    assert lib.st_mistake(0, pointer(np.zeros(80, np.int64))) == LAUNCH_FAILURE
    test_unwritten_shared_memory_is_nan_in_every_block(lib)
    test_block_reduction(lib, 1)


def test_nvcc_sees_real_launches(folder):
    """The other definitions of the two macros: as text, and compiled where there is an nvcc."""
    stub = folder / "stub"
    stub.mkdir()
    for name in ("cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"):
        (stub / name).write_text("")
    includes = [f"-I{build.KERNELS}", "-x", "c++", str(SOURCE)]
    text = " ".join(build.run(["g++", "-E", "-P", f"-I{stub}", *includes]).split())
    assert "(transpose<float, 16, true>)<<<grid, block, 0, nullptr>>>(in, out, rows" in text
    assert "extern __shared__ __align__(16) unsigned char psr_dynamic_shared[]" in text
    if nvcc := shutil.which("nvcc"):
        options = ["-std=c++17", "-arch=sm_80", "-c", "-o", str(folder / "selftest.o")]
        build.run([nvcc, *options, f"-I{build.KERNELS}", str(SOURCE)])
