"""Tracing: an ordinary Python predicate or score function becomes an expression.

    def window(b, h, q, k):              ->   (q >= k) & (q - k <= 256)
        return (q >= k) & (q - k <= 256)

The function runs once on symbols. Numbers it captures become literals, tensors become loads that are read at
run time, `param` makes scalars that can change without another kernel. FlexAttention's mask_mod and score_mod
signatures are the signatures here. A symbolic index outside a tensor is clamped to it: a negative one does
not count from the end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import FunctionType, MethodType

from attngen.errors import ParameterError, TraceError
from attngen.lang.arith import apply_op, check_size, index_var, lift, number_of, parameter, size, to_float
from attngen.lang.callsite import boundary, loc_of_function, loc_of_traceback
from attngen.lang.domain import size_param
from attngen.lang.expr import Expr, Load, Param, Var, children, rewrite, walk
from attngen.lang.naming import RESERVED, choose_names, tensor_names
from attngen.lang.ops import Kind
from attngen.lang.program import SIZES, ParamDecl, TensorDecl
from attngen.lang.symbol import STATE, Capture, Sym, SymTensor, TraceState, Unbound, is_tensor


class Role(StrEnum):
    """What a function is traced as."""

    MASK = "mask"
    SCORE = "score"


@dataclass(frozen=True, eq=False, slots=True)
class Traced:
    """What a function computes: the expression, declarations of what it reads, and the values it captured.

    `values` maps names to tensors and numbers. `reusable` is False when the function computed with the
    contents of tensors while it was traced, so that another trace might differ.
    """

    expr: Expr
    params: tuple[ParamDecl, ...]
    tensors: tuple[TensorDecl, ...]
    values: Mapping[str, object]
    reusable: bool = True


_SIGNATURES = {
    Role.MASK: {4: ("b", "h", "q", "k"), 2: ("q", "k")},
    Role.SCORE: {5: ("score", "b", "h", "q", "k"), 1: ("score",)},
}


def trace(
    fn: Callable[..., object],
    role: Role,
    within: AbstractContextManager[object] | None = None,
    grid: tuple[str, ...] = (),
) -> Traced:
    """Trace `fn` as a mask (`(b, h, q, k)` or `(q, k)`) or a score (`(score, b, h, q, k)` or `(score,)`).

    `within` is entered around the call; `attngen.capture` passes a torch function mode, which sees what torch
    does there without any symbol. `grid` names the coordinates that `q` and `k` have. Raises TraceError with the
    place in the user's source for what cannot be traced; exceptions of the user's own pass through.
    """
    args = [_argument(name) for name in _signature(fn, role)]
    state = TraceState(grid=grid)
    token = STATE.set(state)
    try:
        with within or nullcontext():
            result = boundary(fn, *args)
            sym = _result(result, fn, role)
    except TraceError as error:
        if error.loc is None:
            error.loc = loc_of_function(_code_of(fn))
        raise
    except (TypeError, RuntimeError, ValueError, IndexError) as error:
        if not _ABOUT_SYMBOLS.search(str(error)):
            raise
        raise _refusal(error, fn) from error
    finally:
        STATE.reset(token)
    return finish(
        sym, tensor_names(fn) if any(c.rank is not None for c in sym.captures) else {}, state.reusable
    )


# How torch and numpy name a symbol when they complain about an argument's type.
_ABOUT_SYMBOLS = re.compile(r"\bSym(Tensor)?\b|\bTracingMode\b")


def _refusal(error: Exception, fn: Callable[..., object]) -> TraceError:
    """The TraceError for a library's own complaint about a symbol."""
    return TraceError(
        f"a library function refused a symbolic value: {str(error).splitlines()[0]}",
        loc=loc_of_traceback(error.__traceback__) or loc_of_function(_code_of(fn)),
        hint="use torch functions, Python operators and captured tensors on the score and on b, h, q, k",
    )


def _argument(name: str) -> Sym:
    return Sym(Load("S", ()), Kind.FLOAT) if name == "score" else index_var(name)


