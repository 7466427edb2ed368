"""The Fold: what a cascade means over the key axis, and how that was derived.

A Fold runs as: start every `State` at its reducer's identity; for each tile of keys run the `absorb` steps in
order; after the last key run the `finish` lets. Two partial results merge by rescaling both sides to the
common statistics and combining with the reducer, so forward, split-KV and devices use the same object.

In the bodies, `Load(name, indices)` refers to an input (`Q`, `K`, `V`), a captured tensor, an earlier `Let`,
or the *current* value of an earlier `State`; `Load(old(name), ...)` to the value before this tile.
"""

from __future__ import annotations

from dataclasses import field

from attngen.lang.expr import Expr
from attngen.value import value

OLD = ".old"


def old(name: str) -> str:
    """The name by which a rescale reads the value that `name` had before this tile."""
    return name + OLD


def is_old(name: str) -> bool:
    """Whether a load's name was made by `old`."""
    return name.endswith(OLD)


@value
class Let:
    """`name[ranks] = body`, pointwise. Ranks (q, k) live in a tile; (q,) is a row value."""

    name: str
    ranks: tuple[str, ...]
    body: Expr


@value
class Mix:
    """A share of another accumulator that a rescale adds: `old(state) * factor`."""

    state: str
    factor: Expr


@value
class State:
    """A running accumulator: `acc <- (acc  (x) rescale) (+) reduce over the tile's keys of body`.

    One of a finite-rank orbit also takes shares of its fellows: `acc <- acc * rescale + sum of mix + ...`, all
    with the values they had before this tile.

    ranks    ("q",) or ("q", "e").
    reduce   key of `ops.REDUCERS`: the (+).
    body     contribution of one key, in terms of the *new* statistics.
    combine  the (x): "mul" or "add", None when there is no rescale.
    rescale  the ratio rho(old, new) as one closed form, None when it is the identity.
    rule     "D1", "D2", "D3", "D4" or "D5": how the accumulator was derived.
    mix      shares of other accumulators, for a sum of an orbit of rank 2 or more.
    """

    name: str
    ranks: tuple[str, ...]
    reduce: str
    body: Expr
    combine: str | None
    rescale: Expr | None
    rule: str
    mix: tuple[Mix, ...] = ()


Step = Let | State


@value
class Obligation:
    """One proof obligation: what had to hold, how it was shown, and what was left over (0 if nothing)."""

    name: str
    statement: str
    method: str
    residual: str = "0"


@value
class RuleUse:
    """One derivation step: which rule turned which Einsum into what."""

    rule: str
    target: str
    before: str
    after: str
    obligations: tuple[Obligation, ...] = ()


@value
class Refusal:
    """Why an Einsum could not be folded. A value, not an exception."""

    target: str
    reason: str
    residual: str = ""


@value
class Derivation:
    """The record of a derivation.

    passes_written  FuseMax passes over the key rank of the cascade as the user wrote it.
    passes          passes after rewriting.
    rules           rule uses in order.
    refusals        why anything stayed in more than one pass; empty when the Fold is complete.
    """

    rank: str
    passes_written: int
    passes: int
    rules: tuple[RuleUse, ...]
    refusals: tuple[Refusal, ...] = ()
    tensor_passes: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = field(default=())


@value
class Fold:
    """The one-pass form of a cascade (see the module's docstring)."""

    rank: str
    absorb: tuple[Step, ...]
    finish: tuple[Let, ...]
    outputs: tuple[str, ...]
    derivation: Derivation

    @property
    def states(self) -> tuple[State, ...]:
        """The accumulators, in order of update."""
        return tuple(s for s in self.absorb if isinstance(s, State))
