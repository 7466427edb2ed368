"""Compile printed expressions into a small shared library and run them on arrays."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from attngen.backends.cpu_compile import compile_command, find_compiler
from attngen.emit.render import render
from attngen.emit.target import parse_target

HELPERS = (
    "integers",
    "compare",
    "gather",
    *(
        f"math/{n}"
        for n in ("simple", "vexp2", "vexp", "vlog", "vlog2", "vtanh", "vsigmoid", "verf", "vsin", "vpow")
    ),
)
C_TYPES = {"vf": "float", "vi": "int32_t", "vl": "int64_t"}
PAD = 16  # the widest lanes


def build(functions: str, directory: Path, *, warnings: bool = True, target: str = "cpu") -> ctypes.CDLL:
    """A library of `functions` after the lanes, elements and every helper of the templates."""
    parts = ["#include <stdint.h>", "#include <stdlib.h>", "namespace {"]
    parts += [render(f"cpu/{name}.jinja") for name in ("lanes", "elements", *HELPERS)]
    parts += ["}", functions]
    source, library = directory / "harness.cpp", directory / "harness.so"
    source.write_text("\n".join(parts), encoding="utf-8")
    command = compile_command(find_compiler(), parse_target(target), source, library)
    extra = ["-Wall", "-Wextra", "-Werror"] if warnings else ["-O1"]
    done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def lane_loop(
    name: str, result: str, arguments: dict[str, str], body: str, before: tuple[str, ...] = ()
) -> str:
    """`extern "C" void name(out, args..., count)`: `body`, an expression of the arguments, for every vector.

    `arguments` maps a name to the type of its lanes, or to a scalar type for one value; `before` are statements.
    """
    taken = [
        f"const {C_TYPES[t]}* {a}_at" if t in C_TYPES else f"const {t}* {a}_at" for a, t in arguments.items()
    ]
    reads = [
        f"{t} {a}; for (int l = 0; l < LANES; ++l) {a}[l] = {a}_at[at + l];"
        if t in C_TYPES
        else f"const {t} {a} = *{a}_at;"
        for a, t in arguments.items()
    ]
    return f"""
extern "C" void {name}({C_TYPES[result]}* out, {", ".join(taken)}, int64_t count) {{
    for (int64_t at = 0; at < count; at += LANES) {{
        {" ".join((*reads, *before))}
        const {result} value = {body};
        for (int l = 0; l < LANES; ++l) out[at + l] = value[l];
    }}
}}
"""


def call(
    library: ctypes.CDLL, name: str, result: type, arguments: list[np.ndarray], count: int
) -> np.ndarray:
    """Run a function of `lane_loop`; `count` values a lane argument, one a scalar."""
    padded = -(-count // PAD) * PAD
    out = np.empty(padded, result)
    held = [np.ascontiguousarray(np.resize(a, padded) if a.size > 1 else a) for a in arguments]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (out, *held)]
    getattr(library, name)(*pointers, ctypes.c_int64(padded))
    return out[:count]
