"""What torch's functions and methods mean on symbols, by torch's own names.

One table serves `torch.exp(x)`, `x.exp()`, `torch.nn.functional.silu(x)` and Python's operators. The
table is found by name, so torch is not imported.
"""

# pyright: reportUnknownLambdaType=false
# A lambda cannot say the types of its arguments, which are whatever the user passes.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attngen.lang import arith
from attngen.lang.arith import (
    apply_op,
    as_bool,
    as_number,
    clamp,
    compare,
    invert,
    lift,
    logic,
    times,
    to_float,
    to_int,
)
from attngen.lang.indexing import index
from attngen.lang.ops import Kind
from attngen.lang.symbol import Meanings, Sym, fail
from attngen.lang.torch_activations import ACTIVATIONS
from attngen.lang.torch_casts import CONVERSIONS, identity, to_kind

_Function = Callable[..., Any]


def _unary(op: str) -> _Function:
    return lambda input: apply_op(op, input)


def _binary(op: str) -> _Function:
    return lambda input, other: apply_op(op, input, other)


def _comparison(op: str) -> _Function:
    return lambda input, other: compare(op, input, other)


def _bitwise(op: str) -> _Function:
    return lambda input, other: logic(op, input, other)


def _logical(op: str) -> _Function:
    return lambda input, other: logic(op, as_bool(input), as_bool(other))


def _swapped(fn: _Function) -> _Function:
    return lambda input, other: fn(other, input)


def _add(input: object, other: object, *, alpha: object = 1) -> Sym:
    return arith.add(input, times(other, alpha))


def _sub(input: object, other: object, *, alpha: object = 1) -> Sym:
    return arith.sub(input, times(other, alpha))


def _div(input: object, other: object, *, rounding_mode: str | None = None) -> Sym:
    match rounding_mode:
        case None:
            return apply_op("div", input, other)
        case "floor":
            return apply_op("floordiv", input, other)
        case "trunc":
            return _trunc_div(input, other)
        case _:
            return fail(f"div has no rounding mode {rounding_mode!r}", "use None, 'floor' or 'trunc'")


def _trunc_div(a: object, b: object) -> Sym:
    """Integers divide by magnitude and take the sign of the quotient; floats divide and are cut."""
    x, y = as_number(a), as_number(b)
    if Kind.FLOAT in (x.kind, y.kind):
        return _trunc(x / y)
    magnitude = abs(x) // abs(y)
    return apply_op("where", (x < 0) ^ (y < 0), -magnitude, magnitude)


def _fmod(input: object, other: object) -> Sym:
    """Remainder with the sign of the dividend."""
    x, y = as_number(input), as_number(other)
    magnitude = abs(x) % abs(y)
    return apply_op("where", x < 0, -magnitude, magnitude)


def _pow(input: object, exponent: object) -> Sym:
    return arith.power(input, exponent)


def _trunc(input: object) -> Sym:
    x = as_number(input)
    return apply_op("where", x < 0, apply_op("ceil", x), apply_op("floor", x)) if x.kind is Kind.FLOAT else x


def _round(input: object, *, decimals: int = 0) -> Sym:
    if decimals == 0:
        return apply_op("round", input)
    unit = 10.0 ** abs(decimals)
    if decimals > 0:
        return apply_op("round", to_float(input) * unit) / unit
    return apply_op("round", to_float(input) / unit) * unit


def _extremum(pick: _Function, name: str) -> _Function:
    def extremum(input: object, *others: object, **dims: object) -> Sym:
        other = others[0] if others else dims.pop("other", None)
        if dims or len(others) > 1 or not (isinstance(other, Sym) or hasattr(other, "dtype")):
            fail(f"{name} over a dimension: a symbolic value is one number", f"write torch.{name}imum(a, b)")
        return pick(input, other)

    return extremum


def _where(condition: object, input: object = None, other: object = None) -> Sym:
    if input is None or other is None:
        fail("where with one argument lists indices, which cannot be traced", "write torch.where(c, a, b)")
    return apply_op("where", condition, input, other)


def _where_method(self: object, condition: object, other: object) -> Sym:
    return apply_op("where", condition, self, other)


