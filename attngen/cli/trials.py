"""Small calls that show whether kernels can be built and run here: what `attngen doctor` tries at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attngen.cli.common import seconds_text
from attngen.errors import InternalError

if TYPE_CHECKING:
    import torch

_SHAPE = (1, 2, 33, 16)
_ALLOWED = {"cpu": 1e-4, "cuda": 1e-2}  # products in fp32 may be taken in TF32 on a GPU
_ABSENT = "sm_90"


class WrongResultError(InternalError):
    """A kernel was built and ran, and its result is wrong."""


def cpu_trial() -> str:
    """Build the kernel of a causal call, run it and compare it with float64; what was done, in words.

    Raises WrongResultError, and what building and running raise.
    """
    import torch

    return _trial(torch.device("cpu"), "cpu")


def gpu_trial() -> str:
    """The same on a GPU; where none is, compile one for a GPU that need not be here."""
    import torch

    if torch.cuda.is_available():
        return _trial(torch.device("cuda"), "triton")
    from attngen.api import load

    start = time.perf_counter()
    found = load("causal").inspect(_ABSENT, "bf16", 64)
    took = seconds_text(time.perf_counter() - start)
    return f"compiled for {_ABSENT}, which is not here: {found.registers} registers ({took})"


def _trial(device: torch.device, backend: str) -> str:
    import torch

    from attngen.api import load

    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(_SHAPE, generator=generator).to(device) for _ in range(3))
    spec = load("causal")
    start = time.perf_counter()
    out = spec(query, key, value, backend=backend)
    took = seconds_text(time.perf_counter() - start)
    right = spec.reference(query, key, value)
    assert isinstance(out, torch.Tensor)
    assert isinstance(right, torch.Tensor)
    error = float((out.double() - right.double()).abs().max())
    if not error < _ALLOWED[device.type]:
        raise WrongResultError(
            f"a kernel that was built for this machine is wrong by {error:.2g}",
            hint="attngen cache clear, and if it stays so, please report it",
        )
    return f"built or found, run, and right to {error:.1g} ({took})"
