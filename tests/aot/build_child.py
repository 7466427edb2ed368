"""A worker that builds kernels: `python -m tests.aot.build_child DIRECTORY`, cases as JSON on its standard input.

Triton is not interpreted here, as it is in the tests' own process. The builds, or the error of one, come out as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def start(directory: Path, cases: list[dict[str, Any]], **environment: str) -> subprocess.Popen[str]:
    """The process, which reads its cases; `finish` waits for it."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    directory.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.aot.build_child", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=env | environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(cases))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it built."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


def build(directory: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a process of its own builds."""
    return finish(start(directory, cases))


def main(directory: Path) -> None:
    """Build each case in a folder of its own."""
    import attngen
    from attngen.aot.build_gpu import build_gpu
    from attngen.backends.triton import TritonBackend
    from attngen.emit.triton.config import TritonConfig
    from attngen.errors import AttngenError

    out: list[dict[str, Any]] = []
    for case in json.load(sys.stdin):
        spec = attngen.load(case["program"], tuple(case.get("outputs", ["O", "LSE"])))
        (kernel, *_), target = spec.kernel_specs(
            case["target"], case.get("dtype", "bf16"), case.get("width", 64)
        )
        config = None
        if "config" in case:
            default = TritonBackend().config(kernel, target)
            assert isinstance(default, TritonConfig)
            config = replace(default, **case["config"])
        where = directory / case["name"]
        where.mkdir()
        try:
            made = build_gpu(kernel, target, config, case.get("alignment", "features"), where)
            out.append(asdict(made))
        except AttngenError as error:
            log = getattr(error, "log", "")
            out.append({"error": type(error).__name__, "text": str(error), "log": log})
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
