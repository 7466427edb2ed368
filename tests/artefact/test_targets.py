"""Which kernels run on which device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from attngen.artefact import targets
from attngen.backends import cpu_compile
from attngen.errors import DeviceError

GPU = torch.device("cuda", 0)
X86_V3 = "flags : avx2 fma f16c bmi2 sse4_2"
X86_V4 = f"{X86_V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.fixture(autouse=True)
def _forget():
    targets.accepted.cache_clear()
    targets.shared_limit.cache_clear()
    yield
    targets.accepted.cache_clear()
    targets.shared_limit.cache_clear()


def on(monkeypatch, *, hip=None, **properties):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(**properties))
    monkeypatch.setattr(torch.version, "hip", hip)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((8, 0), ("sm_80",)),
        ((8, 6), ("sm_86", "sm_80")),
        ((8, 7), ("sm_86", "sm_80")),
        ((8, 9), ("sm_89", "sm_86", "sm_80")),
        ((9, 0), ("sm_90",)),
        ((10, 0), ("sm_100",)),
        ((10, 3), ("sm_103",)),
        ((12, 0), ("sm_120",)),
        ((12, 1), ()),
        ((7, 5), ()),
    ],
)
def test_nvidia(monkeypatch, capability, expected):
    on(monkeypatch, major=capability[0], minor=capability[1])
    assert targets.accepted(GPU) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("gfx942:sramecc+:xnack-", ("gfx942",)), ("gfx90a", ("gfx90a",)), ("gfx1100", ())]
)
def test_amd(monkeypatch, name, expected):
    on(monkeypatch, hip="6.2", gcnArchName=name)
    assert targets.accepted(GPU) == expected
    assert targets.shared_limit(GPU) == ((64 << 10) if expected else (48 << 10))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((X86_V4,), ("cpu-avx512", "cpu-avx2", "cpu")),
        ((X86_V3,), ("cpu-avx2", "cpu")),
        (("flags : sse2",), ("cpu",)),
        (("Features : asimd",), ("cpu",)),
        ((), ("cpu",)),
    ],
)
def test_processors(monkeypatch, lines, expected):
    monkeypatch.setattr(cpu_compile, "_cpu_lines", lambda: lines)
    assert targets.accepted(torch.device("cpu")) == expected


def test_other_devices():
    with pytest.raises(DeviceError, match="meta"):
        targets.accepted(torch.device("meta"))


def test_a_later_device_may_have_less_shared_memory(monkeypatch):
    """Kernels of sm_80 run on sm_86, unless they take more than that has."""
    on(monkeypatch, major=8, minor=6)
    assert targets.shared_limit(GPU) == 99 << 10
    targets.shared_limit.cache_clear()
    on(monkeypatch, major=8, minor=7, shared_memory_per_block_optin=166_912)
    assert targets.shared_limit(GPU) == 166_912
    targets.shared_limit.cache_clear()
    on(monkeypatch, major=8, minor=7)
    assert targets.shared_limit(GPU) == 48 << 10
