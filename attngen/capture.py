"""Masks and scores: Python functions captured as expressions, with the tensors and parameters they use.

`mask` and `score` trace; a `Mask` combines by `&`, `|`, `~`, can be bound to other values, and can still be
called like the function it came from.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar, overload

import torch

from attngen.errors import DTypeError, ProgramTypeError, UnexpectedArgumentError
from attngen.lang.arith import capture_tensor, invert, logic
from attngen.lang.domain import SIZE_PREFIX, size_decls, size_param, with_grid_sizes, without_coordinates
from attngen.lang.expr import Expr, Load, Param, Var, rewrite
from attngen.lang.memo import Memo, snapshot
from attngen.lang.ops import Kind
from attngen.lang.program import ParamDecl, Program, TensorDecl
from attngen.lang.symbol import STATE, Capture, Sym, Unbound, is_tensor
from attngen.lang.trace import Role, Traced, finish, inline, trace
from attngen.tracing_mode import TracingMode

_INDICES: tuple[str, ...] = ("b", "h", "q", "k")


def _no_values() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, eq=False, repr=False)
class Captured:
    """What `Mask` and `Score` share.

    expr     the expression over `b`, `h`, `q`, `k` (a score: and `Load("S", ())`, the score so far).
    params   declarations of its run-time scalars, without defaults: their values are in `values`.
    tensors  declarations of its captured tensors.
    values   what it is bound to, by name: tensors and numbers. The call gives what has no value here.
    grid     names of the coordinates it may read, slowest first; their extents are parameters `size_...`.

    Equal and hashed by structure and by what it is bound to: tensors by identity, numbers by value.
    """

    expr: Expr
    params: tuple[ParamDecl, ...] = ()
    tensors: tuple[TensorDecl, ...] = ()
    values: Mapping[str, object] = field(default_factory=_no_values)
    name: str = ""
    doc: str = ""
    grid: tuple[str, ...] = ()

    role: ClassVar[Role]

    @property
    def structure(
        self,
    ) -> tuple[Expr, tuple[ParamDecl, ...], tuple[TensorDecl, ...], tuple[str, ...]]:
        """What a kernel depends on: everything but the values and the name."""
        return self.expr, self.params, self.tensors, self.grid

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Captured) or other.role is not self.role:
            return NotImplemented
        same = self.values.keys() == other.values.keys() and self.structure == other.structure
        return same and all(_same(value, other.values[name]) for name, value in self.values.items())

    def __hash__(self) -> int:
        return hash((self.role, *self.structure))

    def __repr__(self) -> str:
        bound = "".join(
            f", {name}={'tensor' if is_tensor(value) else repr(value)}" for name, value in self.values.items()
        )
        return f"{type(self).__name__}({self.text()!r}{bound})"

    def __str__(self) -> str:
        return f"{self.role} = {self.text()}"

    def text(self) -> str:
        """The expression in the language's text form."""
        from attngen.lang.print import print_expr

        return print_expr(self.expr)

    def bind(self, **values: object) -> Self:
        """The same with other values for these parameters and tensors; nothing is traced or compiled again.

        `grid=(30, 48, 80)` gives the extents of a grid's axes. Raises UnexpectedArgumentError for a name that is
        not declared.
        """
        values = with_grid_sizes(self.grid, values)
        known = {p.name for p in self.params} | {t.name for t in self.tensors}
        for name in values:
            if name not in known:
                declared = ", ".join(sorted(known)) or "none"
                raise UnexpectedArgumentError(
                    f"this {self.role} declares no `{name}`", hint=f"declared: {declared}"
                )
        return replace(self, values=MappingProxyType({**self.values, **values}))

    def _captures(self) -> dict[str, Capture]:
        captures: dict[str, Capture] = {}
        for t in self.tensors:
            value = self.values.get(t.name, Unbound)
            if value is Unbound:
                captures[t.name] = Capture(f"%{t.name}:unbound", t.name, t.kind, Unbound, len(t.ranks))
            else:
                captures[t.name] = replace(capture_tensor(value, t.name), rank=len(t.ranks))
        for p in self.params:
            value = self.values.get(p.name, Unbound)
            if p.name.startswith(SIZE_PREFIX):  # one parameter for all parts of a program, bound or not
                captures[p.name] = Capture(f"%{p.name}", p.name, p.kind, value, None)
                continue
            key = f"%{p.name}={p.kind}:{'unbound' if value is Unbound else repr(value)}"
            captures[p.name] = Capture(key, p.name, p.kind, value, None, p.const)
        return captures

    def _inline(self, kind: Kind, arguments: Mapping[str, Any]) -> Sym:
        leaves: dict[Expr, Any] = {(Load("S", ()) if n == "S" else Var(n)): x for n, x in arguments.items()}
        expr, captures = self.expr, self._captures()
        state = STATE.get()
        if (
            self.grid
            and state is not None
            and (state.grid != self.grid or any(_moved(n, x) for n, x in arguments.items()))
        ):
            expr, captures = self._without_grid(captures)
        return inline(expr, kind, captures, leaves)

    def _without_grid(self, captures: dict[str, Capture]) -> tuple[Expr, dict[str, Capture]]:
        """For a caller without this grid: coordinates from the numbers of tokens, extents as plain parameters."""
        plain = {size_param(axis): f"extent_{axis}" for axis in self.grid}
        for name, own in plain.items():
            value = self.values.get(name, Unbound)
            key = f"%{own}={'unbound' if value is Unbound else repr(value)}"
            captures[own] = Capture(key, own, Kind.INT, value)

        def rename(node: Expr) -> Expr | None:
            return (
                Param(plain[node.name], loc=node.loc)
                if isinstance(node, Param) and node.name in plain
                else None
            )

        return rewrite(without_coordinates(self.expr, self.grid), rename), captures

    def _evaluate(self, arguments: Mapping[str, Any], n_q: int | None, n_k: int | None) -> Any:
        from attngen.eager import evaluate_with_torch
        from attngen.lang.desugar import desugar_expr

        expr = desugar_expr(without_coordinates(self.expr, self.grid))
        return evaluate_with_torch(expr, arguments, self.values, {"n_q": n_q, "n_k": n_k})


