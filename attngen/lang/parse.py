"""The text form: a program's text, in a strict subset of Python's syntax, to a `Program`.

The text is parsed with `ast` and never executed. `print_program` is the inverse.
"""

from __future__ import annotations

import ast
import threading
import warnings
from dataclasses import dataclass, field

from attngen.errors import ProgramSyntaxError
from attngen.lang.domain import size_decls, size_param
from attngen.lang.expr import Const, Expr
from attngen.lang.loc import Loc
from attngen.lang.ops import Kind
from attngen.lang.parse_expr import ExprParser
from attngen.lang.program import (
    EXTENTS,
    IMPLICIT_PARAMS,
    INPUT_RANKS,
    MAX_CHARS,
    Einsum,
    ParamDecl,
    Program,
    TensorDecl,
)
from attngen.lang.source import Source
from attngen.lang.verify import verify

# Warning filters belong to the process: threads that parse at once take turns in changing them.
_WARNINGS = threading.Lock()

_KINDS: dict[str, Kind] = {kind.value: kind for kind in Kind}
_STATEMENTS = (
    "`tokens =`, a parameter, a rank, a tensor, `mask =`, `score =`, `cascade =`, an Einsum `X[q, k] = ...`, "
    "or `return`"
)


def parse_program(text: str, *, name: str = "program", file: str = "<string>") -> Program:
    """The program of a text, verified but not linked.

    `name` becomes the program's name and `file` the file that errors point into. Raises ProgramSyntaxError
    for text that is not in the language, and what `verify` raises for a program that makes no sense.
    """
    source = Source(text, file)
    statements = _statements(source)
    doc = ""
    match statements:
        case [ast.Expr(value=ast.Constant(value=str(doc))), *rest]:
            statements = rest
        case _:
            pass
    parser = _ProgramParser(source, statements)
    try:
        for statement in statements:
            parser.add(statement)
        parser.finish()
    except RecursionError:
        raise ProgramSyntaxError("the program nests too deeply", loc=source.loc_at(1, 0)) from None
    program = parser.built.program(name, doc.strip())
    verify(program, return_loc=parser.built.return_loc)
    return program


def _statements(source: Source) -> list[ast.stmt]:
    """The statements of the text; whatever Python's parser says about it becomes one ProgramSyntaxError."""
    if len(source.text) > MAX_CHARS:
        raise ProgramSyntaxError(
            f"the text has {len(source.text)} characters; a program has at most {MAX_CHARS}",
            loc=source.loc_at(1, 0),
        )
    problem: ProgramSyntaxError
    try:
        # Python warns about escapes in strings that it may refuse some day; the language has no use for that.
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source.text, filename="<program>", mode="exec").body
    except SyntaxError as error:
        loc = source.loc_at(error.lineno or 1, (error.offset or 1) - 1, _end_column(error))
        problem = ProgramSyntaxError(error.msg or "invalid syntax", loc=loc)
    except UnicodeEncodeError:
        problem = ProgramSyntaxError("the text holds half a surrogate pair", loc=source.loc_at(1, 0))
    except (RecursionError, MemoryError):
        problem = ProgramSyntaxError("the text nests too deeply", loc=source.loc_at(1, 0))
    except (ValueError, OverflowError) as error:  # a null byte; an integer of thousands of digits
        problem = ProgramSyntaxError(str(error), loc=source.loc_at(1, 0))
    raise problem from None


def _end_column(error: SyntaxError) -> int | None:
    if error.end_offset is None or error.end_lineno != error.lineno:
        return None
    return error.end_offset - 1


@dataclass(frozen=True, slots=True)
class _Start:
    """`X[q, 0] = body`: the place of the 0 among the indices, and the ranks beside it."""

    at: int
    ranks: tuple[str, ...]
    body: Expr
    loc: Loc


@dataclass(slots=True)
class _Built:
    """What the statements read so far amount to."""

    params: list[ParamDecl] = field(default_factory=list[ParamDecl])
    tensors: list[TensorDecl] = field(default_factory=list[TensorDecl])
    einsums: list[Einsum] = field(default_factory=list[Einsum])
    starts: dict[str, _Start] = field(default_factory=dict[str, _Start])
    single: dict[str, Expr] = field(default_factory=dict[str, Expr])
    cascade_name: str | None = None
    outputs: tuple[str, ...] = ()
    return_loc: Loc | None = None
    grid: tuple[str, ...] = ()
    grid_loc: Loc | None = None

    def program(self, name: str, doc: str) -> Program:
        return Program(
            name=name,
            doc=doc,
            params=(*size_decls(self.grid, self.grid_loc), *self.params),
            tensors=tuple(self.tensors),
            mask=self.single.get("mask"),
            cascade=tuple(self.einsums),
            outputs=self.outputs,
            score=self.single.get("score"),
            cascade_name=self.cascade_name,
            grid=self.grid,
        )


