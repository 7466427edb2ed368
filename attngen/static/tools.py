"""The binary tools that come inside Triton's package."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

from attngen.errors import CompileError, CompilerNotFoundError


def run_tool(name: str, *args: str) -> str:
    """What a tool prints. Raises CompilerNotFoundError where it is missing, CompileError where it fails."""
    try:
        done = subprocess.run(
            [str(_tool(name)), *args],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise CompilerNotFoundError(f"{name} of Triton's package does not start: {error}") from error
    if done.returncode != 0:
        raise CompileError(f"{name} could not read the kernel", log=done.stderr)
    return done.stdout


def _tool(name: str) -> Path:
    # Found without importing Triton, which would settle for the whole process whether kernels can be interpreted.
    package = find_spec("triton")
    places = [] if package is None else list(package.submodule_search_locations or ())
    path = Path(places[0] if places else "", "backends", "nvidia", "bin", name)
    if not places or not path.is_file():
        raise CompilerNotFoundError(
            f"{name} is not in Triton's package", hint="Triton 3.6 and later bring it with them"
        )
    return path
