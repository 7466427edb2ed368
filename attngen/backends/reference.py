"""The specification: every Einsum of a program evaluated densely, in float64, as it is written.

The same evaluation in a lower precision is the yardstick of the tolerance rule: what PyTorch makes of the
formula.

Nothing here knows passes, folds or tiles. A pair that the mask drops contributes the identity of each
reduction; a pair whose score `S` is -inf counts as dropped; a row statistic made by a maximum or minimum
that saw nothing is read as 0 inside per-pair bodies. Memory is O(B * H * n_q * n_k): meant for tests and
for checking a result once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from attngen.lang.domain import on_a_line
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Einsum, Program

Tensor = torch.Tensor

# Every value is a tensor with these six axes, of length 1 where the value does not vary.
_AXES = ("b", "h", "q", "k", "d", "e")
_ROWS_PER_CHUNK = 64


def reference(
    program: Program,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, int | float | bool],
    dtype: torch.dtype = torch.float64,
    rows: Tensor | None = None,
) -> dict[str, Tensor]:
    """The outputs of a linked, desugared program, computed in `dtype`.

    query [B, Hq, Nq, D], key [B, Hkv, Nk, D], value [B, Hkv, Nk, E]; rows come back as [B, Hq, Nq],
    per-feature outputs as [B, Hq, Nq, E]. `tensors` and `params` hold every captured tensor and parameter
    the program declares. `rows` (int64 query indices) computes those rows only: the outputs then have
    `len(rows)` in place of Nq.
    """
    return _Dense(program, query, key, value, tensors, params, dtype, rows).run()


@dataclass(slots=True)
class _Sizes:
    b: int
    h: int
    q: int
    k: int
    d: int
    e: int


class _Dense:
    def __init__(
        self,
        program: Program,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, int | float | bool],
        dtype: torch.dtype,
        rows: Tensor | None,
    ) -> None:
        self.program, self.params, self.device, self.dtype = on_a_line(program), params, query.device, dtype
        self.ops = torch_ops(dtype)
        self.n_q, self.rows = query.shape[2], rows
        query = query if rows is None else query[:, :, rows]
        batch, heads, n_q, head_dim = query.shape
        group = heads // max(key.shape[1], 1)
        key = key.to(dtype).repeat_interleave(group, dim=1)
        value = value.to(dtype).repeat_interleave(group, dim=1)
        self.sizes = _Sizes(batch, heads, n_q, key.shape[2], head_dim, value.shape[3])
        self.values: dict[str, Tensor] = {
            "Q": query.to(dtype)[:, :, :, None, :, None],
            "K": key[:, :, None, :, :, None],
            "V": value[:, :, None, :, None, :],
        }
        self.captured = {
            name: t.to(self.device, dtype if t.is_floating_point() else None) for name, t in tensors.items()
        }
        self.keep = self._mask(self.program.mask)
        self.extremal: set[str] = set()

    def run(self) -> dict[str, Tensor]:
        for einsum in self.program.cascade:
            self.values[einsum.target] = self._einsum(einsum)
            if einsum.target == "S" and "k" in einsum.ranks:
                self.keep = self.keep & (self.values["S"] != -math.inf)
        return {name: self._output(name) for name in self.program.outputs}

    def _output(self, name: str) -> Tensor:
        einsum = self.program.einsum(name)
        assert einsum is not None
        s, value = self.sizes, self.values[name]
        feature = "e" in einsum.ranks
        value = value.expand(s.b, s.h, s.q, 1, 1, s.e if feature else 1)
        return value[:, :, :, 0, 0, :] if feature else value[:, :, :, 0, 0, 0]

    def _mask(self, mask: Expr | None) -> Tensor:
        if mask is None:
            return torch.ones((1,) * 6, dtype=torch.bool, device=self.device)
        return self._eval(mask, guard=False).bool()

    def _einsum(self, einsum: Einsum) -> Tensor:
        if "k" not in einsum.ranks and _is_extremal(einsum.body, self.extremal):
            self.extremal.add(einsum.target)
        return self._eval(einsum.body, guard="k" in einsum.ranks)

    def _eval(self, expr: Expr, *, guard: bool) -> Tensor:
        """`guard` is set inside per-pair bodies, where an extremum that saw nothing reads as 0."""
        return evaluate(expr, lambda leaf: self._leaf(leaf, guard), self.ops)

    def _leaf(self, leaf: Expr, guard: bool) -> Tensor:
        match leaf:
            case Const(value):
                return self._scalar(value)
            case Param(name):
                return self._scalar(self.params["scale"] if name == "scale" else self.params[name])
            case Size(name):
                s = self.sizes
                return self._scalar(
                    {"n_q": self.n_q, "n_k": s.k, "n_b": s.b, "n_h": s.h, "D": s.d, "E": s.e}[name]
                )
            case Var(name, _):
                return self._index(name)
            case Load(tensor, indices) if tensor in self.captured:
                return self._captured(self.captured[tensor], indices)
            case Load(tensor, _):
                value = self.values[tensor]
                return _finite(value) if guard and tensor in self.extremal else value
            case Reduce(op, ranks, body):
                return self._reduce(op, ranks, body)
            case _:
                raise AssertionError(leaf)

    def _scalar(self, value: float) -> Tensor:
        dtype = (
            torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else self.dtype
        )
        return torch.tensor(value, dtype=dtype, device=self.device).reshape((1,) * 6)

    def _index(self, name: str) -> Tensor:
        shape = [1] * 6
        shape[_AXES.index(name)] = -1
        if name == "q" and self.rows is not None:
            return self.rows.reshape(shape)
        return torch.arange(getattr(self.sizes, name), device=self.device).reshape(shape)

    def _captured(self, tensor: Tensor, indices: tuple[Expr, ...]) -> Tensor:
        if not indices:
            return tensor.reshape((1,) * 6)
        index = tuple(
            self._eval(i, guard=False).long().clamp(0, max(size - 1, 0))
            for i, size in zip(indices, tensor.shape, strict=True)
        )
        if tensor.numel() == 0:  # nothing can be read: only legal when no pair exists
            shape = torch.broadcast_shapes(*(i.shape for i in index))
            return torch.zeros(shape, dtype=tensor.dtype, device=self.device)
        return tensor[index]

    def _reduce(self, op: str, ranks: tuple[str, ...], body: Expr) -> Tensor:
        dims = [_AXES.index(r) for r in ranks]
        keyed = "k" in ranks
        match body:
            case Apply("mul", (a, b)) if op == "sum":
                x, y = (self._eval(factor, guard=keyed).to(self.dtype) for factor in (a, b))
                return self._contract(x, y, dims, keyed)
            case _:
                value = self._eval(body, guard=keyed)
        if keyed:
            identity = REDUCERS[op].identity
            value = torch.where(self.keep, value.to(self.dtype), identity)
        full = [getattr(self.sizes, r) if i in dims else value.shape[i] for i, r in enumerate(_AXES)]
        return _REDUCE[op](value.to(self.dtype).expand(full), dims)

    def _contract(self, x: Tensor, y: Tensor, dims: list[int], keyed: bool) -> Tensor:
        """`sum over dims of x * y`: a matrix product where that is exact, else elementwise by rows."""
        if keyed:
            x = torch.where(self.keep, x, 0.0)
            if not bool(torch.isfinite(y).all()):
                return self._contract_elementwise(x, y, dims)
        for dim in dims:
            size = getattr(self.sizes, _AXES[dim])
            x = x if y.shape[dim] != 1 or size == 1 else x.expand(_at(x.shape, dim, size))
        letters = "bhqkde"
        sub_x = "".join(c for c, n in zip(letters, x.shape, strict=True) if n != 1)
        sub_y = "".join(c for c, n in zip(letters, y.shape, strict=True) if n != 1)
        kept = "".join(c for i, c in enumerate(letters) if i not in dims and (c in sub_x or c in sub_y))
        flat = torch.einsum(f"{sub_x},{sub_y}->{kept}", _squeeze(x), _squeeze(y))
        shape = [
            1 if i in dims else max(nx, ny) if min(nx, ny) else 0
            for i, (nx, ny) in enumerate(zip(x.shape, y.shape, strict=True))
        ]
        return flat.reshape(shape)

    def _contract_elementwise(self, x: Tensor, y: Tensor, dims: list[int]) -> Tensor:
        """As `_contract`, but a dropped pair meets no infinity or NaN of `y`: 0 * NaN is never formed."""
        keep = self.keep
        rows = max(x.shape[2], y.shape[2], keep.shape[2])
        parts: list[Tensor] = []
        for lo in range(0, rows, _ROWS_PER_CHUNK):
            part = slice(lo, lo + _ROWS_PER_CHUNK)
            xs, ys, ks = (t[:, :, part] if t.shape[2] != 1 else t for t in (x, y, keep))
            product = torch.where(ks, xs * ys, 0.0)
            parts.append(product.sum(dims, keepdim=True))
        return torch.cat(parts, dim=2)


def _is_extremal(body: Expr, extremal: set[str]) -> bool:
    """Whether a row value is a maximum or minimum over keys, or reads one outside any reduction."""
    match body:
        case Reduce(op, ranks, _):
            return op in ("max", "min") and "k" in ranks
        case Load(name, _):
            return name in extremal
        case Apply(_, args):
            return any(_is_extremal(a, extremal) for a in args)
        case _:
            return False


def _finite(x: Tensor) -> Tensor:
    return torch.where(torch.isinf(x), torch.zeros_like(x), x)


def _at(shape: torch.Size, dim: int, size: int) -> list[int]:
    return [size if i == dim else n for i, n in enumerate(shape)]


def _squeeze(x: Tensor) -> Tensor:
    return x.reshape([n for n in x.shape if n != 1])


def _reduce_with(
    fn: Callable[[Tensor, int], Tensor], identity: float
) -> Callable[[Tensor, list[int]], Tensor]:
    """Reduce dims one after the other; a dim of length 0 gives the identity."""

    def run(x: Tensor, dims: list[int]) -> Tensor:
        for dim in dims:
            if x.shape[dim] == 0:
                x = torch.full(_at(x.shape, dim, 1), identity, dtype=x.dtype, device=x.device)
            else:
                x = fn(x, dim)
        return x

    return run


_REDUCE: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "sum": _reduce_with(lambda x, d: x.sum(d, keepdim=True), 0.0),
    "max": _reduce_with(lambda x, d: x.amax(d, keepdim=True), -math.inf),
    "min": _reduce_with(lambda x, d: x.amin(d, keepdim=True), math.inf),
    "prod": _reduce_with(lambda x, d: x.prod(d, keepdim=True), 1.0),
    "any": _reduce_with(lambda x, d: (x != 0).any(d, keepdim=True).to(x.dtype), 0.0),
    "all": _reduce_with(lambda x, d: (x != 0).all(d, keepdim=True).to(x.dtype), 1.0),
    "logaddexp": _reduce_with(lambda x, d: torch.logsumexp(x, d, keepdim=True), -math.inf),
}


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
        "finite": lambda x: _finite(x) if x.is_floating_point() else x,
    }


def _common(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)
