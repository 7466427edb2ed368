"""The cost suite: measure, fit, judge, and write what was found and the prices that follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from attngen.bench.cost.cases import CASES, CostCase
from attngen.bench.cost.fit import fitted_prices
from attngen.bench.cost.measure import Point, measure
from attngen.bench.cost.quality import judged, left_out
from attngen.cost.cpu_work import QUANTITIES
from attngen.cost.prices import FILE, FORMAT

SEED = 0
UNITS = ("issue", "alu", "special", "tensor")
_TILES = ("sm_80", "sm_90")  # whose loops the static tables simulate


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good the prices are: on the points they were fitted to, and on each program by prices of the others."""

    fitted: Mapping[str, float]
    left_out: Mapping[str, float]


def run_suite(
    cases: Sequence[CostCase], *, configs: int, rounds: int, threads: int
) -> Iterator[tuple[CostCase, list[Point]]]:
    """Measure every case."""
    for case in cases:
        yield case, list(measure(case, configs, rounds, SEED, threads))


def chosen_cases(names: Sequence[str]) -> tuple[CostCase, ...]:
    """The cases of these programs, all by default."""
    return tuple(c for c in CASES if not names or c.program in names)


def cpu_prices(points: Sequence[Point]) -> dict[str, float]:
    """The prices of a CPU's work."""
    seconds, groups = [p.seconds for p in points], [p.group for p in points]
    return fitted_prices([_scaled(p) for p in points], seconds, list(QUANTITIES), groups)


def judge(points: Sequence[Point], price: Mapping[str, float]) -> Judgement:
    """Whether prices rank configurations and pick the right ones."""
    groups, seconds = [p.group for p in points], [p.seconds for p in points]

    def without(mine: Sequence[int]) -> dict[int, float]:
        rest = cpu_prices([p for i, p in enumerate(points) if i not in set(mine)])
        return {i: predicted(points[i], rest) for i in mine}

    return Judgement(
        judged(groups, [predicted(p, price) for p in points], seconds),
        judged(groups, left_out([p.program for p in points], without), seconds),
    )


def predicted(point: Point, price: Mapping[str, float]) -> float:
    """Seconds of a point by these prices."""
    return sum(price[n] * amount for n, amount in _scaled(point).items())


def _scaled(point: Point) -> dict[str, float]:
    """The work of the thread that ends last."""
    return {n: amount * point.imbalance / point.threads for n, amount in point.work.items()}


def tile_prices(static: Path) -> dict[str, dict[str, float]]:
    """The share of each unit's cycles in those of a tile, fitted to the simulated loops of the static tables."""
    held = cast("dict[str, Any]", json.loads(static.read_text(encoding="utf-8")))
    found: dict[str, dict[str, float]] = {}
    for arch in _TILES:
        loops = [
            loop
            for kernel in held["results"]
            if kernel["target"] == arch
            for loop in kernel.get("loops", ())
            if loop["simulated"]
        ]
        cycles = [loop["cycles"]["tensor"] / loop["simulated"] for loop in loops]
        found[f"tile {arch}"] = fitted_prices([loop["cycles"] for loop in loops], cycles, UNITS)
    return found


def write_prices(
    cpu: Mapping[str, float] | None, tiles: Mapping[str, Mapping[str, float]], source: str
) -> None:
    """Rewrite the file of prices, keeping what is not given."""
    held: dict[str, Any] = (
        json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"format": FORMAT}
    )
    if cpu is not None:
        held["cpu"] = {"source": source, "seconds": dict(cpu)}
    for name, units in tiles.items():
        held[name] = {"source": "the static tables of kernels", "seconds": dict(units)}
    FILE.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
