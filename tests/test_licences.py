"""scripts/licences.py: what may be depended on, and that all that is installed is looked at."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def licences(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    return importlib.import_module("licences")


@pytest.mark.parametrize(
    "text",
    [
        "MIT",
        "MIT-CMU",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
        "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSL-1.0",
        "MPL-2.0 AND (Apache-2.0 OR MIT)",
        "Mozilla Public License 2.0 (MPL 2.0)",
        "Python Software Foundation License",
    ],
)
def test_permissive_licences_as_packages_write_them(licences, text):
    assert licences.foreign(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GPL-3.0-only", ["GPL-3.0-only"]),
        ("MIT AND LGPL-2.1-or-later", ["LGPL-2.1-or-later"]),
        ("GNU Affero General Public License v3", ["GNU Affero General Public License v3"]),
        ("Other/Proprietary License", ["Other/Proprietary License"]),
        ("MITRE", ["MITRE"]),
        ("CC-BY-NC-4.0", ["CC-BY-NC-4.0"]),
        ("", ["no licence stated"]),
    ],
)
def test_all_others_are_named(licences, text, found):
    assert licences.foreign(text) == found


def test_dependencies_of_dependencies_are_followed(licences):
    found = licences.required([])
    assert {"torch", "sympy", "mpmath", "numpy"} <= set(
        found
    )  # mpmath is sympy's, sympy is torch's
    assert "pulse-sr" not in found


def test_one_that_is_not_allowed_fails(licences, monkeypatch, capsys):
    monkeypatch.setattr(licences, "required", lambda extras: ["numpy", "torch"])
    words = {"numpy": "SSPL-1.0", "torch": "BSD"}
    monkeypatch.setattr(licences, "stated", words.__getitem__)
    assert licences.main(["test"]) == 1
    assert "numpy: SSPL-1.0" in capsys.readouterr().err
    words["numpy"] = "BSD"
    assert licences.main(["test"]) == 0
