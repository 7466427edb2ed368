"""Names of a program as C++ identifiers, and the order in which a call passes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attngen.emit.spec import KernelSpec
from attngen.lang.ops import Kind
from attngen.value import value

if TYPE_CHECKING:  # a process that only reopens cached kernels needs none of these
    from attngen.emit.tile import TileProgram

ENTRY = "attngen_kernel"
# Launches refuse longer axes, so that sums and differences of a few positions provably fit 32-bit lanes.
MAX_POSITION = 2**27
# A kernel that selects keys counts them in fp32, which holds every whole number up to this one.
MAX_COUNTED = 2**24

LISTS = ("partial_ptr", "partial_index", "full_ptr", "full_index")
SIZES = ("n_b", "n_h", "n_kv", "n_q", "n_k", "threads")
LIST_SIZES = ("list_b", "list_h", "list_q")
ORDER = "order"

KEYWORDS = (
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class "
    "compl const const_cast constexpr continue decltype default delete do double dynamic_cast else enum "
    "errno explicit export extern false float for friend goto if inline int linux long main mutable "
    "namespace new noexcept not not_eq nullptr operator or or_eq private protected public register "
    "reinterpret_cast return short signed sizeof static static_assert static_cast struct switch template "
    "this thread_local throw true try typedef typeid typename union unix unsigned using virtual void "
    "volatile wchar_t while xor xor_eq"
)

# What the templates declare where program names are in scope.
_OURS = (
    "ALL AXES Args BOX_K BOX_Q Box BLOCK_K BLOCK_Q HEAD_DIM KEYS Keys LANES MASKED N NONE PAGE_FLOATS "
    "PANEL Panel Run SOME "
    "Seen Tensor VALUE_DIM VECTORS Workspace absorb acc aligned_alloc any args b base begin_panel "
    "bfloat16 bfloat16_to_float bits_to_float block_k circular clamp convert_row converted count data dot_pv "
    "dot_pv_group dot_qk e element end every failed finish_panel first float16 float16_to_float "
    "float_to_bits floats floor_div floor_div_float floor_mod floor_mod_float free full_tile gather "
    "gather_float h i index int16_t int32_t int64_t int8_t int_abs int_pow ints j k keep key_runs keys l "
    "at_most differ equal lane lane_index larger less list_keys list_seen load load_lanes load_queries low_half "
    "Left Right mask_of n n_panels n_seen narrow p pad panel partial_panel partial_tile point_rows pointers "
    "q q_hi q_lo queries "
    "query_tile quotient read_args round_bfloat16 round_float16 round_to row rows run runs see seen "
    "shift_left shift_right size smaller some splat start store store_element store_row_values store_rows "
    "stride t task tile to_float truncate uint16_t uint32_t uint64_t uint8_t v vabs vceil vcos vd vectors "
    "verf vexp vexp2 vf vf_at vfinite vfloor vh vh_at vi vi_at vl vlog vlog2 vmax vmin vpow vround "
    "CAPACITY ORIGIN at box end extent index key_box key_space key_tiles list_tokens listed load_panels low point_keys "
    "queries query query_box query_tiles run space stride tiles token which "
    "add_to_bins closes columns d features g GROUP insert_top kept load_rows store_column where width "
    "vsigmoid vsign vsin vsqrt vtanh vu widen workspace_bytes ws"
)

# Macros of <stdint.h> and <stdlib.h>, which know no scope.
_MACROS = (
    "BIG_ENDIAN BYTE_ORDER EXIT_FAILURE EXIT_SUCCESS FD_CLR FD_ISSET FD_SET FD_SETSIZE FD_ZERO LITTLE_ENDIAN "
    "MB_CUR_MAX NFDBITS NULL PDP_ENDIAN RAND_MAX WCONTINUED WEXITED WEXITSTATUS WIFCONTINUED WIFEXITED WIFSIGNALED "
    "WIFSTOPPED WNOHANG WNOWAIT WSTOPPED WSTOPSIG WTERMSIG WUNTRACED alloca be16toh be32toh be64toh htobe16 htobe32 "
    "htobe64 htole16 htole32 htole64 le16toh le32toh le64toh offsetof"
)
_WIDTHS = ("8", "16", "32", "64")
_MACRO_TYPES = (
    *(
        f"{sign}INT{kind}{width}"
        for sign in ("", "U")
        for kind in ("", "_FAST", "_LEAST")
        for width in _WIDTHS
    ),
    *("INTMAX", "UINTMAX", "INTPTR", "UINTPTR", "PTRDIFF", "SIG_ATOMIC", "SIZE", "WCHAR", "WINT"),
)
_MACRO_LIMITS = tuple(f"{name}_{of}" for name in _MACRO_TYPES for of in ("MIN", "MAX", "WIDTH", "C"))

RESERVED: frozenset[str] = frozenset(
    (*KEYWORDS.split(), *_OURS.split(), *_MACROS.split(), *_MACRO_LIMITS, *LISTS, *SIZES, *LIST_SIZES)
)


def identifiers(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A C++ identifier for every name: the name itself, or with `_` behind it where something else has it.

    Taken are C++'s own words, what the templates declare, and `taken`.
    """
    wanted = list(dict.fromkeys(names))
    out: dict[str, str] = {}
    taken = {*RESERVED, *taken}
    for name in wanted:
        free = name
        while free in taken or (free != name and free in wanted) or "__" in free or free.startswith("_"):
            free = f"{free.strip('_').replace('__', '_')}_" if free == name else f"{free}x_"
        out[name] = free
        taken.add(free)
    return out


