"""The steps of a cascade: kernels of one fold each, and what is computed between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attngen.algebra.fold import Fold, Refusal
from attngen.lang.program import Program
from attngen.value import value

Derive = Callable[[Program], Fold]
Rows = Literal["q", "k", "pair"]


@value
class Sweep:
    """One pass of a kernel over the pairs.

    program  of one fold, whose outputs are what the sweep leaves; results of earlier steps are tensors of it. Where
             the rows are keys it is exchanged (see `swap`).
    rows     "q" or "k": whose rows the fold keeps; "pair" if values of pairs are stored as they are.
    """

    program: Program
    rows: Rows

    def describe(self) -> str:
        """One line about the step."""
        over = {
            "q": "the keys, rows are queries",
            "k": "the queries, rows are keys",
            "pair": "all pairs, stored",
        }
        return f"sweep over {over[self.rows]}: {', '.join(self.program.outputs)}"


@value
class Between:
    """Einsums computed outside of kernels, from inputs and earlier results.

    features  those that become rows of a contraction, and are rounded to the dtype of the inputs for it.
    """

    targets: tuple[str, ...]
    features: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line about the step."""
        return f"between sweeps: {', '.join(self.targets)}"


@value
class Carry:
    """`target[q, columns] = query[q, r] . state[cut(q)]`, a state carried from chunk to chunk of the keys.

    The state before chunk 0 is 0; `state[c + 1] = state[c] * step[c * chunk] + sum of key[k, r] * value[k, columns]`
    over the chunk's keys; `cut(q) = end[q] // chunk`. All name Einsums; `step` is None for 1.
    """

    target: str
    query: str
    key: str
    value: str
    step: str | None
    end: str
    chunk: int

    def describe(self) -> str:
        """One line about the step."""
        return f"state carried over chunks of {self.chunk} keys: {self.target}"


Step = Sweep | Between | Carry


@value
class Sweeps:
    """The steps of a cascade in order, and why it takes more than one pass, if it does.

    program       the cascade with every reduction over pairs an Einsum of its own, which the steps refer to.
    reassociated  whether some sum of plain products goes through a state.
    """

    program: Program
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...] = ()
    reassociated: bool = False

    @property
    def single(self) -> bool:
        """Whether one fold does everything."""
        return len(self.steps) == 1 and isinstance(self.steps[0], Sweep) and self.steps[0].rows == "q"
