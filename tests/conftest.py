"""Shared fixtures."""

from __future__ import annotations

import sys
import types

import fake_search
import pytest


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
    api.list_priors = lambda: [{**fake_search.PRIOR.card, "sha256": "f" * 64, "resolution": 64}]
    monkeypatch.setitem(sys.modules, "pulse_sr.api", api)
    return api
