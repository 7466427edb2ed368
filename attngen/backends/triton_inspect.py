"""What a compiled kernel takes of its machine: registers, spills, shared memory."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from attngen.backends.triton import TritonBackend
from attngen.backends.triton_compile import Compiled, compile_source
from attngen.emit.spec import KernelSpec, Target
from attngen.errors import CompileError, CompilerNotFoundError

_RESOURCES = re.compile(r"(REG|STACK|LOCAL|SHARED):(\d+)")
_SPILL = re.compile(r"\b(?:LDL|STL)\b")


@dataclass(frozen=True, slots=True)
class Inspection:
    """Resources of one kernel.

    registers           per thread (NVIDIA) or vector registers per lane (AMD);
    spill_bytes         of local memory a thread uses for what did not fit its registers; 0 is what one wants;
    spill_instructions  loads and stores of spilled values in the code;
    shared_bytes        of shared memory (AMD: LDS) a program uses;
    block_q, block_k, num_warps, num_stages  the configuration compiled.
    """

    target: str
    dtype: str
    registers: int
    spill_bytes: int
    spill_instructions: int
    shared_bytes: int
    block_q: int
    block_k: int
    num_warps: int
    num_stages: int


def inspect_kernel(spec: KernelSpec, target: Target) -> Inspection:
    """Compile for a target that need not be present, and read its resources from the binary.

    Raises CompileError, CompilerNotFoundError, CacheError.
    """
    source = TritonBackend().emit(spec, target)
    compiled = compile_source(source, spec)
    read = _read_cuda if target.kind == "cuda" else _read_hip
    registers, spill_bytes, spill_instructions, static_shared = read(compiled)
    meta = dict(source.meta)
    return Inspection(
        target=target.arch,
        dtype=spec.dtype,
        registers=registers,
        spill_bytes=spill_bytes,
        spill_instructions=spill_instructions,
        shared_bytes=max(int(compiled.metadata.get("shared", 0)), static_shared),
        block_q=int(meta["block_q"]),
        block_k=int(meta["block_k"]),
        num_warps=int(meta["num_warps"]),
        num_stages=int(meta["num_stages"]),
    )


def _read_cuda(compiled: Compiled) -> tuple[int, int, int, int]:
    usage = _run_tool("cuobjdump", "--dump-resource-usage", str(compiled.binary))
    found = {name: int(value) for name, value in _RESOURCES.findall(usage)}
    if "REG" not in found:
        raise CompileError("cuobjdump reports no registers", log=usage, path=str(compiled.binary))
    spills = len(_SPILL.findall(_run_tool("nvdisasm", "-c", str(compiled.binary))))
    return found["REG"], found.get("STACK", 0) + found.get("LOCAL", 0), spills, 0


def _read_hip(compiled: Compiled) -> tuple[int, int, int, int]:
    text = compiled.assembly.read_text(encoding="utf-8", errors="replace")

    def number(name: str) -> int:
        match = re.search(rf"\.{name}:\s*(\d+)", text)
        return int(match.group(1)) if match else 0

    # scalar registers spill into lanes of vector registers, not to memory, and are not counted
    spills = number("vgpr_spill_count")
    return (
        number("vgpr_count"),
        number("private_segment_fixed_size"),
        spills,
        number("group_segment_fixed_size"),
    )


def _run_tool(name: str, *args: str) -> str:
    """A binary tool that comes inside Triton's package."""
    tool = _tool(name)
    done = subprocess.run([str(tool), *args], capture_output=True, text=True, errors="replace", check=False)
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