def _masked_fill(input: object, mask: object, value: object) -> Sym:
    x = lift(input)
    filled = apply_op("where", mask, value, x)
    return filled if filled.kind is x.kind else to_kind(filled, x.kind)


def _lerp(input: object, end: object, weight: object) -> Sym:
    x = lift(input)
    return x + weight * (lift(end) - x)


def _addcmul(input: object, tensor1: object, tensor2: object, *, value: object = 1) -> Sym:
    return lift(input) + times(arith.mul(tensor1, tensor2), value)


def _logaddexp(input: object, other: object) -> Sym:
    x, y = to_float(input), to_float(other)
    return arith.maximum(x, y) + apply_op("log", 1.0 + apply_op("exp", -abs(x - y)))


def _heaviside(input: object, values: object) -> Sym:
    x = lift(input)
    return apply_op("where", x == 0, values, to_kind(x > 0, x.kind))


def _isnan(input: object) -> Sym:
    x = lift(input)
    return compare("ne", x, x)  # only NaN differs from itself


def _isinf(input: object) -> Sym:
    return abs(to_float(input)) == math.inf


_UNARY = {
    op: _unary(op)
    for op in (
        "abs",
        "sign",
        "floor",
        "ceil",
        "exp",
        "exp2",
        "log",
        "log2",
        "tanh",
        "sigmoid",
        "erf",
        "sqrt",
        "sin",
        "cos",
    )
}

_SIMPLE: dict[str, _Function] = {
    **_UNARY,
    "absolute": _UNARY["abs"],
    "expit": _UNARY["sigmoid"],
    "special_expit": _UNARY["sigmoid"],
    "special_erf": _UNARY["erf"],
    "special_exp2": _UNARY["exp2"],
    "sgn": _UNARY["sign"],
    "neg": arith.negate,
    "negative": arith.negate,
    "positive": identity,
    "square": lambda input: arith.mul(as_number(input), input),
    "reciprocal": lambda input: apply_op("div", 1.0, input),
    "rsqrt": lambda input: apply_op("div", 1.0, apply_op("sqrt", input)),
    "expm1": lambda input: apply_op("exp", input) - 1.0,
    "log1p": lambda input: apply_op("log", 1.0 + to_float(input)),
    "log10": lambda input: apply_op("log", input) * (1.0 / math.log(10.0)),
    "erfc": lambda input: 1.0 - apply_op("erf", input),
    "tan": lambda input: apply_op("sin", input) / apply_op("cos", input),
    "sinh": lambda input: (apply_op("exp", input) - apply_op("exp", -to_float(input))) * 0.5,
    "cosh": lambda input: (apply_op("exp", input) + apply_op("exp", -to_float(input))) * 0.5,
    "logit": lambda input: apply_op("log", to_float(input) / (1.0 - to_float(input))),
    "frac": lambda input: to_float(input) - _trunc(input),
    "deg2rad": lambda input: to_float(input) * (math.pi / 180.0),
    "rad2deg": lambda input: to_float(input) * (180.0 / math.pi),
    "round": _round,
    "trunc": _trunc,
    "fix": _trunc,
    "isnan": _isnan,
    "isinf": _isinf,
    "isfinite": lambda input: abs(to_float(input)) < math.inf,
    "isposinf": lambda input: compare("eq", input, math.inf),
    "isneginf": lambda input: compare("eq", input, -math.inf),
    "signbit": lambda input: compare("lt", input, 0),
}

