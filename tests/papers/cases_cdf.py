"""Calls of the programs of groups C, D, E.2 and F, each with the outputs that its definition by hand gives.

A case is one call of one program. Inputs are those of `inputs_c`, `inputs_d` and `inputs_f`, rounded to what fp32
holds, so that a kernel and the definition read the same numbers; the definitions compute in float64. The tables are in
`cases_c`, `cases_d` and `cases_f`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

import attngen
from attngen import arguments
from attngen.api import Attention
from attngen.backends.reference import reference
from attngen.lang.library import cascade_names
from attngen.tolerance import FACTOR, Check, compare
from tests.papers.group_common import Tensor

Outputs = tuple[Tensor, ...]
CAUSAL = "k <= pos(q)"


def as_given(outs: Outputs) -> Outputs:
    return outs


@dataclass(frozen=True)
class Call:
    """One call of a program of `ir/`, and what it must return.

    want     the definition's outputs, in float64.
    outputs  what is asked for; None for what the program returns.
    mask     for a cascade: the pairs that are kept.
    values   parameters, extents and tensors.
    pick     from the outputs of the call to those of the definition, where their shapes or order differ.
    """

    program: str
    inputs: tuple[Tensor, Tensor, Tensor]
    want: Outputs
    outputs: tuple[str, ...] | None = None
    mask: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    scale: float | None = None
    pick: Callable[[Outputs], Outputs] = as_given

    def spec(self, dtype: torch.dtype = torch.float32, algorithm: str | None = None) -> Attention:
        """The specification, its floating tensors in `dtype`."""
        values = {n: converted(x, dtype) for n, x in self.values.items()}
        if self.mask is None and self.program not in cascade_names():
            loaded = attngen.load(self.program, self.outputs, **values)
        else:
            program = Attention(mask=self.mask, cascade=self.program, name=self.program).program
            loaded = Attention.from_linked(program, values, self.outputs)
        return Attention.from_linked(loaded.program, loaded.values, algorithm=algorithm)

    def run(self, backend: str, dtype: torch.dtype = torch.float32, algorithm: str | None = None) -> Outputs:
        """The outputs of a backend, as the definition has them."""
        q, k, v = (converted(x, dtype) for x in self.inputs)
        outs = self.spec(dtype, algorithm)(q, k, v, scale=self.scale, backend=backend)
        return self.pick(outs if isinstance(outs, tuple) else (outs,))

    def dense(self, dtype: torch.dtype) -> Outputs:
        """What PyTorch makes of the program in `dtype`: in float64 the specification, else the yardstick."""
        q, k, v = (converted(x, dtype) for x in self.inputs)
        spec = self.spec(dtype)
        tensors, params = arguments.bind(spec.program, spec.values, {})
        params["scale"] = arguments.default_scale(q.shape[-1], self.scale)
        found = reference(spec.program, q, k, v, tensors=tensors, params=params, dtype=dtype)
        return self.pick(tuple(found[n] for n in spec.outputs))

    def checks(self, outs: Outputs) -> list[Check]:
        """The tolerance rule, with twice the usual factor: the yardstick's error is the largest of few numbers here."""
        assert len(outs) == len(self.want)
        for out, exact in zip(outs, self.want, strict=True):
            assert out.shape == exact.shape, (tuple(out.shape), tuple(exact.shape))
        return [
            checked(str(i), out, exact, formula)
            for i, (out, exact, formula) in enumerate(
                zip(outs, self.want, self.dense(torch.float32), strict=True)
            )
        ]

    def holds(self, outs: Outputs) -> None:
        """Raise unless every output is within the rule."""
        for check in self.checks(outs):
            assert check.ok, f"output {check.output}: error {check.error:.3e}, allowed {check.allowed:.3e}"


Table = dict[str, Callable[[], Call]]


def checked(name: str, out: Tensor, exact: Tensor, formula: Tensor) -> Check:
    """One output against the definition: an integer or a boolean is right or wrong, a number within the rule."""
    if not out.is_floating_point():
        return Check(name, float((out != exact).sum()), 0.0, 0)
    size = min(1.0, largest(exact))  # one rounding at magnitude 1 is no tolerance for numbers far below it
    return compare(name, out / size, exact.double() / size, formula / size, 2 * FACTOR)


def largest(x: Tensor) -> float:
    """The largest finite magnitude; 1 where there is none but 0."""
    finite = x[x.isfinite()].abs()
    return float(finite.max()) or 1.0 if finite.numel() else 1.0


def converted(x: Any, dtype: torch.dtype) -> Any:
    """A floating tensor in `dtype`; anything else as it is."""
    return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def rounded(x: Any) -> Any:
    """Floating tensors of a case as float64 that fp32 holds exactly."""
    if isinstance(x, torch.Tensor):
        return x.float().double() if x.is_floating_point() else x
    if isinstance(x, dict):
        return {n: rounded(y) for n, y in x.items()}
    return type(x)(rounded(y) for y in x) if isinstance(x, list | tuple) else x


def qkv(case: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of a case; a definition of maps alone has no value, and the keys stand in."""
    return case["q"], case["k"], case.get("v", case["k"])


def length(keep: Tensor) -> Tensor:
    """The lengths of padded sequences, from what is kept of two batch entries."""
    return keep.reshape(2, -1).sum(-1)


def tuple_of(x: Tensor | Outputs) -> Outputs:
    return (x,) if isinstance(x, torch.Tensor) else tuple(x)


def all_cases() -> Table:
    from tests.papers.cases_c import CASES as C
    from tests.papers.cases_d import CASES as D
    from tests.papers.cases_f import CASES as F

    return {**C, **D, **F}


@cache
def call_of(name: str) -> Call:
    """The case of a name, made once."""
    return all_cases()[name]()
