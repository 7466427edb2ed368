"""Run Triton's compiler in this process; `python -m attngen.backends.triton_child DIRECTORY` is one of its own.

kernel.py, request.json  ->  the binary, the assembly, metadata.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attngen.backends.triton_import import import_kernel, interprets
from attngen.errors import CompilerNotFoundError

SOURCE_FILE, REQUEST, METADATA = "kernel.py", "request.json", "metadata.json"


def compile_here(directory: Path, request: Mapping[str, Any], *, lines: bool) -> dict[str, Any]:
    """Compile `kernel.py` in a directory; writes `kernel.<kind>` beside it and returns what Triton says of them.

    `lines` keeps the lines of the text in the code, and with them its path. Without, equal texts give equal files
    wherever and whenever they are compiled, and nothing that an earlier process cached is taken.
    Raises CompilerNotFoundError where Triton interprets kernels, and what Triton raises.
    """
    if interprets():
        raise CompilerNotFoundError(
            "with TRITON_INTERPRET in the environment, Triton interprets kernels and compiles none",
            hint="start the process that compiles without it",
        )
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=import_kernel(directory / SOURCE_FILE, request["entry"], "kernel", keep=False),
        signature=request["signature"],
        constexprs={(int(i),): value for i, value in request["constants"].items()},
        attrs={(i,): [["tt.divisibility", request["alignment"]]] for i in request["aligned"]},
    )
    arch: Any = request["arch"]
    if request["kind"] == "cuda":
        arch = int(arch.removeprefix("sm_"))
    target = GPUTarget(request["kind"], arch, request["warp_size"])
    with ExitStack() as stack:
        if not lines:
            _apart(stack)
        compiled = triton.compile(source, target=target, options=request["options"])
        for name in ("cubin", "ptx", "hsaco", "amdgcn"):
            if name in compiled.asm:
                data = compiled.asm[name]
                (directory / f"kernel.{name}").write_bytes(data if isinstance(data, bytes) else data.encode())
    metadata: dict[str, Any] = compiled.metadata._asdict()
    return {k: v for k, v in metadata.items() if isinstance(v, int | float | str | bool)}


def _apart(stack: ExitStack) -> None:
    """Keep what this user and this process set for Triton out of the code, until `stack` closes."""
    from triton import knobs

    stack.enter_context(knobs.compilation.scope())
    stack.enter_context(knobs.cache.scope())
    knobs.compilation.disable_line_info = True
    knobs.compilation.always_compile = True
    knobs.compilation.override = False
    knobs.compilation.dump_ir = False
    knobs.compilation.store_binary_only = False
    knobs.cache.dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="attngen-triton-"))


def main(directory: Path) -> None:
    """Compile the kernel in `directory`."""
    request = json.loads((directory / REQUEST).read_bytes())
    metadata = compile_here(directory, request, lines=True)
    (directory / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
