"""Random programs that are well typed by construction: every operator, kind and place of the text form."""

from __future__ import annotations

import math
from functools import cache

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.ops import INDEXING, SLOTTED, Kind
from attngen.lang.program import INPUT_RANKS, Einsum, ParamDecl, Program, TensorDecl

PARAMS = (
    ParamDecl("window", Kind.INT, 1024),
    ParamDecl("chunk", Kind.INT, -3, const=True),
    ParamDecl("n_sink", Kind.INT),
    ParamDecl("cap", Kind.FLOAT, -1.5e-7),
    ParamDecl("limit", Kind.FLOAT, math.inf),
    ParamDecl("on", Kind.BOOL, True),
    ParamDecl("j", Kind.INT, 16, const=True, rank=True),
    ParamDecl("r", Kind.INT, None, const=True, rank=True),
    ParamDecl(
        "c",
        Kind.INT,
        None,
        const=True,
        rank=True,
        extent=Apply("floordiv", (Apply("add", (Size("n_k"), Size("n_j"))), Param("window"))),
    ),
)
TENSORS = (
    TensorDecl("doc", ("b", "q"), Kind.INT),
    TensorDecl("slope", ("h",), Kind.FLOAT),
    TensorDecl("table", ("h", "i"), Kind.FLOAT),
    TensorDecl("keep", ("b", "k"), Kind.BOOL),
    TensorDecl("temperature", (), Kind.FLOAT),
    TensorDecl("memory", ("g", "j", "d"), Kind.FLOAT),
)
_SIZES = ("n_q", "n_k", "n_b", "n_h", "n_g", "D", "E", "n_i", "n_j", "n_c")
_ARITH = ("add", "sub", "mul", "floordiv", "mod", "min", "max")
_COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
_REAL = ("exp", "exp2", "log", "log2", "tanh", "sigmoid", "erf", "sqrt", "sin", "cos")
_TARGET_RANKS = [("q", "k"), ("q",), ("q", "e"), ("k", "i"), ("k",), ("d", "e"), ("q", "j", "c"), ("r",), ()]
_TARGETS = ("S", "M", "E", "Z", "O", "LSE", "A0", "D")
_FOLDS = ("sum", "max", "min", "prod", "logaddexp")
_EDGE_FLOATS = (0.0, -0.0, 1e-5, 1e16, -1e300, 5e-324, 0.1, math.inf, -math.inf)


class Exprs:
    """Strategies for expressions of each kind over some index variables and loads."""

    def __init__(self, ranks: tuple[str, ...], loads: dict[Kind, list[Expr]]) -> None:
        self.ranks = ranks
        self.loads = loads
        self._built: dict[tuple[Kind, int], SearchStrategy[Expr]] = {}

    def of(self, kind: Kind, depth: int) -> SearchStrategy[Expr]:
        """Expressions of a kind, at most `depth` operators deep."""
        key = (kind, depth)
        if key not in self._built:  # strategies are shared: a tree of them would grow with the power of depth
            make = {Kind.INT: self._int, Kind.FLOAT: self._float, Kind.BOOL: self._bool}[kind]
            self._built[key] = make(depth - 1) if depth else self._leaf(kind)
        return self._built[key]

    def number(self, depth: int) -> SearchStrategy[Expr]:
        return self.of(Kind.INT, depth) | self.of(Kind.FLOAT, depth)

    def _leaf(self, kind: Kind) -> SearchStrategy[Expr]:
        leaves: list[SearchStrategy[Expr]] = []
        if kind is Kind.INT:
            leaves.append(st.integers(-(2**63) + 1, 2**63 - 1).map(Const) | st.integers(-3, 3).map(Const))
            leaves.append(st.sampled_from(self.ranks).map(Var))
            leaves.append(st.sampled_from(_SIZES).map(Size))
            leaves.append(st.sampled_from(("window", "chunk", "n_sink")).map(Param))
        elif kind is Kind.FLOAT:
            leaves.append(st.floats(allow_nan=False).map(Const) | st.sampled_from(_EDGE_FLOATS).map(Const))
            leaves.append(st.sampled_from(("cap", "limit", "scale")).map(Param))
        else:
            leaves.append(st.booleans().map(Const) | st.just(Param("on")))
        if self.loads.get(kind):
            leaves.append(st.sampled_from(self.loads[kind]))
        return st.one_of(leaves)

    def _apply(self, names: tuple[str, ...], *args: SearchStrategy[Expr]) -> SearchStrategy[Expr]:
        return st.builds(Apply, st.sampled_from(names), st.tuples(*args))

    def _captured(self, kind: Kind, depth: int) -> list[SearchStrategy[Expr]]:
        index = self.of(Kind.INT, depth)
        return [
            st.builds(Load, st.just(t.name), st.tuples(*[index] * len(t.ranks)))
            for t in TENSORS
            if t.kind is kind
        ]

    def _int(self, depth: int) -> SearchStrategy[Expr]:
        i, n = self.of(Kind.INT, depth), self.number(depth)
        return st.one_of(
            self._leaf(Kind.INT),
            self._apply(_ARITH, i, i),
            self._apply(("neg", "abs", "sign", "round", "floor", "ceil", "finite", "pos", "not"), i),
            self._apply(("and", "or", "xor", "shl", "shr"), i, i),
            self._apply(
                ("pow",), i, st.integers(0, 5).map(Const) | i.filter(lambda e: not isinstance(e, Const))
            ),
            self._apply(("int",), n),
            self._apply(("where",), self.of(Kind.BOOL, depth), i, i),
            self._apply(("clip",), i, i, i),
            *self._captured(Kind.INT, depth),
        )

    def _float(self, depth: int) -> SearchStrategy[Expr]:
        f, n = self.of(Kind.FLOAT, depth), self.number(depth)
        return st.one_of(
            self._leaf(Kind.FLOAT),
            self._apply(_ARITH, f, n),
            self._apply(("pow",), f, f),
            self._apply(("div",), n, n),
            self._apply(_REAL, n),
            self._apply(("neg", "abs", "sign", "round", "floor", "ceil", "finite"), f),
            self._apply(("float",), n),
            self._apply(("where",), self.of(Kind.BOOL, depth), f, n),
            self._apply(("clip",), n, f, n),
            *self._captured(Kind.FLOAT, depth),
        )

    def _bool(self, depth: int) -> SearchStrategy[Expr]:
        b, n = self.of(Kind.BOOL, depth), self.number(depth)
        return st.one_of(
            self._apply(_COMPARE, n, n),
            self._apply(_COMPARE, b, b),
            self._apply(("and", "or", "xor"), b, b),
            self._apply(("not",), b),
            self._apply(("where",), b, b, b),
            *self._captured(Kind.BOOL, depth),
        )


