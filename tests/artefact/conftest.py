"""The fake driver of GPUs, and artefacts that the tests of this room share; none of them changes one in place."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

import attngen
from tests.artefact.launches import FakeGpu

SOURCE = Path(__file__).with_name("fake_gpu.c")


@pytest.fixture(scope="session")
def _fake_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("fake_gpu") / "libfake.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, SOURCE], check=True)
    library = ctypes.CDLL(str(path))
    library.fake_log.restype = ctypes.c_char_p
    return library


@pytest.fixture
def gpu(_fake_library: ctypes.CDLL) -> FakeGpu:
    _fake_library.fake_clear()
    return FakeGpu(_fake_library)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two artefacts for the processor of this machine: `causal`, and a window with its LSE."""
    folder = tmp_path_factory.mktemp("small")
    for name, outputs in (("causal", None), ("sliding_window_sink", ("O", "LSE"))):
        attngen.load(name, outputs).compile("cpu", "fp32", 16, path=folder)
    return folder