_TWO: dict[str, _Function] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": lambda input, other, *, alpha=1: arith.sub(other, times(input, alpha)),
    "mul": arith.mul,
    "multiply": arith.mul,
    "div": _div,
    "divide": _div,
    "true_divide": _binary("div"),
    "floor_divide": _binary("floordiv"),
    "remainder": _binary("mod"),
    "fmod": _fmod,
    "pow": _pow,
    "float_power": lambda input, exponent: arith.power(to_float(input), exponent),
    "minimum": arith.minimum,
    "maximum": arith.maximum,
    "fmin": arith.minimum,
    "fmax": arith.maximum,
    "min": _extremum(arith.minimum, "min"),
    "max": _extremum(arith.maximum, "max"),
    "sym_min": arith.minimum,
    "sym_max": arith.maximum,
    "sym_not": lambda a: invert(as_bool(a)),
    "sym_int": to_int,
    "sym_float": to_float,
    "sym_ite": lambda b, t, f: apply_op("where", b, t, f),
    "logaddexp": _logaddexp,
    "hypot": lambda input, other: apply_op("sqrt", to_float(input) * input + to_float(other) * other),
    "heaviside": _heaviside,
    "lerp": _lerp,
    "addcmul": _addcmul,
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": lambda input, max: clamp(input, None, max),
    "where": _where,
    "masked_fill": _masked_fill,
    "logical_not": lambda input: invert(as_bool(input)),
    "bitwise_not": invert,
    "bitwise_left_shift": _binary("shl"),
    "bitwise_right_shift": _binary("shr"),
    **{f"logical_{op}": _logical(op) for op in ("and", "or", "xor")},
    **{f"bitwise_{op}": _bitwise(op) for op in ("and", "or", "xor")},
    **{op: _comparison(op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
    "equal": lambda input, other: fail("torch.equal asks for one truth value", "write a == b"),
    "less": _comparison("lt"),
    "less_equal": _comparison("le"),
    "greater": _comparison("gt"),
    "greater_equal": _comparison("ge"),
    "not_equal": _comparison("ne"),
}

_FUNCTIONS = {**_SIMPLE, **_TWO, **CONVERSIONS, **ACTIVATIONS}
# `x.where(condition, other)` and `torch.where(condition, x, other)` put their arguments in different orders.
_METHODS: dict[str, _Function] = {"where": _where_method}

_OPERATORS: dict[str, _Function] = {
    "add": _add,
    "sub": _sub,
    "mul": arith.mul,
    "truediv": _binary("div"),
    "div": _binary("div"),
    "floordiv": _binary("floordiv"),
    "mod": _binary("mod"),
    "pow": arith.power,
    "lshift": _binary("shl"),
    "rshift": _binary("shr"),
    "and": _bitwise("and"),
    "or": _bitwise("or"),
    "xor": _bitwise("xor"),
    "divmod": lambda a, b: (apply_op("floordiv", a, b), apply_op("mod", a, b)),
}
_DUNDERS: dict[str, _Function] = {
    **{f"__{name}__": fn for name, fn in _OPERATORS.items()},
    **{f"__r{name}__": _swapped(fn) for name, fn in _OPERATORS.items()},
    **{f"__{op}__": _comparison(op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
    "__invert__": invert,
    "__neg__": arith.negate,
    "__pos__": lift,
    "__abs__": _UNARY["abs"],
    "__floor__": lambda x: to_int(apply_op("floor", x)),
    "__ceil__": lambda x: to_int(apply_op("ceil", x)),
    "__trunc__": to_int,
    "__round__": lambda x, n=None: to_int(_round(x)) if n is None else _round(x, decimals=n),
    "__getitem__": index,
}

_REDUCTION = (
    "it reduces or reorders over a dimension, and a symbolic value is one number of one (query, key) pair"
)
_RANDOM = "random numbers cannot be traced: the same pair must give the same value every time"
_FACTORY = "a tensor cannot be made from symbolic values"
_SHAPE = "a symbolic value has no dimensions; leave the shape operation out"

_REDUCING = """
    sum mean prod any all amax amin argmax argmin cumsum cumprod softmax log_softmax std var norm logsumexp
    sort argsort topk median mode unique searchsorted bucketize matmul dot einsum isin
"""
_DRAWING = """
    rand_like randn_like randint_like bernoulli dropout rand randn randint normal multinomial alpha_dropout
"""
_MAKING = "tensor as_tensor full zeros ones arange empty stack cat linspace asarray"
_SHAPING = """
    view reshape unsqueeze squeeze expand expand_as flatten permute transpose repeat broadcast_to
    broadcast_tensors gather scatter index_select unbind chunk split
"""

MEANINGS = Meanings(
    functions=_FUNCTIONS,
    methods=_METHODS,
    operators=_DUNDERS,
    reasons={
        **dict.fromkeys(_REDUCING.split(), _REDUCTION),
        **dict.fromkeys(_DRAWING.split(), _RANDOM),
        **dict.fromkeys(_MAKING.split(), _FACTORY),
        **dict.fromkeys(_SHAPING.split(), _SHAPE),
    },
)
