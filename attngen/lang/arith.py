"""Arithmetic on symbols: lifting of operands, kinds, and the meaning of each operator as torch has it.

Torch's rules that differ from the language's are settled here, so that expressions mean on paper what the
function means when run: `+` of two booleans is `or`, booleans in arithmetic are integers, `~` of an integer
is `-x - 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from attngen.lang.callsite import here
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var
from attngen.lang.ops import OPS, SUGAR, Kind, Rule
from attngen.lang.symbol import STATE, Capture, Sym, SymTensor, fail, is_tensor

# Expressions are trees: what a function reuses is repeated. Passes recurse over them.
MAX_NODES = 20_000
MAX_DEPTH = 120


def _is_numpy(obj: object) -> TypeGuard[Any]:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.generic | numpy.ndarray)


def kind_of_tensor(tensor: Any) -> Kind:
    """The kind of a captured tensor's elements; complex and quantised dtypes are refused."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bool":
        return Kind.BOOL
    if name.startswith(("int", "uint")):
        return Kind.INT
    if name.startswith(("float", "bfloat")):
        return Kind.FLOAT
    return fail(
        f"a captured tensor of dtype {name} cannot be used", "convert it to a float or integer tensor first"
    )


def capture_tensor(tensor: Any, name: str | None = None) -> Capture:
    """The capture of a real tensor, recognised by identity."""
    return Capture(f"%{id(tensor)}", name, kind_of_tensor(tensor), tensor, rank=tensor.ndim)


def lift(obj: object) -> Sym:
    """A symbol for an operand: a symbol, a Python or numpy number, or a 0-d tensor (read at run time)."""
    if isinstance(obj, Sym):
        return obj
    if isinstance(obj, bool | int | float):
        plain = bool(obj) if isinstance(obj, bool) else int(obj) if isinstance(obj, int) else float(obj)
        return Sym(Const(plain, loc=here()), _KIND_OF[type(plain)])
    if isinstance(obj, SymTensor):
        obj.refuse()
    if is_tensor(obj):
        return _lift_tensor(obj)
    if _is_numpy(obj):
        if obj.ndim == 0:
            return lift(obj.item())
        fail("a numpy array cannot be combined with a symbolic value", "index it: torch.from_numpy(array)[q]")
    return fail(f"cannot combine a symbolic value with {_describe(obj)}")


_KIND_OF: dict[type, Kind] = {bool: Kind.BOOL, int: Kind.INT, float: Kind.FLOAT}


def _describe(obj: object) -> str:
    return "None" if obj is None else f"an object of type {type(obj).__name__}"


def _lift_tensor(tensor: Any) -> Sym:
    state = STATE.get()
    if state is not None and id(tensor) in state.constants:
        return lift(state.constants[id(tensor)][1])
    if tensor.ndim != 0:
        shape = list(tensor.shape)
        fail(
            f"a tensor of shape {shape} cannot be combined with a symbolic value, which is one number",
            "index it with b, h, q or k first, for example bias[h]"
            if tensor.numel() != 1
            else "index it: t[0]",
        )
    capture = capture_tensor(tensor)
    return Sym(Load(capture.key, (), loc=here()), capture.kind, (capture,))


def node(
    build: Callable[[tuple[Expr, ...]], Expr],
    kind: Kind,
    operands: Sequence[Sym],
    captures: tuple[Capture, ...] = (),
) -> Sym:
    """A symbol for `build(operands' expressions)` with the captures of all, unless it grows too large."""
    nodes = 1 + sum(s.nodes for s in operands)
    depth = 1 + max((s.depth for s in operands), default=0)
    check_size(nodes, depth)
    for sym in operands:
        captures = _union(captures, sym.captures)
    return Sym(build(tuple(s.expr for s in operands)), kind, captures, nodes, depth)


def check_size(nodes: int, depth: int) -> None:
    """Raise a TraceError for a tree that later passes could not walk."""
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        fail(
            f"the traced expression is too large ({nodes} nodes, {depth} deep)",
            "put what a Python loop unrolls into a tensor and index it",
        )


