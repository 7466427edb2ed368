"""The C++ text of tile programs made by hand: every operand, step and output, run and compared with torch in fp64."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.backends.base import Call
from attngen.backends.cpu import CpuBackend
from attngen.backends.cpu_compile import compile_command, find_compiler
from attngen.emit import lower as pipeline_lower
from attngen.emit.cpp_names import arg_layout
from attngen.emit.tile import (
    AccDot,
    Dot,
    Output,
    TileLet,
)
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Expr, Load, Var, apply
from attngen.lang.ops import Kind
from attngen.planner.blocks import build_blocks
from tests.emit.cpp_cases import (
    CASES,
    CAUSAL,
    CPU,
    DTYPES,
    FULL,
    INF,
    by_distance,
    distilled,
    inputs,
    keys_as_rows,
    keys_only,
    largest,
    mixed,
    spans,
    stored,
    two_values,
)
from tests.emit.cpp_cell_cases import CELL_CASES

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same values with a last axis that is not contiguous."""
    return torch.stack([tensor, tensor + 1], -1)[..., 0]


def heads(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """In fp64, with as many heads as the queries."""
    return tensor.double().repeat_interleave(n // tensor.shape[1], 1)


def causal(n_q: int, n_k: int) -> torch.Tensor:
    return torch.arange(n_k)[None, :] <= torch.arange(n_q)[:, None] + (n_k - n_q)


def softmax(s: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    s = s if keep is None else s.masked_fill(~keep, -INF)
    return s.softmax(-1).nan_to_num(0.0)


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q.double() @ heads(k, q.shape[1]).mT


def close(got: torch.Tensor, want: torch.Tensor, dtype: str = "float32") -> None:
    tol = TOLERANCE[dtype]
    torch.testing.assert_close(
        got.double(), want.double(), rtol=tol, atol=tol * max(1.0, float(want.abs().max()))
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_values_of_different_widths_and_dtypes(dtype):
    for n_q, n_k in ((1, 1), (33, 129), (129, 33)):
        q, k, v = inputs(n_q, n_k, dtype)
        w = torch.randn(2, n_k, 5)
        out = two_values(dtype, strided(w)).run(strided(q), k.mT.contiguous().mT, strided(v))
        p = softmax(scores(q, k), causal(n_q, n_k))
        close(out["O"], p @ heads(v, 4), dtype)
        seen = causal(n_q, n_k).any(-1)
        close(out["U"][:, :, seen], (p @ w.double()[:, None])[:, :, seen])
        assert out["O"].dtype == DTYPES[dtype]
        assert (out["O"][:, :, ~seen] == 0).all()


def test_a_value_of_its_own_dtype_rounds_what_multiplies_it():
    """In an fp32 kernel only the weights that meet the fp16 tensor are rounded; both roundings stay apart."""
    q, k, v = inputs(40, 40)
    w = torch.ones(2, 40, 5, dtype=torch.float16)
    out = two_values("float32", w).run(q, k, v)
    close(out["O"], softmax(scores(q, k), causal(40, 40)) @ heads(v, 4))
    close(out["U"], torch.ones(2, 4, 40, 5), "float16")
    text = CpuBackend().emit(two_values("float32", w).spec(), CPU).text
    assert text.count("(const float16*)nullptr)") == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 33), (129, 130)])
def test_a_teacher_and_a_student(dtype, n_q, n_k):
    q, k, v = inputs(n_q, n_k, dtype)
    q_t, k_t = torch.randn(2, 4, n_q, 40), torch.randn(2, 2, n_k, 40).to(torch.bfloat16)
    out = replace(distilled(), dtype=dtype, tensors={"Qt": q_t, "Kt": k_t}).run(q, k, v)
    keep = causal(n_q, n_k)
    t = scores(q_t, k_t).masked_fill(~keep, -INF)
    s = scores(q, k).masked_fill(~keep, -INF)
    terms = t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))
    close(out["KL"], terms.nan_to_num(0.0).sum(-1))


