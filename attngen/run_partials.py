"""Run a fold over parts of the keys and merge: over splits of the keys, or over chunks of them, as a prefix scan."""

from __future__ import annotations

from dataclasses import replace

import torch

from attngen.algebra.fold import Fold
from attngen.algebra.partials import (
    Partials,
    chunk_states,
    limit_of,
    rest_states,
    split,
    split_params,
    states_of,
)
from attngen.analysed import analyse
from attngen.choose_algorithm import SCAN_CHUNK
from attngen.lang.program import Program
from attngen.merging import Rows
from attngen.run_sweep import Inputs, SweepRunner

Tensor = torch.Tensor
States = dict[str, Tensor]


def _runner(partials: Partials) -> SweepRunner:
    return SweepRunner(
        analyse(partials.program, partials.fold, written=False), exact=frozenset(partials.program.outputs)
    )


def _rows(inputs: Inputs, fold: Fold, n_q: int) -> Rows:
    shapes = inputs.shapes
    given = {**inputs.tensors, **inputs.params}
    return Rows(shapes.batch, shapes.heads, n_q, inputs.query.device, given, shapes.sizes())


class SplitRunner:
    """Local, then merge: every part of the keys on its own, and the parts merged."""

    def __init__(self, program: Program, fold: Fold, splits: int) -> None:
        self.splits, self.fold = splits, fold
        self.partials = split(states_of(program, fold))
        self.sweep = _runner(self.partials)

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """The outputs by name, fp32 `[B, H, n_q(, columns)]`."""
        shapes = inputs.shapes
        names = split_params(self.partials)
        width = -(-shapes.n_k // self.splits)
        params = {**inputs.params, names[0]: self.splits, names[1]: max(width, 1)}
        heads = shapes.heads * self.splits
        outs = self.sweep.run(replace(inputs, params=params), heads=heads)
        states = {n: _wide(t, self.fold, n) for n, t in outs.items()}
        parts = {n: t.unflatten(1, (shapes.heads, self.splits)).movedim(2, 0) for n, t in states.items()}
        rows = _rows(inputs, self.fold, shapes.n_q)
        return finished_rows(self.fold, rows, rows.merged_stack(self.fold, parts))


class ScanRunner:
    """A prefix scan: the states of chunks, merged in order, and the rest of each query's own chunk."""

    def __init__(self, program: Program, fold: Fold) -> None:
        partials = states_of(program, fold)
        assert program.mask is not None
        self.program, self.fold = program, fold
        self.end = limit_of(program.mask)
        self.chunks = _runner(chunk_states(partials, SCAN_CHUNK))
        self.rest = _runner(rest_states(partials, SCAN_CHUNK))

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """The outputs by name, fp32 `[B, H, n_q(, columns)]`."""
        shapes = inputs.shapes
        rows = _rows(inputs, self.fold, shapes.n_q)
        near = {n: _wide(t, self.fold, n) for n, t in self.rest.run(inputs).items()}
        n_chunks = shapes.n_k // SCAN_CHUNK
        if n_chunks:
            done = self.chunks.run(inputs, rows=n_chunks)
            before = self._scanned({n: _wide(t, self.fold, n) for n, t in done.items()}, inputs)
            cut = (rows.value(self.end, {}) // SCAN_CHUNK).expand(shapes.batch, shapes.heads, shapes.n_q, 1)
            far = {n: t.gather(2, cut.expand(-1, -1, -1, t.shape[3])) for n, t in before.items()}
            near = rows.merged(self.fold, [far, near])
        return finished_rows(self.fold, rows, near)

    def _scanned(self, states: States, inputs: Inputs) -> States:
        """The states over all chunks before each, and over all of them: one more row than there are chunks."""
        from attngen.lang.ops import REDUCERS

        reduce = {s.name: REDUCERS[s.reduce].identity for s in self.fold.states}
        total = {n: torch.cat([torch.full_like(t[:, :, :1], reduce[n]), t], dim=2) for n, t in states.items()}
        n = next(iter(total.values())).shape[2]
        step = 1
        while step < n:  # after a round, each row holds the chunks of the last 2 * step rows up to it
            rows = _rows(inputs, self.fold, n - step)
            earlier = {k: t[:, :, : n - step] for k, t in total.items()}
            later = {k: t[:, :, step:] for k, t in total.items()}
            merged = rows.merged(self.fold, [earlier, later])
            total = {k: torch.cat([t[:, :, :step], merged[k]], dim=2) for k, t in total.items()}
            step *= 2
        return total


def _wide(t: Tensor, fold: Fold, name: str) -> Tensor:
    """A state with a column axis."""
    ranks = next(s.ranks for s in fold.states if s.name == name)
    return t[..., None] if len(ranks) == 1 else t


def finished_rows(fold: Fold, rows: Rows, states: States) -> dict[str, Tensor]:
    """The outputs of merged states: `[B, H, n_q]` or `[B, H, n_q, columns]`."""
    done = rows.finished(fold, states)
    ranks = {s.name: s.ranks for s in (*fold.absorb, *fold.finish)}
    return {n: t[..., 0] if len(ranks[n]) == 1 else t for n, t in done.items()}
