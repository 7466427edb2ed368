"""Names for the values of a plan, apart from every name the program or a kernel already uses."""

from __future__ import annotations

from attngen.lang.expr import Const, Expr, Var
from attngen.lang.program import SIZES, Program
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO


class Lets:
    """A growing list of named integer expressions."""

    def __init__(self, program: Program) -> None:
        self.lets: list[tuple[str, Expr]] = []
        self._taken = {p.name for p in program.params} | {t.name for t in program.tensors} | set(SIZES)
        self._taken |= {"b", "h", "q", "k", "d", "e", "scale", Q_LO, Q_HI, BLOCK_K}

    def let(self, name: str, expr: Expr) -> str:
        """Name an expression; the name gets a letter at its end where it is taken: `inner`, `inner_b`, `inner_c`."""
        fresh, n = name, 1
        while fresh in self._taken:
            n += 1
            fresh = f"{name}_{_letters(n)}"
        self._taken.add(fresh)
        self.lets.append((fresh, expr))
        return fresh

    def value(self, name: str, expr: Expr) -> Expr:
        """The expression itself where it is a literal or a name, else a new name for it."""
        return expr if isinstance(expr, Const | Var) else Var(self.let(name, expr))


def _letters(n: int) -> str:
    """1 -> a, 26 -> z, 27 -> aa."""
    out = ""
    while n:
        n, digit = divmod(n - 1, 26)
        out = chr(ord("a") + digit) + out
    return out
