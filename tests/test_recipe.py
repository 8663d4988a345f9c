"""What is compiled with which commands, and what the key of a library depends on."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_compilers
import pytest

from stylegan_ops import build, recipe, toolchain
from stylegan_ops.build import BuildError
from stylegan_ops.toolchain import TorchBuild

BINDING = "// registers twice\n"
KERNEL = "// computes twice\n"
HEADER = "#pragma once\n"
CPU = {"binding.cpp": BINDING, "twice_cpu.cpp": KERNEL, "twice.h": HEADER}
CUDA = {"binding.cpp": BINDING, "twice.cu": "// a kernel\n"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    fake_compilers.clean_environment(monkeypatch, tmp_path / "cache")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    return fake_compilers.install_sources(monkeypatch, tmp_path / "sources", CPU, CUDA)


@pytest.fixture
def cxx(tmp_path, monkeypatch, sources):
    """A fake C++ compiler, chosen by CXX."""
    program = fake_compilers.make_cxx(tmp_path / "c++")
    monkeypatch.setenv("CXX", str(program))
    return program


@pytest.fixture
def cuda(tmp_path, monkeypatch, cxx):
    """A fake toolkit, and a torch with CUDA; returns nvcc."""
    program = fake_compilers.make_toolkit(tmp_path / "cuda")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    (tmp_path / "cuda" / "lib" / "libcudart.so").touch()
    monkeypatch.setattr(toolchain, "nvidia_packages", lambda: [])
    set_torch(monkeypatch, "2.10.0", "13.2")
    return program


def set_torch(monkeypatch, version, cuda, folder="/torch"):
    monkeypatch.setattr(recipe, "find_torch", lambda: TorchBuild(version, cuda, True, Path(folder)))


def test_cpu_commands_have_the_flags_and_torch_only_for_the_binding(cxx, monkeypatch):
    set_torch(monkeypatch, "2.10.0", None, "/my $torch")
    build.build("cpu")
    commands = fake_compilers.calls(cxx)
    (kernel,) = (line for line in commands if line.endswith("-o twice_cpu.cpp.o"))
    (binding,) = (line for line in commands if line.endswith("-o binding.cpp.o"))
    assert "-isystem" not in kernel
    for flag in ("-O3", "-fPIC", "=native", "-ffp-contract=fast", "-fopenmp-simd", "-Wextra"):
        assert flag in kernel
        assert flag in binding
    assert "-isystem /my $torch/include" in binding
    assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in binding
    assert "TORCH_TARGET_VERSION" not in kernel


def test_cuda_commands(cxx, cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    path = build.build("cuda")
    assert path.name == "libstylegan_ops_cuda.so"
    (kernel,) = fake_compilers.calls(cuda)
    assert f"-ccbin {cxx}" in kernel
    for code in ("80,code=sm_80", "90,code=sm_90", "90,code=compute_90"):
        assert f"-gencode=arch=compute_{code}" in kernel
    assert "code=compute_80" not in kernel
    assert "-isystem" not in kernel
    binding, link = fake_compilers.calls(cxx)
    assert "-DPSR_CUDA -DUSE_CUDA" in binding
    assert f"-isystem {tmp_path}/cuda/include" in binding
    assert "-shared" in link
    assert f"{tmp_path}/cuda/lib/libcudart.so" in link
    assert "-ltorch_cuda" in link
    assert build.state("cuda").details["architectures"] == "8.0, 9.0+PTX"


# What can not be built


def test_torch_without_cuda_makes_cuda_unavailable(cxx, monkeypatch):
    set_torch(monkeypatch, "2.10.0+cpu", None)
    found = build.state("cuda")
    assert (found.status, found.path) == ("unavailable", None)
    assert found.reason == "torch 2.10.0+cpu is a build without CUDA"
    with pytest.raises(BuildError, match="without CUDA"):
        build.build("cuda")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [("CXX", "no-such-compiler", "no-such-compiler"), ("TORCH_CUDA_ARCH_LIST", "x", "'x'")],
)
def test_wrong_variable_makes_it_unavailable(cuda, monkeypatch, variable, value, reason):
    assert build.state("cuda").status == "missing"
    monkeypatch.setenv(variable, value)
    found = build.state("cuda")
    assert found.status == "unavailable"
    assert reason in found.reason
    assert found.hint


def test_missing_source_is_named(cxx, sources):
    (sources / "twice_cpu.cpp").unlink()
    assert "lacks twice_cpu.cpp" in build.state("cpu").reason


def test_missing_package_of_sources_is_said(cxx, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda_kernels", None)
    assert "cuda_kernels" in build.state("cpu").reason


# The key


def test_key_changes_with_everything_that_changes_the_library(cxx, sources, monkeypatch, tmp_path):
    seen = {}

    def note(what):
        key = build.state("cpu").details["key"]
        assert key not in seen, f"{what} did not change the key of {seen.get(key)}"
        seen[key] = what

    set_torch(monkeypatch, "2.10.0", None)
    note("start")
    (sources / "twice_cpu.cpp").write_text(KERNEL + " ")
    note("a source")
    (sources / "twice.h").write_text(HEADER + " ")
    note("a header")
    (sources / "new.h").write_text("")
    note("another header")
    monkeypatch.setattr(recipe, "_CPU_FLAGS", ("-ffast-math",))
    note("a flag")
    set_torch(monkeypatch, "2.11.0", None)
    note("torch")
    monkeypatch.setenv("CXX", str(fake_compilers.make_cxx(tmp_path / "other")))
    note("path of the compiler")
    for change in ({"version": "fake c++ 2.0"}, {"native": "2"}):
        fake_compilers.make_cxx(tmp_path / "other", **change)
        toolchain._probe_compiler.cache_clear()
        note(str(change))


def test_key_does_not_depend_on_where_torch_is(cxx, monkeypatch):
    keys = set()
    for folder in ("/one", "/two"):
        set_torch(monkeypatch, "2.10.0", None, folder)
        keys.add(build.state("cpu").details["key"])
    assert len(keys) == 1


def test_key_of_cuda_changes_with_architectures_and_nvcc(cuda, monkeypatch, tmp_path):
    keys = []
    for each in ("9.0", "8.0+PTX", "8.0"):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", each)
        keys.append(build.state("cuda").details["key"])
    fake_compilers.make_toolkit(tmp_path / "newer", version="13.1.5")
    (tmp_path / "newer" / "lib" / "libcudart.so").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "newer"))
    keys.append(build.state("cuda").details["key"])
    assert len(set(keys)) == 4


def test_launcher_is_not_given_to_nvcc_as_host_compiler(cuda, cxx, tmp_path, monkeypatch):
    launcher = fake_compilers.script(tmp_path / "launch", '#!/bin/sh\nexec "$@"\n')
    assert f"-ccbin {cxx}" in recipe.ninja_text(recipe.make_recipe("cuda"))
    monkeypatch.setenv("CXX", f"{launcher} {cxx}")
    assert "-ccbin" not in recipe.ninja_text(recipe.make_recipe("cuda"))
