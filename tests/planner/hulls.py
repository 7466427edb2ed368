"""The hulls of a closed-form plan, evaluated for each query tile with the lets alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.planner.plan import TilePlan
from attngen.planner.rows import RowExtreme


def hulls(case: Any, plan: TilePlan) -> Iterator[tuple[tuple[int, int, slice], list[tuple[int, int]]]]:
    """`((b, h, rows), [(lo, hi), ...])` for every query tile of every head."""
    sizes = {"n_q": case.n_q, "n_k": case.n_k, "n_b": 2, "n_h": 2}
    for b, h in np.ndindex(2, 2):
        for q_lo in range(0, case.n_q, case.block_q):
            q_hi = min(q_lo + case.block_q, case.n_q) - 1
            known: dict[str, Any] = {"b": b, "h": h, "q_lo": q_lo, "q_hi": q_hi, "block_k": case.block_k}
            for name, expr in plan.lets:
                known[name] = evaluate(expr, lambda e: _leaf(e, known, sizes, case.values), NUMPY_OPS)  # noqa: B023
            spans = [(int(known[lo]), int(known[hi])) for lo, hi in plan.hulls]
            yield (b, h, slice(q_lo, q_hi + 1)), spans


def _leaf(expr: Expr, known: dict[str, Any], sizes: dict[str, int], values: dict[str, Any]) -> Any:
    match expr:
        case Const(value):
            return value
        case Var(name):
            return known[name]
        case Size(name):
            return sizes[name]
        case Param(name):
            return values[name]
        case Load(name, indices):
            index = (evaluate(i, lambda e: _leaf(e, known, sizes, values), NUMPY_OPS) for i in indices)
            shape = values[name].shape
            return values[name][
                tuple(np.clip(np.int64(i), 0, n - 1) for i, n in zip(index, shape, strict=True))
            ]
        case RowExtreme(op, body):
            rows = range(int(known["q_lo"]), int(known["q_hi"]) + 1)
            each = [
                evaluate(body, lambda e, q=q: _leaf(e, known | {"q": q}, sizes, values), NUMPY_OPS)
                for q in rows
            ]
            return min(each) if op == "min" else max(each)
    raise AssertionError(expr)
