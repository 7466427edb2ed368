"""Run a specification: one kernel where that is enough, else its sweeps, in the form that suits the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from attngen import forms
from attngen.analysed import Analysed
from attngen.run_fold import FoldRunner
from attngen.run_sweep import Inputs

if TYPE_CHECKING:
    from attngen.choose_algorithm import Algorithm
    from attngen.run_sweeps import SweepsRunner

Tensor = torch.Tensor


class ProgramRunner:
    """A program with a runner for each way of computing it that calls have needed.

    algorithm  the one that was asked for; None leaves it to the cost model.
    """

    def __init__(self, analysed: Analysed, algorithm: str | None = None) -> None:
        self.analysed = analysed
        self.algorithm: Algorithm | None = None
        if algorithm is not None:
            from attngen.choose_algorithm import checked

            self.algorithm = checked(algorithm)
        self.fold = FoldRunner(analysed)
        self._sweeps: dict[str, SweepsRunner] = {}

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """The outputs by name, `[B, H or 1, *ranks]`."""
        known = forms.forms_of(self.analysed)
        way = self._way(inputs, known)
        if way == "follow" and known.single:
            return self.fold.run(inputs, self.algorithm)
        if way not in self._sweeps:
            from attngen.run_sweeps import SweepsRunner

            sweeps = forms.sweeps_of(self.analysed, reassociate=way == "reassociate", follow=way != "several")
            self._sweeps[way] = SweepsRunner(self.analysed.program, sweeps)
        return self._sweeps[way].run(inputs, self.algorithm)

    def _way(self, inputs: Inputs, known: forms.Forms) -> str:
        """How reductions are taken: they "follow" running statistics, in "several" passes, or "reassociate"."""
        if self.algorithm == "several_passes":
            return "several"
        if not known.products or self.algorithm not in (None, "reassociated"):
            return "follow"
        if inputs.kernels is not None and not inputs.kernels.has("reassociated"):
            return "follow"
        if self.algorithm is None and not self._reassociating_pays(inputs):
            return "follow"
        return "reassociate"

    def _reassociating_pays(self, inputs: Inputs) -> bool:
        from attngen import choose_algorithm as cost
        from attngen.store.settings import settings

        machine = cost.machine_of(inputs.query.device, settings().threads)
        masked = self.analysed.program.mask is not None
        state, pairs = cost.product_seconds(inputs.shapes, machine, masked=masked)
        return state < pairs
