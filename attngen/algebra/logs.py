"""Take logarithms of products apart, so that `log` never meets an exponential that has underflowed.

    E[q, k] = exp(S[q, k] - M[q]);  P[q, k] = E[q, k] / Z[q]
    H[q]    = sum[k](P[q, k] * log(P[q, k]))
->
    H[q]    = sum[k](P[q, k] * (S[q, k] - M[q] - log(Z[q])))

As written a key far below the maximum gives 0 * log(0); rewritten it gives 0 times a number. The laws hold
for positive operands: an exponential is one, and so is a sum of them wherever a key is kept. Values per key
are rewritten, with the Einsums they read looked through; a logarithm in a row value stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.algebra.canonical import body_at
from attngen.algebra.fold import Obligation, RuleUse
from attngen.algebra.record import einsum_text
from attngen.algebra.signs import Sign, kept_sign_of, sign_of
from attngen.lang.expr import Apply, Const, Expr, Load, Reduce, apply, map_children
from attngen.lang.program import Einsum, Program

# log of base b -> the exponential it undoes.
_INVERSE = {"log": "exp", "log2": "exp2"}
_LAWS = (
    "log(exp(x)) = x; log(a * b) = log(a) + log(b); log(a / b) = log(a) - log(b); log(a ** n) = n * log(a)"
)


def expand_logs(program: Program, rank: str = "k") -> tuple[Program, tuple[RuleUse, ...]]:
    """The same program with logarithms of products apart in its values per key, and what was rewritten."""
    expander = _Expander(rank)
    cascade: list[Einsum] = []
    uses: list[RuleUse] = []
    for einsum in program.cascade:
        after = replace(einsum, body=expander.body(einsum))
        expander.define(after)
        cascade.append(after)
        if after != einsum:
            law = Obligation("PO2", f"{_LAWS}, for a, b > 0", "table; operands positive by sign")
            uses.append(RuleUse("log", einsum.target, einsum_text(einsum), einsum_text(after), (law,)))
    return replace(program, cascade=tuple(cascade)), tuple(uses)


@dataclass(slots=True)
class _Expander:
    """`signs` are those of a row that has kept a key: there a sum of positive terms is positive."""

    rank: str
    lets: dict[str, Einsum]
    signs: dict[str, Sign]

    def __init__(self, rank: str) -> None:
        self.rank = rank
        self.lets = {}
        self.signs = {}

    def define(self, einsum: Einsum) -> None:
        """Note what later Einsums may read."""
        self.signs[einsum.target] = kept_sign_of(einsum.body, self.rank, self.signs)
        if self.rank in einsum.ranks:
            self.lets[einsum.target] = einsum

    def body(self, einsum: Einsum) -> Expr:
        """The body of an Einsum, rewritten where it is a value per key."""
        if self.rank in einsum.ranks:
            return self.rewritten(einsum.body)
        if isinstance(einsum.body, Reduce) and self.rank in einsum.body.ranks:
            return map_children(einsum.body, self.rewritten)
        return einsum.body

    def rewritten(self, expr: Expr) -> Expr:
        """`expr` with every logarithm taken apart that can be, and tests of what is positive decided."""
        expr = map_children(expr, self.rewritten)
        match expr:
            case Apply("log" | "log2" as log, (a,)):
                return self.log_of(a, log) or expr
            case Apply("where", (Apply("gt", (a, Const(0))), b, _)) if self._positive(a):
                return b
            case Apply("where", (Apply("eq" | "le", (a, Const(0))), _, b)) if self._positive(a):
                return b
            case _:
                return expr

    def log_of(self, arg: Expr, log: str) -> Expr | None:
        """`log(arg)` without an exponential under the log, or None where taking it apart removes none."""
        match arg:
            case Apply(op, (a,)) if op == _INVERSE[log]:
                return a
            case Apply("mul" | "div" as op, (a, b)) if self._positive(a) and self._positive(b):
                left, right = self.log_of(a, log), self.log_of(b, log)
                if left is None and right is None:
                    return None
                return apply("add" if op == "mul" else "sub", left or apply(log, a), right or apply(log, b))
            case Apply("pow", (a, n)) if self._positive(a):
                inner = self.log_of(a, log)
                return None if inner is None else apply("mul", n, inner)
            case Load(name, _) if name in self.lets:
                return self.log_of(body_at(self.lets[name], arg), log)
            case _:
                return None

    def _positive(self, expr: Expr) -> bool:
        return sign_of(expr, self.signs) is Sign.POSITIVE
