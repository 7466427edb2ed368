"""The static suite: what kernels take of GPUs that need not be here, for the head dimensions that models have.

Nothing is run and nothing is timed. Every kernel is compiled in a process of its own, by the Triton installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from attngen.api import load
from attngen.backends.triton_compile import triton_version
from attngen.bench.static_reference import MADE_WITH, references
from attngen.errors import CompileError
from attngen.static.report import Inspection

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942")
HEAD_DIMS = (64, 96, 128, 192, 256)
DTYPE = "bf16"
# Programs, and the values that choose a kernel; the grid is an image of 64 x 64 tokens.
PROGRAMS: Mapping[str, Mapping[str, Any]] = {
    "causal": {},
    "sliding_window": {},
    "sliding_window_sink": {},
    "documents": {},
    "neighborhood_2d": {"grid": (64, 64)},
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel; `found` is None where the compiler refused it, and `error` says why."""

    program: str
    target: str
    head_dim: int
    found: Inspection | None
    error: str = ""

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        figures: dict[str, object] = {"error": self.error} if self.found is None else asdict(self.found)
        return {"program": self.program, "head_dim": self.head_dim, "target": self.target, **figures}


def run_suite(
    programs: tuple[str, ...], targets: tuple[str, ...] = TARGETS, head_dims: tuple[int, ...] = HEAD_DIMS
) -> Iterator[Kernel]:
    """Compile and inspect, one kernel after the other."""
    for target in targets:
        for program in programs:
            spec = load(program, **PROGRAMS[program])
            for head_dim in head_dims:
                try:
                    yield Kernel(program, target, head_dim, spec.inspect(target, DTYPE, head_dim))
                except CompileError as error:
                    yield Kernel(program, target, head_dim, None, error.message)


def made_with() -> dict[str, str]:
    """What the figures come from: versions and date. No machine is part of them."""
    from attngen import __version__

    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"date": date, "attngen": __version__, "triton": triton_version(), "dtype": DTYPE}


def as_text(kernels: list[Kernel]) -> str:
    """The whole result as JSON, a kernel a line, with the kernels of others beside ours."""
    ours = ",\n    ".join(json.dumps(kernel.as_json()) for kernel in kernels)
    theirs = ",\n    ".join(json.dumps(asdict(r)) for r in references())
    made = ",\n  ".join(f'"{name}": {json.dumps(found)}' for name, found in made_with().items())
    return (
        f'{{\n  {made},\n  "results": [\n    {ours}\n  ],\n'
        f'  "reference_made_with": {json.dumps(MADE_WITH)},\n  "reference": [\n    {theirs}\n  ]\n}}\n'
    )
