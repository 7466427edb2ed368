"""Steps that go over a feature for every pair, run on the CPU and compared with torch in fp64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.backends.base import Call
from attngen.backends.cpu import CpuBackend
from attngen.emit.cpp_names import MAX_COUNTED, MAX_POSITION, arg_layout
from attngen.emit.tile import AccEach, TileReduce
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Load, Var, apply
from tests.emit.cpp_cases import CAUSAL, CPU, DTYPES, FULL, INF, Case, J, inputs, largest
from tests.emit.cpp_cell_cases import (
    IDENTITY,
    X_K,
    Y_Q,
    additive,
    columns,
    fading,
    first_largest,
    lags,
    reduced,
    sides,
    weighed,
)
from tests.emit.test_cpp_steps import causal, close, heads, scores, softmax

SIZES = [(1, 1), (33, 129), (129, 33), (70, 300)]
REDUCE = {"sum": torch.sum, "prod": torch.prod, "max": torch.amax, "min": torch.amin}
# Rows that see nothing stand in every tile, between rows that see something.
STRIPES = Attention(mask=lambda b, h, q, k: (q % 5 != 1) & ((q + k) % 3 == h % 3))


def masked_by(name: str, n_q: int, n_k: int) -> tuple[Attention, torch.Tensor]:
    """A mask, and which pairs of each head it keeps."""
    if name == "stripes":
        h, q, k = (torch.arange(n) for n in (4, n_q, n_k))
        return STRIPES, (q[:, None] % 5 != 1) & ((q[:, None] + k) % 3 == h[:, None, None] % 3)
    keep = causal(n_q, n_k) if name == "causal" else torch.ones(n_q, n_k, dtype=torch.bool)
    return (CAUSAL if name == "causal" else FULL), keep.expand(4, -1, -1)


def split(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """X as [b, h, q, k, j], Y likewise, and w."""
    x, y, w = (given[n].double() for n in ("X", "Y", "w"))
    return x[:, None, None], y[:, :, :, None], w


@pytest.mark.parametrize("mask", ["causal", "full", "stripes"])
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_additive_attention(mask, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    given = sides(n_q, n_k)
    attention, keep = masked_by(mask, n_q, n_k)
    out = replace(additive(), mask=attention, tensors=given).run(q, k, v)
    x, y, w = split(given)
    s = ((x + y).tanh() * w).sum(-1)
    close(out["O"], softmax(s, keep) @ heads(v, 4))
    assert ((out["Z"] == 0) == ~keep.any(-1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("captured", [torch.float16, torch.bfloat16, torch.float64])
def test_additive_attention_in_other_dtypes(dtype, captured):
    q, k, v = inputs(50, 130, dtype)
    given = {name: t.mT.contiguous().mT if t.dim() > 1 else t for name, t in sides(50, 130, captured).items()}
    out = replace(additive(dtype), tensors=given).run(q, k, v)
    x, y, w = split(given)
    want = softmax(((x + y).tanh() * w).sum(-1), causal(50, 130)) @ heads(v, 4)
    close(out["O"], want, dtype)
    assert out["O"].dtype == DTYPES[dtype]


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_reductions_over_a_feature(op, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    given = sides(n_q, n_k)
    out = replace(reduced(op), mask=FULL, tensors=given).run(q / 4, k, v)
    x, y, w = split(given)
    start = y[..., :1]
    body = scores(q / 4, k)[..., None].cos() * start * w + x.tanh() * y.tanh()
    close(out["R_all"], REDUCE[op](body, -1))


@pytest.mark.parametrize("op", ["any", "all"])
def test_tests_over_a_feature_compare_integers_as_such(op):
    """They differ beyond what fp32 tells apart."""
    x = torch.randint(0, 3, (2, 90, 7)) + 2**40
    y = torch.randint(0, 3, (2, 4, 60, 7)) + 2**40
    body = apply("ge", apply("add", X_K, Const(1)), Y_Q) if op == "all" else apply("eq", X_K, Y_Q)
    q, k, v = inputs(60, 90)
    out = replace(reduced(op, body), mask=FULL, tensors=sides(60, 90) | {"X": x, "Y": y}).run(q, k, v)
    a, b = x[:, None, None], y[:, :, :, None]
    want = (a + 1 >= b).all(-1) if op == "all" else (a == b).any(-1)
    assert 0 < want.float().mean() < 1
    assert torch.equal(out["R_all"], want.float())


def test_a_nan_of_a_feature_shows_in_every_reduction():
    given = sides(20, 40)
    given["X"][0, 7, 3] = math.nan
    q, k, v = inputs(20, 40)
    for op in REDUCE:
        got = replace(reduced(op), mask=FULL, tensors=given).run(q, k, v)["R_all"].isnan()
        assert got[0, :, :, 7].all(), op
        assert got.sum() == 4 * 20, op


def test_what_varies_with_one_side_is_computed_once():
    """Hyperbolic tangents a panel and a key tile, the cosine before the loop over the feature."""
    text = CpuBackend().emit(replace(reduced("sum"), mask=FULL).spec(), CPU).text
    absorb = text[text.index("static void absorb(") : text.index("static void full_tile")]
    assert "vtanh" in text[: text.index("static void absorb(")]
    assert "vtanh" not in absorb
    assert absorb.index("vcos") < absorb.index("for (int j_ = 0;")


def column_terms(q: torch.Tensor, k: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    x, y, _ = split(given)
    return 1 + x * (scores(q, k)[..., None] + y).sin() / 8


@pytest.mark.parametrize("mask", ["causal", "full", "stripes"])
@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_accumulators_column_by_column(mask, op, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    given = sides(n_q, n_k)
    attention, keep = masked_by(mask, n_q, n_k)
    out = replace(columns(op), mask=attention, tensors=given).run(q / 4, k, v)["A"]
    terms = column_terms(q / 4, k, given).masked_fill(~keep[..., None], IDENTITY[op])
    want = REDUCE[op](terms, 3)
    some = keep.any(-1)
    close(out[:, some], want[:, some])
    assert (out[:, ~some] == IDENTITY[op]).all()


@pytest.mark.parametrize("op", REDUCE)
def test_only_pairs_that_are_kept_show_what_is_no_number(op):
    given = sides(60, 120)
    given["X"][1, 50, 2] = math.nan
    q, k, v = inputs(60, 120)
    got = replace(columns(op), tensors=given).run(q, k, v)["A"].isnan()
    want = torch.zeros_like(got)
    want[1, :, causal(60, 120)[:, 50], 2] = True
    assert torch.equal(got, want)
    hidden = Attention(mask=lambda b, h, q, k: k != 50)
    assert replace(columns(op), mask=hidden, tensors=given).run(q, k, v)["A"].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_columns_by_lag(dtype, n_q, n_k):
    """What they sum is fp32 whatever V is, and so are they."""
    q, k, v = inputs(n_q, n_k, dtype)
    w = torch.randn(n_k, 16)
    out = replace(lags(dtype), tensors={"w": w}).run(q, k, v)["A"]
    lag = torch.arange(n_q)[:, None] + (n_k - n_q) - torch.arange(n_k)
    rows = w.double()[lag.clamp(0, n_k - 1)] * causal(n_q, n_k)[..., None]
    close(out, torch.einsum("qke,bhke->bhqe", rows, heads(v, 4)))


@pytest.mark.parametrize("mask", ["causal", "full", "stripes"])
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_columns_are_rescaled_before_a_tile(mask, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    given = sides(n_q, n_k)
    attention, keep = masked_by(mask, n_q, n_k)
    out = replace(weighed(), mask=attention, tensors=given).run(q, k, v)
    s, some = scores(q, k), keep.any(-1)
    p = softmax(s, keep)
    want = (p[..., None] * (split(given)[0] + s[..., None]).tanh()).sum(3)
    close((out["A"] / out["Z"][..., None])[:, some], want[:, some])
    assert (out["A"][:, ~some] == 0).all()
    close(out["O"], p @ heads(v, 4))


@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_columns_may_be_moved_by_a_sum(n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    given = sides(n_q, n_k)
    out = replace(fading(), tensors=given).run(q, k, v)["A"]
    keep = causal(n_q, n_k)
    last = (torch.arange(n_k) * keep).amax(-1)
    age = (last[:, None] - torch.arange(n_k))[..., None] / 16
    terms = split(given)[0] - age
    want = terms.masked_fill(~keep[..., None], -INF).amax(3).expand(-1, 4, -1, -1)
    seen = keep.any(-1)
    close(out[:, :, seen], want[:, :, seen])
    assert (out[:, :, ~seen] == -INF).all()


def test_a_second_step_into_the_same_columns_rescales_what_the_first_has_made():
    """Everything here lies in one tile of keys."""
    case = columns("sum")
    body = apply("mul", X_K, Y_Q)
    twice = (*case.tile.steps, AccEach("A", "sum", body, "half"))
    carried = (*case.tile.carried, replace(case.tile.carried[0], name="half", space="row", init=Const(0.5)))
    case = replace(case, mask=FULL, tensors=sides(30, 20))
    out = replace(case, tile=replace(case.tile, steps=twice, carried=carried)).run(*(t := inputs(30, 20)))[
        "A"
    ]
    x, y, _ = split(dict(case.tensors))
    close(out, column_terms(t[0], t[1], dict(case.tensors)).sum(3) / 2 + (x * y).sum(3))


GRID = """
tokens = grid(y, x)
w[j]: float
X[b, k, j]: float
Y[b, q, j]: float

