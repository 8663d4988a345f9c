"""`pulse-sr doctor`: the report, its repairs, and compiling ahead of time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import fake_compilers
import pytest
from click.testing import CliRunner

import pulse_sr
from pulse_sr.cli import main
from pulse_sr.jobs import diagnosis
from pulse_sr.models import registry
from stylegan_ops import recipe
from stylegan_ops.toolchain import TorchBuild

SOURCES = {"binding.cpp": "int one;\n", "ops.h": "\n"}
GPU = {"device": "cuda:0", "name": "Test GPU", "memory_gb": 80.0, "capability": "9.0"}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with a fake compiler, tiny sources, no GPU and a torch without CUDA."""
    fake_compilers.clean_environment(monkeypatch, tmp_path / "cache")
    fake_compilers.install_sources(monkeypatch, tmp_path / "sources", SOURCES, SOURCES)
    monkeypatch.setenv("CXX", str(fake_compilers.make_cxx(tmp_path / "c++")))
    set_torch(monkeypatch, None)
    monkeypatch.setattr(diagnosis, "_devices", lambda: [])
    monkeypatch.setattr(diagnosis, "_version", lambda package: f"1.0 of {package}")


@pytest.fixture
def broken_compiler(tmp_path, monkeypatch):
    before = "echo 'binding.cpp:1:1: error: this compiler is broken' >&2; exit 1"
    program = fake_compilers.make_cxx(tmp_path / "broken", before=before)
    monkeypatch.setenv("CXX", str(program))


def set_torch(monkeypatch, cuda):
    found = TorchBuild("2.10.0", cuda, True, Path("/torch"))
    monkeypatch.setattr(recipe, "find_torch", lambda: found)
    monkeypatch.setattr("torch.version.cuda", cuda)


def doctor(*words):
    return CliRunner().invoke(main, ["doctor", *words])


def report(*words):
    result = doctor("--json", *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_text_names_versions_compilers_ops_priors_and_packages(tmp_path):
    result = doctor()
    assert result.exit_code == 0, result.output
    for words in (
        ["pulse-sr", pulse_sr.__version__],
        ["CUDA of torch", "none"],
        ["c++", f"{tmp_path}/c++: fake c++ 1.0"],
        ["nvcc", "torch is a build without CUDA"],
        ["cache of the ops", f"{tmp_path}/cache"],
        ["cpu", "missing", "not compiled yet"],
        ["cuda", "unavailable"],
        ["bias_act", "PyTorch", "PyTorch"],
        ["faces-128", "good"],
        ["lpips", "1.0 of lpips"],
    ):
        assert any(has_in_order(line, words) for line in result.stdout.splitlines()), words
    repairs = [line for line in result.stdout.splitlines() if line.startswith("to repair:")]
    assert repairs == [
        "to repair: pulse-sr doctor --build  (no compiled cpu ops: not compiled yet)"
    ]


def has_in_order(line, words):
    place = 0
    for word in words:
        place = line.find(word, place)
        if place < 0:
            return False
    return True


def test_json_is_one_document_with_the_same_facts(tmp_path):
    found = report()
    assert found["schema"] == 1
    assert found["versions"]["pulse-sr"] == pulse_sr.__version__
    assert found["machine"]["cores"] >= 1
    assert found["compilers"]["c++"] == {"path": f"{tmp_path}/c++", "version": "fake c++ 1.0"}
    assert found["libraries"]["cpu"]["status"] == "missing"
    assert found["libraries"]["cuda"]["status"] == "unavailable"
    assert found["ops"]["upfirdn2d"] == {"cpu": "PyTorch", "cuda": "PyTorch"}
    assert found["priors"][0]["status"] == "good"
    assert found["cache"] == f"{tmp_path}/cache"
    assert [problem["repair"] for problem in found["problems"]] == ["pulse-sr doctor --build"]


def test_doctor_alone_compiles_nothing(tmp_path):
    doctor()
    assert fake_compilers.calls(tmp_path / "c++") == []
    assert not (tmp_path / "cache").exists()


def test_missing_optional_package_is_no_failure(monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "lpips" else "1")
    result = doctor()
    assert result.exit_code == 0
    assert "to repair: pip install lpips  (the package lpips is not installed)" in result.stdout


def test_every_dependency_is_looked_for():
    document = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    names = {re.match(r"[\w-]+", each)[0] for each in document["project"]["dependencies"]}
    assert set(report()["packages"]) == names


def test_missing_needed_package_is_exit_3(monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "safetensors" else "1")
    result = doctor()
    assert result.exit_code == 3
    assert "to repair: pip install safetensors" in result.stdout


def test_torch_that_does_not_load_is_exit_3_with_a_report(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = doctor()
    assert result.exit_code == 3
    assert "python" in result.stdout
    assert "to repair: reinstall torch  (torch can not be imported" in result.stdout
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda file: file.write_bytes(b"not a prior"), "damaged (sha256 "),
        (lambda file: file.unlink(), "missing"),
    ],
)
def test_damaged_prior_is_exit_3(monkeypatch, tmp_path, damage, status):
    shutil.copytree(registry.FOLDERS["prior"], tmp_path / "bundled")
    monkeypatch.setitem(registry.FOLDERS, "prior", tmp_path / "bundled")
    assert doctor().exit_code == 0
    name, entry = next(iter(registry.bundled().items()))
    damage(tmp_path / "bundled" / entry["file"])
    result = doctor()
    assert result.exit_code == 3
    assert f"(the bundled prior {name} is {status}" in result.stdout


