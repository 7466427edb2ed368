"""What a kernel takes of a device, as its binary or its assembly states it; the code is not read."""

from __future__ import annotations

import re
from pathlib import Path

from attngen.emit.spec import Target
from attngen.errors import CompileError
from attngen.static.amd import parse_resources
from attngen.static.tools import run_tool

_USAGE = re.compile(r"(REG|STACK|LOCAL|SHARED):(\d+)")


def usage_of(binary: Path) -> dict[str, int]:
    """Registers ("REG") and bytes ("STACK", "LOCAL", "SHARED") of the kernel in a cubin. Raises CompileError."""
    usage = run_tool("cuobjdump", "--dump-resource-usage", str(binary))
    found = {name: int(number) for name, number in _USAGE.findall(usage)}
    if "REG" not in found:
        raise CompileError("cuobjdump reports no registers", log=usage, path=str(binary))
    return found


def resources_of(target: Target, binary: Path, assembly: Path) -> dict[str, int]:
    """Registers and bytes of spilled values of a thread; on AMD a lane's, and the registers that a wave has beside."""
    if target.kind == "cuda":
        found = usage_of(binary)
        return {"registers": found["REG"], "spill_bytes": found.get("STACK", 0) + found.get("LOCAL", 0)}
    takes = parse_resources(assembly.read_text(encoding="utf-8", errors="replace"))
    return {
        "registers": takes.vector,
        "accumulation_registers": takes.accumulation,
        "scalar_registers": takes.scalar,
        "spill_bytes": takes.private_bytes,
    }