def _moved(name: str, argument: object) -> bool:
    """Whether a token argument is anything but the token itself, whose coordinates it then does not have."""
    return name in ("q", "k") and not (isinstance(argument, Sym) and argument.expr == Var(name))


def _same(a: object, b: object) -> bool:
    if is_tensor(a) or is_tensor(b):
        return a is b
    return type(a) is type(b) and repr(a) == repr(b)


class Mask(Captured):
    """A predicate over (b, h, q, k): which pairs are kept. Combine masks by `&`, `|` and `~`."""

    role = Role.MASK

    def __call__(
        self, b: Any, h: Any, q: Any, k: Any, *, n_q: int | None = None, n_k: int | None = None
    ) -> Any:
        """The predicate on indices: tensors that broadcast, numbers, or symbols of a function being traced.

        A mask that uses `pos` needs the lengths when it is called on tensors.
        """
        arguments = dict(zip(_INDICES, (b, h, q, k), strict=True))
        if any(isinstance(x, Sym) for x in arguments.values()):
            return self._inline(Kind.BOOL, arguments)
        return self._evaluate(arguments, n_q, n_k)

    def __and__(self, other: MaskLike) -> Mask:
        return self._join("and", other)

    def __rand__(self, other: MaskLike) -> Mask:
        return _mask_of(other)._join("and", self)

    def __or__(self, other: MaskLike) -> Mask:
        return self._join("or", other)

    def __ror__(self, other: MaskLike) -> Mask:
        return _mask_of(other)._join("or", self)

    def __invert__(self) -> Mask:
        return _finished(Mask, invert(self._inline(Kind.BOOL, {})), f"not_{self.name}", self, self.grid)

    def _join(self, op: str, other: MaskLike) -> Mask:
        right = _mask_of(other)
        left, right, grid = _on_one_grid(self, right)
        joined = logic(op, left._inline(Kind.BOOL, {}), right._inline(Kind.BOOL, {}))
        return _finished(Mask, joined, f"{self.name}_{op}_{right.name}", left if left.grid else right, grid)


