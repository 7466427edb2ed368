"""Find the contractions of a kernel: which rows of features meet in them.

sum[d](Q[b, h, q, d] * K[b, g, k, d] * scale)     Dot of operands Q and K, times scale
sum[k](E[q, k] * V[b, g, k, e])                   weight E[q, k], value operand V
sum[k](E[q, k] * where(span[b, k] == j, 1, 0))    weight E[q, k], value operand over (k, j)
sum[k](E[q, k] * where(far(q, k) == j, 1, 0))     weight E[q, k], bins far(q, k)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attngen.emit.tile import Operand
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Var, apply, free_vars, substitute, walk
from attngen.lang.fresh import fresh_name
from attngen.lang.products import factors, product


@dataclass(slots=True)
class Operands:
    """The operands found so far, each body once; `taken` holds the names in use."""

    taken: set[str]
    made: list[Operand] = field(default_factory=list[Operand])

    def add(self, row: str, feature: str, body: Expr) -> str:
        """The name of the operand with this body."""
        assert row in ("q", "k")
        for known in self.made:
            if (known.row, known.feature, known.body) == (row, feature, body):
                return known.name
        plain = isinstance(body, Load) and all(o.name != body.tensor for o in self.made)
        name = body.tensor if plain and isinstance(body, Load) else fresh_name(f"{feature}_{row}", self.taken)
        self.made.append(Operand(name, row, feature, body))
        return name


@dataclass(frozen=True, slots=True)
class Contraction:
    """`sum[feature](left[q, feature] * right[k, feature]) * rest`; `rest` is None for 1."""

    left: str
    right: str
    rest: Expr | None


def contraction(node: Reduce, operands: Operands) -> Contraction | None:
    """A contraction of a query row with a key row; None for a reduction that is none."""
    if node.op != "sum" or len(node.ranks) != 1:
        return None
    (feature,) = node.ranks
    sides: dict[str, list[Expr]] = {"q": [], "k": [], "": [], "rest": []}
    for factor in factors(node.body):
        free = free_vars(factor)
        if feature not in free:
            sides["rest"].append(factor)
        elif {"q", "k"} <= free or any(isinstance(n, Reduce) for n in walk(factor)):
            return None
        else:
            sides["q" if "q" in free else "k" if "k" in free else ""].append(factor)
    if not sides["q"] or not sides["k"]:
        return None
    left = operands.add("q", feature, product([*sides["q"], *sides[""]]))
    right = operands.add("k", feature, product(sides["k"]))
    return Contraction(left, right, product(sides["rest"]) if sides["rest"] else None)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sum over the keys into columns: the weight of a pair, and the value operand or the bin it goes to."""

    weight: Expr
    value: str | None = None
    bin: Expr | None = None


def weighted(body: Expr, feature: str, operands: Operands) -> Weighted | None:
    """The parts of `sum[k](body)` for an accumulator over `feature`; None where it is no sum of weighted rows."""
    parts = [p for f in factors(body) for p in _opened(f, feature)]
    with_feature = [f for f in parts if feature in free_vars(f)]
    weight = product([f for f in parts if feature not in free_vars(f)])
    if with_feature and all("q" not in free_vars(f) for f in with_feature):
        if len(with_feature) == 1 and isinstance(with_feature[0], Load):
            return Weighted(weight, operands.add("k", feature, with_feature[0]))
        return Weighted(weight, operands.add("k", feature, product([as_float(f) for f in with_feature])))
    if len(with_feature) == 1 and (index := bin_of(with_feature[0], feature)) is not None:
        return Weighted(weight, bin=index)
    return None


def _opened(factor: Expr, feature: str) -> list[Expr]:
    """`where(test, x, 0)` as x times the test, unless both vary with the feature."""
    match factor:
        case Apply("where", (test, x, Const(zero))) if zero == 0:
            if feature in free_vars(test) and feature in free_vars(x):
                return [factor]
            one = apply("where", test, Const(1.0), Const(0.0))
            return [one] if isinstance(x, Const) and x.value == 1 else [*factors(x), one]
        case _:
            return [factor]


def bin_of(factor: Expr, feature: str) -> Expr | None:
    """The x of `where(x == feature, 1, 0)` or of the test itself, counted as a number."""
    match factor:
        case Apply("where", (test, Const(one), Const(zero))) if one == 1 and zero == 0:
            return bin_of(test, feature)
        case Apply("float" | "int", (test,)):
            return bin_of(test, feature)
        case Apply("eq", (Var(name, None), x)) | Apply("eq", (x, Var(name, None))) if name == feature:
            return None if feature in free_vars(x) else x
        case _:
            return None


def block_of(body: Expr, reducer: str, feature: str, identity: float) -> tuple[Expr, Expr] | None:
    """The (x, width) of a reduction over blocks of keys, `where(k // width == feature, x, identity)`.

    A sum may also be written as the product with the test. An x that reads the block's own column reads it at the key.
    """
    match body:
        case Apply("where", (test, x, Const(rest))) if rest == identity:
            width = _block_width(bin_of(test, feature))
            return None if width is None else (_at_key(x, feature, width), width)
        case Apply("mul", _) if reducer == "sum":
            parts = factors(body)
            tests = [f for f in parts if bin_of(f, feature) is not None]
            width = _block_width(bin_of(tests[0], feature)) if len(tests) == 1 else None
            rest = [f for f in parts if f not in tests]
            return None if width is None or not rest else (_at_key(product(rest), feature, width), width)
        case _:
            return None


def _at_key(expr: Expr, feature: str, width: Expr) -> Expr:
    return substitute(expr, {Var(feature): apply("floordiv", Var("k"), width)})


def _block_width(index: Expr | None) -> Expr | None:
    match index:
        case Apply("floordiv", (Var("k", None), (Const() | Param()) as width)):
            return width
        case _:
            return None


def as_float(expr: Expr) -> Expr:
    """A test as a number; anything else as it is."""
    comparisons = ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not")
    return apply("float", expr) if isinstance(expr, Apply) and expr.op in comparisons else expr
