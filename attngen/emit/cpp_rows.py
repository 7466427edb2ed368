"""Print the extremes of row values: one loop over the queries of a run, before its key runs are computed.

    row_min(first[q]), row_max(first[q])
->
    int32_t first_q_least = INT32_MAX, first_q_most = INT32_MIN;
    for (int32_t q = int32_t(q_lo); q <= q_hi; ++q) {
        const int32_t first_q = args.first.data[q * args.first.stride[0]];
        first_q_least = first_q < first_q_least ? first_q : first_q_least;
        first_q_most = first_q > first_q_most ? first_q : first_q_most;
    }
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.cpp_expr import Printer, position
from attngen.emit.cpp_value import Level, Value, to_bool, to_int
from attngen.lang.expr import Expr
from attngen.lang.ops import Kind
from attngen.planner.rows import RowExtreme


def print_row_extremes(printer: Printer, extremes: tuple[RowExtreme, ...]) -> list[str]:
    """The statements, in a function that knows `q_lo` and `q_hi`; `printer` can read the extremes afterwards."""
    if not extremes:
        return []
    printer.variables["q"] = position("q", Level.KEY)  # a scalar here: one query at a time
    rows: dict[Expr, tuple[str, Value]] = {}
    declared: list[str] = []
    body: list[str] = []
    for extreme in extremes:
        if extreme.body not in rows:
            value = printer.print(extreme.body)
            number = to_int(value)
            name = printer.fresh(extreme.body, "value")
            body.append(f"const {number.ctype} {name} = {number.text};")
            rows[extreme.body] = name, value
        name, value = rows[extreme.body]
        end = printer.fresh(None, f"{name}_{'least' if extreme.op == 'min' else 'most'}")
        number = to_int(value).named(end)
        worst = f"INT{64 if number.wide else 32}_{'MAX' if extreme.op == 'min' else 'MIN'}"
        sign = "<" if extreme.op == "min" else ">"
        declared.append(f"{number.ctype} {number.text} = {worst};")
        body.append(f"{number.text} = {name} {sign} {number.text} ? {name} : {number.text};")
        read = replace(number, level=Level.HEAD)
        printer.extremes[extreme] = to_bool(read) if value.kind is Kind.BOOL else read
    del printer.variables["q"]
    loop = ["for (int32_t q = int32_t(q_lo); q <= q_hi; ++q) {", *(f"    {line}" for line in body), "}"]
    return [*declared, *loop]
