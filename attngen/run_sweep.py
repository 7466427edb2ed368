"""Run one sweep of a specification: plan it for the call, load its kernel, allocate, launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from attngen import arguments, pipeline
from attngen.analysed import Analysed, consts_of, specialised
from attngen.arguments import Number, Shapes
from attngen.call_plans import CallPlans
from attngen.errors import DeviceError
from attngen.lang.program import Program
from attngen.run_choice import Choices

if TYPE_CHECKING:
    from attngen.algebra.steps import Rows
    from attngen.backends.base import Call, Kernel
    from attngen.emit.configs import Config
    from attngen.planner.box_call import BoxCall
    from attngen.planner.layout import Boxes
    from attngen.store.settings import Settings

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one call brings: tensors that were checked, on one device, and the backend that was asked for.

    extents   of the ranks of the program's own.
    settings  say how kernels are configured where nobody does; None leaves all at their defaults.
    observer  is told of every sweep of the call, before it runs.
    kernels   run the sweeps of the call where they are given: those of an artefact. Nothing is built then.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    shapes: Shapes
    tensors: Mapping[str, Tensor]
    params: Mapping[str, Number]
    extents: Mapping[str, int]
    backend: str
    settings: Settings | None = None
    observer: Callable[[SweepCall], None] | None = None
    kernels: Kernels | None = None


class Kernels(Protocol):
    """Kernels that were built before the call."""

    def has(self, form: str) -> bool:
        """Whether all kernels of a form are there: "local_then_merge", "scan", "reassociated"."""
        ...

    def launch(self, call: SweepCall, shapes: Shapes, outs: Mapping[str, Tensor]) -> None:
        """Run a sweep. Raises NoVariantError where no kernel suits it."""
        ...


@dataclass(frozen=True, slots=True)
class SweepCall:
    """One run of one sweep: what `SweepRunner.run` was given."""

    runner: SweepRunner
    inputs: Inputs
    heads: int | None
    rows: int | None

    @property
    def shapes(self) -> Shapes:
        """The extents of the kernel."""
        return self.runner.shapes(self.inputs, self.heads, self.rows)


@dataclass(frozen=True, slots=True)
class Ready:
    """A kernel with everything that one launch of it takes."""

    kernel: Kernel
    call: Call

    def launch(self) -> None:
        """Run it."""
        self.kernel.launch(self.call)


class SweepRunner:
    """One program of one fold, with what was planned and loaded for its calls.

    rows   whose rows the fold keeps; "k" runs a program whose queries and keys have changed places.
    exact  outputs over value features that stay in fp32, because later steps compute with them.
    """

    def __init__(self, analysed: Analysed, rows: Rows = "q", exact: frozenset[str] = frozenset()) -> None:
        self.analysed, self.rows, self.exact = analysed, rows, exact
        self.kernels: dict[tuple[object, ...], pipeline.Loaded] = {}
        self.plans = CallPlans(analysed)
        self.choices = Choices()

    @property
    def program(self) -> Program:
        """The program of this sweep."""
        return self.analysed.program

    def run(
        self,
        inputs: Inputs,
        *,
        heads: int | None = None,
        rows: int | None = None,
        config: Config | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of the sweep, by name: `[B, H, *ranks]`.

        `heads` and `rows` are those of the kernel, where they are not those of the call. `config` is the kernel's
        configuration; where none is given the settings say whether a measured one or the default one is taken.
        """
        shapes = self.shapes(inputs, heads, rows)
        outs = {n: self._allocate(n, inputs, shapes) for n in self.program.outputs}
        if not (shapes.batch and shapes.heads and shapes.n_q):
            return outs
        call = SweepCall(self, inputs, heads, rows)
        if inputs.observer is not None:
            inputs.observer(call)
        if inputs.kernels is not None:
            inputs.kernels.launch(call, shapes, outs)
        elif config is not None:
            self.ready(call, shapes, outs, config).launch()
        else:
            self.choices.launch(call, shapes, outs)
        return outs

    def shapes(self, inputs: Inputs, heads: int | None = None, rows: int | None = None) -> Shapes:
        """The extents of the kernel of a call."""
        shapes = inputs.shapes.swapped() if self.rows == "k" else inputs.shapes
        if heads is None and rows is None:
            return shapes
        return replace(shapes, heads=heads or shapes.heads, n_q=shapes.n_q if rows is None else rows)

    def ready(
        self, call: SweepCall, shapes: Shapes, outs: Mapping[str, Tensor], config: Config | None
    ) -> Ready:
        """The kernel of a call, planned and loaded; None stands for the default configuration."""
        inputs = call.inputs
        tensors = {t.name: inputs.tensors[t.name] for t in self.program.tensors}
        boxed = self._box_call(inputs, shapes, tensors, inputs.params, config)
        boxes = None if boxed is None else boxed.boxes
        kernel = self._kernel(inputs, shapes, tensors, inputs.params, boxes, config)
        return self.bound(call, shapes, outs, kernel, boxed)

    def bound(
        self,
        call: SweepCall,
        shapes: Shapes,
        outs: Mapping[str, Tensor],
        kernel: Kernel,
        boxed: BoxCall | None,
    ) -> Ready:
        """A kernel with what a call passes to it: its lists and its order are planned for it."""
        from attngen.backends.base import Call

        inputs = call.inputs
        tensors = {t.name: inputs.tensors[t.name] for t in self.program.tensors}
        params, device = dict(inputs.params), inputs.query.device
        lists = boxed.lists if boxed else self.plans.lists(kernel, shapes, tensors, params, device)
        order = self.plans.order(kernel, lists, boxed, shapes, tensors, params, inputs.query)
        n_q_tiles = None if boxed is None else boxed.n_q_tiles
        return Ready(
            kernel,
            Call(
                inputs.query, inputs.key, inputs.value, outs, tensors, params, lists, n_q_tiles, order,
                swapped=self.rows == "k", heads=call.heads, rows=call.rows,
            ),
        )  # fmt: skip

    def specification(self, call: SweepCall, config: Config | None = None) -> pipeline.Specialisation:
        """What the kernel of a call is specialised on; tiles that are boxes depend on the configuration."""
        inputs, shapes = call.inputs, call.shapes
        tensors = {t.name: inputs.tensors[t.name] for t in self.program.tensors}
        boxed = self._box_call(inputs, shapes, tensors, dict(inputs.params), config)
        return self.special(inputs, shapes, tensors, inputs.params, None if boxed is None else boxed.boxes)

    def allocate(self, call: SweepCall) -> dict[str, Tensor]:
        """The outputs of a call, to be written."""
        return {n: self._allocate(n, call.inputs, call.shapes) for n in self.program.outputs}

    def _allocate(self, name: str, inputs: Inputs, shapes: Shapes) -> Tensor:
        """An output; `O` follows the query's layout, so a `[B, N, H, D]` model reshapes it without a copy."""
        einsum = self.program.einsum(name)
        assert einsum is not None
        query, (b, h, n) = inputs.query, (shapes.batch, shapes.heads, shapes.n_q)
        if einsum.ranks == ("q", "e"):
            dtype = torch.float32 if name in self.exact else query.dtype
            if query.stride(1) < query.stride(2) and h > 1:
                return torch.empty((b, n, h, shapes.value_dim), dtype=dtype, device=query.device).transpose(
                    1, 2
                )
            return torch.empty((b, h, n, shapes.value_dim), dtype=dtype, device=query.device)
        known = {"q": n, "k": shapes.n_k, "d": shapes.head_dim, "e": shapes.value_dim, **inputs.extents}
        shape = (b, h, *(known[r] for r in einsum.ranks))
        fill = pipeline.unvisited(einsum)
        if fill is None:
            return torch.empty(shape, dtype=torch.float32, device=query.device)
        return torch.full(shape, fill, dtype=torch.float32, device=query.device)

    def _box_call(
        self,
        inputs: Inputs,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        config: Config | None = None,
    ) -> BoxCall | None:
        """The box shapes of a call, for a mask over coordinates."""
        device, dtype = inputs.query.device, pipeline.DTYPES[inputs.query.dtype]

        def volume(program: Program) -> tuple[int, int]:
            if config is not None:
                return config.block_q, config.block_k
            target = pipeline.target_of_device(device.type, device.index or 0)
            home = backend_of(inputs.backend, device)
            return pipeline.tile_volume(home, target, dtype, shapes.head_dim, shapes.value_dim, program)

        key = (inputs.backend, dtype, device, config)
        return self.plans.boxes(volume, key, shapes, tensors, params)

    def _kernel(
        self,
        inputs: Inputs,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        boxes: Boxes | None,
        config: Config | None = None,
    ) -> Kernel:
        device, dtype = inputs.query.device, inputs.query.dtype
        consts = consts_of(self.program, params)
        extents = pipeline.kernel_extents(specialised(self.analysed, consts), inputs.extents)
        key = (
            inputs.backend,
            device,
            dtype,
            shapes.head_dim,
            shapes.value_dim,
            params["scale"] > 0,
            consts,
            boxes,
            extents,
            config,
            *(t.dtype for t in tensors.values()),
        )
        loaded = self.kernels.get(key)
        if loaded is None:
            chosen = backend_of(inputs.backend, device)
            if chosen == "cpu" and device.type != "cpu":
                raise DeviceError(f"the cpu backend cannot run tensors on {device}")
            loaded = self.kernels[key] = pipeline.load_kernel(
                chosen,
                pipeline.target_of_device(device.type, device.index or 0),
                self.analysed,
                self.special(inputs, shapes, tensors, params, boxes),
                config,
            )
        arguments.check_divisors(self.program, loaded.divisors, params)
        return loaded.kernel

    def special(
        self,
        inputs: Inputs,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        boxes: Boxes | None,
    ) -> pipeline.Specialisation:
        """What the kernel of a call is specialised on, in tiles of these boxes; `tensors` are the program's own."""
        consts = consts_of(self.program, params)
        return pipeline.Specialisation(
            dtype=pipeline.DTYPES[inputs.query.dtype],
            head_dim=shapes.head_dim,
            value_dim=shapes.value_dim,
            tensors=tuple((n, str(t.dtype).removeprefix("torch."), t.dim()) for n, t in tensors.items()),
            consts=consts,
            scale_positive=bool(params["scale"] > 0),
            boxes=boxes,
            extents=pipeline.kernel_extents(specialised(self.analysed, consts), inputs.extents),
            exact=self.exact,
        )


def backend_of(backend: str, device: torch.device) -> str:
    """The backend that serves a device, where the caller leaves it open."""
    return backend if backend != "auto" else "cpu" if device.type == "cpu" else "triton"
