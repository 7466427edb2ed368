"""The meaning of the language's operators and reducers on torch tensors, as the reference evaluates them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Tensor = torch.Tensor


def finite(x: Tensor) -> Tensor:
    """`x`, or 0 where it is an infinity."""
    return torch.where(torch.isinf(x), torch.zeros_like(x), x)


def _reduce_with(
    fn: Callable[[Tensor, int], Tensor], identity: float
) -> Callable[[Tensor, list[int]], Tensor]:
    """Reduce dims one after the other; a dim of length 0 gives the identity."""

    def run(x: Tensor, dims: list[int]) -> Tensor:
        for dim in dims:
            if x.shape[dim] == 0:
                shape = [1 if i == dim else n for i, n in enumerate(x.shape)]
                x = torch.full(shape, identity, dtype=x.dtype, device=x.device)
            else:
                x = fn(x, dim)
        return x

    return run


REDUCE: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "sum": _reduce_with(lambda x, d: x.sum(d, keepdim=True), 0.0),
    "max": _reduce_with(lambda x, d: x.amax(d, keepdim=True), -math.inf),
    "min": _reduce_with(lambda x, d: x.amin(d, keepdim=True), math.inf),
    "prod": _reduce_with(lambda x, d: x.prod(d, keepdim=True), 1.0),
    "any": _reduce_with(lambda x, d: (x != 0).any(d, keepdim=True).to(x.dtype), 0.0),
    "all": _reduce_with(lambda x, d: (x != 0).all(d, keepdim=True).to(x.dtype), 1.0),
    "logaddexp": _reduce_with(lambda x, d: torch.logsumexp(x, d, keepdim=True), -math.inf),
}


def select(x: Tensor, dim: int, slot: Tensor) -> tuple[Tensor, Tensor]:
    """The `slot`-th largest value along `dim` and its index, ties by the smaller; -inf and -1 where there is none.

    A value of -inf is nothing to select. `slot` counts from 0 and has length 1 along `dim`.
    """
    length = x.shape[dim]
    rest = [1 if i == dim else n for i, n in enumerate(x.shape)]
    # without `torch.broadcast_shapes`, which imports sympy
    shape = [m if n == 1 else n for n, m in zip(rest, slot.shape, strict=True)]
    if length == 0:
        nothing = torch.full(shape, -math.inf, dtype=x.dtype, device=x.device)
        return nothing, torch.full(shape, -1, device=x.device)
    ordered, index = torch.sort(x, dim=dim, descending=True, stable=True)
    at = slot.clamp(0, length - 1).expand(shape)
    full = [length if i == dim else n for i, n in enumerate(shape)]
    best = torch.where((slot >= 0) & (slot < length), ordered.expand(full).gather(dim, at), -math.inf)
    return best, torch.where(best == -math.inf, -1, index.expand(full).gather(dim, at))


def _arith(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Booleans count as integers in arithmetic."""
    return lambda *args: fn(*(a.long() if a.dtype == torch.bool else a for a in args))


def _logic(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Bitwise on integers, logical where any operand is boolean."""
    return lambda *args: (
        fn(*(a.bool() for a in args)) if any(a.dtype == torch.bool for a in args) else fn(*args)
    )


def _rounding(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: fn(x) if x.is_floating_point() else x


def _floordiv(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return torch.floor(a / b)
    return torch.where(b == 0, 0, torch.floor_divide(a, torch.where(b == 0, 1, b)))


def _mod(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return torch.remainder(a, b)
    return torch.where(b == 0, 0, torch.remainder(a, torch.where(b == 0, 1, b)))


def torch_ops(dtype: torch.dtype) -> dict[str, Callable[..., Tensor]]:
    """The meaning of every operator on tensors, with `dtype` for the reals."""

    def _real(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: fn(*(a.to(dtype) for a in args))

    return {
        "add": _arith(torch.add),
        "sub": _arith(torch.sub),
        "mul": _arith(torch.mul),
        "div": _real(torch.div),
        "floordiv": _arith(_floordiv),
        "mod": _arith(_mod),
        "pow": _arith(torch.pow),
        "neg": _arith(torch.neg),
        "lt": _arith(torch.lt),
        "le": _arith(torch.le),
        "gt": _arith(torch.gt),
        "ge": _arith(torch.ge),
        "eq": _arith(torch.eq),
        "ne": _arith(torch.ne),
        "and": _logic(torch.bitwise_and),
        "or": _logic(torch.bitwise_or),
        "xor": _logic(torch.bitwise_xor),
        "not": torch.bitwise_not,
        "shl": _arith(torch.bitwise_left_shift),
        "shr": _arith(torch.bitwise_right_shift),
        "where": lambda c, a, b: torch.where(c.bool(), *_common(a, b)),
        "min": _arith(lambda a, b: torch.minimum(*_common(a, b))),
        "max": _arith(lambda a, b: torch.maximum(*_common(a, b))),
        "abs": _arith(torch.abs),
        "sign": _arith(torch.sign),
        "round": _rounding(torch.round),
        "floor": _rounding(torch.floor),
        "ceil": _rounding(torch.ceil),
        "exp": _real(torch.exp),
        "exp2": _real(torch.exp2),
        "log": _real(torch.log),
        "log2": _real(torch.log2),
        "tanh": _real(torch.tanh),
        "sigmoid": _real(torch.sigmoid),
        "erf": _real(torch.erf),
        "sqrt": _real(torch.sqrt),
        "sin": _real(torch.sin),
        "cos": _real(torch.cos),
        "int": lambda x: torch.trunc(x).long() if x.is_floating_point() else x.long(),
        "float": lambda x: x.to(dtype),
        "finite": lambda x: finite(x) if x.is_floating_point() else x,
    }


def _common(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)
