"""Names of machines to compile for."""

from __future__ import annotations

import re
from difflib import get_close_matches

from attngen.emit.spec import Target
from attngen.errors import TargetError

CUDA_ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120")
HIP_ARCHS = ("gfx90a", "gfx942")
CPU_ARCHS = ("cpu", "cpu-avx2", "cpu-avx512")


def target_names() -> tuple[str, ...]:
    """Every target name `parse_target` knows."""
    return CUDA_ARCHS + HIP_ARCHS + CPU_ARCHS


def parse_target(name: str) -> Target:
    """`"sm_90"` -> cuda, `"gfx942"` -> hip, `"cpu"`, `"cpu-avx2"`, `"cpu-avx512"` -> cpu.

    Raises TargetError for anything else, naming the nearest target.
    """
    if name in CUDA_ARCHS:
        return Target("cuda", name)
    if name in HIP_ARCHS:
        return Target("hip", name)
    if name in CPU_ARCHS:
        return Target("cpu", name)
    near = get_close_matches(re.sub(r"^sm(?=\d)", "sm_", name), target_names(), n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise TargetError(f"unknown target {name!r}", hint=f"{meant}known targets: {', '.join(target_names())}")
