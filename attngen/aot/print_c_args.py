"""Print the arguments of a family in C: the struct that a caller fills, and how it becomes a call by number.

Tensor doc[b, k]: int64   ->   const int64_t *doc;  int64_t doc_size[2];  int64_t doc_stride[2];
                               put(c, ptr_documents_doc, args->doc, int_documents_doc_stride_0, args->doc_stride, ...);
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from attngen.aot.c_names import comment
from attngen.aot.list_families import SIZES, Family, Number, Tensor
from attngen.aot.number_arguments import Slots, dtype_key, size_key, stride_key
from attngen.aot.print_c_tables import constant, dtype_constant, real
from attngen.emit.cpp_names import LIST_SIZES, LISTS, ORDER
from attngen.lang.expr import Var, loads
from attngen.lang.ops import Kind
from attngen.lang.program import Program

_TYPES = {
    "float32": "float", "float64": "double", "int64": "int64_t", "int32": "int32_t", "int16": "int16_t",
    "int8": "int8_t", "uint8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip
_KINDS = {Kind.INT: "int64_t", Kind.BOOL: "int", Kind.FLOAT: "double"}
_WIDTH = 110


def fields(family: Family) -> list[str]:
    """The members of the struct, with what each is."""
    out: list[str] = []
    for text, about in _fields(family):
        line = f"{text} /* {comment(about)} */" if about else text
        if len(line) <= _WIDTH:
            out.append(line)
        else:
            wrapped = textwrap.wrap(comment(about), _WIDTH - 10)
            out += ["/* " + "\n     * ".join(wrapped) + " */", text]
    return [part for line in out for part in line.replace("\n     * ", "\n * ").split("\n")]


def _fields(family: Family) -> Iterator[tuple[str, str]]:
    yield "attngen_device device;", "where the tensors lie"
    named = [t.name for t in family.tensors if t.dtypes == ("",)]
    yield "attngen_dtype dtype;", f"of {', '.join(named)}" if named else "that the kernel was built for"
    yield "int64_t n_b, n_h, n_kv;", "batch entries, heads of queries, heads of keys and values"
    yield "int64_t n_q, n_k;", "queries, keys"
    yield "int64_t head_dim, value_dim;", "features of queries and keys, features of values"
    for tensor in family.tensors:
        yield from _tensor_fields(tensor)
    for number in family.numbers:
        yield f"{_KINDS[number.kind]} {number.field};", _about(number)
    if family.lists:
        yield (
            f"const int32_t *{', *'.join(LISTS)};",
            "tiles of keys of each row (b, h, tile of queries): partial_index[partial_ptr[row]] up to "
            "partial_index[partial_ptr[row + 1]] need the mask, the full ones none"
            + ("; all NULL on a CPU: every tile is visited" if "cpu" in family.kinds else ""),
        )
        yield f"int64_t {', '.join(LIST_SIZES)};", "rows of the lists: 1 or n_b, 1 or n_h, tiles of queries"
    if family.order:
        yield (
            f"const int32_t *{ORDER};",
            "rows of work (b * n_h + h) * tiles + tile as they are to be launched, those with the most work first"
            + ("; NULL on a CPU: as they come" if "cpu" in family.kinds else ""),
        )
    if "cpu" in family.kinds:
        yield "int threads;", "on a CPU; 0: as many as the kernel was tuned for, or as there are processors"
    if set(family.kinds) & {"cuda", "hip"}:
        yield "void *stream;", "on a GPU, CUstream or hipStream_t; NULL is the default stream"


def _tensor_fields(tensor: Tensor) -> Iterator[tuple[str, str]]:
    shape = ", ".join(size or "..." for size in tensor.sizes)
    const = "" if tensor.role == "output" else "const "
    (dtype, *more) = tensor.dtypes
    kind = "void" if more else _TYPES.get(dtype, "void")
    about = f"[{shape}]"
    if tensor.role == "captured":
        about = f"captured; {about}" if tensor.rank else "captured; one number"
    if dtype == "bool" and not more:
        about += ", 0 or 1"
    elif kind == "void" and dtype and not more:
        about += f", {dtype}"
    if tensor.fill is not None:
        about += f"; every element must be {tensor.fill} before the call"
    yield f"{const}{kind} *{tensor.field};", about
    if more:
        yield f"attngen_dtype {tensor.field}_dtype;", f"one of {', '.join(tensor.dtypes)}"
    if tensor.role == "captured" and tensor.rank:
        yield f"int64_t {tensor.field}_size[{tensor.rank}];", ""
    if tensor.rank:
        yield f"int64_t {tensor.field}_stride[{tensor.rank}];", "in elements"


def _about(number: Number) -> str:
    match number.role:
        case "const":
            return "chooses the kernel"
        case "extent":
            return f"elements along the rank {number.name.removeprefix('extent:')}; chooses the kernel"
        case "param":
            return "usually 1 / sqrt(head_dim)" if number.name == "scale" else ""


def reads(family: Family, slots: Slots) -> list[str]:
    """The statements that turn the struct into a call."""
    n_q, n_k = (f"args->{family.swapped(size)}" for size in ("n_q", "n_k"))
    lines = [
        "memset(c, 0, sizeof *c);",
        "for (int i = 0; i < MOST_INTS; ++i) c->axis[i] = -1;",
        "c->device = args->device;",
        "c->ints[int_dtype] = (int64_t)args->dtype;",
        "c->ints[int_n_b] = args->n_b;",
        "c->ints[int_n_h] = args->n_h;",
        "c->ints[int_n_kv] = args->n_kv;",
        f"c->ints[int_n_q] = {n_q};",
        f"c->ints[int_n_k] = {n_k};",
        "c->ints[int_group] = args->n_kv > 0 ? args->n_h / args->n_kv : 0;",
        "c->ints[int_head_dim] = args->head_dim;",
        "c->ints[int_value_dim] = args->value_dim;",
    ]
    for tensor in family.tensors:
        lines += _tensor_reads(tensor, slots)
    for number in family.numbers:
        if number.kind is Kind.FLOAT:
            lines.append(f"c->reals[{slots.real(number.key)}] = args->{number.field};")
        else:
            test = " != 0" if number.kind is Kind.BOOL else ""
            lines.append(f"c->ints[{slots.whole(number.key)}] = args->{number.field}{test};")
    if family.lists:
        lines += [f"c->pointers[ptr_{name}] = args->{name};" for name in LISTS]
        lines += [f"c->ints[int_{name}] = args->{name};" for name in LIST_SIZES]
        lines.append("c->ints[int_list_stride_h] = args->list_h > 1 ? args->list_q : 0;")
        lines.append("c->ints[int_list_stride_b] = args->list_b > 1 ? args->list_h * args->list_q : 0;")
    if family.order:
        lines.append(f"c->pointers[ptr_{ORDER}] = args->{ORDER};")
    if "cpu" in family.kinds:
        lines.append("c->ints[int_threads] = args->threads;")
    if set(family.kinds) & {"cuda", "hip"}:
        lines.append("c->stream = args->stream;")
    return lines


def _tensor_reads(tensor: Tensor, slots: Slots) -> Iterator[str]:
    field, pointer = f"args->{tensor.field}", slots.pointer(tensor.name)
    if not tensor.rank:
        yield f"c->pointers[{pointer}] = {field};"
    else:
        stride = slots.whole(stride_key(tensor.name, 0))
        if tensor.role == "captured":
            first = slots.whole(size_key(tensor.name, 0))
            yield f"memcpy(&c->ints[{first}], {field}_size, sizeof {field}_size);"
            sizes = f"{field}_size"
        else:
            extents = ", ".join(f"args->{size}" if size else "-1" for size in tensor.sizes)
            sizes = f"(const int64_t[]){{{extents}}}"
        yield f"put(c, {pointer}, {field}, {stride}, {field}_stride, {tensor.rank},"
        yield f"    {sizes});"
    if slots.has_whole(dtype_key(tensor.name)):
        yield f"c->ints[{slots.whole(dtype_key(tensor.name))}] = (int64_t){field}_dtype;"


def initials(family: Family) -> list[str]:
    """The statements that give fresh arguments what the program says."""
    lines: list[str] = []
    if family.kinds and family.kinds[0] != "cpu":
        lines.append(f"args->device = {constant(family.kinds[0])};")
    for number in family.numbers:
        if number.initial:
            value = real(number.initial) if number.kind is Kind.FLOAT else str(int(number.initial))
            lines.append(f"args->{number.field} = {value};")
    for tensor in family.tensors:
        if len(tensor.dtypes) > 1:
            lines.append(f"args->{tensor.field}_dtype = {dtype_constant(tensor.dtypes[0])};")
    return lines


def bounds(family: Family, program: Program, slots: Slots) -> list[str]:
    """Rows of the table of what axes of captured tensors hold: those that a rank indexes have its extent or more.

    An axis of a rank `g`, `d` or `e` has exactly its extent. Any other index is clamped by the kernel.
    """
    captured = {t.name: t for t in family.tensors if t.role == "captured"}
    rows: list[str] = []

    def add(name: str, axis: int, rank: str, exact: bool) -> None:
        size = slots.whole(size_key(name, axis))
        if rank in SIZES:
            extent = slots.whole(f":{family.swapped(SIZES[rank])}")
        elif slots.has_whole(f"extent:{rank}"):
            extent = slots.whole(f"extent:{rank}")
        else:
            return
        rows.append(f"{{{size}, {extent}, {int(exact)}}},")

    for decl in program.tensors:
        for axis, rank in enumerate(decl.ranks):
            if decl.name in captured and rank in ("g", "d", "e"):
                add(decl.name, axis, rank, exact=True)
    for name, tensor in captured.items():
        einsum = program.einsum(name)  # the result of an earlier kernel, of which each row is read
        ranks = ("b", "h", *einsum.ranks) if einsum is not None and family.form == "one_pass" else ()
        for axis, rank in enumerate(ranks if len(ranks) == tensor.rank else ()):
            add(name, axis, rank, exact=rank in ("d", "e"))
    exprs = [x for e in program.cascade for x in e.exprs]
    exprs += [program.mask] if program.mask is not None else []
    declared = captured.keys() & {t.name for t in program.tensors}
    for load in (ld for expr in exprs for ld in loads(expr) if ld.tensor in declared):
        for axis, index in enumerate(load.indices):
            if isinstance(index, Var) and index.axis is None and index.name not in ("g", "d", "e"):
                add(load.tensor, axis, index.name, exact=False)
    return list(dict.fromkeys(rows))
