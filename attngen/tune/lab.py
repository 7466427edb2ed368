"""The machine as the search sees it: one sweep of one call, its candidates built, checked and timed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from attngen import pipeline
from attngen.backends.cpu import CpuKernel
from attngen.emit.triton.config import SHARED_BYTES
from attngen.errors import AttngenError, ResourceError
from attngen.run_choice import packed_of
from attngen.run_sweep import Ready, SweepCall, backend_of
from attngen.tune import child
from attngen.tune.check import Expected, expected_of, mistake_of, small_call
from attngen.tune.measurement import Measurement
from attngen.tune.pool import Built, Job, Pool
from attngen.tune.shrink import smaller
from attngen.tune.timer import Timer, timer_for

if TYPE_CHECKING:
    from attngen.emit.configs import Config
    from attngen.emit.spec import KernelSpec, Target

log = logging.getLogger("attngen.tune")


def within(built: Built[Config], target: Target) -> Built[Config]:
    """The verdict, `oom` where the compiler took more shared memory than the target has."""
    most = SHARED_BYTES.get(target.arch)
    took = built.facts.get("shared", 0)
    if most is None or took <= most:
        return built
    return replace(built, status="oom", note=f"{took} bytes of shared memory, the target has {most}")


def _on_one_thread(ready: Ready) -> Ready:
    kernel = ready.kernel
    return Ready(kernel.with_threads(1), ready.call) if isinstance(kernel, CpuKernel) else ready


def _threads(call: SweepCall) -> int:
    """The threads of every launch of a call; they are chosen among those that torch uses where nobody says."""
    given = None if call.inputs.settings is None else call.inputs.settings.threads
    return given or torch.get_num_threads()


class SweepLab:
    """Candidates of one sweep. A context: its compiling processes end with it.

    one_thread  whether launches of C++ are timed on one thread, by its own clock: beside other work on the machine
                the time of several threads is that of the one which waits longest for a processor.
    """

    def __init__(
        self,
        call: SweepCall,
        *,
        timer: Timer | None = None,
        most_limit_s: float = 300.0,
        one_thread: bool = False,
    ) -> None:
        device = call.inputs.query.device
        self.call = call
        self.kind = backend_of(call.inputs.backend, device)
        self.backend = pipeline.backend_named(self.kind)
        self.target = pipeline.target_of_device(device.type, device.index or 0)
        self._unset = self.backend.config(self.spec(None), self.target)
        self.one_thread = one_thread and self.kind == "cpu"
        self._timer = timer or timer_for(device, 1 if self.one_thread else _threads(call))
        self._ready: dict[Config, Ready] = {}
        self._outs = call.runner.allocate(call)
        self.default = self._first_that_runs()
        self._expected: list[Expected] = []
        self._stack = ExitStack()
        self._pool: Pool[Config] = self._stack.enter_context(Pool(self.kind, most_limit_s=most_limit_s))

    def spec(self, config: Config | None) -> KernelSpec:
        """What a candidate's kernel is made of; boxes depend on the configuration."""
        return pipeline.kernel_spec(
            self.call.runner.analysed, self.call.runner.specification(self.call, config)
        )

    def build(self, configs: Sequence[Config]) -> Iterator[Built[Config]]:
        """Compile them in processes of their own."""
        jobs: list[Job[Config]] = []
        for config in configs:
            try:
                spec = self.spec(config)
            except AttngenError as error:
                yield Built(config, "compile_error", 0.0, error.message)
                continue
            jobs.append(Job(config, child.build, (self.kind, spec, self.target, config)))
        for built in self._pool.build(jobs):
            yield within(built, self.target)

    def check(self, config: Config) -> Measurement:
        """Compare its results with the default's and with float64."""
        if not self._expected:
            small = small_call(self.call)
            given = self._given(self.default)
            self._expected = [expected_of(c, given) for c in (self.call, small) if c is not None]
        try:
            for expected in self._expected:
                mistake = mistake_of(expected, config)
                if mistake is not None:
                    log.warning("%s computes something else: %s", config, mistake)
                    return Measurement(config, "wrong", note=mistake)
        except ResourceError as error:
            return Measurement(config, "oom", note=error.message[:300])
        except torch.OutOfMemoryError as error:
            return Measurement(config, "oom", note=str(error)[:300])
        except AttngenError as error:
            return Measurement(config, "compile_error", note=error.message[:300])
        return Measurement(config)

    def sample(self, config: Config) -> float:
        """Seconds of a launch."""
        ready = self._ready.get(config)
        if ready is None:
            ready = self.call.runner.ready(self.call, self.call.shapes, self._outs, self._given(config))
            if self.one_thread:
                ready = _on_one_thread(ready)
            ready.launch()
            self._ready[config] = ready
        return self._timer.seconds(ready.launch)

    def release(self, config: Config) -> None:
        """Let go of what a launch of it needs."""
        self._ready.pop(config, None)

    def _given(self, config: Config) -> Config | None:
        """As a sweep takes it."""
        return None if config == self._unset else config

    def _first_that_runs(self) -> Config:
        """The default configuration, or the first smaller one that the device has room for."""
        first = packed_of(self.call) or self._unset
        for config in (first, *smaller(first)):
            try:
                self.call.runner.ready(self.call, self.call.shapes, self._outs, self._given(config)).launch()
            except ResourceError as error:
                log.debug("%s is too big: %s", config, error.message)
                continue
            return config
        raise ResourceError("the device has no room for the smallest configuration of the kernel")

    def __enter__(self) -> SweepLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
