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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.triton.names import Arg, kernel_args
from attngen.errors import CompileError, CompilerNotFoundError, TargetError
from attngen.store.cache import default_store
from attngen.store.entry import write_file
from attngen.store.settings import settings

log = logging.getLogger("attngen.backends.triton")

_KIND = "triton-aot"
SOURCE_FILE, _REQUEST, _METADATA = "kernel.py", "request.json", "metadata.json"
_BINARIES = {"cuda": "cubin", "hip": "hsaco"}
_ASSEMBLIES = {"cuda": "ptx", "hip": "amdgcn"}
# Strides and addresses that a kernel built ahead of time may count on; the emitted header says so.
_ALIGNMENT = 16
_POINTERS = {
    "float32": "*fp32",
    "bfloat16": "*bf16",
    "float16": "*fp16",
    "float64": "*fp64",
    "int64": "*i64",
    "int32": "*i32",
    "int16": "*i16",
    "int8": "*i8",
    "uint8": "*u8",
    "bool": "*u8",
}
_PARAMS = {"int": "i32", "float": "fp32", "bool": "i1"}
_WARP = {"cuda": 32, "hip": 64}
# Fields of a configuration that are options of Triton's compiler, passed where they are not 0.
_OPTIONS = {
    "max_registers": "maxnreg",
    "matrix_rows": "matrix_instr_nonkdim",
    "waves_per_eu": "waves_per_eu",
}


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


def compiler_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of Triton's compiler beside warps and stages, of the fields of a configuration.

    Multiplications and additions fuse, whatever the default of the installed version is.
    """
    return {"enable_fp_fusion": True} | {o: config[name] for name, o in _OPTIONS.items() if config[name]}


def compile_source(source: Source, spec: KernelSpec) -> Compiled:
    """Compile for `source.target`, from the cache or now.

    Raises CompileError with the compiler's output in `.log`, CompilerNotFoundError, TargetError, CacheError.
    """
    target = source.target
    if target.kind not in _BINARIES:
        raise TargetError(f"Triton does not compile for {target.arch}", hint="use a GPU target such as sm_90")
    request = _request(source, spec)
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
        directory / f"kernel.{_BINARIES[target.kind]}",
        directory / f"kernel.{_ASSEMBLIES[target.kind]}",
        json.loads((directory / _METADATA).read_bytes()),
    )


def _request(source: Source, spec: KernelSpec) -> dict[str, Any]:
    """What the child process needs to know, as JSON."""
    meta = dict(source.meta)
    args = kernel_args(spec)
    signature = {a.name: _type(a) for a in args} | {"BLOCK_Q": "constexpr", "BLOCK_K": "constexpr"}
    names = list(signature)
    constants = {"BLOCK_Q": meta["block_q"], "BLOCK_K": meta["block_k"]}
    constants |= {a.name: 1 for a in args if a.role == "stride" and a.last}
    for name in constants:
        signature[name] = "constexpr"
    aligned = [a.name for a in args if a.specialised and a.name not in constants]
    return {
        "entry": source.entry,
        "kind": source.target.kind,
        "arch": source.target.arch,
        "warp_size": _WARP[source.target.kind],
        "signature": signature,
        "constants": {str(names.index(n)): v for n, v in constants.items()},
        "aligned": [names.index(n) for n in aligned],
        "alignment": _ALIGNMENT,
        "options": {
            "num_warps": meta["num_warps"],
            "num_stages": meta["num_stages"],
            **compiler_options(meta),
        },
    }


def _type(arg: Arg) -> str:
    if arg.role in ("pointer", "list_pointer", "order_pointer"):
        return _POINTERS[arg.dtype]
    return _PARAMS[arg.dtype] if arg.role == "param" else "i32"


def _build(source: Source, request: dict[str, Any], stage: Path) -> None:
    write_file(stage / SOURCE_FILE, source.text.encode())
    write_file(stage / _REQUEST, json.dumps(request).encode())
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
