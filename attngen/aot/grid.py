"""How many tiles and thread blocks a launch has, as C expressions over what a call passes.

tiles of 128 queries                  ceil_div(n_q, 128)                          n_b * n_h * tiles
rows of all heads of a key head       ceil_div(n_q * (n_h / n_kv), 64)            n_b * n_kv * tiles
boxes of 8 x 8 on a grid              ceil_div(size_y, 8) * ceil_div(size_x, 8)   n_b * n_h * tiles
two programs a multiprocessor         ceil_div(n_q, 64)                           least(..., 2 * multiprocessors)
"""

from __future__ import annotations

from math import inf

from attngen.emit.configs import Config
from attngen.emit.spec import KernelSpec
from attngen.emit.triton.config import TritonConfig
from attngen.errors import InternalError
from attngen.lang.expr import Apply, Const, Expr, Param, Size
from attngen.planner.layout import Boxes, Layout, box_name, origin_name
from attngen.value import value

_OPERATORS = {"add": "+", "sub": "-", "mul": "*"}
_CALLS = {"min": "least", "max": "most", "floordiv": "floor_div", "mod": "floor_mod"}


@value
class Formulas:
    """Query tiles and key tiles of one head, and programs of a launch."""

    tiles: str
    key_tiles: str
    programs: str


def launch_formulas(spec: KernelSpec, config: Config) -> Formulas:
    """The formulas of a kernel."""
    heads = "n_h"
    plan = spec.plan.boxes
    if plan is not None:
        if spec.boxes is None:
            raise InternalError("a kernel of boxes needs their shapes")
        tiles, keys = _tiles(plan.q, spec.boxes), _tiles(plan.k, spec.boxes)
    elif isinstance(config, TritonConfig) and config.pack_heads:
        tiles, keys = f"ceil_div(n_q * (n_h / n_kv), {config.block_q})", f"ceil_div(n_k, {config.block_k})"
        heads = "n_kv"
    else:
        tiles, keys = f"ceil_div(n_q, {config.block_q})", f"ceil_div(n_k, {config.block_k})"
    programs = f"n_b * {heads} * {tiles}"
    if isinstance(config, TritonConfig) and config.persistent:
        programs = f"least({programs}, {config.persistent} * multiprocessors)"
    return Formulas(tiles, keys, programs)


def _tiles(layout: Layout, boxes: Boxes) -> str:
    """The product over the axes; a rank without tokens has no tiles."""
    numbers = boxes.numbers()
    parts: list[str] = []
    for axis in layout.axes:
        box, origin = numbers[box_name(layout.rank, axis.name)], numbers[origin_name(axis.name)]
        extent = _text(axis.most)
        before = f"{extent} + {origin}" if origin else extent
        parts.append(f"ceil_div({before}, {box})" if box > 1 else f"({before})")
    return " * ".join(["(n_q > 0)" if layout.rank == "q" else "(n_k > 0)", *parts])


def _text(expr: Expr) -> str:
    """An integer expression of sizes and parameters as C."""
    match expr:
        case Const(number):
            return str(int(number)) if abs(number) != inf else "0"
        case Param(name):
            return name
        case Size(name):
            return name
        case Apply(op, (left, right)) if op in _OPERATORS:
            return f"({_text(left)} {_OPERATORS[op]} {_text(right)})"
        case Apply(op, (left, right)) if op in _CALLS:
            return f"{_CALLS[op]}({_text(left)}, {_text(right)})"
        case Apply("neg", (of,)):
            return f"(-{_text(of)})"
        case _:
            raise InternalError(f"{type(expr).__name__} does not count tiles")
