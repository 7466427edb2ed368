"""Inputs for the verbs that run a program: read from a file, or made."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attngen.arguments import Shapes
from attngen.cli.options import settle_shape
from attngen.errors import (
    DeviceError,
    HeadCountError,
    InputFileError,
    MissingTensorError,
    UnsupportedError,
)
from attngen.lang.expr import Apply, Load, Var, walk
from attngen.lang.extents import rank_extents
from attngen.lang.ops import Kind
from attngen.lang.program import INPUT_RANKS
from attngen.tolerance import shapes_of

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.lang.expr import Expr
    from attngen.lang.program import Program, TensorDecl

Tensor = torch.Tensor
Qkv = tuple[Tensor, Tensor, Tensor]
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SEED = 0
_SEGMENTS = 4
_EXTENT = 8  # of a rank that nothing tells


def make_qkv(
    batch: int, heads: int, kv_heads: int, n_q: int, n_k: int, head_dim: int, value_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal fp32 tensors, the same at every call."""
    generator = torch.Generator().manual_seed(_SEED)
    shapes = (
        (batch, heads, n_q, head_dim),
        (batch, kv_heads, n_k, head_dim),
        (batch, kv_heads, n_k, value_dim),
    )
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def call_of(args: argparse.Namespace, spec: Attention) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """The call that options describe: query, key and value, made or read, and what else the program reads of a file."""
    device = device_named(args.device)
    settle_shape(args, spec)
    given: dict[str, Tensor] = {}
    if args.qkv is None:
        kv_heads = args.kv_heads or args.heads
        if args.heads % kv_heads:
            raise HeadCountError(f"{args.heads} query heads are not a multiple of {kv_heads} key/value heads")
        n_k = args.n if args.n_k is None else args.n_k
        qkv = make_qkv(args.batch, args.heads, kv_heads, args.n, n_k, args.head_dim, args.head_dim)
        query, key, value = (t.to(device, TORCH_DTYPES[args.dtype]) for t in qkv)
    else:
        held, given = read_qkv(args.qkv)
        query, key, value = (held[n].to(device) for n in ("query", "key", "value"))
    declared = {t.name for t in spec.program.tensors}
    return query, key, value, {n: t.to(device) for n, t in given.items() if n in declared}


def device_named(name: str) -> torch.device:
    """The device of an option; "auto" is a GPU if there is one. Raises DeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is not a device", hint="use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("there is no CUDA or ROCm device here", hint="use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"no backend serves device {name!r}", hint="use cpu or cuda")
    return device


def read_qkv(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`query`, `key`, `value` (or `q`, `k`, `v`) of a safetensors file, and whatever else it holds."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UnsupportedError(
            "--qkv reads safetensors files, and the package safetensors is not installed",
            hint="pip install safetensors",
        ) from error
    try:
        held = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputFileError(f"{path} is not a safetensors file: {error}") from error
    qkv: dict[str, Tensor] = {}
    for name in ("query", "key", "value"):
        found = next((n for n in (name, name[0], name[0].upper()) if n in held), None)
        if found is None:
            raise MissingTensorError(f"{path} holds no {name!r}", hint=f"it holds: {', '.join(sorted(held))}")
        qkv[name] = held.pop(found)
    return qkv, held


def with_samples(spec: Attention, qkv: Qkv, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values given, and made ones for whatever else the program reads."""
    usual = all(t.dim() == 4 for t in qkv)  # if not, the call itself says what is wrong
    shapes = shapes_of(*qkv) if usual else Shapes(1, 1, 1, 1, 1, 1, 1)
    made = sample_values(spec.program, {**spec.values, **given}, shapes)
    device = qkv[0].device
    return {**given, **{n: v if isinstance(v, int) else v.to(device) for n, v in made.items()}}


def sample_values(program: Program, bound: Mapping[str, object], shapes: Shapes) -> dict[str, Tensor | int]:
    """A value for every tensor and every extent of a rank that has none.

    Token ids come in packed segments, or as their ends; lengths and indices in range; reals are small.
    """
    numbers = _numbers(program, bound)
    extents = _extents(program, bound, numbers, shapes)
    indexed = _indexed(program)
    generator = torch.Generator().manual_seed(_SEED)
    out: dict[str, Tensor | int] = {}
    for decl in program.params:
        if decl.rank and decl.name not in bound and decl.default is None and decl.extent is None:
            out[decl.name] = extents[decl.name]
    for decl in program.tensors:
        if decl.name not in bound:
            below = [extents.get(rank, 1) for rank in sorted(indexed.get(decl.name, ()))]
            out[decl.name] = _sample(decl, extents, min(below, default=None), generator)
    return out


