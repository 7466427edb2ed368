"""The configuration of a kernel of which nothing was measured: the default, or one predicted to be far faster.

Another tile size is another kernel to build, and predictions are off by some hundredths; so the default is left only
for what a prediction can be sure of: rows of work too few for all units. Candidates have fewer rows and the keys of the
default, so that sums of a row are taken in the same order: what is chosen depends on the number of threads, and results
must not. What was chosen for calls that are alike is kept on disk. Masks whose schedule is looked up tile by tile keep
the default, since every other size would have to be planned first; so do boxes of coordinates, whose keys would change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from attngen.analysed import recall, remember
from attngen.emit.configs import Config, config_from_json, config_to_json
from attngen.emit.cpu_config import QUERY_STEP, CpuConfig
from attngen.emit.triton.config import MIN_BLOCK

if TYPE_CHECKING:
    from attngen.cost.model import CallModel
    from attngen.emit.triton.config import TritonConfig
    from attngen.run_sweep import SweepCall
    from attngen.tune.space import Space

log = logging.getLogger("attngen.tune")

_MARGIN = {"cpu": 1.15, "triton": 1.25}
_LEAST_S = 20e-6  # that a launch must save: less would not pay for another kernel in a day
_CPU_ROWS = tuple(QUERY_STEP * n for n in (1, 2, 4, 8))


def picked(call: SweepCall, facts: dict[str, object]) -> Config | None:
    """The configuration that calls like this one take; None for the default. `facts` are what such calls share."""
    from attngen.store.fingerprint import fingerprint

    kind = str(facts["kind"])
    key = {**facts, "sources": fingerprint("cost", "emit", "planner", "tune")}
    known = recall("pick", key)
    if known is not None:
        document = known.get("config")
        return config_from_json(kind, document) if isinstance(document, dict) else None
    config = _predicted(call, kind)
    remember("pick", key, {"config": None if config is None else config_to_json(config)})
    return config


def _predicted(call: SweepCall, kind: str) -> Config | None:
    from attngen.cost.model import CallModel
    from attngen.tune.space import space_of

    model = CallModel(call)
    if not model.is_in_rows:
        return None
    spec, default = model.default()
    return best_of(model, space_of(default, spec, model.target), _MARGIN[kind], call.runner.program.name)


def best_of(model: CallModel, space: Space, margin: float, name: str) -> Config | None:
    """The candidate of the least prediction, if the default is predicted to take `margin` times as long or more."""
    first = model.estimate(space.default)
    if first is None:
        return None
    found = [e for c in dict.fromkeys(candidates(space.default)) if c in space and (e := model.estimate(c))]
    best = min(found, key=lambda e: e.seconds, default=None)
    if best is None or first.seconds - best.seconds < max((margin - 1) * best.seconds, _LEAST_S):
        log.debug("%s keeps the default configuration, %s", name, first.text())
        return None
    log.info("%s: %s\n  the default one is predicted to take %s", name, best.text(), first.text())
    return best.config


def candidates(default: Config) -> Iterator[Config]:
    """What is worth a prediction: the default tile with other rows of C++, with fewer rows and warps of Triton."""
    if isinstance(default, CpuConfig):
        for rows in _CPU_ROWS:
            yield replace(default, block_q=rows)
        return
    yield from _smaller_tiles(default)


def _smaller_tiles(default: TritonConfig) -> Iterator[TritonConfig]:
    rows = default.block_q
    while rows >= MIN_BLOCK:
        # a warp has 16 rows of a matrix instruction, or computes what another one does
        warps = max(min(default.num_warps, rows // MIN_BLOCK), 1)
        limit = default.max_registers if warps == default.num_warps else 0
        yield replace(default, block_q=rows, num_warps=warps, max_registers=limit)
        rows //= 2
