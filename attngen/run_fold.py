"""Run one fold in the form that suits the call: in one go, over parts of the keys, or as a scan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attngen import forms
from attngen.analysed import Analysed
from attngen.run_sweep import Inputs, SweepRunner

if TYPE_CHECKING:
    from attngen.algebra.steps import Rows
    from attngen.choose_algorithm import Algorithm
    from attngen.run_partials import ScanRunner, SplitRunner

Tensor = torch.Tensor

_KEPT_CHOICES = 64


class FoldRunner:
    """One program of one fold, with a runner for each form that calls have needed."""

    def __init__(self, analysed: Analysed, rows: Rows = "q", exact: frozenset[str] = frozenset()) -> None:
        self.sweep = SweepRunner(analysed, rows, exact)
        self._splits: dict[int, SplitRunner] = {}
        self._scan: ScanRunner | None = None
        self._choices: dict[tuple[object, ...], int] = {}

    @property
    def analysed(self) -> Analysed:
        """The program."""
        return self.sweep.analysed

    def run(self, inputs: Inputs, algorithm: Algorithm | None = None) -> dict[str, Tensor]:
        """The outputs by name, `[B, H, *ranks]`. A form that the fold does not have is run in one pass."""
        splits = self._form(inputs, algorithm)
        if splits == 1:
            return self.sweep.run(inputs)
        runner = self.scan_runner() if splits == 0 else self.split_runner(splits)
        outs = runner.run(inputs)
        dtype = inputs.query.dtype
        program = self.analysed.program
        rounded = {
            n for n in outs if n not in self.sweep.exact and "e" in getattr(program.einsum(n), "ranks", ())
        }
        return {n: t.to(dtype) if n in rounded else t for n, t in outs.items()}

    def _form(self, inputs: Inputs, algorithm: Algorithm | None) -> int:
        """The number of splits; 1 for none, 0 for a scan."""
        if self.sweep.rows != "q" or algorithm in ("one_pass", "several_passes", "reassociated"):
            return 1
        known = forms.forms_of(self.analysed)
        if inputs.kernels is not None:
            known = replace(
                known,
                mergeable=known.mergeable and inputs.kernels.has("local_then_merge"),
                prefix=known.prefix and inputs.kernels.has("scan"),
            )
        if not (known.mergeable or known.prefix):
            return 1
        shapes, device = inputs.shapes, inputs.query.device
        if not (shapes.batch and shapes.heads and shapes.n_q and shapes.n_k):
            return 1
        key = (shapes, device, algorithm)
        if key not in self._choices:
            if len(self._choices) >= _KEPT_CHOICES:
                self._choices.clear()
            self._choices[key] = self._chosen(inputs, algorithm, known)
        return self._choices[key]

    def _chosen(self, inputs: Inputs, algorithm: Algorithm | None, known: forms.Forms) -> int:
        from attngen import choose_algorithm as cost
        from attngen.store.settings import settings

        shapes = inputs.shapes
        machine = cost.machine_of(inputs.query.device, settings().threads)
        if algorithm is None and not known.prefix and cost.has_rows_for_all(shapes, machine):
            return 1  # known without the fold
        fold = forms.fold_of(self.analysed)
        found = cost.fold_forms(fold, shapes, machine, mergeable=known.mergeable, prefix=known.prefix)
        if algorithm is None:
            return cost.chosen_form(found).splits
        return next((f.splits for f in found if f.name == algorithm), 1)

    def split_runner(self, splits: int) -> SplitRunner:
        """The runner for so many parts of the keys; the kernel of all of them is the same."""
        if splits not in self._splits:
            from attngen.run_partials import SplitRunner

            fold = forms.fold_of(self.analysed)
            self._splits[splits] = SplitRunner(self.analysed.program, fold, splits)
        return self._splits[splits]

    def scan_runner(self) -> ScanRunner:
        """The runner for a prefix scan."""
        if self._scan is None:
            from attngen.run_partials import ScanRunner

            self._scan = ScanRunner(self.analysed.program, forms.fold_of(self.analysed))
        return self._scan
