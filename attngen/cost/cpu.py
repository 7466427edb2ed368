"""Seconds of a launch of a C++ kernel: work counted, times prices, shared by threads that do not end together."""

from __future__ import annotations

import numpy as np

from attngen.cost.balance import imbalance, in_launch_order
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
    work = launch_work(spec, visits, core, group)
    price = prices("cpu")
    parts = {name: amount * price[name] for name, amount in work.items() if amount * price[name] > 0}
    if min(threads, visits.full.size) > 1:
        parts["threads"] = _TEAM_S * threads
    uneven = unevenness(spec, visits, threads)
    shared = {name: part / threads for name, part in parts.items()}
    facts = {"rows of work": float(visits.full.size), "threads": float(threads), "imbalance": uneven}
    return Estimate(config, sum(shared.values()) * uneven, shared, facts)


def launch_work(spec: KernelSpec, visits: Visits, core: Core, group: int) -> dict[str, float]:
    """The quantities of one launch."""
    element = 4 if spec.dtype == "float32" else 2
    return cpu_work(visits, pair_ops(spec), row_widths(spec), core, element, group)


def unevenness(spec: KernelSpec, visits: Visits, threads: int) -> float:
    """By how much the work of the thread that ends last exceeds the average: 1 or more."""
    rows = (visits.partial * PARTIAL + visits.full * FULL + _BEGIN).astype(np.float64)
    return imbalance(in_launch_order(rows, longest_first=spec.ordered), threads)
