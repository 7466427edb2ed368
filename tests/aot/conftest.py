"""Artefacts that several tests load, each built once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import attngen


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Callable[..., Path]:
    """`built("causal", ("O", "LSE"), dtype="fp32", head_dim=16)`: the artefact's path; options as of `spec.compile`."""
    root = tmp_path_factory.mktemp("artefacts")
    known: dict[str, Path] = {}

    def build(program, outputs=None, values=None, **options):
        key = repr((program, outputs, values, options))
        if key not in known:
            options = {"target": "cpu", "dtype": "fp32", "head_dim": 16, **options}
            spec = attngen.load(program, outputs, **(values or {}))
            known[key] = spec.compile(path=root / str(len(known)), **options)
        return known[key]

    return build