@cache
def _exprs(ranks: tuple[str, ...], loads: tuple[Load, ...]) -> Exprs:
    return Exprs(ranks, {Kind.FLOAT: list(loads)})


def masks(depth: int = 4) -> SearchStrategy[Expr]:
    """Boolean expressions over b, h, g, q, k."""
    return _exprs(("b", "h", "g", "q", "k"), ()).of(Kind.BOOL, depth)


def scores(depth: int = 3) -> SearchStrategy[Expr]:
    """Numbers over b, h, g, q, k and the score."""
    return _exprs(("b", "h", "g", "q", "k"), (Load("S", ()),)).number(depth)


@st.composite
def _cascades(draw: DrawFn) -> tuple[tuple[Einsum, ...], tuple[str, ...]]:
    """Einsums that read inputs and earlier Einsums, with reductions anywhere in their bodies."""
    written: dict[str, tuple[str, ...]] = {}
    einsums: list[Einsum] = []
    for target in draw(st.lists(st.sampled_from(_TARGETS), min_size=1, max_size=4, unique=True)):
        ranks = draw(st.sampled_from(_TARGET_RANKS))
        body = draw(_bodies(ranks, {**INPUT_RANKS, **written}))
        einsums.append(Einsum(target, ranks, body))
        written[target] = ranks
    outputs = draw(st.lists(st.sampled_from(sorted(written)), min_size=1, unique=True))
    return tuple(einsums), tuple(outputs)


def _elsewhere(name: str, own: tuple[str, ...], bound: tuple[str, ...]) -> tuple[Expr, ...]:
    """Indices that are expressions, but for the row of an input."""
    index: Expr = Apply("sub", (Var(bound[0]), Const(1))) if bound else Const(2)
    return (Var(own[0]), index) if name in INPUT_RANKS else (index,) * len(own)


@st.composite
def _bodies(draw: DrawFn, ranks: tuple[str, ...], readable: dict[str, tuple[str, ...]]) -> Expr:
    def within(bound: tuple[str, ...]) -> Exprs:
        reads = [Load(n, tuple(map(Var, own))) for n, own in readable.items() if set(own) <= set(bound)]
        reads += [
            Load(n, _elsewhere(n, own, bound))
            for n, own in readable.items()
            if n not in INPUT_RANKS or own[0] in bound
        ]
        return _exprs((*bound, "b", "h", "g"), tuple(reads))

    body = draw(within(ranks).of(Kind.FLOAT, 2))
    free = [r for r in ("h", "q", "k", "d", "e", "i", "j", "c") if r not in ranks]
    for _ in range(draw(st.integers(0, 2))):
        op = draw(st.sampled_from([*_FOLDS, *SLOTTED, *INDEXING]))
        most = 2 if op in _FOLDS else 1
        over = tuple(draw(st.lists(st.sampled_from(free), min_size=1, max_size=most, unique=True)))
        inner = draw(within(ranks + over).of(Kind.FLOAT, 2))
        for rank in over:  # a reduction has to depend on what it reduces
            inner = Apply("mul", (inner, Var(rank)))
        slot = [draw(within(ranks).of(Kind.INT, 1))] if op in SLOTTED else []
        reduced = Reduce(op, over, inner, *slot)
        body = Apply(draw(st.sampled_from(["add", "mul", "max"])), (body, reduced))
    # every Einsum is a float, so that what reads it is well typed
    return Apply("float", (body,))


@st.composite
def programs(draw: DrawFn) -> Program:
    """Programs, linked and unlinked."""
    cascade, outputs = draw(_cascades() | st.just(((), ())))
    if not cascade:
        outputs = draw(st.sampled_from([(), ("O",), ("O", "LSE")]))
    return Program(
        name="random",
        doc=draw(st.text(max_size=30)).strip(),
        params=PARAMS,
        tensors=TENSORS,
        mask=draw(st.none() | masks()),
        cascade=cascade,
        outputs=outputs,
        score=draw(st.none() | scores()),
        cascade_name=None if cascade else draw(st.none() | st.just("softmax")),
    )
