"""Programs that leave the states of a Fold instead of its results, over a part of the keys.

    a cascade                                  its states
    O[q, e] = sum[k](E / Z * V); LSE = ...     M[q] = max[k](S); Z[q] = sum[k](E); O_acc[q, e] = sum[k](E * V)

Partial states over different keys merge exactly (`merge`), so keys may be split over cores, and a prefix of the keys
may be put together from whole chunks:

    split    head h of the kernel is split h % splits of the program's head h // splits, and keeps the keys from
             split * width up to the next split
    chunk    row c of the kernel is chunk c of the keys, for a cascade that is the same for every query
    prefix   a query keeps the keys of its own chunk only; the chunks before it are merged
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attngen.algebra.fold import Derivation, Fold, Let, Mix, State
from attngen.algebra.isolate import names_of
from attngen.algebra.reassociate import end_of_keys
from attngen.lang.expr import (
    Const,
    Expr,
    Load,
    Param,
    Reduce,
    Size,
    Var,
    apply,
    free_vars,
    map_children,
    rewrite,
)
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import Kind
from attngen.lang.program import Einsum, ParamDecl, Program
from attngen.value import value

_MERGED = frozenset({"sum", "max", "min", "prod", "any", "all", "logaddexp"})
SPLITS, WIDTH = "splits", "split_keys"


@value
class Partials:
    """A program of one fold whose outputs are states, and that Fold.

    whole  the Fold that finishes merged states.
    """

    program: Program
    fold: Fold
    whole: Fold


def can_merge(fold: Fold) -> bool:
    """Whether partial states of a complete Fold merge as tensors: each is one number a row, or a row of columns."""
    return all(s.reduce in _MERGED and s.ranks[0] == "q" and len(s.ranks) <= 2 for s in fold.states)


def states_of(program: Program, fold: Fold) -> Partials:
    """The program whose outputs are the states of `fold`, a complete Fold of `program` that can be merged."""
    absorb = fold.absorb
    cascade = tuple(
        Einsum(s.name, s.ranks, s.body if isinstance(s, Let) else Reduce(s.reduce, (fold.rank,), s.body))
        for s in absorb
    )
    outputs = tuple(s.name for s in fold.states)
    bare = Fold(fold.rank, absorb, (), outputs, Derivation(fold.rank, 1, 1, ()))
    return Partials(replace(program, cascade=cascade, outputs=outputs), bare, fold)


def split(partials: Partials) -> Partials:
    """The partial states of each of `splits` parts of the keys, as heads of their own."""
    taken = names_of(partials.program)
    names = {n: fresh_name(n, taken) for n in (SPLITS, WIDTH)}
    splits, width = Param(names[SPLITS]), Param(names[WIDTH])
    head = apply("floordiv", Var("h"), splits)
    part = apply("mod", Var("h"), splits)
    first = apply("mul", part, width)
    here = apply("and", apply("ge", Var("k"), first), apply("lt", Var("k"), apply("add", first, width)))

    def at_head(node: Expr) -> Expr | None:
        match node:
            case Var("h", None):
                return head
            case Size("n_h"):
                return apply("floordiv", Size("n_h"), splits)
            case Load("Q", (q, d)):
                return Load("Q", (Var("b"), head, q, d), loc=node.loc)
            case _:
                return None

    out = _mapped(partials, lambda e: rewrite(e, at_head))
    mask = out.program.mask
    params = (*out.program.params, *(ParamDecl(names[n], Kind.INT, 1) for n in (SPLITS, WIDTH)))
    program = replace(out.program, params=params, mask=here if mask is None else apply("and", mask, here))
    return replace(out, program=program)


def split_params(partials: Partials) -> tuple[str, str]:
    """What the number of splits and the keys of one are called in a split program."""
    splits, width = partials.program.params[-2:]
    return splits.name, width.name


def is_prefix(program: Program, fold: Fold) -> bool:
    """Whether every query does the same with the keys before its end: a scan gives all of them in one go."""
    if program.mask is None or end_of_keys(program.mask) is None or not can_merge(fold):
        return False
    lets = {s.name: s for s in fold.absorb if isinstance(s, Let)}
    rows = {s.name for s in fold.states} | {n for n, let in lets.items() if fold.rank not in let.ranks}
    return not any(_of_query(s.body, set(lets), rows) for s in (*fold.absorb,))


def _of_query(expr: Expr, lets: set[str], rows: set[str]) -> bool:
    """Whether `expr` differs from query to query by anything but statistics."""
    match expr:
        case Load(name, _) if name in lets or name.removesuffix(".old") in rows:
            return False
        case Load(name, indices):
            return name == "Q" or any("q" in free_vars(i) for i in indices)
        case Var("q", _) | Size("n_q"):
            return True
        case _:
            found = [False]

            def visit(child: Expr) -> Expr:
                found[0] |= _of_query(child, lets, rows)
                return child

            map_children(expr, visit)
            return found[0]


def chunk_states(partials: Partials, chunk: int) -> Partials:
    """The states of each whole chunk of the keys, a row for each."""
    inside = apply("eq", apply("floordiv", Var("k"), Const(chunk)), Var("q"))
    return replace(partials, program=replace(partials.program, mask=inside))


def rest_states(partials: Partials, chunk: int) -> Partials:
    """The states over the keys between the last whole chunk before a query's end, and that end."""
    mask = partials.program.mask
    assert mask is not None
    width = Const(chunk)
    cut = apply("mul", apply("floordiv", limit_of(mask), width), width)
    return replace(
        partials, program=replace(partials.program, mask=apply("and", mask, apply("ge", Var("k"), cut)))
    )


def limit_of(mask: Expr) -> Expr:
    """The end of a query's keys, between 0 and `n_k`."""
    end = end_of_keys(mask)
    assert end is not None
    return apply("min", apply("max", end, Const(0)), Size("n_k"))


def _mapped(partials: Partials, fn: Callable[[Expr], Expr]) -> Partials:
    program, fold = partials.program, partials.fold
    return replace(
        partials,
        program=replace(
            program,
            mask=None if program.mask is None else fn(program.mask),
            cascade=tuple(replace(e, body=fn(e.body)) for e in program.cascade),
        ),
        fold=map_fold(fold, fn),
    )


def map_fold(fold: Fold, fn: Callable[[Expr], Expr]) -> Fold:
    """The Fold with `fn` of every expression."""

    def step(s: Let | State) -> Let | State:
        if isinstance(s, Let):
            return replace(s, body=fn(s.body))
        rescale = None if s.rescale is None else fn(s.rescale)
        return replace(
            s, body=fn(s.body), rescale=rescale, mix=tuple(Mix(m.state, fn(m.factor)) for m in s.mix)
        )

    finish = tuple(replace(let, body=fn(let.body)) for let in fold.finish)
    return replace(fold, absorb=tuple(step(s) for s in fold.absorb), finish=finish)
