"""Number everything that kernels of a family may take, so that each kernel's arguments are a list of numbers.

Family `causal`   ->  pointers  partial_ptr, ..., order, Q, K, V, O, LSE
                      ints      n_b, n_h, ..., list_stride_h, Q.stride[0], ..., window
                      reals     scale

The first pointers and ints are those of every family. Each has a key, by which kernels name it, an enumerator in C,
and what messages call it.
"""

from __future__ import annotations

from attngen.aot.c_names import Names
from attngen.aot.list_families import Family, Tensor
from attngen.artefact.manifest import Kernel
from attngen.emit.cpp_names import LIST_SIZES, LISTS, ORDER, SIZES
from attngen.emit.triton.names import Arg
from attngen.errors import InternalError
from attngen.lang.ops import Kind
from attngen.value import value

COMMON_POINTERS = (*LISTS, ORDER)
COMMON_INTS = (
    "n_b", "n_h", "n_kv", "n_q", "n_k", "group", "head_dim", "value_dim", "dtype", "threads", *LIST_SIZES,
    "list_stride_b", "list_stride_h",
)  # fmt: skip
_LISTS_OF_GPUS = {"partial_lists": "partial_ptr", "full_lists": "full_ptr"}


@value
class Slot:
    """One thing that kernels may take."""

    key: str
    enumerator: str
    label: str


@value
class Slots:
    """What the kernels of a family may take, beyond what kernels of every family may."""

    pointers: tuple[Slot, ...]
    ints: tuple[Slot, ...]
    reals: tuple[Slot, ...]

    def pointer(self, key: str) -> str:
        """The enumerator of an address."""
        return _find(self.pointers, key, COMMON_POINTERS, "ptr")

    def whole(self, key: str) -> str:
        """The enumerator of a whole number."""
        return _find(self.ints, key, COMMON_INTS, "int")

    def real(self, key: str) -> str:
        """The enumerator of a real number."""
        return _find(self.reals, key, (), "real")

    def has_whole(self, key: str) -> bool:
        """Whether a key names a whole number of the family."""
        return any(slot.key == key for slot in self.ints)


def _find(slots: tuple[Slot, ...], key: str, common: tuple[str, ...], stem: str) -> str:
    if key.startswith(":"):  # no name of a program begins so
        assert key[1:] in common
        return f"{stem}_{key[1:]}"
    for slot in slots:
        if slot.key == key:
            return slot.enumerator
    raise InternalError(f"a kernel takes {key}, which its family does not know")


def stride_key(name: str, axis: int) -> str:
    """The key of a stride; a parameter's is its name, which has no brackets."""
    return f"{name}.stride[{axis}]"


def size_key(name: str, axis: int) -> str:
    """The key of an axis of a captured tensor."""
    return f"{name}.size[{axis}]"


def dtype_key(name: str) -> str:
    """The key of the element type of a captured tensor that kernels take in several."""
    return f"{name}.dtype"


def number_arguments(family: Family, names: Names) -> Slots:
    """The slots of a family; `names` hands out the enumerators of all of them."""
    pointers: list[Slot] = []
    ints: list[Slot] = []
    reals: list[Slot] = []

    def add(slots: list[Slot], stem: str, key: str, field: str, label: str) -> None:
        slots.append(Slot(key, names.field(f"{stem}_{family.prefix}_{field}"), label))

    for t in family.tensors:
        add(pointers, "ptr", t.name, t.field, t.name)
        for i in range(t.rank):
            add(ints, "int", stride_key(t.name, i), f"{t.field}_stride_{i}", f"stride {i} of {t.name}")
        for i in range(t.rank if t.role == "captured" else 0):
            add(ints, "int", size_key(t.name, i), f"{t.field}_size_{i}", f"axis {i} of {t.name}")
        if _varies(t):
            add(ints, "int", dtype_key(t.name), f"{t.field}_dtype", f"dtype of {t.name}")
    for number in family.numbers:
        if number.kind is Kind.FLOAT:
            add(reals, "real", number.key, number.field, number.name)
        else:
            label = f"extent of {number.name.removeprefix('extent:')}" if number.role == "extent" else number.name
            add(ints, "int", number.key, number.field, label)
    return Slots(tuple(pointers), tuple(ints), tuple(reals))


def _varies(tensor: Tensor) -> bool:
    return tensor.role == "captured" and len(tensor.dtypes) > 1


@value
class Passed:
    """What a kernel of a CPU takes, in order, as enumerators."""

    pointers: tuple[str, ...]
    ints: tuple[str, ...]
    reals: tuple[str, ...]


def passed_on_cpu(kernel: Kernel, slots: Slots) -> Passed:
    """The arguments of a CPU's kernel. A name says what it is by its place: a parameter may be called `threads`."""
    layout = kernel.layout
    assert layout is not None
    tensors = len(layout.inputs) + len(layout.outputs) + len(layout.tensors)
    pointers = [slots.pointer(n if i < tensors else f":{n}") for i, n in enumerate(layout.pointers)]
    listed = len(layout.ints) - (len(LIST_SIZES) if layout.lists else 0)
    ints = [slots.whole(f":{n}" if i < len(SIZES) or i >= listed else n) for i, n in enumerate(layout.ints)]
    return Passed(tuple(pointers), tuple(ints), tuple(slots.real(n) for n in layout.floats))


def gpu_slot(arg: Arg, slots: Slots) -> tuple[str, str]:
    """How an argument of a GPU's kernel is passed, and the enumerator of what."""
    match arg.role:
        case "pointer":
            return "AS_POINTER", slots.pointer(arg.of)
        case "list_pointer":
            return "AS_POINTER", slots.pointer(f":{_LISTS_OF_GPUS.get(arg.of, arg.of)}")
        case "order_pointer":
            return "AS_POINTER", slots.pointer(f":{ORDER}")
        case "stride":
            return ("AS_INT64" if arg.nbytes == 8 else "AS_INT32"), slots.whole(stride_key(arg.of, arg.axis))
        case "size":
            return "AS_INT32", slots.whole(size_key(arg.of, arg.axis))
        case "extent":
            return "AS_INT32", slots.whole(f":{arg.of}")
        case "list_stride":
            return "AS_INT32", slots.whole(f":list_stride_{arg.of}")
        case "param":
            if arg.dtype == "float":
                return "AS_FLOAT", slots.real(arg.of)
            return ("AS_BOOL" if arg.dtype == "bool" else "AS_INT32"), slots.whole(arg.of)
