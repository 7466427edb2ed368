"""What an expression may read, and the ranks it may range over: the checks of `verify` inside expressions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from attngen.errors import AttngenError, ProgramSyntaxError, ProgramTypeError, RankError, UnknownNameError
from attngen.lang.domain import EXTENT_PREFIX, IMPLICIT_RANKS, PAIR_RANKS, TOKEN_RANKS, extent_name
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var, children, free_vars
from attngen.lang.kinds import kind_of
from attngen.lang.limits import verify_length
from attngen.lang.loc import Loc
from attngen.lang.ops import INDEXING, OPS, REDUCERS, SLOTTED, SUGAR, Kind
from attngen.lang.program import EXTENTS, IMPLICIT_PARAMS, INPUT_RANKS, SIZES, Einsum, Program
from attngen.lang.recurrences import verify_recurrence
from attngen.lang.varies import HeadVariation
from attngen.lang.words import INF, INT_LIMIT, SCORE, close_match

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = frozenset({"mask", "score", "cascade", "tokens", "const", "rank", "grid", "size", INF, *Kind})
_FUNCTIONS = frozenset({*OPS, *SUGAR, *REDUCERS})


@dataclass(slots=True)
class Scope:
    """The names an expression may read, growing Einsum by Einsum."""

    program: Program
    written: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    integers: list[Expr] = field(default_factory=list[Expr])
    heads: HeadVariation = field(init=False)

    def __post_init__(self) -> None:
        self.heads = HeadVariation(self.program)

    def verify_pairwise(self, expr: Expr, what: str) -> None:
        """A mask or a score: pointwise over b, h, g, q and k, reading captured tensors only."""
        self._verify(expr, frozenset(PAIR_RANKS), what)

    def verify_einsum(self, einsum: Einsum) -> None:
        """An Einsum: target ranks cover the free ranks of the body, and the body reads what is written."""
        verify_ranks(einsum.ranks, einsum.loc)
        known = self._known_ranks()
        for rank in einsum.ranks:
            if rank in IMPLICIT_RANKS:
                raise RankError(
                    f"the rank `{rank}` of `{einsum.target}` is implicit",
                    loc=einsum.loc,
                    hint="every Einsum is computed for each batch entry and head: leave b and h out",
                )
            if rank not in known:
                raise _no_extent(rank, einsum.loc)
        bound = frozenset({*einsum.ranks, *IMPLICIT_RANKS})
        if einsum.step is not None:
            verify_recurrence(einsum, self.program)
            if einsum.start is not None:
                self._verify(einsum.start, bound - {einsum.step}, f"the start of {einsum.target}")
            self.written[einsum.target] = einsum.ranks  # what it reads of itself
        self._verify(einsum.body, bound, einsum.target)
        self.written[einsum.target] = einsum.ranks
        self.heads.add(einsum)

    def verify_indices(self, kinds: dict[str, Kind]) -> None:
        """Indices, slots of selections and arguments of `pos` are integers."""
        for expr in self.integers:
            kind = kind_of(expr, kinds)
            if kind is not Kind.INT:
                raise ProgramTypeError(
                    f"an index must be an integer, not {kind}", loc=expr.loc, hint="convert it: int(x)"
                )

    def _known_ranks(self) -> set[str]:
        return {*EXTENTS, *self.program.own_ranks}

    def _verify(self, expr: Expr, bound: frozenset[str], where: str) -> None:
        match expr:
            case Const(value):
                verify_value(value, expr.loc)
            case Var(name, axis):
                self._verify_var(expr, name, axis, bound, where)
            case Size(name):
                self.verify_size(name, expr.loc)
            case Param(name):
                if self.program.param(name) is None and name not in IMPLICIT_PARAMS:
                    names = [*(p.name for p in self.program.params), *IMPLICIT_PARAMS]
                    raise UnknownNameError(
                        f"the parameter `{name}` is not declared", loc=expr.loc, hint=close_match(name, names)
                    )
            case Load():
                self._verify_load(expr, where)
            case Apply():
                self._verify_apply(expr)
            case Reduce():
                self._verify_reduce(expr, bound, where)
                if expr.at is not None:
                    self._verify(expr.at, bound, where)
                self._verify(expr.body, bound | frozenset(expr.ranks), where)
                return
            case _:
                raise ProgramTypeError(f"{type(expr).__name__} is not an expression", loc=expr.loc)
        for child in children(expr):
            self._verify(child, bound, where)

    def verify_size(self, name: str, loc: Loc | None) -> None:
        """An extent of the language, or that of a rank with one. Raises UnknownNameError."""
        own = {extent_name(r) for r in self.program.own_ranks}
        if name not in SIZES and name not in own:
            raise UnknownNameError(
                f"there is no size `{name}`", loc=loc, hint=close_match(name, {*SIZES, *own})
            )

    def _verify_var(self, expr: Var, name: str, axis: str | None, bound: frozenset[str], where: str) -> None:
        if axis is not None and (axis not in self.program.grid or name not in TOKEN_RANKS):
            hint = "declare the axes of the tokens: tokens = grid(t, y, x)"
            if self.program.grid and name in TOKEN_RANKS:
                hint = close_match(axis, self.program.grid) or f"the axes are {', '.join(self.program.grid)}"
            raise UnknownNameError(f"`{name}` has no coordinate `{axis}`", loc=expr.loc, hint=hint)
        if name in bound:
            return
        if where in ("mask", "score"):
            raise RankError(
                f"the rank `{name}` cannot be used in a {where}",
                loc=expr.loc,
                hint=f"a {where} is an expression over {', '.join(PAIR_RANKS)}",
            )
        raise RankError(
            f"the rank `{name}` is neither in `{where}` nor reduced",
            loc=expr.loc,
            hint=f"add it to the ranks of `{where}`, or reduce it: sum[{name}](...)",
        )

    def _verify_apply(self, expr: Apply) -> None:
        op = OPS.get(expr.op) or SUGAR.get(expr.op)
        if op is None:
            raise UnknownNameError(f"there is no operator `{expr.op}`", loc=expr.loc)
        if len(expr.args) != op.arity:
            raise ProgramTypeError(
                f"`{op.name}` takes {op.arity} operands, not {len(expr.args)}", loc=expr.loc
            )
        match expr:
            case Apply("pos", (x,)):
                self.integers.append(x)
            case Apply("pow", (_, Const(value) as exponent)) if type(value) is int and value < 0:
                raise ProgramTypeError(
                    "a power with a negative integer exponent is not an integer",
                    loc=exponent.loc or expr.loc,
                    hint=f"write the exponent as a float: {float(value)}",
                )
            case _:
                pass

    def _verify_reduce(self, expr: Reduce, bound: frozenset[str], where: str) -> None:
        if where in ("mask", "score"):
            raise RankError(
                f"a {where} has no reductions",
                loc=expr.loc,
                hint="write an Einsum, or pass the values as a tensor",
            )
        if expr.op not in REDUCERS:
            raise UnknownNameError(f"there is no reducer `{expr.op}`", loc=expr.loc)
        if not expr.ranks:
            raise RankError(
                "a reduction names at least one rank", loc=expr.loc, hint=f"write {expr.op}[k](...)"
            )
        verify_ranks(expr.ranks, expr.loc)
        self._verify_selection(expr)
        for rank in expr.ranks:
            if rank in ("b", "g"):
                raise RankError(
                    f"the rank `{rank}` cannot be reduced: "
                    + ("every batch entry is computed by itself" if rank == "b" else "it follows from `h`"),
                    loc=expr.loc,
                    hint=f"reduce the query heads: {expr.op}[h](...)" if rank == "g" else None,
                )
            if rank not in self._known_ranks():
                raise _no_extent(rank, expr.loc)
            if rank in bound and rank != "h":
                raise RankError(
                    f"the rank `{rank}` is reduced, but it is already bound outside", loc=expr.loc
                )
            if not self._depends(expr.body, rank, bound | frozenset(expr.ranks)):
                raise RankError(
                    f"the rank `{rank}` is reduced, but nothing inside depends on it", loc=expr.loc
                )

    def _depends(self, body: Expr, rank: str, bound: frozenset[str]) -> bool:
        """Whether reducing `rank` says something; what does not depend on a token still counts the kept ones."""
        if rank == "h":
            return self.heads.varies(body, bound)
        return rank in free_vars(body) or (rank in TOKEN_RANKS and not free_vars(body) - bound)

    def _verify_selection(self, expr: Reduce) -> None:
        if expr.op in (*SLOTTED, *INDEXING) and len(expr.ranks) != 1:
            raise RankError(
                f"`{expr.op}` selects along one rank, not {len(expr.ranks)}",
                loc=expr.loc,
                hint=f"write {expr.op}[k](...)",
            )
        if (expr.at is not None) is not (expr.op in SLOTTED):
            raise ProgramTypeError(
                f"`{expr.op}` takes {'a slot' if expr.op in SLOTTED else 'no slot'}", loc=expr.loc
            )
        if expr.at is not None:
            self.integers.append(expr.at)

    def _verify_load(self, expr: Load, where: str) -> None:
        pairwise = where in ("mask", "score")
        name = expr.tensor
        decl = self.program.tensor(name)
        if decl is not None:
            self._verify_count(expr, decl.ranks)
            self.integers.extend(expr.indices)
            return
        if where == "score" and name == SCORE:
            if expr.indices:
                raise RankError("the score is not indexed", loc=expr.loc, hint=f"write {SCORE}")
            return
        if pairwise:
            raise self._unreadable(expr, where)
        ranks = INPUT_RANKS.get(name) or self.written.get(name)
        if ranks is None:
            raise self._unreadable(expr, where)
        self._verify_count(expr, ranks)
        for rank, index in zip(ranks, expr.indices, strict=True):
            if index == Var(rank):
                continue
            if name in INPUT_RANKS and rank in TOKEN_RANKS:
                raise RankError(
                    f"`{name}` is read at its own row, `{name}[{', '.join(ranks)}]`",
                    loc=index.loc or expr.loc,
                    hint="its features are indexed by expressions, and so are captured tensors and Einsums",
                )
            self.integers.append(index)

    def _verify_count(self, expr: Load, ranks: tuple[str, ...]) -> None:
        if len(expr.indices) != len(ranks):
            count = f"{len(ranks)} ind{'ex' if len(ranks) == 1 else 'ices'}"
            raise RankError(
                f"`{expr.tensor}` takes {count}, not {len(expr.indices)}",
                loc=expr.loc,
                hint=f"it is declared as {expr.tensor}[{', '.join(ranks) or '()'}]",
            )

    def _unreadable(self, expr: Load, where: str) -> AttngenError:
        name = expr.tensor
        later = self.program.einsum(name) is not None
        if where == "mask" and name == SCORE:
            return RankError(
                "a mask cannot read the score", loc=expr.loc, hint="a score function may return -inf instead"
            )
        if where in ("mask", "score") and (later or name in INPUT_RANKS):
            return RankError(f"a {where} reads captured tensors only, not `{name}`", loc=expr.loc)
        if later:
            return UnknownNameError(
                f"`{name}` is read before it is written", loc=expr.loc, hint="put its Einsum above this one"
            )
        known = [t.name for t in self.program.tensors]
        known += [] if where in ("mask", "score") else [*self.written, *INPUT_RANKS]
        return UnknownNameError(
            f"the tensor `{name}` is not declared",
            loc=expr.loc,
            hint=close_match(name, known, "{}[...]") or f"declare it with its ranks: {name}[b, q]: int",
        )


def _no_extent(rank: str, loc: Loc | None) -> RankError:
    return RankError(
        f"no tensor has the rank `{rank}`, so it has no extent",
        loc=loc,
        hint=f"declare it: {rank}: rank = 16",
    )


def verify_identifier(name: str, loc: Loc | None) -> None:
    """A name that every backend can spell. Raises ProgramSyntaxError."""
    if not _IDENTIFIER.fullmatch(name):
        raise ProgramSyntaxError(
            f"`{name}` is not a name",
            loc=loc,
            hint="names are ASCII letters, digits and _, starting with a letter",
        )
    verify_length(name, loc)


def verify_ranks(ranks: tuple[str, ...], loc: Loc | None) -> None:
    """Ranks that differ and take no name of the language. Raises ProgramSyntaxError or RankError."""
    for rank in ranks:
        verify_identifier(rank, loc)
        if rank in SIZES or rank in _FUNCTIONS or rank in _WORDS or rank in IMPLICIT_PARAMS:
            raise RankError(
                f"`{rank}` is a name of the language, not a rank", loc=loc, hint="choose another name"
            )
    if len(set(ranks)) < len(ranks):
        raise RankError("a rank appears twice", loc=loc, hint="give each axis a rank of its own")


def meaning(name: str, ranks: set[str]) -> str | None:
    """What a name means in every program, or None."""
    if name in ranks:
        return "a rank"
    if name in SIZES or (name.startswith(EXTENT_PREFIX) and name.removeprefix(EXTENT_PREFIX) in ranks):
        return "a size"
    if name in _FUNCTIONS:
        return "a function"
    return "a word of the language" if name in _WORDS else None


def verify_value(value: float | bool, loc: Loc | None) -> None:
    """A constant within the language's bounds. Raises ProgramSyntaxError or ProgramTypeError."""
    if isinstance(value, int) and abs(value) > INT_LIMIT:
        raise ProgramSyntaxError("the integer does not fit in 64 bits", loc=loc)
    if isinstance(value, float) and math.isnan(value):
        raise ProgramTypeError("nan is not a value of the language", loc=loc)
