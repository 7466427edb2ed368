"""Print the steps of a tile program as Triton statements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import assert_never

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Dot,
    FinishLet,
    Mask,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileReduce,
    TileStep,
)
from attngen.emit.triton.columns import each_column, reduce_columns
from attngen.emit.triton.expr import Printer
from attngen.emit.triton.features import features
from attngen.emit.triton.nan_paths import must_carry_nan
from attngen.emit.triton.operands import OperandPrinter
from attngen.emit.triton.past_end import drops_past_end
from attngen.emit.triton.separate import separate
from attngen.emit.triton.sides import INPUT_AXES, Side, wider
from attngen.emit.triton.stores import block_store, pair_store
from attngen.emit.triton.value import Prec, Space, Value, fill, narrow, real, spread, to_bool, to_float
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Expr, Load, Var, free_vars, loads, map_children, walk
from attngen.lang.kinds import kinds_of

_REDUCE = {
    "max": "tl.max({}, axis=1)",
    "min": "tl.min({}, axis=1)",
    "sum": "tl.sum({}, axis=1)",
    "prod": "row_product({})",
    "any": "tl.max(({} != 0.0).to(tl.float32), axis=1)",
    "all": "tl.min(({} != 0.0).to(tl.float32), axis=1)",
}
# Triton's own maximum and minimum of a row drop NaN; these keep it, for rows no sum carries it to (`nan_paths`).
_REDUCE_NAN = {"max": "row_max({})", "min": "row_min({})"}


class Steps:
    """Prints the body of a loop over key tiles. `masked` is set for partial tiles.

    keep      the mask; None keeps every pair in bounds.
    kept_by   statements that set `keep`, for a mask that has a form of its own.
    bounded   whether a mask that drops the keys past the end may stand without a bound of its own.
    sanitise  whether rows of a value operand that no query of the tile keeps must be zeroed before the product.
    exists    which rows of the tile are there.
    in_a_row  whether the loop is over tiles in a row, which are read where the tile before ended.
    within    whether every key of the tile is one that some row sees, so that all are read.
    parts     row sums that stay in parts, with the carried sum that takes each.
    """

    def __init__(
        self,
        printer: Printer,
        operands: OperandPrinter,
        *,
        masked: bool,
        keep: Expr | None,
        sanitise: bool,
        exists: str,
        bounded: bool = True,
        kept_by: list[str] | None = None,
        in_a_row: bool = False,
        within: bool = False,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        self.printer, self.operands = printer, operands
        self.in_a_row, self.within, self.parts = in_a_row, within, parts or {}
        self.kept_by = kept_by
        self.bounded, self.exists = bounded, exists
        self.masked, self.keep, self.sanitise = masked, keep, sanitise
        self.lines: list[str] = []
        self.kept = self.seen = False
        self.loaded: set[str] = set()
        self.sanitised: set[str] = set()
        self.nan_exact = must_carry_nan(printer.spec.tile)
        self.features = features(printer.spec)
        self.feature_of = {c.name: c.feature for c in printer.spec.tile.carried}

    def print(self, steps: tuple[TileStep, ...]) -> list[str]:
        """The statements of all steps, in order."""
        for step in steps:
            self._step(step)
        return self.lines

    def _step(self, step: TileStep) -> None:
        match step:
            case Dot(out, left, right):
                self._dot(out, self.operands[left], self.operands[right])
            case TileLet(out, body):
                self._let(out, body, Space.TILE)
            case TileReduce(out, op, feature, body):
                ranks = self.features
                self.lines += reduce_columns(self.printer, ranks[feature], self._name(out), op, body)
                self._define(out, Space.TILE)
            case RowLet(out, Apply("add", (total, Load(part, _)))) if self.parts.get(part) == out:
                self._add_parts(out, total, part)
            case RowLet(out, body):
                self._let(out, body, Space.Q)
            case Mask(out, value):
                self._mask(out, value)
            case RowReduce(out, op, source):
                self._reduce(out, op, source)
            case AccDot(acc, source, rescale, value):
                self._acc_dot(acc, source, rescale, self.operands[value])
            case AccBins(acc, source, rescale, bins):
                self._rescale(acc, rescale)
                feature = self.features[self.feature_of[acc]]
                name, pairs = self._name(acc), self._tile(source).text
                bins = self._tile(bins).text
                self.lines.append(
                    f"{name} = add_bins({name}, {pairs}, {bins}, {feature.lane}, {feature.width})"
                )
            case AccTopK(acc, index, source):
                feature = self.features[self.feature_of[acc]]
                held = f"{self._name(acc)}, {self._name(index)}"
                pairs = self._tile(source).text
                self.lines.append(f"{held} = top_k({held}, {pairs}, k, {feature.lane}, {feature.width})")
            case AccEach():
                self._acc_each(step)
            case AccLet(acc, body):
                pad = self.features[self.feature_of[acc]].pad
                value = fill(self.printer.print(body), Space.ACC, pad)
                self.lines.append(f"{self._name(acc)} = {value.text}")
            case StorePair(name, source):
                self._keep_known()
                self.lines.append(pair_store(name, self._tile(source).text, self.exists, masked=self.masked))
            case StoreBlock(name, op, source, width):
                self._keep_known()
                pairs = self._tile(source).text
                self.lines += block_store(name, op, pairs, width, self.exists, masked=self.masked)
            case _:
                assert_never(step)

    def _name(self, name: str) -> str:
        return self.printer.names[name]

    def _tile(self, name: str) -> Value:
        """A tile value with an element for every pair."""
        return fill(self.printer.values[name], Space.TILE)

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

    def _add_parts(self, out: str, total: Expr, part: str) -> None:
        """A sum in parts: every one of them is rescaled and grows."""
        text = self._name(out)
        if isinstance(total, Apply):
            factor = spread(to_float(self.printer.print(total.args[1])), Space.ACC)
            text = f"{text} * {factor.at(Prec.UNARY)}"
        self.lines.append(f"{self._name(out)} = {text} + {self._name(part)}")

    def _reduce(self, out: str, op: str, source: str) -> None:
        if out in self.parts:
            self.lines.append(f"{self._name(out)} = row_parts({self._tile(source).text})")
            return
        if op not in _REDUCE:
            raise UnsupportedError(f"Triton has no row reduction for {op}")
        table = _REDUCE_NAN if out in self.nan_exact and op in _REDUCE_NAN else _REDUCE
        self.lines.append(f"{self._name(out)} = {table[op].format(self._tile(source).text)}")
        self._define(out, Space.Q)

    def _mask(self, out: str, value: float) -> None:
        if not self.masked:
            return
        self._keep_known()
        tile = self._tile(out)
        number = repr(value) if math.isfinite(value) else f'float("{value}")'
        self.lines.append(f"{self._name(out)} = tl.where(keep, {tile.text}, {number})")
        self._define(out, Space.TILE)

    def _keep_known(self) -> None:
        """In partial tiles: the statements that set `keep`, at its first use."""
        if not self.masked or self.kept:
            return
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

    def _load(self, side: Side) -> None:
        """The tile of a key operand, at its first use."""
        if side.operand.row == "k" and side.operand.name not in self.loaded:
            self.loaded.add(side.operand.name)
            zeroed = self.masked and not self.sanitise
            seen = self.masked and self.sanitise and side.load is None and side.valued
            if seen:  # what is computed becomes 0 before it is rounded, in one selection
                self._find_seen()
                self.sanitised.add(side.tile)
            by = "seen" if seen else "loadable" if zeroed and not self.within else ""
            masked = self.masked and not self.within
            self.lines += self.operands.load(side, masked=masked, zeroed_by=by, in_a_row=self.in_a_row)

    def _find_seen(self) -> None:
        """Which keys some row of the tile keeps."""
        if not self.seen:
            self.seen = True
            self._keep_known()
            self.lines.append("seen = tl.max(keep.to(tl.int32), axis=0) > 0")

    def _dot(self, out: str, left: Side, right: Side) -> None:
        self._load(right)
        dtype = wider(left.dtype, right.dtype)
        rows, keys = (s.tile if s.dtype == dtype else f"{s.tile}.to(tl.{dtype})" for s in (left, right))
        keys = keys if right.turned else f"tl.trans({keys})"
        self.lines.append(f"{self._name(out)} = tl.dot({rows}, {keys}{_precision(dtype)})")
        self._define(out, Space.TILE)

    def _acc_dot(self, acc: str, source: str, rescale: str | None, value: Side) -> None:
        name = self._name(acc)
        weight = self._tile(source)
        self._load(value)
        if self.masked and self.sanitise and value.tile not in self.sanitised:
            self.sanitised.add(value.tile)
            self._find_seen()
            self.lines.append(f"{value.tile} = tl.where(seen[:, None], {value.tile}, 0.0)")
        self._rescale(acc, rescale)
        weights = f"{weight.at(Prec.ATOM)}.to({value.tile}.dtype)"
        self.lines.append(f"{name} = tl.dot({weights}, {value.tile}, {name}{_precision(value.dtype)})")

    def _acc_each(self, step: AccEach) -> None:
        self._rescale(step.acc, step.rescale, "*" if step.combine == "mul" else "+")
        self._keep_known()
        feature, name = self.features[self.feature_of[step.acc]], self._name(step.acc)
        self.lines += each_column(self.printer, feature, name, step.op, step.body, masked=self.masked)

    def _rescale(self, acc: str, rescale: str | None, symbol: str = "*") -> None:
        if rescale is not None:
            scale = spread(self.printer.values[rescale], Space.ACC)
            self.lines.append(f"{self._name(acc)} = {self._name(acc)} {symbol} {scale.text}")


def _precision(dtype: str) -> str:
    """How numbers of a dtype are multiplied: fp32 exactly."""
    return ', input_precision="ieee"' if dtype == "float32" else ""


def print_finish(printer: Printer, lets: tuple[FinishLet, ...]) -> list[str]:
    """Statements after the last key tile."""
    lines: list[str] = []
    ranks = features(printer.spec)
    for let in lets:
        value = to_float(printer.print(let.body))
        acc = let.space == "acc"
        space = Space.ACC if acc else Space.Q
        name = printer.names[let.out]
        lines.append(f"{name} = {fill(value, space, ranks[let.feature].pad if acc else '').text}")
        printer.values[let.out] = real(name, space)
    return lines


def reads_inside(expr: Expr, tensors: frozenset[str]) -> bool:
    """Whether an expression reads a tensor at a plain `k`, which partial tiles must keep in bounds."""
    return any(ld.tensor in tensors | INPUT_AXES.keys() and Var("k") in ld.indices for ld in loads(expr))
