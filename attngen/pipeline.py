"""From a linked program to a loaded kernel: the five stages in order, each result kept.

Within a process results are kept by the program's canonical text. The Fold is also kept on disk, because
deriving it is the one step that needs sympy: a warm process reads it back in a millisecond.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch

from attngen.emit.spec import DType, KernelSpec, Target, TensorArg
from attngen.errors import CacheError, DerivationError, DeviceError, InternalError, OutputError, TargetError
from attngen.lang.domain import size_param
from attngen.lang.expr import Apply, Const, Expr, Param, rewrite, walk
from attngen.lang.ops import Kind
from attngen.lang.program import IMPLICIT_PARAMS, Einsum, Program
from attngen.value import value

if TYPE_CHECKING:
    from attngen.algebra.fold import Fold
    from attngen.backends.base import Backend, Kernel
    from attngen.emit.tile import TileProgram
    from attngen.planner.layout import Boxes
    from attngen.planner.plan import BoxPlan, MaskPlan

log = logging.getLogger("attngen")

Number = int | float | bool

# Float64 error a fold may show on the random data of `check_fold`.
_VERIFIED = 1e-9

DTYPES: dict[torch.dtype, DType] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


@value
class Analysed:
    """A program with its canonical text, by which alone it compares: the key of all that follows."""

    program: Program = field(compare=False)
    text: str


@lru_cache(maxsize=256)
def fold_of(analysed: Analysed) -> Fold:
    """The Fold of a program, from this process, from disk, or derived now.

    Raises DerivationError when the cascade has no one-pass form, with the reason for each Einsum.
    """
    from attngen.algebra.serialize import fold_from_json, fold_to_json
    from attngen.store.fingerprint import fingerprint

    key = {"text": cascade_text(analysed), "sources": fingerprint("lang", "algebra")}
    known = recall("fold", key)
    if known is not None:
        return fold_from_json(known)
    from attngen.algebra.derive import derive

    fold = derive(analysed.program)
    if fold.derivation.refusals:
        raise DerivationError(
            "this cascade has no one-pass form: "
            + "; ".join(f"{r.target}: {r.reason}" for r in fold.derivation.refusals),
            hint="spec.derivation() shows each step and what was left over",
        )
    remember("fold", key, fold_to_json(fold))
    return fold


def cascade_text(analysed: Analysed) -> str:
    """The canonical text of a program without its mask, which the algebra never sees."""
    from attngen.lang.print import print_program

    return print_program(replace(analysed.program, mask=None), doc=False)


@lru_cache(maxsize=256)
def plan_of(analysed: Analysed) -> MaskPlan:
    """The form of the mask's schedule."""
    from attngen.planner.plan_mask import plan_mask

    return plan_mask(analysed.program)


@lru_cache(maxsize=256)
def may_have_boxes(analysed: Analysed) -> bool:
    """Whether tiles may be boxes: on a grid, or where a remainder may keep residue classes apart.

    Cheap, and the planner is not imported for it: most programs are laid out on a line.
    """
    program = analysed.program
    if program.grid:
        return True
    return program.mask is not None and any(
        isinstance(node, Apply) and node.op == "mod" for node in walk(program.mask)
    )


def box_plan(analysed: Analysed) -> BoxPlan | None:
    """The plan of a mask whose tiles are boxes of coordinates; None where they are runs of tokens."""
    return plan_of(analysed).boxes if may_have_boxes(analysed) else None


def tile_volume(
    backend: str, target: Target, dtype: DType, head_dim: int, value_dim: int, program: Program
) -> tuple[int, int]:
    """The queries and keys that a tile of a program may hold on a target."""
    if backend == "cpu":
        from attngen.emit.cpu_config import default_config as cpu_config

        cpu = cpu_config(target, dtype, head_dim, value_dim)
        return cpu.block_q, cpu.block_k
    from attngen.emit.triton.config import default_config
    from attngen.emit.triton.pressure import relieved

    config = relieved(
        default_config(target, dtype, head_dim, value_dim), target, head_dim, value_dim, program
    )
    return config.block_q, config.block_k


