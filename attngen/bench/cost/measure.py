"""Times of one call's kernels in several configurations, and the work that the cost model counts for each."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from attngen.api import load
from attngen.bench.cost.cases import CostCase
from attngen.cost.cpu import launch_work, unevenness
from attngen.cost.cpu_work import VECTORS
from attngen.cost.model import CallModel
from attngen.emit.configs import config_to_json
from attngen.emit.cpu_config import CpuConfig
from attngen.sample_values import TORCH_DTYPES, make_qkv, with_samples
from attngen.tune.lab import SweepLab
from attngen.tune.space import space_of

if TYPE_CHECKING:
    from attngen.emit.configs import Config
    from attngen.run_sweep import SweepCall

# Tiles are drawn from these; the default is always among what is measured.
_ROWS, _KEYS = (32, 64, 128, 256, 512), (24, 48, 96, 192, 288, 384)


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration of one kernel of one call.

    seconds    median over the rounds.
    imbalance  by which the longest thread's work exceeds the average.
    work       quantities of the launch, as `cpu_work` counts them.
    """

    group: str
    program: str
    config: dict[str, int | bool | str]
    threads: int
    is_default: bool
    seconds: float
    imbalance: float
    work: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def measure(case: CostCase, configs: int, rounds: int, seed: int, threads: int) -> Iterator[Point]:
    """Time `configs` configurations of every kernel of a call, in turn, `rounds` times over."""
    spec = load(case.program, None, **case.values)
    qkv = make_qkv(1, case.heads, case.kv_heads, case.n_q, case.n_k, case.head_dim, case.value_dim)
    query, key, value = (t.to(TORCH_DTYPES[case.dtype]) for t in qkv)
    tensors = with_samples(spec, (query, key, value), {})
    for i, call in enumerate(spec.sweeps(query, key, value, tensors=tensors, backend="cpu", run=True)):
        yield from _measured(f"{case.name} #{i}", case.program, call, (configs, rounds, seed, threads))


def _measured(group: str, program: str, call: SweepCall, how: tuple[int, int, int, int]) -> Iterator[Point]:
    configs, rounds, seed, threads = how
    with torch.no_grad(), SweepLab(call, one_thread=threads == 1) as lab:
        chosen = _drawn(lab, configs, random.Random(f"{seed} {group}"))
        built = {b.label for b in lab.build(chosen) if b.status == "ok"}
        ready = [c for c in chosen if c in built]
        times: dict[Config, list[float]] = {c: [] for c in ready}
        order = random.Random(seed)
        for _ in range(rounds):
            order.shuffle(ready)
            for config in ready:
                times[config].append(lab.sample(config))
        model = CallModel(call, threads)
        for config in chosen:
            if config in built:
                assert isinstance(config, CpuConfig)
                yield _point(
                    group, program, config, lab.default == config, model, statistics.median(times[config])
                )


def _drawn(lab: SweepLab, count: int, rng: random.Random) -> list[Config]:
    """The default configuration and legal ones at random."""
    space = space_of(lab.default, lab.spec(None), lab.target)
    some = [CpuConfig(rows, keys) for rows in _ROWS for keys in _KEYS]
    legal = [c for c in some if c != lab.default and space.legal(c)]
    return [lab.default, *rng.sample(legal, min(count - 1, len(legal)))]


def _point(
    group: str, program: str, config: CpuConfig, is_default: bool, model: CallModel, seconds: float
) -> Point:
    spec, visits = model.spec(config), model.visits(config, VECTORS * model.core.lanes)
    uneven = unevenness(spec, visits, model.threads)
    kept = {n: amount for n, amount in work_of(model, config).items() if amount}
    return Point(
        group, program, config_to_json(config), model.threads, is_default,
        float(f"{seconds:.6g}"), round(uneven, 4), kept,
    )  # fmt: skip


def work_of(model: CallModel, config: CpuConfig) -> dict[str, float]:
    """The work of one configuration, to six digits."""
    visits = model.visits(config, VECTORS * model.core.lanes)
    work = launch_work(model.spec(config), visits, model.core, model.group)
    return {n: float(f"{amount:.6g}") for n, amount in work.items()}
