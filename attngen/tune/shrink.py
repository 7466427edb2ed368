"""Smaller configurations, in the order in which they are tried where a kernel takes more than there is.

Triton  fewer tiles in flight, then fewer keys, then fewer rows, then fewer warps; no limit on registers
C++     fewer keys, then fewer rows, then one thread
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from attngen.emit.configs import Config
from attngen.emit.cpu_config import KEY_STEP, QUERY_STEP, CpuConfig
from attngen.emit.triton.config import MIN_BLOCK

if TYPE_CHECKING:
    from attngen.emit.triton.config import TritonConfig
    from attngen.run_sweep import SweepCall


def default_of(call: SweepCall) -> Config:
    """The configuration that a call takes where none is given."""
    from attngen import pipeline
    from attngen.run_choice import packed_of
    from attngen.run_sweep import backend_of

    packed = packed_of(call)
    if packed is not None:
        return packed
    device = call.inputs.query.device
    backend = pipeline.backend_named(backend_of(call.inputs.backend, device))
    spec = pipeline.kernel_spec(call.runner.analysed, call.runner.specification(call))
    return backend.config(spec, pipeline.target_of_device(device.type, device.index or 0))


def smaller(config: Config) -> Iterator[Config]:
    """Configurations that take less and less, ending with the smallest there is."""
    while True:
        less = _cpu_less(config) if isinstance(config, CpuConfig) else _triton_less(config)
        if less is None:
            return
        yield less
        config = less


def _triton_less(config: TritonConfig) -> TritonConfig | None:
    if config.max_registers:
        return replace(config, max_registers=0)
    if config.num_stages > 1:
        return replace(config, num_stages=config.num_stages - 1)
    if config.block_k > MIN_BLOCK:
        return replace(config, block_k=max(config.block_k // 2, MIN_BLOCK))
    if config.block_q > MIN_BLOCK:
        return replace(config, block_q=max(config.block_q // 2, MIN_BLOCK))
    if config.num_warps > 1:
        return replace(config, num_warps=config.num_warps // 2)
    return None


def _cpu_less(config: CpuConfig) -> CpuConfig | None:
    if config.block_k > KEY_STEP and config.block_k % KEY_STEP == 0:
        return replace(config, block_k=max(config.block_k // 2 // KEY_STEP, 1) * KEY_STEP)
    if config.block_q > QUERY_STEP:
        return replace(config, block_q=max(config.block_q // 2 // QUERY_STEP, 1) * QUERY_STEP)
    if config.threads != 1:
        return replace(config, threads=1)
    return None
