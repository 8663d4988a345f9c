"""Compiling the ops once, keeping them and finding them again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import fake_compilers
import pytest
import torch

from stylegan_ops import build
from stylegan_ops.build import BuildError

BINDING = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include "twice.h"

torch::stable::Tensor twice(const torch::stable::Tensor& x) {
  auto y = torch::stable::clone(x);
  twice(static_cast<float*>(y.mutable_data_ptr()), y.numel());
  return y;
}
STABLE_TORCH_LIBRARY(pulse_sr_test, m) { m.def("twice(Tensor x) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(pulse_sr_test, CPU, m) {
  m.impl("twice", TORCH_BOX(static_cast<torch::stable::Tensor (*)(const torch::stable::Tensor&)>(
                      &twice)));
}
"""
KERNEL = """
#include "twice.h"
void twice(float* x, long n) {
  for (long i = 0; i < n; ++i) x[i] *= 2;
}
"""
HEADER = "#pragma once\nvoid twice(float* x, long n);\n"
CPU = {"binding.cpp": BINDING, "twice_cpu.cpp": KERNEL, "twice.h": HEADER}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "a cache"
    fake_compilers.clean_environment(monkeypatch, folder)
    return folder


@pytest.fixture
def sources(tmp_path, monkeypatch):
    return fake_compilers.install_sources(monkeypatch, tmp_path / "the $ources", CPU, {})


@pytest.fixture
def cxx(tmp_path, monkeypatch, sources):
    """A fake C++ compiler, chosen by CXX."""
    program = fake_compilers.make_cxx(tmp_path / "c++")
    monkeypatch.setenv("CXX", str(program))
    return program


@pytest.fixture
def failing(tmp_path, monkeypatch, sources):
    """A compiler that fails until the file `repaired` exists beside it."""
    script = """
if [ ! -e "${0%/*}/repaired" ] && echo "$*" | grep -q twice_cpu; then
  i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo "note $i" >&2; done
  echo "twice_cpu.cpp:3:1: error: expected ;" >&2
  exit 1
fi"""
    program = fake_compilers.make_cxx(tmp_path / "broken" / "c++", before=script)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("MAX_JOBS", "1")
    return program


@pytest.fixture
def slow(tmp_path, monkeypatch, sources):
    """A compiler that waits for the file `gate` beside it."""
    wait = 'while [ ! -e "${0%/*}/gate" ]; do sleep 0.02; done'
    program = fake_compilers.make_cxx(tmp_path / "slow" / "c++", before=wait)
    monkeypatch.setenv("CXX", str(program))
    yield program
    (program.parent / "gate").touch()


def start(target="cpu"):
    """Starts another process that builds."""
    process = multiprocessing.get_context("fork").Process(target=build.build, args=(target,))
    process.start()
    return process


def wait_until(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "nothing happened in 20 s"
        time.sleep(0.01)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# A build from nothing


def test_real_library_is_built_once_found_again_and_works(sources, cache):
    before = build.state("cpu")
    assert (before.status, before.path, before.hint) == ("missing", None, "pulse-sr doctor --build")
    assert not cache.exists()
    said = []
    path = build.build("cpu", said.append)
    assert path.parent.parent == cache
    assert path.name == "libstylegan_ops_cpu.so"
    assert sorted(os.listdir(path.parent)) == ["build.json", path.name]
    assert any("2 of 3" in line for line in said)
    after = build.state("cpu")
    assert (after.status, after.path, after.reason) == ("built", path, "")
    assert float(after.details["seconds"]) > 0
    assert path.parent.name == f"cpu-{after.details['key']}"
    said.clear()
    assert build.build("cpu", said.append) == path
    assert said == []
    torch.ops.load_library(str(path))
    assert torch.ops.pulse_sr_test.twice(torch.ones(3)).tolist() == [2, 2, 2]


def test_unknown_target_is_refused(sources):
    with pytest.raises(ValueError, match="'gpu', expected one of cpu, cuda"):
        build.state("gpu")


# Failures


def test_failure_is_recorded_and_tried_again_only_by_build(failing, cache):
    with pytest.raises(BuildError) as caught:
        build.build("cpu")
    assert (
        caught.value.reason == "the cpu ops did not compile: twice_cpu.cpp:3:1: error: expected ;"
    )
    assert "pulse-sr doctor --build" in caught.value.hint
    log = caught.value.log.splitlines()
    assert len(log) == 40
    assert any("error: expected" in line for line in log)
    tried = len(fake_compilers.calls(failing))
    found = build.state("cpu")
    assert (found.status, found.reason) == ("failed", caught.value.reason)
    assert found.hint == caught.value.hint
    record = json.loads((cache / f"cpu-{found.details['key']}.failed.json").read_text())
    assert record["log"] == log
    assert len(fake_compilers.calls(failing)) == tried

    with pytest.raises(BuildError):
        build.build("cpu")
    assert len(fake_compilers.calls(failing)) > tried
    (failing.parent / "repaired").touch()
    build.build("cpu")
    assert build.state("cpu").status == "built"
    key = found.details["key"]
    assert names(cache) == [f"cpu-{key}", f"cpu-{key}.lock"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "MAX_JOBS=1"),
        ("error: unsupported GNU version! gcc versions later than 15", "CXX"),
        ("fatal error: error writing: No space left on device", "free some space"),
        ("ld: binding.cpp.o: undefined reference to twice", "repair what"),
        ("nvcc fatal   : Unsupported gpu architecture", "repair what"),
    ],
)
def test_known_causes_have_their_own_hint(sources, tmp_path, monkeypatch, line, hint):
    program = fake_compilers.make_cxx(tmp_path / "c++", before=f"echo '{line}' >&2; exit 1")
    monkeypatch.setenv("CXX", str(program))
    with pytest.raises(BuildError) as caught:
        build.build("cpu")
    assert line in caught.value.reason
    assert hint in caught.value.hint


