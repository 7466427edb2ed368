"""What Triton's compiler is asked for to build a kernel ahead of time, as JSON.

Source, Assumed  ->  {"entry", "kind", "arch", "signature", "constants", "aligned", "options", ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attngen.emit.spec import Source
from attngen.emit.triton.assume import ALIGNED, Assumed
from attngen.emit.triton.names import Arg
from attngen.errors import TargetError

BINARIES = {"cuda": "cubin", "hip": "hsaco"}
ASSEMBLIES = {"cuda": "ptx", "hip": "amdgcn"}
WARP = {"cuda": 32, "hip": 64}
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
# Fields of a configuration that are options of Triton's compiler, passed where they are not 0.
_OPTIONS = {
    "max_registers": "maxnreg",
    "matrix_rows": "matrix_instr_nonkdim",
    "waves_per_eu": "waves_per_eu",
}


def compiler_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of Triton's compiler beside warps and stages, of the fields of a configuration.

    Multiplications and additions fuse, whatever the default of the installed version is.
    """
    return {"enable_fp_fusion": True} | {o: config[name] for name, o in _OPTIONS.items() if config[name]}


def check_compiles(source: Source) -> None:
    """Raise TargetError for a target that Triton has no compiler for."""
    if source.target.kind not in BINARIES:
        raise TargetError(
            f"Triton does not compile for {source.target.arch}", hint="use a GPU target such as sm_90"
        )


def request_of(source: Source, assumed: Assumed) -> dict[str, Any]:
    """What `triton_child` needs to know beside the text."""
    meta = dict(source.meta)
    signature = {a.name: type_of(a) for a in assumed.args} | {"BLOCK_Q": "constexpr", "BLOCK_K": "constexpr"}
    names = list(signature)
    constants = {"BLOCK_Q": meta["block_q"], "BLOCK_K": meta["block_k"]} | dict.fromkeys(assumed.ones, 1)
    for name in constants:
        signature[name] = "constexpr"
    return {
        "entry": source.entry,
        "kind": source.target.kind,
        "arch": source.target.arch,
        "warp_size": WARP[source.target.kind],
        "signature": signature,
        "constants": {str(names.index(n)): v for n, v in constants.items()},
        "aligned": [names.index(n) for n in assumed.aligned],
        "alignment": ALIGNED,
        "options": {
            "num_warps": meta["num_warps"],
            "num_stages": meta["num_stages"],
            **compiler_options(meta),
        },
    }


def type_of(arg: Arg) -> str:
    """The type of an argument, as Triton calls it."""
    if arg.role in ("pointer", "list_pointer", "order_pointer"):
        return _POINTERS[arg.dtype]
    if arg.role == "param":
        return _PARAMS[arg.dtype]
    return "i64" if arg.dtype == "int64" else "i32"
