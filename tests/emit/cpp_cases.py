"""Tile programs made by hand, one for each kind of operand, step and output, and how to run them on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

import attngen
from attngen import pipeline
from attngen.analysed import analyse
from attngen.api import Attention
from attngen.backends.base import Call
from attngen.backends.cpu import CpuBackend
from attngen.emit.spec import DType, KernelSpec, TensorArg
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
from attngen.lang.expr import Const, Expr, Load, Size, Var, apply
from attngen.lang.ops import Kind

CPU = parse_target("cpu")
B, H, G, Q, K, D, E, J = (Var(n) for n in ("b", "h", "g", "q", "k", "d", "e", "j"))
INF = float("inf")
FULL, CAUSAL = Attention(), attngen.load("causal")
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}

Q_D = Operand("Q", "q", "d", Load("Q", (B, H, Q, D)))
K_D = Operand("K", "k", "d", Load("K", (B, G, K, D)))
V_E = Operand("V", "k", "e", Load("V", (B, G, K, E)))


def row(name: str) -> Expr:
    return Load(name, (Q,))


def pair(name: str) -> Expr:
    return Load(name, (Q, K))


def acc(name: str, feature: Var = E) -> Expr:
    return Load(name, (Q, feature))


def safe(name: str, over: str) -> Expr:
    """`name / over`, 0 where `over` is."""
    return apply(
        "where", apply("eq", row(over), Const(0.0)), Const(0.0), apply("div", Load(name, (Q, E)), row(over))
    )


def exp_of(a: Expr, b: Expr) -> Expr:
    return apply("exp", apply("sub", a, apply("finite", b)))


SOFTMAX_ROWS = (Carried("M", "row", Const(-INF)), Carried("Z", "row", Const(0.0)))
SOFTMAX = (
    Mask("S", -INF),
    RowReduce("m", "max", "S"),
    RowLet("M_new", apply("max", row("M"), row("m"))),
    RowLet("r", exp_of(row("M"), row("M_new"))),
    TileLet("P", exp_of(pair("S"), row("M_new"))),
    RowReduce("z", "sum", "P"),
    RowLet("Z", apply("add", apply("mul", row("Z"), row("r")), row("z"))),
)
LATE = (RowLet("M", row("M_new")),)
NORMAL = FinishLet("O", "acc", safe("O", "Z"))


@dataclass
class Case:
    """A tile program, what it is called with, and what it should store."""

    tile: TileProgram
    mask: Attention = CAUSAL
    dtype: DType = "float32"
    extents: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    params: tuple[tuple[str, Kind], ...] = ()
    d: int = 16
    e: int = 16

    def spec(self) -> KernelSpec:
        base = pipeline.kernel_spec(
            analyse(self.mask.program), pipeline.Specialisation(self.dtype, self.d, self.e)
        )
        tensors = tuple(
            TensorArg(name, kind_of(t), t.dim(), str(t.dtype).removeprefix("torch."))
            for name, t in self.tensors.items()
        )
        return replace(
            base,
            tile=self.tile,
            tensors=tensors,
            params=self.params,
            extents=tuple(self.extents.items()),
            outputs=tuple(o.name for o in self.tile.outputs),
        )

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        fill: float = float("nan"),
        *,
        swapped: bool = False,
        params: Mapping[str, float] | None = None,
    ) -> dict[str, torch.Tensor]:
        spec = self.spec()
        outputs: dict[str, torch.Tensor] = {}
        n_b, n_h = q.shape[:2]
        rows, columns = (k.shape[2], q.shape[2]) if swapped else (q.shape[2], k.shape[2])
        widths = {s.name: s.width for s in self.tile.steps if isinstance(s, StoreBlock)}
        for out in self.tile.outputs:
            last = {
                "row": (),
                "acc": (spec.width(out.feature),) if out.space == "acc" else (),
                "pair": (columns,),
                "block": (-(-columns // widths.get(out.name, 1)),),
            }[out.space]
            dtype = DTYPES[self.dtype] if out.rounded else torch.float32
            outputs[out.name] = torch.full((n_b, n_h, rows, *last), fill, dtype=dtype)
        kernel = CpuBackend().load(spec, CPU)
        tasks = n_b * n_h * -(-rows // kernel.block_q)
        order = torch.arange(tasks, dtype=torch.int32) if kernel.needs_order else None
        kernel.launch(Call(q, k, v, outputs, self.tensors, dict(params or {}), swapped=swapped, order=order))
        return outputs


def kind_of(tensor: torch.Tensor) -> Kind:
    if tensor.dtype is torch.bool:
        return Kind.BOOL
    return Kind.FLOAT if tensor.dtype.is_floating_point else Kind.INT


def inputs(
    n_q: int, n_k: int, dtype: str = "float32", d: int = 16, e: int = 16, b: int = 2, h: int = 4, g: int = 2
):
    torch.manual_seed(n_q * 1000 + n_k)
    made = (torch.randn(b, n, t, w) for n, t, w in ((h, n_q, d), (g, n_k, d), (g, n_k, e)))
    return tuple(t.to(DTYPES[dtype]) for t in made)


def two_values(dtype: DType = "float32", value: torch.Tensor | None = None) -> Case:
    """Weights over V and over a captured tensor of another width."""
    w = torch.randn(2, 33, 5) if value is None else value
    return Case(
        TileProgram(
            operands=(Q_D, K_D, V_E, Operand("W", "k", "j", Load("W", (B, K, J)))),
            uniforms=(),
            carried=(*SOFTMAX_ROWS, Carried("O", "acc", Const(0.0)), Carried("U", "acc", Const(0.0), "j")),
            steps=(
                Dot("S", "Q", "K"),
                *SOFTMAX,
                AccDot("O", "P", "r", "V"),
                AccDot("U", "P", "r", "W"),
                *LATE,
            ),
            finish=(NORMAL, FinishLet("U", "acc", apply("div", acc("U", J), row("Z")), "j")),
            outputs=(
                Output("O", "O", "acc", "e", rounded=True),
                Output("U", "U", "acc", "j"),
                Output("Z", "Z", "row"),
            ),
        ),
        dtype=dtype,
        extents={"j": w.shape[-1]},
        tensors={"W": w},
    )


def distilled() -> Case:
    """KL(teacher, student): two dots over features of different widths."""
    difference = TileLet("diff", apply("sub", pair("T"), pair("S")))
    a, c = row("A"), row("c")
    kl = apply(
        "sub",
        apply("add", apply("div", a, row("Z2")), apply("add", row("M"), apply("log", row("Z")))),
        apply("add", row("M2"), apply("log", row("Z2"))),
    )
    teacher = (
        Mask("T", -INF),
        RowReduce("m2", "max", "T"),
        RowLet("M2_new", apply("max", row("M2"), row("m2"))),
        RowLet("r2", exp_of(row("M2"), row("M2_new"))),
        TileLet("P2", exp_of(pair("T"), row("M2_new"))),
        RowReduce("z2", "sum", "P2"),
        RowLet("Z2", apply("add", apply("mul", row("Z2"), row("r2")), row("z2"))),
        TileLet("C", apply("mul", pair("P2"), pair("diff"))),
        RowReduce("c", "sum", "C"),
        RowLet("A", apply("add", apply("mul", a, row("r2")), c)),
        RowLet("M2", row("M2_new")),
    )
    return Case(
        TileProgram(
            operands=(
                Q_D,
                K_D,
                Operand("Qt", "q", "t", Load("Qt", (B, H, Q, Var("t")))),
                Operand("Kt", "k", "t", Load("Kt", (B, apply("floordiv", H, Const(2)), K, Var("t")))),
            ),
            uniforms=(),
            carried=(
                *SOFTMAX_ROWS,
                Carried("M2", "row", Const(-INF)),
                Carried("Z2", "row", Const(0.0)),
                Carried("A", "row", Const(0.0)),
            ),
            steps=(Dot("S", "Q", "K"), Dot("T", "Qt", "Kt"), difference, *SOFTMAX, *teacher, *LATE),
            finish=(FinishLet("KL", "row", kl),),
            outputs=(Output("KL", "KL", "row"),),
        ),
        extents={"t": 40},
        tensors={"Qt": torch.randn(2, 4, 3, 40), "Kt": torch.randn(2, 2, 3, 40)},
    )


def rotated(tensor: str, index: Var, head: Var) -> Expr:
    """Rotation by position: features i and i + D/2 turn together by an angle of position and i."""
    half = Const(8)
    first = apply("lt", D, half)
    at = apply("where", first, apply("add", D, half), apply("sub", D, half))
    angle = apply("mul", index, apply("exp2", apply("neg", apply("mod", D, half))))
    turned = apply("where", first, Const(-1.0), Const(1.0))
    other = apply("mul", turned, Load(tensor, (B, head, index, at)))
    straight = apply("mul", Load(tensor, (B, head, index, D)), apply("cos", angle))
    return apply("add", straight, apply("mul", other, apply("sin", angle)))


def one_hot() -> Expr:
    return apply("where", apply("eq", Load("span", (B, K)), J), Const(1.0), Const(0.0))


def spans() -> Case:
    """How much of a row's weight falls into each span of keys; both sides of the score are rotated."""
    return Case(
        TileProgram(
            operands=(
                Operand("Q_turned", "q", "d", rotated("Q", Q, H)),
                Operand("K_turned", "k", "d", rotated("K", K, G)),
                Operand("one_hot", "k", "j", one_hot()),
            ),
            uniforms=(),
            carried=(*SOFTMAX_ROWS, Carried("O", "acc", Const(0.0), "j")),
            steps=(Dot("S", "Q_turned", "K_turned"), *SOFTMAX, AccDot("O", "P", "r", "one_hot"), *LATE),
            finish=(FinishLet("O", "acc", apply("div", acc("O", J), row("Z")), "j"),),
            outputs=(Output("O", "O", "acc", "j"),),
        ),
        extents={"j": 19},
        tensors={"span": torch.zeros(2, 3, dtype=torch.int64)},
    )


