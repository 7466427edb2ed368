"""Candidates that need not be compiled: what cannot fit, and what a cost model says is slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from attngen.emit.configs import Config
from attngen.emit.triton.config import SHARED_BYTES, TritonConfig, shared_bytes

if TYPE_CHECKING:
    from attngen.arguments import Shapes
    from attngen.emit.spec import KernelSpec, Target

_MUCH_SLOWER = 3.0  # a candidate predicted to take so many times as long as the best prediction is not tried


class Predictor(Protocol):
    """A cost model."""

    def predict(self, spec: KernelSpec, config: Config, target: Target, shapes: Shapes) -> float | None:
        """Seconds that a launch takes; None where the model knows nothing, which keeps the candidate."""
        ...


def fits(config: Config, spec: KernelSpec, target: Target) -> bool:
    """Whether the shared memory of the target holds the tiles; always, for C++."""
    if not isinstance(config, TritonConfig) or target.arch not in SHARED_BYTES:
        return True
    from attngen.emit.triton.sides import shared_widths

    return shared_bytes(config, target, spec.dtype, *shared_widths(spec)) <= SHARED_BYTES[target.arch]


def ranked(
    configs: Iterable[Config], predictor: Predictor | None, spec: KernelSpec, target: Target, shapes: Shapes
) -> list[Config]:
    """The candidates worth a try, the most promising first; those of which nothing is known keep their places."""
    given = list(configs)
    if predictor is None:
        return given
    seconds = {c: predictor.predict(spec, c, target, shapes) for c in given}
    known = sorted((s, i) for i, c in enumerate(given) if (s := seconds[c]) is not None)
    if not known:
        return given
    limit = known[0][0] * _MUCH_SLOWER
    order = iter([given[i] for s, i in known if s <= limit])
    kept = [c for c in given if (s := seconds[c]) is None or s <= limit]
    return [c if seconds[c] is None else next(order) for c in kept]
