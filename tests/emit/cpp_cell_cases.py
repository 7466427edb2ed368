"""Tile programs made by hand that go over a feature for every pair: `TileReduce` and `AccEach`."""

from __future__ import annotations

from typing import Literal

import torch

from attngen.emit.spec import DType
from attngen.emit.tile import (
    AccDot,
    AccEach,
    Carried,
    Dot,
    Mask,
    Output,
    RowLet,
    RowReduce,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
)
from attngen.lang.expr import Const, Expr, Load, Size, Var, apply, walk
from tests.emit.cpp_cases import (
    INF,
    K_D,
    LATE,
    NORMAL,
    Q_D,
    SOFTMAX,
    SOFTMAX_ROWS,
    V_E,
    B,
    Case,
    E,
    G,
    H,
    J,
    K,
    Q,
    pair,
    row,
)

IDENTITY = {"sum": 0.0, "prod": 1.0, "max": -INF, "min": INF}
X_K, Y_Q, W_J = Load("X", (B, K, J)), Load("Y", (B, H, Q, J)), Load("w", (J,))
POSITION = apply("add", Q, apply("sub", Size("n_k"), Size("n_q")))


def sides(n_q: int, n_k: int, dtype: torch.dtype = torch.float32, width: int = 7) -> dict[str, torch.Tensor]:
    """What the steps read of keys, rows and columns."""
    torch.manual_seed(n_q + 1000 * n_k)
    made = {"X": (2, n_k, width), "Y": (2, 4, n_q, width), "w": (width,)}
    return {name: torch.randn(shape).to(dtype) for name, shape in made.items()}


def additive(dtype: DType = "float32") -> Case:
    """Softmax over `sum[j](w[j] * tanh(X[b, k, j] + Y[b, h, q, j]))`."""
    score = TileReduce("S", "sum", "j", apply("mul", W_J, apply("tanh", apply("add", X_K, Y_Q))))
    return Case(
        TileProgram(
            operands=(V_E,),
            uniforms=(),
            carried=(*SOFTMAX_ROWS, Carried("O", "acc", Const(0.0))),
            steps=(score, *SOFTMAX, AccDot("O", "P", "r", "V"), *LATE),
            finish=(NORMAL,),
            outputs=(Output("O", "O", "acc", "e", rounded=True), Output("Z", "Z", "row")),
        ),
        dtype=dtype,
        extents={"j": 7},
        tensors=sides(3, 3),
    )


def reduced(op: str, body: Expr | None = None) -> Case:
    """`op` over j of products of a tile value, a row value and sides, stored for each pair."""
    weight = apply("mul", apply("cos", pair("S")), apply("mul", row("start"), W_J))
    body = body or apply("add", weight, apply("mul", apply("tanh", X_K), apply("tanh", Y_Q)))
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(Carried("start", "row", Load("Y", (B, H, Q, Const(0)))),),
            steps=(
                *((Dot("S", "Q", "K"),) if pair("S") in walk(body) else ()),
                TileReduce("R", op, "j", body),
                TileLet("R_number", apply("float", pair("R")) if op in ("any", "all") else pair("R")),
                StorePair("R_all", "R_number"),
            ),
            finish=(),
            outputs=(Output("R_all", "R_number", "pair"),),
        ),
        extents={"j": 7},
        tensors=sides(3, 3),
    )


def columns(op: str) -> Case:
    """`op` over the keys of `1 + X[b, k, j] * sin(S[q, k] + Y[b, h, q, j]) / 8`."""
    term = apply("mul", X_K, apply("sin", apply("add", pair("S"), Y_Q)))
    body = apply("add", Const(1.0), apply("mul", term, Const(0.125)))
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(Carried("A", "acc", Const(IDENTITY[op]), "j"),),
            steps=(Dot("S", "Q", "K"), AccEach("A", op, body)),
            finish=(),
            outputs=(Output("A", "A", "acc", "j"),),
        ),
        extents={"j": 7},
        tensors=sides(3, 3),
    )


def lags(dtype: DType = "float32") -> Case:
    """`sum[k](w[pos(q) - k, e] * V[b, g, k, e])`; the index leaves the tensor at pairs that are dropped."""
    body = apply("mul", Load("w", (apply("sub", POSITION, K), E)), Load("V", (B, G, K, E)))
    return Case(
        TileProgram(
            operands=(),
            uniforms=(),
            carried=(Carried("A", "acc", Const(0.0)),),
            steps=(AccEach("A", "sum", body),),
            finish=(),
            outputs=(Output("A", "A", "acc"),),
        ),
        dtype=dtype,
        tensors={"w": torch.randn(3, 16)},
    )


def weighed() -> Case:
    """`sum[k](exp(S - M) * tanh(X[b, k, j] + S))` beside the same weights over V: one is rescaled in its sweep."""
    body = apply("mul", pair("P"), apply("tanh", apply("add", X_K, pair("S_kept"))))
    return Case(
        TileProgram(
            operands=(Q_D, K_D, V_E),
            uniforms=(),
            carried=(*SOFTMAX_ROWS, Carried("O", "acc", Const(0.0)), Carried("A", "acc", Const(0.0), "j")),
            steps=(
                Dot("S", "Q", "K"),
                TileLet("S_kept", pair("S")),
                Mask("S_kept", 0.0),
                *SOFTMAX,
                AccEach("A", "sum", body, "r"),
                AccDot("O", "P", "r", "V"),
                *LATE,
            ),
            finish=(NORMAL,),
            outputs=(Output("O", "O", "acc"), Output("A", "A", "acc", "j"), Output("Z", "Z", "row")),
        ),
        extents={"j": 7},
        tensors=sides(3, 3),
    )


def fading(combine: Literal["mul", "add"] = "add") -> Case:
    """`max[k](X[b, k, j] - (last - k) / 16)`, with `last` the last key: kept relative to the last one so far."""
    age = apply("mul", apply("sub", row("last_new"), K), Const(0.0625))
    move = apply("mul", apply("sub", row("last"), row("last_new")), Const(0.0625))
    return Case(
        TileProgram(
            operands=(),
            uniforms=(),
            carried=(Carried("last", "row", Const(0.0)), Carried("A", "acc", Const(-INF), "j")),
            steps=(
                TileLet("at", K),
                Mask("at", 0.0),
                RowReduce("here", "max", "at"),
                RowLet("last_new", apply("max", row("last"), row("here"))),
                RowLet("move", move),
                AccEach("A", "max", apply("sub", X_K, age), "move", combine),
                RowLet("last", row("last_new")),
            ),
            finish=(),
            outputs=(Output("A", "A", "acc", "j"),),
        ),
        extents={"j": 7},
        tensors=sides(3, 3),
    )


def first_largest() -> Case:
    """The first key of the largest value, as `lower` writes it."""
    reaches = apply("eq", pair("S"), row("tile_best"))
    candidate = apply("where", reaches, apply("float", Var("k")), Const(INF))
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(Carried("key", "row", Const(-1.0)),),
            steps=(
                Dot("S", "Q", "K"),
                RowReduce("tile_best", "max", "S"),
                TileLet("candidate", candidate),
                RowReduce("tile_key", "min", "candidate"),
                RowLet("key", row("tile_key")),
            ),
            finish=(),
            outputs=(Output("key", "key", "row"),),
        )
    )


CELL_CASES = {
    "additive": additive,
    "additive_bf16": lambda: additive("bfloat16"),
    "reduced": lambda: reduced("prod"),
    "columns": lambda: columns("min"),
    "lags": lags,
    "weighed": weighed,
    "fading": fading,
}
