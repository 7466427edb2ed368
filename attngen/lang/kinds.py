"""What kind a value is: integer, float or boolean, from the kinds of what it is made of."""

from __future__ import annotations

from collections.abc import Mapping

from attngen.errors import ProgramTypeError, UnknownNameError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.ops import INDEXING, OPS, SUGAR, Kind, Op, Rule
from attngen.lang.program import IMPLICIT_PARAMS, INPUT_RANKS, Program

_PARENTHESES = "& | ^ ~ bind tighter than a comparison: put parentheses around each one, (k <= q) & (k > 0)"


def kinds_of(program: Program) -> dict[str, Kind]:
    """The kind of every name a program can read: parameters, inputs, captured tensors, the score, Einsums.

    Raises ProgramTypeError where an Einsum combines kinds that do not fit.
    """
    kinds: dict[str, Kind] = dict(IMPLICIT_PARAMS)
    kinds.update((p.name, p.kind) for p in program.params)
    kinds.update((name, Kind.FLOAT) for name in INPUT_RANKS)
    kinds.update((t.name, t.kind) for t in program.tensors)
    kinds.setdefault("S", Kind.FLOAT)
    for einsum in program.cascade:
        if einsum.start is not None:
            kinds[einsum.target] = arith(Kind.FLOAT, kind_of(einsum.start, kinds))
        kind = kind_of(einsum.body, kinds)
        kinds[einsum.target] = kind if einsum.step is None else arith(Kind.FLOAT, kind)
    return kinds


def kind_of(expr: Expr, kinds: Mapping[str, Kind]) -> Kind:
    """The kind of an expression, given the kind of every parameter and tensor it reads.

    Raises ProgramTypeError where operands do not fit their operator, UnknownNameError for a name that
    is not in `kinds`.
    """
    match expr:
        case Const(value):
            return _kind_of_value(value)
        case Var() | Size():
            return Kind.INT
        case Param(name) | Load(name, _):
            if name not in kinds:
                raise UnknownNameError(f"`{name}` is not declared", loc=expr.loc)
            return kinds[name]
        case Apply(name, args):
            op = OPS.get(name) or SUGAR.get(name)
            if op is None:
                raise UnknownNameError(f"there is no operator `{name}`", loc=expr.loc)
            return _result(op, expr, tuple(kind_of(a, kinds) for a in args))
        case Reduce(name, _, body):
            return _reduced(name, expr, kind_of(body, kinds))
        case _:
            raise ProgramTypeError(f"{type(expr).__name__} is not an expression", loc=expr.loc)


def arith(*kinds: Kind) -> Kind:
    """The kind arithmetic gives: float if an operand is, else int; a boolean counts as 0 or 1."""
    return Kind.FLOAT if Kind.FLOAT in kinds else Kind.INT


def _kind_of_value(value: float | bool) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOL
    return Kind.INT if isinstance(value, int) else Kind.FLOAT


def _result(op: Op, expr: Apply, args: tuple[Kind, ...]) -> Kind:
    if len(args) != op.arity:
        raise ProgramTypeError(f"`{op.name}` takes {op.arity} operands, not {len(args)}", loc=expr.loc)
    match op.rule:
        case Rule.ARITH | Rule.ROUND:
            return arith(*args)
        case Rule.FLOAT | Rule.TO_FLOAT:
            return Kind.FLOAT
        case Rule.COMPARE:
            return Kind.BOOL
        case Rule.TO_INT:
            return Kind.INT
        case Rule.INT:
            for operand, kind in zip(expr.args, args, strict=True):
                if kind is Kind.FLOAT:
                    raise ProgramTypeError(
                        f"`{op.symbol or op.name}` needs integers, not a float", loc=operand.loc or expr.loc
                    )
            return Kind.INT
        case Rule.LOGIC:
            return _logic(op, expr, args)
        case Rule.SELECT:
            if args[0] is not Kind.BOOL:
                raise ProgramTypeError(
                    f"the condition of `{op.name}` must be boolean, not {args[0]}",
                    loc=expr.args[0].loc or expr.loc,
                    hint="compare it with something, as in `x != 0`",
                )
            return Kind.BOOL if args[1] is args[2] is Kind.BOOL else arith(*args[1:])


def _logic(op: Op, expr: Apply, args: tuple[Kind, ...]) -> Kind:
    for operand, kind in zip(expr.args, args, strict=True):
        if kind is Kind.FLOAT:
            raise ProgramTypeError(
                f"`{op.symbol}` needs booleans, not a float", loc=operand.loc or expr.loc, hint=_PARENTHESES
            )
    if len(set(args)) > 1:
        raise ProgramTypeError(
            f"`{op.symbol}` combines {args[0]} and {args[1]}; both sides must be booleans, or both integers",
            loc=expr.loc,
            hint=_PARENTHESES,
        )
    return args[0]


def _reduced(name: str, expr: Reduce, body: Kind) -> Kind:
    """A number that is reduced is a float: a masked pair contributes the identity, which may be infinite."""
    match name:
        case "any" | "all":
            if body is not Kind.BOOL:
                raise ProgramTypeError(
                    f"`{name}` reduces booleans, not {body}",
                    loc=expr.body.loc or expr.loc,
                    hint="compare it with something, as in `x != 0`",
                )
            return Kind.BOOL
        case _ if name in INDEXING:
            return Kind.INT
        case _:
            return Kind.FLOAT