def turn(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    angle = torch.arange(x.shape[2])[:, None] * torch.exp2(-(torch.arange(16) % 8).double())
    return x * angle.cos() + torch.cat([-x[..., 8:], x[..., :8]], -1) * angle.sin()


@pytest.mark.parametrize("dtype", DTYPES)
def test_computed_operands(dtype):
    for n_q, n_k in ((1, 1), (33, 129), (130, 131)):
        q, k, v = inputs(n_q, n_k, dtype)
        span = torch.randint(-1, 20, (2, n_k))
        out = replace(spans(), dtype=dtype, tensors={"span": span}).run(strided(q), k, v)
        p = softmax(turn(q) @ heads(turn(k), 4).mT, causal(n_q, n_k))
        want = p @ (span[:, None, :, None] == torch.arange(19)).double()
        seen = causal(n_q, n_k).any(-1)
        close(out["O"][:, :, seen], want[:, :, seen], "float16")  # angles up to 130 are fp32


@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (33, 129), (129, 300)])
def test_scores_of_keys_alone(n_q, n_k):
    case = replace(keys_only(), tensors={"gate": torch.randn(2, 2, n_k) * 3})
    q, k, v = inputs(n_q, n_k)
    got = case.run(q, k, v)["entropy"]
    s = case.tensors["gate"].double().repeat_interleave(2, 1)[:, :, None].expand(-1, -1, n_q, -1)
    p = softmax(s, causal(n_q, n_k))
    close(got, -(p * p.clamp_min(1e-300).log()).sum(-1))
    layout = arg_layout(case.spec())
    assert layout.inputs == ()
    assert layout.pointers == ("entropy", "gate")