def _signature(fn: Callable[..., object], role: Role) -> tuple[str, ...]:
    """Which of the role's signatures the function has, by its number of required positional arguments."""
    known = _SIGNATURES[role]
    longest = known[max(known)]
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a builtin without a signature
        return longest
    positional = [
        p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(p.default is p.empty for p in positional)
    n_args = required if required in known else max(known)
    try:
        signature.bind(*known[n_args])
    except TypeError as error:
        accepted = " or ".join(f"({', '.join(names)})" for names in known.values())
        raise TraceError(
            f"a {role} function takes {accepted}, but this one has the signature {signature}: {error}",
            loc=loc_of_function(_code_of(fn)),
            hint="bind further arguments by functools.partial, a closure or default values",
        ) from None
    return known[n_args]


def _code_of(fn: object) -> object:
    """The function behind partials, bound methods and callable objects, for its place in the source."""
    if isinstance(fn, partial):
        return _code_of(fn.func)
    if isinstance(fn, MethodType | FunctionType):
        return fn
    return getattr(type(fn), "__call__", None)  # noqa: B004 -- the function itself is wanted


def _result(value: object, fn: Callable[..., object], role: Role) -> Sym:
    at = loc_of_function(_code_of(fn))
    if value is None:
        raise TraceError(f"the {role} function returns nothing", loc=at, hint="add a return statement")
    if isinstance(value, SymTensor) or (is_tensor(value) and getattr(value, "ndim", 0) > 0):
        raise TraceError(
            f"the {role} function returns a tensor with dimensions, not one value",
            loc=at,
            hint="index it fully, as in bias[h, q, k]",
        )
    try:
        sym = lift(value)
    except TraceError:
        raise TraceError(
            f"the {role} function returns {type(value).__name__}, not a value of one pair", loc=at
        ) from None
    at = sym.expr.loc or at
    match role, sym.kind:
        case Role.MASK, Kind.INT | Kind.FLOAT:
            raise TraceError(
                f"a mask is boolean, but this function returns {sym.kind}",
                loc=at,
                hint="compare the value with something, for example q - k < 128",
            )
        case Role.SCORE, Kind.BOOL:
            raise TraceError(
                "a score is a number, but this function returns a boolean",
                loc=at,
                hint='write torch.where(condition, score, -float("inf")), or pass the function as mask',
            )
        case Role.SCORE, _:
            return to_float(sym)
        case _:
            return sym


def finish(sym: Sym, names: Mapping[int, str], reusable: bool = True) -> Traced:
    """Give captures their final names, in the order in which the expression reads them, and declare them."""
    by_key = {c.key: c for c in sym.captures}
    used = list(dict.fromkeys(_keys(sym.expr)))
    captures = [by_key[key] for key in used if key in by_key]
    chosen = choose_names(c.name or names.get(id(c.value)) for c in captures)
    renamed = dict(zip((c.key for c in captures), chosen, strict=True))
    expr = rewrite(sym.expr, lambda node: _rename(node, renamed))
    named = list(zip(chosen, captures, strict=True))
    return Traced(
        expr,
        tuple(ParamDecl(name, c.kind, None, c.const) for name, c in named if c.rank is None),
        tuple(
            TensorDecl(name, ranks_of(name, c.rank, expr), c.kind) for name, c in named if c.rank is not None
        ),
        {name: c.value for name, c in named if c.value is not Unbound},
        reusable,
    )


def _keys(expr: Expr) -> list[str]:
    found: list[str] = []
    for node in walk(expr):
        match node:
            case Load(tensor, _):
                found.append(tensor)
            case Param(name):
                found.append(name)
            case _:
                pass
    return found


def _rename(node: Expr, names: Mapping[str, str]) -> Expr | None:
    match node:
        case Load(tensor, indices) if tensor in names:
            return Load(names[tensor], indices, loc=node.loc)
        case Param(name) if name in names:
            return Param(names[name], loc=node.loc)
        case _:
            return None


def ranks_of(tensor: str, rank: int, expr: Expr) -> tuple[str, ...]:
    """A tensor's ranks: `b`, `h`, `q`, `k` where that is its only plain index there, else `i`, `j`, ...

    `doc[b, k] == doc[b, pos(q)]` gives (b, k); `doc[q] == doc[k]` gives (i,).
    """
    loads = [node for node in walk(expr) if isinstance(node, Load) and node.tensor == tensor]
    ranks: list[str] = []
    for dim in range(rank):
        plain = {
            index.name for node in loads if isinstance(index := node.indices[dim], Var) and index.axis is None
        }
        name = plain.pop() if len(plain) == 1 else None
        ranks.append(name if name and name not in ranks else "ijlmn"[dim] if dim < 5 else f"i{dim}")
    return tuple(ranks)


def inline(expr: Expr, kind: Kind, captures: Mapping[str, Capture], arguments: Mapping[Expr, object]) -> Sym:
    """A traced expression as a symbol again, leaves replaced by `arguments`: one function calls another."""
    symbols = {leaf: lift(value) for leaf, value in arguments.items()}
    used: dict[str, Capture] = {}

    def replace_leaf(node: Expr) -> Expr | None:
        if node in symbols:
            used.update((c.key, c) for c in symbols[node].captures)
            return symbols[node].expr
        match node:
            case Load(name, indices) if name in captures:
                capture = captures[name]
                used[capture.key] = capture
                return Load(capture.key, indices, loc=node.loc)
            case Param(name) if name in captures:
                capture = captures[name]
                used[capture.key] = capture
                return Param(capture.key, loc=node.loc)
            case _:
                return None

    new = rewrite(expr, replace_leaf)
    nodes, depth = sum(1 for _ in walk(new)), _depth(new)
    check_size(nodes, depth)
    return Sym(new, kind, tuple(used.values()), nodes, depth)


def _depth(expr: Expr) -> int:
    return 1 + max((_depth(child) for child in children(expr)), default=0)


def param(
    name: str, value: float | bool | None = None, *, kind: Kind | str | None = None, const: bool = False
) -> Sym:
    """A run-time scalar of a mask or score: `window = attngen.param("window", 1024)`.

    Changing its value compiles nothing, unless `const`. Without a value, `kind` says what it will be and the
    call gives it. Raises ParameterError for a name that program text cannot hold or a value that is no
    number.
    """
    if not name.isidentifier() or not name.isascii() or name in RESERVED:
        raise ParameterError(
            f"{name!r} cannot name a parameter", hint="use an identifier that the language does not use"
        )
    if value is None:
        if kind is None:
            raise ParameterError(
                f"the parameter `{name}` has neither a value nor a kind", hint='give kind="int" or a value'
            )
        return parameter(name, Kind(kind), Unbound, const)
    try:
        number = number_of(value)
    except TypeError:
        raise ParameterError(f"the value of `{name}` is not a number but {type(value).__name__}") from None
    chosen = Kind(kind) if kind is not None else _KIND_OF[type(number)]
    return parameter(name, chosen, _converted(name, number, chosen), const)


_KIND_OF: dict[type, Kind] = {bool: Kind.BOOL, int: Kind.INT, float: Kind.FLOAT}


def _converted(name: str, number: float | bool, kind: Kind) -> int | float | bool:
    if kind is Kind.FLOAT:
        return float(number)
    if _KIND_OF[type(number)] is not kind:
        raise ParameterError(f"the value {number!r} of `{name}` is not {kind}")
    return number


def pos(q: object) -> Sym:
    """The position of query `q` among the keys, `q + (n_k - n_q)`: the last query meets the last key."""
    return apply_op("pos", q)


def grid_size(axis: str) -> Sym:
    """The extent of an axis of the grid of the function being traced, `@attngen.mask(grid=("t", "y", "x"))`."""
    state = STATE.get()
    axes = state.grid if state is not None else ()
    if axis not in axes:
        known = (
            f"its axes are {', '.join(axes)}"
            if axes
            else 'name its axes: @attngen.mask(grid=("t", "y", "x"))'
        )
        raise ParameterError(f"the grid has no axis {axis!r}", hint=known)
    name = size_param(axis)
    capture = Capture(f"%{name}", name, Kind.INT, Unbound)
    return Sym(Param(capture.key), Kind.INT, (capture,))


def extent(name: str) -> Sym:
    """An extent of the call: `n_q`, `n_k`, `n_b`, `n_h`, `D` or `E`."""
    if name not in SIZES:
        raise ParameterError(f"there is no extent {name!r}", hint=f"the extents are {', '.join(SIZES)}")
    return size(name)
