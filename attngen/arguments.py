"""Checking a call's tensors: every mistake is one clear error, a kernel sees only what it can run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from attngen.errors import (
    DeviceError,
    DTypeError,
    GradientError,
    HeadCountError,
    MissingTensorError,
    ParameterError,
    ShapeError,
    UnexpectedArgumentError,
)
from attngen.lang.domain import with_grid_sizes
from attngen.lang.expr import Load, Var, loads
from attngen.lang.extents import rank_extents
from attngen.lang.ops import Kind
from attngen.value import value

if TYPE_CHECKING:
    from attngen.emit.spec import DType
    from attngen.lang.expr import Expr
    from attngen.lang.program import ParamDecl, Program, TensorDecl

Tensor = torch.Tensor
Number = int | float | bool

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_CAPTURED_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INT32 = (-(2**31), 2**31 - 1)
_MAX_TOKENS = 2**31 - 1


@value
class Shapes:
    """The extents of a call."""

    batch: int
    heads: int
    kv_heads: int
    n_q: int
    n_k: int
    head_dim: int
    value_dim: int

    def sizes(self) -> dict[str, int]:
        """The extents as the language names them."""
        return {
            "n_b": self.batch,
            "n_h": self.heads,
            "n_g": self.kv_heads,
            "n_q": self.n_q,
            "n_k": self.n_k,
            "D": self.head_dim,
            "E": self.value_dim,
        }

    def swapped(self) -> Shapes:
        """The extents of a sweep whose rows are the keys."""
        return replace(self, n_q=self.n_k, n_k=self.n_q)


def check_qkv(query: Tensor, key: Tensor, value: Tensor, *, allow_gqa: bool = True) -> Shapes:
    """Check the three inputs against each other.

    query [B, Hq, Nq, D], key [B, Hkv, Nk, D], value [B, Hkv, Nk, E], one dtype of fp32, bf16, fp16, one
    device. Raises ShapeError, DTypeError, DeviceError or HeadCountError.
    """
    for name, t in (("query", query), ("key", key), ("value", value)):
        if not isinstance(t, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DTypeError(f"{name} must be a torch.Tensor, got {type(t).__name__}")
        if t.dim() != 4:
            raise ShapeError(
                f"{name} must be [batch, heads, tokens, features], got {_shape(t)}",
                hint="add the missing axes with unsqueeze, e.g. query[None] for one batch",
            )
    batch, heads, n_q, head_dim = query.shape
    kv_batch, kv_heads, n_k, key_dim = key.shape
    value_dim = value.shape[3]
    if not query.dtype == key.dtype == value.dtype:
        raise DTypeError(f"query, key and value differ in dtype: {query.dtype}, {key.dtype}, {value.dtype}")
    if query.dtype not in _FLOATS:
        raise DTypeError(
            f"{query.dtype} inputs have no kernel",
            hint="use float32, bfloat16 or float16; spec.reference(...) computes in float64",
        )
    if not query.device == key.device == value.device:
        raise DeviceError(
            f"query, key and value lie on different devices: {query.device}, {key.device}, {value.device}"
        )
    if kv_batch != batch or value.shape[0] != batch:
        raise ShapeError(
            f"batch sizes differ: query {_shape(query)}, key {_shape(key)}, value {_shape(value)}",
            hint="expand the smaller one: key.expand(batch, -1, -1, -1) copies nothing",
        )
    if value.shape[1] != kv_heads or value.shape[2] != n_k:
        raise ShapeError(f"key {_shape(key)} and value {_shape(value)} differ in heads or tokens")
    if key_dim != head_dim:
        raise ShapeError(f"query and key differ in head_dim: {head_dim} and {key_dim}")
    if head_dim == 0 or value_dim == 0:
        raise ShapeError("head_dim and the value width must be at least 1")
    if max(n_q, n_k) > _MAX_TOKENS:
        raise ShapeError(f"at most {_MAX_TOKENS} tokens are supported, got {max(n_q, n_k)}")
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        raise HeadCountError(f"{heads} query heads are not a multiple of {kv_heads} key/value heads")
    if heads != kv_heads and not allow_gqa:
        raise HeadCountError(
            f"query has {heads} heads, key and value have {kv_heads}",
            hint="pass enable_gqa=True to share them",
        )
    return Shapes(batch, heads, kv_heads, n_q, n_k, head_dim, value_dim)


def check_no_grad(*tensors: Tensor) -> None:
    """Refuse a call that would have to record gradients: the output would silently carry none."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise GradientError(
            "gradients through generated kernels are not available",
            hint="call under torch.no_grad(), or detach the inputs",
        )


