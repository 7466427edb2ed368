"""A box plan's expressions for given box shapes: variables become numbers, and what that settles falls away.

before   (hi_y + box_k_y - 1) // box_k_y,   keys_y + origin_y
after    (hi_y + 7) // 8,                   keys_y                     (keys 8 to a box, tiling from 0)
"""

from __future__ import annotations

from attngen.lang.expr import Apply, Const, Expr, Var, apply, rewrite
from attngen.planner.layout import Boxes

Lets = tuple[tuple[str, Expr], ...]


def instantiate(lets: Lets, boxes: Boxes) -> Lets:
    """The lets with the numbers of `boxes` worked in."""
    numbers = {name: Const(number) for name, number in boxes.numbers().items()}

    def settle(node: Expr) -> Expr | None:
        match node:
            case Var(name, None) if name in numbers:
                return numbers[name]
            case Apply():
                return fold(node)
            case _:
                return None

    return tuple((name, rewrite(body, settle)) for name, body in lets)


def fold(node: Expr) -> Expr | None:
    """Integer arithmetic with a literal, worked out one step; None where nothing can be."""
    match node:
        case Apply("add" | "sub" as op, (a, Const(int(n)))) if not isinstance(n, bool):
            n = n if op == "add" else -n
            match a:
                case Apply("add" | "sub" as inner, (x, Const(int(m)))):
                    return _plus(x, n + (m if inner == "add" else -m))
                case _:
                    return _plus(a, n) if n <= 0 or op == "sub" else None
        case Apply("add", (Const(int(n)), b)):
            return _plus(b, n)
        case Apply("floordiv", (a, Const(1))):
            return a
        case Apply("where", (Const(bool(c)), a, b)):
            return a if c else b
        case _:
            return None


def _plus(x: Expr, n: int) -> Expr:
    if isinstance(x, Const):
        return Const(int(x.value) + n)
    return x if n == 0 else apply("add" if n > 0 else "sub", x, Const(abs(n)))
