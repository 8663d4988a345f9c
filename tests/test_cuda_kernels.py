"""The CUDA kernels, run thread by thread on the emulated device, against the CPU kernels.

The emulation compiles the `.cu` files themselves with g++ and checks barriers, shuffles and shared
memory (tests/cuda_emulation/README.md). What it can not show, speed and real concurrency, is left
to the tests marked `gpu`.
"""

from __future__ import annotations

import hashlib
import json

import kernel_cases
import pytest
import torch
from cuda_emulation import build as emulation

import cuda_kernels
from stylegan_ops import build, toolchain

OPS = ("bias_act", "upfirdn2d", "style_epilogue")
NAMESPACE = "stylegan_ops_emulated"
CALLS = 30

#: Orders in which the threads of a block run between two barriers: forward, backward, shuffled. A
#: barrier that is missing shows as a difference between them.
ORDERS = (0, 1, 77)

pytestmark = pytest.mark.usefixtures("compiled_cpu")


@pytest.fixture(scope="session")
def emulated(op_cache):
    """The CUDA kernels as operators on CPU tensors; compiled once for each state of the sources."""
    found = toolchain.find_torch()
    sources = [cuda_kernels.FOLDER / name for name in cuda_kernels.CUDA_SOURCES]
    files = [*sources, *cuda_kernels.FOLDER.glob("*.h"), *emulation.HERE.iterdir()]
    contents = b"".join(file.read_bytes() for file in sorted(files) if file.is_file())
    key = hashlib.sha256(contents + found.version.encode()).hexdigest()[:16]
    folder = op_cache / f"emulated-{key}"
    library = folder / "binding.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        options = [
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(found.cxx11_abi)}",
            *("-isystem", str(found.folder / "include")),
            *(f"-L{found.folder / 'lib'}", "-Wl,--no-as-needed"),
            *("-ltorch", "-ltorch_cpu", "-lc10"),
        ]
        emulation.build(sources, folder, *options)
    torch.ops.load_library(str(library))
    return emulation.open_library(library)


@pytest.mark.parametrize("dtype", kernel_cases.TOLERANCES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_the_cuda_kernels_agree_with_float64_on_random_calls(op, dtype, emulated):
    """All memory orders and odd sizes, in every order of threads, the same bits each time."""
    for seed in range(CALLS):
        name, args = kernel_cases.MAKERS[op](1000 + seed)
        expected = kernel_cases.outputs("stylegan_ops", name, args)
        _, cast = kernel_cases.cast(name, args, dtype)
        results = []
        for order in ORDERS:
            emulated.psr_emulation_set_order(order)
            results.append(kernel_cases.outputs(NAMESPACE, name, cast))
        kernel_cases.assert_agrees(name, args, results[0], expected, dtype)
        for other in results[1:]:
            for first, second in zip(results[0], other, strict=True):
                assert torch.equal(first, second), (name, seed)


@pytest.mark.parametrize("op", OPS)
def test_every_element_is_written_once_and_nothing_beside(op, emulated):
    """New memory is filled with NaN: what a kernel leaves out stays NaN."""
    emulated.psr_emulation_set_order(0)
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory
    try:
        for seed in range(CALLS):
            name, args = kernel_cases.MAKERS[op](2000 + seed)
            _, cast = kernel_cases.cast(name, args, torch.float32)
            for output in kernel_cases.outputs(NAMESPACE, name, cast):
                assert output.isfinite().all(), (name, seed)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.nvcc
def test_nvcc_compiles_all_kernels_for_every_architecture_without_a_warning(tmp_path, monkeypatch):
    """75, 80, 86, 89, 90 and PTX for later ones; the library links and loads without a GPU."""
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(tmp_path))
    architectures = ["7.5", "8.0", "8.6", "8.9", "9.0+PTX"]
    path = build.build("cuda")
    record = json.loads((path.parent / "build.json").read_text())
    assert record["warnings"] == []
    for architecture in architectures:
        assert architecture in record["architectures"]
    torch.ops.load_library(str(path))
    kernels = torch._C._dispatch_dump("stylegan_ops::style_epilogue")
    assert "CUDA" in kernels
