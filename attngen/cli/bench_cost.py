"""`attngen bench cost`: measure configurations of many kernels, fit prices to them, and judge predictions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen.cost.core import core_of
from attngen.emit.target import parse_target
from attngen.errors import InputFileError, ParameterError

if TYPE_CHECKING:
    from attngen.bench.cost.measure import Point
    from attngen.bench.cost.suite import Judgement

_CONFIGS = 7


def run_cost(args: argparse.Namespace) -> int:
    """Print a line a call and the figures of the predictions; write what was measured, and with `--fit` the prices."""
    from attngen.bench.cost import suite
    from attngen.cost.prices import prices

    facts, core, points = _measured(args) if args.points is None else _read(args.points)
    if not points:
        raise ParameterError("nothing was measured", hint="name programs of the suite with --case")
    price = suite.cpu_prices(points) if args.fit else prices("cpu")
    judgement = suite.judge(points, price)
    _show(judgement)
    if args.fit:
        tiles = {} if args.static is None else suite.tile_prices(args.static)
        suite.write_prices(price, tiles, f"{facts['processor']}, {facts['date']}")
    if args.out is not None:
        known = {"machine": facts, "core": core, "judgement": asdict(judgement), "prices": price}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(_text(known, [p.as_json() for p in points]), encoding="utf-8")
    return 0


def _measured(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], list[Point]]:
    """The machine, its core, and the points of every case."""
    import torch

    from attngen.bench.cost import suite
    from attngen.bench.timing import machine

    threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    facts = machine()
    print(f"{facts['processor']}, {threads} threads, torch {facts['torch']}, {args.rounds} rounds")
    points: list[Point] = []
    for case, found in suite.run_suite(
        suite.chosen_cases(args.case), configs=_CONFIGS, rounds=args.rounds, threads=threads
    ):
        points += found
        times = [p.seconds * 1e3 for p in found]
        spread = f"{min(times):9.3f} to {max(times):9.3f} ms" if times else "nothing was built"
        print(f"{case.name:64} {len(found):3} points  {spread}", flush=True)
    return facts, asdict(core_of(parse_target("cpu"))), points


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[Point]]:
    """The same from what an earlier run wrote."""
    from attngen.bench.cost.measure import Point

    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return held["machine"], held["core"], [Point(**p) for p in held["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"{path} is not a result of this suite: {error}") from error


def _show(judgement: Judgement) -> None:
    print(f"{'':32}{'fitted':>10}{'left out':>10}")
    for name, value in judgement.fitted.items():
        print(f"{name:32}{value:>10}{judgement.left_out[name]:>10}")


def _text(known: Mapping[str, object], points: list[dict[str, object]]) -> str:
    """JSON with a point a line."""
    lines = ",\n  ".join(json.dumps(p) for p in points)
    return json.dumps(known, indent=1)[:-2] + f',\n "points": [\n  {lines}\n ]\n}}\n'
