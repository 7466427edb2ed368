"""Import the text of an emitted kernel, which Python must find in a file: Triton reads it there."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the text as it is: no bytecode lies beside it, which nothing would vouch for."""

    def path_stats(self, path: str) -> Mapping[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise OSError(f"the bytecode of {path} is neither read nor written")


def interprets() -> bool:
    """Whether the environment asks Triton to interpret kernels. Triton asks when it is imported, and at each kernel."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes")


def import_kernel(path: Path, entry: str, module_name: str, *, keep: bool = True) -> Any:
    """The function `entry` of the file. `keep` leaves its module where others can import it by name."""
    spec = importlib.util.spec_from_file_location(
        module_name, path, loader=_SourceLoader(module_name, str(path))
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if keep:
        sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return getattr(module, entry)
