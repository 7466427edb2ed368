"""The catalogue of score functions for Python users: each returns a `Score`, applied to the scaled score.

Scalars are run-time parameters and tables are captured tensors: changing either compiles nothing. Chain
scores by `first.then(second)`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attngen.capture import Score, score
from attngen.errors import DTypeError, ParameterError, ShapeError
from attngen.lang.trace import param, pos

__all__ = ["alibi", "alibi_slopes", "relative_bias", "softcap", "temperature"]


def alibi(slopes: int | Tensor) -> Score:
    """A penalty that grows with distance: `S - slopes[h] * (pos(q) - k)`. Press et al., arXiv:2108.12409.

    `slopes` is a float tensor [H], or the number of heads for the paper's slopes. Meant for causal masks: a
    key after the query would be favoured.
    """
    if isinstance(slopes, int):
        import torch

        slopes = torch.tensor(alibi_slopes(slopes))
    _check_table("slopes", slopes, (1,))

    def alibi(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score - slopes[h] * (pos(q) - k)

    return _score(alibi)


def alibi_slopes(heads: int) -> list[float]:
    """The paper's slopes: `2 ** (-8 i / heads)` for i = 1 .. heads when `heads` is a power of two.

    Otherwise those of the next lower power of two, then every other one of the next higher one.
    """
    if heads < 1:
        raise ParameterError(f"`heads` is at least 1, not {heads}")
    lower = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / lower) for i in range(1, lower + 1)]
    return slopes + [2.0 ** (-4.0 * i / lower) for i in range(1, 2 * (heads - lower), 2)]


def softcap(cap: float) -> Score:
    """A smooth bound: `cap * tanh(S / cap)`. Gemma 2, arXiv:2408.00118, section 2."""
    limit = _positive("cap", cap)

    def softcap(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:

        return limit * torch.tanh(score / limit)

    return _score(softcap)


def temperature(temperature: float) -> Score:
    """The score divided by a temperature: above 1 flattens the weights, below 1 sharpens them."""
    heat = _positive("temperature", temperature)

    def divide(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score / heat

    return _score(divide)


def relative_bias(table: Tensor) -> Score:
    """A learned bias by clipped distance: `S + table[h, clip(k - pos(q), -R, R) + R]`.

    `table` is a float tensor [H, 2 R + 1], or [2 R + 1] for all heads; its middle entry is distance 0,
    entries after it are keys to the right. Clipping as in Shaw et al., arXiv:1803.02155, section 3.2; one
    scalar a head and distance as in Swin, arXiv:2103.14030.
    """
    _check_table("table", table, (1, 2))
    n = table.shape[-1]
    if n % 2 == 0:
        raise ShapeError(f"`table` has {n} distances; it needs an odd number, 2 R + 1")
    reach = param("reach", n // 2)
    per_head = table.ndim == 2

    def relative_bias(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        at = (k - pos(q)).clamp(-reach, reach) + reach
        return score + (table[h, at] if per_head else table[at])

    return _score(relative_bias)


_score = score


def _positive(name: str, value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ParameterError(f"`{name}` is a positive number, not {value!r}")
    return param(name, float(value))


def _check_table(name: str, table: Any, ranks: tuple[int, ...]) -> None:
    if not table.dtype.is_floating_point:
        raise DTypeError(f"`{name}` is a float tensor, but its dtype is {table.dtype}")
    if table.ndim not in ranks:
        shape = list(table.shape)
        raise ShapeError(f"`{name}` has shape {shape}; it has {' or '.join(map(str, ranks))} dimensions")
