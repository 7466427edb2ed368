"""Build a kernel for a GPU that need not be present, in this process.

KernelSpec, Target  ->  kernel.py, kernel.cubin and kernel.ptx, or kernel.hsaco and kernel.amdgcn; what a launch needs

Equal specifications give equal files, in any directory and process. Where Triton's compiler fails it prints a module
of a thousand lines, and some failures end the process: this one should be a worker that nobody else needs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from attngen.aot.entry_params import check_params
from attngen.backends.triton import TritonBackend
from attngen.backends.triton_child import SOURCE_FILE, compile_here
from attngen.backends.triton_request import ASSEMBLIES, BINARIES, WARP, check_compiles, request_of
from attngen.emit.spec import KernelSpec, Target
from attngen.emit.triton.assume import Assumed, assume
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.names import Alignment, Arg
from attngen.emit.triton.sides import sides
from attngen.errors import AttngenError, CompileError, UnsupportedError
from attngen.static.resources import resources_of
from attngen.value import value

T = TypeVar("T")


@value
class GpuBuild:
    """A built kernel.

    entry        of the binary.
    args         in order; strides whose dtype is "int64" are passed in 64 bits, the rest in 32.
    aligned      pointers that must be multiples of 16 bytes, strides that must be multiples of 16 elements.
    ones         strides that must be 1 and are not passed.
    threads      of a thread block; `shared` bytes it takes of shared memory.
    scratch      bytes of device memory a thread block takes, in the first of the two pointers after the arguments.
    resources    "registers" and "spill_bytes" of a thread, and so on.
    files        by role: "source", "binary", "assembly".
    """

    entry: str
    args: tuple[Arg, ...]
    config: TritonConfig
    aligned: tuple[str, ...]
    ones: tuple[str, ...]
    threads: int
    shared: int
    scratch: int
    resources: Mapping[str, int]
    files: Mapping[str, str]


def build_gpu(
    spec: KernelSpec, target: Target, config: TritonConfig | None, alignment: Alignment, directory: Path
) -> GpuBuild:
    """Write the kernel's files into a directory; without a configuration, with the default one of the target.

    Raises CompileError with the compiler's output, CompilerNotFoundError, TargetError, UnsupportedError for a
    configuration that needs what the alignment does not promise.
    """
    source = TritonBackend().emit(spec, target, config)
    check_compiles(source)
    chosen = TritonConfig(**dict(source.meta))  # pyright: ignore[reportArgumentType]
    assumed = assume(spec, alignment)
    if chosen.descriptors:
        _check_described(spec, assumed)
    (directory / SOURCE_FILE).write_text(source.text, encoding="utf-8")
    request = request_of(source, assumed)
    metadata = _quietly(target, lambda: compile_here(directory, request, lines=False))
    binary, assembly = f"kernel.{BINARIES[target.kind]}", f"kernel.{ASSEMBLIES[target.kind]}"
    entry = str(metadata["name"])
    check_params((directory / assembly).read_text(encoding="utf-8"), target, entry, assumed.passed)
    return GpuBuild(
        entry=entry,
        args=assumed.args,
        config=chosen,
        aligned=assumed.aligned,
        ones=assumed.ones,
        threads=int(metadata["num_warps"]) * WARP[target.kind],
        shared=int(metadata["shared"]),
        scratch=int(metadata.get("global_scratch_size") or 0),
        resources=resources_of(target, directory / binary, directory / assembly),
        files={"source": SOURCE_FILE, "binary": binary, "assembly": assembly},
    )


def _check_described(spec: KernelSpec, assumed: Assumed) -> None:
    """Refuse descriptors of rows that nothing promises to be adjacent elements, 16 bytes apart from each other."""
    described = {s.load.tensor for s in sides(spec).values() if s.load is not None and s.operand.row == "k"}
    for arg in assumed.args:
        if arg.of in described and arg.name not in {*assumed.aligned, *assumed.ones} and arg.specialised:
            raise UnsupportedError(
                f"{spec.program.name}: rows of {arg.of} cannot be described, since nothing is known of {arg.name}",
                hint="take a configuration with descriptors=False, or a stricter alignment",
            )


def _quietly(target: Target, compile_it: Callable[[], T]) -> T:
    """The result, with everything that goes to the standard error stream meanwhile in the error that is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            return compile_it()
        except AttngenError:
            raise
        except Exception as error:  # Triton's own errors have no common base
            printed.seek(0)
            log = printed.read().decode(errors="replace")
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CompileError(
                f"Triton rejected a generated kernel for {target.arch}: {first[:200]}",
                log=f"{log}{type(error).__name__}: {error}",
                hint="the kernel's text is what spec.source(...) returns; please report it",
            ) from error
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