def keys_only() -> Case:
    """The entropy of a softmax over scores of the keys alone: reads none of Q, K, V."""
    weighed = TileLet("T", apply("mul", pair("P"), apply("sub", pair("S"), apply("finite", row("M_new")))))
    scaled = apply("mul", row("r"), apply("add", row("X"), apply("mul", row("Z"), row("shift"))))
    return Case(
        TileProgram(
            operands=(),
            uniforms=(),
            carried=(*SOFTMAX_ROWS, Carried("X", "row", Const(0.0))),
            steps=(
                TileLet("S", Load("gate", (B, G, K))),
                *SOFTMAX[:4],
                RowLet("shift", apply("sub", apply("finite", row("M")), apply("finite", row("M_new")))),
                SOFTMAX[4],
                TileLet("S_kept", pair("S")),
                Mask("S_kept", 0.0),
                replace(
                    weighed,
                    body=apply("mul", pair("P"), apply("sub", pair("S_kept"), apply("finite", row("M_new")))),
                ),
                RowReduce("x", "sum", "T"),
                RowLet("X", apply("add", scaled, row("x"))),
                *SOFTMAX[5:],
                *LATE,
            ),
            finish=(
                FinishLet(
                    "entropy", "row", apply("sub", apply("log", row("Z")), apply("div", row("X"), row("Z")))
                ),
            ),
            outputs=(Output("entropy", "entropy", "row"),),
        ),
        tensors={"gate": torch.randn(2, 2, 3)},
    )


