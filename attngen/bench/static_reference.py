"""Figures of kernels that others wrote, read from their code by the same rules as ours: what ours are held against.

FlexAttention is the text that Inductor of torch 2.13 emits for a causal window of 1024 keys (4 batch entries, 16 heads,
8192 tokens) with its default options; "tutorial" is the fused attention of Triton's tutorials (06, with descriptors),
causal. Both in bf16, compiled by Triton 3.9.0 without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

MADE_WITH = "FlexAttention as Inductor of torch 2.13 emits it, and Triton's tutorial 06; Triton 3.9.0, bf16"

# A figure that was not kept is a dash. The columns are the fields of the classes below, in order.
_TABLE = """
FlexAttention sm_90   64 128 128 4 3  255   16   11 112 2 | partial 1862 540 1024 1862 0.55 0.29 | full 1173 12 1024 1173 0.87 0.48
FlexAttention sm_90  128 128  64 8 3  192    0    0 128 1 | partial  625 137 1024 1250 0.82 0.51 | full  448  9 1024  896 0.94 0.63
tutorial      sm_90   64 128  64 4 3  190    0    0  65 2 | partial  723 132  512  723 0.71 0.38 | full  526  6  512  526 0.94 0.47
tutorial      sm_90  128 128 128 8 2  215    0    0 161 1 | full     523   7 2048 1046 1.00 0.655
FlexAttention sm_80   64 128  64 4 3    -    8    2   - - | partial 1160   -    -    -    - 0.46 | full  784  -    -    -    - 0.60
FlexAttention sm_80  128 128  64 8 3  245    0    0   - - | partial  774   -    -    -    - 0.68 | full  590  -    -    -    - 0.75
tutorial      sm_80  128 128  64 8 3  213    0    0   - - | partial  665   -    -    -    - 0.75 | full  569  -    -    -    - 0.75
FlexAttention sm_100  64 128 128 4 3    - 1160 1497   - - | partial    -   -    -    - 0.23    - | full    -  -    -    - 0.46    -
FlexAttention sm_100 128 128  64 8 3  222    0    0   - - | partial    -   -    -    - 0.41    - | full    -  -    -    - 0.63    -
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class ReferenceLoop:
    """One hot loop; the names are those of `LoopFigures`, of its mix (`mask`) and its cycles (`tensor`, `issue`)."""

    label: str
    instructions: int | None
    mask: int | None
    tensor: int | None
    issue: int | None
    pipe_bound: float | None
    simulated: float | None


@dataclass(frozen=True, slots=True)
class Reference:
    """One kernel; the names are those of `Inspection`, `ctas` that of its occupancy."""

    name: str
    target: str
    head_dim: int
    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    registers: int | None
    spill_bytes: int | None
    spill_instructions: int | None
    shared_kib: int | None
    ctas: int | None
    loops: tuple[ReferenceLoop, ...]


def references() -> tuple[Reference, ...]:
    """The kernels of the table."""
    return tuple(_reference(line) for line in _TABLE.strip().splitlines())


def _reference(line: str) -> Reference:
    head, *loops = (part.split() for part in line.split("|"))
    name, target, *rest = head
    head_dim, block_q, block_k, num_warps, num_stages = (int(x) for x in rest[:5])
    takes = (_count(x) for x in rest[5:])
    shape = (head_dim, block_q, block_k, num_warps, num_stages)
    return Reference(name, target, *shape, *takes, loops=tuple(_loop(*loop) for loop in loops))


def _loop(label: str, *figures: str) -> ReferenceLoop:
    shares = (None if x == "-" else float(x) for x in figures[4:])
    return ReferenceLoop(label, *(_count(x) for x in figures[:4]), *shares)


def _count(text: str) -> int | None:
    return None if text == "-" else int(text)
