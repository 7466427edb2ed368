"""What to build of a program: every combination of a few choices, each a variant with a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from itertools import product

from attngen.aot.list_kernels import Part
from attngen.arguments import dtype_named
from attngen.artefact.manifest import ALIGNMENTS, FORMS, Alignment, Form
from attngen.emit.cpp_names import ELEMENT_TYPES
from attngen.emit.spec import DType
from attngen.emit.target import parse_target
from attngen.errors import DTypeError, ParameterError
from attngen.value import value

SHORT: Mapping[str, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_PACKED = (16, 32, 64, 128, 256)


@value
class Request:
    """What to build of a program.

    targets     names of machines, such as sm_90, gfx942, cpu-avx2.
    dtypes      of query, key and value.
    dims        pairs of head dimension and value dimension.
    forms       ways of computing it; those that the program does not have are left out.
    alignments  what kernels for GPUs may count on: "all", "features", "none" (see `manifest.Kernel`).
    packed      rows of tiles that hold all heads of a key head, for GPUs: 16, 32, 64, 128 or 256; a kernel for each.
    extents     of ranks of the program's own that no parameter gives.
    captured    dtypes of captured tensors that are not those their kinds suggest.
    """

    targets: tuple[str, ...]
    dtypes: tuple[str, ...] = ("bf16",)
    dims: tuple[tuple[int, int], ...] = ((128, 128),)
    forms: tuple[Form, ...] = ("one_pass",)
    alignments: tuple[Alignment, ...] = ("features",)
    packed: tuple[int, ...] = ()
    extents: Mapping[str, int] = field(default_factory=dict)
    captured: Mapping[str, str] = field(default_factory=dict)


def check_request(request: Request) -> None:
    """Raise TargetError, DTypeError or ParameterError for what cannot be built."""
    for name, chosen in (("target", request.targets), ("dtype", request.dtypes), ("dims", request.dims)):
        if not chosen:
            raise ParameterError(f"nothing to build: no {name} is given")
    for target in request.targets:
        parse_target(target)
    for dtype in request.dtypes:
        dtype_named(dtype)
    for dtype in request.captured.values():
        captured_dtype(dtype)
    for head_dim, value_dim in request.dims:
        if not (1 <= head_dim <= 1 << 16 and 1 <= value_dim <= 1 << 16):
            raise ParameterError(f"head dimensions are from 1 to {1 << 16}, not {head_dim} and {value_dim}")
    choices: tuple[tuple[str, tuple[object, ...], tuple[object, ...]], ...] = (
        ("form", request.forms, FORMS),
        ("alignment", request.alignments, ALIGNMENTS),
        ("packed", request.packed, _PACKED),
    )
    for name, chosen, known in choices:
        for one in chosen:
            if one not in known:
                raise ParameterError(
                    f"{name} {one!r} is unknown", hint=f"choose from {', '.join(map(str, known))}"
                )


def captured_dtype(name: str) -> str:
    """PyTorch's name of a captured tensor's dtype, of any of its names. Raises DTypeError."""
    plain = name.removeprefix("torch.")
    if plain in ELEMENT_TYPES:
        return plain
    if plain in SHORT.values():
        return dtype_named(plain)
    raise DTypeError(
        f"captured tensors do not come in {name!r}", hint=f"known dtypes: {', '.join(ELEMENT_TYPES)}"
    )


@value
class Variant:
    """One kernel to build: a part of the program for a machine, a dtype and widths."""

    form: Form
    step: int
    target: str
    dtype: DType
    head_dim: int
    value_dim: int
    alignment: Alignment
    packed: int

    @property
    def name(self) -> str:
        """The folder of its files: `sm_90/bf16-d128/one_pass-0`."""
        widths = f"d{self.head_dim}" + (f"-e{self.value_dim}" if self.value_dim != self.head_dim else "")
        more = f"-{self.alignment}" if self.alignment not in ("features", "none") or self._is_loose else ""
        rows = f"-packed{self.packed}" if self.packed else ""
        return f"{self.target}/{SHORT[self.dtype]}-{widths}/{self.form}-{self.step}{rows}{more}"

    @property
    def _is_loose(self) -> bool:
        return self.alignment == "none" and not self.target.startswith("cpu")


def variants_of(request: Request, parts: tuple[Part, ...]) -> tuple[Variant, ...]:
    """Every variant of every part, each once; a CPU has one alignment and packs nothing."""
    found: dict[str, Variant] = {}
    for target, dtype, (head_dim, value_dim), part in product(
        request.targets, request.dtypes, request.dims, parts
    ):
        on_cpu = target.startswith("cpu")
        alignments: tuple[Alignment, ...] = ("none",) if on_cpu else request.alignments
        packs = request.packed if not on_cpu and part.form == "one_pass" and part.rows == "q" else ()
        for alignment, rows in product(alignments, (0, *packs)):
            made = Variant(
                part.form, part.step, target, dtype_named(dtype), head_dim, value_dim, alignment, rows
            )
            found.setdefault(made.name, made)
    return tuple(found.values())
