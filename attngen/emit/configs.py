"""Configurations of kernels, of either backend, and how they are written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TypeAlias

from attngen.emit.cpu_config import CpuConfig
from attngen.emit.triton.config import TritonConfig
from attngen.errors import InternalError

Config: TypeAlias = CpuConfig | TritonConfig

_KINDS: dict[str, type[Config]] = {"cpu": CpuConfig, "triton": TritonConfig}


def config_to_json(config: Config) -> dict[str, int | bool | str]:
    """The fields of a configuration, by name."""
    return asdict(config)


def config_from_json(backend: str, document: Mapping[str, object]) -> Config | None:
    """The configuration of a document; None for one that this version does not understand."""
    kind = _KINDS.get(backend)
    if kind is None:
        raise InternalError(f"backend {backend!r} has no configurations")
    known = {f.name: f.type for f in fields(kind)}
    if set(document) != set(known):
        return None
    for name, value in document.items():
        if type(value).__name__ != known[name] or (type(value) is int and value < 0):
            return None
    return kind(**document)  # type: ignore[arg-type]
