"""attngen: sparse attention, generated.

Declare which pairs are kept and what is computed from them; attngen derives the one-pass algorithm, plans
which tiles to visit, and emits, compiles and runs the kernel. See `attngen.attention`, `attngen.Attention`
and `attngen.load`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attngen import masks, scores
    from attngen.api import Attention, attention, load
    from attngen.artefact.load import Artefact, load_artefact
    from attngen.capture import Mask, Score, mask, score
    from attngen.cascades import cascade
    from attngen.errors import AttngenError
    from attngen.lang.trace import grid_size, param
    from attngen.planner.schedule import Schedule

__version__ = "0.1.0"

__all__ = [
    "Artefact",
    "Attention",
    "AttngenError",
    "Mask",
    "Schedule",
    "Score",
    "__version__",
    "attention",
    "cascade",
    "grid_size",
    "load",
    "load_artefact",
    "mask",
    "masks",
    "param",
    "score",
    "scores",
]

# Loaded on first use: a process that only runs cached kernels never imports what it does not need.
_HOMES = {
    "Artefact": "attngen.artefact.load",
    "Attention": "attngen.api",
    "AttngenError": "attngen.errors",
    "Mask": "attngen.capture",
    "Schedule": "attngen.planner.schedule",
    "Score": "attngen.capture",
    "attention": "attngen.api",
    "cascade": "attngen.cascades",
    "grid_size": "attngen.lang.trace",
    "load": "attngen.api",
    "load_artefact": "attngen.artefact.load",
    "mask": "attngen.capture",
    "param": "attngen.lang.trace",
    "score": "attngen.capture",
}
_MODULES = ("masks", "scores")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(f"attngen.{name}")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'attngen' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
