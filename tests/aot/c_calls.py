"""Calls of an artefact through its C interface: the launcher is compiled, its struct read off the header."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import torch

STATUS = ("OK", "INVALID", "NO_VARIANT", "NOT_LOADED", "NO_MEMORY", "NO_DEVICE", "NOT_LAUNCHED")
DTYPES = ("", "float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
_TYPES = {"int64_t": ctypes.c_int64, "int": ctypes.c_int, "double": ctypes.c_double}


class CallError(Exception):
    """A call that failed: `status` and the text."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class Choice(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_char_p),
        *((name, ctypes.c_int64) for name in ("block_q", "block_k", "tiles", "key_tiles", "programs")),
        *((name, ctypes.c_int) for name in ("packed", "takes_lists", "takes_order")),
    ]


def compiled(artefact: Path, folder: Path, *flags: str) -> Path:
    """The launcher as a shared object, compiled without a warning."""
    out = folder / f"lib{artefact.name}.so"
    strict = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1")
    text = artefact / f"{artefact.name}.c"
    command = ("cc", *strict, *flags, "-shared", "-fPIC", text, "-o", out, "-ldl", "-lpthread")
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def struct_of(header: str, prefix: str) -> type[ctypes.Structure]:
    """The struct of arguments as the header declares it."""
    body = re.search(rf"typedef struct {prefix}_args {{(.*?)}} {prefix}_args;", header, re.DOTALL)
    assert body is not None
    fields: list[tuple[str, object]] = []
    for statement in re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL).split(";"):
        if not statement.strip():
            continue
        kind, names = re.fullmatch(r"\s*((?:const )?\w+) (.*)", statement, re.DOTALL).groups()
        for declared in names.split(","):
            name, count = re.fullmatch(r"\s*(\**\w+)(?:\[(\d+)\])?\s*", declared).groups()
            of = ctypes.c_void_p if name.startswith("*") else _TYPES.get(kind, ctypes.c_int)
            fields.append((name.lstrip("*"), of * int(count) if count else of))
    return type("Args", (ctypes.Structure,), {"_fields_": fields})


class CArtefact:
    """An artefact behind its C interface."""

    def __init__(self, artefact: Path, folder: Path, *flags: str) -> None:
        self.name = artefact.name
        self.header = (artefact / f"{self.name}.h").read_text()
        self.code = ctypes.CDLL(str(compiled(artefact, folder, *flags)))
        self.library = ctypes.c_void_p()
        getattr(self.code, f"{self.name}_error").restype = ctypes.c_char_p
        self._check(
            getattr(self.code, f"{self.name}_open")(str(artefact).encode(), ctypes.byref(self.library))
        )

    def close(self) -> None:
        getattr(self.code, f"{self.name}_close")(self.library)

    def args(self, inputs, outputs, tensors, params, prefix: str | None = None):
        """Arguments of a call; `outputs` by name."""
        prefix = prefix or self.name
        args = struct_of(self.header, prefix)()
        getattr(self.code, f"{prefix}_init")(ctypes.byref(args))
        q, k, v = inputs
        args.dtype = DTYPES.index(str(q.dtype).removeprefix("torch."))
        args.n_b, args.n_h, args.n_q, args.head_dim = q.shape
        args.n_kv, args.n_k, args.value_dim = k.shape[1], k.shape[2], v.shape[3]
        known = {name for name, _ in args._fields_}
        for name, tensor in {"Q": q, "K": k, "V": v, **outputs, **tensors}.items():
            if name not in known:
                continue
            setattr(args, name, tensor.data_ptr())
            if tensor.dim():
                getattr(args, f"{name}_stride")[:] = tensor.stride()
            if name in tensors:
                if tensor.dim():
                    getattr(args, f"{name}_size")[:] = tensor.shape
                if f"{name}_dtype" in known:
                    setattr(args, f"{name}_dtype", DTYPES.index(str(tensor.dtype).removeprefix("torch.")))
        for name, value in params.items():
            if name in known:
                setattr(args, name, value)
        args.kept = (inputs, outputs, tensors)  # the struct holds addresses only
        return args

    def run(self, args, prefix: str | None = None) -> None:
        """Raises CallError."""
        self._check(getattr(self.code, f"{prefix or self.name}_run")(self.library, ctypes.byref(args)))

    def choose(self, args, prefix: str | None = None) -> Choice:
        choice = Choice()
        self._check(
            getattr(self.code, f"{prefix or self.name}_choose")(
                self.library, ctypes.byref(args), ctypes.byref(choice)
            )
        )
        return choice

    def _check(self, status: int) -> None:
        if status:
            raise CallError(STATUS[status], getattr(self.code, f"{self.name}_error")().decode())


def empty_outputs(expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs that hold nothing right."""
    return {name: torch.full_like(t, 7) for name, t in expected.items()}
