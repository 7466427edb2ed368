"""Sort the kernels of an artefact into families: those of one step, which one entry of the C interface chooses among.

Kernels causal/{cpu,sm_90}/{bf16,fp32}/one_pass-0  ->  family `causal`: Q, K, V, O, LSE, scale

A family knows every tensor, parameter and extent that any of its kernels reads. Each kernel takes some of them, in an
order of its own (see `number_arguments`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attngen.aot.c_names import Names, identifier
from attngen.artefact.manifest import Kernel, Manifest
from attngen.emit.cpp_names import LISTS as LIST_POINTERS
from attngen.emit.cpp_names import ORDER
from attngen.lang.ops import Kind
from attngen.lang.program import EXTENTS, INPUT_RANKS, Program
from attngen.lang.serialize import program_from_json
from attngen.pipeline import unvisited
from attngen.value import value

TensorRole = Literal["input", "output", "captured"]

# Fields that every struct of arguments has.
FIELDS = (
    "device", "dtype", "n_b", "n_h", "n_kv", "n_q", "n_k", "head_dim", "value_dim", *LIST_POINTERS, "list_b",
    "list_h", "list_q", ORDER, "threads", "stream",
)  # fmt: skip
# What a rank of a tensor is in C.
SIZES = {
    **{rank: n for rank, n in EXTENTS.items() if n.startswith("n_")},
    "g": "n_kv",
    "d": "head_dim",
    "e": "value_dim",
}


@value
class Tensor:
    """A tensor that some kernel of a family reads or writes.

    field   its name in C.
    sizes   the extents of its axes as fields of the struct, "" for one that nothing tells.
    dtypes  torch's names of the element types that kernels take it in; "" is the dtype of the call.
    fill    what it must hold before a call, for an output that not every tile writes.
    """

    name: str
    field: str
    role: TensorRole
    sizes: tuple[str, ...]
    dtypes: tuple[str, ...]
    fill: float | None = None

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.sizes)


@value
class Number:
    """A parameter, a constant that kernels are specialised on, or the extent of a rank of the program's own.

    key      by which kernels name it.
    initial  what a fresh struct of arguments holds.
    """

    key: str
    name: str
    field: str
    kind: Kind
    role: Literal["param", "const", "extent"]
    initial: int | float | bool


@value
class Family:
    """The kernels of one step of one form; `prefix` begins every name of it in C."""

    prefix: str
    form: str
    step: int
    rows: str
    kernels: tuple[Kernel, ...]
    tensors: tuple[Tensor, ...]
    numbers: tuple[Number, ...]
    lists: bool
    order: bool

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of devices that it has kernels for."""
        present = {k.target.kind for k in self.kernels}
        return tuple(kind for kind in ("cpu", "cuda", "hip") if kind in present)

    def swapped(self, size: str) -> str:
        """An extent of the call as its kernels count it: rows of some are keys."""
        return {"n_q": "n_k", "n_k": "n_q"}.get(size, size) if self.rows == "k" else size


def list_families(manifest: Manifest) -> tuple[Family, ...]:
    """The families in order of forms and steps."""
    program = program_from_json(manifest.program)
    steps = dict.fromkeys((k.form, k.step) for k in manifest.kernels)
    whole = [form for form, _ in steps].count("one_pass") == 1
    families: list[Family] = []
    for form, step in sorted(steps):
        named = identifier(manifest.name)
        prefix = named if whole and form == "one_pass" else f"{named}_{form}_{step}"
        kernels = tuple(k for k in manifest.kernels if (k.form, k.step) == (form, step))
        families.append(_family(manifest, program, prefix, kernels))
    return tuple(families)


def _family(manifest: Manifest, program: Program, prefix: str, kernels: tuple[Kernel, ...]) -> Family:
    names = Names(FIELDS)
    first = kernels[0]
    return Family(
        prefix=prefix,
        form=first.form,
        step=first.step,
        rows=first.rows,
        kernels=kernels,
        tensors=tuple(_tensors(program, kernels, names)),
        numbers=tuple(_numbers(manifest, program, kernels, names)),
        lists=any(_takes(k, "list_pointer") for k in kernels),
        order=any(_takes(k, "order_pointer") for k in kernels),
    )


def _takes(kernel: Kernel, role: str) -> bool:
    if kernel.layout is not None:
        return kernel.layout.lists if role == "list_pointer" else kernel.layout.order
    return any(a.role == role for a in kernel.args)


