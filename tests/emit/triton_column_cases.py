"""Tile programs of loops over columns: reductions over the features of a pair, and accumulators column by column."""

from __future__ import annotations

import torch

from attngen.emit.tile import (
    AccDot,
    AccEach,
    Carried,
    Dot,
    FinishLet,
    Mask,
    Operand,
    Output,
    RowLet,
    RowReduce,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
)
from attngen.lang.expr import Const, Load, apply
from attngen.lang.ops import Kind
from tests.emit.triton_cases import (
    FEW,
    INF,
    KS,
    NEXT,
    NORMAL,
    ONLINE,
    QS,
    SCORE,
    VS,
    Case,
    G,
    H,
    acc,
    add,
    b,
    below,
    d,
    e,
    g,
    h,
    i,
    j,
    k,
    mul,
    normalised,
    pair,
    q,
    row,
    scores,
    softmax,
)


def additive():
    """A score that is a small network of the pair; its rank is no operand's, and its captured tensors are its own."""
    hidden = apply("tanh", add(Load("X", (b, g, k, i)), Load("Y", (b, h, q, i))))
    tile = TileProgram(
        (VS,),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0))),
        (
            TileReduce("S", "sum", "i", mul(Load("w", (i,)), hidden)),
            Mask("S", -INF),
            *ONLINE,
            AccDot("A", "P", "r", "V"),
            NEXT,
        ),
        (normalised("O", "A"),),
        (Output("O", "O", "acc", "e", True),),
    )

    def dense(x, keep):
        X = x["X"].repeat_interleave(H // G, 1)
        s = ((x["Y"][:, :, :, None] + X[:, :, None]).tanh() * x["w"]).sum(-1)
        return {"O": softmax(s, keep) @ x["V"]}

    tensors = {"w": (Kind.FLOAT, "float32", "i"), "Y": (Kind.FLOAT, "float32", "bhqi")}
    return Case(tile, dense, tensors | {"X": (Kind.FLOAT, None, "bgki")}, (("i", 5),))


def of_features():
    """Every reduction over a feature: of the inputs' own, and of one that an operand has too."""
    apart = apply("abs", apply("sub", Load("Q", (b, h, q, d)), Load("K", (b, g, k, d))))
    shared = add(Load("W", (b, g, k, j)), apply("float", apply("mod", apply("sub", q, j), Const(3))))
    bodies = {
        "sum": ("d", mul(apart, pair("S_dot"))),
        "max": ("d", apart),
        "min": ("j", shared),
        "prod": ("j", add(Const(1.0), mul(shared, Const(0.1)))),
        "any": ("d", apply("gt", apart, Const(3.0))),
        "all": ("j", apply("gt", shared, Const(-0.5))),
    }
    tile = TileProgram(
        (QS, KS, Operand("W", "k", "j", Load("W", (b, g, k, j)))),
        (),
        (Carried("A", "acc", Const(0.0), "j"),),
        (
            Dot("S_dot", "Q", "K"),
            *(TileReduce(f"x_{op}", op, feature, body) for op, (feature, body) in bodies.items()),
            *(StorePair(f"R_{op}", f"x_{op}") for op in bodies),
            TileLet("P", mul(pair("x_max"), Const(0.1))),
            Mask("P", 0.0),
            AccDot("A", "P", None, "W"),
        ),
        (),
        (*(Output(f"R_{op}", f"x_{op}", "pair") for op in bodies), Output("A", "A", "acc", "j")),
    )

    def dense(x, keep):
        apart = (x["Q"][:, :, :, None] - x["K"][:, :, None]).abs()
        W = x["W"].repeat_interleave(H // G, 1)
        rows = torch.arange(apart.shape[2])[:, None]
        shared = W[:, :, None] + ((rows - torch.arange(6)) % 3)[:, None].float()
        out = {
            "R_sum": apart.sum(-1) * (x["Q"] @ x["K"].mT),
            "R_max": apart.amax(-1),
            "R_min": shared.amin(-1),
            "R_prod": (1 + 0.1 * shared).prod(-1),
            "R_any": (apart > 3).any(-1).float(),
            "R_all": (shared > -0.5).all(-1).float(),
        }
        out = {name: value.masked_fill(~keep, -7.0) for name, value in out.items()}
        return out | {"A": (0.1 * apart.amax(-1) * keep) @ W}

    return Case(tile, dense, {"W": (Kind.FLOAT, "float32", "bgkj")}, (("j", 6),), heads=FEW)


def lagged():
    """A value that depends on the distance, with every rescale of a softmax; and one that no weight stands in."""
    value = mul(Load("w", (apply("sub", q, k), e)), Load("V", (b, g, k, e)))
    tile = TileProgram(
        (QS, KS),
        (),
        (*NORMAL, Carried("A", "acc", Const(0.0)), Carried("C", "acc", Const(0.5))),
        (
            *SCORE,
            *ONLINE,
            AccEach("A", "sum", mul(pair("P"), value), "r"),
            AccEach("C", "sum", value),
            NEXT,
        ),
        (normalised("O", "A"),),
        (Output("O", "O", "acc", "e", True), Output("C", "C", "acc")),
    )

    def dense(x, keep):
        far = (torch.arange(keep.shape[0])[:, None] - torch.arange(keep.shape[1])).clamp(0, 29)
        value = x["w"][far] * x["V"][:, :, None]
        p = softmax(scores(x), keep)
        return {"O": (p[..., None] * value).sum(3), "C": 0.5 + (value * keep[..., None]).sum(3)}

    return Case(tile, dense, {"w": (Kind.FLOAT, "float32", "le")}, (("l", 30),), heads=FEW)


def columns(*ops):
    """Running extremes and products of each column, which neither a mask nor a weight keeps dropped pairs from."""
    steps, carried, outputs = [], [], []
    for op in ops:
        body = Load("X", (b, h, k, j))
        if op == "prod":
            body = add(Const(1.0), mul(body, apply("float", apply("mod", q, Const(2)))))
        identity = {"max": -INF, "min": INF, "prod": 1.0}[op]
        carried.append(Carried(f"A_{op}", "acc", Const(identity), "j"))
        steps.append(AccEach(f"A_{op}", op, body))
        outputs.append(Output(f"A_{op}", f"A_{op}", "acc", "j"))
    tile = TileProgram((), (), tuple(carried), tuple(steps), (), tuple(outputs))

    def dense(x, keep):
        odd = (torch.arange(keep.shape[0]) % 2)[:, None, None]
        X = x["X"][:, :, None]
        seen = keep[..., None]
        out = {
            "A_max": torch.where(seen, X, -INF).amax(3),
            "A_min": torch.where(seen, X, INF).amin(3),
            "A_prod": torch.where(seen, 1 + X * odd, 1.0).prod(3),
        }
        return {name: out[name] for name in (o.name for o in outputs)}

    return Case(tile, dense, {"X": (Kind.FLOAT, "float32", "bhkj")}, (("j", 3),), heads=FEW)


def column_extremes():
    return columns("max", "min")


def column_products():
    return columns("prod")


def shifted_columns():
    """A maximum relative to a running one: what is older moves by a sum, not by a factor."""
    body = add(below(pair("S"), row("M_new")), Load("X", (b, h, k, j)))
    tile = TileProgram(
        (QS, KS),
        (),
        (NORMAL[0], Carried("A", "acc", Const(-INF), "j")),
        (
            *SCORE,
            RowReduce("M_tile", "max", "S"),
            RowLet("M_new", apply("max", row("M"), row("M_tile"))),
            RowLet("down", below(row("M"), row("M_new"))),
            AccEach("A", "max", body, "down", "add"),
            NEXT,
        ),
        (FinishLet("top", "acc", add(acc("A", j), apply("finite", row("M"))), "j"),),
        (Output("top", "top", "acc", "j"),),
    )

    def dense(x, keep):
        s = scores(x).masked_fill(~keep, -INF)[..., None] + x["X"][:, :, None]
        return {"top": s.amax(3)}

    return Case(tile, dense, {"X": (Kind.FLOAT, "float32", "bhkj")}, (("j", 2),), heads=FEW)
