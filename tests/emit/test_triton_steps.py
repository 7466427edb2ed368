"""Every step and every kind of operand: run in Triton's interpreter against dense torch, and compiled."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from attngen import pipeline
from attngen.algebra.fold import Derivation, Fold
from attngen.api import Attention
from attngen.backends.base import Call
from attngen.backends.triton import TritonBackend
from attngen.backends.triton_compile import compile_source
from attngen.emit.spec import KernelSpec, TensorArg
from attngen.emit.target import parse_target
from attngen.emit.tile import (
    AccEach,
    Operand,
    Output,
    StoreBlock,
)
from attngen.emit.triton.names import kernel_args
from attngen.emit.triton.nan_paths import must_carry_nan
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Load
from attngen.lang.ops import Kind
from tests.emit.triton_cases import (
    KS,
    QS,
    D,
    E,
    G,
    H,
    b,
    bins,
    blocks,
    e,
    entropy,
    g,
    h,
    indexed,
    k,
    mul,
    one_hot,
    pairs,
    reductions,
    rotation,
    rows_are_keys,
    scores_of_keys,
    shares,
    teacher_and_student,
    top_k,
    two_values,
)
from tests.emit.triton_column_cases import (
    additive,
    column_extremes,
    column_products,
    columns,
    lagged,
    of_features,
    shifted_columns,
)
from tests.emit.triton_text import loops

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets")

CASES = {
    f.__name__: f
    for f in (
        two_values, teacher_and_student, one_hot, rotation, scores_of_keys, entropy, bins, top_k, pairs, blocks,
        shares, rows_are_keys, indexed, reductions, additive, of_features, lagged, column_extremes, column_products,
        shifted_columns,
    )
}  # fmt: skip
MASKS = {
    "k <= q": lambda q, k: k <= q,
    "k <= q - 20": lambda q, k: k <= q - 20,  # the first rows see nothing
    "(k >= 7) & (k < 80) & (k % 3 != 1)": lambda q, k: (k >= 7) & (k < 80) & (k % 3 != 1) & (q >= 0),
    "q <= k": lambda q, k: q <= k,
}


UNDERIVED = Fold("k", (), (), (), Derivation("k", 1, 1, ()))  # the programs are made by hand


def spec_of(case, dtype, mask, widths=(D, E)):
    attention = Attention(mask=mask)
    analysed = attention._analysed
    tensors = tuple(
        TensorArg(name, kind, len(ranks), stored or dtype)
        for name, (kind, stored, ranks) in dict(case.tensors).items()
    )
    return KernelSpec(
        program=attention.program,
        fold=UNDERIVED,
        tile=case.tile,
        plan=pipeline.plan_of(analysed),
        dtype=dtype,
        head_dim=widths[0],
        value_dim=widths[1],
        tensors=tensors,
        params=(("scale", Kind.FLOAT),),
        consts=(),
        outputs=tuple(o.name for o in case.tile.outputs),
        extents=case.extents,
    )


def strided(t):
    """The same numbers with tokens before heads, and every other element of memory."""
    if t.ndim == 4:
        t = t.transpose(1, 2).contiguous().transpose(1, 2)
    return t.repeat_interleave(2, -1)[..., ::2]


def inputs_of(case, dtype, n_q, n_k):
    """Inputs and captured tensors, for a kernel of n_q rows and n_k columns."""
    gen = torch.Generator().manual_seed(n_q * 131 + n_k)
    tokens = {"Q": n_q, "K": n_k}
    if case.swapped:
        tokens = {"Q": n_k, "K": n_q}
    batch, heads, kv_heads = case.heads
    extent = {"b": batch, "h": heads, "g": kv_heads, "q": n_q, "k": n_k, "d": D, "e": E, "f": D // 2} | dict(
        case.extents
    )
    shapes = {"Q": (heads, tokens["Q"], D), "K": (kv_heads, tokens["K"], D), "V": (kv_heads, tokens["K"], E)}
    shapes = {name: (batch, *shape) for name, shape in shapes.items()}
    stored = dict.fromkeys(shapes, dtype)
    kinds = dict.fromkeys(shapes, Kind.FLOAT)
    for name, (kind, own, ranks) in dict(case.tensors).items():
        shapes[name] = tuple(extent[r] for r in ranks)
        stored[name], kinds[name] = own or dtype, kind
    out = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=gen)
        x = torch.randint(0, 6, shape, generator=gen) if kinds[name] is Kind.INT else x
        out[name] = strided(x.to(getattr(torch, stored[name])))
    return out


def run(case, dtype, mask, tensors, n_q, n_k):
    spec = spec_of(case, dtype, mask)
    shapes = {"row": (), "pair": (n_k,)}
    outputs = {}
    for o in case.tile.outputs:
        tail = shapes.get(o.space)
        if o.space == "acc":
            tail = (spec.width(o.feature),)
        if o.space == "block":
            width = next(s.width for s in case.tile.steps if isinstance(s, StoreBlock) and s.name == o.name)
            tail = (-(-n_k // width),)
        kind = getattr(torch, dtype) if o.rounded else torch.float32
        outputs[o.name] = torch.full((*case.heads[:2], n_q, *tail), -7.0, dtype=kind)
    inputs = {name: tensors[name] for name in ("Q", "K", "V")}
    captured = {name: t for name, t in tensors.items() if name not in inputs}
    kernel = TritonBackend().load(spec, parse_target("cpu"))
    kernel.launch(
        Call(
            *inputs.values(), outputs=outputs, tensors=captured, params={"scale": 0.25}, swapped=case.swapped
        )
    )
    return outputs


def expected(case, mask, tensors, n_q, n_k):
    x = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    x |= {name: x[name].repeat_interleave(H // G, 1) for name in ("K", "V")}
    keep = MASKS[mask](torch.arange(n_q)[:, None], torch.arange(n_k)[None, :])
    return case.dense(x | {"scale": 0.25}, keep)


def check(got, want, dtype):
    tolerance = {"float32": 2e-5, "float16": 6e-3}[dtype]
    assert got.keys() == want.keys()
    for name, value in want.items():
        value = value.expand_as(got[name])  # noqa: PLW2901
        size = value[value.isfinite()].abs().max().clamp(min=1.0).item() if value.isfinite().any() else 1.0
        torch.testing.assert_close(
            got[name].float(), value, rtol=0, atol=tolerance * size, msg=lambda m, name=name: f"{name}: {m}"
        )


LENGTHS = ((129, 129), (70, 70), (33, 129), (129, 33), (1, 1))


def lengths_of(name):
    """The lengths a case is run with; what takes the interpreter long is slow."""
    elementwise = ("reductions", "blocks", "column_products", "shifted_columns")
    quick = ((33, 129),) if name in elementwise else ((70, 70),)
    for lengths in LENGTHS:
        marks = () if lengths in quick else pytest.mark.slow
        yield pytest.param(name, lengths, marks=marks, id=f"{name}-{lengths}")


@interpreted
@pytest.mark.parametrize(("name", "lengths"), [p for name in CASES for p in lengths_of(name)])
def test_a_step_computes_what_torch_does(name, lengths):
    case = CASES[name]()
    for mask in ("q <= k",) if case.swapped else ("k <= q", "k <= q - 20"):
        tensors = inputs_of(case, "float32", *lengths)
        check(
            run(case, "float32", mask, tensors, *lengths), expected(case, mask, tensors, *lengths), "float32"
        )


@interpreted
@pytest.mark.parametrize(
    "name",
    [
        "two_values", "teacher_and_student", "one_hot", "rotation", "scores_of_keys", "rows_are_keys", "additive",
        "of_features", "lagged",
    ],
)  # fmt: skip
def test_operands_in_half_precision(name):
    case = CASES[name]()
    mask = "q <= k" if case.swapped else "k <= q"
    tensors = inputs_of(case, "float16", 70, 100)
    check(run(case, "float16", mask, tensors, 70, 100), expected(case, mask, tensors, 70, 100), "float16")


@interpreted
@pytest.mark.parametrize(
    "name",
    [
        "two_values", "one_hot", "rotation", "scores_of_keys", "bins", "top_k", "blocks", "additive", "lagged",
        "column_extremes",
    ],
)  # fmt: skip
def test_keys_that_no_query_sees_do_not_spread(name):
    case = CASES[name]()
    mask = "(k >= 7) & (k < 80) & (k % 3 != 1)"
    plan = spec_of(case, "float32", mask).plan
    assert plan.ranges is not None
    assert not plan.ranges.tight
    tensors = inputs_of(case, "float32", 40, 100)
    want = expected(case, mask, tensors, 40, 100)
    hidden = ~MASKS[mask](torch.zeros(1), torch.arange(100))
    axes = dict.fromkeys("KV", 2) | {n: t[2].find("k") for n, t in dict(case.tensors).items()}
    for name_, axis in axes.items():
        if axis >= 0 and tensors[name_].is_floating_point():
            tensors[name_].movedim(axis, 0)[hidden] = math.nan
    check(run(case, "float32", mask, tensors, 40, 100), want, "float32")


@interpreted
@pytest.mark.parametrize("op", ["max", "min"])
def test_extremes_of_columns_keep_nan_for_the_rows_that_see_it(op):
    case = columns(op)
    tensors = inputs_of(case, "float32", 33, 33)
    tensors["X"][0, 1, 20, 2] = math.nan
    got = run(case, "float32", "k <= q", tensors, 33, 33)[f"A_{op}"]
    bad = torch.zeros(got.shape, dtype=torch.bool)
    bad[0, 1, 20:, 2] = True
    assert torch.equal(got.isnan(), bad)


def test_sums_of_columns_carry_the_nan_of_what_they_read():
    """So that the maximum of a softmax may drop it; a maximum of columns keeps it itself."""
    case = lagged()
    assert not must_carry_nan(case.tile)
    unread = replace(case.tile, steps=tuple(s for s in case.tile.steps if not isinstance(s, AccEach)))
    assert not must_carry_nan(unread)  # through Z
    assert must_carry_nan(replace(case.tile, outputs=(Output("M", "M", "row"),))) == {"M_tile"}
    assert not must_carry_nan(replace(shifted_columns().tile, outputs=(Output("top", "A", "acc", "j"),)))


def test_the_rank_of_a_loop_has_no_lanes():
    text = text_of(additive())
    assert "WIDTH_I = tl.constexpr(5)" in text
    assert "PAD_I" not in text
    assert "i_at = tl.cast(column, tl.int32)" in text
    assert "tl.arange(0, VALUE_PAD)" in text


def test_what_no_column_changes_is_read_once():
    """A read that depends on the column stands in its loop, any other that no key changes before all loops."""
    text = text_of(lagged())
    loop = text.split("for column in range(VALUE_DIM):")[1]
    assert "w_read = tl.load(" in loop
    scaled = additive()
    steps = (
        replace(scaled.tile.steps[0], body=mul(scaled.tile.steps[0].body, Load("u", (h,)))),
        *scaled.tile.steps[1:],
    )
    tensors = scaled.tensors | {"u": (Kind.FLOAT, "float32", "h")}
    text = text_of(replace(scaled, tile=replace(scaled.tile, steps=steps), tensors=tensors))
    assert "u_loaded = tl.load(" in text.split("for i in range")[0]
    assert text.count("u_ptr +") == 1


@pytest.mark.parametrize(
    ("make", "keys"),
    [(additive, 32), (teacher_and_student, 32), (lagged, 64), (two_values, 32), (one_hot, 32)],
)
def test_what_takes_registers_takes_fewer_keys(make, keys):
    """Loops for every pair, and products in fp32 of a kernel of half precision."""
    spec = spec_of(make(), "bfloat16", "k <= q", (64, 64))
    assert TritonBackend().config(spec, parse_target("sm_90")).block_k == keys


@interpreted
def test_keys_outside_a_tight_range_do_not_spread():
    """Where every loaded key is seen by some row nothing is zeroed after the load: computed operands must be too."""
    inner = Load("V", (b, g, k, e))
    case = two_values()
    doubled = Operand("V", "k", "e", mul(inner, Const(2.0)))
    case = replace(case, tile=replace(case.tile, operands=(QS, KS, doubled, case.tile.operands[3])))
    tensors = inputs_of(case, "float32", 40, 100)
    assert spec_of(case, "float32", "k <= q").plan.ranges.tight
    want = expected(case, "k <= q", tensors, 40, 100)
    want["O"] = want["O"] * 2
    for name in ("K", "V", "W"):
        tensors[name][:, :, 40:] = math.nan
    check(run(case, "float32", "k <= q", tensors, 40, 100), want, "float32")


def text_of(case, dtype="float32", mask="k <= q", target="sm_90"):
    return TritonBackend().emit(spec_of(case, dtype, mask), parse_target(target)).text


def test_what_a_program_does_not_read_is_no_argument():
    text = text_of(scores_of_keys())
    assert "Q_ptr" not in text
    assert "K_ptr" not in text
    assert "HEAD_DIM" not in text
    assert "V_ptr" in text
    assert "V_ptr" not in text_of(entropy())
    assert "VALUE_DIM" not in text_of(entropy())


def test_an_operand_is_loaded_once_a_tile():
    text = text_of(rows_are_keys(), mask="q <= k")
    assert text.count("q_tile = tl.load(") == 3  # one a loop: any tile, left edge, full tiles
    assert text.count("tl.dot(k_tile, tl.trans(q_tile)") == 3
    before = text.split("for i in range", 1)[0]
    assert before.count("k_tile = tl.load(") == before.count("v_tile = tl.load(") == 1


def test_the_wider_of_two_dtypes_is_multiplied():
    text = text_of(teacher_and_student(), "bfloat16")
    assert 'tl.dot(tq_tile, tk_tile.to(tl.float32), input_precision="ieee")' in text
    assert "R = tl.dot(q_tile, k_tile)" in text
    case = teacher_and_student()
    tensors = {"Tq": (*case.tensors["Tk"][:2], "bhqj"), "Tk": (*case.tensors["Tq"][:2], "bgkj")}
    text = text_of(replace(case, tensors=tensors), "bfloat16")
    assert 'tl.dot(tq_tile.to(tl.float32), tk_tile, input_precision="ieee")' in text


@pytest.mark.parametrize(("make", "read"), [(scores_of_keys, "w"), (one_hot, "span"), (rotation, "K")])
def test_partial_tiles_read_no_key_past_the_end(make, read):
    found = loops(text_of(make()))
    general = found.pop("Tiles") if "Tiles" in found else found.pop("Partial")
    address = rf"{read}_ptr.*?k_inside\.to\(tl\.int64\) \* {read}_stride"
    assert re.search(address, general, re.DOTALL)
    assert "Full" in found
    assert not any("k_inside" in text for text in found.values())


def test_only_rounded_accumulators_have_the_dtype_of_the_inputs():
    args = kernel_args(spec_of(two_values(), "bfloat16", "k <= q"))
    assert {a.name: a.dtype for a in args if a.role == "pointer"} == {
        "Q_ptr": "bfloat16",
        "K_ptr": "bfloat16",
        "V_ptr": "bfloat16",
        "O_ptr": "bfloat16",
        "U_ptr": "float32",
        "W_ptr": "float32",
    }


def test_blocks_that_no_tile_is_made_of_are_refused():
    case = blocks()
    for width in (24, 48):
        steps = (*case.tile.steps[:-1], replace(case.tile.steps[-1], width=width))
        with pytest.raises(UnsupportedError, match=f"block of {width} keys"):
            text_of(replace(case, tile=replace(case.tile, steps=steps)))


def test_a_wide_block_widens_the_tile():
    case = blocks()
    steps = (*case.tile.steps[:-1], replace(case.tile.steps[-1], width=128))
    spec = spec_of(replace(case, tile=replace(case.tile, steps=steps)), "bfloat16", "k <= q")
    assert TritonBackend().config(spec, parse_target("sm_90")).block_k == 128


QUICK_TO_COMPILE = ("two_values", "additive", "lagged", "column_extremes")


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK_TO_COMPILE else pytest.mark.slow) for n in CASES]
)
def test_every_step_compiles(name, target):
    case = CASES[name]()
    spec = spec_of(
        case, "bfloat16", "q <= k" if case.swapped else "k <= q", (64, 64) if name != "rotation" else (D, E)
    )
    compiled = compile_source(TritonBackend().emit(spec, parse_target(target)), spec)
    assert compiled.binary.read_bytes()[:4] == b"\x7fELF"


def test_a_selection_compiles_beside_wide_heads():
    """LLVM's AMD back end failed on a selection of a few in tiles of 32 keys, written another way."""
    spec = spec_of(top_k(), "bfloat16", "k <= q", (128, 128))
    compiled = compile_source(TritonBackend().emit(spec, parse_target("gfx942")), spec)
    assert compiled.binary.read_bytes()[:4] == b"\x7fELF"
