"""Expressions as sympy expressions, for proofs.

Every operator of `ops.OPS` has an entry. One that sympy cannot reason about becomes an uninterpreted
function, equal only to itself on equal arguments: a proof that goes through stays sound.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr

# Operators that stay uninterpreted: rounding half to even, truncation and bit operations have no sympy form.
OPAQUE: frozenset[str] = frozenset({"round", "int", "shl", "shr"})

# Operators that jump: near a jump, equality at generic points says nothing about the point itself.
JUMPS: frozenset[str] = frozenset(
    {"sign", "round", "floor", "ceil", "int", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne", "where"}
)

# Operators with a kink: smooth on either side of it only.
KINKS: frozenset[str] = frozenset({"min", "max", "abs"})


def to_sympy(expr: Expr, atoms: Mapping[Expr, Any]) -> Any:
    """The sympy form of `expr`.

    `atoms` gives every leaf that is not a constant its symbol; a leaf without one raises KeyError.
    """

    def leaf(node: Expr) -> Any:
        return _number(node.value) if isinstance(node, Const) else atoms[node]

    return evaluate(expr, leaf, sympy_ops())


def _number(value: float) -> Any:
    import sympy as sp

    if isinstance(value, bool):
        return sp.true if value else sp.false
    if isinstance(value, float) and not math.isfinite(value):
        return sp.nan if math.isnan(value) else sp.oo if value > 0 else -sp.oo
    # 0.1 means one tenth: the decimal that the user wrote, not the nearest binary fraction.
    return sp.Rational(repr(value))


def _same(x: Any) -> Any:
    return x


@cache
def sympy_ops() -> dict[str, Callable[..., Any]]:
    """`ops.OPS` on sympy expressions."""
    import sympy as sp

    def opaque(name: str) -> Callable[..., Any]:
        return sp.Function(name, real=True)

    def on_numbers(name: str, whole: Callable[[Any], Any]) -> Callable[..., Any]:
        """Evaluated on rational numbers, uninterpreted on anything else."""

        def evaluated(cls: Any, a: Any) -> Any:
            return whole(a) if a.is_Rational else None

        return type(name, (sp.Function,), {"eval": classmethod(evaluated), "is_extended_real": True})

    def logic(name: str, on_bool: Any) -> Callable[..., Any]:
        def op(*args: Any) -> Any:
            is_bool = all(isinstance(a, sp.logic.boolalg.Boolean) for a in args)
            return on_bool(*args) if is_bool else opaque(f"bit_{name}")(*args)

        return op

    def where(condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, sp.logic.boolalg.Boolean):
            condition = sp.Ne(condition, 0)
        return sp.Piecewise((a, condition), (b, True))

    def floordiv(a: Any, b: Any) -> Any:
        return sp.floor(a / b)

    def exp2(a: Any) -> Any:
        return sp.Integer(2) ** a

    def log2(a: Any) -> Any:
        return sp.log(a) / sp.log(2)

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + sp.exp(-a))

    def half_to_even(a: Any) -> Any:
        return sp.Integer(round(a))

    def truncated(a: Any) -> Any:
        return sp.Integer(int(a))

    table: dict[str, Callable[..., Any]] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "div": operator.truediv,
        "floordiv": floordiv,
        "mod": sp.Mod,
        "pow": operator.pow,
        "neg": operator.neg,
        "lt": sp.Lt,
        "le": sp.Le,
        "gt": sp.Gt,
        "ge": sp.Ge,
        "eq": sp.Eq,
        "ne": sp.Ne,
        "and": logic("and", sp.And),
        "or": logic("or", sp.Or),
        "xor": logic("xor", sp.Xor),
        "not": logic("not", sp.Not),
        "where": where,
        "min": sp.Min,
        "max": sp.Max,
        "abs": sp.Abs,
        "sign": sp.sign,
        "floor": sp.floor,
        "ceil": sp.ceiling,
        "exp": sp.exp,
        "exp2": exp2,
        "log": sp.log,
        "log2": log2,
        "tanh": sp.tanh,
        "sigmoid": sigmoid,
        "erf": sp.erf,
        "sqrt": sp.sqrt,
        "sin": sp.sin,
        "cos": sp.cos,
        "float": _same,
        "finite": _same,  # proofs are about finite values; the identity has guards of its own
    }
    rounded: dict[str, Callable[[Any], Any]] = {"round": half_to_even, "int": truncated}
    return (
        table | {name: opaque(name) for name in OPAQUE} | {n: on_numbers(n, fn) for n, fn in rounded.items()}
    )
