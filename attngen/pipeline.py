"""From a program of one sweep to a loaded kernel: the stages in order, each result kept.

Within a process results are kept by the program's canonical text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import torch

from attngen.analysed import (
    Analysed,
    Number,
    analyse,
    is_pair,
    recall,
    remember,
    with_consts,
    with_extents,
    with_literals,
)
from attngen.documents import kept
from attngen.emit.spec import DType, KernelSpec, Target, TensorArg
from attngen.errors import DeviceError, InternalError, TargetError
from attngen.forms import fold_of
from attngen.lang.domain import size_param
from attngen.lang.expr import Apply, Expr, Param, Size, walk
from attngen.lang.ops import Kind
from attngen.lang.program import IMPLICIT_PARAMS, Einsum, Program
from attngen.lang.words import SCORE
from attngen.limit_time import within_time
from attngen.value import value

if TYPE_CHECKING:
    from attngen.algebra.fold import Fold
    from attngen.backends.base import Backend, Kernel
    from attngen.emit.configs import Config
    from attngen.emit.tile import TileProgram
    from attngen.emit.triton.config import TritonConfig
    from attngen.planner.layout import Boxes
    from attngen.planner.plan import BoxPlan, MaskPlan

# Float64 error a fold may show on the random data of `check_fold`.
_VERIFIED = 1e-9

DTYPES: dict[torch.dtype, DType] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


@value
class Specialisation:
    """What the text of a kernel depends on besides its program.

    tensors  (name, torch dtype, rank) of each captured tensor.
    consts   values of `const` parameters.
    boxes    needed where `box_plan` is not None.
    extents  of the ranks of the program's own that are features of the kernel (see `feature_ranks`).
    exact    outputs over value features that are stored in fp32.
    """

    dtype: DType
    head_dim: int
    value_dim: int
    tensors: tuple[tuple[str, str, int], ...] = ()
    consts: tuple[tuple[str, Number], ...] = ()
    scale_positive: bool = True
    boxes: Boxes | None = None
    extents: tuple[tuple[str, int], ...] = ()
    exact: frozenset[str] = frozenset()


@kept(256)
def feature_ranks(analysed: Analysed) -> tuple[str, ...]:
    """The ranks of the program's own whose extents shape the kernel: columns, and extents that it reads."""
    program = analysed.program
    if not program.own_ranks:
        return ()
    from attngen.emit.lower import lower

    tile = lower(program, fold_of(analysed))
    found = tile.features()
    sizes = {n.name for e in _bodies(program) for n in walk(e) if isinstance(n, Size)}
    return tuple(r for r in program.own_ranks if r in found or f"n_{r}" in sizes)


