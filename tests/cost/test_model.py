"""Predictions of a call: sensible where the answer is known, explained, and never more than the machine can do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import attngen
from attngen.cost.core import core_of
from attngen.cost.gpu_tile import compiled_cycles, counted_cycles
from attngen.cost.gpus import GPUS
from attngen.cost.model import CallModel
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.spec import Target
from attngen.emit.target import parse_target
from attngen.emit.triton.config import TritonConfig

CPU, GPU = CpuConfig(128, 96), TritonConfig(128, 64, 8, 3, sum_parts=8)
ARCHS = sorted(GPUS)


def model(
    name="causal", *, n_q=512, n_k=None, heads=4, kv_heads=None, dim=64, target=None, threads=1, **values
):
    spec = attngen.load(name, **values)
    dtype = torch.float32 if target is None else torch.bfloat16
    empty = torch.zeros(1, dtype=dtype)
    q = empty.expand(1, heads, n_q, dim)
    k = empty.expand(1, kv_heads or heads, n_q if n_k is None else n_k, dim)
    where = None if target is None else parse_target(target)
    backend = "cpu" if target is None else "triton"
    (call,) = spec.sweeps(q, k, k, tensors={}, backend=backend, run=False)
    return CallModel(call, threads, where)


def seconds(found, config):
    out = found.predict(config)
    assert out is not None
    return out


@pytest.mark.parametrize(
    ("target", "config"), [(None, CPU), ("sm_90", GPU), ("gfx942", replace(GPU, num_stages=1))]
)
def test_less_work_takes_less_time(target, config):
    full = seconds(model("causal", n_q=4096, target=target), config)
    window = seconds(model("sliding_window", n_q=4096, window=256, target=target), config)
    short = seconds(model("causal", n_q=2048, target=target), config)
    assert window < full
    assert short < full
    narrow = seconds(model("causal", n_q=4096, dim=32, target=target), config)
    assert narrow < full


def test_parts_add_up_and_are_named():
    found = model("sliding_window", n_q=1024).estimate(CPU)
    assert found is not None
    assert sum(found.parts.values()) * found.facts["imbalance"] == pytest.approx(found.seconds)
    assert "products" in found.text()
    assert "block_q=128" in found.text()
    gpu = model("causal", n_q=4096, target="sm_90").estimate(GPU)
    assert gpu is not None
    assert "tiles without a mask" in gpu.text()
    assert gpu.facts["rows of work"] == 4 * 32


def test_threads_share_what_there_are_rows_for():
    one, many = (seconds(model("causal", n_q=1024, heads=8, threads=n), CPU) for n in (1, 8))
    assert 6 < one / many <= 8
    alone = [seconds(model("causal", n_q=64, n_k=8192, heads=1, threads=n), CPU) for n in (1, 8)]
    assert alone[1] >= alone[0]
    assert seconds(model("causal", n_q=64, n_k=8192, heads=1, threads=8), CpuConfig(32, 96)) < 0.6 * alone[1]


def test_a_launch_is_never_faster_than_its_bytes_and_products():
    for arch in ARCHS:
        found = model("causal", n_q=4096, heads=16, dim=128, target=arch)
        gpu = GPUS[arch]
        pairs = 16 * 4096 * 4097 / 2
        least = max(pairs * 256 / (gpu.tensor * gpu.units * gpu.hertz), 16 * 4096 * 128 * 8 / gpu.memory)
        for config in (GPU, replace(GPU, num_stages=1), replace(GPU, block_q=64, num_warps=4)):
            predicted = found.predict(config)
            assert predicted is None or predicted >= least


def test_few_rows_leave_units_idle():
    """One tile of rows on a GPU of 132: smaller tiles share the work."""
    found = model("causal", n_q=1024, heads=4, dim=128, target="sm_90")
    estimate, smaller = found.estimate(GPU), found.estimate(replace(GPU, block_q=64, num_warps=4))
    assert estimate is not None
    assert smaller is not None
    assert estimate.facts["imbalance"] > 2
    assert smaller.seconds < estimate.seconds


def test_what_does_not_fit_has_no_prediction():
    found = model("causal", dim=256, target="sm_86")
    assert found.predict(TritonConfig(256, 256, 8, 5)) is None


def test_figures_of_compiled_code_are_taken_when_given():
    found = model("causal", n_q=4096, target="sm_90")
    counted = counted_cycles(found.spec(GPU), GPU, Target("cuda", "sm_90"))
    before = seconds(found, GPU)
    found.inspected(GPU, replace(counted, spills=400, source="compiled"))
    assert seconds(found, GPU) > 1.2 * before


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_counted_cycles_are_near_those_of_compiled_code(target):
    found = attngen.load("causal").inspect(target, "bf16", 128)
    config = TritonConfig(found.block_q, found.block_k, found.num_warps, found.num_stages, sum_parts=8)
    call = model("causal", dim=128, target=target)
    counted, compiled = counted_cycles(call.spec(config), config, call.target), compiled_cycles(found)
    assert counted.ctas <= compiled.ctas <= counted.ctas + 1
    for name in ("special", "tensor"):
        assert dict(counted.full)[name] == pytest.approx(dict(compiled.full)[name], rel=0.15)
    busiest = [max(dict(c.full).values()) for c in (counted, compiled)]
    assert busiest[0] == pytest.approx(busiest[1], rel=0.3)


def test_the_core_of_this_machine():
    core = core_of(parse_target("cpu"))
    assert core.lanes in (4, 8, 16)
    assert 8 << 10 <= core.l1 <= core.l2
    assert core_of(parse_target("cpu-avx2")).lanes == 8


def test_packed_heads_read_their_keys_once():
    """Decoding: eight query heads of a key head in one tile of 16 rows, against eight tiles of them."""
    found = model("causal", n_q=1, n_k=8192, heads=2048, kv_heads=256, dim=128, target="sm_90")
    plain = replace(GPU, block_q=16, num_warps=1)
    packed = replace(plain, pack_heads=True)
    visits = found.visits(packed)
    assert visits.full.shape == (1, 256, 1)
    assert found.visits(plain).n_full == 8 * visits.n_full
    assert seconds(found, packed) <= seconds(found, plain)
    wide = found.visits(replace(packed, block_q=4))  # a tile that holds half of the heads
    assert wide.full.shape == (1, 256, 2)
