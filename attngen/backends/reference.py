"""The specification: every Einsum of a program evaluated densely, in float64, as it is written.

The same evaluation in a lower precision is the yardstick of the tolerance rule: what PyTorch makes of the
formula.

Nothing here knows passes, folds or tiles. A pair that the mask drops contributes the identity of each
reduction of pairs, and an Einsum over `q` and `k` has no value there: it reads as 0, the score `S` as -inf. A pair
whose score is -inf counts as dropped; a statistic made by a maximum or minimum of pairs that saw nothing is read as
0 inside per-pair bodies. Memory is O(B * H * n_q * n_k): meant for tests and for checking a result once.
"""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch

from attngen.backends.torch_ops import REDUCE, finite, select, torch_ops
from attngen.errors import UnsupportedError
from attngen.lang.domain import is_masked, on_a_line
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var, loads, substitute, walk
from attngen.lang.extents import rank_extents
from attngen.lang.ops import INDEXING, REDUCERS, SLOTTED
from attngen.lang.program import INPUT_RANKS, Einsum, Program
from attngen.lang.varies import HeadVariation
from attngen.lang.words import SCORE

Tensor = torch.Tensor

__all__ = ["evaluate_einsums", "reference", "torch_ops"]

_ROWS_PER_CHUNK = 64
_B, _H, _Q = 0, 1, 2  # where these axes lie in every value


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

    query [B, Hq, Nq, D], key [B, Hkv, Nk, D], value [B, Hkv, Nk, E]; an output comes back as [B, Hq, *ranks], or
    as [B, *ranks] if it is the same for all heads. `tensors` and `params` hold every captured tensor and parameter
    the program declares; extents of its own ranks are among the parameters or follow from defaults and tensors.
    `rows` (int64 query indices) computes those rows only: the outputs then have `len(rows)` in place of Nq. Raises
    UnsupportedError for rows of a program that computes a row from others.
    """
    if rows is not None:
        _check_rows(program)
    dense = _Dense(program, query, key, value, tensors, params, dtype, rows, {})
    score = [SCORE] if program.einsum(SCORE) is not None else []
    dense.run([*score, *program.outputs])
    return {name: dense.output(name) for name in program.outputs}


def evaluate_einsums(
    program: Program,
    names: Iterable[str],
    known: Mapping[str, Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, int | float | bool],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A part of a cascade: the Einsums `names`, [B, Hq or 1, *ranks] each, floats in `dtype`.

    `known` are Einsums that need not be computed, [B or 1, Hq or 1, *ranks] each; what `names` read beside them is
    computed as well, and nothing else: no pair is touched unless one of these Einsums ranges over pairs. A score of
    -inf drops its pair if the score is known or read.
    """
    wanted = list(names)
    dense = _Dense(program, query, key, value, tensors, params, dtype, None, known)
    dense.run(wanted)
    return {name: dense.result(name) for name in wanted}


