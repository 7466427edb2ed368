"""How long units that take rows of work as they come are busy, against how long they would be if they shared evenly."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS = 8192


def in_launch_order(rows: NDArray[np.float64], *, longest_first: bool) -> NDArray[np.float64]:
    """The work of rows `[B, H, q tiles]` in the order in which a launch takes them: the last tiles of a head first."""
    work = rows[..., ::-1].reshape(-1)
    return -np.sort(-work) if longest_first else work


def imbalance(work: NDArray[np.float64], units: int) -> float:
    """The longest unit's work over the average: 1 or more.

    work   of each row, in the order in which rows are taken; a unit that is free takes the next.
    units  that work at a time; more than there are rows of work stand idle, which counts.
    """
    total = float(work.sum())
    if total <= 0 or units <= 1:
        return 1.0
    even = total / units
    if work.size > _MOST_ROWS:  # the end of so many rows is short against all of them
        return 1.0 + float(work[-units:].max()) / 2 / even
    busy = [0.0] * min(units, work.size)
    for amount in work:
        heapq.heapreplace(busy, busy[0] + float(amount))
    return max(busy) / even