def bind(
    program: Program, bound: Mapping[str, object], given: Mapping[str, object]
) -> tuple[dict[str, Tensor], dict[str, Number]]:
    """Split values into captured tensors and parameters, by the program's declarations.

    `bound` are values the specification carries, `given` those of this call, which win. The extent of a rank is a
    parameter; one that is worked out from the shapes of the call is left to `own_extents`. Raises
    UnexpectedArgumentError, MissingTensorError, ParameterError or DTypeError.
    """
    bound, given = (with_grid_sizes(program.grid, v) for v in (bound, given))
    known = {t.name for t in program.tensors} | {p.name for p in program.params} | {"scale"}
    for name in given:
        if name not in known:
            declared = ", ".join(sorted(known - {"scale"})) or "none"
            raise UnexpectedArgumentError(
                f"the program has no tensor or parameter {name!r}", hint=f"it declares: {declared}"
            )
    values = {**bound, **given}
    tensors = {t.name: _tensor(t, values) for t in program.tensors}
    worked_out = {p.name for p in program.params if p.extent is not None and values.get(p.name) is None}
    params = {p.name: _param(p, values) for p in program.params if p.name not in worked_out}
    return tensors, params


def own_extents(
    program: Program, tensors: Mapping[str, Tensor], params: Mapping[str, Number], shapes: Shapes
) -> dict[str, int]:
    """The extent of each rank of the program's own: given, declared, or that of the tensors that have it.

    Ranks that only tensors name and nothing computes over are left out. Raises ShapeError where two disagree,
    ParameterError for an extent that is missing or out of range.
    """
    if not program.own_ranks:
        return {}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    return rank_extents(program, shapes.sizes(), given, params)


def check_tensors(
    program: Program, tensors: Mapping[str, Tensor], shapes: Shapes, device: torch.device
) -> None:
    """Check the device of captured tensors, and their extents.

    A rank `g`, `d` or `e` has the call's extent; where `b`, `h`, `q` or `k` index an axis, it has at least that.
    """
    if not tensors:
        return
    extents = {"b": shapes.batch, "h": shapes.heads, "q": shapes.n_q, "k": shapes.n_k}
    for name, t in tensors.items():
        if t.device != device:
            raise DeviceError(
                f"{name} lies on {t.device}, the query on {device}", hint=f"{name}.to(query.device)"
            )
    _check_features(program, tensors, shapes)
    for load in _captured_loads(program):
        t = tensors.get(load.tensor)
        if t is None:
            continue
        for axis, index in enumerate(load.indices):
            if not isinstance(index, Var) or index.axis is not None:
                continue
            if t.shape[axis] < extents.get(index.name, 0):
                raise ShapeError(
                    f"{load.tensor} has shape {_shape(t)}, but axis {axis} is indexed by {index.name}, "
                    f"which runs to {extents[index.name]}",
                    loc=load.loc,
                )


