"""Build one variant into a folder: the kernel's text, its binary, and what a manifest says of it.

It runs in a process that compiles one variant after another; a program's parts are worked out once there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attngen import pipeline
from attngen.absent_target import nominal_extents, special_for_target
from attngen.analysed import analyse
from attngen.aot.grid import launch_formulas
from attngen.aot.list_kernels import Part, list_kernels
from attngen.aot.rehearse import forget
from attngen.aot.request import Request, Variant, captured_dtype
from attngen.artefact.manifest import Form, Kernel, Launch, identity, kernel_to_json
from attngen.emit.target import parse_target
from attngen.errors import InternalError
from attngen.lang.ops import Kind
from attngen.lang.program import Program
from attngen.lang.serialize import program_from_json
from attngen.planner.plan_mask import requirements
from attngen.value import value

if TYPE_CHECKING:
    from attngen.emit.spec import KernelSpec
    from attngen.emit.triton.config import TritonConfig

_GROUP = 16  # heads of a key head of which the least rows of a packed tile are one query


@value
class Work:
    """A program as it is handed to a compiling process.

    program   linked, as JSON text; `values` are the numbers it is bound to.
    tensors   dtype and shape of the captured tensors it is bound to.
    folder    of the artefact that is being built.
    """

    program: str
    values: Mapping[str, int | float | bool]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    request: Request
    folder: str


def build_kernel(work: Work, variant: Variant) -> dict[str, Any]:
    """Build a variant; the kernel of the manifest as JSON, or why there is none as `{"without": ...}`.

    Raises CompileError, CompilerNotFoundError, TargetError, UnsupportedError.
    """
    part = _part(work, variant)
    special = _special(work, part, variant)
    spec = pipeline.kernel_spec(part.analysed, special)
    directory = Path(work.folder, variant.name)
    directory.mkdir(parents=True)
    target = parse_target(variant.target)
    blank = Kernel(
        name=variant.name,
        program=identity(part.analysed.text, part.analysed.program.outputs),
        form=variant.form,
        step=variant.step,
        rows=part.rows,
        target=target,
        special=special,
        divisors=requirements(spec.program, spec.plan),
        packed=variant.packed,
        alignment=variant.alignment,
    )
    if target.kind == "cpu":
        kernel = _built_for_cpu(blank, spec, directory, _program(work.program).name)
    else:
        config = _packed_config(spec, variant) if variant.packed else None
        if variant.packed and config is None:
            directory.rmdir()
            return {"without": f"{variant.name}: its tiles cannot hold rows of several heads"}
        kernel = _built_for_gpu(blank, spec, directory, config)
    tiles, key_tiles, programs = launch_formulas(spec, kernel.config)
    launch = replace(kernel.launch, tiles=tiles, key_tiles=key_tiles, programs=programs)
    return kernel_to_json(replace(kernel, launch=launch))


def derive(work: Work) -> dict[str, Any]:
    """Work the parts of a program out, for whoever asks next. Raises DerivationError."""
    return {"parts": len(_parts(work.program, work.request.forms))}


@lru_cache(maxsize=8)
def _program(text: str) -> Program:
    return program_from_json(json.loads(text))


@lru_cache(maxsize=1)
def _parts(text: str, forms: tuple[Form, ...]) -> tuple[Part, ...]:
    forget()
    return list_kernels(analyse(_program(text)), forms)[1]


def _part(work: Work, variant: Variant) -> Part:
    for part in _parts(work.program, work.request.forms):
        if (part.form, part.step) == (variant.form, variant.step):
            return part
    raise InternalError(f"there is no kernel {variant.name}")


def _special(work: Work, part: Part, variant: Variant) -> pipeline.Specialisation:
    """What the kernel is specialised on; boxes of an unknown grid count on nothing that another grid may lack."""
    empty = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (dtype, shape) in work.tensors.items()
    }
    values: dict[str, object] = {**work.values, **empty}
    widths = (variant.head_dim, variant.value_dim)
    extents = nominal_extents(_program(work.program), values, *widths, given=work.request.extents)
    read = {name: dtype or variant.dtype for name, dtype in part.dtypes.items()}
    given = {name: captured_dtype(dtype) for name, dtype in work.request.captured.items()}
    # What PyTorch makes of integers unless it is told otherwise.
    whole = {t.name: "int64" for t in part.analysed.program.tensors if t.kind is Kind.INT}
    special = special_for_target(
        part.analysed,
        values,
        parse_target(variant.target),
        variant.dtype,
        *widths,
        exact=part.exact,
        extents=extents,
        dtypes={**whole, **given, **read},
    )
    boxes = special.boxes
    grid = part.analysed.program.grid
    if boxes is None or (grid and all(f"size_{axis}" in work.values for axis in grid)):
        return special
    return replace(special, boxes=replace(boxes, cut=bool(grid), tight=_always_tight(part, special)))


def _always_tight(part: Part, special: pipeline.Specialisation) -> bool:
    """Whether tiles are tight whatever the values of a call."""
    from attngen.analysed import specialised

    plan = pipeline.box_plan(specialised(part.analysed, special.consts))
    return plan is not None and plan.tight


def _built_for_cpu(blank: Kernel, spec: KernelSpec, directory: Path, program: str) -> Kernel:
    from attngen.backends.cpu import CpuBackend
    from attngen.backends.cpu_compile import (
        LIBRARY_NAME,
        SOURCE_NAME,
        compile_kernel,
        find_compiler,
        needed_features,
    )
    from attngen.emit.cpp_names import arg_layout
    from attngen.emit.print_cpp import print_cpp

    config = CpuBackend().config(spec, blank.target)
    entry = "".join(c if c.isalnum() else "_" for c in f"attngen_{program}_{blank.name}")
    compile_kernel(print_cpp(spec, blank.target, config, entry), directory, find_compiler())
    return replace(
        blank,
        config=config,
        entry=entry,
        layout=arg_layout(spec),
        needs=needed_features(blank.target),
        files={"source": f"{blank.name}/{SOURCE_NAME}", "binary": f"{blank.name}/{LIBRARY_NAME}"},
    )


def _packed_config(spec: KernelSpec, variant: Variant) -> TritonConfig | None:
    """The configuration of tiles with so many rows of all heads; None for a kernel that cannot have them."""
    from attngen.backends.triton import TritonBackend
    from attngen.emit.triton.pack import packed, packs, roomy

    if not packs(spec):
        return None
    config = TritonBackend().config(spec, parse_target(variant.target))
    return packed(roomy(config, spec), variant.dtype, variant.packed // _GROUP, _GROUP)


def _built_for_gpu(blank: Kernel, spec: KernelSpec, directory: Path, config: TritonConfig | None) -> Kernel:
    from attngen.aot.build_gpu import build_gpu

    made = build_gpu(spec, blank.target, config, blank.alignment, directory)
    return replace(
        blank,
        config=made.config,
        entry=made.entry,
        args=made.args,
        aligned=made.aligned,
        ones=made.ones,
        launch=Launch(threads=made.threads, shared=made.shared, scratch=made.scratch),
        resources=made.resources,
        files={role: f"{blank.name}/{name}" for role, name in made.files.items()},
    )
