"""Boolean normal form of a mask: negations pushed to the comparisons, then a disjunction of conjunctions.

    before   ~((q < k) | where(c, k < s, q == k))
    after    (q >= k & c & k >= s) | (q >= k & ~c & q != k)

What a single comparison means is the caller's: `normal_form` takes a function from a comparison to a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

from attngen.lang.expr import Apply, Const, Expr, apply, children, free_vars, substitute
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind

L = TypeVar("L")

NEGATED = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", "eq": "ne", "ne": "eq"}


@dataclass(frozen=True, slots=True)
class All(Generic[L]):
    """A conjunction; empty means true."""

    parts: tuple[Formula[L], ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Generic[L]):
    """A disjunction; empty means false."""

    parts: tuple[Formula[L], ...]


@dataclass(frozen=True, slots=True)
class Leaf(Generic[L]):
    """What the caller made of one comparison or boolean value."""

    value: L


Formula = All[L] | AnyOf[L] | Leaf[L]


class TooManyDisjunctsError(Exception):
    """The disjunctive normal form passed its cap; a signal within the planner, never shown."""


def normal_form(expr: Expr, kinds: Mapping[str, Kind], atom: Callable[[Expr], Formula[L]]) -> Formula[L]:
    """The formula of a boolean expression, with `atom` applied to each comparison, boolean load and parameter.

    A negated atom arrives as the opposite comparison where both sides are integers, else inside `not`, since
    `~(x < y)` and `x >= y` differ for NaN.
    """
    return _form(expr, False, kinds, atom)


def _form(
    expr: Expr, negate: bool, kinds: Mapping[str, Kind], atom: Callable[[Expr], Formula[L]]
) -> Formula[L]:
    def down(e: Expr, flip: bool = False) -> Formula[L]:
        return _form(e, negate != flip, kinds, atom)

    match expr:
        case Const(value):
            return All(()) if bool(value) != negate else AnyOf(())
        case Apply("not", (a,)):
            return down(a, True)
        case Apply("and", (a, b)):
            return (AnyOf if negate else All)((down(a), down(b)))
        case Apply("or", (a, b)):
            return (All if negate else AnyOf)((down(a), down(b)))
        case Apply("where", (c, a, b)):
            yes, no = _form(c, False, kinds, atom), _form(c, True, kinds, atom)
            return AnyOf((All((yes, down(a))), All((no, down(b)))))
        case Apply("xor" | "eq" | "ne" as op, (a, b)) if _both(Kind.BOOL, a, b, kinds):
            same = (op == "eq") != negate
            both = [_form(e, flip, kinds, atom) for e in (a, b) for flip in (False, True)]
            yes_a, no_a, yes_b, no_b = both
            return AnyOf(
                (All((yes_a, yes_b if same else no_b)), All((no_a, no_b if same else yes_b))),
            )
        case Apply(op, (a, b)) if op in NEGATED:
            return _compare(expr, negate, kinds, atom)
        case _:
            return atom(apply("not", expr, loc=expr.loc) if negate else expr)


def _compare(
    expr: Apply, negate: bool, kinds: Mapping[str, Kind], atom: Callable[[Expr], Formula[L]]
) -> Formula[L]:
    """A comparison: a choice made inside it is made outside, `where(c, x, y) <= z` by cases of `c`."""
    if Kind.FLOAT in (kind_of(a, kinds) for a in expr.args):
        return atom(apply("not", expr, loc=expr.loc) if negate else expr)
    choice = _choice(expr)
    if choice is not None:
        c, a, b = choice.args
        yes, no = _form(c, False, kinds, atom), _form(c, True, kinds, atom)
        cases = [_form(substitute(expr, {choice: e}), negate, kinds, atom) for e in (a, b)]
        return AnyOf((All((yes, cases[0])), All((no, cases[1]))))
    return atom(Apply(NEGATED[expr.op] if negate else expr.op, expr.args, loc=expr.loc))


def _choice(expr: Expr) -> Apply | None:
    """A `where` in the expression that depends on the query or the key, innermost first."""
    for child in children(expr):
        found = _choice(child)
        if found is not None:
            return found
    if isinstance(expr, Apply) and expr.op == "where" and free_vars(expr) & {"q", "k"}:
        return expr
    return None


def _both(kind: Kind, a: Expr, b: Expr, kinds: Mapping[str, Kind]) -> bool:
    return kind_of(a, kinds) is kind and kind_of(b, kinds) is kind


def dnf(formula: Formula[L], cap: int) -> tuple[frozenset[L], ...]:
    """The disjuncts, each the set of leaves that must all hold; a disjunct that contains another is dropped.

    Raises TooManyDisjunctsError when an intermediate result has more than `cap` of them.
    """
    match formula:
        case Leaf(value):
            return (frozenset((value,)),)
        case AnyOf(parts):
            out = [d for part in parts for d in dnf(part, cap)]
        case All(parts):
            out = [frozenset[L]()]
            for part in parts:
                right = dnf(part, cap)
                out = list(_absorbed([a | b for a, b in product(out, right)]))
                if len(out) > cap:
                    raise TooManyDisjunctsError
    kept = _absorbed(out)
    if len(kept) > cap:
        raise TooManyDisjunctsError
    return kept


def _absorbed(disjuncts: list[frozenset[L]]) -> tuple[frozenset[L], ...]:
    unique = list(dict.fromkeys(disjuncts))
    return tuple(d for d in unique if not any(other < d for other in unique))
