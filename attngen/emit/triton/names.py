"""Names of a program as Python identifiers, and the order in which a kernel takes its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Output,
    StoreBlock,
    StorePair,
    TileProgram,
    TileStep,
)
from attngen.emit.triton.features import features
from attngen.emit.triton.reserved import RESERVED, box_names, identifiers
from attngen.emit.triton.sides import INPUT_AXES, sides
from attngen.lang.expr import Expr, Var, loads
from attngen.planner.rows import row_extremes

# Launches refuse longer axes, so that sums and differences of a few positions provably fit 32 bits.
MAX_POSITION = 2**27

# After the arguments Triton passes two pointers of its own: memory for the kernel to work in, and for its profiler.
TRAILING_POINTERS = 2

PLAIN_INDICES = ("b", "h", "g", "q", "k")

Role = Literal["pointer", "stride", "size", "extent", "param", "list_pointer", "list_stride", "order_pointer"]
Alignment = Literal["all", "features", "none"]  # of addresses and strides: see `assume`


@dataclass(frozen=True, slots=True)
class Arg:
    """One run-time argument of a kernel.

    name   its identifier in the text.
    role   what it is; `of` names the tensor, extent or parameter it belongs to, `axis` the axis of a stride or size.
    last   for a stride, whether it is the last axis's.
    dtype  for a pointer, torch's name of the element type; for a parameter, its kind; for a stride, "int64" where
           it is passed in 64 bits.
    """

    name: str
    role: Role
    of: str
    axis: int = 0
    last: bool = False
    dtype: str = ""

    @property
    def specialised(self) -> bool:
        """Whether Triton may specialise the kernel on the value: on alignment and unit strides, never on sizes."""
        return self.role in ("pointer", "stride", "list_pointer", "order_pointer")

    @property
    def nbytes(self) -> int:
        """The bytes it takes among the parameters of a kernel, which are aligned to their own sizes."""
        if self.dtype == "bool" and self.role == "param":
            return 1
        wide = self.role.endswith("pointer") or (self.role == "stride" and self.dtype == "int64")
        return 8 if wide else 4


def kernel_identifiers(spec: KernelSpec) -> dict[str, str]:
    """Identifiers of everything the program, its tile program and its plan name."""
    tile = spec.tile
    return identifiers(
        (
            *(name for name, _ in spec.params),
            *(t.name for t in spec.tensors),
            *(name for name, _ in tile.uniforms),
            *(c.name for c in tile.carried),
            *(name for s in tile.steps if (name := _set_by(s)) is not None),
            *(f.out for f in tile.finish),
            *(name for name, _ in spec.lets),
        ),
        RESERVED | _own_names(spec),
    )


def _set_by(step: TileStep) -> str | None:
    """The variable that a step sets."""
    match step:
        case AccDot() | AccBins() | AccTopK() | AccEach() | AccLet():
            return step.acc
        case StorePair() | StoreBlock():
            return None
        case _:
            return step.out


def _own_names(spec: KernelSpec) -> frozenset[str]:
    """The identifiers that the text gives to things of this kernel beside `RESERVED`."""
    out = set(box_names(spec))
    out.update(name for feature in features(spec).values() for name in feature.names)
    out.update(name for side in sides(spec).values() for name in side.names)
    stored = (o.name for o in spec.tile.outputs if o.space in ("pair", "block"))
    out.update(f"{name}_{part}" for name in stored for part in ("rows", "tile", "block", "kept"))
    return frozenset(out | {"order", "order_ptr"} if spec.ordered else out)


def entry_name(spec: KernelSpec) -> str:
    """The kernel's function name: the program's name as an identifier no name inside the kernel shadows."""
    name = (
        "".join(c if c.isascii() and c.isalnum() else "_" for c in spec.program.name).strip("_")
        or "attention"
    )
    if name[0].isdigit():
        name = f"attention_{name}"
    taken = RESERVED | set(kernel_identifiers(spec).values()) | {a.name for a in kernel_args(spec)}
    return name if name not in taken else f"{name}_kernel"


def kernel_exprs(spec: KernelSpec, *, operands: bool = True) -> Iterator[Expr]:
    """Every expression a kernel evaluates; `operands=False` leaves out the operands of its contractions."""
    if spec.keep is not None:
        yield spec.keep
    yield from (spec.tile if operands else replace(spec.tile, operands=())).bodies()
    yield from (body for _, body in spec.lets)
    yield from (extreme.body for extreme in row_extremes(spec.lets))


def clamped_axes(spec: KernelSpec, tensor: str) -> tuple[int, ...]:
    """Axes of a captured tensor that are indexed by anything but a plain `b`, `h`, `g`, `q` or `k`, in order.

    The features of an operand that is read as it is are masked instead.
    """
    operands = sides(spec).values()
    read = [(ld.tensor, ld.indices) for expr in kernel_exprs(spec, operands=False) for ld in loads(expr)]
    read += [(ld.tensor, ld.indices) for s in operands if s.load is None for ld in loads(s.operand.body)]
    read += [(s.load.tensor, s.load.indices[:-1]) for s in operands if s.load is not None]
    axes = {
        axis
        for name, indices in read
        if name == tensor
        for axis, index in enumerate(indices)
        if not is_plain(index)
    }
    return tuple(sorted(axes))


def is_plain(index: Expr) -> bool:
    """Whether an index is a rank whose range the caller has checked against the tensor."""
    return isinstance(index, Var) and index.axis is None and index.name in PLAIN_INDICES


def kernel_args(spec: KernelSpec) -> tuple[Arg, ...]:
    """The run-time arguments in order: inputs and outputs, extents, parameters, captured tensors, lists, order."""
    ident = kernel_identifiers(spec)
    args: list[Arg] = []
    inputs = [(name, tuple(INPUT_AXES[name]), spec.dtype) for name in spec.inputs]
    outputs = [
        (o.name, output_axes(spec, o), spec.dtype if o.rounded else "float32") for o in spec.tile.outputs
    ]
    for name, axes, dtype in (*inputs, *outputs):
        args.append(Arg(f"{name}_ptr", "pointer", name, dtype=dtype))
        args += [
            Arg(f"{name}_stride_{axis}", "stride", name, i, i == len(axes) - 1) for i, axis in enumerate(axes)
        ]
    args += [Arg(name, "extent", name) for name in ("n_b", "n_h", "n_q", "n_k", "group")]
    args += [Arg(ident[name], "param", name, dtype=kind.value) for name, kind in spec.params]
    for tensor in spec.tensors:
        name = ident[tensor.name]
        args.append(Arg(f"{name}_ptr", "pointer", tensor.name, dtype=tensor.torch_dtype))
        args += [Arg(f"{name}_size_{i}", "size", tensor.name, i) for i in clamped_axes(spec, tensor.name)]
        args += [
            Arg(f"{name}_stride_{i}", "stride", tensor.name, i, i == tensor.rank - 1)
            for i in range(tensor.rank)
        ]
    if spec.plan.form == "lists":
        lists = ("partial_lists", "partial_index", "full_lists", "full_index")
        args += [Arg(f"{name}_ptr", "list_pointer", name, dtype="int32") for name in lists]
        args += [Arg(f"list_stride_{axis}", "list_stride", axis) for axis in "bh"]
    if spec.ordered:
        args.append(Arg("order_ptr", "order_pointer", "order", dtype="int32"))
    return tuple(args)


def program_number(spec: KernelSpec) -> str:
    """The row of work of this program, `(b * n_h + h) * n_tiles_q + tile`."""
    return f"program = {'tl.load(order_ptr + tl.program_id(0))' if spec.ordered else 'tl.program_id(0)'}"


def output_axes(spec: KernelSpec, output: Output) -> tuple[str, ...]:
    """What the axes of an output are called in the names of its strides."""
    match output.space:
        case "row":
            return ("b", "h", "q")
        case "acc":
            return ("b", "h", "q", features(spec)[output.feature].lane)
        case "pair":
            return ("b", "h", "q", "k")
        case "block":
            return ("b", "h", "q", "block")


def topk_indices(tile: TileProgram) -> frozenset[str]:
    """The accumulators that hold keys, which stay integers in the kernel."""
    return frozenset(s.index for s in tile.steps if isinstance(s, AccTopK))


def stride_name(ident: str, tensor: str, axis: int) -> str:
    """The argument that holds the stride of an axis of an input or a captured tensor."""
    return f"{ident}_stride_{INPUT_AXES[tensor][axis] if tensor in INPUT_AXES else axis}"