class Score(Captured):
    """A function of the scaled score and of (b, h, q, k), applied before the cascade."""

    role = Role.SCORE

    def __call__(
        self, score: Any, b: Any, h: Any, q: Any, k: Any, *, n_q: int | None = None, n_k: int | None = None
    ) -> Any:
        """The new score, on tensors that broadcast, on numbers, or on symbols of a function being traced."""
        arguments = {"S": score, **dict(zip(_INDICES, (b, h, q, k), strict=True))}
        if any(isinstance(x, Sym) for x in arguments.values()):
            return self._inline(Kind.FLOAT, arguments)
        return self._evaluate(arguments, n_q, n_k)

    def then(self, after: ScoreLike) -> Score:
        """This score function first, then `after` on its result."""
        outer = as_score(after)
        if outer is None:
            return self
        first, outer, grid = _on_one_grid(self, outer)
        inner = first._inline(Kind.FLOAT, {})
        name = f"{self.name}_then_{outer.name}"
        return _finished(
            Score, outer._inline(Kind.FLOAT, {"S": inner}), name, first if first.grid else outer, grid
        )


C = TypeVar("C", bound=Captured)

MaskLike = Mask | Callable[..., Any] | Program | str
ScoreLike = Score | Callable[..., Any] | Program | str

_MASKS: Memo[Mask] = Memo()
_SCORES: Memo[Score] = Memo()


@overload
def mask(fn: Callable[..., Any]) -> Mask: ...
@overload
def mask(fn: None = None, *, grid: Sequence[str]) -> Callable[[Callable[..., Any]], Mask]: ...
def mask(
    fn: Callable[..., Any] | None = None, *, grid: Sequence[str] = ()
) -> Mask | Callable[[Callable[..., Any]], Mask]:
    """Trace a predicate `fn(b, h, q, k)` (a FlexAttention mask_mod) or `fn(q, k)`; usable as a decorator.

    With `grid=("t", "y", "x")` (as in `@attngen.mask(grid=...)`) tokens have coordinates: `q.y`, `k.x`, and
    `attngen.grid_size("y")` for the extent of an axis. Raises TraceError, with the place in the source, for what
    cannot be traced.
    """
    if fn is None:
        return lambda f: mask(f) if not grid else _traced(Mask, f, _MASKS, tuple(grid))
    return fn if isinstance(fn, Mask) else _traced(Mask, fn, _MASKS)


@overload
def score(fn: Callable[..., Any]) -> Score: ...
@overload
def score(fn: None = None, *, grid: Sequence[str]) -> Callable[[Callable[..., Any]], Score]: ...
def score(
    fn: Callable[..., Any] | None = None, *, grid: Sequence[str] = ()
) -> Score | Callable[[Callable[..., Any]], Score]:
    """Trace a score function `fn(score, b, h, q, k)` (a score_mod) or `fn(score)`; decorates too.

    `grid` as for `mask`. Raises TraceError, with the place in the source, for what cannot be traced.
    """
    if fn is None:
        return lambda f: score(f) if not grid else _traced(Score, f, _SCORES, tuple(grid))
    return fn if isinstance(fn, Score) else _traced(Score, fn, _SCORES)


def as_mask(obj: MaskLike | None) -> Mask | None:
    """A mask from a Mask, a function, text such as `"k <= pos(q)"`, a Program, or None.

    None stays None: every pair is kept. Raises DTypeError for a mask given as a tensor, ProgramTypeError for
    anything else that is none of these.
    """
    return None if obj is None else _mask_of(obj)


def as_score(obj: ScoreLike | None) -> Score | None:
    """A score from a Score, a function, text such as `"20 * tanh(S / 20)"`, a Program, or None."""
    if obj is None or isinstance(obj, Score):
        return obj
    if isinstance(obj, str | Program):
        return _from_text(Score, obj)
    _check_callable(obj, Role.SCORE)
    return score(obj)


def _mask_of(obj: MaskLike) -> Mask:
    if isinstance(obj, Mask):
        return obj
    if isinstance(obj, str | Program):
        return _from_text(Mask, obj)
    _check_callable(obj, Role.MASK)
    return mask(obj)


