"""Print loops over the columns of a feature: what no tile holds whole, one column after the other.

    S_i = sum[i](w[i] * X[b, h, k, i])      S_i = tl.full([BLOCK_Q, BLOCK_K], 0.0, tl.float32)
                                            for column in range(WIDTH_I):
                                                i_at = tl.cast(column, tl.int32)
                                                w_read = ...
                                                X_read = ...
                                                S_i = S_i + (w_read * X_read)[None, :]

    A[q, i] = max[k](X[b, h, k, i])         for column in range(WIDTH_I):
                                                i_at = tl.cast(column, tl.int32)
                                                X_read = ...
                                                reduced = row_max(...)
                                                A = tl.where((i == column)[None, :], ..., A)

The cast makes the column a number of Triton's in its interpreter, too.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.triton.expr import Printer
from attngen.emit.triton.features import Feature
from attngen.emit.triton.ops import TRITON_OPS
from attngen.emit.triton.value import Space, Value, fill, integer, literal, real, spread, to_bool, to_float
from attngen.errors import UnsupportedError
from attngen.lang.expr import Expr
from attngen.lang.ops import REDUCERS

# How a column is combined with those before it. Tests count as 0 and 1.
_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "max", "all": "min"}
# No sum over the same pairs need carry a NaN here, so that the extremes are those that keep it.
_REDUCE_KEYS = {
    "sum": "tl.sum({}, axis=1)",
    "prod": "row_product({})",
    "max": "row_max({})",
    "min": "row_min({})",
}


def reduce_columns(printer: Printer, feature: Feature, name: str, op: str, body: Expr) -> list[str]:
    """The statements of `name[q, k] = op over the feature of body[q, k, feature]`."""
    if op not in _COMBINE:
        raise UnsupportedError(f"Triton has no reduction of features for {op}")
    lines, value = _column(printer, feature, body)
    value = to_float(to_bool(value) if op in ("any", "all") else value)
    total = TRITON_OPS[_COMBINE[op]](real(name, Space.TILE), value)
    start = fill(_identity(op), Space.TILE)
    return [f"{name} = {start.text}", *_loop(feature, [*lines, f"{name} = {total.text}"])]


def each_column(
    printer: Printer, feature: Feature, name: str, op: str, body: Expr, *, masked: bool
) -> list[str]:
    """The statements of `name[q, f] = name[q, f] (op) (op over k of body[q, k, f])`, for the pairs that are kept."""
    if op not in _REDUCE_KEYS:
        raise UnsupportedError(f"Triton has no reduction of keys to columns for {op}")
    lines, value = _column(printer, feature, body)
    pairs = to_float(value)
    if masked:
        pairs = replace(pairs, text=f"tl.where(keep, {spread(pairs, Space.TILE).text}, {_identity(op).text})")
    else:
        pairs = fill(pairs, Space.TILE)
    total = TRITON_OPS[_COMBINE[op]](real(name, Space.ACC), real("reduced", Space.Q))
    here = f"({feature.lane} == column)[None, :]"
    lines += [
        f"reduced = {_REDUCE_KEYS[op].format(pairs.text)}",
        f"{name} = tl.where({here}, {total.text}, {name})",
    ]
    return _loop(feature, lines)


def _column(printer: Printer, feature: Feature, body: Expr) -> tuple[list[str], Value]:
    """`body` at one column, and the reads of memory that come before it."""
    rank = feature.rank
    outside = printer.variables.get(rank)
    printer.variables[rank] = integer(feature.at, 0, max(feature.extent - 1, 0), varies=True)
    printer.local = {}
    value = printer.print(body)
    lines = [f"{name} = {read}" for name, read in printer.local.items()]
    printer.local = None
    if outside is None:
        del printer.variables[rank]
    else:
        printer.variables[rank] = outside
    return lines, value


def _identity(op: str) -> Value:
    return literal(float(REDUCERS[op].identity))


def _loop(feature: Feature, lines: list[str]) -> list[str]:
    """A loop over the columns of a feature."""
    at = f"{feature.at} = tl.cast(column, tl.int32)"
    return [f"for column in range({feature.width}):", *(f"    {line}" for line in (at, *lines))]
