"""Expressions: the pointwise part of a program.

Nodes are frozen and compare by structure; `loc` is carried along and never compared. Build them with the
helpers at the end of the module, walk them with `children`, rewrite them with `rewrite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field

from attngen.lang.loc import Loc
from attngen.value import value


@value
class Expr:
    """Base of all nodes."""

    loc: Loc | None = field(default=None, compare=False, repr=False, kw_only=True)


@value
class Const(Expr):
    """A literal. `Const(True)`, `Const(1)` and `Const(1.0)` are different nodes (see `__eq__`)."""

    value: int | float | bool

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Const) or type(self.value) is not type(other.value):
            return False
        return repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash((type(self.value).__name__, repr(self.value)))


@value
class Var(Expr):
    """The index of a rank: `b`, `h`, `g`, `q`, `k`, `d`, `e` or a rank of the user's own.

    `axis` names a coordinate of a token axis laid out as a grid (`q.y`); None for the plain index.
    Planner code also uses Vars for tile corners (`q_lo`, `q_hi`) and tile sizes (`block_k`).
    """

    name: str
    axis: str | None = None


@value
class Size(Expr):
    """An extent: `n_q`, `n_k` (tokens), `n_b`, `n_h`, `n_g` (batch, query heads, key heads), `D`, `E`, or `n_j`.

    `n_j` is the extent of `j`, a rank of the program's own.
    """

    name: str


@value
class Param(Expr):
    """A scalar of the program, given at run time (or a compile-time constant if declared `const`)."""

    name: str


@value
class Load(Expr):
    """`tensor[indices]`: an input, a captured tensor or the result of an earlier Einsum.

    Batch and head are implicit for `Q`, `K`, `V` and for Einsum results, explicit for captured tensors. An index
    is a `Var` of the tensor's own rank or any integer expression; one that falls outside reads the nearest end.
    """

    tensor: str
    indices: tuple[Expr, ...]


@value
class Apply(Expr):
    """`op(args)` with `op` a key of `ops.OPS` (or of `ops.SUGAR` before `desugar`)."""

    op: str
    args: tuple[Expr, ...]


@value
class Reduce(Expr):
    """`op[ranks](body)`: reduction of the named ranks; `op` is a key of `ops.REDUCERS`.

    `at` is the slot of a selection, `topk[k](body, at)`, evaluated outside the reduction; None for the others.
    """

    op: str
    ranks: tuple[str, ...]
    body: Expr
    at: Expr | None = None


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of a node, in order."""
    match expr:
        case Apply(_, args):
            return args
        case Load(_, indices):
            return indices
        case Reduce(_, _, body, at):
            return (body,) if at is None else (body, at)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node of the tree, parents before children."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def map_children(expr: Expr, fn: Callable[[Expr], Expr]) -> Expr:
    """The same node over `fn` of its children; the same object when nothing changed."""
    old = children(expr)
    new = tuple(fn(c) for c in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        return expr
    match expr:
        case Apply(op, _):
            return Apply(op, new, loc=expr.loc)
        case Load(tensor, _):
            return Load(tensor, new, loc=expr.loc)
        case Reduce(op, ranks, _):
            return Reduce(op, ranks, *new, loc=expr.loc)
        case _:
            return expr


def rewrite(expr: Expr, fn: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite bottom-up: `fn` sees each node over rewritten children; None means unchanged."""
    node = map_children(expr, lambda c: rewrite(c, fn))
    replaced = fn(node)
    return node if replaced is None else replaced


def substitute(expr: Expr, mapping: dict[Expr, Expr]) -> Expr:
    """Replace every occurrence of the keys of `mapping`, found by structure, in one sweep."""
    if expr in mapping:
        return mapping[expr]
    return map_children(expr, lambda c: substitute(c, mapping))


def free_vars(expr: Expr) -> frozenset[str]:
    """Names of the index variables that occur outside a reduction of theirs."""
    match expr:
        case Var(name, _):
            return frozenset({name})
        case Reduce(_, ranks, body, at):
            outside: frozenset[str] = frozenset() if at is None else free_vars(at)
            return free_vars(body) - frozenset(ranks) | outside
        case _:
            out: frozenset[str] = frozenset()
            for child in children(expr):
                out |= free_vars(child)
            return out


def loads(expr: Expr) -> Iterator[Load]:
    """Every `Load` in the tree."""
    return (node for node in walk(expr) if isinstance(node, Load))


def apply(op: str, *args: Expr, loc: Loc | None = None) -> Apply:
    """`Apply` with the operands spread out."""
    return Apply(op, args, loc=loc)


def const(value: float) -> Const:
    """A literal."""
    return Const(value)


def conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """The operands of a chain of `and`, flattened left to right."""
    match expr:
        case Apply("and", (a, b)):
            return conjuncts(a) + conjuncts(b)
        case _:
            return (expr,)
