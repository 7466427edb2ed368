"""Rewrite exponentials to base 2, with the scale folded into one multiply-add.

    exp(x)                  ->  exp2(x * log2e)
    exp(x - m)              ->  exp2(x * log2e - m_log2)           with row value m_log2 = m * log2e
    exp(dot * scale - m)    ->  exp2(dot * qk_scale - m_log2)      with uniform qk_scale = scale * log2e

The hardware's exponential is base 2; the multiply-add is one instruction per pair, and what depends on the
row or on nothing is computed once per row or once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Param,
    Var,
    apply,
    free_vars,
    loads,
    rewrite,
)
from attngen.lang.fresh import fresh_name

LOG2E = Const(math.log2(math.e))
_Q = Var("q")


@dataclass(slots=True)
class Exp2Rewriter:
    """Collects the row values and uniforms the rewrite introduces, each once.

    `tiles` names the values that vary with the key, `taken` the names in use.
    """

    tiles: set[str]
    taken: set[str]
    uniforms: list[tuple[str, Expr]] = field(default_factory=list[tuple[str, Expr]])
    row_lets: list[tuple[str, Expr]] = field(default_factory=list[tuple[str, Expr]])

    def rewrite_tile(self, expr: Expr) -> Expr:
        """Rewrite a per-pair body; row values it needs are appended to `row_lets`."""
        return rewrite(expr, self._tile_node)

    def rewrite_row(self, expr: Expr) -> Expr:
        """Rewrite a per-row body, where folding buys nothing."""
        return rewrite(
            expr,
            lambda n: (
                apply("exp2", apply("mul", n.args[0], LOG2E))
                if isinstance(n, Apply) and n.op == "exp"
                else None
            ),
        )

    def take_row_lets(self) -> list[tuple[str, Expr]]:
        """The row values introduced since the last call, to be computed before the body that reads them."""
        out, self.row_lets = self.row_lets, []
        return out

    def varies_with_key(self, expr: Expr) -> bool:
        """Whether the value of `expr` differs from key to key."""
        return "k" in free_vars(expr) or any(ld.tensor in self.tiles for ld in loads(expr))

    def _tile_node(self, node: Expr) -> Expr | None:
        match node:
            case Apply("exp", (Apply("sub", (x, m)),)) if not self.varies_with_key(m):
                return apply("exp2", apply("sub", self._times_log2e(x), self._row_log2(m)))
            case Apply("exp", (x,)):
                return apply("exp2", self._times_log2e(x))
            case _:
                return None

    def _times_log2e(self, x: Expr) -> Expr:
        match x:
            case Apply("mul", (dot, Param() as scale)) | Apply("mul", (Param() as scale, dot)):
                name = self._uniform("qk_scale", apply("mul", scale, LOG2E))
                return apply("mul", dot, Load(name, ()))
            case _:
                return apply("mul", x, LOG2E)

    def _uniform(self, name: str, body: Expr) -> str:
        for known, known_body in self.uniforms:
            if known_body == body:
                return known
        name = fresh_name(name, self.taken)
        self.uniforms.append((name, body))
        return name

    def _row_log2(self, m: Expr) -> Expr:
        base = next((ld.tensor for ld in loads(m)), "row")
        name = fresh_name(f"{base.removesuffix('_new')}_log2", self.taken)
        self.row_lets.append((name, apply("mul", m, LOG2E)))
        return Load(name, (_Q,))
