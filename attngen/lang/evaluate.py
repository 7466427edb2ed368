"""One walk over an expression for every meaning of its operators: numbers, intervals, text, symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Expr

T = TypeVar("T")


def evaluate(expr: Expr, leaf: Callable[[Expr], T], ops: Mapping[str, Callable[..., T]]) -> T:
    """The value of `expr` where `ops` gives each operator of `ops.OPS` a meaning.

    `leaf` gives the value of everything that is not an operator: constants, indices, sizes, parameters,
    loads (whose indices are the leaf's to evaluate) and reductions. Operands are evaluated left to right.
    Raises UnsupportedError for an operator that `ops` lacks: sugar is gone after `desugar`.
    """
    if not isinstance(expr, Apply):
        return leaf(expr)
    op = ops.get(expr.op)
    if op is None:
        raise UnsupportedError(f"no meaning is given to `{expr.op}` here", loc=expr.loc)
    return op(*[evaluate(arg, leaf, ops) for arg in expr.args])
