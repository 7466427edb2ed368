"""Activations of `torch.nn.functional` on symbols, with torch's argument names and defaults."""

# pyright: reportUnknownLambdaType=false
# A lambda cannot say the types of its arguments, which are whatever the user passes.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attngen.lang import arith
from attngen.lang.arith import apply_op, as_number, clamp, compare, lift, times, to_float
from attngen.lang.ops import Kind
from attngen.lang.symbol import Sym

_Function = Callable[..., Any]


def _relu(input: object, inplace: bool = False) -> Sym:
    x = as_number(input)
    return arith.maximum(x, 0.0 if x.kind is Kind.FLOAT else 0)


def _relu6(input: object, inplace: bool = False) -> Sym:
    return _hardtanh(input, 0.0, 6.0)


def _hardtanh(input: object, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Sym:
    return clamp(input, min_val, max_val)


def _silu(input: object, inplace: bool = False) -> Sym:
    return lift(input) * apply_op("sigmoid", input)


def _gelu(input: object, approximate: str = "none") -> Sym:
    x = to_float(input)
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + apply_op("tanh", inner))
    return 0.5 * x * (1.0 + apply_op("erf", x * math.sqrt(0.5)))


def _softplus(input: object, beta: float = 1.0, threshold: float = 20.0) -> Sym:
    x = to_float(input)
    scaled = times(x, beta)
    soft = apply_op("log", 1.0 + apply_op("exp", arith.minimum(scaled, threshold)))
    return apply_op("where", compare("gt", scaled, threshold), x, soft if beta == 1 else soft / beta)


def _leaky_relu(input: object, negative_slope: float = 0.01, inplace: bool = False) -> Sym:
    x = to_float(input)
    return apply_op("where", x > 0, x, x * negative_slope)


def _elu(input: object, alpha: float = 1.0, inplace: bool = False) -> Sym:
    x = to_float(input)
    return apply_op("where", x > 0, x, times(apply_op("exp", arith.minimum(x, 0.0)) - 1.0, alpha))


def _selu(input: object, inplace: bool = False) -> Sym:
    return 1.0507009873554805 * _elu(input, 1.6732632423543772)


def _celu(input: object, alpha: float = 1.0, inplace: bool = False) -> Sym:
    x = to_float(input)
    return arith.maximum(x, 0.0) + arith.minimum(
        alpha * (apply_op("exp", arith.minimum(x, 0.0) / alpha) - 1.0), 0.0
    )


def _hardsigmoid(input: object, inplace: bool = False) -> Sym:
    return clamp(to_float(input) + 3.0, 0.0, 6.0) / 6.0


def _hardswish(input: object, inplace: bool = False) -> Sym:
    return lift(input) * _hardsigmoid(input)


def _threshold(input: object, threshold: float, value: float, inplace: bool = False) -> Sym:
    return apply_op("where", compare("gt", input, threshold), input, value)


ACTIVATIONS: dict[str, _Function] = {
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "silu": _silu,
    "gelu": _gelu,
    "softplus": _softplus,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "mish": lambda input, inplace=False: lift(input) * apply_op("tanh", _softplus(input)),
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "logsigmoid": lambda input: -_softplus(-to_float(input)),
    "log_sigmoid": lambda input: -_softplus(-to_float(input)),
    "softsign": lambda input: to_float(input) / (1.0 + abs(to_float(input))),
    "tanhshrink": lambda input: to_float(input) - apply_op("tanh", input),
    "threshold": _threshold,
}
