"""The torch function mode under which functions are traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from attngen.lang.symbol import STATE, Sym, SymTensor, TraceState, call_named, fail

_RANDOM = frozenset(
    ["rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "poisson", "dropout"]
)
# What reads a tensor's form and not its contents.
_FORM = frozenset(
    [
        "__get__",
        "size",
        "dim",
        "ndimension",
        "numel",
        "stride",
        "__len__",
        "is_floating_point",
        "element_size",
        "is_contiguous",
    ]
)


class TracingMode(TorchFunctionMode):
    """Sees every torch call of a function being traced.

    Calls that hold a symbol go to the tracer. Of the others it notes which make constants and which compute
    with captured contents, and refuses those that draw random numbers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        operands = list(_flat((*args, *kwargs.values())))
        if any(isinstance(x, Sym | SymTensor) for x in operands):
            return call_named(name, args, kwargs)
        if name.removesuffix("_") in _RANDOM or (name.endswith("_like") and name.startswith("rand")):
            fail(
                f"torch.{name} makes random numbers, which cannot be traced",
                "captured tensors may hold random numbers",
            )
        result = func(*args, **kwargs)
        state = STATE.get()
        if state is not None and name not in _FORM:
            _note(state, [x for x in operands if isinstance(x, torch.Tensor)], result)
        return result


def _note(state: TraceState, tensors: list[torch.Tensor], result: object) -> None:
    """Remember a 0-d tensor made from constants as a constant; all else ties the trace to contents."""
    if all(id(x) in state.constants for x in tensors):
        if isinstance(result, torch.Tensor) and result.ndim == 0:
            state.constants[id(result)] = (result, result.item())
    else:
        state.reusable = False


def _flat(values: Sequence[Any], depth: int = 3) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list) and depth:
            yield from _flat(value, depth - 1)
        else:
            yield value
