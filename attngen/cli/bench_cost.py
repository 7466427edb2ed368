"""`attngen bench cost`: measure configurations of many kernels, fit prices to them, and judge predictions."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from attngen.cost.core import core_of
from attngen.emit.target import parse_target
from attngen.errors import AttngenError

if TYPE_CHECKING:
    from attngen.bench.cost.suite import Judgement

_CONFIGS = 7


def run_cost(args: argparse.Namespace) -> int:
    """Print a line a call and the figures of the predictions; write what was measured, and with `--fit` the prices."""
    import torch

    from attngen.bench.cost import suite
    from attngen.bench.timing import machine
    from attngen.cost.prices import prices

    threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    facts = machine()
    print(f"{facts['processor']}, {threads} threads, torch {facts['torch']}, {args.rounds} rounds")
    points = []
    for case, found in suite.run_suite(
        suite.chosen_cases(args.case), configs=_CONFIGS, rounds=args.rounds, threads=threads
    ):
        points += found
        times = [p.seconds * 1e3 for p in found]
        spread = f"{min(times):9.3f} to {max(times):9.3f} ms" if times else "nothing was built"
        print(f"{case.name:64} {len(found):3} points  {spread}", flush=True)
    if not points:
        raise AttngenError("nothing was measured", hint="see the log: ATTNGEN_LOG=info")
    price = suite.cpu_prices(points) if args.fit else prices("cpu")
    judgement = suite.judge(points, price)
    _show(judgement)
    if args.fit:
        tiles = {} if args.static is None else suite.tile_prices(args.static)
        suite.write_prices(price, tiles, f"{facts['processor']}, {facts['date']}")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(_text(facts, judgement, price, [p.as_json() for p in points]), encoding="utf-8")
    return 0


def _show(judgement: Judgement) -> None:
    print(f"{'':32}{'fitted':>10}{'left out':>10}")
    for name, value in judgement.fitted.items():
        print(f"{name:32}{value:>10}{judgement.left_out[name]:>10}")


def _text(
    facts: dict[str, str | int], judgement: Judgement, price: object, points: list[dict[str, object]]
) -> str:
    """JSON with a point a line."""
    lines = ",\n  ".join(json.dumps(p) for p in points)
    core = asdict(core_of(parse_target("cpu")))
    known = {"machine": facts, "core": core, "judgement": asdict(judgement), "prices": price}
    head = json.dumps(known, indent=1)
    return head[:-2] + f',\n "points": [\n  {lines}\n ]\n}}\n'
