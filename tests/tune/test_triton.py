"""Triton without a GPU: candidates compile for machines that are not here, and run in the interpreter."""

from __future__ import annotations

import pytest
import torch

import attngen
from attngen import run_choice
from attngen.emit.target import parse_target
from attngen.emit.triton.config import TritonConfig
from attngen.tune import child
from attngen.tune.budget import BUDGETS, Budget
from attngen.tune.lab import within
from attngen.tune.pool import Built, Job, Pool
from attngen.tune.predict import fits
from attngen.tune.space import space_of
from attngen.tune.sweep import Means
from tests.tune.calls import qkv
from tests.tune.test_decide import Formula
from tests.tune.test_space import kernel


def compiled(name, target, configs, **values):
    spec, where, _ = kernel(name, target, **values)
    with Pool("triton") as pool:
        return [
            within(b, where)
            for b in pool.build([Job(c, child.build, ("triton", spec, where, c)) for c in configs])
        ]


def test_a_candidate_compiles_for_a_gpu_that_is_not_here():
    (built,) = compiled("causal", "sm_90", [TritonConfig(64, 32, 4, 2)])
    assert built.status == "ok"
    assert 0 < built.facts["shared"] < 227 << 10


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_90", "sm_120", "gfx942"])
@pytest.mark.parametrize("name", ["causal", "documents", "neighborhood_2d"])
def test_neighbours_of_the_default_compile(name, target):
    spec, where, default = kernel(name, target)
    near = [c for c in space_of(default, spec, where).neighbours(default) if fits(c, spec, where)]
    found = compiled(name, target, near)
    assert len(found) == len(near) >= 4
    assert {b.status for b in found} <= {"ok", "oom"}
    assert sum(b.status == "ok" for b in found) >= len(near) // 2


def test_more_shared_memory_than_there_is():
    config = TritonConfig(128, 64, 8, 3)
    assert (
        within(Built(config, "ok", 1.0, facts={"shared": 100 << 10}), parse_target("sm_86")).status == "oom"
    )
    assert within(Built(config, "ok", 1.0, facts={"shared": 90 << 10}), parse_target("sm_86")).status == "ok"
    assert within(Built(config, "ok", 1.0), parse_target("cpu")).status == "ok"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is for machines without a GPU")
@pytest.mark.parametrize("name", ["sliding_window", pytest.param("neighborhood_2d", marks=pytest.mark.slow)])
def test_tuning_in_the_interpreter(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 600.0, 2, 3, 1, 3))
    values = {"grid": (7, 9)} if name == "neighborhood_2d" else {"window": 20}
    spec, qkv_ = attngen.load(name, **values), qkv(heads=1, n=63)
    result = spec.tune_with(*qkv_, tensors={}, backend="triton", means=Means(timer=Formula()))
    (sweep,) = result.sweeps
    assert sweep.kind == "triton"
    assert sweep.chosen != sweep.default
    assert all(m.status == "ok" for m in sweep.measurements)
    out = spec(*qkv_, backend="triton")
    torch.testing.assert_close(out.double(), spec.reference(*qkv_), atol=1e-5, rtol=0)
    run_choice.forget_choices()