@pytest.mark.parametrize("mask", ["causal", "full"])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (33, 129), (129, 300)])
def test_bins(mask, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    keep = causal(n_q, n_k) if mask == "causal" else torch.ones(n_q, n_k, dtype=torch.bool)
    out = replace(by_distance(), mask=CAUSAL if mask == "causal" else FULL).run(q, k, v)
    distance = torch.arange(n_q)[:, None] + (n_k - n_q) - torch.arange(n_k)
    hit = (distance[..., None] == torch.arange(7)) & keep[..., None]
    p = softmax(scores(q, k), keep)
    close(out["A"], torch.einsum("bhqk,qkj->bhqj", p, hit.double()))
    assert torch.equal(out["N"], hit.float().sum(1).expand_as(out["N"]))


def test_bins_beyond_32_bits_are_no_columns():
    far = (torch.arange(40) % 9 << 32) + torch.arange(40) % 5
    tile = by_distance().tile
    steps = tuple(
        TileLet("bin", Load("far", (Var("k"),))) if isinstance(s, TileLet) and s.out == "bin" else s
        for s in tile.steps
    )
    q, k, v = inputs(40, 40)
    out = replace(by_distance(), tile=replace(tile, steps=steps), tensors={"far": far}, mask=FULL).run(
        q, k, v
    )
    want = torch.tensor([int((far == j).sum()) for j in range(7)]).float()
    assert torch.equal(out["N"], want.expand_as(out["N"]))


@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (33, 129), (129, 300), (40, 20)])
def test_the_largest_of_a_row_with_ties_to_the_smaller_key(n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    q, k = (q * 2).round() / 2, (k * 2).round() / 2  # scores are exact, and so are ties
    out = largest().run(q, k, v)
    s = scores(q, k).round().masked_fill(~causal(n_q, n_k), -INF)
    s = torch.nn.functional.pad(s, (0, 5), value=-INF)
    values, index = s.sort(dim=-1, descending=True, stable=True)
    values, index = values[..., :5], index[..., :5].masked_fill(values[..., :5] == -INF, -1)
    assert torch.equal(out["T"], values.float())
    assert torch.equal(out["I"], index.float())
    if n_k > 5:
        assert (values[..., 1:] == values[..., :-1]).any()


def by_blocks(s: torch.Tensor, keep: torch.Tensor, width: int, op: str, fill: float) -> torch.Tensor:
    identity = -INF if op == "max" else 0.0
    pad = -s.shape[-1] % width
    s = torch.nn.functional.pad(s.masked_fill(~keep, identity), (0, pad), value=identity)
    some = torch.nn.functional.pad(keep, (0, pad)).unflatten(-1, (-1, width)).any(-1)
    s = s.unflatten(-1, (-1, width))
    out = s.amax(-1) if op == "max" else s.sum(-1)
    return out.masked_fill(~some, fill)


def test_keys_may_come_in_any_order():
    """Of a schedule in lists the partial tiles, of later keys here, go first."""
    n = 300
    window = torch.full((n,), 1000)
    mask = Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < window[k]))
    (name,) = [t.name for t in mask.program.tensors]
    q, k, v = inputs(n, n)
    q, k = (q * 2).round() / 2, (k * 2).round() / 2
    case = replace(largest(), mask=mask, tensors={name: window})
    kernel = CpuBackend().load(case.spec(), CPU)
    sizes = {"n_q": n, "n_k": n, "batch": 2, "heads": 4, "block_q": kernel.block_q, "block_k": kernel.block_k}
    lists = build_blocks(mask.program, {name: window.numpy()}, **sizes)
    assert lists.full_index.size
    order = torch.arange(2 * 4 * -(-n // kernel.block_q), dtype=torch.int32)
    outputs = {name: torch.full((2, 4, n, 5), 9.0) for name in ("T", "I")}
    kernel.launch(Call(q, k, v, outputs, case.tensors, {}, lists, order=order))
    want = replace(largest(), mask=CAUSAL).run(q, k, v)
    assert torch.equal(outputs["T"], want["T"])
    assert torch.equal(outputs["I"], want["I"])


@pytest.mark.parametrize("mask", ["causal", "full", "sliding_window_sink"])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (33, 129), (130, 500), (60, 33)])
def test_pairs_and_blocks_are_stored_where_somebody_keeps_them(mask, n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    masks = {
        "full": FULL,
        "causal": CAUSAL,
        "sliding_window_sink": attngen.load("sliding_window_sink", sink=3, window=50),
    }
    case = replace(stored(), mask=masks[mask])
    params = {"sink": 3, "window": 50} if mask == "sliding_window_sink" else {}
    case.params = tuple((name, Kind.INT) for name in params)
    out = case.run(q, k, v, fill=77.0, params=params)
    keep = causal(n_q, n_k) if mask != "full" else torch.ones(n_q, n_k, dtype=torch.bool)
    if mask == "sliding_window_sink":
        at, key = torch.arange(n_q)[:, None] + n_k - n_q, torch.arange(n_k)
        keep &= (key < 3) | (at - key < 50)
    s = scores(q, k)
    close(out["pairs"], s.masked_fill(~keep, 77.0))
    close(out["top"], by_blocks(s, keep, 16, "max", 77.0))
    close(out["mass"], by_blocks(s, keep, 40, "sum", 77.0))
    assert CpuBackend().config(case.spec(), CPU).block_k % 80 == 0


@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (33, 129), (129, 300)])
def test_accumulators_take_shares_of_others_before_they_change(n_q, n_k):
    q, k, v = inputs(n_q, n_k)
    start = torch.randn(2, 4, n_q, 16)
    out = replace(mixed(), tensors={"start": start}).run(q, k, v)
    keep = causal(n_q, n_k)
    w = scores(q, k).abs().masked_fill(~keep, 0.0)
    last = (torch.arange(n_k) * keep).amax(-1).double()
    a0 = start.double() + w @ heads(v, 4)
    a1 = (w * (last[:, None] - torch.arange(n_k))) @ heads(v, 4) + start.double() * last[:, None]
    close(out["A0"], a0)
    close(out["A1"], a1)
    close(out["last"], last.expand(2, 4, -1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 33), (129, 129), (33, 129), (200, 70)])
