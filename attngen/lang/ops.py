"""The operators of the language: one table that every later stage keys its own table by.

`OPS` holds pointwise operators, `REDUCERS` the monoids a rank can be reduced with. A stage that gives
operators a meaning (interval rule, Triton spelling, C++ spelling, sympy form, float64 evaluation) has a
dictionary with exactly these keys, and a test compares the key sets.
"""

from __future__ import annotations

import math
from enum import StrEnum

from attngen.value import value


class Kind(StrEnum):
    """What a value is. Integers are exact; floats are fp32 in kernels and fp64 in the reference."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"


class Rule(StrEnum):
    """How an operator's result kind follows from its operands."""

    ARITH = "arith"  # int x int -> int, else float; bool counts as int
    FLOAT = "float"  # always float
    INT = "int"  # operands must be int (or bool); result int
    ROUND = "round"  # float stays float, int stays int
    COMPARE = "compare"  # numbers -> bool
    LOGIC = "logic"  # bool -> bool; on two ints it is the bitwise operator and gives int
    SELECT = "select"  # where(c, a, b): the common kind of a and b
    TO_INT = "to_int"  # any -> int, truncating toward zero
    TO_FLOAT = "to_float"  # any -> float


@value
class Op:
    """One pointwise operator. `symbol` is its infix or prefix spelling, None if it is a function."""

    name: str
    arity: int
    rule: Rule
    symbol: str | None = None


def _table(*ops: Op) -> dict[str, Op]:
    return {op.name: op for op in ops}


OPS: dict[str, Op] = _table(
    Op("add", 2, Rule.ARITH, "+"),
    Op("sub", 2, Rule.ARITH, "-"),
    Op("mul", 2, Rule.ARITH, "*"),
    Op("div", 2, Rule.FLOAT, "/"),
    Op("floordiv", 2, Rule.ARITH, "//"),
    Op("mod", 2, Rule.ARITH, "%"),  # sign of the divisor, as in Python
    Op("pow", 2, Rule.ARITH, "**"),
    Op("neg", 1, Rule.ARITH, "-"),
    Op("lt", 2, Rule.COMPARE, "<"),
    Op("le", 2, Rule.COMPARE, "<="),
    Op("gt", 2, Rule.COMPARE, ">"),
    Op("ge", 2, Rule.COMPARE, ">="),
    Op("eq", 2, Rule.COMPARE, "=="),
    Op("ne", 2, Rule.COMPARE, "!="),
    Op("and", 2, Rule.LOGIC, "&"),
    Op("or", 2, Rule.LOGIC, "|"),
    Op("xor", 2, Rule.LOGIC, "^"),
    Op("not", 1, Rule.LOGIC, "~"),
    Op("shl", 2, Rule.INT, "<<"),
    Op("shr", 2, Rule.INT, ">>"),
    Op("where", 3, Rule.SELECT),
    Op("min", 2, Rule.ARITH),
    Op("max", 2, Rule.ARITH),
    Op("abs", 1, Rule.ARITH),
    Op("sign", 1, Rule.ARITH),
    Op("round", 1, Rule.ROUND),  # half to even, as in Python and PyTorch
    Op("floor", 1, Rule.ROUND),
    Op("ceil", 1, Rule.ROUND),
    Op("exp", 1, Rule.FLOAT),
    Op("exp2", 1, Rule.FLOAT),
    Op("log", 1, Rule.FLOAT),
    Op("log2", 1, Rule.FLOAT),
    Op("tanh", 1, Rule.FLOAT),
    Op("sigmoid", 1, Rule.FLOAT),
    Op("erf", 1, Rule.FLOAT),
    Op("sqrt", 1, Rule.FLOAT),
    Op("sin", 1, Rule.FLOAT),
    Op("cos", 1, Rule.FLOAT),
    Op("int", 1, Rule.TO_INT),
    Op("float", 1, Rule.TO_FLOAT),
    # finite(x) is x, or 0 where x is an infinity: the guard put around a running maximum or minimum
    # that has seen nothing yet, so that exp(x - finite(m)) never meets inf - inf.
    Op("finite", 1, Rule.ROUND),
)

# Sugar of the text form, gone after `desugar`: no later stage has an entry for it.
SUGAR: dict[str, Op] = _table(
    Op("pos", 1, Rule.ARITH),  # pos(q) = q + (n_k - n_q)
    Op("clip", 3, Rule.ARITH),  # clip(x, lo, hi) = min(max(x, lo), hi)
)


@value
class Reducer:
    """A monoid: `identity` is what a masked pair contributes.

    Of a selection (`argmax`, `topk`, `argtopk`), `identity` is the result where there is nothing to select; a
    masked pair is never selected. Ties go to the smaller index.
    """

    name: str
    identity: float
    commutative: bool = True
    idempotent: bool = False


# Reducers over one rank that take the slot they select as a second argument.
SLOTTED: tuple[str, ...] = ("topk", "argtopk")
# Reducers that give an index of the one rank they reduce, an integer.
INDEXING: tuple[str, ...] = ("argmax", "argtopk")

REDUCERS: dict[str, Reducer] = {
    r.name: r
    for r in (
        Reducer("sum", 0.0),
        Reducer("max", -math.inf, idempotent=True),
        Reducer("min", math.inf, idempotent=True),
        Reducer("prod", 1.0),
        Reducer("any", 0.0, idempotent=True),
        Reducer("all", 1.0, idempotent=True),
        Reducer("logaddexp", -math.inf),
        Reducer("argmax", -1.0),
        Reducer("topk", -math.inf),
        Reducer("argtopk", -1.0),
    )
}
