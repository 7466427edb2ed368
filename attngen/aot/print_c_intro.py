"""Print what the header of an artefact says to its readers: the program, the kernels, and how they are called."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from attngen.aot.c_names import comment, identifier
from attngen.aot.list_families import Family
from attngen.aot.print_c_tables import constant
from attngen.artefact.manifest import Kernel, Manifest
from attngen.lang.ops import Kind
from attngen.lang.program import Program

_WIDTH = 100
_WAYS = {
    "one_pass": "all keys at once",
    "local_then_merge": "a part of the keys, to be merged",
    "scan": "a chunk of keys of a scan",
    "reassociated": "products computed in the order that is cheapest",
}


def what_of(family: Family) -> str:
    """One line about a family."""
    rows = {"q": "rows are queries", "k": "rows are keys", "pair": "rows are pairs"}[family.rows]
    return f"kernel {family.step} of the form {family.form} ({_WAYS[family.form]}), whose {rows}"


def header_intro(manifest: Manifest, program: Program, families: Sequence[Family]) -> list[str]:
    """The comment at the top of the header."""
    name = manifest.name
    lines = [*_prose(manifest.title or f"The program {name}."), ""]
    lines += ["The program:", "", *_quoted(manifest.text.strip("\n")), ""]
    lines += _prose(f"It returns {', '.join(manifest.outputs)}.") if manifest.outputs else []
    lines += _bound(manifest)
    if len(families) > 1 or any(family.prefix != name for family in families):
        lines += _prose(
            f"A call of the program takes several kernels, or one of several ways of computing it: {name}.c runs "
            "each kernel by itself. What is computed between them is in the field `derivation` of manifest.json."
        )
    lines += _compiling(name, families)
    lines += _usage(name, families[0]) if families else []
    return [f" {line}" if line else "" for line in lines]


def _bound(manifest: Manifest) -> list[str]:
    lines: list[str] = []
    for tensor, bound in manifest.tensors.items():
        shape = ", ".join(map(str, bound.shape))
        lines += _prose(
            f"The captured tensor {tensor} that the program was built with lies in {bound.file}: {bound.dtype} "
            f"[{shape}], contiguous, little-endian. A call passes it like any other."
        )
    return lines


def _compiling(name: str, families: Sequence[Family]) -> list[str]:
    kinds = {kind for family in families for kind in family.kinds}
    lines = ["", "Compile and link:", "", f"    cc -std=c99 -O2 -c {name}.c", "    cc ... -ldl -lpthread"]
    lines += [""] if kinds & {"cuda", "hip"} else []
    for kind, header in (("cuda", "cuda.h"), ("hip", "hip/hip_runtime_api.h")):
        if kind in kinds:
            lines += _prose(
                f"With -D{constant('with_' + kind)}, and {header} on the include path, calls with device = "
                f"{constant(kind)} run. The driver is found when the first of them is made; nothing is linked."
            )
    if "cuda" in kinds:
        lines += _prose(
            "A call runs in the thread's current CUDA context, or in the primary one of device 0 where there is none."
        )
    return lines


def _usage(name: str, family: Family) -> list[str]:
    prefix = family.prefix
    kernel = family.kernels[0]
    special = kernel.special
    ok = constant("ok")
    lines = [
        "",
        "Usage:",
        "",
        f"    {name}_library *library;",
        f"    {prefix}_args args;",
        f'    if ({name}_open("path/of/{name}", &library) != {ok}) die({name}_error());',
        f"    {prefix}_init(&args);",
        f"    args.device = {constant(kernel.target.kind)};",
        f"    args.dtype = {constant(special.dtype)};",
        "    args.n_b = 1, args.n_h = args.n_kv = 8, args.n_q = args.n_k = 1024;",
        f"    args.head_dim = {special.head_dim}, args.value_dim = {special.value_dim};",
    ]
    for number in family.numbers:
        if number.name == "scale" and number.kind is Kind.FLOAT:
            lines.append(f"    args.{number.field} = {special.head_dim**-0.5:.6g};")
    for tensor in family.tensors:
        sizes = [size if size.startswith("n_") else "" for size in tensor.sizes[:3]]
        if tensor.role != "input" or "" in sizes:
            continue
        shape = ", ".join(f"args.{size}" for size in tensor.sizes)
        lines += [
            f"    const int64_t {tensor.field}_size[] = {{{shape}}};",
            f"    attngen_contiguous({tensor.rank}, {tensor.field}_size, args.{tensor.field}_stride);",
            f"    args.{tensor.field} = {tensor.field.lower()};",
        ]
    lines += [
        "    ...",
        f"    if ({prefix}_run(library, &args) != {ok}) die({name}_error());",
        f"    {name}_close(library);",
    ]
    return lines


def family_intro(manifest: Manifest, family: Family) -> list[str]:
    """The comment above a family's struct."""
    lines: list[str] = []
    outputs = ", ".join(t.name for t in family.tensors if t.role == "output")
    lines += _prose(
        f"Writes {outputs}. Strides count elements and may be anything, 0 included, that kernels take."
    )
    if family.rows == "k":
        lines += _prose("Its outputs have a row for each key.")
    if family.lists or family.order:
        lines += _prose(
            f"Some of its kernels take lists of tiles, or an order of their rows of work: {family.prefix}_choose tells "
            "which kernel runs a call, and the tiles that they are made for."
        )
    lines += ["", "Kernels:", ""]
    lines += [f"    {comment(kernel.name)}" for kernel in family.kernels]
    facts = dict.fromkeys(fact for kernel in family.kernels for fact in _facts(kernel))
    if facts:
        lines += ["", "Of these, on GPUs:", ""]
        for fact in facts:
            lines += [f"    {line}" for line in _prose(fact)]
        lines += _prose(
            "A call that is otherwise takes a kernel that counts on less, or is refused if there is none."
        )
    return [f" {line}" if line else "" for line in lines]


