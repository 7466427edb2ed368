"""Print the C interface of an artefact: a header, and a launcher that loads its kernels and chooses among them.

Manifest causal   ->   causal.h   struct causal_args, causal_open, causal_run, causal_error, causal_close
                       causal.c   a table of the kernels, and what chooses, loads and launches them

Both are plain C99. Nothing of a program or a manifest reaches them but as an identifier, a number, a string literal or
the text of a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attngen.aot.c_names import Names, comment, identifier, string
from attngen.aot.list_families import Family, list_families
from attngen.aot.number_arguments import (
    COMMON_INTS,
    COMMON_POINTERS,
    Slot,
    Slots,
    number_arguments,
    size_key,
    stride_key,
)
from attngen.aot.print_c_args import bounds, fields, initials, reads
from attngen.aot.print_c_intro import direct_entries, family_intro, header_intro, what_of
from attngen.aot.print_c_tables import DTYPES, Tables, dtype_constant
from attngen.artefact.manifest import Manifest
from attngen.emit.render import render
from attngen.emit.triton.config import MIN_BLOCK
from attngen.emit.triton.pack import WIDEST
from attngen.lang.ops import Kind
from attngen.lang.program import Program
from attngen.lang.serialize import program_from_json

_WIDTH = 100


def c_files(manifest: Manifest) -> dict[str, str]:
    """The texts of `<name>.h` and `<name>.c`; none of an artefact without kernels. Pure."""
    if not manifest.kernels:  # of a program that computes nothing from pairs
        return {}
    name = identifier(manifest.name)
    program = program_from_json(manifest.program)
    families = list_families(manifest)
    enumerators = Names(
        (*(f"ptr_{n}" for n in (*COMMON_POINTERS, "common")), *(f"int_{n}" for n in (*COMMON_INTS, "common")))
    )
    numbered = [(family, number_arguments(family, enumerators)) for family in families]
    context: dict[str, Any] = {
        "name": name,
        "version": comment(manifest.versions.get("attngen", "unknown")),
        "kinds": tuple(k for k in ("cpu", "cuda", "hip") if any(k in f.kinds for f in families)),
        "compile": f"cc -std=c99 -c {name}.c",
        "families": [_family(manifest, program, *pair) for pair in numbered],
        "dtypes": DTYPES,
        "dtype_lines": [f"{dtype_constant(d)} = {i}," for i, d in enumerate(DTYPES, 1)],
    }
    header = render("aot/header.h.jinja", intro=header_intro(manifest, program, families), **context)
    launcher = render("aot/launcher.c.jinja", **_sizes(numbered), **context)
    return {f"{name}.h": header, f"{name}.c": launcher}


def _sizes(numbered: Sequence[tuple[Family, Slots]]) -> dict[str, Any]:
    """What is common to all families of a launcher."""
    passed = [len(k.args) for family, _ in numbered for k in family.kernels]
    return {
        "common_pointers": COMMON_POINTERS,
        "common_ints": _wrapped(f"int_{n}" for n in COMMON_INTS),
        "common_names": _wrapped(string(n) for n in COMMON_INTS),
        "most_pointers": len(COMMON_POINTERS) + max((len(s.pointers) for _, s in numbered), default=0),
        "most_ints": len(COMMON_INTS) + max((len(s.ints) for _, s in numbered), default=0),
        "most_reals": max((len(s.reals) for _, s in numbered), default=0) or 1,
        "most_params": max(passed, default=0),
        "few_queries": WIDEST // 2,
        "least_rows": MIN_BLOCK,
        "most_rows": WIDEST,
    }


def _family(manifest: Manifest, program: Program, family: Family, slots: Slots) -> dict[str, Any]:
    tables = Tables(manifest, family, slots)
    bound = bounds(family, program, slots)
    tensors = [_tensor_row(family, slots, i) for i in range(len(family.tensors))]
    lists = list(tables.lists)
    grid = [slots.whole(f"size_{axis}") for axis in program.grid]
    params = [slots.whole(n.key) for n in family.numbers if n.kind is not Kind.FLOAT and n.role != "extent"]
    if bound:
        lists.append(_array(family, "bound", "bounds", bound))
    if tensors:
        lists.append(_array(family, "tensor", "tensors", tensors))
    for what, items in (("params", params), ("grid_axes", grid)):
        if items:
            lists.append(_array(family, "short", what, _wrapped(items)))
    return {
        "prefix": family.prefix,
        "what": what_of(family),
        "intro": family_intro(manifest, family),
        "fields": fields(family),
        "entries": direct_entries(family),
        "pointer_lines": _enumerators(slots.pointers, "ptr_common"),
        "int_lines": _enumerators(slots.ints, "int_common"),
        "real_lines": [f"{slot.enumerator}," for slot in slots.reals],
        "names": [
            _array(family, "char *const", f"{stem}_names", _wrapped(string(s.label) for s in named))
            for stem, named in (("pointer", slots.pointers), ("int", slots.ints), ("real", slots.reals))
            if named
        ],
        "lists": lists,
        "grids": tables.grids,
        "variants": tables.variants,
        "description": _description(family, slots, bool(bound), bool(params), bool(grid)),
        "reads": reads(family, slots),
        "initials": initials(family),
    }


def _description(family: Family, slots: Slots, bound: bool, params: bool, grid: bool) -> list[str]:
    prefix = family.prefix
    scale = next((s.enumerator for s in slots.reals if s.key == "scale"), "-1")
    lines = [
        f".name = {string(prefix)},",
        f".variants = {prefix}_variants,",
        f".n_variants = {len(family.kernels)},",
    ]
    if family.tensors:
        lines += [f".tensors = {prefix}_tensors,", f".n_tensors = {len(family.tensors)},"]
    if bound:
        lines += [
            f".bounds = {prefix}_bounds,",
            f".n_bounds = sizeof {prefix}_bounds / sizeof *{prefix}_bounds,",
        ]
    lines += [f".params = ALL_OF({prefix}_params),"] if params else []
    lines += [f".grid_axes = ALL_OF({prefix}_grid_axes),"] if grid else []
    lines += [f".n_reals = {len(slots.reals)},", f".scale = {scale},"]
    lines += [".swapped = 1,"] if family.rows == "k" else []
    for stem, named in (("pointer", slots.pointers), ("int", slots.ints), ("real", slots.reals)):
        lines += [f".{stem}_names = {prefix}_{stem}_names,"] if named else []
    return lines


def _tensor_row(family: Family, slots: Slots, i: int) -> str:
    """Where a tensor's address, strides and sizes are among the numbers."""
    tensor = family.tensors[i]
    stride = slots.whole(stride_key(tensor.name, 0)) if tensor.rank else "0"
    captured = tensor.role == "captured" and tensor.rank > 0
    size = slots.whole(size_key(tensor.name, 0)) if captured else "-1"
    keys = tensor.name in ("K", "V") or (captured and tensor.rank > 1)
    return f"{{{slots.pointer(tensor.name)}, {stride}, {size}, {tensor.rank}, {int(keys)}}},"


def _array(family: Family, kind: str, what: str, lines: Sequence[str]) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"static const {kind} {family.prefix}_{what}[] = {{\n{body}\n}};"


def _enumerators(slots: Sequence[Slot], first: str) -> list[str]:
    names = [slot.enumerator for slot in slots]
    return _wrapped([f"{names[0]} = {first}", *names[1:]]) if names else []


def _wrapped(items: Iterable[str]) -> list[str]:
    """Items with a comma behind each, in lines."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= _WIDTH:
            lines[-1] += f" {item},"
        else:
            lines.append(f"{item},")
    return lines