def test_rows_may_be_keys(dtype, n_q, n_k):
    q, k, v = inputs(n_q, n_k, dtype)
    keep = torch.arange(n_q)[:, None] >= torch.arange(n_k)
    s = scores(q, k)
    lse = s.masked_fill(~keep, -INF).logsumexp(-1)
    out = replace(keys_as_rows(dtype), tensors={"lse": lse.float()}).run(q, strided(k), v, swapped=True)
    p = (s - lse[..., None]).exp().masked_fill(~keep, 0.0)
    assert out["R"].shape == (2, 4, n_k)
    close(out["R"], p.sum(2))
    close(out["X"], p.mT @ q.double(), dtype)


@pytest.mark.parametrize("torch_dtype", [torch.int8, torch.float64, torch.bool])
def test_values_that_cannot_be_pointed_at_are_computed(torch_dtype):
    """Loads of other types than fp32, bf16 and fp16, and of a tensor without a key, still are operands."""
    w = torch.randint(0, 2, (2, 50, 5)).to(torch_dtype)
    q, k, v = inputs(50, 50)
    out = two_values("float32", w).run(q, k, v)
    close(out["U"], softmax(scores(q, k), causal(50, 50)) @ w.double()[:, None])


def test_an_output_both_rounded_and_not_is_refused():
    case = two_values("bfloat16")
    twice = (*case.tile.outputs, Output("O32", "O", "acc", "e"))
    with pytest.raises(UnsupportedError, match="O is an output both"):
        CpuBackend().emit(replace(case, tile=replace(case.tile, outputs=twice)).spec(), CPU)


@pytest.mark.parametrize("name", [*CASES, *CELL_CASES])
def test_the_text_has_no_warnings_and_nothing_it_does_not_use(name, tmp_path):
    case = {**CASES, **CELL_CASES}[name]()
    source = tmp_path / "kernel.cpp"
    for mask in (case.mask, FULL):
        text = CpuBackend().emit(replace(case, mask=mask).spec(), CPU).text
        source.write_text(text, encoding="utf-8")
        command = compile_command(find_compiler(), CPU, source, tmp_path / "kernel.so")
        warnings = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        done = subprocess.run([*command, *warnings], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("HEAD_DIM" in text) == any(o.feature == "d" for o in case.tile.operands)
        assert ("dot_pv" in text) == any(isinstance(s, AccDot) for s in case.tile.steps)
        assert ("dot_qk" in text) == any(isinstance(s, Dot) for s in case.tile.steps)
        assert max(len(line) for line in text.splitlines()) <= 120


@attngen.mask(grid=("y", "x"))
def near(b, h, q, k):
    return ((q.y - k.y).abs() <= 1) & ((q.x - k.x).abs() <= h + 1)


@attngen.mask(grid=("y", "x"))
def nearer(b, h, q, k):
    """The same by other words, so that nothing remembers its kernel."""
    return ((q.y - k.y).abs() < 2) & ((q.x - k.x).abs() < h + 2)


@pytest.mark.parametrize("grid", [(6, 7), (40, 30)])
def test_operands_that_read_coordinates_of_a_grid(grid, monkeypatch):
    """The tiles are boxes: a computed row or column is that of a listed token."""
    n = grid[0] * grid[1]
    spec = Attention(mask=near.bind(grid=grid))
    lower = pipeline_lower.lower

    def eighth(index: Var) -> Expr:
        return apply("mul", index, Const(0.125))

    def with_coordinates(*given, **settings):
        tile = lower(*given, **settings)
        moved = {"Q": ("q", "y"), "K": ("k", "x")}
        return replace(
            tile,
            operands=tuple(
                replace(o, body=apply("add", o.body, eighth(Var(*moved[o.name])))) if o.name in moved else o
                for o in tile.operands
            ),
        )

    q, k, v = inputs(n, n, e=16)
    y, x = (torch.arange(n) // grid[1], torch.arange(n) % grid[1])
    want = spec(q + y[:, None] / 8, k + x[:, None] / 8, v, scale=0.1, backend="cpu")
    monkeypatch.setattr(pipeline_lower, "lower", with_coordinates)
    got = Attention(mask=nearer.bind(grid=grid))(q, k, v, scale=0.1, backend="cpu")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, spec(q, k, v, scale=0.1, backend="cpu"), atol=1e-2)
