"""How good predictions are: whether they rank, and what their pick costs against the best that was measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs."""
    x, y = _ranks(np.asarray(a)), _ranks(np.asarray(b))
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse]


def pick_losses(
    groups: Sequence[Hashable], predicted: Sequence[float], measured: Sequence[float]
) -> list[float]:
    """For each group the time of the one predicted to be fastest over the time of the fastest; 1 is a perfect pick."""
    held: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for group, p, m in zip(groups, predicted, measured, strict=True):
        held[group].append((p, m))
    return [min(points)[1] / min(m for _, m in points) for points in held.values() if len(points) > 1]


def judged(
    groups: Sequence[Hashable], predicted: Sequence[float], measured: Sequence[float]
) -> dict[str, float]:
    """The figures that a report shows."""
    held: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for group, p, m in zip(groups, predicted, measured, strict=True):
        held[group].append((p, m))
    inside = [rank_correlation(*zip(*points, strict=True)) for points in held.values() if len(points) > 3]
    losses = pick_losses(groups, predicted, measured)
    errors = [abs(p / m - 1) for p, m in zip(predicted, measured, strict=True)]
    return {
        "points": len(measured),
        "groups": len(held),
        "rank_correlation": round(rank_correlation(predicted, measured), 4),
        "rank_correlation_within_groups": round(statistics.median(inside), 4),
        "pick_over_best_median": round(statistics.median(losses), 4),
        "pick_over_best_mean": round(statistics.fmean(losses), 4),
        "pick_over_best_worst": round(max(losses), 4),
        "error_median": round(statistics.median(errors), 4),
    }


def left_out(programs: Sequence[str], predict: Callable[[Sequence[int]], Mapping[int, float]]) -> list[float]:
    """Predictions for each program by prices that saw none of its points: `predict` fits to all but those given."""
    out = [0.0] * len(programs)
    for name in dict.fromkeys(programs):
        mine = [i for i, p in enumerate(programs) if p == name]
        for i, seconds in predict(mine).items():
            out[i] = seconds
    return out