def kernel_extents(analysed: Analysed, extents: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The extents of `feature_ranks`."""
    return tuple((rank, extents[rank]) for rank in feature_ranks(analysed))


def unvisited(einsum: Einsum) -> float | None:
    """What an output holds where no tile is visited; None for one that every row of the kernel writes."""
    from attngen.emit.contract import block_of
    from attngen.lang.expr import Reduce
    from attngen.lang.ops import REDUCERS

    if is_pair(einsum):
        return float("-inf") if einsum.target == SCORE else 0.0
    match einsum.body:
        case Reduce(op, ("k",), body) if len(einsum.ranks) == 2:
            identity = REDUCERS[op].identity
            return identity if block_of(body, op, einsum.ranks[-1], identity) is not None else None
        case _:
            return None


@lru_cache(maxsize=256)
def plan_of(analysed: Analysed) -> MaskPlan:
    """The form of the mask's schedule."""
    from attngen.planner.plan_mask import plan_mask

    return within_time(f"planning the tiles of {analysed.program.name}", lambda: plan_mask(analysed.program))


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

        # a query keeps its features and its accumulators, a key its features and its values
        cpu = cpu_config(target, dtype, head_dim + value_dim, head_dim + value_dim)
        return cpu.block_q, cpu.block_k
    from attngen.emit.triton.config import default_config
    from attngen.emit.triton.pressure import relieved

    config = relieved(
        default_config(target, dtype, head_dim, value_dim), target, head_dim, value_dim, program
    )
    return config.block_q, config.block_k


@kept(256)
def kernel_spec(analysed: Analysed, special: Specialisation) -> KernelSpec:
    """Everything that shapes a kernel's text."""
    from attngen.emit.lower import lower
    from attngen.store.settings import settings

    fold = fold_of(analysed)
    values = dict(special.consts)
    program = with_extents(with_consts(analysed.program, values), dict(special.extents))
    changed = analyse(program, written=analysed.written)
    if analysed.fold is not None:
        from attngen.algebra.partials import map_fold

        fold = map_fold(fold, lambda e: with_literals(e, values, dict(special.extents)))
    elif values or special.extents:
        fold = fold_of(changed)
    kinds = {t.name: t.kind for t in program.tensors}
    tile = within_time(
        f"lowering {program.name}",
        lambda: lower(program, fold, scale_positive=special.scale_positive, exact=special.exact),
    )
    if settings().verify:
        _verify(program, fold, tile, written=analysed.written)
    return KernelSpec(
        program=program,
        fold=fold,
        tile=tile,
        plan=plan_of(changed) if values else plan_of(analysed),
        boxes=special.boxes,
        dtype=special.dtype,
        head_dim=special.head_dim,
        value_dim=special.value_dim,
        tensors=tuple(TensorArg(n, kinds[n], rank, torch_dtype) for n, torch_dtype, rank in special.tensors),
        params=runtime_params(program),
        consts=special.consts,
        outputs=fold.outputs,
        scale_positive=special.scale_positive,
        extents=special.extents,
    )


def runtime_params(program: Program) -> tuple[tuple[str, Kind], ...]:
    """Run-time scalars in the order they are passed: declared ones, then implicit ones in use."""
    used = {n.name for e in _bodies(program) for n in walk(e) if isinstance(n, Param)}
    used |= {size_param(axis) for axis in program.grid}  # addresses are computed from them
    declared = tuple((p.name, p.kind) for p in program.params if not p.const and p.name in used)
    names = {p.name for p in program.params}
    implicit = tuple((n, k) for n, k in IMPLICIT_PARAMS.items() if n in used and n not in names)
    return declared + implicit


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
    backend: str, target: Target, analysed: Analysed, special: Specialisation, config: Config | None = None
) -> Loaded:
    """A loaded kernel, from this process, from disk, or built now.

    Without a configuration it is one that is installed, built ahead of time, or else one of the default configuration.
    """
    from attngen.emit.configs import config_to_json

    if config is None:
        found = _installed(backend, target, analysed, special)
        if found is not None:
            return found
    home = backend_named(backend)
    key = {
        **_identity(backend, target, analysed, special),
        "config": None if config is None else config_to_json(config),
    }
    recipe = recall("recipe", key)
    if recipe is not None:
        kernel = home.reopen(recipe["kernel"])
        if kernel is not None:
            return Loaded(kernel, tuple(recipe["divisors"]))
    from attngen.planner.plan_mask import requirements

    spec = kernel_spec(analysed, special)
    kernel = home.load(spec, target, config)
    divisors = requirements(spec.program, spec.plan)
    remember("recipe", key, {"kernel": kernel.recipe(), "divisors": list(divisors)})
    return Loaded(kernel, divisors)


def _installed(backend: str, target: Target, analysed: Analysed, special: Specialisation) -> Loaded | None:
    """The kernel of an installed artefact that stands for the default one; most processes have none."""
    from attngen.artefact.installed import installed

    if not installed():
        return None
    from attngen.artefact.find_kernel import find_kernel

    device = (
        torch.device("cpu") if target.kind == "cpu" else torch.device("cuda", torch.cuda.current_device())
    )
    return find_kernel(
        device, analysed, special, lambda config: load_kernel(backend, target, analysed, special, config)
    )


def _identity(backend: str, target: Target, analysed: Analysed, special: Specialisation) -> dict[str, object]:
    """What decides a kernel, its configuration aside, as the key of a document in the cache."""
    boxes = special.boxes
    return {
        "text": analysed.text,
        "outputs": list(analysed.program.outputs),
        "backend": backend,
        "target": target.arch,
        "dtype": special.dtype,
        "dims": [special.head_dim, special.value_dim],
        "tensors": [list(t) for t in special.tensors],
        "consts": [list(c) for c in special.consts],
        "scale_positive": special.scale_positive,
        "boxes": None
        if boxes is None
        else [boxes.cut, boxes.tight, *([s.axis, s.q, s.k, s.origin] for s in boxes.shapes)],
        "extents": [list(e) for e in special.extents],
        "exact": sorted(special.exact),
        "sources": sources(),
    }


@lru_cache(maxsize=256)
def packable(target: Target, analysed: Analysed, special: Specialisation) -> TritonConfig | None:
    """What `pack.packed` starts from, for a Triton kernel that may be packed; None for any other."""
    from attngen.emit.configs import config_from_json, config_to_json
    from attngen.emit.triton.config import TritonConfig
    from attngen.emit.triton.pack import packs, roomy

    key = _identity("triton", target, analysed, special)
    known = recall("packable", key)
    if known is None:
        spec = kernel_spec(analysed, special)
        given = backend_named("triton").config(spec, target) if packs(spec) else None
        known = {"config": config_to_json(roomy(given, spec)) if isinstance(given, TritonConfig) else None}
        remember("packable", key, known)
    config = None if known["config"] is None else config_from_json("triton", known["config"])
    return config if isinstance(config, TritonConfig) else None


def _verify(program: Program, fold: Fold, tile: TileProgram, *, written: bool) -> None:
    """Check what every stage handed on (ATTNGEN_VERIFY=1): structure, and the Fold against float64."""
    from attngen.algebra.check import check_fold
    from attngen.emit.verify_tile import verify_tile
    from attngen.lang.verify import verify

    if written:
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