def by_distance() -> Case:
    """Weights summed over each distance of query and key."""
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(
                *SOFTMAX_ROWS,
                Carried("A", "acc", Const(0.0), "j"),
                Carried("N", "acc", Const(0.0), "j"),
            ),
            steps=(
                Dot("S", "Q", "K"),
                TileLet("bin", apply("sub", apply("add", Q, apply("sub", Size("n_k"), Size("n_q"))), K)),
                TileLet("ones", Const(1.0)),
                Mask("ones", 0.0),
                *SOFTMAX,
                AccBins("A", "P", "r", "bin"),
                AccBins("N", "ones", None, "bin"),
                *LATE,
            ),
            finish=(FinishLet("A", "acc", apply("div", acc("A", J), row("Z")), "j"),),
            outputs=(Output("A", "A", "acc", "j"), Output("N", "N", "acc", "j")),
        ),
        extents={"j": 7},
    )


def largest() -> Case:
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(Carried("T", "acc", Const(-INF), "j"), Carried("I", "acc", Const(-1), "j")),
            steps=(
                Dot("S", "Q", "K"),
                TileLet("R", apply("round", pair("S"))),
                Mask("R", -INF),
                AccTopK("T", "I", "R"),
            ),
            finish=(),
            outputs=(Output("T", "T", "acc", "j"), Output("I", "I", "acc", "j")),
        ),
        extents={"j": 5},
    )