class _Dense:
    """Values are tensors with an axis for each rank: b, h, q, k, d, e, the program's own; length 1 where constant."""

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
        known: Mapping[str, Tensor],
    ) -> None:
        self.program, self.params, self.device, self.dtype = on_a_line(program), params, query.device, dtype
        self.ops = torch_ops(dtype)
        self.rows, self.tensors = rows, tensors
        self.inputs = {"Q": query if rows is None else query[:, :, rows], "K": key, "V": value}
        (n_b, n_h, n_q, d), (_, n_g, n_k, e) = query.shape, value.shape
        self.group = n_h // max(n_g, 1)
        self.sizes = {"n_b": n_b, "n_h": n_h, "n_g": n_g, "n_q": n_q, "n_k": n_k, "D": d, "E": e}
        own = rank_extents(program, self.sizes, {n: t.shape for n, t in tensors.items()}, params)
        self.sizes |= {f"n_{rank}": extent for rank, extent in own.items()}
        shown = n_q if rows is None else len(rows)
        self.extents = {"b": n_b, "h": n_h, "q": shown, "k": n_k, "d": d, "e": e, **own}
        self.axis = {rank: i for i, rank in enumerate(self.extents)}
        self.ranks = INPUT_RANKS | {e.target: e.ranks for e in program.cascade}
        self.steps = {e.target: e.step for e in program.cascade if e.step is not None}
        self.heads = HeadVariation(program)
        self.extremal: set[str] = set()
        for einsum in self.program.cascade:
            self.heads.add(einsum)
            if not _of_pairs(einsum.ranks) and _is_extremal(einsum.body, einsum.ranks, self.extremal):
                self.extremal.add(einsum.target)
        self.values = {name: self._spread(self._real(t), self.ranks[name]) for name, t in known.items()}
        self._mask: Tensor | None = None

    def run(self, names: Iterable[str]) -> None:
        """Compute the named Einsums, and those they read, in the order of the program."""
        needed = set(names)
        for einsum in reversed(self.program.cascade):
            if einsum.target in needed and einsum.target not in self.values:
                needed |= {load.tensor for x in einsum.exprs for load in loads(x)}
        for einsum in self.program.cascade:
            if einsum.target in needed and einsum.target not in self.values:
                self.values[einsum.target] = self._einsum(einsum)

    def output(self, name: str) -> Tensor:
        """[B, H, *ranks] of a value that differs between heads, else [B, *ranks]; a float of the chosen dtype."""
        value = self.result(name).to(self.dtype)
        return value if self.heads.known[name] else value[:, 0]

    def result(self, name: str) -> Tensor:
        """[B, H or 1, *ranks]."""
        ranks = self.ranks[name]
        heads = self.extents["h"] if self.heads.known[name] else 1
        return self._gathered(name).expand(self.extents["b"], heads, *(self.extents[r] for r in ranks))

    def _einsum(self, einsum: Einsum) -> Tensor:
        if einsum.step is not None:
            return self._recurrence(einsum, einsum.step)
        value = self._eval(einsum.body, einsum.ranks)
        if not _of_pairs(einsum.ranks):
            return value
        keep = self._keep(self.heads.known[einsum.target])
        if not self.heads.known[einsum.target]:
            keep = keep.any(_H, keepdim=True)
        dropped = -math.inf if einsum.target == SCORE and value.is_floating_point() else 0
        return torch.where(keep, value, torch.tensor(dropped, dtype=value.dtype, device=self.device))

    def _recurrence(self, einsum: Einsum, rank: str) -> Tensor:
        """All values of a recurrence, `n + 1` along its rank; a step over a pair that is dropped changes nothing."""
        name, bound, axis = einsum.target, [r for r in einsum.ranks if r != rank], self.axis[rank]
        assert einsum.start is not None
        last = self._eval(einsum.start, bound).to(self.dtype)
        made = [last]
        keep = self._keep(self.heads.known[name]) if rank == "k" else None
        for step in range(self.extents[rank]):
            body = substitute(einsum.body, {Var(rank): Const(step)})
            self.values[name] = self._joined(made, axis)
            value = self._eval(body, bound).to(self.dtype)
            if keep is not None:
                seen = keep if keep.shape[axis] == 1 else keep.narrow(axis, step, 1)
                value = torch.where(seen, value, last)
            made.append(last := value)
        return self._joined(made, axis)

    def _joined(self, parts: list[Tensor], axis: int) -> Tensor:
        shape = torch.broadcast_shapes(*(p.shape for p in parts))
        return torch.cat([p.expand(shape) for p in parts], dim=axis)

    def _keep(self, varies: bool) -> Tensor:
        """The pairs that the mask and the score keep; all heads drop what a value common to them does without."""
        if self._mask is None:
            mask = self.program.mask
            self._mask = (self._scalar(True) if mask is None else self._eval(mask, ())).bool()
        if SCORE not in self.values or not _of_pairs(self.ranks[SCORE]):
            return self._mask
        scored = self.values[SCORE] != -math.inf
        return self._mask & (scored if varies else scored.any(_H, keepdim=True))

    def _eval(self, expr: Expr, bound: Collection[str]) -> Tensor:
        return evaluate(expr, lambda leaf: self._leaf(leaf, bound), self.ops)

    def _leaf(self, leaf: Expr, bound: Collection[str]) -> Tensor:
        match leaf:
            case Const(value):
                return self._scalar(value)
            case Param(name):
                return self._scalar(self.params[name])
            case Size(name):
                return self._scalar(self.sizes[name])
            case Var(name, _):
                return self._index(name)
            case Load(name, indices) if name in self.tensors:
                return self._captured(self.tensors[name], indices, bound)
            case Load(name, indices):
                value = self._read(name, indices, bound)
                return finite(value) if _of_pairs(bound) and name in self.extremal else value
            case Reduce():
                return self._reduce(leaf, bound)
            case _:
                raise AssertionError(leaf)

    def _scalar(self, value: float) -> Tensor:
        dtype = (
            torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else self.dtype
        )
        return torch.tensor(value, dtype=dtype, device=self.device).reshape((1,) * len(self.axis))

    def _index(self, name: str) -> Tensor:
        if name == "g":
            return self._index("h") // self.group
        index = torch.arange(self.extents[name], device=self.device)
        if name == "q" and self.rows is not None:
            index = self.rows
        return index.reshape([-1 if rank == name else 1 for rank in self.axis])

    def _spread(self, tensor: Tensor, ranks: Sequence[str]) -> Tensor:
        """[B, H, *ranks] with an axis for every rank."""
        order = sorted(ranks, key=self.axis.__getitem__)
        tensor = tensor.permute(0, 1, *(2 + ranks.index(r) for r in order))
        shape = [1] * len(self.axis)
        for i, axis in enumerate([_B, _H, *(self.axis[r] for r in order)]):
            shape[axis] = tensor.shape[i]
        return tensor.reshape(shape)

    def _gathered(self, name: str) -> Tensor:
        """The inverse of `_spread`, of a value: [B or 1, H or 1, *ranks], ranks of length 1 where it is constant."""
        value = self._value(name)
        kept = [_B, _H, *(self.axis[r] for r in self.ranks[name])]
        rest = [i for i in range(len(self.axis)) if i not in kept]
        return value.permute(*kept, *rest).reshape([value.shape[i] for i in kept])

    def _value(self, name: str) -> Tensor:
        if name not in self.values:
            tensor = self.inputs[name].to(self.dtype)
            tensor = tensor if name == "Q" else tensor.repeat_interleave(self.group, dim=1)
            self.values[name] = self._spread(tensor, self.ranks[name])
        return self.values[name]

    def _read(self, name: str, indices: tuple[Expr, ...], bound: Collection[str]) -> Tensor:
        ranks = self.ranks[name]
        steps = self.steps.get(name)
        if indices == tuple(map(Var, ranks)) and steps is None:
            return self._value(name)
        value = self._gathered(name)
        at = [self._index(r) if value.shape[i] > 1 else self._scalar(0) for i, r in enumerate("bh")]
        for rank, index in zip(ranks, indices, strict=True):
            end = self.extents[rank] if rank == steps else self.extents[rank] - 1
            at.append(self._eval(index, bound).long().clamp(0, max(end, 0)))
        return self._at(value, at)

    def _real(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def _captured(self, tensor: Tensor, indices: tuple[Expr, ...], bound: Collection[str]) -> Tensor:
        tensor = self._real(tensor)
        if not indices:
            return tensor.reshape((1,) * len(self.axis))
        at = [
            self._eval(index, bound).long().clamp(0, max(size - 1, 0))
            for index, size in zip(indices, tensor.shape, strict=True)
        ]
        return self._at(tensor, at)

    def _at(self, tensor: Tensor, at: list[Tensor]) -> Tensor:
        """`tensor[at]`; 0 where it has no entries, which is legal only where nothing is asked."""
        if tensor.numel() == 0:
            shape = torch.broadcast_shapes(*(i.shape for i in at))
            return torch.zeros(shape, dtype=tensor.dtype, device=self.device)
        return tensor[tuple(i.clamp(max=n - 1) for i, n in zip(at, tensor.shape, strict=True))]

    def _reduce(self, expr: Reduce, bound: Collection[str]) -> Tensor:
        dims = [self.axis[r] for r in expr.ranks]
        inner = {*bound, *expr.ranks}
        keep = None
        if is_masked(expr.ranks, bound):
            keep = self._keep(self.heads.varies(expr.body, inner))
        match expr.body:
            case Apply("mul", (a, b)) if expr.op == "sum":
                x, y = (self._eval(factor, inner).to(self.dtype) for factor in (a, b))
                return self._contract(x, y, dims, keep)
            case _:
                value = self._eval(expr.body, inner).to(self.dtype)
        selects = expr.op in (*SLOTTED, *INDEXING)
        if keep is not None:
            value = torch.where(keep, value, -math.inf if selects else REDUCERS[expr.op].identity)
        value = value.expand(self._over(value.shape, dims))
        if not selects:
            reduced = REDUCE[expr.op](value, dims)
            return reduced.bool() if expr.op in ("any", "all") else reduced
        slot = self._scalar(0) if expr.at is None else self._eval(expr.at, bound).long()
        best, index = select(value, dims[0], slot)
        return index if expr.op in INDEXING else best

    def _over(self, shape: Sequence[int], dims: list[int]) -> list[int]:
        """A shape with the extents of the ranks that are reduced."""
        return [self.extents[r] if i in dims else shape[i] for r, i in self.axis.items()]

    def _contract(self, x: Tensor, y: Tensor, dims: list[int], keep: Tensor | None) -> Tensor:
        """`sum over dims of x * y`: a matrix product where that is exact, else elementwise by rows."""
        if keep is not None:
            x = torch.where(keep, x, 0.0)
        x = x.expand(self._over(x.shape, [i for i in dims if y.shape[i] == 1]))
        if keep is not None and not bool(torch.isfinite(y).all()):
            return _contract_elementwise(x, y, dims, keep)
        letters = string.ascii_letters[: len(self.axis)]
        sub_x = "".join(c for c, n in zip(letters, x.shape, strict=True) if n != 1)
        sub_y = "".join(c for c, n in zip(letters, y.shape, strict=True) if n != 1)
        kept = "".join(c for i, c in enumerate(letters) if i not in dims and (c in sub_x or c in sub_y))
        flat = torch.einsum(f"{sub_x},{sub_y}->{kept}", _squeeze(x), _squeeze(y))
        shape = [
            1 if i in dims else max(nx, ny) if min(nx, ny) else 0
            for i, (nx, ny) in enumerate(zip(x.shape, y.shape, strict=True))
        ]
        return flat.reshape(shape)


def _contract_elementwise(x: Tensor, y: Tensor, dims: list[int], keep: Tensor) -> Tensor:
    """As `_contract`, but a dropped pair meets no infinity or NaN of `y`: 0 * NaN is never formed."""
    rows = max(x.shape[_Q], y.shape[_Q], keep.shape[_Q])
    parts: list[Tensor] = []
    for lo in range(0, rows, _ROWS_PER_CHUNK):
        part = slice(lo, lo + _ROWS_PER_CHUNK)
        xs, ys, ks = (t[:, :, part] if t.shape[_Q] != 1 else t for t in (x, y, keep))
        product = torch.where(ks, xs * ys, 0.0)
        parts.append(product.sum(dims, keepdim=True))
    whole = torch.cat(parts, dim=_Q)
    return whole.sum(_Q, keepdim=True) if _Q in dims else whole


def _of_pairs(ranks: Collection[str]) -> bool:
    """Whether ranks hold a query and a key: values there are values of pairs."""
    return "q" in ranks and "k" in ranks


def _is_extremal(body: Expr, bound: Collection[str], extremal: set[str]) -> bool:
    """Whether a value is a maximum or minimum of pairs, or reads one outside any reduction."""
    match body:
        case Reduce(op, ranks, _):
            return op in ("max", "min") and is_masked(ranks, bound)
        case Load(name, _):
            return name in extremal
        case Apply(_, args):
            return any(_is_extremal(a, bound, extremal) for a in args)
        case _:
            return False


def _check_rows(program: Program) -> None:
    """Refuse to compute some rows of a program in which a row depends on others."""
    ranks = INPUT_RANKS | {e.target: e.ranks for e in program.cascade}
    for node in (n for e in program.cascade for n in walk(e.body)):
        match node:
            case Reduce(_, reduced, _) if "q" in reduced:
                problem = "reduces over `q`"
            case Load(name, indices) if any(
                r == "q" and i != Var("q") for r, i in zip(ranks.get(name, ()), indices, strict=False)
            ):
                problem = f"reads `{name}` at other rows"
            case _:
                continue
        raise UnsupportedError(f"rows cannot be computed by themselves: the program {problem}", loc=node.loc)


def _squeeze(x: Tensor) -> Tensor:
    return x.reshape([n for n in x.shape if n != 1])