@lru_cache(maxsize=256)
def kernel_spec(
    analysed: Analysed,
    dtype: DType,
    head_dim: int,
    value_dim: int,
    tensor_dtypes: tuple[tuple[str, str, int], ...],
    consts: tuple[tuple[str, Number], ...],
    scale_positive: bool,
    boxes: Boxes | None = None,
) -> KernelSpec:
    """Everything that shapes a kernel's text; `tensor_dtypes`: (name, torch dtype, rank) of each capture.

    `boxes` is needed where `box_plan` is not None.
    """
    from attngen.emit.lower import lower
    from attngen.store.settings import settings

    fold = fold_of(analysed)
    values = dict(consts)
    program = with_consts(analysed.program, values)
    if values:
        fold = fold_of(analyse(program))
    kinds = {t.name: t.kind for t in program.tensors}
    tile = lower(program, fold, scale_positive=scale_positive)
    if settings().verify:
        _verify(program, fold, tile)
    return KernelSpec(
        program=program,
        fold=fold,
        tile=tile,
        plan=plan_of(analyse(program)) if values else plan_of(analysed),
        boxes=boxes,
        dtype=dtype,
        head_dim=head_dim,
        value_dim=value_dim,
        tensors=tuple(TensorArg(n, kinds[n], rank, torch_dtype) for n, torch_dtype, rank in tensor_dtypes),
        params=runtime_params(program),
        consts=consts,
        outputs=fold.outputs,
        scale_positive=scale_positive,
    )


def analyse(program: Program) -> Analysed:
    """Pair a linked, desugared program with its canonical text."""
    return Analysed(program, _canonical(program))


@lru_cache(maxsize=256)
def _canonical(program: Program) -> str:
    from attngen.lang.print import print_program

    return print_program(program, doc=False)


def with_consts(program: Program, values: Mapping[str, Number]) -> Program:
    """Work the values of `const` parameters into the program: `Param(n)` becomes a literal."""
    if not values:
        return program

    def literal(node: Expr) -> Expr | None:
        return Const(values[node.name]) if isinstance(node, Param) and node.name in values else None

    return replace(
        program,
        params=tuple(p for p in program.params if p.name not in values),
        mask=None if program.mask is None else rewrite(program.mask, literal),
        cascade=tuple(replace(e, body=rewrite(e.body, literal)) for e in program.cascade),
    )


@lru_cache(maxsize=256)
def specialised(analysed: Analysed, consts: tuple[tuple[str, Number], ...]) -> Analysed:
    """The program with the values of its `const` parameters worked in: what a kernel and its schedule are made of."""
    return analyse(with_consts(analysed.program, dict(consts))) if consts else analysed


def consts_of(program: Program, params: Mapping[str, Number]) -> tuple[tuple[str, Number], ...]:
    """The `const` parameters of a program with their values."""
    return tuple((p.name, params[p.name]) for p in program.params if p.const)


def runtime_params(program: Program) -> tuple[tuple[str, Kind], ...]:
    """Run-time scalars in the order they are passed: declared ones, then implicit ones in use."""
    used = {n.name for e in _bodies(program) for n in walk(e) if isinstance(n, Param)}
    used |= {size_param(axis) for axis in program.grid}  # addresses are computed from them
    declared = tuple((p.name, p.kind) for p in program.params if not p.const and p.name in used)
    names = {p.name for p in program.params}
    implicit = tuple((n, k) for n, k in IMPLICIT_PARAMS.items() if n in used and n not in names)
    return declared + implicit


def with_outputs(program: Program, outputs: tuple[str, ...] | None) -> Program:
    """The program returning `outputs`; raises OutputError for a name that is not a row of the cascade."""
    if outputs is None:
        return program
    rows = [e.target for e in program.cascade if is_row(e)]
    for name in outputs:
        if name not in rows:
            raise OutputError(
                f"the cascade has no output {name!r}", hint=f"rows it defines: {', '.join(rows) or 'none'}"
            )
    if not outputs:
        raise OutputError("outputs must name at least one row of the cascade")
    return replace(program, outputs=tuple(outputs))


def is_row(einsum: Einsum) -> bool:
    """Whether an Einsum's result has one entry a query row (and possibly a feature)."""
    return einsum.ranks in (("q",), ("q", "e"))


def _bodies(program: Program) -> list[Expr]:
    mask = [] if program.mask is None else [program.mask]
    return mask + [e.body for e in program.cascade]