def _facts(kernel: Kernel) -> Iterable[str]:
    if kernel.alignment == "none":
        return
    of = {a.name: a for a in kernel.args}
    pointers = [of[n].of for n in kernel.aligned if of[n].role == "pointer"]
    strides = [f"{of[n].of}_stride[{of[n].axis}]" for n in kernel.aligned if of[n].role == "stride"]
    ones = [f"{of[n].of}_stride[{of[n].axis}]" for n in kernel.ones]
    text = f"those of alignment `{kernel.alignment}` count on addresses of {', '.join(pointers)} that are multiples of"
    text += f" 16 bytes; on multiples of 16 elements as {', '.join(strides)}" if strides else " 16 bytes"
    yield f"{text}; on 1 as {', '.join(ones)}." if ones else f"{text}."


def direct_entries(family: Family) -> list[dict[str, list[str]]]:
    """The functions of CPU kernels, by what they take."""
    by_layout: dict[tuple[tuple[str, ...], ...], list[Kernel]] = {}
    for kernel in family.kernels:
        if kernel.layout is not None:
            key = (kernel.layout.pointers, kernel.layout.ints, kernel.layout.floats)
            by_layout.setdefault(key, []).append(kernel)
    out: list[dict[str, list[str]]] = []
    for (pointers, ints, reals), kernels in by_layout.items():
        lines: list[str] = []
        for what, names in (("pointers", pointers), ("ints", ints), ("reals", reals)):
            lines += textwrap.wrap(
                comment(f"{what:9} {', '.join(names) or 'none'}"), _WIDTH, subsequent_indent=" " * 10
            )
        blocks = sorted({(k.config.block_q, k.config.block_k) for k in kernels})
        tiles = " or ".join(f"{q} queries x {k} keys" for q, k in blocks)
        lines += _prose(
            f"Tiles, for lists and orders, are {tiles}; files are kernel.so in the folders named above."
        )
        out.append({"intro": [f" {line}" for line in lines], "names": [identifier(k.entry) for k in kernels]})
    return out


def _prose(text: str) -> list[str]:
    return textwrap.wrap(comment(text), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _quoted(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in comment(text).splitlines()]
