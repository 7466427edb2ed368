"""Formulas of a launch count what the run time counts, for kernels on lines, packed, persistent, and of boxes."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod

import pytest
import torch

import attngen
from attngen.absent_target import specs_for_target
from attngen.analysed import analyse
from attngen.aot.grid import launch_formulas
from attngen.backends.base import Call
from attngen.backends.cpu import CpuBackend
from attngen.backends.triton import TritonBackend
from attngen.backends.triton_call import CallArgs
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.target import parse_target
from attngen.emit.triton.names import kernel_args
from attngen.planner.evaluate_boxes import box_extents
from attngen.planner.layout import Boxes, Shape

SEED = 20261126
MULTIPROCESSORS = 3  # that a CPU stands for
BOXES = (
    "dilated", "neighborhood_1d", "neighborhood_2d", "neighborhood_3d", "spatial", "temporal", "swin", "vitdet_roll",
    "vitdet_window",
)  # fmt: skip


def value_of(formula: str, names: dict[str, int]) -> int:
    """A formula of C as Python: `/` of whole numbers that are not negative is `//`."""
    text = formula
    if "?" in formula:  # one choice, in brackets of its own
        at, depth, start = formula.index("?"), 0, -1
        for start in range(at, -1, -1):
            depth += {")": 1, "(": -1}.get(formula[start], 0)
            if depth < 0:
                break
        yes, no = formula[at + 1 : -1].split(":")
        text = f"{formula[:start]}(({yes.strip()}) if {formula[start + 1 : at]} else ({no.strip()}))"
    known = {**names, "ceil_div": lambda a, b: -(-a // b)}
    return eval(text.replace("/", "//"), {"__builtins__": {}}, known)


def spec_and_config(name: str, target: str, **values):
    spec = attngen.load(name, **values)
    (made, *_), where = specs_for_target(analyse(spec.program), spec.values, target, "bf16", 64, 64)
    backend = CpuBackend() if where.kind == "cpu" else TritonBackend()
    return spec, made, backend.config(made, parse_target(target))


def call_of(n_b: int, n_h: int, n_kv: int, n_q: int, n_k: int) -> Call:
    def empty(heads: int, n: int) -> torch.Tensor:
        return torch.empty(n_b, heads, n, 64, dtype=torch.bfloat16, device="meta")

    return Call(empty(n_h, n_q), empty(n_kv, n_k), empty(n_kv, n_k), {}, {}, {})


@pytest.mark.parametrize("target", ["cpu", "cpu-avx512", "sm_90"])
@pytest.mark.parametrize(("packed", "persistent"), [(False, 0), (True, 0), (False, 2), (True, 1)])
def test_lines(target, packed, persistent):
    _, spec, config = spec_and_config("causal", target)
    if isinstance(config, CpuConfig):
        if packed or persistent:
            return
    else:
        config = replace(config, pack_heads=packed, persistent=persistent)
    tiles, key_tiles, programs = launch_formulas(spec, config)
    rng = random.Random(SEED)
    for _ in range(200):
        n_b, n_kv, group = rng.randrange(1, 4), rng.randrange(1, 4), rng.randrange(1, 9)
        n_h, n_q, n_k = n_kv * group, rng.randrange(1000), rng.randrange(1000)
        names = {
            "n_b": n_b,
            "n_h": n_h,
            "n_kv": n_kv,
            "n_q": n_q,
            "n_k": n_k,
            "multiprocessors": MULTIPROCESSORS,
        }
        if isinstance(config, CpuConfig):
            rows = expected = n_b * n_h * -(-n_q // config.block_q)
        else:
            args = CallArgs(kernel_args(spec), config)
            rows = args.rows(call_of(n_b, n_h, n_kv, n_q, n_k))
            expected = args.programs(rows, torch.device("cpu"))
        assert value_of(programs, names) == expected
        assert value_of(tiles, names) * n_b * (n_kv if packed else n_h) == rows
        assert value_of(key_tiles, names) == -(-n_k // config.block_k)


@pytest.mark.parametrize("name", BOXES)
def test_boxes(name):
    """Of any shapes and origins."""
    spec, made, config = spec_and_config(name, "cpu")
    plan = made.plan.boxes
    assert plan is not None
    assert made.boxes is not None
    rng = random.Random(SEED)
    for _ in range(100):
        shapes = [
            Shape(s.axis, 1, 1)
            if axis.group
            else Shape(
                s.axis, rng.randrange(1, 20), rng.randrange(1, 20), rng.choice((0, 0, rng.randrange(1, 9)))
            )
            for s, axis in zip(made.boxes.shapes, plan.q.axes, strict=True)
        ]
        boxes = Boxes(tuple(shapes))
        tiles, key_tiles, programs = launch_formulas(replace(made, boxes=boxes), config)
        values = {p.name: p.default for p in spec.program.params if p.default is not None}
        values |= {p.name: rng.randrange(1, 40) for p in spec.program.params if p.name.startswith("size_")}
        values |= {n: rng.randrange(1, 5) for n in ("dilation",) if n in values}
        values |= dict(made.consts)
        n_q, n_k, n_b, n_h = (
            rng.randrange(3000),
            rng.randrange(3000),
            rng.randrange(1, 3),
            rng.randrange(1, 5),
        )
        at = box_extents(plan, boxes, values, n_q=n_q, n_k=n_k, batch=n_b, heads=n_h)
        expected = prod(at.q_tiles)
        names = {**values, "n_b": n_b, "n_h": n_h, "n_kv": n_h, "n_q": n_q, "n_k": n_k}
        assert value_of(tiles, names) == expected
        assert value_of(key_tiles, names) == prod(at.k_tiles)
        assert value_of(programs, names) == n_b * n_h * expected