@value
class ArgLayout:
    """The arguments of a kernel's entry in the order they are passed, by name.

    `inputs` are those of Q, K and V that the kernel reads. `tensors` maps a tensor's name to its rank; sizes are
    passed for captured tensors only. `max_keys` is the longest axis of keys that the kernel is right for.
    """

    inputs: tuple[str, ...]
    pointers: tuple[str, ...]
    ints: tuple[str, ...]
    floats: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    tensors: tuple[tuple[str, int], ...]
    int_params: tuple[str, ...]
    float_params: tuple[str, ...]
    lists: bool
    order: bool
    max_keys: int


def layout_from_json(data: Mapping[str, Any]) -> ArgLayout:
    """The layout that went through JSON, where tuples become lists."""

    def pairs(name: str) -> tuple[tuple[str, int], ...]:
        return tuple((str(n), int(rank)) for n, rank in data[name])

    return ArgLayout(
        inputs=tuple(data["inputs"]),
        pointers=tuple(data["pointers"]),
        ints=tuple(data["ints"]),
        floats=tuple(data["floats"]),
        outputs=pairs("outputs"),
        tensors=pairs("tensors"),
        int_params=tuple(data["int_params"]),
        float_params=tuple(data["float_params"]),
        lists=bool(data["lists"]),
        order=bool(data["order"]),
        max_keys=int(data["max_keys"]),
    )


def arg_layout(spec: KernelSpec) -> ArgLayout:
    """How a kernel of this specification is called; printing and launching both follow it."""
    outputs = tuple((o.name, 3 if o.space == "row" else 4) for o in spec.tile.outputs)
    tensors = tuple((t.name, t.rank) for t in spec.tensors)
    int_params = tuple(name for name, kind in spec.params if kind is not Kind.FLOAT)
    float_params = tuple(name for name, kind in spec.params if kind is Kind.FLOAT)
    lists = spec.plan.form == "lists"
    strided = (*((name, 4) for name in spec.inputs), *outputs)
    ints = [*SIZES]
    ints += [f"{name}.stride[{i}]" for name, rank in strided for i in range(rank)]
    for name, rank in tensors:
        ints += [f"{name}.size[{i}]" for i in range(rank)] + [f"{name}.stride[{i}]" for i in range(rank)]
    ints += [*int_params, *(LIST_SIZES if lists else ())]
    pointers = [name for name, _ in (*strided, *tensors)]
    return ArgLayout(
        inputs=spec.inputs,
        pointers=(*pointers, *(LISTS if lists else ()), *((ORDER,) if spec.ordered else ())),
        ints=tuple(ints),
        floats=float_params,
        outputs=outputs,
        tensors=tensors,
        int_params=int_params,
        float_params=float_params,
        lists=lists,
        order=spec.ordered,
        max_keys=MAX_COUNTED if _selects_keys(spec.tile) else MAX_POSITION,
    )


def _selects_keys(tile: TileProgram) -> bool:
    """Whether the kernel gives numbers of keys: those of the largest values, or of the largest one."""
    from attngen.emit.tile import AccTopK, TileLet
    from attngen.lang.expr import Apply, Const, Var

    for step in tile.steps:
        match step:
            case AccTopK():
                return True
            case TileLet(_, Apply("where", (_, Apply("float", (Var("k", None),)), Const(rest)))):
                if rest == float("inf"):  # the keys that reach the largest value, for the smallest of them
                    return True
            case _:
                pass
    return False


ELEMENT_TYPES: Mapping[str, str] = {
    "float32": "float",
    "float64": "double",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "int64": "int64_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
}

INT_BOUNDS: Mapping[str, tuple[int, int]] = {
    "int64": (-(2**63), 2**63 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint8": (0, 2**8 - 1),
    "bool": (0, 1),
}
