"""Check that a program makes sense: every name known, every rank bound, every kind fitting.

Runs after parsing, tracing and linking. A program that passes may still be refused later, by the algebra or
by a backend; one that does not pass means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.errors import OutputError, ProgramSyntaxError, ProgramTypeError, RankError
from attngen.lang.domain import SIZE_PREFIX, extent_name, size_param
from attngen.lang.expr import Expr, children
from attngen.lang.kinds import kind_of, kinds_of
from attngen.lang.limits import verify_limits
from attngen.lang.loc import Loc
from attngen.lang.ops import Kind
from attngen.lang.program import EXTENTS, IMPLICIT_PARAMS, INPUT_RANKS, ParamDecl, Program
from attngen.lang.rank_decls import verify_rank_decls
from attngen.lang.scope import Scope, meaning, verify_identifier, verify_ranks, verify_value
from attngen.lang.words import MAX_DEPTH, MAX_NODES, SCORE, close_match


def verify(program: Program, *, return_loc: Loc | None = None) -> None:
    """Raise the error of the first thing in `program` that makes no sense; return if there is none.

    `return_loc` is where the text names the outputs, for the errors about them. Raises UnknownNameError,
    ProgramTypeError, RankError, OutputError, or ProgramSyntaxError for a name or a size out of bounds.
    """
    _verify_names(program)
    _verify_grid(program)
    for param in program.params:
        _verify_default(param)
    for expr in _expressions(program):
        _verify_size(expr)
    verify_limits(program)
    scope = Scope(program)
    verify_rank_decls(program, scope)
    for expr, what in ((program.mask, "mask"), (program.score, "score")):
        if expr is not None:
            scope.verify_pairwise(expr, what)
    for einsum in program.cascade:
        scope.verify_einsum(einsum)
    kinds = kinds_of(program)
    scope.verify_indices(kinds)
    if program.mask is not None:
        _verify_mask_kind(program.mask, kind_of(program.mask, kinds))
    if program.score is not None and kind_of(program.score, kinds) is Kind.BOOL:
        raise ProgramTypeError(
            "the score must be a number, not a boolean", loc=program.score.loc, hint="a predicate is a mask"
        )
    _verify_outputs(program, return_loc)


def _expressions(program: Program) -> Iterator[Expr]:
    yield from (p.extent for p in program.params if p.extent is not None)
    if program.mask is not None:
        yield program.mask
    if program.score is not None:
        yield program.score
    for einsum in program.cascade:
        yield from einsum.exprs


def _verify_names(program: Program) -> None:
    """Parameters, tensors and Einsum targets share one name space, and take no name of the language."""
    seen: dict[str, str] = dict.fromkeys(INPUT_RANKS, "an input") | dict.fromkeys(
        IMPLICIT_PARAMS, "a parameter"
    )
    ranks = {*EXTENTS, *program.own_ranks, *(r for e in program.cascade for r in e.ranks)}
    declared = [(p.name, "a rank" if p.rank else "a parameter", p.loc) for p in program.params]
    declared += [(t.name, "a tensor", t.loc) for t in program.tensors]
    declared += [(e.target, "an Einsum", e.loc) for e in program.cascade]
    for name, what, loc in declared:
        verify_identifier(name, loc)
        if name in seen:
            raise ProgramSyntaxError(
                f"`{name}` is already {seen[name]}",
                loc=loc,
                hint="every name is declared once: choose another",
            )
        taken = meaning(name, ranks - {name} | EXTENTS.keys() if what == "a rank" else ranks)
        # A size is never indexed and a tensor always, so the two cannot be confused: `E[q, k]` is fine.
        if taken and (taken != "a size" or what in ("a parameter", "a rank")):
            raise ProgramSyntaxError(f"`{name}` is {taken}", loc=loc, hint="choose another name")
        if name == SCORE and what != "an Einsum":
            raise ProgramSyntaxError(f"`{SCORE}` is the score", loc=loc, hint="choose another name")
        seen[name] = what
    if program.cascade_name is not None:
        verify_identifier(program.cascade_name, None)
    for tensor in program.tensors:
        verify_ranks(tensor.ranks, tensor.loc)


def _verify_grid(program: Program) -> None:
    """Axes are names of their own, and their extents are the parameters `size_...`, which nothing else is called."""
    sizes = {size_param(axis) for axis in program.grid}
    for axis in program.grid:
        verify_identifier(axis, None)
        if axis in EXTENTS or len(set(program.grid)) < len(program.grid):
            raise RankError(
                f"`{axis}` cannot name an axis of the grid", hint="give each axis a name of its own: t, y, x"
            )
    for name in sizes - {p.name for p in program.params}:
        raise RankError(f"the grid has no extent `{name}`")
    for decl in (*program.params, *program.tensors):
        if decl.name.startswith(SIZE_PREFIX) and decl.name not in sizes:
            raise ProgramSyntaxError(
                f"`{decl.name}` is called like the extent of a grid's axis",
                loc=decl.loc,
                hint="choose a name that does not begin with `size_`",
            )


def _verify_default(param: ParamDecl) -> None:
    value = param.default
    if value is None:
        return
    if param.rank and (type(value) is not int or value < 0):
        raise ProgramTypeError(
            f"the extent of the rank `{param.name}` is {value}, not a number of things",
            loc=param.loc,
            hint="write an integer, 0 or more",
        )
    kind = Kind.BOOL if isinstance(value, bool) else Kind.INT if isinstance(value, int) else Kind.FLOAT
    if kind is not param.kind:
        raise ProgramTypeError(f"`{param.name}` is {param.kind}, but its default is {kind}", loc=param.loc)
    verify_value(value, param.loc)


def _verify_size(expr: Expr) -> None:
    """Bound depth and node count, without recursion and in one visit a shared subtree."""
    depth: dict[int, int] = {}
    nodes: dict[int, int] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        parts = children(node)
        todo = [c for c in parts if id(c) not in depth]
        if todo:
            stack.extend(todo)
            continue
        stack.pop()
        depth[id(node)] = 1 + max((depth[id(c)] for c in parts), default=0)
        nodes[id(node)] = 1 + sum(nodes[id(c)] for c in parts)
        if depth[id(node)] > MAX_DEPTH:
            raise ProgramSyntaxError(
                f"the expression nests more than {MAX_DEPTH} deep",
                loc=expr.loc,
                hint="keep long lists of cases in a tensor and index it",
            )
        if nodes[id(node)] > MAX_NODES:
            raise ProgramSyntaxError(f"the expression has more than {MAX_NODES} parts", loc=expr.loc)


def _verify_mask_kind(mask: Expr, kind: Kind) -> None:
    if kind is not Kind.BOOL:
        raise ProgramTypeError(
            f"the mask must be boolean, not {kind}",
            loc=mask.loc,
            hint="compare it with something, as in `x != 0`",
        )


def _verify_outputs(program: Program, loc: Loc | None) -> None:
    if not program.cascade:
        return
    if program.cascade_name is not None:
        raise ProgramSyntaxError(
            f"a program has either Einsums of its own or `cascade = {program.cascade_name}`",
            loc=program.cascade[0].loc,
        )
    if not program.outputs:
        raise OutputError("nothing is returned", loc=program.cascade[-1].loc, hint="end with `return O`")
    targets = [e.target for e in program.cascade]
    for index, name in enumerate(program.outputs):
        if name not in targets:
            raise OutputError(
                f"`{name}` is returned, but no Einsum writes it", loc=loc, hint=close_match(name, targets)
            )
        if name in program.outputs[:index]:
            raise OutputError(f"`{name}` is returned twice", loc=loc)
        einsum = program.einsum(name)
        if einsum is not None and einsum.step is not None:
            last = ", ".join(extent_name(r) if r == einsum.step else r for r in einsum.ranks)
            raise OutputError(
                f"`{name}` is a recurrence, with a value for every step",
                loc=loc,
                hint=f"return an Einsum that reads its last one, {name}[{last}]",
            )
