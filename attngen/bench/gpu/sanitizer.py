"""Some catalogue programs under compute-sanitizer's memcheck: reads and writes outside tensors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# A mask in closed form, lists, boxes, columns, several sweeps, and indices: one of each kind of kernel.
SAMPLE = (
    ("causal", "bf16"),
    ("documents", "fp16"),
    ("neighborhood_2d", "bf16"),
    ("softmax_sink", "fp32"),
    ("span_mass", "bf16"),
    ("column_sums", "fp32"),
)
_FOUND = 86  # the exit code that is asked for where something was found
_CHECK = "import sys; from attngen.bench.gpu.sanitizer import checked; sys.exit(checked(*sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Sanitized:
    """Whether a program's call touches only what it may, and the tool's last words."""

    ok: bool
    text: str


def tool() -> str | None:
    """Where compute-sanitizer is; None where it is not installed."""
    found = shutil.which("compute-sanitizer")
    if found is not None:
        return found
    places = sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return str(places[-1]) if places else None


def sanitize(command: str, name: str, dtype: str, seconds: float) -> Sanitized:
    """Run one program's call under the tool. Raises TimeoutExpired."""
    done = subprocess.run(
        [
            command, "--tool", "memcheck", "--error-exitcode", str(_FOUND), "--target-processes", "application-only",
            sys.executable, "-c", _CHECK, name, dtype,
        ],
        capture_output=True, text=True, errors="replace", timeout=max(seconds, 1.0), check=False,
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # so that each tensor has bounds of its own
    )  # fmt: skip
    words = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]
    return Sanitized(done.returncode == 0, words[:300])


def checked(name: str, dtype: str) -> int:
    """An exit code: 0 where the program's call ran, right or wrong; 1 where it failed."""
    import torch

    from attngen.bench.gpu.catalogue import check

    return int(check(name, dtype, torch.device("cuda")).worst is None)
