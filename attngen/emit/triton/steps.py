"""Print the steps of a tile program as Triton statements."""

from __future__ import annotations

import math
from typing import assert_never

from attngen.emit.tile import AccDot, DotQK, FinishLet, Mask, RowLet, RowReduce, TileLet, TileStep
from attngen.emit.triton.expr import Printer
from attngen.emit.triton.nan_paths import must_carry_nan
from attngen.emit.triton.past_end import drops_past_end
from attngen.emit.triton.separate import separate
from attngen.emit.triton.value import Prec, Space, fill, narrow, real, spread, to_bool, to_float
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Expr, Var, free_vars, loads, map_children, walk
from attngen.lang.kinds import kinds_of

_REDUCE = {"max": "tl.max({}, axis=1)", "min": "tl.min({}, axis=1)", "sum": "tl.sum({}, axis=1)"}
# Triton's own maximum and minimum of a row drop NaN; these keep it, for rows no sum carries it to (`nan_paths`).
_REDUCE_NAN = {"max": "row_max({})", "min": "row_min({})"}


class Steps:
    """Prints the body of a loop over key tiles. `masked` is set for partial tiles.

    keep      the mask; None keeps every pair in bounds.
    kept_by   statements that set `keep`, for a mask that has a form of its own.
    bounded   whether a mask that drops the keys past the end may stand without a bound of its own.
    sanitise  whether rows of V that no query of the tile keeps must be zeroed before the product.
    """

    def __init__(
        self,
        printer: Printer,
        *,
        masked: bool,
        keep: Expr | None,
        sanitise: bool,
        bounded: bool = True,
        kept_by: list[str] | None = None,
    ) -> None:
        self.printer = printer
        self.kept_by = kept_by
        self.bounded = bounded
        self.masked, self.keep, self.sanitise = masked, keep, sanitise
        self.lines: list[str] = []
        self.kept = False
        self.nan_exact = must_carry_nan(printer.spec.tile)
        half = printer.spec.dtype != "float32"
        self.precision = "" if half else ', input_precision="ieee"'

    def print(self, steps: tuple[TileStep, ...]) -> list[str]:
        """The statements of all steps, in order."""
        for step in steps:
            self._step(step)
        return self.lines

    def _step(self, step: TileStep) -> None:
        match step:
            case DotQK(out):
                name = self._name(out)
                self.lines.append(f"{name} = tl.dot(q_tile, k_tile{self.precision})")
                self._define(out, Space.TILE)
            case TileLet(out, body):
                self._let(out, body, Space.TILE)
            case RowLet(out, body):
                self._let(out, body, Space.Q)
            case Mask(out, value):
                self._mask(out, value)
            case RowReduce(out, op, source):
                if op not in _REDUCE:
                    raise UnsupportedError(f"Triton has no row reduction for {op}")
                value = fill(self.printer.values[source], Space.TILE)
                table = _REDUCE_NAN if out in self.nan_exact and op in _REDUCE_NAN else _REDUCE
                self.lines.append(f"{self._name(out)} = {table[op].format(value.text)}")
                self._define(out, Space.Q)
            case AccDot(acc, source, rescale):
                self._acc(acc, source, rescale)
            case _:
                assert_never(step)

    def _name(self, name: str) -> str:
        return self.printer.names[name]

    def _define(self, name: str, space: Space) -> None:
        self.printer.values[name] = real(self._name(name), space)

    def _let(self, out: str, body: Expr, space: Space) -> None:
        value = to_float(self.printer.print(body))
        carried = out in self.printer.values
        if value.space & ~space:
            raise UnsupportedError(f"{out} has more axes than its place in the kernel allows")
        value = fill(value, space) if carried or value.literal else value
        self.lines.append(f"{self._name(out)} = {value.text}")
        self._define(out, value.space)

    def _mask(self, out: str, value: float) -> None:
        if not self.masked:
            return
        if not self.kept:
            self._print_keep()
        tile = fill(self.printer.values[out], Space.TILE)
        number = repr(value) if math.isfinite(value) else f'float("{value}")'
        self.lines.append(f"{self._name(out)} = tl.where(keep, {tile.text}, {number})")
        self._define(out, Space.TILE)

    def _print_keep(self) -> None:
        self.kept = True
        if self.kept_by is not None:
            self.lines += self.kept_by
            return
        bounds = "loadable[None, :]"
        if self.keep is None:
            text = f"tl.broadcast_to({bounds}, [BLOCK_Q, BLOCK_K])"
        else:
            mask = self._hoisted(separate(self.keep, kinds_of(self.printer.spec.program)))
            keep = to_bool(self.printer.print(mask))
            tile = spread(keep, Space.TILE)
            bounded = self.bounded and keep.space is Space.TILE and drops_past_end(self.keep)
            text = tile.text if bounded else f"{bounds} & {tile.at(Prec.SHIFT)}"
            if keep.space in (Space.SCALAR, Space.K):
                text = f"tl.broadcast_to({text}, [BLOCK_Q, BLOCK_K])"
        self.lines.append(f"keep = {text}")

    def _hoisted(self, expr: Expr) -> Expr:
        """The mask with the quotients and remainders of each row read from variables, set before the loops."""
        reads = free_vars(expr)
        if "k" in reads or "q" not in reads:
            return map_children(expr, self._hoisted) if "k" in reads else expr
        if not any(isinstance(n, Apply) and n.op in ("floordiv", "mod") for n in walk(expr)):
            return expr
        value = narrow(self.printer.print(expr))
        name = self.printer.hoist("row_value", value)
        self.printer.variables[name.text] = name
        return Var(name.text)

    def _acc(self, acc: str, source: str, rescale: str | None) -> None:
        name = self._name(acc)
        weight = fill(self.printer.values[source], Space.TILE)
        self.lines.append("v_tile = " + self._load_v())
        if self.masked and self.sanitise:
            self.lines.append("seen = tl.max(keep.to(tl.int32), axis=0) > 0")
            self.lines.append("v_tile = tl.where(seen[:, None], v_tile, 0.0)")
        start = name
        if rescale is not None:
            scale = spread(self.printer.values[rescale], Space.ACC)
            self.lines.append(f"{name} = {name} * {scale.text}")
        self.lines.append(
            f"{name} = tl.dot({weight.at(Prec.ATOM)}.to(v_tile.dtype), v_tile, {start}{self.precision})"
        )

    def _load_v(self) -> str:
        return "tl.load(v_base + v_start + v_offsets" + self.load_mask("v") + ")"

    def load_mask(self, which: str) -> str:
        """The mask of a load of K (`[d, k]`) or V (`[k, e]`): keys of partial tiles, features that are padding."""
        spec = self.printer.spec
        keys = {"k": "loadable[None, :]", "v": "loadable[:, None]"}[which]
        width, pad = {
            "k": (spec.head_dim, "d[:, None] < HEAD_DIM"),
            "v": (spec.value_dim, "e[None, :] < VALUE_DIM"),
        }[which]
        parts = [keys] if self.masked else []
        if not is_padded_width(width):
            parts.append(f"({pad})" if parts else pad)
        return f", mask={' & '.join(parts)}, other=0.0" if parts else ""


def is_padded_width(width: int) -> bool:
    """Whether a width needs no padding: a power of two, at least 16."""
    return width >= 16 and width & (width - 1) == 0


def print_finish(printer: Printer, lets: tuple[FinishLet, ...]) -> list[str]:
    """Statements after the last key tile."""
    lines: list[str] = []
    for let in lets:
        value = to_float(printer.print(let.body))
        space = Space.ACC if let.space == "acc" else Space.Q
        name = printer.names[let.out]
        lines.append(f"{name} = {fill(value, space).text}")
        printer.values[let.out] = real(name, space)
    return lines


def reads_inside(expr: Expr, tensors: frozenset[str]) -> bool:
    """Whether an expression reads a captured tensor at a plain `k`, which partial tiles must keep in bounds."""
    return any(ld.tensor in tensors and Var("k") in ld.indices for ld in loads(expr))
