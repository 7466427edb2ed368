"""Merge results over different keys, exactly: devices, splits of a cache, sources of keys.

Each partial result is read back as states of the Fold (`algebra.section`), the states are rescaled to common statistics
and combined (`algebra.merge`), and finished once. A partition without keys has LSE = -inf (natural logarithm, as
everywhere) and weight 0; merging only such partitions gives O = 0 and LSE = -inf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from attngen.algebra.fold import Fold
from attngen.algebra.merge import finish_states, merge_states
from attngen.algebra.section import section
from attngen.backends.torch_ops import torch_ops
from attngen.errors import MissingTensorError, ParameterError, ShapeError, UnsupportedError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var

Tensor = torch.Tensor
States = dict[str, Tensor]


class Rows:
    """Row expressions of one Fold on tensors `[B, H, n_q, columns]`; a row value has one column.

    given  captured tensors and parameters that row expressions read.
    sizes  extents that are the same for all parts.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        n_q: int,
        device: torch.device,
        given: Mapping[str, object],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.given, self.device, self.sizes = given, device, sizes or {}
        self.extents = {"b": batch, "h": heads, "q": n_q}
        self.ops = torch_ops(torch.float32)

    def leaf(self, node: Expr) -> Tensor:
        """An input of a row expression."""
        match node:
            case Const(value):
                return torch.tensor(value, device=self.device)
            case Var(name, None) if name in self.extents:
                shape = [-1 if axis == name else 1 for axis in ("b", "h", "q", "")]
                return torch.arange(self.extents[name], device=self.device).reshape(shape)
            case Param(name) if isinstance(value := self.given.get(name), int | float):
                return torch.tensor(value, device=self.device)
            case Load(name, indices) if isinstance(tensor := self.given.get(name), torch.Tensor):
                at = [evaluate(i, self.leaf, self.ops) for i in indices]
                return tensor[tuple(i.clamp(0, n - 1) for i, n in zip(at, tensor.shape, strict=True))]
            case Param(name) | Load(name, _):
                raise MissingTensorError(
                    f"merging reads `{name}`", loc=node.loc, hint=f"give it: merge(partials, {name}=...)"
                )
            case Size(name) if name in self.sizes:
                return torch.tensor(self.sizes[name], device=self.device)
            case Size(name):
                raise UnsupportedError(
                    f"the result depends on `{name}`, which differs between partial results", loc=node.loc
                )
            case _:
                raise UnsupportedError(f"merging cannot read {type(node).__name__}", loc=node.loc)

    def value(self, expr: Expr, known: Mapping[str, Tensor]) -> Tensor:
        """`expr` where `known` holds the results it reads."""

        def leaf(node: Expr) -> Tensor:
            return known[node.tensor] if isinstance(node, Load) and node.tensor in known else self.leaf(node)

        return evaluate(expr, leaf, self.ops)

    def merged(self, fold: Fold, parts: Sequence[States]) -> States:
        """The states over the keys of all parts together."""
        return self.merged_stack(fold, {n: torch.stack([p[n] for p in parts]) for n in parts[0]})

    def merged_stack(self, fold: Fold, parts: States) -> States:
        """As `merged`, of parts along an axis before the others.

        Half of them are merged with the other half at a time, so that rounding, and the number of steps, grow with the
        depth of the tree and not with the number of parts.
        """
        count = len(next(iter(parts.values())))
        while count > 1:
            half = count // 2
            a, b = ({n: t[i * half : (i + 1) * half] for n, t in parts.items()} for i in (0, 1))
            merged = merge_states(fold, a, b, leaf=self.leaf, ops=self.ops)
            parts = {n: torch.cat([merged[n], t[2 * half :]]) for n, t in parts.items()}
            count -= half
        return {n: t[0] for n, t in parts.items()}

    def finished(self, fold: Fold, states: States) -> States:
        """The outputs of the Fold, fp32 `[B, H, n_q, columns]`."""
        return finish_states(fold, states, leaf=self.leaf, ops=self.ops)


def merge_outputs(
    fold: Fold, partials: Sequence[Mapping[str, Tensor]], given: Mapping[str, object]
) -> dict[str, Tensor]:
    """The outputs over all keys, from the outputs over parts of them; in the shapes and dtypes of the first.

    Raises ParameterError where there is nothing to merge, ShapeError where results differ in shape, UnsupportedError
    where the outputs do not determine the states.
    """
    if not partials:
        raise ParameterError("there are no partial results to merge")
    first = partials[0]
    for part in partials[1:]:
        for name, t in part.items():
            if t.shape != first[name].shape:
                raise ShapeError(
                    f"{name} has shape {list(t.shape)} in one result, {list(first[name].shape)} in another"
                )
    inverse = section(fold)
    lead = next(iter(first.values()))
    rows = Rows(lead.shape[0], lead.shape[1], lead.shape[2], lead.device, given)
    parts = [_states(inverse, part, rows) for part in partials]
    done = rows.finished(fold, rows.merged(fold, parts))
    return {name: _like(done[name], t) for name, t in first.items()}


def _states(inverse: Mapping[str, Expr], part: Mapping[str, Tensor], rows: Rows) -> States:
    known = {name: _wide(t) for name, t in part.items()}
    shape = next(iter(known.values())).shape[:3]
    values = {n: rows.value(e, known) for n, e in inverse.items()}
    return {n: (v if v.dim() else v.reshape(1, 1, 1, 1)).expand(*shape, -1) for n, v in values.items()}


def _wide(t: Tensor) -> Tensor:
    """fp32 with a column axis."""
    return t.float() if t.dim() == 4 else t.float()[..., None]


def _like(value: Tensor, t: Tensor) -> Tensor:
    whole = value if t.dim() == 4 else value[..., 0]
    return whole.expand(t.shape).to(t.dtype).contiguous()
