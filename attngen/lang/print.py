"""The canonical text of expressions and programs: hashed, and parsed back to the same program."""

from __future__ import annotations

import math

from attngen.errors import InternalError
from attngen.lang.domain import SIZE_PREFIX, is_size_param
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.ops import OPS
from attngen.lang.program import Einsum, ParamDecl, Program, TensorDecl
from attngen.lang.words import INF, SCORE

# Python's binding strengths, weakest first.
_COMPARE, _OR, _XOR, _AND, _SHIFT, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(10)
_STRENGTH: dict[str, int] = {
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), _COMPARE),
    "or": _OR,
    "xor": _XOR,
    "and": _AND,
    **dict.fromkeys(("shl", "shr"), _SHIFT),
    **dict.fromkeys(("add", "sub"), _SUM),
    **dict.fromkeys(("mul", "div", "floordiv", "mod"), _PRODUCT),
    **dict.fromkeys(("neg", "not"), _UNARY),
    "pow": _POWER,
}
# Python binds these tighter than a comparison and a reader may not: in parentheses beside one, always.
_BITWISE = ("or", "xor", "and", "not")


def print_program(program: Program, *, doc: bool = True) -> str:
    """The text of a program, linked or not; `parse_program` of it gives the same program.

    Without its docstring (`doc=False`) it is the program's identity: equal programs print equal text.
    """
    groups = [
        [_docstring(program.doc)] if doc and program.doc else [],
        [f"tokens = grid({', '.join(program.grid)})"] if program.grid else [],
        [_param(p) for p in program.params if not is_size_param(program, p.name)],
        [_tensor(t) for t in program.tensors],
        [f"mask = {print_expr(program.mask)}"] if program.mask is not None else [],
        [f"score = {print_expr(program.score)}"] if program.score is not None else [],
        [f"cascade = {program.cascade_name}"] if program.cascade_name is not None else [],
        [line for e in program.cascade for line in einsum_lines(e)]
        + ([f"return {', '.join(program.outputs)}"] if program.outputs else []),
    ]
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def einsum_lines(einsum: Einsum) -> list[str]:
    """The text of an Einsum: one line, or two for a recurrence."""
    body = print_expr(einsum.body)
    if einsum.step is None or einsum.start is None:
        return [f"{einsum.target}[{_ranks(einsum.ranks)}] = {body}"]
    first, later = (
        ", ".join(at if r == einsum.step else r for r in einsum.ranks) for at in ("0", f"{einsum.step} + 1")
    )
    return [f"{einsum.target}[{first}] = {print_expr(einsum.start)}", f"{einsum.target}[{later}] = {body}"]


def print_expr(expr: Expr) -> str:
    """The text of an expression on one line, with no parentheses but the needed ones."""
    return _print(expr)[0]


def _print(expr: Expr) -> tuple[str, int]:
    """The text of an expression, and how strongly its outermost operator binds."""
    match expr:
        case Const(value):
            return _constant(value)
        case Var(name, axis):
            return (name if axis is None else f"{name}.{axis}"), _ATOM
        case Param(name) if name.startswith(SIZE_PREFIX):
            return f"size.{name.removeprefix(SIZE_PREFIX)}", _ATOM
        case Size(name) | Param(name):
            return name, _ATOM
        case Load(tensor, indices):
            if tensor == SCORE and not indices:
                return SCORE, _ATOM
            return f"{tensor}[{', '.join(map(print_expr, indices)) or '()'}]", _ATOM
        case Reduce(op, ranks, body, at):
            slot = "" if at is None else f", {print_expr(at)}"
            return f"{op}[{_ranks(ranks)}]({print_expr(body)}{slot})", _ATOM
        case Apply(op, args):
            return _apply(op, args)
        case _:
            raise InternalError(f"{type(expr).__name__} has no text")


def _apply(op: str, args: tuple[Expr, ...]) -> tuple[str, int]:
    symbol = OPS[op].symbol if op in OPS else None
    if symbol is None:
        return f"{op}({', '.join(map(print_expr, args))})", _ATOM
    strength = _STRENGTH[op]
    if len(args) == 1:
        return f"{symbol}{_prefixed(op, args[0])}", strength
    # Operators group to the left: the right operand has to bind tighter. A power groups to the right and
    # takes a sign on that side only; comparisons do not group, since `a < b < c` means something else.
    left, right = strength, strength + 1
    if op == "pow":
        left, right = _ATOM, _UNARY
    elif strength == _COMPARE:
        left = strength + 1
    compares = strength == _COMPARE
    return f"{_within(args[0], left, compares)} {symbol} {_within(args[1], right, compares)}", strength


def _prefixed(op: str, operand: Expr) -> str:
    """The operand of a sign. `-(1)` is the negation of a constant, `-1` a constant."""
    if op == "neg" and isinstance(operand, Const) and not _constant(operand.value)[0].startswith("-"):
        return f"({print_expr(operand)})" if not isinstance(operand.value, bool) else str(operand.value)
    return _within(operand, _UNARY, compares=False)


def _within(operand: Expr, least: int, compares: bool) -> str:
    """An operand, in parentheses if it binds less than `least`."""
    text, strength = _print(operand)
    bare_bitwise = compares and isinstance(operand, Apply) and operand.op in _BITWISE
    return f"({text})" if strength < least or bare_bitwise else text


def _constant(value: float | bool) -> tuple[str, int]:
    text = repr(value) if isinstance(value, bool) or math.isfinite(value) else str(value).replace("inf", INF)
    return text, _UNARY if text.startswith("-") else _ATOM


def _ranks(ranks: tuple[str, ...]) -> str:
    return ", ".join(ranks) or "()"


def _param(param: ParamDecl) -> str:
    kind = "rank" if param.rank else f"const[{param.kind.value}]" if param.const else param.kind.value
    default = "" if param.default is None else f" = {_constant(param.default)[0]}"
    if param.extent is not None:
        default = f" = {print_expr(param.extent)}"
    return f"{param.name}: {kind}{default}"


def _tensor(tensor: TensorDecl) -> str:
    return f"{tensor.name}[{_ranks(tensor.ranks)}]: {tensor.kind.value}"


def _docstring(doc: str) -> str:
    """A docstring literal of the same text: readable as it stands, everything unprintable escaped."""
    text = "".join(_doc_char(char, doc[i + 1 : i + 2]) for i, char in enumerate(doc))
    return f'"""{text}\n"""' if "\n" in text else f'"""{text}"""'


def _doc_char(char: str, following: str) -> str:
    """One character of a docstring; of quotes in a row, only the last may stand bare, and not at the end."""
    if char == '"':
        return '\\"' if following in ('"', "") else char
    if char == "\n" or (char.isprintable() and char != "\\"):
        return char
    return char.encode("unicode_escape").decode("ascii")
