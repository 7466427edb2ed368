"""Compile emitted Triton text for a GPU that need not be present.

The compiler runs in a process of its own: where it fails it prints a module of a thousand lines, and some failures end
the process. What it made is kept in the cache.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngen.backends.triton_child import METADATA, REQUEST, SOURCE_FILE
from attngen.backends.triton_request import (
    ASSEMBLIES,
    BINARIES,
    check_compiles,
    compiler_options,
    request_of,
)
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.triton.assume import assume
from attngen.errors import CompileError, CompilerNotFoundError
from attngen.store.cache import default_store
from attngen.store.entry import write_file
from attngen.store.settings import settings

log = logging.getLogger("attngen.backends.triton")

_KIND = "triton-aot"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel compiled ahead of time; `binary` and `assembly` are files in the cache.

    metadata  what Triton reports: `shared` bytes, `num_warps`, `name`, ...
    """

    target: Target
    binary: Path
    assembly: Path
    metadata: dict[str, Any]


def triton_version() -> str:
    """The installed Triton's version; raises CompilerNotFoundError where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError as error:
        raise CompilerNotFoundError("Triton is not installed", hint="pip install triton") from error


def compile_source(source: Source, spec: KernelSpec) -> Compiled:
    """Compile for `source.target`, from the cache or now.

    Raises CompileError with the compiler's output in `.log`, CompilerNotFoundError, TargetError, CacheError.
    """
    target = source.target
    check_compiles(source)
    # what Triton finds at a launch with contiguous tensors of lengths that are multiples of 16
    request = request_of(source, assume(spec, "all", wide=False))
    key = {"text": source.text, "request": request, "triton": triton_version()}
    return default_store().use(
        _KIND,
        key,
        lambda stage: _build(source, request, stage),
        lambda directory: _compiled(target, directory),
    )


def _compiled(target: Target, directory: Path) -> Compiled:
    return Compiled(
        target,
        directory / f"kernel.{BINARIES[target.kind]}",
        directory / f"kernel.{ASSEMBLIES[target.kind]}",
        json.loads((directory / METADATA).read_bytes()),
    )


def _build(source: Source, request: dict[str, Any], stage: Path) -> None:
    write_file(stage / SOURCE_FILE, source.text.encode())
    write_file(stage / REQUEST, json.dumps(request).encode())
    command = [sys.executable, "-m", "attngen.backends.triton_child", str(stage)]
    # What is interpreted has no binary.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    limit_s = settings().compile_timeout_s
    log.debug("compiling %s for %s", source.entry, source.target.arch)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"Triton was still compiling for {source.target.arch} after {limit_s:g} s"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise CompileError(
            f"Triton rejected a generated kernel for {source.target.arch}: {lines[-1][:200]}",
            log=done.stderr,
            hint="the kernel's text is what spec.source(...) returns; please report it",
        )


__all__ = ["SOURCE_FILE", "Compiled", "compile_source", "compiler_options", "triton_version"]
