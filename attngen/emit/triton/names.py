"""Names of a program as Python identifiers, and the order in which a kernel takes its arguments."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import AccDot
from attngen.lang.expr import Expr, Var, loads
from attngen.planner.rows import row_extremes

# What the template and its helpers define where names of the program are in scope.
_OURS = [
    "BLOCK_K",
    "BLOCK_Q",
    "HEAD_DIM",
    "HEAD_PAD",
    "VALUE_DIM",
    "VALUE_PAD",
    "LOG2E",
    "Q",
    "K",
    "V",
    "Q_ptr",
    "K_ptr",
    "V_ptr",
    "tl",
    "triton",
    "b",
    "b64",
    "d",
    "d64",
    "e",
    "e64",
    "group",
    "h",
    "h64",
    "i",
    "k",
    "k_base",
    "k_inside",
    "k_offsets",
    "k_start",
    "k_tile",
    "keep",
    "key64",
    "kv64",
    "loadable",
    "n_b",
    "n_full",
    "n_h",
    "n_k",
    "n_partial",
    "n_q",
    "n_tiles_q",
    "program",
    "q",
    "q_base",
    "q_hi",
    "q_lo",
    "q_offsets",
    "q_tile",
    "row",
    "row64",
    "row_value",
    "seen",
    "start",
    "tile",
    "tile_q",
    "v_base",
    "v_offsets",
    "v_start",
    "v_tile",
    "first_full",
    "first_partial",
    "list_row",
    "list_stride_b",
    "list_stride_h",
    "full_index_ptr",
    "full_lists_ptr",
    "partial_index_ptr",
    "partial_lists_ptr",
    "clamp",
    "finite",
    "float_mod",
    "floor_div",
    "floor_mod",
    "int_power",
    "power",
    "round_half_even",
    "saturate",
    "sign",
    "tanh",
    "larger",
    "row_max",
    "row_min",
    "smaller",
]
_RUNS = [
    f"{stem}_{n}"
    for stem in ("row_value", "full_from", "full_until", "partial_from", "partial_until")
    for n in range(16)
]
RESERVED = frozenset((*keyword.kwlist, *dir(builtins), *_OURS, *_RUNS))

# Launches refuse longer axes, so that sums and differences of a few positions provably fit 32 bits.
MAX_POSITION = 2**27

PLAIN_INDICES = ("b", "h", "q", "k")

Role = Literal["pointer", "stride", "size", "extent", "param", "list_pointer", "list_stride", "order_pointer"]


@dataclass(frozen=True, slots=True)
class Arg:
    """One run-time argument of a kernel.

    name   its identifier in the text.
    role   what it is; `of` names the tensor, extent or parameter it belongs to, `axis` the axis of a stride or size.
    last   for a stride, whether it is the last axis's.
    dtype  for a pointer, torch's name of the element type; for a parameter, its kind.
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


def identifiers(names: Iterable[str], taken: frozenset[str] = RESERVED) -> dict[str, str]:
    """A Python identifier for every name: the name itself, or with `_` behind it where it is taken."""
    out: dict[str, str] = {}
    used = set(taken)
    for name in dict.fromkeys(names):
        free = name
        while free in used:
            free += "_"
        out[name] = free
        used.add(free)
    return out


_STEMS = (
    "tiles_q",
    "tiles_k",
    "q_lo",
    "q_hi",
    "k_lo",
    "q_lane",
    "k_lane",
    "q_low",
    "row",
    "k_at",
    "span",
    "clear",
    "nth",
    "row_first",
    "row_end",
)
_FIXED = (
    "lane", "k_lane", "n_tiles_q", "rest", "exists", "slab", "until_0", "until_1", "until_2", "n_visited", "size",
    "key_offset", "place", "first", "last", "hull_first", "hull_last",
)  # fmt: skip


def box_names(spec: KernelSpec) -> frozenset[str]:
    """The identifiers that this module gives to variables of the kernel."""
    plan = spec.plan.boxes
    if plan is None:
        return frozenset()
    axes = [a.name for layout in (plan.q, plan.k) for a in layout.axes]
    axes += [name for layout in (plan.q, plan.k) for name, _ in layout.coordinates]
    return frozenset((*_FIXED, *axes, *(f"{stem}_{axis}" for stem in (*_STEMS, "q", "k") for axis in axes)))


def kernel_identifiers(spec: KernelSpec) -> dict[str, str]:
    """Identifiers of everything the program, its tile program and its plan name."""
    tile = spec.tile
    steps = (s.acc if isinstance(s, AccDot) else s.out for s in tile.steps)
    return identifiers(
        (
            *(name for name, _ in spec.params),
            *(t.name for t in spec.tensors),
            *(name for name, _ in tile.uniforms),
            *(c.name for c in tile.carried),
            *steps,
            *(f.out for f in tile.finish),
            *(name for name, _ in spec.lets),
        ),
        RESERVED | box_names(spec) | (frozenset(("order", "order_ptr")) if spec.ordered else frozenset()),
    )


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


def kernel_exprs(spec: KernelSpec) -> Iterator[Expr]:
    """Every expression a kernel evaluates."""
    tile = spec.tile
    if spec.keep is not None:
        yield spec.keep
    yield from (body for _, body in tile.uniforms)
    yield from (c.init for c in tile.carried)
    yield from (body for s in tile.steps if (body := getattr(s, "body", None)) is not None)
    yield from (f.body for f in tile.finish)
    yield from (body for _, body in spec.lets)
    yield from (extreme.body for extreme in row_extremes(spec.lets))


def clamped_axes(spec: KernelSpec, tensor: str) -> tuple[int, ...]:
    """Axes of a captured tensor that are indexed by anything but a plain `b`, `h`, `q` or `k`, in order."""
    axes = {
        axis
        for expr in kernel_exprs(spec)
        for ld in loads(expr)
        if ld.tensor == tensor
        for axis, index in enumerate(ld.indices)
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
    outputs = [(o.name, 4 if o.space == "acc" else 3) for o in spec.tile.outputs]
    for name, rank in (("Q", 4), ("K", 4), ("V", 4), *outputs):
        dtype = spec.dtype if rank == 4 else "float32"
        args.append(Arg(f"{name}_ptr", "pointer", name, dtype=dtype))
        args += [
            Arg(f"{name}_stride_{axis}", "stride", name, i, i == rank - 1)
            for i, axis in enumerate(_axes(name, rank))
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


def _axes(name: str, rank: int) -> str:
    if name == "Q":
        return "bhqd"
    if name in ("K", "V"):
        return "bhkd" if name == "K" else "bhke"
    return "bhqe"[:rank]
