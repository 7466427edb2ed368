"""A small call of every program of `ir/`, held to float64: what the suite does first.

Lengths are such that nothing divides them, heads are grouped, features are 64 wide where the program does not say.
Programs of the papers are called as `attngen.paper_samples` has it, those that are masks as `attngen.papers` does, and
the rest with made values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from attngen import arguments
from attngen.lang.library import cascade_names, program_names
from attngen.paper_samples import CAUSAL, SAMPLES
from attngen.papers import EXAMPLES
from attngen.sample_values import TORCH_DTYPES, make_qkv, with_samples
from attngen.tolerance import FACTOR, check_rows, shapes_of

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.lang.program import Program

Tensor = torch.Tensor
DTYPES = ("bf16", "fp32", "fp16")  # what is most used first
WIDTH = 64
# The yardstick of a sample is the largest of few numbers, and a row of sums may be luckier than another.
_SLACK = 3
_BATCH, _HEADS, _KV_HEADS, _N_Q, _N_K = 2, 4, 2, 300, 333
# Grids that a call of few tokens has room for, by the number of axes.
_GRIDS = {1: (333,), 2: (17, 19), 3: (5, 7, 9)}
_WIDE = (8, 6)  # of samples that leave the widths open


@dataclass(frozen=True, slots=True)
class Call:
    """A specification with its tensors bound, on the CPU in fp32, and what it is called with."""

    spec: Attention
    qkv: tuple[Tensor, Tensor, Tensor]
    factor: float

    def moved(self, device: torch.device, dtype: torch.dtype) -> Call:
        """The call on a device; captured tensors stay as precise as they are."""
        from attngen.api import Attention

        values = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in self.spec.values.items()}
        query, key, value = (t.to(device, dtype) for t in self.qkv)
        return Call(Attention.from_linked(self.spec.program, values), (query, key, value), self.factor)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a program's call was found to be in one dtype.

    worst   the largest error over the outputs, as a part of what the rule allows; None where the call failed.
    output  the output it belongs to.
    """

    program: str
    dtype: str
    worst: float | None
    output: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call ran and is within the rule."""
        return self.worst is not None and self.worst <= 1.0


def names() -> tuple[str, ...]:
    """Every program of `ir/` and of `ir/cascades/`; the most used first."""
    first = ("causal", "softmax", "sliding_window", "sliding_window_sink", "documents", "neighborhood_2d")
    every = dict.fromkeys((*first, *program_names(), *cascade_names()))
    return tuple(every)


def call_of(name: str) -> Call:
    """The small call of a program. Raises ProgramNotFoundError and its kin."""
    from attngen.api import Attention, load

    sample = next((s for s in SAMPLES if s.program == name), None)
    if sample is not None:
        if sample.widths == _WIDE:
            sample = replace(sample, widths=(WIDTH, WIDTH))
        return Call(sample.spec(), sample.inputs(), FACTOR * _SLACK)
    example = next((e for e in EXAMPLES if e.program == name), None)
    if name in cascade_names():
        spec, values = Attention(mask=CAUSAL, cascade=name, name=name), dict[str, Any]()
    else:
        program = load(name).program
        values = {} if example is None else _for_all_heads(program, example.arguments())
        if program.grid:
            values["grid"] = _GRIDS[len(program.grid)]
        spec = load(name, **values)
    n_q, n_k = _lengths(spec, example is not None and example.n_q == example.n_k)
    qkv = make_qkv(_BATCH, _HEADS, _KV_HEADS, n_q, n_k, WIDTH, WIDTH)
    made = with_samples(spec, qkv, {})
    return Call(Attention.from_linked(spec.program, {**spec.values, **made}), qkv, FACTOR)


def _for_all_heads(program: Program, values: dict[str, Any]) -> dict[str, Any]:
    """The values of an example with one head, for as many as the call has; without what a batch entry has."""
    out = dict(values)
    for decl in program.tensors:
        given = out.get(decl.name)
        if isinstance(given, torch.Tensor):
            shape = [_HEADS if rank == "h" else n for rank, n in zip(decl.ranks, given.shape, strict=True)]
            out[decl.name] = given.expand(shape).contiguous()
            if "b" in decl.ranks:
                del out[decl.name]
    return out


def _lengths(spec: Attention, square: bool) -> tuple[int, int]:
    sizes = [v for n, v in spec.values.items() if n.startswith("size_") and isinstance(v, int)]
    if not sizes:
        return (_N_K, _N_K) if square else (_N_Q, _N_K)
    n = 1
    for size in sizes:
        n *= size
    return n, n


def check(name: str, dtype: str, device: torch.device) -> Agreement:
    """Run a program's call and compare; a failure is part of the result."""
    try:
        call = call_of(name).moved(device, TORCH_DTYPES[dtype])
        with torch.no_grad():
            return agreement(name, dtype, call)
    except Exception as error:  # one program's failure is a line of the table
        return Agreement(name, dtype, None, error=f"{type(error).__name__}: {error}"[:400])


def check_ahead(name: str, dtype: str, device: torch.device) -> Agreement:
    """As `check`, with kernels that are built ahead of time for the device, and loaded from their artefact."""
    from tempfile import TemporaryDirectory

    from attngen.artefact.load import load_artefact
    from attngen.artefact.targets import accepted

    try:
        call = call_of(name).moved(device, TORCH_DTYPES[dtype])
        query, _, value = call.qkv
        with TemporaryDirectory() as folder, torch.no_grad():
            path = call.spec.compile(
                accepted(device)[0], dtype, query.shape[-1], value.shape[-1], path=folder, workers=1
            )
            return agreement(name, dtype, replace(call, spec=load_artefact(path)))
    except Exception as error:  # one program's failure is a line of the table
        return Agreement(name, dtype, None, error=f"{type(error).__name__}: {error}"[:400])


def agreement(name: str, dtype: str, call: Call) -> Agreement:
    """The error of a call over what the tolerance rule allows."""
    result = call.spec(*call.qkv)
    outs = result if isinstance(result, tuple) else (result,)
    program = call.spec.program
    tensors, params = arguments.bind(program, call.spec.values, {})
    params["scale"] = arguments.default_scale(call.qkv[0].shape[-1], None)
    params |= arguments.own_extents(program, tensors, params, shapes_of(*call.qkv))
    named: Mapping[str, Tensor] = dict(zip(call.spec.outputs, outs, strict=True))
    checks = check_rows(program, *call.qkv, named, tensors=tensors, params=params, factor=call.factor)
    worst = max(checks, key=lambda c: _part(c.error, c.allowed))
    return Agreement(name, dtype, round(_part(worst.error, worst.allowed), 4), worst.output)


def _part(error: float, allowed: float) -> float:
    if error <= 0.0:
        return 0.0
    return error / allowed if allowed else float("inf")
