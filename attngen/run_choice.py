"""Which configuration a launch takes: a measured one, else one predicted to be much faster than the default, else that.

The default is the kernel's own or, where a call has few rows for each key head, the packed variant of it (`pack`).

A call looks one bucket up in a dictionary. What a bucket takes is decided once a process, by `attngen.tune.decide`. A
configuration that is too big for the device makes room for smaller ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attngen.emit.triton.pack import few_rows, packed
from attngen.errors import (
    AttngenError,
    CacheError,
    CompileError,
    CompilerNotFoundError,
    LaunchError,
    LoadError,
    ResourceError,
)
from attngen.tune.bucket import call_bucket

if TYPE_CHECKING:
    import torch

    from attngen.arguments import Shapes
    from attngen.emit.configs import Config
    from attngen.run_sweep import SweepCall
    from attngen.store.settings import Settings

log = logging.getLogger("attngen.tune")

_KEPT = 1024
JOURNALS = "tuning"  # the folder of the cache directory in which measurements are kept

_LEAST_WORK = 1 << 22  # multiply-adds of a call, most of them in the products
_TALLEST, _ROWS_A_UNIT = 256, 4

# What may be wrong with a configuration, and is then not wrong with the call.
_ITS_FAULT = (CacheError, CompileError, CompilerNotFoundError, LaunchError, LoadError)

_epoch = [0]


def forget_choices() -> None:
    """Let every bucket be decided anew: something was measured."""
    _epoch[0] += 1


class Choices:
    """The configurations that the calls of one sweep take, by bucket; None stands for the default one."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Config | None] = {}

    def launch(self, call: SweepCall, shapes: Shapes, outs: Mapping[str, torch.Tensor]) -> None:
        """Run a call with what its bucket takes."""
        key = self._key(call, shapes)
        try:
            config = self._known[key]
        except KeyError:
            config = self._decided(key, call)
        try:
            call.runner.ready(call, shapes, outs, config).launch()
        except ResourceError as error:
            self._shrink(key, call, shapes, outs, config, error)
        except _ITS_FAULT as error:
            if config is None:
                raise
            log.warning(
                "the configuration %s cannot be used, the plain default is: %s", config, error.message
            )
            self._known[key] = None
            self.launch(call, shapes, outs)

    def _key(self, call: SweepCall, shapes: Shapes) -> tuple[object, ...]:
        inputs = call.inputs
        query = inputs.query
        return (
            inputs.settings,
            _epoch[0],
            inputs.backend,
            query.dtype,
            query.device,
            call_bucket(shapes, inputs.params),
            few_rows(shapes.n_q, shapes.heads // (shapes.kv_heads or 1)),
        )

    def _decided(self, key: tuple[object, ...], call: SweepCall) -> Config | None:
        settings = call.inputs.settings
        config = None
        if settings is not None and _may_be_known(settings):
            from attngen.tune.decide import decide

            config = decide(call, settings)
        elif settings is not None and settings.tune != "off" and may_gain(call):
            from attngen.tune.decide import predicted

            config = predicted(call, settings)
        config = config or packed_of(call)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = config
        return config

    def _shrink(
        self,
        key: tuple[object, ...],
        call: SweepCall,
        shapes: Shapes,
        outs: Mapping[str, torch.Tensor],
        config: Config | None,
        error: ResourceError,
    ) -> None:
        """Run with the first smaller configuration that the device has room for, and keep to it."""
        from attngen.tune.shrink import default_of, smaller

        for tried in smaller(config or default_of(call)):
            try:
                call.runner.ready(call, shapes, outs, tried).launch()
            except AttngenError as refused:
                log.debug("%s does not run either: %s", tried, refused.message)
                continue
            log.warning("%s; %s is used from now on", error.message, tried)
            self._known[key] = tried
            return
        raise error


def packed_of(call: SweepCall) -> Config | None:
    """The default of a call of few rows, whose tiles hold rows of several heads; None for any other call."""
    from attngen import pipeline
    from attngen.run_sweep import backend_of

    inputs, shapes = call.inputs, call.shapes
    device, group = inputs.query.device, shapes.heads // (shapes.kv_heads or 1)
    of_its_own = call.heads is not None or call.rows is not None
    if of_its_own or not few_rows(shapes.n_q, group) or backend_of(inputs.backend, device) != "triton":
        return None
    target = pipeline.target_of_device(device.type, device.index or 0)
    special = call.runner.specification(call)
    config = pipeline.packable(target, call.runner.analysed, special)
    return None if config is None else packed(config, special.dtype, shapes.n_q, group)


def _may_be_known(settings: Settings) -> bool:
    """Whether there is anything to look for; one question to the file system."""
    policy = settings.tune
    return policy != "off" and (policy != "cached" or (settings.cache_dir / JOURNALS).is_dir())


def may_gain(call: SweepCall) -> bool:
    """Whether the cost model is worth asking: of work that takes time, with rows too few to keep all units busy.

    Where rows are many, its candidates differ from the default by less than it can tell; where they are packed, they
    are as few as they can be. It is not imported for either.
    """
    shapes, device = call.shapes, call.inputs.query.device
    work = shapes.batch * shapes.heads * shapes.n_q * shapes.n_k * (shapes.head_dim + shapes.value_dim)
    rows = shapes.batch * shapes.heads * -(-shapes.n_q // _TALLEST)
    few = work >= _LEAST_WORK and rows < _ROWS_A_UNIT * _units(call, device)
    return few and packed_of(call) is None


def _units(call: SweepCall, device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    settings = call.inputs.settings
    return (settings.threads if settings is not None else None) or torch.get_num_threads()
