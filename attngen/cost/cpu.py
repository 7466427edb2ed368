"""Seconds of a launch of a C++ kernel: work counted, times prices, shared by threads that do not end together."""

from __future__ import annotations

import numpy as np

from attngen.cost.balance import imbalance
from attngen.cost.cpu_work import Core, cpu_work
from attngen.cost.estimate import Estimate
from attngen.cost.kernel_ops import pair_ops, row_widths
from attngen.cost.prices import prices
from attngen.cost.visits import Visits
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.spec import KernelSpec
from attngen.planner.order import FULL, PARTIAL

_TEAM_S = 5e-6  # until threads have begun and ended together
_BEGIN = 4  # a row of work begins and ends, which takes about as long as one tile


def cpu_estimate(
    spec: KernelSpec, config: CpuConfig, visits: Visits, core: Core, *, group: int, threads: int
) -> Estimate:
    """The prediction for one configuration; `threads` are those of the launch, if the configuration says nothing."""
    threads = config.threads or threads
    element = 4 if spec.dtype == "float32" else 2
    work = cpu_work(visits, pair_ops(spec), row_widths(spec), core, element, group)
    price = prices("cpu")
    parts = {name: amount * price[name] for name, amount in work.items() if amount * price[name] > 0}
    if min(threads, visits.full.size) > 1:
        parts["threads"] = _TEAM_S * threads
    uneven = imbalance(row_work(visits, longest_first=spec.ordered), threads)
    shared = {name: part / threads for name, part in parts.items()}
    facts = {"rows of work": float(visits.full.size), "threads": float(threads), "imbalance": uneven}
    return Estimate(config, sum(shared.values()) * uneven, shared, facts)


def row_work(visits: Visits, *, longest_first: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The work of each row, in the order in which a launch takes them: the last tiles of a head first."""
    work = (visits.partial * PARTIAL + visits.full * FULL + _BEGIN)[..., ::-1].reshape(-1).astype(np.float64)
    return -np.sort(-work) if longest_first else work
