"""Expressions of the text form: from Python's syntax tree to `Expr`, all else refused by name."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import reduce

from attngen.errors import AttngenError, ProgramSyntaxError, UnknownNameError
from attngen.lang.domain import EXTENT_PREFIX, size_param
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.loc import Loc
from attngen.lang.ops import OPS, REDUCERS, SLOTTED
from attngen.lang.program import EXTENTS, SIZES
from attngen.lang.source import Source
from attngen.lang.words import FUNCTIONS, INF, INT_LIMIT, MAX_DEPTH, SCORE, close_match

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "shr",
}
_UNARY: dict[type[ast.unaryop], str] = {ast.USub: "neg", ast.Invert: "not"}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
_BITWISE = (ast.BitAnd, ast.BitOr, ast.BitXor)
_NARY = ("min", "max")

_REFUSED: dict[type[ast.expr], tuple[str, str]] = {
    ast.BoolOp: ("`and` and `or` are not operators of the language", "write (a) & (b) or (a) | (b)"),
    ast.IfExp: ("`a if c else b` is not in the language", "write where(c, a, b)"),
    ast.Lambda: ("`lambda` is not in the language", "write the expression itself"),
    ast.NamedExpr: ("`:=` is not in the language", "write the expression where it is used"),
    ast.ListComp: ("a comprehension is not in the language", "name the rank to reduce: sum[k](x[k])"),
    ast.GeneratorExp: ("a comprehension is not in the language", "name the rank to reduce: sum[k](x[k])"),
    ast.Slice: ("a slice is not in the language", "index every rank: doc[b, k]"),
    ast.JoinedStr: ("a string is not a value of the language", ""),
    ast.Starred: ("`*` unpacking is not in the language", "write the operands out"),
}


class ExprParser:
    """Parses expressions of one program.

    `params`, `ranks` and `tensors` are the names the program declares: a bare name is a parameter, a rank, a
    size or the score; a subscripted one a tensor. Only its shape is checked here: `verify` does the rest.
    """

    def __init__(self, source: Source, params: set[str], ranks: set[str], tensors: set[str]) -> None:
        self.source = source
        self.params = params
        self.ranks = ranks
        self.tensors = tensors
        self.axes: set[str] = set()
        self.depth = 0

    def parse(self, node: ast.expr) -> Expr:
        """The expression of a node. Raises ProgramSyntaxError or UnknownNameError at the offending part."""
        if self.depth >= MAX_DEPTH:
            raise self.error(node, f"the expression nests more than {MAX_DEPTH} deep")
        self.depth += 1
        try:
            return self._dispatch(node)
        finally:
            self.depth -= 1

    def error(self, node: ast.expr | ast.stmt, message: str, hint: str | None = None) -> ProgramSyntaxError:
        """A syntax error at a node, to be raised by the caller."""
        return ProgramSyntaxError(message, loc=self.source.loc(node), hint=hint or None)

    def names(self, node: ast.expr, what: str) -> tuple[str, ...]:
        """The plain names of a subscript: `[q, k]` gives ("q", "k"), `[()]` gives ()."""
        elements = node.elts if isinstance(node, ast.Tuple) else [node]
        out: list[str] = []
        for element in elements:
            if not isinstance(element, ast.Name):
                raise self.error(element, f"{what} are names, such as q or k")
            out.append(element.id)
        return tuple(out)

    def _dispatch(self, node: ast.expr) -> Expr:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BinOp():
                return self._binary(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
            case ast.Subscript():
                return self._load(node)
            case ast.Attribute():
                return self._coordinate(node)
            case _:
                message, hint = _REFUSED.get(type(node), ("this is not an expression of the language", ""))
                raise self.error(node, message, hint)

    def _constant(self, node: ast.Constant) -> Expr:
        value = node.value
        if not isinstance(value, bool | int | float):
            kind = "..." if value is ... else type(value).__name__
            raise self.error(node, f"a value is an integer, a float or a boolean, not {kind}")
        if isinstance(value, int) and value > INT_LIMIT:
            raise self.error(node, "the integer does not fit in 64 bits")
        if isinstance(value, float) and value == float(INF):
            raise self.error(node, "the number is too large for a float", "write inf for infinity")
        return Const(value, loc=self.source.loc(node))

    def _name(self, node: ast.Name) -> Expr:
        name, loc = node.id, self.source.loc(node)
        if name in self.params:
            return Param(name, loc=loc)
        if name in self.ranks:
            return Var(name, loc=loc)
        if name in SIZES or name.removeprefix(EXTENT_PREFIX) in self.ranks - {name, *EXTENTS}:
            return Size(name, loc=loc)
        if name == INF:
            return Const(float(INF), loc=loc)
        if name == SCORE:
            return Load(SCORE, (), loc=loc)
        raise self._unknown(name, loc)

    def _coordinate(self, node: ast.Attribute) -> Expr:
        """`q.y` and `k.y`, coordinates of a token; `size.y`, the extent of an axis."""
        loc = self.source.loc(node)
        match node.value:
            case ast.Name(id="q" | "k" as rank):
                return Var(rank, node.attr, loc=loc)
            case ast.Name(id="size"):
                if node.attr not in self.axes:
                    raise UnknownNameError(
                        f"the grid has no axis `{node.attr}`",
                        loc=loc,
                        hint=close_match(node.attr, self.axes) or "declare it: tokens = grid(t, y, x)",
                    )
                return Param(size_param(node.attr), loc=loc)
            case _:
                raise self.error(
                    node,
                    "only tokens have coordinates",
                    "write q.y, k.y, or size.y for the extent of the axis",
                )

    def _unknown(self, name: str, loc: Loc) -> AttngenError:
        if name in self.tensors:
            return ProgramSyntaxError(
                f"the tensor `{name}` needs its indices here",
                loc=loc,
                hint=f"write {name}[...] with one index a rank, or {name}[()] if it has none",
            )
        if name in FUNCTIONS or name in REDUCERS:
            return ProgramSyntaxError(f"the function `{name}` is not called here", loc=loc)
        hint = close_match(name, {*self.params, *self.ranks, *SIZES, INF})
        return UnknownNameError(
            f"`{name}` is not declared",
            loc=loc,
            hint=hint or f"declare a parameter, {name}: int = 0, or a tensor, {name}[q]: float",
        )

    def _unary(self, node: ast.UnaryOp) -> Expr:
        op = _UNARY.get(type(node.op))
        if op is None:
            hint = "write ~(a)" if isinstance(node.op, ast.Not) else "leave it out"
            word = "not" if isinstance(node.op, ast.Not) else "unary +"
            raise self.error(node, f"`{word}` is not an operator of the language", hint)
        operand = self.parse(node.operand)
        if op == "neg" and self._is_signed_literal(node, operand):
            return Const(-operand.value, loc=self.source.loc(node))  # pyright: ignore[reportAttributeAccessIssue]
        return Apply(op, (operand,), loc=self.source.loc(node))

    def _is_signed_literal(self, node: ast.UnaryOp, operand: Expr) -> bool:
        """Whether this is `-1`, one constant, and not `-(1)`, the negation of one."""
        if not isinstance(operand, Const) or isinstance(operand.value, bool):
            return False
        return (
            isinstance(node.operand, ast.Constant | ast.Name)
            and self.source.token_before(node.operand) == "-"
        )

    def _binary(self, node: ast.BinOp) -> Expr:
        op = _BINARY.get(type(node.op))
        if op is None:
            raise self.error(
                node, "`@` is not an operator of the language", "write sum[d](Q[q, d] * K[k, d])"
            )
        return Apply(op, (self.parse(node.left), self.parse(node.right)), loc=self.source.loc(node))

    def _compare(self, node: ast.Compare) -> Expr:
        if len(node.ops) >= MAX_DEPTH:
            raise self.error(node, f"the comparison has more than {MAX_DEPTH} operands")
        nodes = [node.left, *node.comparators]
        for index, operand in enumerate(nodes):
            self._refuse_bare_bitwise(node, operand, first=index == 0)
        operands = [self.parse(n) for n in nodes]
        parts: list[Expr] = []
        for index, kind in enumerate(node.ops):
            op = _COMPARE.get(type(kind))
            if op is None:
                raise self.error(
                    node, "`is` and `in` are not operators of the language", "compare with == or !="
                )
            pair = (operands[index], operands[index + 1])
            parts.append(Apply(op, pair, loc=self._span(nodes[index], nodes[index + 1])))
        loc = self.source.loc(node)
        return reduce(lambda a, b: Apply("and", (a, b), loc=loc), parts)

    def _span(self, first: ast.expr, last: ast.expr) -> Loc:
        start, end = self.source.loc(first), self.source.loc(last)
        end_col = end.end_col if end.line == start.line else len(start.text)
        return self.source.loc_at(start.line, start.col, end_col)

    def _refuse_bare_bitwise(self, node: ast.Compare, operand: ast.expr, *, first: bool) -> None:
        """Refuse `k <= q & k > 0`, which Python reads as `k <= (q & k) > 0`; with parentheses it is fine."""
        match operand:
            case ast.BinOp(op=op) if isinstance(op, _BITWISE):
                symbol = OPS[_BINARY[type(op)]].symbol
            case ast.UnaryOp(op=ast.Invert()):
                symbol = "~"
            case _:
                return
        if first:
            bare = (node.lineno, node.col_offset) == (operand.lineno, operand.col_offset)
        else:
            bare = self.source.token_before(operand) != "("
        if bare:
            example = "~(k <= q)" if symbol == "~" else f"(k <= q) {symbol} (k > 0)"
            raise self.error(
                operand,
                f"`{symbol}` binds tighter than a comparison, so this compares the result of `{symbol}`",
                f"put parentheses around the comparisons, {example}, or around the operand of `{symbol}`",
            )

    def _call(self, node: ast.Call) -> Expr:
        if node.keywords:
            value = node.keywords[0].value
            raise self.error(value, "arguments have no names", "give them in order")
        match node.func:
            case ast.Name(id=name):
                return self._function(node, name)
            case ast.Subscript(value=ast.Name(id=name), slice=ranks):
                return self._reduce(node, name, ranks)
            case ast.Attribute(attr=name) if name in FUNCTIONS:
                raise self.error(node.func, "functions are written without a module", f"write {name}(...)")
            case _:
                raise self.error(node.func, "this cannot be called", "call a function by its name")

    def _function(self, node: ast.Call, name: str) -> Expr:
        loc = self.source.loc(node)
        op = FUNCTIONS.get(name)
        if op is None:
            if name in REDUCERS:
                raise self.error(
                    node, f"`{name}` needs the rank it reduces", f"name the rank: {name}[k](...)"
                )
            hint = close_match(name, [*FUNCTIONS, *REDUCERS], "{}(...)")
            raise UnknownNameError(
                f"there is no function `{name}`", loc=self.source.loc(node.func), hint=hint
            )
        if len(node.args) > MAX_DEPTH:
            raise self.error(node, f"`{name}` has more than {MAX_DEPTH} arguments")
        args = [self.parse(a) for a in node.args]
        if name in _NARY and len(args) >= op.arity:
            return reduce(lambda a, b: Apply(name, (a, b), loc=loc), args)
        if len(args) != op.arity:
            hint = f"to reduce a rank, name it: {name}[k](...)" if name in _NARY else None
            count = f"{op.arity} argument{'s' if op.arity > 1 else ''}"
            raise self.error(node, f"`{name}` takes {count}, not {len(args)}", hint)
        return Apply(name, tuple(args), loc=loc)

    def _reduce(self, node: ast.Call, name: str, subscript: ast.expr) -> Expr:
        if name not in REDUCERS:
            hint = close_match(name, REDUCERS, "{}[k](...)") or f"the reducers are {', '.join(REDUCERS)}"
            raise UnknownNameError(f"there is no reducer `{name}`", loc=self.source.loc(node.func), hint=hint)
        ranks = self.names(subscript, "the ranks of a reduction")
        if name in SLOTTED and len(node.args) != 2:
            hint = f"which of them, counted from 0, is the second: {name}[k](S[q, k], j)"
            raise self.error(node, f"`{name}[...]` takes two arguments, not {len(node.args)}", hint)
        if name not in SLOTTED and len(node.args) != 1:
            raise self.error(node, f"`{name}[...]` takes one argument, not {len(node.args)}")
        hidden = set(ranks) - self.ranks - self.params
        self.ranks |= hidden
        try:
            body = self.parse(node.args[0])
        finally:
            self.ranks -= hidden
        slot = tuple(self.parse(a) for a in node.args[1:])
        return Reduce(name, ranks, body, *slot, loc=self.source.loc(node))

    def _load(self, node: ast.Subscript) -> Expr:
        if not isinstance(node.value, ast.Name):
            raise self.error(node.value, "only a tensor can be indexed", "index it by its name: doc[b, k]")
        subscript: ast.expr = node.slice
        indices = subscript.elts if isinstance(subscript, ast.Tuple) else [subscript]
        parse: Callable[[ast.expr], Expr] = self.parse
        return Load(node.value.id, tuple(parse(i) for i in indices), loc=self.source.loc(node))
