"""Take a test out of what it selects from, where both are plain factors of a sum.

    m[q, j] = sum[k](where(span[b, k] == j, A[q, k], 0))
->
    m[q, j] = sum[k](A[q, k] * where(span[b, k] == j, 1, 0))

A product has factors that leave the sum; a selection hides them. It is done where the test reads no value of the
cascade and what it selects are named values: a test may be the guard of what would be no number where it fails.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.lang.expr import Apply, Const, Expr, Load, Reduce, apply, loads
from attngen.lang.products import factors, product
from attngen.lang.program import Einsum, Program


def with_tests_apart(program: Program, rank: str) -> Program:
    """The program with such tests as factors, in its sums over `rank`."""
    made = {e.target for e in program.cascade}
    return replace(program, cascade=tuple(_apart(e, rank, made) for e in program.cascade))


def _apart(einsum: Einsum, rank: str, made: set[str]) -> Einsum:
    match einsum.body:
        case Reduce("sum", (over,), body) if over == rank:
            parts = [part for factor in factors(body) for part in _parts(factor, made)]
            new = product(parts)
            return einsum if new == body else replace(einsum, body=replace(einsum.body, body=new))
        case _:
            return einsum


def _parts(factor: Expr, made: set[str]) -> list[Expr]:
    match factor:
        case Apply("where", (test, x, Const(zero))) if zero == 0 and not any(
            ld.tensor in made for ld in loads(test)
        ):
            inside = factors(x)
            if all(isinstance(f, Load) and f.tensor in made for f in inside):
                return [*inside, apply("where", test, Const(1.0), Const(0.0), loc=factor.loc)]
            return [factor]
        case _:
            return [factor]
