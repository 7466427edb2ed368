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
    from attngen.lang.expr import Expr
    from attngen.lang.ops import Kind
    from attngen.lang.program import Program
    from attngen.planner.layout import Boxes
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
    boxes     the shapes of tiles that are boxes of coordinates, for a plan of boxes.
    extents   of the ranks of the program's own that are features of an operand or of an accumulator.
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
    boxes: Boxes | None = None
    extents: tuple[tuple[str, int], ...] = ()

    def width(self, feature: str) -> int:
        """The extent of a feature rank: `d` and `e` are those of the inputs."""
        return {"d": self.head_dim, "e": self.value_dim, **dict(self.extents)}[feature]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Which of Q, K and V the kernel reads."""
        from attngen.lang.expr import loads

        read = {load.tensor for body in self.tile.bodies() for load in loads(body)}
        return tuple(name for name in ("Q", "K", "V") if name in read)

    @property
    def lets(self) -> tuple[tuple[str, Expr], ...]:
        """The plan's named expressions, of whichever form it has."""
        if self.plan.boxes is not None:
            from attngen.planner.instantiate import instantiate

            return (
                self.plan.boxes.lets if self.boxes is None else instantiate(self.plan.boxes.lets, self.boxes)
            )
        return self.plan.ranges.lets if self.plan.ranges is not None else ()

    @property
    def positive(self) -> tuple[str, ...]:
        """Parameters that a call may only give as 1 or more, because the schedule divides by them."""
        from attngen.planner.plan_mask import requirements

        return requirements(self.program, self.plan)

    @property
    def ordered(self) -> bool:
        """Whether a launch brings the order of its rows of work (see `order.needs_order`)."""
        from attngen.planner.order import needs_order

        return needs_order(self.program, self.plan)

    @property
    def keep(self) -> Expr | None:
        """The mask as a tile evaluates it; None keeps every pair."""
        if self.plan.boxes is not None:
            return self.plan.boxes.keep
        from attngen.planner.by_rows import by_rows

        return by_rows(self.program.mask, self.plan.ranges)


@value
class Source:
    """A rendered kernel: its text, entry name, and what must travel to the loader (JSON-able)."""

    text: str
    language: Literal["triton", "cpp"]
    entry: str
    target: Target
    meta: tuple[tuple[str, int | float | str | bool], ...] = ()
