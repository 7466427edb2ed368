"""Run the steps of a cascade that takes more than one sweep: kernels, and tensors computed between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attngen.algebra.steps import Between, Carry, Sweep, Sweeps
from attngen.analysed import analyse
from attngen.lang.expr import Const, free_vars
from attngen.lang.kinds import kinds_of
from attngen.lang.ops import REDUCERS, Kind
from attngen.lang.program import Einsum, Program
from attngen.lang.varies import varying_heads
from attngen.run_blocks import BLOCK_OPS, Blocks, blocks_of, reduce_blocks
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
                self.steps.append(FoldRunner(analyse(step.program, written=sweeps.single), step.rows, exact))
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
        made: dict[str, Tensor] = {}
        plain: list[str] = []
        for name in step.targets:
            einsum = self.sweeps.program.einsum(name)
            blocks = blocks_of(einsum) if einsum is not None else None
            if einsum is None or blocks is None or blocks.op not in BLOCK_OPS:
                plain.append(name)
                continue
            made |= self._evaluated(plain, inputs, known | made)
            plain = []
            made[name] = self._blocks(einsum, blocks, inputs, known | made)
        made |= self._evaluated(plain, inputs, known | made)
        return {n: t.to(inputs.query.dtype) if n in step.features else t for n, t in made.items()}

    def _evaluated(
        self, names: list[str], inputs: Inputs, known: dict[str, Tensor], extra: tuple[Einsum, ...] = ()
    ) -> dict[str, Tensor]:
        """Einsums computed densely from what is known; `extra` ones are read by nobody else."""
        from attngen.backends.reference import evaluate_einsums

        if not names:
            return {}
        program = self.sweeps.program
        program = replace(program, cascade=(*program.cascade, *extra)) if extra else program
        return evaluate_einsums(
            program,
            names,
            known,
            inputs.query,
            inputs.key,
            inputs.value,
            tensors=inputs.tensors,
            params=inputs.params,
        )

    def _blocks(self, einsum: Einsum, blocks: Blocks, inputs: Inputs, known: dict[str, Tensor]) -> Tensor:
        rest = tuple(r for r in einsum.ranks if r != blocks.column)
        width = blocks.width.value if isinstance(blocks.width, Const) else inputs.params[blocks.width.name]
        sides = [Einsum(f"{einsum.target} inside", (blocks.token, *rest), blocks.inside)]
        if blocks.outside != Const(REDUCERS[blocks.op].identity):
            ranks = tuple(r for r in rest if r in free_vars(blocks.outside))
            sides.append(Einsum(f"{einsum.target} outside", (blocks.token, *ranks), blocks.outside))
        found = self._evaluated([e.target for e in sides], inputs, known, tuple(sides))
        inside = found[sides[0].target]
        outside = found[sides[1].target] if len(sides) > 1 else None
        if outside is not None:
            shown = [i if r in sides[1].ranks[1:] else None for i, r in enumerate(rest)]
            index = tuple(slice(None) if i is not None else None for i in shown)
            outside = outside[(slice(None), slice(None), slice(None), *index)]
        out = reduce_blocks(blocks, int(width), inputs.extents[blocks.column], inside, outside)
        at = einsum.ranks.index(blocks.column)
        return out.movedim(2, 2 + at)


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
