"""Inputs for the verbs that run a program, read from a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attngen.cli.options import settle_shape
from attngen.errors import DeviceError, HeadCountError, InputFileError, MissingTensorError, UnsupportedError
from attngen.sample_values import TORCH_DTYPES, make_qkv

if TYPE_CHECKING:
    from torch import Tensor

    from attngen.api import Attention


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