def backend_named(name: str) -> Backend:
    """The backend called "cpu" or "triton"."""
    if name == "cpu":
        from attngen.backends.cpu import CpuBackend

        return CpuBackend()
    if name == "triton":
        from attngen.backends.triton import TritonBackend

        return TritonBackend()
    raise TargetError(f"unknown backend {name!r}", hint="known backends: cpu, triton, reference")


@lru_cache(maxsize=32)
def target_of_device(kind: str, index: int) -> Target:
    """The target of the machine a tensor lies on."""
    if kind == "cpu":
        return Target("cpu", "cpu")
    if kind != "cuda":
        raise DeviceError(
            f"no backend serves device {kind!r}", hint="move the tensors to the CPU or to a CUDA or ROCm GPU"
        )
    if torch.version.hip is not None:
        return Target("hip", torch.cuda.get_device_properties(index).gcnArchName.split(":")[0])
    major, minor = torch.cuda.get_device_capability(index)
    return Target("cuda", f"sm_{major}{minor}")


@value
class Loaded:
    """A kernel and the parameters its schedule divides by, which a call must give as 1 or more."""

    kernel: Kernel
    divisors: tuple[str, ...]


@lru_cache(maxsize=512)
def load_kernel(
    backend: str,
    target: Target,
    analysed: Analysed,
    dtype: DType,
    head_dim: int,
    value_dim: int,
    tensor_dtypes: tuple[tuple[str, str, int], ...],
    consts: tuple[tuple[str, Number], ...],
    scale_positive: bool,
    boxes: Boxes | None = None,
) -> Loaded:
    """A loaded kernel, from this process, from disk, or built now; arguments as for `kernel_spec`."""
    home = backend_named(backend)
    key = {
        "text": analysed.text,
        "outputs": list(analysed.program.outputs),
        "backend": backend,
        "target": target.arch,
        "dtype": dtype,
        "dims": [head_dim, value_dim],
        "tensors": [list(t) for t in tensor_dtypes],
        "consts": [list(c) for c in consts],
        "scale_positive": scale_positive,
        "boxes": None
        if boxes is None
        else [boxes.cut, boxes.tight, *([s.axis, s.q, s.k, s.origin] for s in boxes.shapes)],
        "sources": sources(),
    }
    recipe = recall("recipe", key)
    if recipe is not None:
        kernel = home.reopen(recipe["kernel"])
        if kernel is not None:
            return Loaded(kernel, tuple(recipe["divisors"]))
    from attngen.planner.plan_mask import requirements

    spec = kernel_spec(analysed, dtype, head_dim, value_dim, tensor_dtypes, consts, scale_positive, boxes)
    kernel = home.load(spec, target)
    divisors = requirements(spec.program, spec.plan)
    remember("recipe", key, {"kernel": kernel.recipe(), "divisors": list(divisors)})
    return Loaded(kernel, divisors)


def _verify(program: Program, fold: Fold, tile: TileProgram) -> None:
    """Check what every stage handed on (ATTNGEN_VERIFY=1): structure, and the Fold against float64."""
    from attngen.algebra.check import check_fold
    from attngen.emit.verify_tile import verify_tile
    from attngen.lang.verify import verify

    verify(program)
    error = check_fold(fold, program, trials=4)
    if not error < _VERIFIED:
        raise InternalError(f"the fold of {program.name} differs from its program by {error:.2e}")
    verify_tile(tile, frozenset(t.name for t in program.tensors))


@cache
def sources() -> str:
    """The hash of every source file that shapes a kernel."""
    from attngen.store.fingerprint import fingerprint

    return fingerprint("lang", "algebra", "planner", "emit", "backends", "templates")


def recall(kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
    """A small document an earlier process left in the cache."""
    from attngen.store.cache import default_store

    known = default_store().get_json(kind, key)
    return cast("dict[str, Any]", known) if isinstance(known, dict) else None


def remember(kind: str, key: Mapping[str, object], document: Mapping[str, object]) -> None:
    """Leave a small document for later processes; a cache that cannot be written costs them time only."""
    from attngen.store.cache import default_store

    try:
        default_store().put_json(kind, key, document)
    except CacheError as error:
        log.info("not remembered: %s", error.message)
