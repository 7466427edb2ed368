"""What a kernel that is built ahead of time counts on of the addresses and strides of its calls.

    causal, 64 features      aligned                                        ones, which are not passed
    "all"                    every pointer, every stride but the last       the last stride of every tensor
    "features"               pointers, strides of Q, K, V, O but the last   the same
    "none"                   nothing                                        none

A pointer is aligned to 16 bytes, a stride to 16 elements. Contiguous tensors meet "features" whatever their lengths:
their rows have as many elements as there are features. Strides of LSE and of a captured `bias[h, q, k]` are lengths,
which nobody knows. Lists and orders are parts of larger tensors, read an element at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.features import features
from attngen.emit.triton.names import Alignment, Arg, kernel_args, kernel_exprs
from attngen.emit.triton.sides import INPUT_AXES
from attngen.lang.expr import Var, loads
from attngen.value import value

ALIGNED = 16  # bytes of an address, elements of a stride


@value
class Assumed:
    """The arguments of a kernel in order, and by name those that are aligned and those that are 1.

    A stride is passed in 64 bits where its `dtype` is "int64".
    """

    args: tuple[Arg, ...]
    aligned: tuple[str, ...]
    ones: tuple[str, ...]

    @property
    def passed(self) -> tuple[Arg, ...]:
        """The arguments that a launch passes."""
        return tuple(a for a in self.args if a.name not in self.ones)


def assume(spec: KernelSpec, alignment: Alignment, *, wide: bool = True) -> Assumed:
    """What a kernel counts on; without `wide`, every stride is passed in 32 bits."""
    args = kernel_args(spec)
    if wide:
        args = with_wide_strides(args)
    if alignment == "none":
        return Assumed(args, (), ())
    ones = tuple(a.name for a in args if a.role == "stride" and a.last)
    rest = [a for a in args if a.specialised and a.name not in ones]
    if alignment == "features":
        rows = _rows_of_features(spec)
        rest = [a for a in rest if a.role == "pointer" or (a.role == "stride" and a.of in rows)]
    return Assumed(args, tuple(a.name for a in rest), ones)


def with_wide_strides(args: tuple[Arg, ...]) -> tuple[Arg, ...]:
    """The arguments, with strides in 64 bits where two axes or more lie inside: one such row can hold 2^31 elements."""
    ranks = {a.of: a.axis + 1 for a in args if a.role == "stride" and a.last}
    return tuple(
        replace(a, dtype="int64") if a.role == "stride" and a.axis + 2 < ranks[a.of] else a for a in args
    )


def _rows_of_features(spec: KernelSpec) -> frozenset[str]:
    """The tensors whose rows are features, as many as a multiple of 16."""
    whole = {rank for rank in features(spec) if spec.width(rank) % ALIGNED == 0}
    return frozenset(name for name, rank in _rows(spec) if rank in whole)


def _rows(spec: KernelSpec) -> Iterator[tuple[str, str]]:
    """Each tensor with the rank of features that its last axis is."""
    yield from ((name, INPUT_AXES[name][-1]) for name in spec.inputs)
    yield from ((o.name, o.feature) for o in spec.tile.outputs if o.space == "acc")
    for expr in kernel_exprs(spec):
        for load in loads(expr):
            last = load.indices[-1] if load.indices else None
            if load.tensor not in INPUT_AXES and isinstance(last, Var) and last.axis is None:
                yield load.tensor, last.name
