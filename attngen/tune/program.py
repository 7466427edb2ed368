"""Tune a whole program on one call: run it once to see its sweeps, then tune the kernel of each on its own.

Each kernel is measured with the tensors that it has in the call: what earlier sweeps left is there. The form of the
program (one pass, parts merged, a scan) is what the call takes, and is not searched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attngen.errors import ParameterError
from attngen.run_sweep import SweepCall
from attngen.tune.budget import budget_named
from attngen.tune.result import TuneResult
from attngen.tune.sweep import Means, tune_sweep

if TYPE_CHECKING:
    from attngen.run_program import ProgramRunner
    from attngen.run_sweep import Inputs


def tune_program(
    runner: ProgramRunner, inputs: Inputs, *, budget: str, seed: int, means: Means | None = None
) -> TuneResult:
    """Tune every kernel of a call. Raises ParameterError for a budget or backend that cannot be tuned."""
    limits = budget_named(budget)
    if inputs.backend == "reference" or inputs.settings is None:
        raise ParameterError(
            "the reference backend has no configurations", hint="tune the cpu or triton backend"
        )
    calls = sweeps_of(runner, inputs)
    if not calls:
        raise ParameterError("the call has no rows or no kernels: there is nothing to measure")
    settings = inputs.settings
    results = []
    for call in calls:
        results.append(tune_sweep(call, settings, limits, seed, means))
        if results[-1].interrupted:
            break
    return TuneResult(runner.analysed.program.name, budget, tuple(results))


def sweeps_of(runner: ProgramRunner, inputs: Inputs, *, run: bool = True) -> list[SweepCall]:
    """The kernels of a call, each with what it is given.

    The call is run once, with default configurations, to see them; where `run` is off nothing is, and the kernel is
    the one that computes the outputs in one pass.
    """
    if not run:
        return [SweepCall(runner.fold.sweep, inputs, None, None)]
    calls: list[SweepCall] = []
    quiet = None if inputs.settings is None else replace(inputs.settings, tune="off")
    with torch.no_grad():
        runner.run(replace(inputs, settings=quiet, observer=calls.append))
    return calls
