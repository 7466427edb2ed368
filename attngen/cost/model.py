"""Predictions for the configurations of one sweep of one call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attngen import arguments, pipeline
from attngen.cost.core import core_of
from attngen.cost.cpu import cpu_estimate
from attngen.cost.cpu_work import VECTORS
from attngen.cost.gpu import gpu_estimate
from attngen.cost.gpu_tile import counted_cycles
from attngen.cost.gpus import GPUS, Gpu
from attngen.cost.visits import Call, Visits, visits_of
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.triton.config import TritonConfig
from attngen.run_sweep import backend_of

if TYPE_CHECKING:
    from attngen.cost.estimate import Estimate
    from attngen.cost.gpu_tile import TileCycles
    from attngen.emit.configs import Config
    from attngen.emit.spec import KernelSpec, Target
    from attngen.run_sweep import SweepCall


def kind_of(target: Target) -> str:
    """The backend of a target."""
    return "cpu" if target.kind == "cpu" else "triton"


def here(target: Target, device: torch.device) -> Gpu | None:
    """The GPU that a call's tensors lie on: its architecture's figures, with as many units as it has itself."""
    if device.type != "cuda" or target.arch not in GPUS:
        return None
    return replace(GPUS[target.arch], units=torch.cuda.get_device_properties(device).multi_processor_count)


class CallModel:
    """The cost model of one call: schedules and counts its candidates, each once.

    threads  of launches on a CPU whose configuration does not say; None: those of the settings, or torch's.
    target   a machine that need not be here; None: the one that the call's tensors lie on.
    """

    def __init__(self, call: SweepCall, threads: int | None = None, target: Target | None = None) -> None:
        inputs, device = call.inputs, call.inputs.query.device
        self.call = call
        self.target = target or pipeline.target_of_device(device.type, device.index or 0)
        self.kind = backend_of(inputs.backend, device) if target is None else kind_of(target)
        given = None if inputs.settings is None else inputs.settings.threads
        self.threads = threads or given or torch.get_num_threads()
        self.core = core_of(self.target)
        shapes = call.shapes
        self.group = max(shapes.heads // max(shapes.kv_heads, 1), 1)
        analysed = call.runner.plans.scheduled(shapes, inputs.params)
        tensors = {t.name: inputs.tensors[t.name] for t in call.runner.program.tensors}
        self._call = Call(
            analysed.program, pipeline.plan_of(analysed), {**inputs.params, **arguments.as_numpy(tensors)},
            shapes.n_q, shapes.n_k, shapes.batch, shapes.heads,
        )  # fmt: skip
        self._visits: dict[tuple[int, int, bool], Visits] = {}
        self._inspected: dict[Config, TileCycles] = {}
        self._gpu = here(self.target, device) if target is None else None

    @property
    def is_closed(self) -> bool:
        """Whether schedules of other tiles cost next to nothing: those in closed form do."""
        plan = self._call.plan
        return plan.ranges is not None or (plan.boxes is not None and bool(plan.boxes.runs))

    @property
    def is_in_rows(self) -> bool:
        """Whether tiles are runs of tokens, by a schedule in closed form."""
        return self._call.plan.ranges is not None

    def predict(self, config: Config) -> float | None:
        """Seconds of a launch; None for what the model does not know."""
        found = self.estimate(config)
        return None if found is None else found.seconds

    def estimate(self, config: Config) -> Estimate | None:
        """The prediction, and what it is made of."""
        spec = self.spec(config)
        if isinstance(config, CpuConfig):
            visits = self.visits(config, VECTORS * self.core.lanes)
            return cpu_estimate(spec, config, visits, self.core, group=self.group, threads=self.threads)
        if self.target.arch not in GPUS:
            return None  # the interpreter, and GPUs that nothing is known of
        cycles = self._inspected.get(config) or counted_cycles(spec, config, self.target)
        return gpu_estimate(
            spec, config, self.target, self.visits(config), cycles,
            group=1 if config.pack_heads else self.group, gpu=self._gpu,
        )  # fmt: skip

    def inspected(self, config: Config, cycles: TileCycles) -> None:
        """Predict with the figures of compiled code from now on, for one configuration."""
        self._inspected[config] = cycles

    def spec(self, config: Config) -> KernelSpec:
        """What a candidate's kernel is made of."""
        runner = self.call.runner
        return pipeline.kernel_spec(runner.analysed, runner.specification(self.call, config))

    def default(self) -> tuple[KernelSpec, Config]:
        """The kernel that the call has where no configuration is given, and its configuration."""
        runner = self.call.runner
        spec = pipeline.kernel_spec(runner.analysed, runner.specification(self.call))
        return spec, pipeline.backend_named(self.kind).config(spec, self.target)

    def visits(self, config: Config, panel: int = 0) -> Visits:
        """The tiles that a candidate visits; `panel` queries of it share a look at the mask."""
        packs = isinstance(config, TritonConfig) and config.pack_heads
        key = (config.block_q, config.block_k, packs)
        if key not in self._visits:
            boxes = self.spec(config).boxes
            self._visits[key] = (
                self._packed(config.block_q, config.block_k)
                if packs
                else visits_of(self._call, config.block_q, config.block_k, boxes, panel)
            )
        return self._visits[key]

    def _packed(self, rows: int, keys: int) -> Visits:
        """The tiles of rows of all query heads of a key head: of fewer queries each, and of fewer heads."""
        queries, times = max(rows // self.group, 1), -(-self.group // rows)
        call = replace(self._call, heads=self._call.heads // self.group)
        found = visits_of(call, queries, keys, None)
        return replace(found, partial=found.partial.repeat(times, -1), full=found.full.repeat(times, -1))
