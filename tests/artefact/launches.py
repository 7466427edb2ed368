"""Launches of programs as they reach kernels, and manifests of kernels that take them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from attngen import pipeline
from attngen.artefact.driver import CudaDriver, Driver, HipDriver
from attngen.artefact.manifest import Kernel, Launch
from attngen.backends.base import Call
from attngen.backends.triton import TritonBackend, TritonKernel
from attngen.backends.triton_request import type_of
from attngen.emit.spec import KernelSpec, Target
from attngen.emit.triton.assume import assume
from attngen.emit.triton.names import Alignment
from attngen.pipeline import Specialisation

SM_90 = Target("cuda", "sm_90")
SIZES = {"i64": 8, "i32": 4, "fp32": 4, "i1": 1}


class Launched:
    """The specification, the kernel and the call of each launch of the Triton backend; `run` launches them too."""

    def __init__(self, monkeypatch, *, run: bool = False):
        self.seen: list[tuple[KernelSpec, TritonKernel, Call]] = []
        specs: dict[int, KernelSpec] = {}
        kept: list[TritonKernel] = []  # keeps ids from being reused
        load, launch = TritonBackend.load, TritonKernel.launch

        def loaded(backend, spec, target, config=None):
            kernel = load(backend, spec, target, config)
            kept.append(kernel)
            specs[id(kernel)] = spec
            return kernel

        def launched(kernel, call):
            self.seen.append((specs[id(kernel)], kernel, call))
            if run:
                launch(kernel, call)

        pipeline.load_kernel.cache_clear()
        monkeypatch.setattr(TritonBackend, "reopen", lambda *_: None)
        monkeypatch.setattr(TritonBackend, "load", loaded)
        monkeypatch.setattr(TritonKernel, "launch", launched)


def built(spec: KernelSpec, config, alignment: Alignment, target: Target = SM_90, **launch: int) -> Kernel:
    """The manifest of a kernel of a specification that nobody compiled."""
    assumed = assume(spec, alignment)
    return Kernel(
        name=f"{target.arch}/fake",
        program="0" * 64,
        form="one_pass",
        step=0,
        rows="q",
        target=target,
        special=Specialisation(spec.dtype, spec.head_dim, spec.value_dim),
        config=config,
        entry="fake_entry",
        launch=Launch("1", "1", **{"threads": 256, **launch}),
        args=assumed.args,
        alignment=alignment,
        aligned=assumed.aligned,
        ones=assumed.ones,
    )


def module_of(kernel: Kernel) -> bytes:
    """What the fake driver takes for a module: the sizes of the parameters, by the types that Triton is told."""
    types = [type_of(a) for a in kernel.args if a.name not in kernel.ones]
    return " ".join(str(8 if t.startswith("*") else SIZES[t]) for t in [*types, "*", "*"]).encode()


@dataclass
class FakeGpu:
    """The fake driver, with what it wrote down."""

    library: ctypes.CDLL

    def driver(self, kind: str = "cuda") -> Driver:
        return {"cuda": CudaDriver, "hip": HipDriver}[kind](self.library)

    def lines(self) -> list[str]:
        return self.library.fake_log().decode().splitlines()

    def launches(self) -> list[list[str]]:
        return [line.split() for line in self.lines() if line.startswith("launch")]

    def params(self) -> list[bytes]:
        """The parameters of the only launch."""
        (line,) = self.launches()
        return [bytes.fromhex(word) for word in line[line.index("params") + 1 :]]

    def fail(self, name: str, code: int) -> None:
        self.library.fake_fail(name.encode(), code)


def moved(spec, tensors: dict[str, torch.Tensor], device: str):
    """A specification and its tensors on a device."""
    bound = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in spec.values.items()}
    return type(spec).from_program(spec.program, bound), {n: t.to(device) for n, t in tensors.items()}
