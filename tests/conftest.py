"""Shared fixtures."""

from __future__ import annotations

import os
import random
import sys
import types

import pytest

# Processes that test side by side (`-n`) share the cores; torch would take all of them in each, as
# many as there are when it is imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import fake_search

# Tests see the PyTorch reference of every op unless they ask for another by name: results must not
# depend on which test has loaded the compiled library before.
os.environ["STYLEGAN_OPS"] = "ref"


def pytest_collection_modifyitems(config, items):
    """Leaves out the tests marked `gpu` or `nvcc` where there is no such thing; long ones begin."""
    import torch

    lacking = set()
    if not torch.cuda.is_available():
        lacking.add("gpu")
    if not _has_nvcc():
        lacking.add("nvcc")
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in lacking)]
    config.hook.pytest_deselected(items=left_out)
    # At the end of a run with -n, one process would wait for the other's long test.
    long = [item for item in items if any(map(item.get_closest_marker, ("nvcc", "slow")))]
    items[:] = [item for item in dict.fromkeys(long + items) if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seeds what a test and its fixtures draw without a generator."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


def _has_nvcc():
    from stylegan_ops import toolchain

    cuda = toolchain.find_torch().cuda
    try:
        return cuda is not None and bool(toolchain.find_nvcc(cuda))
    except toolchain.BuildError:
        return False


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """A user's cache folder that no run of the tests shares with another, or with the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def op_cache(request):
    """The folder of compiled ops of the test runs of this checkout; builds go there."""
    folder = request.config.cache.mkdir("stylegan_ops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_OPS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def compiled_cpu(op_cache):
    """Loads the compiled CPU ops, building them once."""
    from stylegan_ops import library

    library.require("cpu")


@pytest.fixture(params=["ref", "cpp", pytest.param("cuda", marks=pytest.mark.gpu)])
def impl(request):
    """Every implementation of the ops that this machine has."""
    if request.param != "ref":
        request.getfixturevalue("compiled_cpu")
    if request.param == "cuda":
        request.getfixturevalue("op_cache")
    return request.param


@pytest.fixture
def device(impl):
    """Where the tensors of `impl` lie."""
    return "cuda" if impl == "cuda" else "cpu"


@pytest.fixture
def face(tmp_path):
    """A function that writes a 16-px picture: face("a/x.png", seed=1)."""

    def make(name="face.png", seed=0, size=(16, 16)):
        return fake_search.make_face(tmp_path / name, seed, size)

    return make


@pytest.fixture
def fake_api(monkeypatch):
    """Replaces `pulse_sr.api`, so that the command line runs without a trained prior."""
    api = types.ModuleType("pulse_sr.api")
    api.load_prior = lambda name=None, device="auto": fake_search.PRIOR
    api.search_image = fake_search.search
    api.search_images = fake_search.one_by_one(lambda *a, **k: api.search_image(*a, **k))
    api.list_priors = lambda: [{**fake_search.PRIOR.card, "sha256": "f" * 64, "resolution": 64}]
    monkeypatch.setitem(sys.modules, "pulse_sr.api", api)
    searched = "pulse_sr.inversion.stream.search_images"
    monkeypatch.setattr(searched, lambda *a, **k: api.search_images(*a, **k))
    monkeypatch.setattr("pulse_sr.models.registry.load_prior", lambda *a: api.load_prior(*a))
    return api
