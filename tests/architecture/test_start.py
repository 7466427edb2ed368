"""What importing does: nothing but import, and nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"sympy", "networkx", "jinja2", "triton", "matplotlib", "safetensors", "transformers"}

ALL_MODULES = """
import importlib, pkgutil, sys
import torch
before = set(sys.modules)
import attngen
for found in pkgutil.walk_packages(attngen.__path__, "attngen."):
    if found.name != "attngen.__main__":
        importlib.import_module(found.name)
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""
FIRST_IMPORT = """
import sys
before = set(sys.modules)
import attngen
dir(attngen)
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


def fresh(code: str, home: Path) -> set[str]:
    """The top-level packages that `code` imports in a new process, which must leave `home` empty."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ATTNGEN_", "XDG_"))}
    env |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home)}
    out = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:attngen", "-c", code],
        capture_output=True,
        text=True,
        cwd=home,
        env=env,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    assert list(home.iterdir()) == []
    return set(out.stdout.split())


def test_importing_the_package_imports_no_other(tmp_path: Path):
    packages = fresh(FIRST_IMPORT, tmp_path)
    assert "attngen" in packages
    assert not packages & (HEAVY | {"torch", "numpy"})


def test_no_module_does_anything_heavy_on_import(tmp_path: Path):
    assert not fresh(ALL_MODULES, tmp_path) & HEAVY
