"""What the cost model says of the configurations of a call: `attngen tune --predict`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attngen.cost.model import CallModel
from attngen.emit.target import parse_target
from attngen.emit.triton.config import TritonConfig
from attngen.errors import CompileError
from attngen.tune.pick import candidates
from attngen.tune.space import space_of

if TYPE_CHECKING:
    from torch import Tensor

    from attngen.api import Attention
    from attngen.cost.estimate import Estimate
    from attngen.emit.configs import Config

_SHOWN, _DRAWN, _SEED = 8, 24, 0


@dataclass(frozen=True, slots=True)
class How:
    """What is shown: for a target that need not be here, with so many compiled, and all that was tried."""

    target: str | None
    compiled: int
    verbose: bool


def show_predictions(
    spec: Attention, qkv: tuple[Tensor, Tensor, Tensor], tensors: Mapping[str, object], how: How
) -> int:
    """Print the default configuration and the best of others for each kernel, with what takes the time."""
    where = None if how.target is None else parse_target(how.target)
    backend = "cpu" if where is None or where.kind == "cpu" else "triton"
    for call in spec.sweeps(*qkv, tensors=tensors, backend=backend, run=where is None):
        model = CallModel(call, target=where)
        default, found = _estimates(model)
        if how.compiled and model.kind == "triton" and default is not None:
            default, found = _by_code(model, default, found[: how.compiled])
        print(f"{', '.join(call.runner.program.outputs)} on {model.target.arch}")
        if default is None:
            print("  nothing is known of this target")
            continue
        print(f"  default  {default.text()}")
        for estimate in found if how.verbose else found[:_SHOWN]:
            print(f"  {default.seconds / estimate.seconds:6.2f}x  {estimate.text()}")
    return 0


def _estimates(model: CallModel) -> tuple[Estimate | None, list[Estimate]]:
    """The default's prediction, and those of others, the fastest first."""
    kernel, default = model.default()
    space = space_of(default, kernel, model.target)
    rng = random.Random(_SEED)
    drawn = [c for _ in range(_DRAWN) if (c := space.drawn(rng)) is not None]
    tried: dict[Config, None] = dict.fromkeys([*candidates(default), *space.neighbours(default), *drawn])
    found = [e for c in tried if c != default and c in space and (e := model.estimate(c)) is not None]
    return model.estimate(default), sorted(found, key=lambda e: e.seconds)


def _by_code(
    model: CallModel, default: Estimate, found: Sequence[Estimate]
) -> tuple[Estimate | None, list[Estimate]]:
    """The same by the figures of compiled code; what the compiler refuses is left out, with a line."""
    from attngen.cost.gpu_tile import compiled_cycles
    from attngen.static.inspect_kernel import inspect_kernel

    refused: set[Config] = set()
    for estimate in (default, *found):
        config = estimate.config
        assert isinstance(config, TritonConfig)
        try:
            model.inspected(config, compiled_cycles(inspect_kernel(model.spec(config), model.target, config)))
        except CompileError as error:
            refused.add(config)
            print(f"  {estimate.text()}\n    does not compile: {error.message}")
    again = [model.estimate(f.config) for f in found if f.config not in refused]
    return model.estimate(default.config), sorted(
        (e for e in again if e is not None), key=lambda e: e.seconds
    )
