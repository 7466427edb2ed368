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
        """Name an expression; the name gets a `_` or more at its end where it is taken."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        self.lets.append((name, expr))
        return name

    def value(self, name: str, expr: Expr) -> Expr:
        """The expression itself where it is a literal or a name, else a new name for it."""
        return expr if isinstance(expr, Const | Var) else Var(self.let(name, expr))