def pointers_of(kernel: Kernel) -> tuple[tuple[str, int], ...]:
    """The tensors of a kernel in order, with their ranks."""
    if kernel.layout is not None:
        layout = kernel.layout
        return (*((name, 4) for name in layout.inputs), *layout.outputs, *layout.tensors)
    ranks = {a.of: a.axis + 1 for a in kernel.args if a.role == "stride" and a.last}
    return tuple((a.of, ranks.get(a.of, 0)) for a in kernel.args if a.role == "pointer")


def _tensors(program: Program, kernels: tuple[Kernel, ...], names: Names) -> Iterator[Tensor]:
    captured = {name for kernel in kernels for name, _, _ in kernel.special.tensors}
    for name, rank in dict.fromkeys(pair for k in kernels for pair in pointers_of(k)):
        of = [k for k in kernels if any(n == name for n, _ in pointers_of(k))]
        suffixes = ("_stride", "_size", "_dtype")
        if name in INPUT_RANKS:
            ranks = ("b", "g" if name != "Q" else "h", *INPUT_RANKS[name])
            yield Tensor(name, names.field(name, *suffixes), "input", _sizes(ranks, rank), ("",))
        elif name in captured:
            decl = program.tensor(name)
            earlier = program.einsum(name)
            ranks = ("b", "h", *(earlier.ranks if earlier is not None else ()))
            ranks = ranks if decl is None else decl.ranks
            found = tuple(dict.fromkeys(d for k in of for n, d, _ in k.special.tensors if n == name))
            yield Tensor(name, names.field(name, *suffixes), "captured", _sizes(ranks, rank), found)
        else:
            einsum = program.einsum(name)
            ranks = ("b", "h", *einsum.ranks) if einsum is not None else ("b", "h", _row(kernels))
            exact = {name in k.special.exact for k in of}
            features = einsum is not None and einsum.ranks == (_row(kernels), "e")
            dtypes = ("",) if features and exact == {False} else ("float32",)
            fill = None if einsum is None else unvisited(einsum)
            sizes = _sizes(ranks, rank)
            yield Tensor(name, names.field(name, *suffixes), "output", sizes, dtypes, fill)


def _row(kernels: tuple[Kernel, ...]) -> str:
    return "k" if kernels[0].rows == "k" else "q"


def _sizes(ranks: tuple[str, ...], rank: int) -> tuple[str, ...]:
    """The extents of axes, "" where nothing tells them."""
    if len(ranks) != rank:  # a result of an earlier step, in the form that this one reads it in
        return ("",) * rank
    return tuple(SIZES.get(r, "") for r in ranks)


def _numbers(
    manifest: Manifest, program: Program, kernels: tuple[Kernel, ...], names: Names
) -> Iterator[Number]:
    bound = manifest.values
    for name, kind in dict.fromkeys(_params(program, kernels)):
        decl = program.param(name)
        initial = bound.get(name, None if decl is None else decl.default)
        role = "const" if any(name in dict(k.special.consts) for k in kernels) else "param"
        yield Number(name, name, names.field(name), kind, role, 0 if initial is None else initial)
    ranks = dict.fromkeys(r for k in kernels for r, _ in k.special.extents if r not in EXTENTS)
    for rank in ranks:
        extents = {dict(k.special.extents).get(rank, 0) for k in kernels}
        field = names.field(f"extent_{rank}")
        initial = extents.pop() if len(extents) == 1 else 0
        yield Number(f"extent:{rank}", rank, field, Kind.INT, "extent", initial)


def _params(program: Program, kernels: tuple[Kernel, ...]) -> Iterator[tuple[str, Kind]]:
    """The parameters that kernels read, or that choose one of them, with their kinds."""
    known = {p.name: p.kind for p in program.params}
    read: dict[str, Kind] = {}
    for kernel in kernels:
        for name, number in kernel.special.consts:
            read.setdefault(name, known.get(name, _kind_of(number)))
        for arg in kernel.args:
            if arg.role == "param":
                read.setdefault(arg.of, Kind(arg.dtype))
        if kernel.layout is not None:
            for name in kernel.layout.int_params:
                read.setdefault(name, known.get(name, Kind.INT))
            for name in kernel.layout.float_params:
                read.setdefault(name, Kind.FLOAT)
    for axis in program.grid:  # a launch of boxes counts tiles by them, whether or not the kernel reads them
        read.setdefault(f"size_{axis}", Kind.INT)
    yield from read.items()


def _kind_of(number: float | bool) -> Kind:
    return Kind.BOOL if isinstance(number, bool) else Kind.INT if isinstance(number, int) else Kind.FLOAT
