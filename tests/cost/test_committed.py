"""The committed measurements: shipped prices rank them, and the work that was counted for them is the same now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import attngen
from attngen.bench.cost.cases import CASES
from attngen.bench.cost.measure import Point, work_of
from attngen.bench.cost.quality import judged
from attngen.bench.cost.suite import cpu_prices, judge, predicted, tile_prices
from attngen.cost.model import CallModel
from attngen.cost.prices import prices
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.spec import Target
from attngen.emit.triton.config import TritonConfig
from attngen.sample_values import TORCH_DTYPES, make_qkv, with_samples

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def points():
    held = json.loads((RESULTS / "cost_cpu.json").read_text(encoding="utf-8"))
    return [Point(**p) for p in held["points"]]


def test_shipped_prices_rank_and_pick(points):
    assert len(points) >= 100
    found = judge(points, prices("cpu"))
    assert found.fitted["rank_correlation"] >= 0.8
    assert found.fitted["pick_over_best_median"] <= 1.10
    assert found.left_out["rank_correlation"] >= 0.8
    assert found.left_out["pick_over_best_median"] <= 1.10


def test_shipped_prices_are_those_of_the_measurements(points):
    for name, price in cpu_prices(points).items():
        assert prices("cpu")[name] == pytest.approx(price, rel=1e-4)
    for kind, units in tile_prices(RESULTS / "static_triton.json").items():
        assert prices(kind) == pytest.approx(units, rel=1e-4)


def test_a_worse_model_is_told_from_this_one(points):
    """Dense counts, which ignore what a mask leaves out, rank worse: the bar is no bar that anything passes."""
    groups, seconds = [p.group for p in points], [p.seconds for p in points]
    tiles = [p.work["keys"] for p in points]  # the number of keys listed says little of the time
    ours = [predicted(p, prices("cpu")) for p in points]
    assert (
        judged(groups, tiles, seconds)["rank_correlation"] + 0.2
        < judged(groups, ours, seconds)["rank_correlation"]
    )


@pytest.mark.parametrize("case", CASES[::7], ids=lambda c: c.name)
def test_work_is_counted_as_it_was(points, case, monkeypatch):
    """On the machine's lanes and caches that were measured."""
    held = json.loads((RESULTS / "cost_cpu.json").read_text(encoding="utf-8"))
    mine = [p for p in points if p.group.startswith(case.name + " #0")]
    assert mine
    spec = attngen.load(case.program, **case.values)
    qkv = make_qkv(1, case.heads, case.kv_heads, case.n_q, case.n_k, case.head_dim, case.value_dim)
    q, k, v = (t.to(TORCH_DTYPES[case.dtype]) for t in qkv)
    tensors = with_samples(spec, (q, k, v), {})
    (call,) = spec.sweeps(q, k, v, tensors=tensors, backend="cpu", run=False)
    model = CallModel(call, mine[0].threads)
    monkeypatch.setattr(model, "core", type(model.core)(**held["core"]))
    for point in mine:
        work = work_of(model, CpuConfig(**point.config))
        assert {n: w for n, w in work.items() if w} == pytest.approx(point.work, rel=1e-4)


def test_configurations_measured_on_an_h100_are_ranked():
    """Times of an earlier emission, committed with the suite; the pick is within 10 % of the best in each case."""
    held = json.loads((RESULTS / "gpu_h100_forward.json").read_text(encoding="utf-8"))
    cases = {r["case"]["name"]: r["case"] for r in held["results"]}
    groups, guessed, measured = [], [], []
    for run in held["configurations"]:
        case = cases[run["case"]]
        spec = (
            attngen.load(case["kind"], **({"window": case["window"]} if "window" in case else {}))
            if case["kind"] != "full"
            else attngen.Attention()
        )
        empty = torch.zeros(1, dtype=torch.bfloat16)
        q = empty.expand(case["batch"], case["heads"], case["n"], 128)
        k = empty.expand(case["batch"], case["kv_heads"], case["n"], 128)
        (call,) = spec.sweeps(q, k, k, tensors={}, backend="triton", run=False)
        model = CallModel(call, target=Target("cuda", "sm_90"))
        for text, ms in run["ms"].items():
            rows, keys, warps, stages = (int("".join(filter(str.isdigit, part))) for part in text.split())
            estimate = model.estimate(TritonConfig(rows, keys, warps, stages, sum_parts=8))
            assert estimate is not None
            groups.append(run["case"])
            guessed.append(estimate.seconds)
            measured.append(ms / 1e3)
    found = judged(groups, guessed, measured)
    assert found["points"] == 30
    assert found["rank_correlation"] > 0.9
    assert found["rank_correlation_within_groups"] > 0.7
    assert found["pick_over_best_worst"] < 1.10
