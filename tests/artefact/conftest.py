"""Artefacts that the tests of this room share; none of them changes one in place."""

from __future__ import annotations

from pathlib import Path

import pytest

import attngen


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two artefacts for the processor of this machine: `causal`, and a window with its LSE."""
    folder = tmp_path_factory.mktemp("small")
    for name, outputs in (("causal", None), ("sliding_window_sink", ("O", "LSE"))):
        attngen.load(name, outputs).compile("cpu", "fp32", 16, path=folder)
    return folder
