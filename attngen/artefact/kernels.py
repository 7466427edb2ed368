"""The kernels of an artefact, as a call takes them: chosen, loaded once, and launched."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from attngen import arguments
from attngen.analysed import consts_of
from attngen.artefact.choose import Wanted, candidates, none_suits
from attngen.artefact.manifest import Kernel, identity
from attngen.artefact.read import Opened
from attngen.artefact.targets import accepted, features
from attngen.emit.triton.pack import few_rows

if TYPE_CHECKING:
    from attngen.arguments import Shapes
    from attngen.backends import base
    from attngen.planner.box_call import BoxCall
    from attngen.run_sweep import Ready, SweepCall

Tensor = torch.Tensor

_KEPT = 1024


class ArtefactKernels:
    """Runs the sweeps of an artefact's calls. Calls from several threads at once are fine."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._by_program: dict[str, list[Kernel]] = defaultdict(list)
        for kernel in opened.manifest.kernels:
            self._by_program[kernel.program].append(kernel)
        self._forms = frozenset(opened.manifest.forms)
        self._chosen: dict[tuple[object, ...], tuple[Kernel, ...]] = {}
        self._loaded: dict[tuple[str, torch.device], base.Kernel] = {}
        self._lock = threading.Lock()

    def has(self, form: str) -> bool:
        """Whether all kernels of a form are there."""
        return form in self._forms

    def launch(self, call: SweepCall, shapes: Shapes, outs: Mapping[str, Tensor]) -> None:
        """Run a sweep with the first kernel that suits it. Raises NoVariantError, LoadError, LaunchError."""
        key = _key(call, shapes)
        suiting = self._chosen.get(key)
        if suiting is None:
            suiting = candidates(self._by_program[self._program(call)], self._wanted(call, shapes))
            if len(self._chosen) >= _KEPT:
                self._chosen.clear()
            self._chosen[key] = suiting
        refusals: list[str] = []
        for kernel in suiting:
            arguments.check_divisors(call.runner.program, kernel.divisors, call.inputs.params)
            ready = self._ready(kernel, call, shapes, outs, refusals)
            if ready is not None:
                ready.launch()
                return
        raise none_suits(suiting, self._wanted(call, shapes), also=refusals[0])

    def _program(self, call: SweepCall) -> str:
        analysed = call.runner.analysed
        return identity(analysed.text, analysed.program.outputs)

    def _wanted(self, call: SweepCall, shapes: Shapes) -> Wanted:
        """What a call asks for."""
        inputs, runner = call.inputs, call.runner
        device = inputs.query.device
        tensors = {t.name: inputs.tensors[t.name] for t in runner.program.tensors}
        special = runner.special(inputs, shapes, tensors, inputs.params, None)
        on_cpu = device.type == "cpu"
        name = self._opened.manifest.name
        return Wanted(name, special, accepted(device), features() if on_cpu else None, _rows(call, shapes))

    def _ready(
        self,
        kernel: Kernel,
        call: SweepCall,
        shapes: Shapes,
        outs: Mapping[str, Tensor],
        refusals: list[str],
    ) -> Ready | None:
        """The kernel with what the call passes to it; None, with the reason, where it cannot take that."""
        runner, inputs = call.runner, call.inputs
        boxed: BoxCall | None = None
        if kernel.special.boxes is not None:
            tensors = {t.name: inputs.tensors[t.name] for t in runner.program.tensors}
            boxed = runner.plans.boxed(kernel.special.boxes, shapes, tensors, inputs.params)
            if boxed is None:
                refusals.append("counts on windows that overlap or on whole planes, which this call lacks")
                return None
        loaded = self._load(kernel, inputs.query.device)
        ready = runner.bound(call, shapes, outs, loaded, boxed)
        if kernel.target.kind != "cpu":
            from attngen.artefact.gpu_kernel import GpuKernel

            refusal = loaded.refusal(ready.call) if isinstance(loaded, GpuKernel) else None
            if refusal is not None:
                refusals.append(refusal)
                return None
        return ready

    def _load(self, kernel: Kernel, device: torch.device) -> base.Kernel:
        key = (kernel.name, device)
        loaded = self._loaded.get(key)
        if loaded is None:
            with self._lock:
                loaded = self._loaded.get(key) or load_kernel(self._opened, kernel)
                self._loaded[key] = loaded
        return loaded


def _rows(call: SweepCall, shapes: Shapes) -> int:
    """Rows of a tile that holds those of all heads of a key head; 0 where they are not few, or not of the call."""
    if call.heads is not None or call.rows is not None:
        return 0
    return few_rows(shapes.n_q, shapes.heads // (shapes.kv_heads or 1))


def _key(call: SweepCall, shapes: Shapes) -> tuple[object, ...]:
    """Equal for calls of one sweep that ask for the same kernel."""
    inputs, program = call.inputs, call.runner.program
    tensors = [inputs.tensors[t.name] for t in program.tensors]
    return (
        id(call.runner),
        inputs.query.dtype,
        inputs.query.device,
        shapes.head_dim,
        shapes.value_dim,
        inputs.params["scale"] > 0,
        consts_of(program, inputs.params),
        tuple(inputs.extents.items()),
        _rows(call, shapes),
        *((t.dtype, t.dim()) for t in tensors),
    )


def load_kernel(opened: Opened, kernel: Kernel) -> base.Kernel:
    """The kernel of an artefact, its bytes compared with the manifest. Raises ArtefactError, LoadError."""
    if kernel.target.kind == "cpu":
        from attngen.backends.cpu import CpuKernel, open_library
        from attngen.emit.cpu_config import CpuConfig

        assert kernel.layout is not None
        assert isinstance(kernel.config, CpuConfig)
        entry = open_library(opened.path(kernel.files["binary"]), kernel.entry)
        return CpuKernel(entry, kernel.layout, kernel.config, {})
    from attngen.artefact.gpu_kernel import GpuKernel

    return GpuKernel(kernel, opened.data(kernel.files["binary"]))
