"""Prices from measurements: non-negative ones, under which predictions are off by the least part of what was measured.

    minimise over p >= 0    sum over points i of ((sum over quantities j of p[j] * work[i, j]) / seconds[i] - 1) ** 2

                          + weight * sum over points i of (ratio[i] - mean of the ratios of i's group) ** 2

where ratio[i] is a point's prediction over its measurement. The second sum is about the order of configurations of one
kernel and call, which is what a pick goes by: there it does no harm if all are off by the same part. A price that is 0
says that a quantity tells nothing that others do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 20000
_WEIGHT = 1.0
_RIDGE = 1e-6  # keeps prices of quantities that always come together from being arbitrary

Array = NDArray[np.float64]


def fitted_prices(
    work: Sequence[Mapping[str, float]],
    seconds: Sequence[float],
    names: Sequence[str],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Seconds a unit of each quantity; without `groups` there is no second sum."""
    table = np.array([[w.get(n, 0.0) for n in names] for w in work]) / np.array(seconds)[:, None]
    scale = np.sqrt((table**2).sum(0))
    scale[scale == 0] = np.inf  # what never occurs has no price
    table /= scale
    rows, wanted = [table], [np.ones(len(table))]
    if groups is not None:
        rows.append(_WEIGHT**0.5 * _from_mean(table, groups))
        wanted.append(np.zeros(len(table)))
    found = _non_negative(np.concatenate(rows), np.concatenate(wanted))
    return {n: float(f"{p:.6g}") for n, p in zip(names, found / scale, strict=True)}


def _from_mean(table: Array, groups: Sequence[str]) -> Array:
    """Each row less the mean of its group's."""
    _, at = np.unique(np.array(groups), return_inverse=True)
    means = np.zeros((int(at.max()) + 1, table.shape[1]))
    np.add.at(means, at, table)
    means /= np.bincount(at)[:, None]
    return table - means[at]


def _non_negative(table: Array, target: Array) -> Array:
    """The x >= 0 of the least |table @ x - target|, by turns over the coordinates."""
    gram = table.T @ table + _RIDGE * np.eye(table.shape[1])
    wanted = table.T @ target
    x = np.zeros(table.shape[1])
    for _ in range(_ROUNDS):
        before = x.copy()
        for j in range(x.size):
            x[j] = max(0.0, x[j] + (wanted[j] - gram[j] @ x) / gram[j, j])
        if float(np.abs(x - before).max()) < 1e-10:
            break
    return x
