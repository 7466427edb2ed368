"""Tiles that hold rows of all query heads of a key head: right where they are allowed, refused elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import attngen
from attngen import arguments, masks, pipeline
from attngen.api import Attention
from attngen.backends.base import Call
from attngen.backends.triton import TritonBackend, TritonKernel
from attngen.emit.configs import config_from_json, config_to_json
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.pack import few_rows, packed, packs
from attngen.errors import UnsupportedError
from attngen.forms import fold_of
from attngen.lang.expr import Const, Var, apply, rewrite
from attngen.planner.order import FULL, PARTIAL
from attngen.run_partials import SplitRunner
from attngen.run_sweep import Inputs, SweepRunner
from attngen.tolerance import check_rows, shapes_of
from attngen.tune.bucket import bucket
from attngen.tune.space import space_of
from tests.cascades import CASCADES, named
from tests.forward.suite import PROGRAMS
from tests.oracle import Shape, make_inputs
from tests.test_cascades import check, spec_of

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process compiles or interprets, not both"
)

PACKED = TritonConfig(32, 16, 4, 1, pack_heads=True)
REFUSED = {"flex_document": "lists say", "documents": "lists say", "dilated": "boxes"}


def run(spec, query, key, value, config=PACKED, **given):
    """Run one sweep with a configuration, hold every output to the tolerance rule, and return them by name."""
    tensors, params = arguments.bind(spec.program, dict(spec.values), given)
    params["scale"] = arguments.default_scale(query.shape[-1], None)
    shapes = arguments.check_qkv(query, key, value, allow_gqa=True)
    params |= arguments.own_extents(spec.program, tensors, params, shapes_of(query, key, value))
    inputs = Inputs(query, key, value, shapes, tensors, params, {}, "triton")
    outs = SweepRunner(spec._analysed).run(inputs, config=config)
    for found in check_rows(spec.program, query, key, value, outs, tensors=tensors, params=params):
        assert found.ok, f"{found.output}: error {found.error:.3e}, allowed {found.allowed:.3e}"
    return outs


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_programs(program, dtype):
    """Heads in groups of three, lengths and widths that differ, strides of a layout with heads last."""
    shape = Shape(b=2, h=6, hkv=2, n_q=21, n_k=50, d=24, e=40)
    spec, tensors = program.build(shape)
    inputs = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in make_inputs(shape, dtype)]
    if program.name in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[program.name]):
            run(spec, *inputs, **tensors)
    else:
        run(spec, *inputs, **tensors)


LENGTHS = ((1, 40), (3, 1), (5, 33), (17, 16), (127, 129), (129, 60), (4, 0), (0, 4))


@pytest.mark.parametrize("group", [1, 3, 4, 8])
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)
def test_lengths_and_groups(n_q, n_k, group):
    spec = attngen.load("sliding_window_sink", ("O", "LSE"), sink=3, window=20)
    inputs = make_inputs(Shape(b=2, h=2 * group, hkv=2, n_q=n_q, n_k=n_k, d=16, e=24))
    outs = run(spec, *inputs, replace(PACKED, block_q=16 if n_q < 20 else 128))
    if n_k == 0:
        assert (outs["O"] == 0).all()
        assert (outs["LSE"] == -math.inf).all()


CASES = {
    "slopes of heads": lambda: (
        attngen.load("alibi", ("O", "LSE")),
        {"slope": torch.tensor([0.5, 0.1, 0.9, 0.0, 2.0, 1.0])},
    ),
    "a bias of distances": lambda: (
        Attention(score=lambda score, b, h, q, k: score + BIAS[h, abs(q + 26 - k)], mask="k <= pos(q)"),
        {},
    ),
    "a bias of keys": lambda: (Attention(score=lambda score, b, h, q, k: score + OF_KEYS[b, h, k]), {}),
    "a bias of rows": lambda: (
        Attention(score=lambda score, b, h, q, k: score * RATES[h, q], outputs=("O", "LSE")),
        {},
    ),
    "extremes of columns": lambda: (
        Attention(mask="k <= pos(q)", cascade="X[q, e] = max[k](where(h > 2, V[k, e], -V[k, e]))\nreturn X"),
        {},
    ),
    "lengths of a batch": lambda: (
        Attention(mask=masks.lengths(torch.tensor([30, 9])), outputs=("O", "LSE")),
        {},
    ),
    "padding": lambda: (
        Attention(mask=masks.padded(torch.tensor([11, 5]), torch.tensor([30, 37])), outputs=("O", "LSE")),
        {},
    ),
    "two runs of keys": lambda: (
        Attention(mask="((k < 5) | (k >= 20)) & (k <= pos(q) - 2)", outputs=("O", "LSE")),
        {},
    ),
}
RATES, BIAS, OF_KEYS = torch.rand(6, 11), torch.randn(6, 64), torch.randn(2, 6, 37)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("case", CASES)
def test_what_differs_from_head_to_head_and_from_row_to_row(case, dtype):
    spec, tensors = CASES[case]()
    inputs = make_inputs(Shape(b=2, h=6, hkv=2, n_q=11, n_k=37, d=24, e=40), dtype)
    run(spec, *inputs, **tensors)
    run(spec, *inputs, replace(PACKED, block_q=16, persistent=2, descriptors=True, sum_parts=8), **tensors)


def test_rows_that_see_nothing_and_keys_that_nobody_sees():
    query, key, value = make_inputs(Shape(b=1, h=6, hkv=2, n_q=20, n_k=60, d=16, e=16))
    spec = Attention(mask="(k >= q + 9) & (k < q + 30) & (q >= 4)", outputs=("O", "LSE"))
    clean = run(spec, query, key, value)
    assert (clean["O"][:, :, :4] == 0).all()
    assert (clean["LSE"][:, :, :4] == -math.inf).all()
    for tensor in (key, value):
        tensor[:, :, :13], tensor[:, :, 49:] = math.nan, math.inf
    for config in (PACKED, replace(PACKED, one_sided=False), replace(PACKED, descriptors=True)):
        (spec_out, lse) = (launch(spec, query, key, value, config)[n] for n in ("O", "LSE"))
        torch.testing.assert_close(spec_out, clean["O"], atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(lse, clean["LSE"], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    "layout", ["heads last", "features first", "every other feature", "one entry for all"]
)
def test_strides(layout):
    spec = attngen.load("causal", ("O", "LSE"))
    query, key, value = make_inputs(Shape(b=2, h=6, hkv=2, n_q=9, n_k=50, d=16, e=32))
    change = {
        "heads last": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        "features first": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "every other feature": lambda t: t.repeat_interleave(2, 3)[..., ::2],
        "one entry for all": lambda t: t[:1, :1].expand(t.shape),
    }[layout]
    run(spec, change(query), change(key), change(value))


class Launches:
    """The kernels and calls that were launched."""

    def __init__(self, monkeypatch):
        self.kernels, self.calls = [], []
        launch = TritonKernel.launch

        def spied(kernel, call):
            self.kernels.append(kernel)
            self.calls.append(call)
            launch(kernel, call)

        monkeypatch.setattr(TritonKernel, "launch", spied)


@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_cascades_of_few_rows(monkeypatch, cascade):
    """By default; of the kernels of every one of them some may be packed."""
    launches = Launches(monkeypatch)
    shape = Shape(b=2, h=6, hkv=2, n_q=11, n_k=70, d=16, e=24)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(1))
    check(spec_of(cascade, "mask = k <= pos(q)\n"), make_inputs(shape), tensors, backend="triton")
    assert any(k.packed for k in launches.kernels)


@pytest.mark.parametrize("cascade", ["columns", "head_mean", "blocks"])
def test_cascades_of_few_keys(cascade):
    """Sweeps whose rows are keys have few rows, too."""
    shape = Shape(b=2, h=6, hkv=2, n_q=40, n_k=7, d=16, e=24)
    check(spec_of(named(cascade)), make_inputs(shape), {}, backend="triton")


def test_the_order_of_a_packed_kernel_puts_long_tiles_first(monkeypatch):
    launches = Launches(monkeypatch)
    lengths = torch.tensor([40, 200, 0])
    spec = Attention(mask=masks.lengths(lengths), outputs=("O", "LSE"))
    inputs = make_inputs(Shape(b=3, h=6, hkv=2, n_q=9, n_k=200, d=16, e=16))
    run(spec, *inputs, replace(PACKED, block_q=16))
    ((kernel, call),) = zip(launches.kernels, launches.calls, strict=True)
    tiles = 2  # 27 rows of a key head
    order = call.order.tolist()
    assert sorted(order) == list(range(3 * 2 * tiles))
    whole, cut = lengths // kernel.block_k, (lengths % kernel.block_k > 0).int()
    work = (FULL * whole + PARTIAL * cut).repeat_interleave(2 * tiles)
    found = work[torch.tensor(order)].tolist()
    assert found[: 2 * tiles] == [int(work.max())] * 2 * tiles
    assert found == sorted(found, reverse=True)


def test_the_order_is_a_permutation_where_tiles_cut_queries(monkeypatch):
    """Five heads in tiles of 16 rows, and heads that are more than a tile has rows."""
    launches = Launches(monkeypatch)
    for heads, n_q in ((10, 13), (40, 3)):
        spec = Attention(mask=masks.padded(torch.tensor([n_q, 2]), torch.tensor([50, 30])))
        inputs = make_inputs(Shape(b=2, h=heads, hkv=2, n_q=n_q, n_k=50, d=16, e=16))
        run(spec, *inputs, replace(PACKED, block_q=16))
        order = launches.calls[-1].order
        assert sorted(order.tolist()) == list(range(2 * 2 * math.ceil(n_q * heads / 2 / 16)))


def launch(spec, query, key, value, config):
    """The outputs by name, unchecked."""
    shapes = arguments.check_qkv(query, key, value, allow_gqa=True)
    _, params = arguments.bind(spec.program, dict(spec.values), {})
    params["scale"] = arguments.default_scale(query.shape[-1], None)
    inputs = Inputs(query, key, value, shapes, {}, params, {}, "triton")
    return SweepRunner(spec._analysed).run(inputs, config=config)


ROWS_OF_KEYS = "C[k] = sum[q](exp(sum[d](Q[q, d] * K[k, d]) * scale))\nreturn C"
KEYS_OF_HEADS = """
c[h, k, d]: float
S[q, k] = sum[d](Q[q, d] * max(K[k, d] + c[h, k, d], 0.0)) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])
return O
"""
ILLEGAL = {
    "lists say": lambda: attngen.load("documents"),
    "boxes of coordinates": lambda: attngen.load("neighborhood_2d", grid=(9, 11)),
    "visit the same keys": lambda: Attention(
        mask="window[h]: int\nmask = (k <= pos(q)) & (pos(q) - k < window[h])"
    ),
    "do not visit the same": lambda: Attention(
        mask="window[g]: int\nmask = (k <= pos(q)) & (pos(q) - k < window[g])"
    ),
    "its rows are keys": lambda: Attention(cascade=ROWS_OF_KEYS),
    "same rows of keys": lambda: Attention(cascade=KEYS_OF_HEADS),
}


@pytest.mark.parametrize("reason", ILLEGAL)
def test_what_cannot_be_packed_is_refused_and_not_searched(reason):
    spec, target = ILLEGAL[reason]().kernel_specs("sm_90", "bf16", 64)
    backend = TritonBackend()
    kernel = spec[0]
    assert not packs(kernel)
    default = backend.config(kernel, target)
    asked = replace(default, pack_heads=True)
    with pytest.raises(UnsupportedError, match=reason):
        backend.emit(kernel, target, asked)
    with pytest.raises(UnsupportedError, match=reason):
        backend.load(kernel, pipeline.target_of_device("cpu", 0), asked)
    space = space_of(default, kernel, target)
    assert space.values["pack_heads"] == (False,)
    assert asked not in space
    assert not space.legal(asked)


def test_what_can_be_packed_is_searched():
    (kernel,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    default = TritonBackend().config(kernel, target)
    space = space_of(default, kernel, target)
    assert replace(default, pack_heads=True) in list(space.neighbours(default))


def test_a_packed_configuration_is_written_down_and_read_again():
    assert config_from_json("triton", config_to_json(PACKED)) == PACKED
    (kernel,), _ = attngen.load("causal").kernel_specs("cpu", "fp32", 24)
    backend = TritonBackend()
    made = backend.load(kernel, pipeline.target_of_device("cpu", 0), replace(PACKED, descriptors=True))
    again = backend.reopen(made.recipe())
    assert again is not None
    assert again.packed
    assert again.recipe() == made.recipe()


def test_heads_that_are_no_multiple_of_the_key_heads_are_refused():
    (kernel,), _ = attngen.load("causal").kernel_specs("cpu", "fp32", 16)
    loaded = TritonBackend().load(kernel, pipeline.target_of_device("cpu", 0), PACKED)
    query, key, value = make_inputs(Shape(h=6, hkv=4, n_q=5, n_k=5, d=16, e=16))
    call = Call(query, key, value, {"O": torch.empty_like(query)}, {}, {"scale": 1.0})
    with pytest.raises(UnsupportedError, match="6 heads"):
        loaded.launch(call)


def counted(config, n_q, group):
    """Tiles of a key head, and the rows that they compute."""
    tiles = -(-n_q * group // config.block_q) if config.pack_heads else group * -(-n_q // config.block_q)
    return tiles, tiles * config.block_q


def test_few_rows_are_packed_where_that_halves_the_rows_or_nearly_so():
    for block in (16, 32, 64, 128, 256):
        plain = TritonConfig(block, 64, 8, 2)
        for n_q in range(1, 300):
            for group in range(1, 40):
                found = packed(plain, "bfloat16", n_q, group)
                if group == 1 or n_q > max(block // 2, 16) or n_q > 128:
                    assert found is None
                    continue
                (tiles, rows), (more, all_rows) = counted(found, n_q, group), counted(plain, n_q, group)
                assert 16 <= found.block_q <= block
                if block > 16 and n_q <= block // 2:
                    assert 3 * tiles <= 2 * more
                    assert 3 * rows <= 2 * all_rows
                assert rows <= all_rows
                if n_q * group <= block:
                    assert tiles == 1
                    assert rows < max(2 * n_q * group, 17)


def test_a_bucket_and_its_rows_decide_which_configuration_a_call_takes():
    """What `Choices` keeps a decision under must tell apart what `packed` tells apart."""
    for block in (16, 32, 64, 128, 256):
        plain, known = TritonConfig(block, 64, 8, 2), {}
        for group in range(1, 12):
            for n_q in range(1, 300):
                key = (group, bucket(n_q), few_rows(n_q, group))
                assert known.setdefault(key, packed(plain, "bfloat16", n_q, group)) == packed(
                    plain, "bfloat16", n_q, group
                )


def test_a_call_of_few_rows_takes_the_packed_variant(monkeypatch):
    launches = Launches(monkeypatch)
    spec = attngen.load("causal", ("O", "LSE"))
    sizes = {
        (1, 8, 2): 16,
        (16, 8, 2): 64,
        (5, 6, 2): 16,
        (2, 8, 2): 16,
        (33, 8, 2): 0,
        (1, 2, 2): 0,
        (32, 16, 2): 64,
    }
    for (n_q, heads, kv_heads), block in sizes.items():
        inputs = make_inputs(Shape(b=1, h=heads, hkv=kv_heads, n_q=n_q, n_k=40, d=16, e=16))
        want = spec.reference(*inputs)
        got = spec(*inputs, backend="triton")
        for mine, right in zip(got, want, strict=True):
            torch.testing.assert_close(mine.double(), right.double(), atol=2e-5, rtol=2e-5)
        kernel = launches.kernels[-1]
        assert (kernel.packed, kernel.block_q) == ((True, block) if block else (False, 64))


def test_a_call_of_few_rows_that_cannot_be_packed_takes_the_plain_default(monkeypatch):
    launches = Launches(monkeypatch)
    doc = torch.arange(40)[None] // 7
    inputs = make_inputs(Shape(b=1, h=8, hkv=2, n_q=3, n_k=40, d=16, e=16))
    attngen.load("documents")(*inputs, doc=doc, backend="triton")
    assert [k.packed for k in launches.kernels] == [False]


def test_the_decision_of_an_earlier_process_is_taken_without_deriving_anything(monkeypatch):
    target = pipeline.target_of_device("cpu", 0)
    analysed = attngen.load("causal")._analysed
    special = pipeline.Specialisation("float32", 16, 16)
    pipeline.packable.cache_clear()
    first = pipeline.packable(target, analysed, special)
    assert first is not None
    pipeline.packable.cache_clear()
    monkeypatch.setattr(pipeline, "kernel_spec", None)
    assert pipeline.packable(target, analysed, special) == first


def test_a_kernel_that_finds_the_heads_of_the_call_from_its_own_is_never_packed():
    """Parts of the keys as heads: three parts of each of eight heads."""
    query, key, value = make_inputs(Shape(b=1, h=8, hkv=2, n_q=3, n_k=40, d=16, e=16))
    spec = attngen.load("causal")
    runner = SplitRunner(spec.program, fold_of(spec._analysed), 3)
    kernel = pipeline.kernel_spec(runner.sweep.analysed, pipeline.Specialisation("float32", 16, 16))
    assert not packs(kernel)
    with pytest.raises(UnsupportedError, match="rows of several heads"):
        TritonBackend().emit(kernel, pipeline.target_of_device("cpu", 0), PACKED)
    _, params = arguments.bind(spec.program, {}, {})
    params["scale"] = 0.25
    shapes = arguments.check_qkv(query, key, value, allow_gqa=True)
    found = runner.run(Inputs(query, key, value, shapes, {}, params, {}, "triton"))
    want = spec.reference(query, key, value)
    torch.testing.assert_close(found["O"].double(), want.double(), atol=2e-5, rtol=2e-5)


def test_a_kernel_that_reads_another_head_than_its_own_is_refused():
    (kernel,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    half = apply("floordiv", Var("h"), Const(2))
    moved = [replace(o, body=rewrite(o.body, {Var("h"): half}.get)) for o in kernel.tile.operands]
    assert tuple(moved) != kernel.tile.operands
    other = replace(kernel, tile=replace(kernel.tile, operands=tuple(moved)))
    config = replace(TritonBackend().config(other, target), pack_heads=True)
    with pytest.raises(UnsupportedError, match="another head"):
        TritonBackend().emit(other, target, config)
