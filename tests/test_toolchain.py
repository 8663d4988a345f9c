"""Finding compilers, CUDA toolkits and architectures."""

from __future__ import annotations

import os

import fake_compilers
import pytest

from stylegan_ops import architectures, toolchain
from stylegan_ops.toolchain import BuildError, Nvcc, TorchBuild


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A function that makes fake compilers in a folder on PATH, and sets variables."""
    fake_compilers.clean_environment(monkeypatch, tmp_path / "cache")

    def make(*names, **variables):
        folder = tmp_path / "path"
        for name in names:
            fake_compilers.make_cxx(folder / name, version=f"{name} of the test")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if names else str(folder))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.fixture
def find_nvcc(monkeypatch):
    """A function that finds an nvcc among these programs."""

    def find(cuda, candidates):
        monkeypatch.setattr(toolchain, "nvcc_candidates", lambda cuda: candidates)
        return toolchain.find_nvcc(cuda)

    return find


def nvcc(*known, version="13.0.88"):
    return Nvcc("nvcc", version, "/", (), (), known or (75, 80, 86, 89, 90, 100, 103, 120, 121))


# The C++ compiler


def test_compiler_named_by_cxx_wins_over_path(on_path, tmp_path):
    own = fake_compilers.make_cxx(tmp_path / "own", version="own 3.2\nmore")
    on_path("c++", CXX=str(own))
    found = toolchain.find_compiler()
    assert found.command == (str(own),)
    assert found.version == "own 3.2"


def test_compiler_on_path_is_the_first_name_that_answers(on_path, tmp_path):
    on_path("c++", "g++", "clang++")
    assert toolchain.find_compiler().version == "c++ of the test"
    fake_compilers.script(tmp_path / "path" / "c++", "#!/bin/sh\nexit 1\n")
    toolchain._probe_compiler.cache_clear()
    assert toolchain.find_compiler().version == "g++ of the test"


def test_cxx_may_be_a_launcher_with_a_compiler(on_path, tmp_path):
    inner = fake_compilers.make_cxx(tmp_path / "inner", version="inner 1")
    launcher = fake_compilers.script(tmp_path / "launch", '#!/bin/sh\nexec "$@"\n')
    on_path("c++", CXX=f"'{launcher}' {inner}")
    found = toolchain.find_compiler()
    assert found.command == (str(launcher), str(inner))
    assert found.version == "inner 1"


@pytest.mark.parametrize(
    ("cxx", "reason"),
    [("no-such-compiler", "is not on PATH"), ("false", "does not answer --version")],
)
def test_wrong_cxx_is_named_and_not_replaced(on_path, cxx, reason):
    on_path("c++", CXX=cxx)
    with pytest.raises(BuildError, match=f"CXX names {cxx}, but .*{reason}") as caught:
        toolchain.find_compiler()
    assert "CXX" in caught.value.hint


def test_cxx_with_an_open_quote_is_said(on_path):
    on_path("c++", CXX='g++ "')
    with pytest.raises(BuildError, match=r"CXX=.*No closing quotation"):
        toolchain.find_compiler()


def test_no_compiler_says_where_it_looked(on_path):
    on_path()
    with pytest.raises(BuildError, match=r"no C\+\+ compiler.*c\+\+, g\+\+, clang\+\+"):
        toolchain.find_compiler()


def test_native_flag_is_dropped_where_the_compiler_refuses_it(on_path, tmp_path):
    good = fake_compilers.make_cxx(tmp_path / "good")
    refusing = tmp_path / "refusing"
    text = good.read_text().replace("case", 'case "$*" in *=native*) exit 1;; esac\ncase', 1)
    fake_compilers.script(refusing, text)
    on_path(CXX=str(good))
    assert toolchain.find_compiler().native_flag.endswith("=native")
    on_path(CXX=str(refusing))
    assert toolchain.find_compiler().native_flag == ""


def test_native_meaning_tells_machines_apart(on_path, tmp_path):
    old = fake_compilers.make_cxx(tmp_path / "old", native="avx2")
    new = fake_compilers.make_cxx(tmp_path / "new", native="avx512")
    meanings = []
    for each in (old, new):
        on_path(CXX=str(each))
        meanings.append(toolchain.find_compiler().native_meaning)
    assert meanings[0] != meanings[1]


# nvcc, its toolkit and the CUDA runtime


def test_toolkit_root_behind_a_wrapper_is_asked_from_nvcc(find_nvcc, tmp_path):
    real = fake_compilers.make_toolkit(tmp_path / "cuda-13.0")
    wrapper = fake_compilers.script(tmp_path / "bin" / "nvcc", f'#!/bin/sh\nexec "{real}" "$@"\n')
    found = find_nvcc("13.2", [wrapper])
    assert (found.path, found.version) == (wrapper, "13.0.88")
    assert found.root == tmp_path / "cuda-13.0"
    assert found.includes == (tmp_path / "cuda-13.0" / "include",)
    assert found.libraries[-1] == tmp_path / "cuda-13.0" / "lib"
    assert found.known == (75, 80, 86, 89, 90, 100)


def test_other_cuda_version_is_refused_with_both_versions_and_a_command(find_nvcc, tmp_path):
    old = fake_compilers.make_toolkit(tmp_path / "old", version="12.8.61")
    with pytest.raises(BuildError, match=r"CUDA 12\.8\.61, but torch .* CUDA 13\.2") as caught:
        find_nvcc("13.2", [old])
    assert "pip install 'nvidia-cuda-nvcc==13.2.*'" in caught.value.hint
    with pytest.raises(BuildError, match=r"CUDA 12\.8\.61, but torch .* CUDA 11\.8") as caught:
        find_nvcc("11.8", [old])
    assert "CUDA 11.8 toolkit" in caught.value.hint  # PyPI has no nvcc for it


def test_first_toolkit_that_fits_is_taken(find_nvcc, tmp_path):
    old = fake_compilers.make_toolkit(tmp_path / "old", version="12.8.61")
    silent = fake_compilers.script(tmp_path / "silent" / "nvcc", "#!/bin/sh\nexit 1\n")
    new = fake_compilers.make_toolkit(tmp_path / "new", version="13.5.37")
    assert find_nvcc("13.2", [tmp_path / "none", old, silent, new]).path == new


def test_no_toolkit_says_where_it_looked(find_nvcc, tmp_path):
    with pytest.raises(BuildError, match="no nvcc: looked at CUDA_HOME, PATH") as caught:
        find_nvcc("13.2", [tmp_path / "nvcc"])
    assert caught.value.hint.startswith("pip install")


@pytest.mark.parametrize(
    ("part", "package"),
    [
        ("nvvm/bin/cicc", "nvidia-nvvm"),
        ("include/crt/host_config.h", "nvidia-cuda-crt"),
        ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
        ("include/nv/target", "nvidia-cuda-cccl"),
    ],
)
def test_incomplete_pypi_toolkit_names_the_missing_package(find_nvcc, tmp_path, part, package):
    root = tmp_path / "site-packages" / "nvidia" / "cu13"
    program = fake_compilers.make_toolkit(root)
    assert find_nvcc("13.2", [program]).root == root
    (root / part).unlink()
    toolchain._probe_nvcc.cache_clear()
    with pytest.raises(BuildError, match=rf"lacks .*\({package}\)"):
        find_nvcc("13.2", [program])


def test_candidates_are_cuda_home_then_path_then_usual_place_then_pypi(
    on_path, tmp_path, monkeypatch
):
    on_path("nvcc", CUDA_HOME="/opt/one", CUDA_PATH="/opt/two")
    monkeypatch.setattr(toolchain, "nvidia_packages", lambda: [tmp_path / "nvidia"])
    found = toolchain.nvcc_candidates("13.2")
    assert list(map(str, found)) == [
        "/opt/one/bin/nvcc",
        "/opt/two/bin/nvcc",
        str(tmp_path / "path" / "nvcc"),
        "/usr/local/cuda/bin/nvcc",
        str(tmp_path / "nvidia" / "cu13" / "bin" / "nvcc"),
    ]


def test_cuda_runtime_of_torch_comes_before_the_one_of_the_toolkit(
    find_nvcc, tmp_path, monkeypatch
):
    toolkit = find_nvcc("13.2", [fake_compilers.make_toolkit(tmp_path / "cuda")])
    torch = TorchBuild("2.10.0", "13.2", True, tmp_path / "torch")
    monkeypatch.setattr(toolchain, "nvidia_packages", lambda: [tmp_path / "nvidia"])
    with pytest.raises(BuildError, match=r"no libcudart\.so\.13") as caught:
        toolchain.find_cudart(torch, toolkit)
    assert "nvidia-cuda-runtime==13.2" in caught.value.hint
    own, brought = tmp_path / "cuda/lib/libcudart.so", tmp_path / "nvidia/cu13/lib/libcudart.so.13"
    own.touch()
    assert toolchain.find_cudart(torch, toolkit) == own
    brought.parent.mkdir(parents=True)
    brought.touch()
    assert toolchain.find_cudart(torch, toolkit) == brought


def test_ninja_is_found():
    assert os.access(toolchain.find_ninja(), os.X_OK)


# Architectures


@pytest.mark.parametrize("text", ["8.0;9.0+PTX", "8.0  9.0+PTX;", "8.0;8.0;9.0+PTX"])
def test_variable_is_read_as_torch_does(text):
    assert architectures.choose_architectures(nvcc(80, 90), text, [89]) == ("8.0", "9.0+PTX")


@pytest.mark.parametrize(
    "text", ["8", "8.0,9.0", "8.0+ptx", "sm_80", "8.0.1", "nine", "9.0+PTX+PTX"]
)
def test_malformed_list_is_quoted_with_an_example(text):
    with pytest.raises(BuildError) as caught:
        architectures.choose_architectures(nvcc(), text, [])
    assert repr(text) in caught.value.reason
    assert "8.0;9.0+PTX" in caught.value.hint


def test_architecture_unknown_to_nvcc_lists_the_known_ones():
    with pytest.raises(BuildError, match=r"13\.0\.88 compiles for 7\.5 9\.0, not for 12\.0"):
        architectures.choose_architectures(nvcc(75, 90), "9.0;12.0", [])


@pytest.mark.parametrize(
    ("gpus", "known", "expected"),
    [
        ([], (), "7.5, 8.0, 8.6, 8.9, 9.0+PTX"),
        ([], (80, 90), "8.0, 9.0+PTX"),
        ([89], (), "8.9+PTX"),
        ([75, 90], (), "7.5, 9.0+PTX"),
        ([130], (80, 90), "9.0+PTX"),
        ([107, 121], (80, 90, 103, 121), "10.3+PTX, 12.1+PTX"),
        ([60, 90], (75, 90), "9.0+PTX"),
    ],
)
@pytest.mark.parametrize("variable", ["", "native"])
def test_default_is_the_gpus_of_the_machine(gpus, known, expected, variable):
    found = architectures.choose_architectures(nvcc(*known), variable, gpus)
    assert ", ".join(found) == expected


def test_gpu_too_old_for_nvcc_is_said():
    with pytest.raises(BuildError, match=r"capability 7\.0; nvcc compiles for 7\.5 and up"):
        architectures.choose_architectures(nvcc(75, 80), "", [70])


def test_capabilities_of_all_gpus_are_read_once_each(monkeypatch):
    pairs = [(9, 0), (8, 6), (9, 0)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(pairs))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda i: pairs[i])
    assert architectures.gpu_capabilities() == [86, 90]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert architectures.gpu_capabilities() == []