def _check_callable(obj: object, role: Role) -> None:
    if isinstance(obj, torch.Tensor):
        raise DTypeError(
            f"a {role} is a predicate or an expression, not a tensor of shape {list(obj.shape)}",
            hint="masks.from_dense(tensor), or capture it: def f(b, h, q, k): return allowed[q, k]",
        )
    if hasattr(obj, "kv_num_blocks") and hasattr(obj, "mask_mod"):
        raise ProgramTypeError(
            f"a {role} is a predicate, not a BlockMask: attngen plans the blocks itself",
            hint="pass block_mask.mask_mod, or masks.from_block_mask(block_mask) where its lists say more",
        )
    if isinstance(obj, Captured) or not callable(obj):
        kind = type(obj).__name__
        raise ProgramTypeError(f"a {role} is a function, text, a {role.title()} or None, not {kind}")


def _from_text(kind: type[C], source: str | Program) -> C:
    """The mask or score of a program; text that is one expression means `mask = ...` or `score = ...`."""
    role = kind.role
    if isinstance(source, str):
        from attngen.lang.parse import parse_program

        text = f"{role} = {source.strip()}" if _is_expression(source) else source
        source = parse_program(text, name=role, file=f"<{role}>")
    expr = source.mask if role is Role.MASK else source.score
    if expr is None:
        raise ProgramTypeError(f"the program `{source.name}` has no {role}", hint=f"write {role} = ...")
    values = {p.name: p.default for p in source.params if p.default is not None}
    return kind(
        expr,
        tuple(replace(p, default=None) for p in source.params),
        source.tensors,
        MappingProxyType(values),
        source.name,
        source.doc,
        source.grid,
    )


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _traced(kind: type[C], fn: Callable[..., Any], memo: Memo[C], grid: tuple[str, ...] = ()) -> C:
    reads = snapshot(fn) if not grid else None
    if reads is not None and (known := memo.get(fn, reads)) is not None:
        return known
    traced = trace(fn, kind.role, within=TracingMode(), grid=grid)
    captured = _build(kind, traced, getattr(fn, "__name__", ""), inspect.getdoc(fn) or "", grid)
    if reads is not None and traced.reusable:
        memo.put(fn, reads, captured)
    return captured


def _finished(kind: type[C], sym: Sym, name: str, of: Captured, grid: tuple[str, ...]) -> C:
    """The result of an operation on `of`, bound to the extents it is bound to, read or not."""
    sizes = {n: v for n, v in of.values.items() if n.startswith(SIZE_PREFIX)}
    return _build(kind, finish(sym, {}), name, "", grid, sizes)


def _build(
    kind: type[C],
    traced: Traced,
    name: str,
    doc: str,
    grid: tuple[str, ...],
    sizes_bound: Mapping[str, object] | None = None,
) -> C:
    """The captured function; the extents of a grid are declared first, whether it reads them or not."""
    sizes = size_decls(grid)
    named = {p.name for p in sizes}
    params = (*sizes, *(p for p in traced.params if p.name not in named))
    values = MappingProxyType({**(sizes_bound or {}), **traced.values})
    return kind(traced.expr, params, traced.tensors, values, name, doc, grid)


A = TypeVar("A", bound=Captured)
B = TypeVar("B", bound=Captured)


def _on_one_grid(a: A, b: B) -> tuple[A, B, tuple[str, ...]]:
    """Both parts, bound to the extents that either of them is bound to, and the grid they share.

    Raises ProgramTypeError for two grids of unlike axes or extents; a part on a line joins any grid.
    """
    if a.grid and b.grid and a.grid != b.grid:
        raise ProgramTypeError(
            f"the two are laid out on different grids: ({', '.join(a.grid)}) and ({', '.join(b.grid)})"
        )
    grid = a.grid or b.grid
    sizes = {n: v for part in (a, b) for n, v in part.values.items() if n.startswith(SIZE_PREFIX)}
    for part in (a, b):
        for name, size in sizes.items():
            if part.values.get(name, size) != size:
                raise ProgramTypeError(f"the two disagree on `{name}`: {part.values[name]} and {size}")
    return _sized(a, sizes), _sized(b, sizes), grid


def _sized(part: A, sizes: Mapping[str, object]) -> A:
    mine = {n: v for n, v in sizes.items() if any(p.name == n for p in part.params)}
    return replace(part, values=MappingProxyType({**part.values, **mine})) if mine else part
