"""Captured tensors indexed by symbols: `doc[q]`, `table[h, q - k + 10]`, `bias[h][q][k]`, `t[:, q][b]`."""

from __future__ import annotations

from typing import Any

from attngen.lang.arith import capture_tensor, lift, node
from attngen.lang.callsite import here
from attngen.lang.expr import Const, Load
from attngen.lang.ops import Kind
from attngen.lang.symbol import Sym, SymTensor, fail, is_tensor


def index(tensor: Any, at: object) -> Sym | SymTensor:
    """`tensor[at]` where the index holds symbols, or some dimensions of `tensor` are indexed already."""
    if isinstance(tensor, SymTensor):
        return _fill(tensor.tensor, tensor.index, at)
    if not is_tensor(tensor):
        fail("only a captured tensor can be indexed by a symbolic value")
    return _fill(tensor, (None,) * tensor.ndim, at)


def _fill(tensor: Any, old: tuple[Sym | None, ...], at: object) -> Sym | SymTensor:
    items: tuple[object, ...] = at if isinstance(at, tuple) else (at,)
    slots = [i for i, slot in enumerate(old) if slot is None]
    items = _expand(items, len(slots))
    if len(items) > len(slots):
        fail(f"too many indices: the tensor has {len(old)} dimensions", None)
    new = list(old)
    for slot, item in zip(slots, items, strict=False):
        new[slot] = _slot(item, tensor.shape[slot])
    if any(i is None for i in new):
        return SymTensor(tensor, tuple(new))
    indices = [i for i in new if i is not None]
    capture = capture_tensor(tensor)
    return node(lambda args: Load(capture.key, args, loc=here()), capture.kind, indices, (capture,))


def _expand(items: tuple[object, ...], n_open: int) -> tuple[object, ...]:
    at = [i for i, item in enumerate(items) if item is Ellipsis]
    if not at:
        return items
    fill = n_open - (len(items) - 1)
    return items[: at[0]] + (slice(None),) * fill + items[at[0] + 1 :]


def _slot(item: object, size: int) -> Sym | None:
    if isinstance(item, slice):
        if item == slice(None):
            return None
        fail(
            "a captured tensor can only be sliced by a plain `:` inside the function",
            "slice it before the function",
        )
    if item is None:
        fail("None cannot index a captured tensor here", "add dimensions to the tensor before the function")
    sym = lift(item)
    if sym.kind is not Kind.INT:
        fail(f"a tensor is indexed by an integer, but this index is {sym.kind}", "convert it with .int()")
    match sym.expr:
        case Const(value) if not -size <= value < size:
            return fail(f"index {value} is out of range for a dimension of size {size}")
        case Const(value) if value < 0:
            return lift(int(value) + size)
        case _:
            return sym
