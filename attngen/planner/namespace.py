"""The functions that interval rules are written in, for numpy arrays and for torch tensors alike.

The rules are one table; what differs between the two libraries is spelling, and it is spelled here. Everything works
on int64, float64 and bool. None of the torch functions needs a value on the host, so none waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from attngen.value import value

Op = Callable[..., Any]

# Functions that both libraries have under one name, with one meaning on arrays.
_SHARED = (
    "abs", "ceil", "cos", "exp", "exp2", "floor", "floor_divide", "isfinite", "isinf", "isnan", "log", "log2",
    "maximum", "minimum", "multiply", "sin", "sqrt", "tanh", "trunc", "where",
)  # fmt: skip


@value
class Namespace:
    """Array functions of one library.

    kind     the kind of an array's dtype: "b", "i" or "f".
    round32  float64 values rounded to fp32 and back.
    """

    abs: Op
    ceil: Op
    cos: Op
    exp: Op
    exp2: Op
    floor: Op
    floor_divide: Op
    isfinite: Op
    isinf: Op
    isnan: Op
    log: Op
    log2: Op
    maximum: Op
    minimum: Op
    multiply: Op
    sign: Op
    sin: Op
    sqrt: Op
    tanh: Op
    trunc: Op
    where: Op
    clip: Op
    divide: Op
    erf: Op
    kind: Op
    rint: Op
    round32: Op
    sigmoid: Op
    to_float: Op
    to_int: Op


def _numpy() -> Namespace:
    erf: Any = np.frompyfunc(math.erf, 1, 1)
    return Namespace(
        **{name: getattr(np, name) for name in _SHARED},
        clip=np.clip,
        divide=np.divide,
        erf=lambda x: np.asarray(erf(x)).astype(np.float64),
        kind=lambda x: "i" if x.dtype.kind == "u" else x.dtype.kind,
        rint=np.rint,
        round32=lambda x: x.astype(np.float32).astype(np.float64),
        sigmoid=lambda x: 1.0 / (1.0 + np.exp(-x)),
        sign=np.sign,
        to_float=lambda x: x.astype(np.float64, copy=False),
        to_int=lambda x: x.astype(np.int64, copy=False),
    )


@cache
def _torch() -> Namespace:
    import torch

    def kind(x: torch.Tensor) -> str:
        return "b" if x.dtype == torch.bool else "f" if x.is_floating_point() else "i"

    def sign(x: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.isnan(x), x, torch.sign(x))  # torch's own makes 0 of a NaN

    return Namespace(
        **{name: getattr(torch, name) for name in _SHARED},
        clip=torch.clamp,
        divide=torch.true_divide,
        erf=torch.erf,
        kind=kind,
        rint=torch.round,
        round32=lambda x: x.to(torch.float32).to(torch.float64),
        sigmoid=torch.sigmoid,
        sign=sign,
        to_float=lambda x: x.to(torch.float64),
        to_int=lambda x: x.to(torch.int64),
    )


NUMPY = _numpy()


def namespace_of(x: Any) -> Namespace:
    """The functions for an array: numpy's for arrays and scalars of numpy, torch's for anything else."""
    return NUMPY if isinstance(x, np.ndarray | np.generic) else _torch()