def _numbers(program: Program, bound: Mapping[str, object]) -> dict[str, int | float]:
    """What parameters are known to be; an extent that nothing tells is nominal."""
    out: dict[str, int | float] = {p.name: p.default for p in program.params if p.default is not None}
    out |= {n: v for n, v in bound.items() if isinstance(v, int | float)}
    told = {r for t in program.tensors if isinstance(bound.get(t.name), torch.Tensor) for r in t.ranks}
    for decl in program.params:
        if decl.rank and decl.extent is None and decl.name not in out and decl.name not in told:
            out[decl.name] = _EXTENT
    return out


def _extents(
    program: Program, bound: Mapping[str, object], numbers: Mapping[str, int | float], shapes: Shapes
) -> dict[str, int]:
    """The extent of every rank: of the call, of bound tensors, given, worked out or nominal."""
    n = max(shapes.n_q, shapes.n_k)
    known = {"b": shapes.batch, "h": shapes.heads, "g": shapes.kv_heads, "q": n, "k": n}
    known |= {"d": shapes.head_dim, "e": shapes.value_dim}
    known |= {
        rank: int(extent)
        for t in program.tensors
        if isinstance(given := bound.get(t.name), torch.Tensor)
        for rank, extent in zip(t.ranks, given.shape, strict=False)
        if rank in program.own_ranks
    }
    declared = {p.name for p in program.params if p.rank}
    told = {rank: known[rank] for rank in declared & known.keys()}
    known |= {r: _EXTENT for r in program.own_ranks if r not in known and r not in declared}
    # tensors without the ranks that are declared: they follow these, and tell nothing of them
    plain = tuple(replace(t, ranks=tuple(r for r in t.ranks if r not in declared)) for t in program.tensors)
    made = {t.name: tuple(known[r] for r in t.ranks) for t in plain}
    return known | rank_extents(replace(program, tensors=plain), shapes.sizes(), made, {**numbers, **told})


def _indexed(program: Program) -> dict[str, set[str]]:
    """The ranks into which integer tensors index, or to whose entries they are compared."""
    integers = {t.name for t in program.tensors if t.kind is Kind.INT}
    ranks = INPUT_RANKS | {e.target: e.ranks for e in program.cascade}
    ranks |= {t.name: t.ranks for t in program.tensors}
    out: dict[str, set[str]] = {}
    exprs = [x for e in program.cascade for x in e.exprs] + (
        [program.mask] if program.mask is not None else []
    )
    for node in (n for expr in exprs for n in walk(expr)):
        pairs: list[tuple[Expr, str]] = []
        match node:
            case Load(name, indices):
                pairs = list(zip(indices, ranks.get(name, ()), strict=False))
            case Apply("eq", (Load() as read, Var(rank, None))) | Apply(
                "eq", (Var(rank, None), Load() as read)
            ):
                pairs = [(read, rank)]
            case _:
                pass
        for index, rank in pairs:
            if isinstance(index, Load) and index.tensor in integers:
                out.setdefault(index.tensor, set()).add(rank)
    return out


def _sample(
    decl: TensorDecl, extents: Mapping[str, int], below: int | None, generator: torch.Generator
) -> Tensor:
    """`below` bounds integers that index, or number the entries of, a rank."""
    n = max(extents["q"], 1)
    shape = [extents.get(rank, n) for rank in decl.ranks]
    tokens = bool(decl.ranks) and decl.ranks[-1] in ("q", "k")
    match decl.kind:
        case Kind.INT if decl.name in ("first", "last") and decl.ranks == ("q",):
            # the runs of `varlen`: each row sees its own segment, segments are of equal length
            length = -(-n // _SEGMENTS)
            first = torch.arange(n, dtype=torch.int32) // length * length
            return first if decl.name == "first" else first + length
        case Kind.INT if below is not None and tokens:
            # segments in order, one for each entry of the rank that they number
            return (torch.arange(n, dtype=torch.int32) * below // n).expand(shape).contiguous()
        case Kind.INT if below is not None:
            return torch.randint(0, max(below, 1), shape, generator=generator, dtype=torch.int32)
        case Kind.INT if tokens:
            # token ids: a few segments of equal id, ascending, as packed documents have
            cuts = torch.rand((*shape[:-1], _SEGMENTS - 1), generator=generator).sort(-1).values * n
            return (torch.arange(n) >= cuts.unsqueeze(-1)).sum(-2).to(torch.int32)
        case Kind.INT:
            return torch.randint(n // 2, n + 1, shape, generator=generator, dtype=torch.int32)
        case Kind.BOOL:
            return torch.rand(shape, generator=generator) < 0.5
        case _:
            return torch.randn(shape, generator=generator) * 0.1
