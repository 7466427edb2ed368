"""Tile programs of every step and every kind of operand: run in Triton's interpreter against dense torch, and compiled.

The programs are made by hand, so that each shows one thing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

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
    AccBins,
    AccDot,
    AccLet,
    AccTopK,
    Carried,
    Dot,
    FinishLet,
    Mask,
    Operand,
    Output,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
)
from attngen.emit.triton.names import kernel_args
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Load, Param, Size, Var, apply
from attngen.lang.ops import Kind

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets")

B, H, G = 2, 4, 2
D, E = 24, 40
INF = math.inf
b, h, g, q, k, d, e, j = (Var(name) for name in "bhgqkdej")
scale = Param("scale")
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def pair(name):
    return Load(name, (q, k))


def row(name):
    return Load(name, (q,))


def acc(name, feature=e):
    return Load(name, (q, feature))


def mul(x, y):
    return apply("mul", x, y)


def add(x, y):
    return apply("add", x, y)


def exp(x):
    return apply("exp", x)


def below(x, y):
    return apply("sub", x, apply("finite", y))


QS = Operand("Q", "q", "d", Load("Q", (b, h, q, d)))
KS = Operand("K", "k", "d", Load("K", (b, g, k, d)))
VS = Operand("V", "k", "e", Load("V", (b, g, k, e)))
SCORE = (Dot("S_dot", "Q", "K"), TileLet("S", mul(pair("S_dot"), scale)), Mask("S", -INF))
NORMAL = (Carried("M", "row", Const(-INF)), Carried("Z", "row", Const(0.0)))
# The running maximum and sum of S; `r` rescales what is older.
ONLINE = (
    RowReduce("M_tile", "max", "S"),
    RowLet("M_new", apply("max", row("M"), row("M_tile"))),
    TileLet("P", exp(below(pair("S"), row("M_new")))),
    RowLet("r", exp(below(row("M"), row("M_new")))),
    RowReduce("Z_tile", "sum", "P"),
    RowLet("Z", add(mul(row("Z"), row("r")), row("Z_tile"))),
)
NEXT = RowLet("M", row("M_new"))


def normalised(name, source, feature="e"):
    value = apply("div", acc(source, Var(feature)), row("Z"))
    return FinishLet(
        name, "acc", apply("where", apply("eq", row("Z"), Const(0.0)), Const(0.0), value), feature
    )


@dataclass(frozen=True)
class Case:
    """A tile program with what it reads, and dense torch for each output.

    tensors  captured tensors by name: (kind, torch dtype or None for the spec's, shape as ranks).
    dense    of (inputs and tensors in fp32, K and V with every query head, keep[n_q, n_k]): the outputs by name.
    """

    tile: TileProgram
    dense: object
    tensors: dict = ()
    extents: tuple = ()
    swapped: bool = False


def softmax(s, keep):
    s = s.masked_fill(~keep, -INF)
    return (
        torch.where(keep.any(-1, keepdim=True), torch.softmax(s, -1), torch.zeros(())).nan_to_num(0.0) * keep
    )


def scores(x):
    return x["Q"] @ x["K"].mT * x["scale"]


def two_values():
    tile = TileProgram(
        (QS, KS, VS, Operand("W", "k", "j", Load("W", (b, g, k, j)))),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0)), Carried("B", "acc", Const(0.0), "j")),
        (*SCORE, *ONLINE, AccDot("A", "P", "r", "V"), AccDot("B", "P", "r", "W"), NEXT),
        (normalised("O", "A"), normalised("U", "B", "j")),
        (Output("O", "O", "acc", "e", True), Output("U", "U", "acc", "j")),
    )

    def dense(x, keep):
        p = softmax(scores(x), keep)
        return {"O": p @ x["V"], "U": p @ x["W"].repeat_interleave(H // G, 1)}

    return Case(tile, dense, {"W": (Kind.FLOAT, "float32", "bgkj")}, (("j", 20),))


def teacher_and_student():
    t_score = (Dot("T_dot", "Tq", "Tk"), TileLet("S", mul(pair("T_dot"), Const(0.3))), Mask("S", -INF))
    tile = TileProgram(
        (
            QS,
            KS,
            *(Operand(f"T{r}", r, "j", Load(f"T{r}", (b, x, Var(r), j))) for r, x in (("q", h), ("k", g))),
        ),
        (),
        (*NORMAL, Carried("C", "row", Const(0.0))),
        (
            *t_score,
            *ONLINE,
            Dot("R", "Q", "K"),
            Mask("R", 0.0),
            TileLet("X", mul(pair("P"), pair("R"))),
            RowReduce("X_tile", "sum", "X"),
            RowLet("C", add(mul(row("C"), row("r")), row("X_tile"))),
            NEXT,
        ),
        (
            FinishLet(
                "C_mean",
                "row",
                apply(
                    "where", apply("eq", row("Z"), Const(0.0)), Const(0.0), apply("div", row("C"), row("Z"))
                ),
            ),
        ),
        (Output("C_mean", "C_mean", "row"),),
    )

    def dense(x, keep):
        p = softmax(x["Tq"] @ x["Tk"].repeat_interleave(H // G, 1).mT * 0.3, keep)
        return {"C_mean": (p * (x["Q"] @ x["K"].mT)).sum(-1)}

    return Case(
        tile,
        dense,
        {"Tq": (Kind.FLOAT, "float32", "bhqj"), "Tk": (Kind.FLOAT, None, "bgkj")},
        (("j", 33),),
    )


def one_hot():
    hot = apply("where", apply("eq", Load("span", (b, k)), j), Const(1.0), Const(0.0))
    tile = TileProgram(
        (QS, KS, Operand("hot", "k", "j", hot)),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0), "j")),
        (*SCORE, *ONLINE, AccDot("A", "P", "r", "hot"), NEXT),
        (normalised("mass", "A", "j"),),
        (Output("mass", "mass", "acc", "j"),),
    )

    def dense(x, keep):
        hot = (x["span"][:, :, None] == torch.arange(5)).float()
        return {"mass": softmax(scores(x), keep) @ hot[:, None]}

    return Case(tile, dense, {"span": (Kind.INT, "int32", "bk")}, (("j", 5),))


def rotation():
    half = Const(D // 2)

    def rotated(tensor, head, at):
        first = Load(tensor, (b, head, at, apply("mod", add(d, half), Size("D"))))
        other = apply("where", apply("lt", d, half), apply("neg", first), first)
        angle = mul(mul(apply("float", at), Const(0.05)), Load("freq", (apply("mod", d, half),)))
        return add(mul(Load(tensor, (b, head, at, d)), apply("cos", angle)), mul(other, apply("sin", angle)))

    tile = TileProgram(
        (Operand("d_q", "q", "d", rotated("Q", h, q)), Operand("d_k", "k", "d", rotated("K", g, k)), VS),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0))),
        (Dot("S_dot", "d_q", "d_k"), *SCORE[1:], *ONLINE, AccDot("A", "P", "r", "V"), NEXT),
        (normalised("O", "A"),),
        (Output("O", "O", "acc", "e", True),),
    )

    def dense(x, keep):
        def turn(t):
            angle = 0.05 * torch.arange(t.shape[2])[:, None] * x["freq"].repeat(2)
            other = torch.cat((-t[..., D // 2 :], t[..., : D // 2]), -1)
            return t * angle.cos() + other * angle.sin()

        return {"O": softmax(turn(x["Q"]) @ turn(x["K"]).mT * x["scale"], keep) @ x["V"]}

    return Case(tile, dense, {"freq": (Kind.FLOAT, "float32", "f")})


def scores_of_keys():
    """No Q and no K: the score of a key is a number of its own; the gain of a key head stands in it."""
    score = mul(Load("w", (b, g, k)), Load("gain", (g,)))
    tile = TileProgram(
        (VS,),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0))),
        (TileLet("S", score), Mask("S", -INF), *ONLINE, AccDot("A", "P", "r", "V"), NEXT),
        (normalised("O", "A"),),
        (Output("O", "O", "acc", "e", True),),
    )

    def dense(x, keep):
        s = (x["w"] * x["gain"][:, None]).repeat_interleave(H // G, 1)[:, :, None]
        return {"O": softmax(s, keep) @ x["V"]}

    return Case(tile, dense, {"w": (Kind.FLOAT, "float32", "bgk"), "gain": (Kind.FLOAT, "float32", "g")})


def entropy():
    """No V."""
    tile = TileProgram(
        (QS, KS),
        (),
        (*NORMAL, Carried("X", "row", Const(0.0))),
        (
            *SCORE,
            *ONLINE,
            TileLet("PS", mul(pair("P"), apply("finite", pair("S")))),
            RowReduce("X_tile", "sum", "PS"),
            RowLet("X", add(mul(row("X"), row("r")), row("X_tile"))),
            NEXT,
        ),
        (
            FinishLet("N", "row", apply("max", row("Z"), Const(1e-30))),
            FinishLet(
                "entropy",
                "row",
                add(
                    apply("log", row("N")),
                    apply("sub", apply("finite", row("M")), apply("div", row("X"), row("N"))),
                ),
            ),
        ),
        (Output("entropy", "entropy", "row"),),
    )

    def dense(x, keep):
        p = softmax(scores(x), keep)
        out = -(p * p.clamp(min=1e-38).log()).sum(-1)
        return {"entropy": torch.where(keep.any(-1), out, math.log(1e-30))}

    return Case(tile, dense)


def bins():
    tile = TileProgram(
        (QS, KS),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0), "j")),
        (*SCORE, *ONLINE, TileLet("far", apply("sub", q, k)), AccBins("A", "P", "r", "far"), NEXT),
        (normalised("mass", "A", "j"),),
        (Output("mass", "mass", "acc", "j"),),
    )

    def dense(x, keep):
        p = softmax(scores(x), keep)
        far = torch.arange(p.shape[2])[:, None] - torch.arange(p.shape[3])
        return {"mass": torch.stack([(p * (far == i)).sum(-1) for i in range(6)], -1)}

    return Case(tile, dense, extents=(("j", 6),))


def top_k():
    tile = TileProgram(
        (QS, KS),
        (),
        (Carried("T", "acc", Const(-INF), "j"), Carried("T_key", "acc", Const(-1.0), "j")),
        (
            Dot("S_dot", "Q", "K"),
            TileLet("S", apply("round", mul(pair("S_dot"), scale))),
            Mask("S", -INF),
            AccTopK("T", "T_key", "S"),
        ),
        (),
        (Output("T", "T", "acc", "j"), Output("T_key", "T_key", "acc", "j")),
    )

    def dense(x, keep):
        s = scores(x).round().masked_fill(~keep, -INF)
        s = torch.cat((s, torch.full((*s.shape[:-1], 5), -INF)), -1)
        values, keys = s.sort(dim=-1, descending=True, stable=True)
        values, keys = values[..., :5], keys[..., :5]
        return {"T": values, "T_key": torch.where(values == -INF, -1, keys).float()}

    return Case(tile, dense, extents=(("j", 5),))


def pairs():
    tile = TileProgram(
        (QS, KS),
        (),
        (),
        (*SCORE, TileLet("P", exp(apply("sub", pair("S"), Load("L", (b, h, q))))), StorePair("P_all", "P")),
        (),
        (Output("P_all", "P", "pair"),),
    )

    def dense(x, keep):
        return {"P_all": (scores(x) - x["L"][..., None]).exp().masked_fill(~keep, -7.0)}

    return Case(tile, dense, {"L": (Kind.FLOAT, "float32", "bhq")})


def blocks():
    tile = TileProgram(
        (QS, KS),
        (),
        (),
        (
            *SCORE,
            TileLet("S_sum", mul(pair("S_dot"), scale)),
            Mask("S_sum", 0.0),
            StoreBlock("most", "max", "S", 16),
            StoreBlock("total", "sum", "S_sum", 32),
        ),
        (),
        (Output("most", "S", "block"), Output("total", "S_sum", "block")),
    )

    def dense(x, keep):
        out = {}
        for name, width, identity in (("most", 16, -INF), ("total", 32, 0.0)):
            s = scores(x).masked_fill(~keep, identity)
            pad = -s.shape[-1] % width
            s = torch.nn.functional.pad(s, (0, pad), value=identity).unflatten(-1, (-1, width))
            some = torch.nn.functional.pad(keep, (0, pad)).unflatten(-1, (-1, width)).any(-1)
            out[name] = (s.amax(-1) if name == "most" else s.sum(-1)).masked_fill(~some, -7.0)
        return out

    return Case(tile, dense)


def shares():
    """An accumulator and a row that start from tensors, and one made of both after every tile."""
    tile = TileProgram(
        (QS, KS, VS),
        (),
        (
            Carried("A", "acc", Load("X", (b, h, q, e))),
            Carried("R", "row", Load("Y", (b, h, q))),
            Carried("C", "acc", Const(0.0)),
        ),
        (
            Dot("S", "Q", "K"),
            TileLet("W", mul(pair("S"), scale)),
            Mask("W", 0.0),
            RowReduce("R_tile", "sum", "W"),
            RowLet("R", add(row("R"), row("R_tile"))),
            AccDot("A", "W", None, "V"),
            AccLet("C", add(mul(acc("A"), Const(2.0)), row("R"))),
        ),
        (),
        (Output("A", "A", "acc"), Output("C", "C", "acc")),
    )

    def dense(x, keep):
        w = scores(x) * keep
        a = x["X"] + w @ x["V"]
        c = 2 * a + (x["Y"] + w.sum(-1))[..., None]
        return {"A": a, "C": c if keep.any() else torch.zeros(())}  # set in every tile that is visited

    return Case(tile, dense, {"X": (Kind.FLOAT, "float32", "bhqe"), "Y": (Kind.FLOAT, "float32", "bhq")})


def rows_are_keys():
    """The gradients of K and V: K and V at the rows, Q and the gradient of O at the columns."""
    tile = TileProgram(
        (
            Operand("K", "q", "d", Load("K", (b, g, q, d))),
            Operand("V", "q", "e", Load("V", (b, g, q, e))),
            Operand("Q", "k", "d", Load("Q", (b, h, k, d))),
            Operand("dO", "k", "e", Load("dO", (b, h, k, e))),
        ),
        (),
        (Carried("A", "acc", Const(0.0), "d"), Carried("B", "acc", Const(0.0))),
        (
            Dot("S", "K", "Q"),
            TileLet("P", exp(apply("sub", mul(pair("S"), scale), Load("L", (b, h, k))))),
            Mask("P", 0.0),
            Dot("dP", "V", "dO"),
            TileLet("dS", mul(pair("P"), mul(apply("sub", pair("dP"), Load("delta", (b, h, k))), scale))),
            Mask("dS", 0.0),
            AccDot("B", "P", None, "dO"),
            AccDot("A", "dS", None, "Q"),
        ),
        (),
        (Output("dK", "A", "acc", "d"), Output("dV", "B", "acc")),
    )

    def dense(x, keep):
        p = (scores(x) - x["L"][..., None]).exp() * keep.mT
        ds = p * (x["dO"] @ x["V"].mT - x["delta"][..., None]) * x["scale"]
        return {"dK": ds.mT @ x["Q"], "dV": p.mT @ x["dO"]}

    tensors = {"dO": (Kind.FLOAT, None, "bhke")}
    tensors |= {name: (Kind.FLOAT, "float32", "bhk") for name in ("L", "delta")}
    return Case(tile, dense, tensors, swapped=True)


def indexed():
    """An operand under an index expression, which is clamped, and one of integers, which is computed."""
    tile = TileProgram(
        (
            Operand("W", "k", "j", Load("W", (b, apply("sub", h, Const(1)), k, j))),
            Operand("code", "k", "j", Load("code", (g, k, j))),
        ),
        (),
        (Carried("A", "acc", Const(0.0), "j"), Carried("B", "acc", Const(0.0), "j")),
        (
            TileLet("P", Load("w", (b, h, q))),
            Mask("P", 0.0),
            AccDot("A", "P", None, "W"),
            AccDot("B", "P", None, "code"),
        ),
        (),
        (Output("A", "A", "acc", "j"), Output("B", "B", "acc", "j", True)),
    )

    def dense(x, keep):
        p = x["w"][..., None] * keep
        heads = (torch.arange(H) - 1).clamp(min=0)
        return {"A": p @ x["W"][:, heads], "B": p @ x["code"].float().repeat_interleave(H // G, 0)}

    tensors = {"W": (Kind.FLOAT, "float32", "bhkj"), "code": (Kind.INT, "int8", "gkj")}
    return Case(tile, dense, tensors | {"w": (Kind.FLOAT, "float32", "bhq")}, (("j", 20),))


def reductions():
    """Products, and whether any or all pairs hold."""
    positive = apply("where", apply("gt", pair("S_dot"), Const(-9.0)), Const(1.0), Const(0.0))
    kinds = {
        "prod": (1.0, "mul", add(Const(1.0), mul(pair("S_dot"), Const(0.01)))),
        "any": (0.0, "max", apply("sub", Const(1.0), positive)),
        "all": (1.0, "min", positive),
    }
    steps, carried, outputs = [Dot("S_dot", "Q", "K")], [], []
    for op, (identity, combine, body) in kinds.items():
        carried.append(Carried(f"R_{op}", "row", Const(identity)))
        steps += [
            TileLet(f"x_{op}", body),
            Mask(f"x_{op}", identity),
            RowReduce(f"{op}_tile", op, f"x_{op}"),
            RowLet(f"R_{op}", apply(combine, row(f"R_{op}"), row(f"{op}_tile"))),
        ]
        outputs.append(Output(f"R_{op}", f"R_{op}", "row"))
    tile = TileProgram((QS, KS), (), tuple(carried), tuple(steps), (), tuple(outputs))

    def dense(x, keep):
        s = x["Q"] @ x["K"].mT
        low = (s <= -9.0) & keep
        return {
            "R_prod": torch.where(keep, 1 + 0.01 * s, torch.ones(())).prod(-1),
            "R_any": low.any(-1).float(),
            "R_all": (~low).all(-1).float(),
        }

    return Case(tile, dense)


CASES = {
    f.__name__: f
    for f in (
        two_values, teacher_and_student, one_hot, rotation, scores_of_keys, entropy, bins, top_k, pairs, blocks,
        shares, rows_are_keys, indexed, reductions,
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
    extent = {"b": B, "h": H, "g": G, "q": n_q, "k": n_k, "d": D, "e": E, "f": D // 2} | dict(case.extents)
    shapes = {"Q": (B, H, tokens["Q"], D), "K": (B, G, tokens["K"], D), "V": (B, G, tokens["K"], E)}
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
        outputs[o.name] = torch.full((B, H, n_q, *tail), -7.0, dtype=kind)
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


@interpreted
@pytest.mark.parametrize("lengths", [(129, 129), (33, 129), (129, 33), (1, 1)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_step_computes_what_torch_does(name, lengths):
    case = CASES[name]()
    for mask in ("q <= k",) if case.swapped else ("k <= q", "k <= q - 20"):
        tensors = inputs_of(case, "float32", *lengths)
        check(
            run(case, "float32", mask, tensors, *lengths), expected(case, mask, tensors, *lengths), "float32"
        )


@interpreted
@pytest.mark.parametrize(
    "name", ["two_values", "teacher_and_student", "one_hot", "rotation", "scores_of_keys", "rows_are_keys"]
)
def test_operands_in_half_precision(name):
    case = CASES[name]()
    mask = "q <= k" if case.swapped else "k <= q"
    tensors = inputs_of(case, "float16", 70, 100)
    check(run(case, "float16", mask, tensors, 70, 100), expected(case, mask, tensors, 70, 100), "float16")


@interpreted
@pytest.mark.parametrize(
    "name", ["two_values", "one_hot", "rotation", "scores_of_keys", "bins", "top_k", "blocks"]
)
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
    assert text.count("q_tile = tl.load(") == 2  # in either loop
    assert text.count("tl.dot(k_tile, tl.trans(q_tile)") == 2
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
    partial, full = (
        text_of(make()).split("    for i in range(0, n_partial):")[1].split("    for i in range(0, n_full):")
    )
    address = rf"{read}_ptr.*?k_inside\.to\(tl\.int64\) \* {read}_stride"
    assert re.search(address, partial, re.DOTALL)
    assert "k_inside" not in full


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


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("name", CASES)
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