mask = (abs(q.y - k.y) <= 1) & (abs(q.x - k.x) <= h + 1)

S[q, k] = sum[j](w[j] * tanh(X[b, k, j] + Y[b, q, j]))
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])
A[q, j] = max[k](X[b, k, j] * sin(Y[b, q, j]))
return O, A
"""


def test_tiles_that_are_boxes(tmp_path):
    """Rows and keys of a neighbourhood are listed, not consecutive."""
    n = 12 * 11
    source = tmp_path / "grid.attn"
    source.write_text(GRID, encoding="utf-8")
    q, k, v = inputs(n, n)
    given = sides(n, n)
    given["Y"] = given["Y"][:, 0]
    out, largest_term = attngen.load(source, grid=(12, 11), **given)(q, k, v, backend="cpu")
    y, x = torch.arange(n) // 11, torch.arange(n) % 11
    reach = torch.arange(4)[:, None, None] + 1
    keep = ((y[:, None] - y).abs() <= 1) & ((x[:, None] - x).abs() <= reach)
    a, b = given["X"].double()[:, None, None], given["Y"].double()[:, None, :, None]
    s = ((a + b).tanh() * given["w"].double()).sum(-1)
    close(out, softmax(s.expand(-1, 4, -1, -1), keep) @ heads(v, 4))
    close(largest_term, (a * b.sin()).masked_fill(~keep[..., None], -INF).amax(3))


def test_reductions_that_have_no_lane_form_are_refused():
    case = reduced("logaddexp")
    with pytest.raises(UnsupportedError, match="no logaddexp over j"):
        CpuBackend().emit(case.spec(), CPU)
    wrong = replace(columns("max").tile, steps=(AccEach("A", "any", apply("gt", X_K, Y_Q)),))
    with pytest.raises(UnsupportedError, match="no any of columns"):
        CpuBackend().emit(replace(columns("max"), tile=wrong).spec(), CPU)


def far_keys(case: Case, n_k: int) -> Call:
    """A call with so many keys, all of them the same memory."""
    q, k, v = inputs(1, 1)
    outputs = {o.name: torch.zeros(2, 4, 1, *([5] if o.space == "acc" else [])) for o in case.tile.outputs}
    return Call(q, k.expand(-1, -1, n_k, -1), v.expand(-1, -1, n_k, -1), outputs, {}, {})


@pytest.mark.parametrize("make", [largest, first_largest])
def test_keys_are_selected_as_far_as_fp32_numbers_them(make):
    case = replace(make(), mask=FULL)
    kernel = CpuBackend().load(case.spec(), CPU)
    with pytest.raises(UnsupportedError, match="exact for 16777216 keys, not for 16777217"):
        kernel.launch(far_keys(case, 2**24 + 1))


def test_other_kernels_take_more_keys():
    """Among them one that reads the number of a key as a float for another purpose."""
    assert arg_layout(largest().spec()).max_keys == arg_layout(first_largest().spec()).max_keys == MAX_COUNTED
    slope = TileReduce("R", "sum", "j", apply("mul", apply("float", Var("k")), Load("w", (J,))))
    case = reduced("sum")
    steps = (slope, *case.tile.steps[2:])
    assert arg_layout(replace(case, tile=replace(case.tile, steps=steps)).spec()).max_keys == MAX_POSITION
    assert arg_layout(fading().spec()).max_keys == MAX_POSITION
