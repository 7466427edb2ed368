"""Give every reduction over the keys an Einsum of its own.

    M[q] = max(max[k](S[q, k]), sink[h])   ->   M_0[q] = max[k](S[q, k])
                                                M[q]   = max(M_0[q], sink[h])

A contraction over another rank, `sum[d](Q[q, d] * K[k, d])`, is part of a per-pair value and stays where it
is. Equal reductions in one Einsum share one new Einsum. A reduction over the keys and more, `sum[k,
d](...)`, becomes the same reduction nested, `sum[k](sum[d](...))`.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.lang.expr import Expr, Load, Reduce, Var, free_vars, map_children
from attngen.lang.loc import Loc
from attngen.lang.program import INPUT_RANKS, Einsum, Program


def isolate(program: Program, rank: str = "k", *, pairs: bool = True) -> Program:
    """The same program, in which a reduction over `rank` is always the whole body of its Einsum.

    Without `pairs`, reductions of what differs from pair to pair stay where they are: they are contractions.
    """
    taken = names_of(program)
    cascade: list[Einsum] = []
    for einsum in program.cascade:
        cascade.extend(_split(einsum, rank, taken, pairs))
    return replace(program, cascade=tuple(cascade))


def names_of(program: Program) -> set[str]:
    """Every name that a fresh one must not clash with."""
    taken = {p.name for p in program.params} | {t.name for t in program.tensors} | set(INPUT_RANKS)
    return taken | {e.target for e in program.cascade} | {"scale"}


def _numbered_name(stem: str, taken: set[str]) -> str:
    """A name not in `taken`, and now in it: `stem_0`, `stem_1`, ..."""
    name = next(n for i in range(len(taken) + 1) if (n := f"{stem}_{i}") not in taken)
    taken.add(name)
    return name


def _split(einsum: Einsum, rank: str, taken: set[str], pairs: bool) -> list[Einsum]:
    made: dict[Reduce, Einsum] = {}

    def lift(node: Expr, around: tuple[str, ...]) -> Expr:
        """`node` with its reductions over `rank` lifted; `around` are the ranks that are bound where it stands."""
        inside = (*around, *node.ranks) if isinstance(node, Reduce) else around
        node = map_children(node, lambda c: lift(c, inside))
        if not (isinstance(node, Reduce) and rank in node.ranks) or (not pairs and _of_pairs(node)):
            return node
        if node not in made:
            name = _numbered_name(einsum.target, taken)
            made[node] = _einsum_of(node, around, rank, name, einsum.loc)
        return _read(made[node], node)

    body = _nested(einsum.body, rank)
    if isinstance(body, Reduce) and rank in body.ranks:
        inner = map_children(body, lambda c: lift(c, (*einsum.ranks, *body.ranks)))
        return [*made.values(), replace(einsum, body=inner)]
    body = lift(body, einsum.ranks)
    return [*made.values(), replace(einsum, body=body)]


def _of_pairs(node: Reduce) -> bool:
    return {"q", "k"} <= free_vars(node.body)


def _nested(expr: Expr, rank: str) -> Expr:
    """`sum[k, d](x)` as `sum[k](sum[d](x))`, everywhere in `expr`."""
    expr = map_children(expr, lambda c: _nested(c, rank))
    match expr:
        case Reduce(op, ranks, body) if rank in ranks and len(ranks) > 1:
            rest = tuple(r for r in ranks if r != rank)
            return Reduce(op, (rank,), Reduce(op, rest, body, loc=expr.loc), loc=expr.loc)
        case _:
            return expr


def _einsum_of(node: Reduce, around: tuple[str, ...], rank: str, name: str, loc: Loc | None) -> Einsum:
    # A reduction of pairs belongs to a token even where its body does not name one: the mask makes it so.
    used = free_vars(node) | {"q", "k"}
    found = dict.fromkeys(r for r in around if r in used and r != rank)
    ranks = tuple(sorted(found, key=lambda r: r not in ("q", "k")))  # tokens first
    return Einsum(name, ranks, node, loc=node.loc or loc)


def _read(einsum: Einsum, node: Reduce) -> Expr:
    return Load(einsum.target, tuple(Var(r) for r in einsum.ranks), loc=node.loc)
