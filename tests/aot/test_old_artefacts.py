"""Artefacts that earlier versions built still load: their manifests and documents are kept as they were written.

Never rewrite a folder of `tests/golden/artefacts`: a change that breaks one needs a new number in
`manifest.FORMAT`, and then a folder of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import attngen
from attngen import analysed, forms
from attngen.artefact.manifest import FORMAT, manifest_from_bytes, manifest_to_bytes
from attngen.documents import shipping

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "artefacts"
KEPT = sorted(p for p in (GOLDEN / f"format_{FORMAT}").iterdir())


def test_there_is_one_of_the_present_format():
    assert {p.name for p in KEPT} >= {"column_sums", "documents", "neighborhood_2d"}


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.name)
def test_it_loads_and_nothing_is_derived(path, tmp_path, monkeypatch):
    copy = tmp_path / path.name
    shutil.copytree(path, copy)  # a checkout may be writable by others, which a loader refuses
    for folder in (copy, *copy.rglob("*")):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    monkeypatch.setattr("attngen.algebra.derive.derive", lambda *a, **k: pytest.fail("derived"))
    monkeypatch.setattr("attngen.algebra.plain.plain", lambda *a, **k: pytest.fail("made plain"))
    analysed.forget()
    forms.forget()
    loaded = attngen.load_artefact(copy)
    assert loaded.text() == loaded.manifest.text
    with shipping(loaded._documents):
        for step in forms.sweeps_of(loaded._analysed).steps:
            assert step.describe()
        assert loaded.derivation().passes >= 1


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.name)
def test_manifests_round_trip(path):
    data = (path / "manifest.json").read_bytes()
    assert manifest_to_bytes(manifest_from_bytes(data)) == data