class _ProgramParser:
    """Turns statements into declarations, expressions and Einsums, one at a time."""

    def __init__(self, source: Source, statements: list[ast.stmt]) -> None:
        self.source = source
        self.built = _Built()
        params, ranks, tensors = set(IMPLICIT_PARAMS), set(EXTENTS), set(INPUT_RANKS)
        self.exprs = ExprParser(source, params, ranks, tensors)
        self.error = self.exprs.error
        for statement in statements:
            self._declare(statement)

    def _declare(self, statement: ast.stmt) -> None:
        """Note the names a statement declares, so that the others can be told apart by their kind."""
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="rank")):
                self.exprs.ranks.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.exprs.params.add(name)
            case ast.AnnAssign(target=ast.Subscript(value=ast.Name(id=name), slice=ranks)):
                self._declare_tensor(name, ranks)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=ranks)]):
                self._declare_tensor(name, ranks)
            case ast.Assign(targets=[ast.Name(id="tokens")], value=ast.Call(args=args)):
                axes = [a.id for a in args if isinstance(a, ast.Name)]
                self.exprs.axes.update(axes)
                self.exprs.params.update(size_param(a) for a in axes)
            case _:
                pass

    def _declare_tensor(self, name: str, ranks: ast.expr) -> None:
        self.exprs.tensors.add(name)
        elements = ranks.elts if isinstance(ranks, ast.Tuple) else [ranks]
        self.exprs.ranks.update(e.id for e in elements if isinstance(e, ast.Name))

    def add(self, statement: ast.stmt) -> None:
        """Take in one statement. Raises ProgramSyntaxError if it is not one of the language's."""
        if self.built.return_loc is not None:
            raise self.error(statement, "`return` is the last statement of a program")
        match statement:
            case ast.AnnAssign(target=ast.Name() as target, annotation=ast.Name(id="rank")):
                self._rank(statement, target)
            case ast.AnnAssign(target=ast.Name() as target):
                self._param(statement, target)
            case ast.AnnAssign(target=ast.Subscript(value=ast.Name(id=name), slice=ranks)):
                self._tensor(statement, name, ranks)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(statement, name, value)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=ranks)], value=value):
                self._einsum(statement, name, ranks, value)
            case ast.Return():
                self._return(statement)
            case _:
                raise self._refusal(statement)

    def _einsum(self, statement: ast.Assign, name: str, ranks: ast.expr, value: ast.expr) -> None:
        """`X[q, k] = ...`, or one of the two lines of a recurrence: `X[q, 0] = ...` and `X[q, m + 1] = ...`."""
        built, loc = self.built, self.source.loc(statement.targets[0])
        elements = ranks.elts if isinstance(ranks, ast.Tuple) else [ranks]
        at = [i for i, e in enumerate(elements) if not isinstance(e, ast.Name)]
        match [elements[i] for i in at]:
            case [ast.Constant(value=0)]:
                if name in built.starts:
                    raise self.error(statement, f"the start of `{name}` is given twice")
                rest = tuple(e.id for e in elements if isinstance(e, ast.Name))
                built.starts[name] = _Start(at[0], rest, self.exprs.parse(value), loc)
            case [ast.BinOp(left=ast.Name(id=rank) as var, op=ast.Add(), right=ast.Constant(value=1))]:
                self.exprs.names(var, "the ranks of an Einsum")
                names = tuple(e.id if isinstance(e, ast.Name) else rank for e in elements)
                start = self._start_of(statement, name, names, at[0])
                built.einsums.append(Einsum(name, names, self.exprs.parse(value), loc, rank, start))
            case _:
                names = self.exprs.names(ranks, "the ranks of an Einsum")
                built.einsums.append(Einsum(name, names, self.exprs.parse(value), loc=loc))

    def _start_of(self, statement: ast.Assign, name: str, names: tuple[str, ...], at: int) -> Expr:
        """The value that a recurrence starts from, given above it at the same ranks."""
        start = self.built.starts.pop(name, None)
        first = ", ".join("0" if i == at else r for i, r in enumerate(names))
        hint = f"write {name}[{first}] = ... above it"
        if start is None:
            raise self.error(statement, f"the recurrence `{name}` has no start", hint)
        if (start.at, start.ranks) != (at, names[:at] + names[at + 1 :]):
            raise self.error(statement, f"`{name}` has other ranks than its start", hint)
        return start.body

    def finish(self) -> None:
        """Refuse a start without its recurrence."""
        for name, start in self.built.starts.items():
            raise ProgramSyntaxError(
                f"`{name}` has a start, but no recurrence goes on from it",
                loc=start.loc,
                hint=f"write {name}[q, k + 1] = ... below it, with the rank it goes along",
            )

    def _refusal(self, statement: ast.stmt) -> ProgramSyntaxError:
        match statement:
            case ast.Assign():
                return self.error(statement, "an assignment has one target", "write one Einsum a line")
            case ast.AugAssign():
                hint = "a reduction says what is added up: O[q, e] = sum[k](...)"
                return self.error(statement, "a tensor is written once, so there is no `+=`", hint)
            case ast.Expr(value=ast.Constant(value=str())):
                return self.error(statement, "a docstring comes first in a program", "write a # comment")
            case _:
                return self.error(statement, "this is not a statement of the language", f"use {_STATEMENTS}")

    def _param(self, statement: ast.AnnAssign, target: ast.Name) -> None:
        kind, const = self._param_kind(statement.annotation)
        default = None if statement.value is None else self._default(statement.value, kind)
        decl = ParamDecl(target.id, kind, default, const, loc=self.source.loc(target))
        self.built.params.append(decl)

    def _rank(self, statement: ast.AnnAssign, target: ast.Name) -> None:
        """`j: rank`, `j: rank = 16`, or an extent worked out from sizes: `j: rank = (n_k + 63) // 64`."""
        value = None if statement.value is None else self.exprs.parse(statement.value)
        default, extent = (value.value, None) if isinstance(value, Const) else (None, value)
        loc = self.source.loc(target)
        self.built.params.append(ParamDecl(target.id, Kind.INT, default, True, True, extent, loc))

    def _param_kind(self, node: ast.expr) -> tuple[Kind, bool]:
        match node:
            case ast.Name(id=name) if name in _KINDS:
                return _KINDS[name], False
            case ast.Subscript(value=ast.Name(id="const"), slice=ast.Name(id=name)) if name in _KINDS:
                return _KINDS[name], True
            case _:
                raise self.error(
                    node, "a parameter is int, float or bool, const[...] of one of them, or a rank"
                )

    def _default(self, node: ast.expr, kind: Kind) -> int | float | bool:
        value = self.exprs.parse(node)
        if not isinstance(value, Const):
            raise self.error(node, "a default is a number or a boolean, not an expression")
        if kind is Kind.FLOAT and type(value.value) is int:
            return float(value.value)
        return value.value

    def _tensor(self, statement: ast.AnnAssign, name: str, ranks: ast.expr) -> None:
        if statement.value is not None:
            raise self.error(statement.value, "a tensor has no default: it is given with the call")
        match statement.annotation:
            case ast.Name(id=kind) if kind in _KINDS:
                pass
            case _:
                raise self.error(statement.annotation, "a tensor holds int, float or bool")
        loc = self.source.loc(statement.target)
        names = self.exprs.names(ranks, "the ranks of a tensor")
        self.built.tensors.append(TensorDecl(name, names, _KINDS[kind], loc=loc))

    def _assign(self, statement: ast.Assign, name: str, value: ast.expr) -> None:
        built = self.built
        match name:
            case "mask" | "score":
                if name in built.single:
                    raise self.error(statement, f"`{name}` is given twice", "combine them with & or |")
                built.single[name] = self.exprs.parse(value)
            case "cascade":
                if not isinstance(value, ast.Name):
                    raise self.error(value, "a cascade is given by its name", "write cascade = softmax")
                if built.cascade_name is not None:
                    raise self.error(statement, "`cascade` is given twice")
                built.cascade_name = value.id
            case "tokens":
                if built.grid:
                    raise self.error(statement, "`tokens` is given twice")
                built.grid, built.grid_loc = self._grid(value), self.source.loc(value)
            case _:
                hint = f"an Einsum names its ranks, {name}[q, k] = ...; a parameter its kind, {name}: int = 0"
                raise self.error(statement, f"`{name}` is assigned without ranks or kind", hint)

    def _grid(self, value: ast.expr) -> tuple[str, ...]:
        hint = "write tokens = grid(t, y, x), the slowest axis first"
        match value:
            case ast.Call(func=ast.Name(id="grid"), args=args, keywords=[]) if args:
                for arg in args:
                    if not isinstance(arg, ast.Name):
                        raise self.error(arg, "an axis of the grid is a name", hint)
                return tuple(a.id for a in args if isinstance(a, ast.Name))
            case _:
                raise self.error(value, "tokens are laid out by grid(...)", hint)

    def _return(self, statement: ast.Return) -> None:
        value = statement.value
        if value is None:
            raise self.error(statement, "`return` names at least one Einsum", "write return O")
        elements = value.elts if isinstance(value, ast.Tuple) else [value]
        for element in elements:
            if not isinstance(element, ast.Name):
                raise self.error(element, "an output is the name of an Einsum", "write return O, LSE")
        self.built.outputs = tuple(e.id for e in elements if isinstance(e, ast.Name))
        self.built.return_loc = self.source.loc(value)
