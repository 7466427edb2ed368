"""The spaces: every field has a row, every point is legal, and the default is one of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

import pytest

import attngen
from attngen import pipeline
from attngen.emit.cpu_config import KEY_STEP, QUERY_STEP, CpuConfig
from attngen.emit.target import parse_target
from attngen.emit.triton.config import (
    SHARED_BYTES,
    TritonConfig,
    rows_of_matrix,
    shared_bytes,
    with_matrix_rows,
)
from attngen.emit.triton.sides import needs_weights, shared_widths
from attngen.tune import space as space_module
from attngen.tune.bucket import bucket, call_bucket, value_bucket
from attngen.tune.predict import fits, ranked
from attngen.tune.shrink import smaller
from attngen.tune.space import CPU_VALUES, TRITON_VALUES, space_of

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "cpu")


def kernel(name: str, target: str, dtype: str = "bf16", **values):
    spec = attngen.load(name, **values)
    (one, *_), where = spec.kernel_specs(target, dtype, 64)
    backend = pipeline.backend_named("cpu" if where.kind == "cpu" else "triton")
    return one, where, backend.config(one, where)


def test_the_tables_speak_of_fields():
    assert set(TRITON_VALUES) <= {f.name for f in fields(TritonConfig)}
    assert set(CPU_VALUES) == {f.name for f in fields(CpuConfig)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["causal", "documents", "neighborhood_2d"])
def test_points_are_legal_and_near_points_exist(name, target):
    spec, where, default = kernel(name, target)
    space = space_of(default, spec, where, threads=2)
    assert default in space
    near = list(space.neighbours(default))
    assert len(near) >= 2
    rng = random.Random(0)
    for config in near + [space.drawn(rng) for _ in range(50)]:
        assert config in space
        if isinstance(config, CpuConfig):
            assert config.block_q % QUERY_STEP == 0
            assert config.block_k % KEY_STEP == 0
    assert space.size > 20


@pytest.mark.parametrize("target", ["gfx90a", "gfx942"])
@pytest.mark.parametrize("name", ["causal", "documents", "neighborhood_2d"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_points_of_amd_give_every_warp_rows_and_registers(name, target, dtype):
    spec, where, default = kernel(name, target, dtype)
    space = space_of(default, spec, where)
    assert space.values["matrix_rows"] == (0, 16, 32)
    assert space.values["max_registers"] == (0,)
    assert space.legal(default)
    near = list(space.neighbours(default))
    rng = random.Random(2)
    drawn = [space.drawn(rng) for _ in range(100)]
    assert {c.matrix_rows for c in drawn} == {0, 16, 32}
    assert len({c.waves_per_eu for c in near}) > 1
    for config in [*near, *drawn]:
        rows = rows_of_matrix(config)
        assert config.block_q >= rows * config.num_warps
        assert config.block_k >= rows
        assert 64 * config.num_warps <= 1024
        assert not config.waves_per_eu or 4 * config.waves_per_eu >= config.num_warps
        # scores alone, in fp32, of the 512 registers of a lane
        scores = config.block_q * config.block_k // (64 * config.num_warps)
        assert scores * max(config.waves_per_eu, 1) <= 512 // 2
        assert not config.descriptors


def test_illegal_points_of_amd():
    spec, where, default = kernel("causal", "gfx942")
    assert default.block_q == 128
    assert default.num_warps == 4
    legal = space_of(default, spec, where).legal
    assert legal(replace(default, matrix_rows=32))
    assert not legal(replace(default, block_q=64))  # four warps of 32 rows have 128
    assert legal(replace(default, block_q=64, matrix_rows=16))
    assert not legal(replace(default, block_k=16, matrix_rows=32))
    assert not legal(
        replace(default, num_warps=8, matrix_rows=16, waves_per_eu=1)
    )  # a SIMD holds two of its waves
    assert legal(replace(default, num_warps=8, matrix_rows=16, waves_per_eu=2))
    assert not legal(replace(default, waves_per_eu=4))  # 128 registers do not hold the tiles
    (narrow,), where = attngen.load("causal").kernel_specs("gfx942", "bf16", 16)
    assert not space_of(default, narrow, where).legal(replace(default, matrix_rows=32))


@pytest.mark.parametrize("target", ["sm_90", "cpu"])
def test_what_only_amd_has_is_no_choice_elsewhere(target):
    (spec, *_), where = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    where = parse_target(target)
    space = space_of(pipeline.backend_named("triton").config(spec, where), spec, where)
    assert space.values["matrix_rows"] == space.values["waves_per_eu"] == (0,)


def test_the_smallest_matrix_instruction_where_slices_are_short():
    where = parse_target("gfx942")
    assert with_matrix_rows(TritonConfig(128, 64, 4, 1), where).matrix_rows == 0
    assert with_matrix_rows(TritonConfig(64, 64, 4, 1), where).matrix_rows == 16
    assert with_matrix_rows(TritonConfig(64, 16, 4, 1), where).matrix_rows == 0  # Triton takes 16 of its own
    assert with_matrix_rows(TritonConfig(64, 64, 4, 1, matrix_rows=32), where).matrix_rows == 32
    assert with_matrix_rows(TritonConfig(64, 64, 4, 1), parse_target("sm_90")).matrix_rows == 0


def test_a_field_that_is_added_is_searched_if_it_is_a_boolean(monkeypatch):
    @dataclass(frozen=True, slots=True)
    class More(TritonConfig):
        packed: bool = False
        order: str = "rows"

    spec, where, default = kernel("causal", "sm_90")
    more = More(default.block_q, default.block_k, default.num_warps, default.num_stages)
    space = space_of(more, spec, where)
    assert space.values["packed"] == (False, True)
    assert space.values["order"] == ("rows",)
    assert replace(more, packed=True) in list(space.neighbours(more))


def test_keys_of_a_tile_are_whole_blocks_where_blocks_are_stored(monkeypatch):
    spec, where, default = kernel("sliding_window", "cpu")
    monkeypatch.setattr(space_module, "lcm", lambda *_: 40)
    space = space_of(default, spec, where)
    assert all(c.block_k % 40 == 0 or c.block_k == default.block_k for c in space.neighbours(default, 3))


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "cpu"])
def test_what_is_built_fits_the_shared_memory(target):
    spec, where, default = kernel("causal", target)
    space = space_of(default, spec, where)
    assert fits(default, spec, where)
    assert fits(CpuConfig(32, 24), spec, where)
    rng = random.Random(1)
    drawn = [space.drawn(rng) for _ in range(200)]
    assert not all(fits(c, spec, where) for c in drawn)
    for config in filter(lambda c: fits(c, spec, where), drawn):
        widths, weights = shared_widths(spec), needs_weights(spec, where)
        takes = shared_bytes(config, where, spec.dtype, *widths, with_weights=weights)
        assert takes <= SHARED_BYTES[where.arch]


@pytest.mark.parametrize("target", TARGETS)
def test_there_are_always_smaller_ones_down_to_the_smallest(target):
    _, where, default = kernel("causal", target)
    found = list(smaller(default))
    assert len(set(found)) == len(found) >= 3
    assert list(smaller(found[-1])) == []
    if isinstance(default, TritonConfig):
        last = found[-1]
        assert (last.block_q, last.block_k, last.num_stages, last.num_warps) == (16, 16, 1, 1)
        sizes = [shared_bytes(c, where, "bfloat16", 64, 64) for c in (default, *found)]
        assert sizes == sorted(sizes, reverse=True)
    else:
        assert found[-1] == CpuConfig(QUERY_STEP, KEY_STEP, 1)


def test_a_cost_model_ranks_what_it_knows():
    a, b, c, d = (CpuConfig(32 * n, 24) for n in range(1, 5))
    assert ranked([a, b, c, d], {}.get) == [a, b, c, d]
    assert ranked([a, b, c, d], {a: 2.0, c: 1.0, d: 9.0}.get) == [c, b, a]


def test_buckets():
    assert [bucket(n) for n in (0, 1, 16, 17, 24, 25, 32, 33, 48, 49, 4096, 4097, 6144, 6145)] == [
        16, 16, 16, 24, 24, 32, 32, 48, 48, 64, 4096, 6144, 6144, 8192,
    ]  # fmt: skip
    for n in range(16, 3000):
        assert n <= bucket(n) <= 1.5 * n
        assert bucket(bucket(n)) == bucket(n)
    assert [value_bucket(v) for v in (True, 1.5, 100, -100, 0)] == [True, None, 128, -128, 16]
    shapes = attngen.api.Shapes(2, 12, 4, 1000, 1024, 64, 32)
    assert call_bucket(shapes, {"window": 500, "scale": 0.1}) == (32, 3, 1024, 1024, 64, 32, 512, None)
