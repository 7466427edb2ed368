"""Programs: a mask, a cascade of Einsums and their inputs.

`Program` is what parsing and tracing produce, what `print` prints and what is hashed. It is *linked* when
the cascade's Einsums are in it and the score expression has been worked into them (`link`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace

from attngen.lang.expr import Expr
from attngen.lang.loc import Loc
from attngen.lang.ops import Kind
from attngen.value import value

# Ranks of the implicit inputs. Batch `b` and head `h` are implicit in program text: `Q[q, d]`.
INPUT_RANKS: dict[str, tuple[str, ...]] = {"Q": ("q", "d"), "K": ("k", "d"), "V": ("k", "e")}

# Parameters every program may use without declaring them; `scale` is D**-0.5 unless given.
IMPLICIT_PARAMS: dict[str, Kind] = {"scale": Kind.FLOAT}

# The longest text of a program. It is a page; a longer one is a wrong file, and parsing would take its time.
MAX_CHARS = 1 << 18

# The extent of each rank that every program knows. `g` is the key head that the query head `h` shares.
EXTENTS: dict[str, str] = {
    "b": "n_b",
    "h": "n_h",
    "g": "n_g",
    "q": "n_q",
    "k": "n_k",
    "d": "D",
    "e": "E",
}

# Extents every program may use.
SIZES: tuple[str, ...] = ("n_q", "n_k", "n_b", "n_h", "n_g", "D", "E")


@value
class ParamDecl:
    """`name: int = default`; `const` specialises the kernel instead of being passed at run time.

    rank    the name is a rank of the program's own, `name: rank = default`, and the value, an int, its extent. It is
            `const`, and read as `Var(name)` for the index and `Size("n_name")` for the extent, never as a `Param`.
    extent  of a rank: the extent where none is given, an integer expression of sizes and parameters.
    """

    name: str
    kind: Kind
    default: int | float | bool | None = None
    const: bool = False
    rank: bool = False
    extent: Expr | None = None
    loc: Loc | None = field(default=None, compare=False, repr=False)


@value
class TensorDecl:
    """`name[ranks]: kind`: a captured tensor. Ranks of length 0 are 0-d tensors."""

    name: str
    ranks: tuple[str, ...]
    kind: Kind
    loc: Loc | None = field(default=None, compare=False, repr=False)


@value
class Einsum:
    """`target[ranks] = body`. Reductions stand anywhere in `body` as `Reduce` nodes.

    step   of a recurrence, `X[q, m + 1] = body`: the rank `m` it goes along, one of `ranks`. `X` then has `n_m + 1`
           entries along it, `body` makes entry `m + 1` and reads `X` at `m` only. One along `k` leaves out the keys
           that a row does not see.
    start  of a recurrence: its entry 0, `X[q, 0] = start`.
    """

    target: str
    ranks: tuple[str, ...]
    body: Expr
    loc: Loc | None = field(default=None, compare=False, repr=False)
    step: str | None = None
    start: Expr | None = None

    @property
    def exprs(self) -> tuple[Expr, ...]:
        """Its expressions: the start of a recurrence, and the body."""
        return (self.body,) if self.start is None else (self.start, self.body)

    def mapped(self, fn: Callable[[Expr], Expr]) -> Einsum:
        """The same Einsum over `fn` of its expressions."""
        return replace(self, body=fn(self.body), start=None if self.start is None else fn(self.start))


@value
class Program:
    """One operator.

    mask      boolean over b, h, g, q, k; None keeps every pair.
    score     unlinked only: an expression in the score `S` (spelled `Load("S", ())`), from `score = ...`.
    cascade_name  unlinked only: the cascade to take from `ir/cascades/`.
    cascade   Einsums in order; a target is read only after it is written.
    outputs   targets returned, in order.
    grid      names of the coordinates of a token, slowest first; empty where tokens lie on a line. The extent of
              the axis `y` is the parameter `size_y`, declared in `params` like any other.
    """

    name: str
    doc: str = field(compare=False)
    params: tuple[ParamDecl, ...]
    tensors: tuple[TensorDecl, ...]
    mask: Expr | None
    cascade: tuple[Einsum, ...]
    outputs: tuple[str, ...]
    score: Expr | None = None
    cascade_name: str | None = None
    grid: tuple[str, ...] = ()

    @property
    def linked(self) -> bool:
        """Whether the cascade's Einsums are in the program."""
        return self.cascade_name is None and self.score is None and bool(self.cascade)

    def param(self, name: str) -> ParamDecl | None:
        """The declaration of a parameter, or None."""
        return next((p for p in self.params if p.name == name), None)

    def tensor(self, name: str) -> TensorDecl | None:
        """The declaration of a captured tensor, or None."""
        return next((t for t in self.tensors if t.name == name), None)

    @property
    def own_ranks(self) -> tuple[str, ...]:
        """The ranks of the program's own: those it declares, then those of its tensors, in order."""
        named = [p.name for p in self.params if p.rank] + [r for t in self.tensors for r in t.ranks]
        return tuple(dict.fromkeys(r for r in named if r not in EXTENTS))

    def einsum(self, target: str) -> Einsum | None:
        """The Einsum that writes `target`, or None."""
        return next((e for e in self.cascade if e.target == target), None)
