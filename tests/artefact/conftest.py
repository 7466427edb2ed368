"""The fake driver of GPUs."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

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