def _union(a: tuple[Capture, ...], b: tuple[Capture, ...]) -> tuple[Capture, ...]:
    if not b or a is b:
        return a
    known = {c.key for c in a}
    return a + tuple(c for c in b if c.key not in known)


def result_kind(op: str, kinds: Sequence[Kind]) -> Kind:
    """The kind of `op` over operands of these kinds; booleans in arithmetic count as integers."""
    match (OPS.get(op) or SUGAR[op]).rule:
        case Rule.FLOAT | Rule.TO_FLOAT:
            return Kind.FLOAT
        case Rule.INT | Rule.TO_INT:
            return Kind.INT
        case Rule.COMPARE:
            return Kind.BOOL
        case Rule.LOGIC:
            return kinds[0]
        case Rule.SELECT:
            return _common(kinds[1:])
        case Rule.ARITH | Rule.ROUND:
            return _common(kinds) if _common(kinds) is not Kind.BOOL else Kind.INT


def _common(kinds: Sequence[Kind]) -> Kind:
    if Kind.FLOAT in kinds:
        return Kind.FLOAT
    return Kind.INT if Kind.INT in kinds else Kind.BOOL


def apply_op(op: str, *operands: object) -> Sym:
    """`op` over lifted operands; booleans become integers wherever a number is meant."""
    syms = [lift(x) for x in operands]
    rule = (OPS.get(op) or SUGAR[op]).rule
    if rule is Rule.SELECT:
        if syms[0].kind is not Kind.BOOL:
            fail(f"the condition of where is {syms[0].kind}, not boolean", "compare it with something first")
        if syms[1].kind is not syms[2].kind:
            syms[1:] = [as_number(s) for s in syms[1:]]
    elif rule not in (Rule.LOGIC, Rule.TO_INT):
        syms = [as_number(s) for s in syms]
    if rule is Rule.ROUND and syms[0].kind is Kind.INT:
        return syms[0]
    if rule is Rule.INT and any(s.kind is not Kind.INT for s in syms):
        fail(f"{OPS[op].symbol} needs integers")
    return node(lambda args: Apply(op, args, loc=here()), result_kind(op, [s.kind for s in syms]), syms)


def as_number(x: object) -> Sym:
    """Integers in place of booleans; numbers unchanged."""
    sym = lift(x)
    if sym.kind is not Kind.BOOL:
        return sym
    if isinstance(sym.expr, Const):
        return lift(int(sym.expr.value))
    return to_int(sym)


def as_bool(x: object) -> Sym:
    """Truth of a number, as torch has it: anything but zero."""
    sym = lift(x)
    return sym if sym.kind is Kind.BOOL else compare("ne", sym, 0)


def to_int(x: object) -> Sym:
    """Truncation toward zero; integers unchanged."""
    sym = lift(x)
    if sym.kind is Kind.INT:
        return sym
    return node(lambda args: Apply("int", args, loc=here()), Kind.INT, [sym])


def to_float(x: object) -> Sym:
    """A float of the same value; floats unchanged."""
    sym = as_number(x)
    if sym.kind is Kind.FLOAT:
        return sym
    return node(lambda args: Apply("float", args, loc=here()), Kind.FLOAT, [sym])


def _both_bool(a: Sym, b: Sym) -> bool:
    return a.kind is Kind.BOOL and b.kind is Kind.BOOL


def add(input: object, other: object) -> Sym:
    """Sum; of two booleans their `or`, as torch has it."""
    x, y = lift(input), lift(other)
    return logic("or", x, y) if _both_bool(x, y) else apply_op("add", x, y)


def mul(input: object, other: object) -> Sym:
    """Product; of two booleans their `and`."""
    x, y = lift(input), lift(other)
    return logic("and", x, y) if _both_bool(x, y) else apply_op("mul", x, y)


def sub(input: object, other: object) -> Sym:
    """Difference; torch has none for booleans, and neither have we."""
    x, y = lift(input), lift(other)
    if _both_bool(x, y):
        fail("two booleans cannot be subtracted", "use ^ for exclusive or, or a & ~b")
    return apply_op("sub", x, y)