def _check_features(program: Program, tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    extents = {"g": shapes.kv_heads, "d": shapes.head_dim, "e": shapes.value_dim}
    for decl in program.tensors:
        for axis, rank in enumerate(decl.ranks):
            if rank in extents and decl.name in tensors and tensors[decl.name].shape[axis] != extents[rank]:
                raise ShapeError(
                    f"{decl.name} has shape {_shape(tensors[decl.name])}, but axis {axis} is the rank `{rank}`, "
                    f"which has {extents[rank]} entries",
                    loc=decl.loc,
                )


def check_divisors(program: Program, divisors: tuple[str, ...], params: Mapping[str, Number]) -> None:
    """Refuse parameters below 1 that the schedule divides by (a chunk's size, say)."""
    for name in divisors:
        if params[name] < 1:
            declared = program.param(name)
            raise ParameterError(
                f"`{name}` is {params[name]}, but the mask divides by it: it must be 1 or more",
                loc=declared.loc if declared is not None else None,
            )


def default_scale(head_dim: int, scale: float | None) -> float:
    """`scale`, or `head_dim ** -0.5`; raises ParameterError for a scale that is not finite."""
    value = head_dim**-0.5 if scale is None else float(scale)
    if not math.isfinite(value):
        raise ParameterError(f"scale must be finite, got {value}")
    return value


@lru_cache(maxsize=256)
def _captured_loads(program: Program) -> tuple[Load, ...]:
    """Reads of captured tensors, kept: a call checks them before every launch."""
    exprs: list[Expr] = [x for e in program.cascade for x in e.exprs]
    if program.mask is not None:
        exprs.append(program.mask)
    names = {t.name for t in program.tensors}
    return tuple(ld for e in exprs for ld in loads(e) if ld.tensor in names)


def _tensor(decl: TensorDecl, values: Mapping[str, object]) -> Tensor:
    value = values.get(decl.name)
    if value is None:
        ranks = ", ".join(decl.ranks)
        raise MissingTensorError(
            f"the program reads {decl.name}[{ranks}]: {decl.kind}, which was not given",
            loc=decl.loc,
            hint=f"pass {decl.name}=<tensor> in the call",
        )
    if not isinstance(value, torch.Tensor):
        raise DTypeError(f"{decl.name} must be a torch.Tensor, got {type(value).__name__}", loc=decl.loc)
    allowed = {Kind.INT: _INTS, Kind.BOOL: (torch.bool,), Kind.FLOAT: _CAPTURED_FLOATS}[decl.kind]
    if value.dtype not in allowed:
        raise DTypeError(f"{decl.name} is declared {decl.kind}, got {value.dtype}", loc=decl.loc)
    if value.dim() != len(decl.ranks):
        raise ShapeError(
            f"{decl.name} is declared with {len(decl.ranks)} ranks, got shape {_shape(value)}", loc=decl.loc
        )
    return value


def _param(decl: ParamDecl, values: Mapping[str, object]) -> Number:
    value = values.get(decl.name, decl.default)
    if value is None:
        raise MissingTensorError(
            f"parameter {decl.name} has no value", loc=decl.loc, hint=f"pass {decl.name}=<{decl.kind}>"
        )
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        value = value.item()
    return checked_param(decl, value)


def checked_param(decl: ParamDecl, value: object) -> Number:
    """A parameter's value, of the declared kind and in range; raises ParameterError."""
    match decl.kind:
        case Kind.BOOL if isinstance(value, bool):
            return value
        case Kind.INT if isinstance(value, int) and not isinstance(value, bool):
            if decl.rank and value < 0:
                raise ParameterError(f"the rank {decl.name} cannot have {value} entries", loc=decl.loc)
            if not _INT32[0] <= value <= _INT32[1]:
                raise ParameterError(
                    f"{decl.name} = {value} does not fit in 32 bits", hint="positions never exceed 2**31 - 1"
                )
            return value
        case Kind.FLOAT if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise ParameterError(f"{decl.name} must be finite, got {value}")
            return float(value)
        case _:
            raise ParameterError(f"{decl.name} must be {decl.kind}, got {value!r}", loc=decl.loc)


def _shape(t: Tensor) -> str:
    return str(list(t.shape))


def as_numpy(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Captured tensors as the planner reads them: on the host, integers and booleans as they are, floats as float64.

    An integer or boolean tensor that lies on the host is not copied.
    """
    out: dict[str, Any] = {}
    for name, t in tensors.items():
        dtype = torch.float64 if t.is_floating_point() else t.dtype
        out[name] = t.detach().to("cpu", dtype).numpy()
    return out


def dtype_named(name: str) -> DType:
    """The dtype of a short or long name, with or without `torch.`; raises DTypeError."""
    names: dict[str, DType] = {
        "fp32": "float32",
        "float32": "float32",
        "bf16": "bfloat16",
        "bfloat16": "bfloat16",
        "fp16": "float16",
        "float16": "float16",
    }
    key = str(name).removeprefix("torch.")
    if key not in names:
        raise DTypeError(f"unknown dtype {name!r}", hint="use fp32, bf16 or fp16")
    return names[key]