def stored() -> Case:
    return Case(
        TileProgram(
            operands=(Q_D, K_D),
            uniforms=(),
            carried=(),
            steps=(
                Dot("S", "Q", "K"),
                StorePair("pairs", "S"),
                TileLet("S_max", pair("S")),
                Mask("S_max", -INF),
                StoreBlock("top", "max", "S_max", 16),
                TileLet("S_sum", pair("S")),
                Mask("S_sum", 0.0),
                StoreBlock("mass", "sum", "S_sum", 40),
            ),
            finish=(),
            outputs=(
                Output("pairs", "S", "pair"),
                Output("top", "S_max", "block"),
                Output("mass", "S_sum", "block"),
            ),
        )
    )


def mixed() -> Case:
    """`A1[q] = sum of (q_pos - k) w V` is kept relative to the last key: an orbit of rank 2."""
    move = RowLet("move", apply("sub", row("last_new"), row("last")))
    weight = TileLet("L", apply("mul", pair("w"), apply("sub", row("last_new"), K)))
    return Case(
        TileProgram(
            operands=(Q_D, K_D, V_E),
            uniforms=(),
            carried=(
                Carried("last", "row", Const(0.0)),
                Carried("A0", "acc", Load("start", (B, H, Q, E))),
                Carried("A1", "acc", Const(0.0)),
            ),
            steps=(
                Dot("S", "Q", "K"),
                TileLet("w", apply("abs", pair("S"))),
                Mask("w", 0.0),
                TileLet("at", K),
                Mask("at", 0.0),
                RowReduce("here", "max", "at"),
                RowLet("last_new", apply("max", row("last"), row("here"))),
                move,
                AccLet("A1", apply("add", acc("A1"), apply("mul", acc("A0"), row("move")))),
                weight,
                AccDot("A1", "L", None, "V"),
                AccDot("A0", "w", None, "V"),
                RowLet("last", row("last_new")),
            ),
            finish=(),
            outputs=(
                Output("A0", "A0", "acc", "e", rounded=True),
                Output("A1", "A1", "acc", "e"),
                Output("last", "last", "row"),
            ),
        ),
        tensors={"start": torch.randn(2, 4, 3, 16)},
    )


def keys_as_rows(dtype: DType = "float32") -> Case:
    """What each key receives: P[q, k] over the queries, and P^T Q, with K read at rows and Q at columns."""
    p = apply("exp", apply("sub", pair("S"), Load("lse", (B, H, K))))
    return Case(
        TileProgram(
            operands=(
                Operand("K", "q", "d", Load("K", (B, G, Q, D))),
                Operand("Q", "k", "d", Load("Q", (B, H, K, D))),
            ),
            uniforms=(),
            carried=(Carried("R", "row", Const(0.0)), Carried("X", "acc", Const(0.0), "d")),
            steps=(
                Dot("S", "K", "Q"),
                TileLet("P", p),
                Mask("P", 0.0),
                RowReduce("got", "sum", "P"),
                RowLet("R", apply("add", row("R"), row("got"))),
                AccDot("X", "P", None, "Q"),
            ),
            finish=(),
            outputs=(Output("R", "R", "row"), Output("X", "X", "acc", "d", rounded=True)),
        ),
        mask=Attention(mask=lambda b, h, q, k: k >= q),
        dtype=dtype,
        tensors={"lse": torch.zeros(2, 4, 3)},
    )


CASES = {
    "two_values": two_values,
    "two_values_bf16": lambda: two_values("bfloat16"),
    "distilled": distilled,
    "spans": spans,
    "keys_only": keys_only,
    "by_distance": by_distance,
    "largest": largest,
    "stored": stored,
    "mixed": mixed,
    "keys_as_rows": keys_as_rows,
}
