"""Programs evaluated densely with `evaluate` and `NUMPY_OPS`: small, slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attngen.lang.desugar import desugar
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Program

_AXES = ("q", "k", "d", "e")
_REDUCE: dict[str, Any] = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}


class Dense:
    """One head of one batch entry: values are arrays over (q, k, d, e), of size 1 where constant."""

    def __init__(
        self,
        program: Program,
        arrays: Mapping[str, Any],
        values: Mapping[str, Any],
        n_q: int,
        n_k: int,
        head: int = 0,
    ) -> None:
        self.program = desugar(program)
        self.arrays = {name: np.asarray(a) for name, a in arrays.items()}
        width = {name: self.arrays[name].shape[-1] if name in self.arrays else 1 for name in ("Q", "V")}
        self.sizes = {"n_q": n_q, "n_k": n_k, "n_b": 1, "n_h": 1, "D": width["Q"], "E": width["V"]}
        self.extent = {"q": n_q, "k": n_k, "d": width["Q"], "e": width["V"]}
        self.head = head
        self.values = (
            {p.name: p.default for p in program.params} | {"scale": width["Q"] ** -0.5} | dict(values)
        )
        self.results: dict[str, Any] = {}
        self.keep: Any = True

    def mask(self) -> Any:
        """bool [n_q, n_k]."""
        assert self.program.mask is not None
        keep = self._eval(self.program.mask)
        return np.broadcast_to(keep, (self.extent["q"], self.extent["k"], 1, 1))[:, :, 0, 0]

    def run(self) -> dict[str, Any]:
        """The value of every Einsum, over its own ranks."""
        self.keep = True if self.program.mask is None else self._eval(self.program.mask)
        out: dict[str, Any] = {}
        for einsum in self.program.cascade:
            with np.errstate(all="ignore"):
                value = self._eval(einsum.body)
            self.results[einsum.target] = value
            shape = tuple(self.extent[a] if a in einsum.ranks else 1 for a in _AXES)
            out[einsum.target] = np.broadcast_to(value, shape).reshape([self.extent[r] for r in einsum.ranks])
        return out

    def _eval(self, expr: Expr) -> Any:
        return evaluate(expr, self._leaf, NUMPY_OPS)

    def _leaf(self, leaf: Expr) -> Any:
        match leaf:
            case Const(value):
                return value
            case Var("b"):
                return 0
            case Var("h"):
                return self.head
            case Var(name):
                return np.arange(self.extent[name]).reshape([-1 if a == name else 1 for a in _AXES])
            case Size(name):
                return self.sizes[name]
            case Param(name):
                return self.values[name]
            case Load(name, _) if name in self.results:
                return self.results[name]
            case Load(name, indices):
                array = self.arrays[name]
                at = [np.clip(self._eval(i), 0, n - 1) for i, n in zip(indices, array.shape, strict=True)]
                return array[tuple(at)]
            case Reduce(op, ranks, body):
                value = self._eval(body)
                if "k" in ranks:
                    value = np.where(self.keep, value, REDUCERS[op].identity)
                axes = tuple(_AXES.index(r) for r in ranks)
                shape = [self.extent[a] if a in ranks else n for a, n in zip(_AXES, value.shape, strict=True)]
                value = np.broadcast_to(value, shape)
                return _REDUCE[op](value, axis=axes, keepdims=True, initial=REDUCERS[op].identity)
            case _:
                raise AssertionError(leaf)