@pytest.mark.parametrize("jobs", ["0", "many", "-1", "1.5"])
def test_wrong_number_of_jobs_is_said_and_not_taken_for_a_broken_source(cxx, monkeypatch, jobs):
    monkeypatch.setenv("MAX_JOBS", jobs)
    with pytest.raises(BuildError, match=f"MAX_JOBS is '{jobs}', expected a whole number"):
        build.build("cpu")
    assert build.state("cpu").status == "missing"


def test_interruption_leaves_nothing_behind(cxx, cache):
    def interrupt(text):
        if "1 of 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build("cpu", interrupt)
    assert [name for name in names(cache) if not name.endswith(".lock")] == []
    assert build.state("cpu").status == "missing"


def test_sources_that_change_while_they_are_compiled_are_not_kept(cxx, sources):
    def edit(text):
        if "1 of 3" in text:
            (sources / "twice.h").write_text("another text")

    with pytest.raises(BuildError, match="cpu ops changed while they were compiled"):
        build.build("cpu", edit)
    (sources / "twice.h").write_text(HEADER)
    assert build.state("cpu").status == "missing"


# Several processes


def test_second_process_says_whom_it_waits_for_and_takes_the_result(slow, cache):
    other = start()
    wait_until(lambda: fake_compilers.calls(slow))
    said, paths = [], []
    thread = threading.Thread(target=lambda: paths.append(build.build("cpu", said.append)))
    thread.start()
    wait_until(lambda: said)
    assert "waiting for another process" in said[0]
    (slow.parent / "gate").touch()
    thread.join(20)
    other.join(20)
    assert other.exitcode == 0
    assert paths[0].is_file()
    assert len(said) == 1
    assert len(fake_compilers.calls(slow)) == 3  # two sources and one link, by one of the two


def test_waiting_process_takes_the_failure_too(slow, cache):
    slow.write_text(slow.read_text().replace("echo object", "exit 1 #"))
    other = start()
    wait_until(lambda: fake_compilers.calls(slow))
    said, errors = [], []

    def try_it():
        try:
            build.build("cpu", said.append)
        except BuildError as error:
            errors.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    wait_until(lambda: said)
    before = len(fake_compilers.calls(slow))
    (slow.parent / "gate").touch()
    thread.join(20)
    other.join(20)
    assert len(errors) == 1
    assert len(fake_compilers.calls(slow)) == before


def test_killed_process_blocks_nobody(slow, cache):
    other = start()
    wait_until(lambda: fake_compilers.calls(slow))
    os.kill(other.pid, signal.SIGKILL)
    other.join(20)
    assert [name for name in names(cache) if name.startswith(".")]
    (slow.parent / "gate").touch()
    said = []
    path = build.build("cpu", said.append)
    assert path.is_file()
    assert not any("waiting" in line for line in said)
    assert not [name for name in names(cache) if name.startswith(".")]


# The cache folder


def test_cache_that_is_a_file_is_one_clear_line(cxx, cache):
    cache.write_text("")
    with pytest.raises(BuildError) as caught:
        build.build("cpu")
    assert caught.value.reason.startswith(f"the cache folder {cache} can not be used: ")
    assert "STYLEGAN_OPS_CACHE" in caught.value.hint
    assert build.state("cpu").status == "missing"


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("call", ["mkdir", "open", "rename"])
def test_read_only_or_full_cache_is_one_clear_line(cxx, monkeypatch, code, call):
    real = getattr(os, call)

    def refuse(path, *args, **options):
        if "a cache" in str(path):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(BuildError, match=os.strerror(code)) as caught:
        build.build("cpu")
    assert "\n" not in caught.value.reason


def test_built_library_is_found_in_a_cache_that_can_not_be_written(cxx, monkeypatch):
    path = build.build("cpu")

    def refuse(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    assert build.build("cpu") == path
    assert build.state("cpu").path == path


def test_cache_that_may_not_be_looked_into_holds_nothing(cxx, monkeypatch):
    build.build("cpu")
    real = os.stat

    def refuse(path, *args, **options):
        if "a cache" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert build.state("cpu").status == "missing"


def test_progress_that_nobody_reads_any_more_is_not_blamed_on_the_cache(cxx):
    def closed(text):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(BrokenPipeError):
        build.build("cpu", closed)


def test_folder_without_a_library_is_replaced(cxx):
    path = build.build("cpu")
    path.unlink()
    assert build.state("cpu").status == "missing"
    assert build.build("cpu") == path
    assert path.is_file()


def test_place_of_the_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", "~/own")
    monkeypatch.setenv("HOME", "/home/me")
    assert build.cache_folder() == Path("/home/me/own")
    monkeypatch.delenv("STYLEGAN_OPS_CACHE")
    assert build.cache_folder() == Path("/shared/pulse-sr/ops")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert build.cache_folder() == Path("/home/me/.cache/pulse-sr/ops")


def test_no_home_folder_is_one_clear_line(cxx, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STYLEGAN_OPS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    found = build.state("cpu")
    assert found.status == "unavailable"
    assert "home folder" in found.reason
    assert "STYLEGAN_OPS_CACHE" in found.hint
