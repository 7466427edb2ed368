"""The process that runs Triton's compiler: `python -m attngen.backends.triton_child DIRECTORY`.

Reads `kernel.py` and `request.json` in the directory; writes the binary, the assembly and `metadata.json` beside them.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main(directory: Path) -> None:
    """Compile the kernel in `directory`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    request = json.loads((directory / "request.json").read_bytes())
    spec = importlib.util.spec_from_file_location("kernel", directory / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = ASTSource(
        fn=getattr(module, request["entry"]),
        signature=request["signature"],
        constexprs={(int(i),): value for i, value in request["constants"].items()},
        attrs={(i,): [["tt.divisibility", request["alignment"]]] for i in request["aligned"]},
    )
    arch: Any = request["arch"]
    if request["kind"] == "cuda":
        arch = int(arch.removeprefix("sm_"))
    target = GPUTarget(request["kind"], arch, request["warp_size"])
    compiled = triton.compile(source, target=target, options=request["options"])
    for name in ("cubin", "ptx", "hsaco", "amdgcn"):
        if name in compiled.asm:
            data = compiled.asm[name]
            (directory / f"kernel.{name}").write_bytes(data if isinstance(data, bytes) else data.encode())
    metadata = {
        k: v for k, v in compiled.metadata._asdict().items() if isinstance(v, int | float | str | bool)
    }
    (directory / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