def test_missing_list_of_priors_is_exit_3(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.FOLDERS, "prior", tmp_path)
    result = doctor()
    assert result.exit_code == 3
    assert "to repair: reinstall pulse-sr  (the list of bundled priors" in result.stdout


def test_cuda_ops_are_missed_only_where_there_is_a_gpu(monkeypatch):
    assert len(report()["problems"]) == 1
    monkeypatch.setattr(diagnosis, "_devices", lambda: [GPU])
    problems = report()["problems"]
    assert problems[1]["what"] == "no compiled cuda ops: torch 2.10.0 is a build without CUDA"
    assert problems[1]["repair"] == "install a CUDA build of torch"
    assert "Test GPU, 80.0 GB, capability 9.0" in doctor().stdout


def test_toolkit_of_another_version_is_named(monkeypatch, tmp_path):
    set_torch(monkeypatch, "13.2")
    fake_compilers.make_toolkit(tmp_path / "cuda", version="12.8.61")
    candidates = [tmp_path / "cuda" / "bin" / "nvcc"]
    monkeypatch.setattr("stylegan_ops.toolchain.nvcc_candidates", lambda cuda: candidates)
    found = report()
    reason = f"{candidates[0]} is of CUDA 12.8.61, but torch was built with CUDA 13.2"
    assert found["compilers"]["nvcc"] == {"problem": reason}
    assert found["libraries"]["cuda"]["reason"] == reason


def test_missing_compiler_is_said_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = report()
    assert "no-such-compiler" in found["compilers"]["c++"]["problem"]
    assert found["libraries"]["cpu"]["status"] == "unavailable"
    assert found["problems"][0]["repair"] == "set CXX to a C++ compiler, or unset it"


def test_build_compiles_what_is_possible_and_then_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan_ops.library.FASTER_ON_CPU", {"an_op": True, "other_op": False})
    result = doctor("--build")
    assert result.exit_code == 0, result.output
    library = next((tmp_path / "cache").glob("cpu-*/*.so"))
    assert f"cpu: {library}" in result.stderr
    assert "cuda: unavailable: torch 2.10.0 is a build without CUDA" in result.stderr
    assert any(
        has_in_order(line, ["cpu", "built", str(library)]) for line in result.stdout.splitlines()
    )
    assert "to repair:" not in result.stdout
    found = report("--build")
    assert found["libraries"]["cpu"]["path"] == str(library)
    assert found["ops"]["an_op"] == {"cpu": "compiled", "cuda": "PyTorch"}


def test_build_with_a_broken_compiler_is_exit_3_with_its_last_lines(broken_compiler):
    result = doctor("--build", "-q")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "  binding.cpp:1:1: error: this compiler is broken\n" in result.stderr
    assert "error: the cpu ops did not compile: binding.cpp:1:1: error: this" in result.stderr
    assert "hint: " in result.stderr
    after = report()
    assert after["libraries"]["cpu"]["status"] == "failed"
    assert "did not compile" in after["problems"][0]["what"]


def test_build_that_fails_is_one_json_document(broken_compiler):
    result = doctor("--build", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"].startswith("the cpu ops did not compile")


def test_build_without_any_compiler_is_exit_3(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = doctor("--build")
    assert result.exit_code == 3
    assert "error: CXX names no-such-compiler" in result.stderr


def test_processor_and_driver_are_read_from_the_system(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Test CPU @ 3 GHz\n")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n"
    )
    monkeypatch.setattr(diagnosis, "_CPU_FILE", tmp_path / "cpuinfo")
    monkeypatch.setattr(diagnosis, "_DRIVER_FILE", tmp_path / "version")
    assert report()["machine"]["cpu"] == "Test CPU @ 3 GHz"
    assert report()["driver"] == "580.65.06"
    monkeypatch.setattr(diagnosis, "_CPU_FILE", tmp_path / "none")
    assert diagnosis.cpu_model() != ""


def test_help_imports_neither_torch_nor_numpy():
    code = (
        "import sys\nfrom pulse_sr.cli import main\n"
        "try: main(['doctor', '--help'], prog_name='pulse-sr')\n"
        "finally: print(sorted({'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--build" in done.stdout
    assert done.stderr.strip() == "[]"