def negate(input: object) -> Sym:
    """Minus; a condition is inverted by ~ instead."""
    x = lift(input)
    if x.kind is Kind.BOOL:
        fail("a boolean cannot be negated by -", "use ~ to invert a condition")
    return apply_op("neg", x)


def power(input: object, other: object) -> Sym:
    """Power; an integer to a negative integer power is refused, as in torch."""
    x, y = lift(input), lift(other)
    if (
        x.kind is not Kind.FLOAT
        and isinstance(y.expr, Const)
        and isinstance(y.expr.value, int)
        and y.expr.value < 0
    ):
        fail("an integer to a negative integer power is not an integer", "use a float: x.float() ** n")
    return apply_op("pow", x, y)


def minimum(input: object, other: object) -> Sym:
    """The smaller of two; of two booleans their `and`."""
    x, y = lift(input), lift(other)
    return logic("and", x, y) if _both_bool(x, y) else apply_op("min", x, y)


def maximum(input: object, other: object) -> Sym:
    """The larger of two; of two booleans their `or`."""
    x, y = lift(input), lift(other)
    return logic("or", x, y) if _both_bool(x, y) else apply_op("max", x, y)


def times(x: object, factor: object) -> object:
    """`x * factor`; `x` itself where the factor is the number 1."""
    return x if isinstance(factor, int | float) and factor == 1 else mul(x, factor)


def clamp(input: object, min: object = None, max: object = None) -> Sym:
    """`x` between the bounds that are given; at least one must be."""
    if min is None and max is None:
        fail("clamp needs min, max or both")
    x = lift(input)
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)


def compare(op: str, input: object, other: object) -> Sym:
    """A comparison; two booleans are equal when their exclusive or is false."""
    x, y = lift(input), lift(other)
    if _both_bool(x, y) and op in ("eq", "ne"):
        differ = logic("xor", x, y)
        return differ if op == "ne" else invert(differ)
    return apply_op(op, x, y)


def logic(op: str, input: object, other: object) -> Sym:
    """`and`, `or`, `xor`: logical on booleans, bitwise on integers; neutral constants drop out."""
    x, y = lift(input), lift(other)
    if Kind.FLOAT in (x.kind, y.kind):
        fail(f"{OPS[op].symbol} needs booleans or integers", "compare first: (score > 0) & ...")
    if _both_bool(x, y):
        neutral = Const(op == "and")
        if neutral in (x.expr, y.expr):
            return y if x.expr == neutral else x
    else:
        x, y = as_number(x), as_number(y)
    return apply_op(op, x, y)


def invert(input: object) -> Sym:
    """`~`: logical on booleans, `-x - 1` on integers."""
    x = lift(input)
    match x.kind:
        case Kind.BOOL:
            return apply_op("not", x)
        case Kind.INT:
            return sub(negate(x), 1)
        case Kind.FLOAT:
            return fail("~ needs a boolean or an integer", "compare first: ~(score > 0)")


def number_of(value: object) -> int | float | bool:
    """A Python number from a Python or numpy scalar; anything else raises `TypeError`."""
    if isinstance(value, bool | int | float):
        return value
    if _is_numpy(value) and value.ndim == 0:
        return number_of(value.item())
    raise TypeError(type(value).__name__)


# Leaves


def index_var(name: str) -> Sym:
    """The index of a rank: `b`, `h`, `q` or `k`."""
    return Sym(Var(name), Kind.INT)


def size(name: str) -> Sym:
    """An extent known at run time: one of `program.SIZES`."""
    return Sym(Size(name, loc=here()), Kind.INT)


def parameter(name: str, kind: Kind, value: object, const: bool) -> Sym:
    """A scalar parameter bound to `value`; equal name and value are the same parameter."""
    capture = Capture(f"%{name}={kind}:{value!r}", name, kind, value, None, const)
    return Sym(Param(capture.key, loc=here()), kind, (capture,))
