"""Print how large a launch is as C expressions: query and key tiles of one head, and programs of the launch.

    rows of 128 queries             ceil_div(n_q, 128)                        n_b * n_h * ceil_div(n_q, 128)
    packed, tiles of 64 rows        ceil_div(n_q * (n_h / n_kv), 64)          n_b * n_kv * ...
    boxes of 8 x 16 on grid(y, x)   ceil_div(ceil_div(n_q, size_x), 8) * ceil_div(size_x, 16)

Every number in them is zero or more, so that `/` of C is the floor division of the language.
"""

from __future__ import annotations

from math import prod

from attngen.emit.configs import Config
from attngen.emit.spec import KernelSpec
from attngen.emit.triton.config import TritonConfig
from attngen.errors import InternalError
from attngen.lang.expr import Apply, Const, Expr, Param, Size
from attngen.planner.layout import Boxes, Layout, box_name, origin_name

_SIZES = {"n_q": "n_q", "n_k": "n_k", "n_b": "n_b", "n_h": "n_h", "n_g": "n_kv"}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "floordiv": "/"}


def launch_formulas(spec: KernelSpec, config: Config) -> tuple[str, str, str]:
    """`Launch.tiles`, `Launch.key_tiles` and `Launch.programs` of a kernel.

    They read the kernel's own extents: of one whose rows are keys, `n_q` counts keys.
    """
    heads = "n_h"
    key_tiles = f"ceil_div(n_k, {config.block_k})"
    if spec.plan.boxes is not None:
        if spec.boxes is None:
            raise InternalError("a kernel of boxes needs their shapes")
        tiles = _box_tiles(spec.plan.boxes.q, spec.boxes)
        key_tiles = _box_tiles(spec.plan.boxes.k, spec.boxes)
    elif isinstance(config, TritonConfig) and config.pack_heads:
        heads = "n_kv"
        tiles = f"ceil_div(n_q * (n_h / n_kv), {config.block_q})"
    else:
        tiles = f"ceil_div(n_q, {config.block_q})"
    programs = f"n_b * {heads} * ({tiles})" if _is_compound(tiles) else f"n_b * {heads} * {tiles}"
    if isinstance(config, TritonConfig) and config.persistent:
        most = f"{config.persistent} * multiprocessors"
        programs = f"({programs} < {most} ? {programs} : {most})"
    return tiles, key_tiles, programs


def _box_tiles(layout: Layout, boxes: Boxes) -> str:
    """A product over the axes; none at all without tokens, where an origin would still count a tile."""
    numbers = boxes.numbers()
    counts: list[str] = []
    known = 1
    for axis in layout.axes:
        box, origin = numbers[box_name(layout.rank, axis.name)], numbers[origin_name(axis.name)]
        most = _fold(axis.most)
        if isinstance(most, Const):
            known *= -(-(int(most.value) + origin) // box)
            continue
        text = _print(most)
        if origin:
            text = f"{text} + {origin}"
        counts.append(f"ceil_div({text}, {box})" if box > 1 else f"({text})")
    if known != 1 or not counts:
        counts.insert(0, str(known))
    return f"(n_{layout.rank} > 0 ? {' * '.join(counts)} : 0)"


def _fold(expr: Expr) -> Expr:
    """The expression with what constants alone decide worked out, and with the ceilings of divisions by 1 gone."""
    if not isinstance(expr, Apply):
        return expr
    args = tuple(_fold(a) for a in expr.args)
    numbers = [int(a.value) for a in args if isinstance(a, Const)]
    if len(numbers) == len(args):
        return Const(_compute(expr.op, numbers))
    match expr.op, args:
        case ("add" | "sub", (left, Const(0))) | ("mul" | "floordiv", (left, Const(1))):
            return left
        case ("add", (Const(0), right)) | ("mul", (Const(1), right)):
            return right
        case ("sub", (Apply("add", (left, Const(a))), Const(b))):
            return _fold(Apply("add", (left, Const(a - b))))
        case _:
            return Apply(expr.op, args)


def _compute(op: str, numbers: list[int]) -> int:
    match op, numbers:
        case "add", [a, b]:
            return a + b
        case "sub", [a, b]:
            return a - b
        case "mul", [a, b]:
            return prod((a, b))
        case "floordiv", [a, b]:
            return a // b
        case "max", _:
            return max(numbers)
        case "min", _:
            return min(numbers)
        case _:
            raise InternalError(f"tiles are counted with {op}, which has no C text here")


def _print(expr: Expr) -> str:
    match expr:
        case Const(value):
            return str(int(value))
        case Size(name) if name in _SIZES:
            return _SIZES[name]
        case Param(name):
            return name
        case Apply("floordiv", (Apply("sub", (Apply("add", (top, b)), Const(1))), divisor)) if b == divisor:
            return f"ceil_div({_print(top)}, {_print(divisor)})"
        case Apply(op, (left, right)) if op in _INFIX:
            return f"({_print(left)} {_INFIX[op]} {_print(right)})"
        case Apply("max" | "min" as op, (left, right)):
            a, b = _print(left), _print(right)
            return f"({a} {'>' if op == 'max' else '<'} {b} ? {a} : {b})"
        case _:
            raise InternalError("tiles are counted by a value that a launch does not know", loc=expr.loc)


def _is_compound(text: str) -> bool:
    return not text.startswith(("ceil_div(", "("))
