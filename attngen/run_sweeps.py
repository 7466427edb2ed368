"""Run the steps of a cascade that takes more than one sweep: kernels, and tensors computed between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attngen.algebra.steps import Between, Carry, Sweep, Sweeps
from attngen.analysed import analyse
from attngen.lang.kinds import kinds_of
from attngen.lang.ops import Kind
from attngen.lang.program import Program
from attngen.lang.varies import varying_heads
from attngen.run_fold import FoldRunner
from attngen.run_sweep import Inputs

if TYPE_CHECKING:
    from attngen.choose_algorithm import Algorithm

Tensor = torch.Tensor


class SweepsRunner:
    """The steps of one program in order; each sweep keeps what was planned and loaded for its calls."""

    def __init__(self, program: Program, sweeps: Sweeps) -> None:
        self.program, self.sweeps = program, sweeps
        self.per_head, self.kinds = varying_heads(sweeps.program), kinds_of(sweeps.program)
        self.steps: list[FoldRunner | Between | Carry] = []
        final = frozenset(program.outputs)
        for step in sweeps.steps:
            if isinstance(step, Sweep):
                exact = frozenset(step.program.outputs) - (final if sweeps.single else frozenset())
                self.steps.append(FoldRunner(analyse(step.program), step.rows, exact))
            else:
                self.steps.append(step)

    def run(self, inputs: Inputs, algorithm: Algorithm | None = None) -> dict[str, Tensor]:
        """The outputs of the program by name, `[B, H or 1, *ranks]`, as the steps leave them."""
        known: dict[str, Tensor] = {}
        for step in self.steps:
            if isinstance(step, Between):
                known |= self._between(step, inputs, known)
            elif isinstance(step, Carry):
                from attngen.run_carry import carried

                rate = None if step.step is None else known[step.step]
                known[step.target] = carried(
                    known[step.query], known[step.key], known[step.value], rate, known[step.end], step.chunk
                )
            else:
                earlier = _as_tensors(step.analysed.program, known)
                outs = step.run(replace(inputs, tensors={**inputs.tensors, **earlier}), algorithm)
                # A kernel has all heads; a value that they share is theirs once.
                known |= {n: self._kept(n, t if self.per_head[n] else t[:, :1]) for n, t in outs.items()}
        return {name: known[name] for name in self.program.outputs}

    def _kept(self, name: str, t: Tensor) -> Tensor:
        """A kernel's result in the kind that later steps read it in."""
        kind = self.kinds[name]
        return t.bool() if kind is Kind.BOOL else t.long() if kind is Kind.INT else t

    def _between(self, step: Between, inputs: Inputs, known: dict[str, Tensor]) -> dict[str, Tensor]:
        from attngen.backends.reference import evaluate_einsums

        made = evaluate_einsums(
            self.sweeps.program,
            step.targets,
            known,
            inputs.query,
            inputs.key,
            inputs.value,
            tensors=inputs.tensors,
            params=inputs.params,
        )
        return {n: t.to(inputs.query.dtype) if n in step.features else t for n, t in made.items()}


def _as_tensors(program: Program, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Known results as the captured tensors that a step's program declares."""
    return {
        t.name: known[t.name] if t.ranks[1:2] == ("h",) else known[t.name][:, 0]
        for t in program.tensors
        if t.name in known
    }


def finished(program: Program, outs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs as a call returns them: without the head axis where nothing varies with it, in their dtypes."""
    per_head, kinds = varying_heads(program), kinds_of(program)
    out: dict[str, Tensor] = {}
    for name, t in outs.items():
        einsum = program.einsum(name)
        assert einsum is not None
        t = t if per_head[name] else t[:, 0]  # noqa: PLW2901
        if kinds[name] is Kind.INT:
            out[name] = t.long()
        elif kinds[name] is Kind.BOOL:
            out[name] = t.bool()
        else:
            out[name] = t.to(dtype if "e" in einsum.ranks else torch.float32)
    return out
