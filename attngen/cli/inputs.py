"""Inputs for the verbs that run a program, read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attngen.errors import InputFileError, MissingTensorError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor


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
