"""Replay weights from one statistic a row, once it is known.

    E[q, k] = exp(S[q, k] - M[q]);  A[q, k] = E[q, k] / Z[q]      M and Z known
->
    A[q, k] = exp(S[q, k] - A_log[q])                              A_log[q] = M[q] + log(Z[q])

One row value is read instead of two, and a division a pair becomes none. `Z` is a sum of exponentials, so it is not
negative; where it is 0 no pair is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attngen.algebra.signs import Sign
from attngen.lang.expr import Apply, Expr, Load, apply
from attngen.lang.fresh import fresh_name
from attngen.lang.program import Einsum


def replay(
    cascade: tuple[Einsum, ...],
    known: set[str],
    signs: Mapping[str, Sign],
    made: dict[tuple[Load, Load], Einsum],
    taken: set[str],
) -> tuple[Einsum, ...]:
    """The cascade with weights replayed; `made` grows by the row values that it reads from now on."""
    bodies = {e.target: e.body for e in cascade}
    out: list[Einsum] = []
    for einsum in cascade:
        found = _weights(einsum.body, bodies, known, signs) if {"q", "k"} <= set(einsum.ranks) else None
        if found is None:
            out.append(einsum)
            continue
        score, m, z = found
        if (m, z) not in made:
            name = fresh_name(f"{einsum.target}_log", taken)
            made[m, z] = Einsum(name, ("q",), apply("add", m, apply("log", z)), loc=einsum.loc)
        row = Load(made[m, z].target, m.indices)
        out.append(replace(einsum, body=apply("exp", apply("sub", score, row), loc=einsum.body.loc)))
    return tuple(out)


def _weights(
    body: Expr, bodies: Mapping[str, Expr], known: set[str], signs: Mapping[str, Sign]
) -> tuple[Expr, Load, Load] | None:
    """The (score, maximum, sum) of `exp(score - maximum) / sum`, through a named numerator."""
    match body:
        case Apply("div", (top, Load(z, at) as below)) if z in known and len(at) == 1:
            if isinstance(top, Load) and top.tensor in bodies and len(top.indices) == 2:
                top = bodies[top.tensor]
            match top:
                case Apply("exp", (Apply("sub", (score, Load(m, m_at) as above)),)):
                    if m in known and m_at == at and signs.get(z, Sign.ANY) >= Sign.NONNEG:
                        return score, above, below
                case _:
                    pass
        case _:
            pass
    return None
