"""Finding the library of a driver."""

from __future__ import annotations

import ctypes

import pytest

from attngen.artefact import driver
from attngen.errors import LoadError


@pytest.fixture(autouse=True)
def _forget():
    driver.driver_of.cache_clear()
    yield
    driver.driver_of.cache_clear()


def test_a_machine_without_one(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    for kind in ("cuda", "hip"):
        with pytest.raises(LoadError, match="no driver of a GPU"):
            driver.driver_of(kind)


def test_a_library_that_is_none():
    with pytest.raises(LoadError, match="no function cuModuleLoadData"):
        driver.CudaDriver(ctypes.CDLL(None))


def test_the_library_that_pytorch_has_loaded_comes_first(monkeypatch, tmp_path, gpu):
    """Another one beside it would know nothing of PyTorch's streams."""
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 17 /opt/torch/lib/libamdhip64.so.6\n"
        "7f02-7f03 r--p 00000000 08:01 17 /opt/torch/lib/libamdhip64.so.6\n"
        "7f04-7f05 rw-p 00000000 00:00 0 [heap]\n"
        "7f06-7f07 r-xp 00000000 08:01 18 /usr/lib/libc.so.6\n"
    )
    asked: list[str] = []

    def opened(name):
        asked.append(name)
        return gpu.library

    monkeypatch.setattr(driver, "_MAPS", maps)
    monkeypatch.setattr(ctypes, "CDLL", opened)
    assert isinstance(driver.driver_of("hip"), driver.HipDriver)
    assert asked == ["/opt/torch/lib/libamdhip64.so.6"]
    monkeypatch.setattr(driver, "_MAPS", tmp_path / "none")
    driver.driver_of.cache_clear()
    driver.driver_of("hip")
    assert asked[1].endswith("torch/lib/libamdhip64.so")
