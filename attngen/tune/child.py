"""A process that builds kernels for the tuner: jobs come in on one pipe, verdicts go out on another.

A job is a pickled `(function, arguments)` after eight bytes with its length; it comes from the parent, never from a
file. The verdict is a line of JSON. Whatever compilers print goes nowhere near it.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from attngen.emit.configs import Config
    from attngen.emit.spec import KernelSpec, Target

_HEAD = 8


def build(backend: str, spec: KernelSpec, target: Target, config: Config) -> dict[str, Any]:
    """Build one kernel into the cache, without a device; what the compiler reports of it."""
    if backend == "cpu":
        from attngen.backends.cpu import CpuBackend

        CpuBackend().load(spec, target, config)
        return {}
    from attngen.backends.triton import TritonBackend
    from attngen.backends.triton_compile import compile_source

    source = TritonBackend().emit(spec, target, config)
    if target.kind == "cpu":  # the interpreter compiles nothing
        return {}
    return {"shared": compile_source(source, spec).metadata.get("shared", 0)}


def main() -> None:
    """Serve until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs = sys.stdin.buffer
    while (job := _next(jobs)) is not None:
        answers.write(json.dumps(_answer(job)) + "\n")
        answers.flush()


def _next(jobs: BinaryIO) -> bytes | None:
    head = jobs.read(_HEAD)
    return jobs.read(int.from_bytes(head, "big")) if len(head) == _HEAD else None


def _answer(job: bytes) -> dict[str, Any]:
    from attngen.errors import AttngenError

    start = time.perf_counter()
    try:
        function, arguments = pickle.loads(job)
        facts: object = function(*arguments)
        return {
            "ok": True,
            "seconds": time.perf_counter() - start,
            "facts": facts if isinstance(facts, dict) else {},
        }
    except MemoryError:
        return {"ok": False, "status": "oom", "note": "the compiler ran out of memory"}
    except AttngenError as error:
        return {"ok": False, "status": "compile_error", "note": error.message[:300]}
    except Exception as error:  # whatever a compiler does, the next job is served
        return {"ok": False, "status": "compile_error", "note": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
