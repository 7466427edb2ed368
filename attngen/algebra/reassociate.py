"""Re-associate a sum over keys of plain products, where no nonlinearity stands between its contractions.

    W[q, k] = sum[d](G[q, d] * F[k, d]);  O[q, e] = sum[k](W[q, k] * V[k, e])                no mask
->
    state[d, e] = sum[k](F[k, d] * V[k, e]);  O[q, e] = sum[d](G[q, d] * state[d, e])

The work of the first form grows with the number of pairs, that of the second with the number of tokens. Under a mask
that keeps the keys before some end t(q), a state is carried from chunk to chunk of the keys, and the keys between the
last whole chunk and t(q) stay a quadratic sum:

    O[q, e] = sum[d](G[q, d] * state[t(q) // C][d, e]) + sum[k](W[q, k] * V[k, e] for t(q) // C * C <= k < t(q))

A factor of the pair may stay if it is a product along the axis, r(i, k) = r(i, c) * r(c, k) for positions i of queries
and c of chunks: `gamma[h] ** (pos(q) - k)`, `exp(-a * (pos(q) - k))`. Only ratios of it over less than two chunks are
ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.algebra.bounded import bounded
from attngen.algebra.steps import Carry
from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Param,
    Reduce,
    Size,
    Var,
    apply,
    free_vars,
    rewrite,
    substitute,
    walk,
)
from attngen.lang.fresh import fresh_name
from attngen.lang.products import factors, product
from attngen.lang.program import Einsum

PROOF_SECONDS = 3.0
CHUNK = 64  # keys between two states: about as many operations go into states as into the pairs of a chunk
_POS = apply("add", Var("q"), apply("sub", Size("n_k"), Size("n_q")))


@dataclass(frozen=True, slots=True)
class Product:
    """`sum[k](query[q, r] . key[k, r] * value * decay)`.

    feature  the rank r of the contraction.
    query    over q and r; key over k and r.
    value    over k, and the column of the target if it has one.
    decay    over `Var("i")`, the position of the query, and k; None for 1.
    end      t(q), so that exactly the keys before it are kept; None for all keys.
    """

    feature: str
    query: Expr
    key: Expr
    value: Expr
    decay: Expr | None
    end: Expr | None


def as_product(body: Expr, columns: frozenset[str], mask: Expr | None) -> Product | None:
    """The parts of `sum[k](body)` under `mask` if it can be re-associated; `body` has its lets written out.

    `columns` are the ranks of the target besides q.
    """
    end = None if mask is None else end_of_keys(mask)
    if mask is not None and end is None:
        return None
    contraction: Reduce | None = None
    query: list[Expr] = []
    key: list[Expr] = []
    value: list[Expr] = []
    decay: list[Expr] = []
    for factor in factors(body):
        free = free_vars(factor)
        if isinstance(factor, Reduce) and {"q", "k"} <= free and contraction is None:
            contraction = factor
        elif any(isinstance(n, Reduce) for n in walk(factor)) or ("q" in free and columns & free):
            return None
        elif {"q", "k"} <= free:
            decay.append(factor)
        else:
            (value if "k" in free or columns & free else query).append(factor)
    if contraction is None or contraction.op != "sum" or len(contraction.ranks) != 1:
        return None
    (feature,) = contraction.ranks
    for factor in factors(contraction.body):
        free = free_vars(factor)
        if {"q", "k"} <= free or any(isinstance(n, Reduce) for n in walk(factor)):
            return None
        (key if "k" in free else query).append(factor)
    along = _along(product(decay)) if decay else None
    if decay and (along is None or not is_along(along)):
        return None
    return Product(feature, product(query), product(key), product(value), along, end)


def end_of_keys(mask: Expr) -> Expr | None:
    """The t(q) of a mask that keeps exactly the keys before it; None for any other mask."""
    match mask:
        case Apply("le", (Var("k", None), end)) | Apply("ge", (end, Var("k", None))) if _of_query(end):
            return apply("add", end, Const(1))
        case Apply("lt", (Var("k", None), end)) | Apply("gt", (end, Var("k", None))) if _of_query(end):
            return end
        case Apply(op, (Apply("floordiv", (Var("k", None), width)), Apply("floordiv", (end, other)))):
            if op not in ("lt", "le") or width != other or not _of_query(end) or not _constant(width):
                return None
            whole = apply("floordiv", end, width)
            return apply("mul", whole if op == "lt" else apply("add", whole, Const(1)), width)
        case Apply("gt" | "ge" as op, (a, b)):
            return end_of_keys(apply({"gt": "lt", "ge": "le"}[op], b, a)) if "k" in free_vars(b) else None
        case _:
            return None


def _of_query(expr: Expr) -> bool:
    return "k" not in free_vars(expr) and not any(
        isinstance(n, Var) and n.axis is not None for n in walk(expr)
    )


def _constant(expr: Expr) -> bool:
    return isinstance(expr, Const | Param)


def _along(decay: Expr) -> Expr | None:
    """The factor over the position `i` instead of the row; None if it reads the row in another way."""
    back = apply("sub", Var("i"), apply("sub", Size("n_k"), Size("n_q")))
    over = substitute(decay, {_POS: Var("i")})
    return rewrite(over, lambda n: back if n == Var("q") else None)


def is_along(decay: Expr) -> bool:
    """Whether r(i, k) = r(i, c) * r(c, k) for all i, c and k."""

    def prove() -> bool:
        import sympy as sp

        from attngen.algebra.separate import zero_or_rest
        from attngen.algebra.to_sympy import to_sympy

        atoms: dict[Expr, object] = {}
        for node in walk(decay):
            if isinstance(node, Load | Param | Size) or (isinstance(node, Var) and node.axis is None):
                positive = not isinstance(node, Var)
                name = f"x{len(atoms)}"
                atoms.setdefault(
                    node, sp.Symbol(name, positive=True) if positive else sp.Symbol(name, real=True)
                )
        i, k, c = atoms.get(Var("i")), atoms.get(Var("k")), sp.Symbol("c", real=True)
        if i is None or k is None:
            return False
        whole = to_sympy(decay, atoms)
        left, right = whole.subs(k, c), whole.subs(i, c)
        return bool(zero_or_rest(whole - left * right) == 0)

    return bounded(prove, PROOF_SECONDS, False)


def decay_at(decay: Expr, position: Expr, key: Expr) -> Expr:
    """The factor between two positions."""
    return substitute(decay, {Var("i"): position, Var("k"): key})


@dataclass(frozen=True, slots=True)
class Carried:
    """What stands for a re-associated sum.

    einsums  in the place of the sum's Einsum; the last has its name.
    carry    the state that is carried; None where one state serves all rows.
    rest     the name of the sum over the keys after the last whole chunk, and `window`, which keeps them.
    """

    einsums: tuple[Einsum, ...]
    carry: Carry | None = None
    rest: str = ""
    window: Expr | None = None


def carried_einsums(
    einsum: Einsum,
    parts: Product,
    chunk: int,
    taken: set[str],
    shared: dict[tuple[tuple[str, ...], Expr], str],
) -> Carried:
    """The Einsums of a re-associated sum; those that an earlier one has made too are read from `shared`."""
    r, columns = parts.feature, einsum.ranks[1:]
    new: list[Einsum] = []

    def define(what: str, ranks: tuple[str, ...], body: Expr) -> str:
        if (ranks, body) not in shared:
            shared[ranks, body] = fresh_name(f"{einsum.target}_{what}", taken)
            new.append(Einsum(shared[ranks, body], ranks, body))
        return shared[ranks, body]

    if parts.end is None and parts.decay is None:
        total = Reduce("sum", ("k",), product([parts.key, parts.value]))
        state = define("state", (r, *columns), total)
        whole = Reduce("sum", (r,), apply("mul", parts.query, _read(state, r, *columns)))
        return Carried((*new, replace(einsum, body=whole)))
    width = Const(chunk)
    limit: Expr = Size("n_k")
    if parts.end is not None:
        limit = apply("min", apply("max", parts.end, Const(0)), Size("n_k"))
    end = define("end", ("q",), limit)
    cut = _times(apply("floordiv", _read(end, "q"), width), width)
    first = _times(apply("floordiv", Var("k"), width), width)
    after = apply("add", first, width)
    query, key, step = parts.query, parts.key, None
    if parts.decay is not None:
        step = define("step", ("k",), decay_at(parts.decay, after, first))
        query = apply("mul", query, decay_at(parts.decay, _POS, cut))
        key = apply("mul", key, decay_at(parts.decay, after, Var("k")))
    assert isinstance(einsum.body, Reduce)
    body = einsum.body.body
    parts_of = {"carried": apply("lt", Var("k"), cut), "rest": apply("ge", Var("k"), cut)}
    query_name, key_name = define("query", ("q", r), query), define("key", ("k", r), key)
    value_name = define("value", ("k", *columns), parts.value)
    names = {
        what: define(what, einsum.ranks, Reduce("sum", ("k",), apply("where", test, body, Const(0.0))))
        for what, test in parts_of.items()
    }
    total = apply("add", *(_read(n, *einsum.ranks) for n in names.values()))
    window = apply("ge", Var("k"), _times(apply("floordiv", limit, width), width))
    carry = Carry(names["carried"], query_name, key_name, value_name, step, end, chunk)
    return Carried((*new, replace(einsum, body=total)), carry, names["rest"], window)


def _read(target: str, *ranks: str) -> Load:
    return Load(target, tuple(map(Var, ranks)))


def _times(a: Expr, b: Expr) -> Expr:
    return apply("mul", a, b)
