"""Print the kernels of a family as a table of C: what each is for, what it counts on, and what it takes.

Kernel causal/sm_90/bf16-d64   ->   {.name = "sm_90/bf16-d64/one_pass-0", .device = ATTNGEN_CUDA, .fixed = {...}, ...}

Lists that several kernels share are printed once.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from math import isinf, isnan, prod

from attngen.aot.c_names import identifier, string
from attngen.aot.list_families import Family
from attngen.aot.number_arguments import (
    COMMON_INTS,
    Slots,
    dtype_key,
    gpu_slot,
    passed_on_cpu,
)
from attngen.artefact.manifest import ALIGNMENTS, Kernel, Manifest
from attngen.emit.cpp_names import MAX_POSITION
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.target import CUDA_ARCHS, HIP_ARCHS
from attngen.emit.triton.names import Arg
from attngen.errors import InternalError
from attngen.lang.ops import Kind

PREFIX = "ATTNGEN_"  # of what the headers of all artefacts share
DTYPES = ("float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
_WIDTH = 100
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|\d+|[-+*/()<>?:,])")
# What is best comes first: of CPUs the most instructions, of GPUs what is nearest to the device.
_RANK = {
    arch: i for i, arch in enumerate(("cpu-avx512", "cpu-avx2", "cpu", *reversed(CUDA_ARCHS), *HIP_ARCHS))
}


def constant(name: str) -> str:
    """The enumerator of the header that has this name."""
    return f"{PREFIX}{name.upper()}"


def dtype_constant(name: str) -> str:
    """The enumerator of an element type."""
    if name not in DTYPES:
        raise InternalError(f"{name} has no name in C")
    return constant(name)


class Tables:
    """The tables of one family, as they are printed; `lists` and `grids` are what the variants refer to."""

    def __init__(self, manifest: Manifest, family: Family, slots: Slots) -> None:
        self._manifest, self._family, self._slots = manifest, family, slots
        self._known: dict[tuple[str, tuple[str, ...]], str] = {}
        self._grids: dict[tuple[str, str, str], str] = {}
        self.lists: list[str] = []
        self.grids: list[dict[str, str]] = []
        kernels = sorted(
            family.kernels,
            key=lambda k: (_RANK[k.target.arch], k.packed == 0, ALIGNMENTS.index(k.alignment), k.name),
        )
        self.variants = [_initialiser(self._variant(k)) for k in kernels]

    def _variant(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        """The fields of a kernel's row that are not zero."""
        slots = self._slots
        yield "name", string(kernel.name)
        yield "file", string(kernel.files["binary"])
        yield "symbol", string(identifier(kernel.entry))
        yield "device", constant(kernel.target.kind)
        yield "arch", string(kernel.target.arch)
        if kernel.target.kind == "cuda":
            yield "capability", kernel.target.arch.removeprefix("sm_")
        if kernel.needs:
            words = textwrap.wrap(" ".join(kernel.needs), 72, drop_whitespace=False)
            yield "needs", "\n            ".join(map(string, words))
        yield "fixed", self._list("fixed", "fixed", [f"{{{a}, {w}, {v}}}" for a, w, v in self._fixed(kernel)])
        reals = [f"{{{a}, {v}}}" for a, v in self._fixed_reals(kernel)]
        yield "fixed_reals", self._list("fixed_real", "fixed_reals", reals)
        if any(n.key == "scale" for n in self._family.numbers):
            yield "scale_sign", "1" if kernel.special.scale_positive else "-1"
        yield "packed", str(kernel.packed)
        boxes = kernel.special.boxes
        yield "whole_planes", str(int(boxes is not None and not boxes.cut and bool(self._grid_axes())))
        yield "positive", self._list("short", "positive", [slots.whole(name) for name in kernel.divisors])
        yield "block_q", str(kernel.config.block_q)
        yield "block_k", str(kernel.config.block_k)
        if boxes is not None:
            yield "block_q", str(boxes.volume("q"))
            yield "block_k", str(boxes.volume("k"))
        yield "grid", self._grid(kernel)
        yield from self._on_cpu(kernel) if kernel.layout is not None else self._on_gpu(kernel)

    def _on_cpu(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        layout = kernel.layout
        assert layout is not None
        passed = passed_on_cpu(kernel, self._slots)
        yield "pointers", self._list("short", "pointers", passed.pointers)
        yield "ints", self._list("short", "ints", passed.ints)
        yield "reals", self._list("short", "reals", passed.reals)
        yield "takes_lists", str(int(layout.lists))
        yield "takes_order", str(int(layout.order))
        yield "max_keys", str(layout.max_keys)
        threads = kernel.config.threads if isinstance(kernel.config, CpuConfig) else 0
        yield "threads", str(threads)

    def _on_gpu(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        slots = self._slots
        ones, aligned = set(kernel.ones), set(kernel.aligned)
        strides = [a for a in kernel.args if a.role == "stride"]
        pointers = [a for a in kernel.args if a.role == "pointer" and a.name in aligned]

        def places(what: str, args: Sequence[Arg]) -> tuple[str, str]:
            return what, self._list("short", what, [gpu_slot(a, slots)[1] for a in args])

        yield places("aligned", pointers)
        yield places("whole", [a for a in strides if a.name in aligned])
        yield places("ones", [a for a in strides if a.name in ones])
        yield places("narrow", [a for a in strides if a.name not in ones and a.nbytes == 4])
        passed = (gpu_slot(a, slots) for a in kernel.args if a.name not in ones)
        yield "params", self._list("param", "params", [f"{{{how}, {at}}}" for how, at in passed])
        roles = {a.role for a in kernel.args}
        yield "takes_lists", str(int("list_pointer" in roles))
        yield "takes_order", str(int("order_pointer" in roles))
        yield "max_keys", str(MAX_POSITION)
        yield "threads", str(kernel.launch.threads)
        yield "shared", str(kernel.launch.shared)
        yield "scratch", str(kernel.launch.scratch)

    def _fixed(self, kernel: Kernel) -> Iterator[tuple[str, int, str]]:
        """Whole numbers of a call that must be what the kernel was built for, with how far off it is if not."""
        special, slots = kernel.special, self._slots
        yield slots.whole(":dtype"), 4, dtype_constant(special.dtype)
        yield slots.whole(":head_dim"), 2, str(special.head_dim)
        yield slots.whole(":value_dim"), 2, str(special.value_dim)
        for name, dtype, _ in special.tensors:
            if slots.has_whole(dtype_key(name)):
                yield slots.whole(dtype_key(name)), 3, dtype_constant(dtype)
        for name, number in special.consts:
            if not isinstance(number, float):
                yield slots.whole(name), 1, str(int(number))
        for rank, extent in special.extents:
            if slots.has_whole(f"extent:{rank}"):
                yield slots.whole(f"extent:{rank}"), 1, str(extent)
        for at, value in self._as_built(kernel):
            yield at, 1, str(value)

    def _fixed_reals(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        for name, number in kernel.special.consts:
            if isinstance(number, float):
                yield self._slots.real(name), real(number)

    def _as_built(self, kernel: Kernel) -> Iterator[tuple[str, int]]:
        """The values of a kernel that counts on windows of its own grid: those it was built for, and no others.

        Where the grid of a call is not known when a kernel is built, it counts on nothing that values decide.
        """
        boxes, values = kernel.special.boxes, self._manifest.values
        sizes = [values.get(name) for name in self._grid_axes()]
        if boxes is None or not boxes.tight or not sizes or None in sizes:
            return
        tokens = prod(int(n) for n in sizes if n is not None)
        yield "int_n_q", tokens
        yield "int_n_k", tokens
        for number in self._family.numbers:
            if number.kind is not Kind.FLOAT and number.role == "param":
                yield self._slots.whole(number.key), int(number.initial)

    def _grid_axes(self) -> list[str]:
        return [f"size_{axis}" for axis in self._manifest.program.get("grid", ())]

    def _list(self, kind: str, what: str, items: Sequence[str]) -> str:
        """A list as a variant refers to it; nothing for an empty one. The first that has it names it."""
        if not items:
            return "0"
        key = (kind, tuple(items))
        if key not in self._known:
            name = f"{self._family.prefix}_{what}_{len(self._known)}"
            self._known[key] = name
            text = textwrap.fill(
                ", ".join(items),
                _WIDTH,
                initial_indent="    ",
                subsequent_indent="    ",
                break_long_words=False,
            )
            self.lists.append(f"static const {kind} {name}[] = {{\n{text},\n}};")
        return f"ALL_OF({self._known[key]})"

    def _grid(self, kernel: Kernel) -> str:
        key = (kernel.launch.tiles, kernel.launch.key_tiles, kernel.launch.programs)
        if key not in self._grids:
            name = f"{self._family.prefix}_grid_{len(self._grids)}"
            self._grids[key] = name
            tiles, key_tiles, programs = (self._formula(text) for text in key)
            extents = sorted({w for t in key for w in re.findall(r"[A-Za-z_]\w*", t)} & set(COMMON_INTS))
            self.grids.append(
                {
                    "name": name,
                    "extents": "\n".join(f"    const int64_t {n} = c->ints[int_{n}];" for n in extents),
                    "tiles": _wrapped("n->tiles = ", tiles),
                    "key_tiles": _wrapped("n->key_tiles = ", key_tiles),
                    "programs": _wrapped("n->programs = ", programs),
                    "unused": "" if "multiprocessors" in programs else "    (void)multiprocessors;",
                }
            )
        return self._grids[key]

    def _formula(self, text: str) -> str:
        """A formula of the manifest in the terms of the launcher. Raises InternalError for what is none."""
        out: list[str] = []
        at = 0
        text = text.strip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise InternalError(f"{text!r} is no formula of a launch")
            token, at = found[1], found.end()
            if token[0].isalpha() or token[0] == "_":
                token = self._name(token)
            out.append(token)
        return re.sub(r"\( | (?=[),])|(?<=ceil_div) ", lambda m: m[0].strip(), " ".join(out))

    def _name(self, name: str) -> str:
        if name in ("ceil_div", "multiprocessors") or name in COMMON_INTS:
            return name
        return f"c->ints[{self._slots.whole(name)}]"


def _wrapped(before: str, text: str) -> str:
    return textwrap.fill(
        f"{before}{text};", _WIDTH, initial_indent="    ", subsequent_indent="        ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _initialiser(fields: Iterator[tuple[str, str]]) -> str:
    """The row of a variant: what is zero is left out."""
    rows = {name: text for name, text in fields if text != "0"}
    return "\n".join(f"        .{name} = {text}," for name, text in rows.items())


def real(number: float) -> str:
    """A number as a C literal, exact and in decimal."""
    if isnan(number):
        return "NAN"
    if isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    return repr(float(number))


__all__ = ["DTYPES", "Tables", "constant", "dtype_constant", "real"]
