"""Tile programs made by hand, one for each kind of operand, step and output, with dense torch for what they store."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

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
from attngen.lang.expr import Const, Load, Param, Size, Var, apply
from attngen.lang.ops import Kind

B, H, G = 2, 4, 2
D, E = 24, 40
INF = math.inf
b, h, g, q, k, d, e, i, j = (Var(name) for name in "bhgqkdeij")
scale = Param("scale")


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
    heads: tuple = (B, H, G)


# Triton's interpreter reduces with a function of the kernel's own (`row_max`) one element after the other.
FEW = (1, 2, 1)


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

    return Case(tile, dense, heads=FEW)


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

    return Case(tile, dense, heads=FEW)
