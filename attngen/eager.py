"""Expressions on torch tensors: what a `Mask` or `Score` does when called like the function it came from.

This is for use next to FlexAttention and for looking at a mask; kernels never run it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from attngen.errors import MissingTensorError, UnsupportedError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var

_Op = Callable[..., Any]


def evaluate_with_torch(
    expr: Expr, indices: Mapping[str, Any], values: Mapping[str, Any], sizes: Mapping[str, int | None]
) -> Any:
    """The value of a desugared mask or score.

    `indices` holds `b`, `h`, `q`, `k` and for a score `S`: tensors that broadcast, or numbers. `values` holds
    captured tensors and parameters, `sizes` extents such as `n_k`. Raises MissingTensorError for what is
    absent.
    """

    def leaf(node: Expr) -> Any:
        match node:
            case Const(value):
                return value
            case Var(name) | Load("S" as name, ()) if name in indices:
                return indices[name]
            case Size(name):
                extent = sizes.get(name)
                if extent is None:
                    raise MissingTensorError(
                        f"the extent `{name}` is not known here", loc=node.loc, hint=_LENGTHS
                    )
                return extent
            case Param(name) | Load(name, ()) if name in values:
                return values[name]
            case Load(name, at) if name in values:
                return _read(values[name], [evaluate(i, leaf, TORCH_OPS) for i in at])
            case Param(name) | Load(name, _):
                raise MissingTensorError(
                    f"`{name}` has no value", loc=node.loc, hint=f"give it by bind({name}=...)"
                )
            case _:
                raise UnsupportedError(f"{type(node).__name__} has no value for one pair", loc=node.loc)

    return evaluate(expr, leaf, TORCH_OPS)


_LENGTHS = "give the lengths: m(b, h, q, k, n_q=..., n_k=...), or functools.partial(m, n_q=..., n_k=...)"


def _read(tensor: torch.Tensor, at: list[Any]) -> torch.Tensor:
    """`tensor[at]`, indices clamped as in kernels."""
    # `aten.index` and not `[]`: it never asks for an index's value, so it works under vmap.
    index = [
        torch.as_tensor(i, device=tensor.device).clamp(0, max(n - 1, 0)).long()
        for i, n in zip(at, tensor.shape, strict=True)
    ]
    return torch.ops.aten.index.Tensor(tensor, index)


def _tensor(x: Any) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else torch.as_tensor(x)


def _number(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.to(torch.int32) if x.dtype == torch.bool else x
    return int(x) if isinstance(x, bool) else x


def _arith(fn: _Op) -> _Op:
    return lambda *args: fn(*(_number(a) for a in args))


def _function(fn: _Op) -> _Op:
    return lambda *args: fn(*(_tensor(_number(a)) for a in args))


def _rounded(fn: _Op) -> _Op:
    def op(x: Any) -> torch.Tensor:
        number = _tensor(_number(x))
        return fn(number) if number.dtype.is_floating_point else number

    return op


def _divide(fn: _Op) -> _Op:
    """Division by zero of integers is 0 here as in the reference; torch would end the process or raise."""

    def op(a: Any, b: Any) -> torch.Tensor:
        x, y = _tensor(_number(a)), _tensor(_number(b))
        if x.dtype.is_floating_point or y.dtype.is_floating_point:
            return fn(x, y)
        return torch.where(y == 0, 0, fn(x, torch.where(y == 0, 1, y)))

    return op


def _where(condition: Any, a: Any, b: Any) -> torch.Tensor:
    if _tensor(a).dtype != torch.bool or _tensor(b).dtype != torch.bool:
        a, b = _number(a), _number(b)
    return torch.where(_tensor(condition), a, b)


def _not(x: Any) -> Any:
    return not x if isinstance(x, bool) else ~x


def _to_int(x: Any) -> torch.Tensor:
    return _tensor(x).to(torch.int64)


def _to_float(x: Any) -> torch.Tensor:
    tensor = _tensor(x)
    return tensor if tensor.dtype.is_floating_point else tensor.to(torch.get_default_dtype())


def _finite(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isinf(x), 0.0, x)


TORCH_OPS: dict[str, _Op] = {
    "add": _arith(operator.add),
    "sub": _arith(operator.sub),
    "mul": _arith(operator.mul),
    "div": _function(torch.true_divide),
    "floordiv": _divide(torch.floor_divide),
    "mod": _divide(torch.remainder),
    "pow": _function(torch.pow),
    "neg": _arith(operator.neg),
    "lt": _arith(operator.lt),
    "le": _arith(operator.le),
    "gt": _arith(operator.gt),
    "ge": _arith(operator.ge),
    "eq": _arith(operator.eq),
    "ne": _arith(operator.ne),
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": _not,
    "shl": _arith(operator.lshift),
    "shr": _arith(operator.rshift),
    "where": _where,
    "min": _function(torch.minimum),
    "max": _function(torch.maximum),
    "abs": _function(torch.abs),
    "sign": _function(torch.sign),
    "round": _rounded(torch.round),
    "floor": _rounded(torch.floor),
    "ceil": _rounded(torch.ceil),
    "exp": _function(torch.exp),
    "exp2": _function(torch.exp2),
    "log": _function(torch.log),
    "log2": _function(torch.log2),
    "tanh": _function(torch.tanh),
    "sigmoid": _function(torch.sigmoid),
    "erf": _function(torch.erf),
    "sqrt": _function(torch.sqrt),
    "sin": _function(torch.sin),
    "cos": _function(torch.cos),
    "int": _to_int,
    "float": _to_float,
    "finite": _rounded(_finite),
}
