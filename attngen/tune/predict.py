"""Candidates that need not be compiled: what cannot fit, and what a cost model says is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from attngen.emit.configs import Config
from attngen.emit.triton.config import SHARED_BYTES, TritonConfig, shared_bytes

if TYPE_CHECKING:
    from attngen.emit.spec import KernelSpec, Target
    from attngen.run_sweep import SweepCall

_MUCH_SLOWER = 3.0  # a candidate predicted to take so many times as long as the best prediction is not tried


# Seconds that a launch with a configuration takes; None where nothing is known, which keeps the candidate.
Predictor: TypeAlias = Callable[[Config], "float | None"]


def cost_model(call: SweepCall, threads: int | None) -> Predictor:
    """The predictions for a call; none for masks that are planned tile by tile, where each may cost a build."""
    from attngen.cost.model import CallModel

    model = CallModel(call, threads)
    return model.predict if model.is_closed else _nothing


def _nothing(_config: Config) -> None:
    return None


def fits(config: Config, spec: KernelSpec, target: Target) -> bool:
    """Whether the shared memory of the target may hold the tiles; always, for C++."""
    if not isinstance(config, TritonConfig) or target.arch not in SHARED_BYTES:
        return True
    from attngen.emit.triton.sides import needs_weights, shared_widths

    widths, weights = shared_widths(spec), needs_weights(spec, target)
    least = shared_bytes(config, target, spec.dtype, *widths, with_weights=weights)
    return least <= SHARED_BYTES[target.arch]


def ranked(configs: Iterable[Config], predict: Predictor) -> list[Config]:
    """The candidates worth a try, the most promising first; those of which nothing is known keep their places."""
    given = list(configs)
    seconds = {c: predict(c) for c in given}
    known = sorted((s, i) for i, c in enumerate(given) if (s := seconds[c]) is not None)
    if not known:
        return given
    limit = known[0][0] * _MUCH_SLOWER
    order = iter([given[i] for s, i in known if s <= limit])
    kept = [c for c in given if (s := seconds[c]) is None or s <= limit]
    return [c if seconds[c] is None else next(order) for c in kept]
