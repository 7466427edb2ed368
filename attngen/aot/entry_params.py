"""Check the parameters of a built kernel against what a launch will pass.

    .visible .entry causal(                     Q_ptr        8 bytes
        .param .u64 .ptr .global causal_param_0,
        .param .u64 causal_param_1,       <->   Q_stride_b   8 bytes
        .param .u32 causal_param_2,             n_q          4 bytes
        .param .u64 .ptr .global causal_param_3,   Triton's own: memory that a kernel works in
        .param .u64 .ptr .global causal_param_4)   Triton's own: memory of its profiler

A launch passes addresses of values, and only the kernel knows how many there are and how long each is: one parameter
more than the launch knows of, and it reads what is no value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attngen.emit.spec import Target
from attngen.emit.triton.names import TRAILING_POINTERS, Arg
from attngen.errors import CompileError

_ENTRY = r"\.entry\s+{}\s*\((.*?)\n\)"
_PARAM = re.compile(r"\.param\s+\.[a-z](\d+)\s")
_ARGS = re.compile(r"^    \.args:\n(.*?)^    \.\w", re.MULTILINE | re.DOTALL)
_SIZE = re.compile(r"^ *-? *\.size: *(\d+)$", re.MULTILINE)


def check_params(assembly: str, target: Target, entry: str, passed: Sequence[Arg]) -> None:
    """Raise CompileError unless the kernel takes the arguments and then Triton's two pointers."""
    found = _cuda(assembly, entry) if target.kind == "cuda" else _hip(assembly)
    expected = [a.nbytes for a in passed] + [8] * TRAILING_POINTERS
    if found != expected:
        raise CompileError(
            f"{entry} takes parameters of {found} bytes, a launch passes {expected}",
            log=assembly[:4000],
            hint="this version of Triton passes something else than attngen knows of; please report it",
        )


def _cuda(assembly: str, entry: str) -> list[int]:
    """The bytes of each parameter in PTX."""
    signature = re.search(_ENTRY.format(re.escape(entry)), assembly, re.DOTALL)
    if signature is None:
        return []
    return [int(bits) // 8 for bits in _PARAM.findall(signature[1])]


def _hip(assembly: str) -> list[int]:
    """The bytes of each parameter in the metadata of the assembly."""
    args = _ARGS.search(assembly)
    return [int(size) for size in _SIZE.findall(args[1])] if args else []
