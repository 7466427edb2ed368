"""What a kernel is specialised on, for what machine, and how it is called.

A `KernelSpec` holds everything that shapes the text of a kernel. Sequence lengths, batch, heads, strides and
parameters are not in it: they are run-time arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attngen.value import value

if TYPE_CHECKING:  # a process that only reopens cached kernels needs none of these
    from attngen.algebra.fold import Fold
    from attngen.emit.tile import TileProgram
    from attngen.lang.ops import Kind
    from attngen.lang.program import Program
    from attngen.planner.plan import MaskPlan

DType = Literal["float32", "bfloat16", "float16"]


@value
class Target:
    """A machine to compile for: `sm_90` (cuda), `gfx942` (hip), `cpu`, `cpu-avx2`, `cpu-avx512`, ... (cpu)."""

    kind: Literal["cuda", "hip", "cpu"]
    arch: str


@value
class TensorArg:
    """A captured tensor: element type as stored, and rank. `torch_dtype` is torch's name without `torch.`."""

    name: str
    kind: Kind
    rank: int
    torch_dtype: str


@value
class KernelSpec:
    """A forward kernel's specification.

    program   linked and desugared; its canonical text is the kernel's identity.
    tensors   captured tensors the kernel reads, in the order they are passed.
    params    run-time scalars the kernel reads, in the order they are passed (`scale` among them if used).
    consts    values of `const` parameters, worked into the text.
    tile      the arithmetic; built with `scale_positive` taken into account.
    """

    program: Program
    fold: Fold
    tile: TileProgram
    plan: MaskPlan
    dtype: DType
    head_dim: int
    value_dim: int
    tensors: tuple[TensorArg, ...]
    params: tuple[tuple[str, Kind], ...]
    consts: tuple[tuple[str, int | float | bool], ...]
    outputs: tuple[str, ...]
    scale_positive: bool = True


@value
class Source:
    """A rendered kernel: its text, entry name, and what must travel to the loader (JSON-able)."""

    text: str
    language: Literal["triton", "cpp"]
    entry: str
    target: Target
    meta: tuple[tuple[str, int | float | str | bool], ...] = ()
