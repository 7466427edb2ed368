"""D0: which (x) distributes over which reduction (+), and when.

    (+)_k (F[k] (x) c) = ((+)_k F[k]) (x) c

A row of the table is what lets a factor leave a reduction (D2) or a running value be rescaled (D3). The
laws are kept as data and tested on random numbers, identities included: computer algebra is poor at maxima.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.algebra.signs import Sign


@dataclass(frozen=True, slots=True)
class Distributes:
    """One row.

    reducer    the (+), a key of `ops.REDUCERS`.
    op         the (x), a key of `ops.OPS`.
    factor     least sign the factor c must have for the law to hold.
    operand    least sign F must have.
    invariant  the result does not change at all: an index of an extreme.
    group      (x) has inverses, so that a running value can be rescaled by a ratio.
    """

    reducer: str
    op: str
    factor: Sign = Sign.ANY
    operand: Sign = Sign.ANY
    invariant: bool = False
    group: bool = True

    @property
    def condition(self) -> str:
        """The side condition, readable; empty if there is none."""
        words = {Sign.ANY: "", Sign.NONNEG: ">= 0", Sign.POSITIVE: "> 0"}
        parts = [f"factor {words[self.factor]}" if self.factor else ""]
        parts.append(f"operand {words[self.operand]}" if self.operand else "")
        return ", ".join(p for p in parts if p)

    def law(self) -> str:
        """The law as text."""
        symbol = UNIT_SYMBOL[self.op][1]
        left = f"{self.reducer}(x {symbol} c)"
        right = f"{self.reducer}(x)" if self.invariant else f"{self.reducer}(x) {symbol} c"
        return f"{left} = {right}" + (f" for {self.condition}" if self.condition else "")


# (x) -> (its unit, its symbol)
UNIT_SYMBOL: dict[str, tuple[float, str]] = {
    "mul": (1.0, "*"),
    "add": (0.0, "+"),
    "pow": (1.0, "**"),
    "and": (1.0, "&"),
    "or": (0.0, "|"),
}

DISTRIBUTES: tuple[Distributes, ...] = (
    Distributes("sum", "mul"),
    Distributes("max", "add"),
    Distributes("min", "add"),
    Distributes("max", "mul", factor=Sign.NONNEG),
    Distributes("min", "mul", factor=Sign.NONNEG),
    Distributes("logaddexp", "add"),
    Distributes("prod", "pow", operand=Sign.POSITIVE, group=False),
    Distributes("any", "and", group=False),
    Distributes("all", "or", group=False),
    Distributes("topk", "add"),
    Distributes("topk", "mul", factor=Sign.POSITIVE),
    Distributes("argmax", "add", invariant=True),
    Distributes("argmax", "mul", factor=Sign.POSITIVE, invariant=True),
)


def rows_for(reducer: str) -> tuple[Distributes, ...]:
    """The rows of a reduction, in the order they are tried."""
    return tuple(row for row in DISTRIBUTES if row.reducer == reducer)


def unit_of(op: str) -> float:
    """The u with x (x) u = x."""
    return UNIT_SYMBOL[op][0]
