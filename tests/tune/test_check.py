"""The check of a candidate: right ones pass, wrong ones do not, and the default is held to nothing but float64."""

from __future__ import annotations

import pytest
import torch

import attngen
from attngen.emit.cpu_config import CpuConfig
from attngen.run_sweep import SweepRunner
from attngen.tune.check import expected_of, mistake_of, small_call
from tests.tune.calls import calls_of, qkv

TILES = (CpuConfig(32, 24), CpuConfig(96, 48, 1))
COLUMN_SUMS = """
    S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
    M[q] = max[k](S[q, k])
    E[q, k] = exp(S[q, k] - M[q])
    Z[q] = sum[k](E[q, k])
    A[q, k] = E[q, k] / Z[q]
    O[q, e] = sum[k](A[q, k] * V[k, e])
    C[k] = sum[q](A[q, k])
    return O, C
"""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("neighborhood_2d", torch.float32),
        *(
            pytest.param(name, dtype, marks=pytest.mark.slow)
            for name in ("causal", "sliding_window_sink", "neighborhood_2d", "documents")
            for dtype in (torch.float32, torch.bfloat16)
        ),
    ],
)
def test_other_tiles_pass(name, dtype):
    values = {"grid": (12, 13)} if name == "neighborhood_2d" else {}
    tensors = {"doc": torch.arange(156)[None] // 50} if name == "documents" else {}
    (call,) = calls_of(attngen.load(name, **values), *qkv(n=156, dtype=dtype), **tensors)
    expected = expected_of(call)
    assert set(expected.exact) == {"O"}
    for config in TILES:
        assert mistake_of(expected, config) is None


@pytest.mark.slow
def test_sweeps_of_a_cascade_pass_each_on_its_own():
    spec = attngen.Attention(mask=attngen.masks.causal(), cascade=COLUMN_SUMS)
    calls = calls_of(spec, *qkv())
    assert len(calls) == 2
    assert [c.runner.rows for c in calls] == ["q", "k"]
    for call in calls:
        expected = expected_of(call)
        for config in TILES:
            assert mistake_of(expected, config) is None


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["local_then_merge", "scan"])
def test_parts_of_the_keys_pass(algorithm):
    spec = attngen.Attention(mask=attngen.masks.causal(), algorithm=algorithm)
    for call in calls_of(spec, *qkv(n=600)):
        assert mistake_of(expected_of(call), TILES[0]) is None


def test_the_small_call_is_short_and_odd():
    (call,) = calls_of(attngen.load("causal"), *qkv(heads=4, kv_heads=2, n=400))
    small = small_call(call)
    assert small is not None
    assert (small.shapes.heads, small.shapes.kv_heads, small.shapes.n_q) == (2, 1, 193)
    assert mistake_of(expected_of(small), TILES[0]) is None
    (grid,) = calls_of(attngen.load("neighborhood_2d", grid=(12, 13)), *qkv(n=156))
    assert small_call(grid) is None


@pytest.mark.parametrize(
    "damage",
    [lambda o: o.add_(1e-3), lambda o: o[..., -1, :].zero_(), lambda o: o[0, 0, 7].fill_(float("nan"))],
)
def test_wrong_results_are_found(damage, monkeypatch):
    (call,) = calls_of(attngen.load("causal"), *qkv(n=300))
    expected = expected_of(call)
    ready = SweepRunner.ready

    def spoilt(self, call, shapes, outs, config):
        class Spoilt:
            def launch(_self):
                ready(self, call, shapes, outs, config).launch()
                damage(outs["O"])

        return Spoilt()

    monkeypatch.setattr(SweepRunner, "ready", spoilt)
    assert "O differs" in mistake_of(expected, TILES[0])


def test_elements_that_are_left_out_are_found(monkeypatch):
    (call,) = calls_of(attngen.load("causal"), *qkv())
    expected = expected_of(call)

    class Idle:
        def launch(self):
            pass

    monkeypatch.setattr(SweepRunner, "ready", lambda *_: Idle())
    assert "differs from the default's by inf" in mistake_of(expected, TILES[0])
