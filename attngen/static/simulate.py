"""Simulate the warps of one sub-partition of an SM through a loop, in order, with the code's own scheduling words.

Every cycle at most one warp issues: the earliest that its stall count, its scoreboards and the unit it needs allow.
Units are held as long as `mix.Cost` says. Results of on-chip operations with a scoreboard come after `_LATENCY`
cycles. A matrix instruction of a warp waits for the tensor core; one of a warpgroup joins its queue, and
`WARPGROUP.DEPBAR` waits for the queue. `BAR.SYNC` waits for the warps of the same thread block.

What this leaves out is on time always: global memory, TMA, mbarriers, the bandwidth of shared memory and of the L2,
the clock under load, prologue and epilogue. So a score is an upper estimate, and one to compare kernels by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from attngen.static.mix import Cost
from attngen.static.sass import NO_SCOREBOARD, Instruction

ITERATIONS = 8
# Cycles until the result of an operation with a scoreboard is there, measured on NVIDIA GPUs by others; 6 for the rest.
_LATENCY = {"exp2": 20, "special": 20, "shuffle": 24, "lds": 30, "ldsm": 33}
_SHORT = 6
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction as the simulation needs it."""

    code: Instruction
    cost: Cost
    is_queued: bool  # runs beside the warp that issued it
    closes_group: bool  # a later wait may be for it and all before it
    waits_tensor: bool
    waits_groups: int | None  # so many of the youngest groups may still run
    waits_block: bool


@dataclass(slots=True)
class _Warp:
    cta: int
    ready: float = 0.0
    issued: int = 0
    scoreboards: list[float] = field(default_factory=lambda: [0.0] * 6)
    groups: list[float] = field(default_factory=lambda: [0.0] * 8)  # when each group of the queue is done


def simulated_score(
    code: Sequence[Instruction], costs: Sequence[Cost], ctas: int, warps: int, iterations: int = ITERATIONS
) -> float | None:
    """Share of the time that the tensor core works, of a loop run by `ctas` thread blocks of `warps` warps each.

    `ctas` and `warps` are those of one sub-partition. None where no thread block fits or no matrix instruction says
    how long it takes.
    """
    tensor = sum(c.tensor for c in costs)
    if not tensor or ctas < 1:
        return None
    steps = [_step(x, c) for x, c in zip(code, costs, strict=True)]
    # a queue that is still full at the end makes the second half look too short
    return min(1.0, tensor * ctas * warps / _cycles(steps, ctas, warps, iterations))


def _step(code: Instruction, cost: Cost) -> _Step:
    depends = code.opcode.startswith("WARPGROUP.DEPBAR")
    queued = cost.tensor > 0 and code.base != "HMMA"
    return _Step(
        code,
        cost,
        is_queued=queued,
        closes_group=queued and "gsb0" in code.operands,
        waits_tensor=cost.tensor > 0 and not queued,
        waits_groups=_left(code.operands) if depends else None,
        waits_block=code.opcode.startswith("BAR.SYNC"),
    )


def _left(operands: str) -> int:
    """The number of `gsb0, 0x1`."""
    number = operands.rpartition(",")[2].strip()
    return int(number, 16) if number.startswith("0x") else 0


def _cycles(steps: list[_Step], ctas: int, warps: int, iterations: int) -> float:
    """Cycles an iteration of all warps, over the second half of what they issue."""
    team = [_Warp(cta) for cta in range(ctas) for _ in range(warps)]
    per_warp = len(steps) * iterations
    total = per_warp * len(team)
    partition = _Partition()
    middle = 0.0
    for n in range(total):
        start, chosen = _NEVER, team[0]
        for warp in team:
            if warp.issued < per_warp:
                step = steps[warp.issued % len(steps)]
                at = partition.earliest(warp, step)
                if step.waits_block and at < start and _is_ahead(warp, team):
                    continue
                if at < start:
                    start, chosen = at, warp
        partition.issue(chosen, steps[chosen.issued % len(steps)], start)
        if n == total // 2:
            middle = partition.clock
    return (partition.clock - middle) / (iterations / 2)


def _is_ahead(warp: _Warp, team: list[_Warp]) -> bool:
    return any(other.issued < warp.issued for other in team if other.cta == warp.cta)


class _Partition:
    """The units of a sub-partition, and when each is free."""

    def __init__(self) -> None:
        self.clock = 0.0  # when the next instruction may issue
        self._tensor = 0.0
        self._units: dict[str | None, float] = {"fma": 0.0, "alu": 0.0, "special": 0.0, None: 0.0}

    def earliest(self, warp: _Warp, step: _Step) -> float:
        """When a warp may issue its next instruction."""
        at = max(warp.ready, self.clock, self._units[step.cost.unit])
        for board in step.code.waits:
            at = max(at, warp.scoreboards[board])
        if step.waits_tensor:
            at = max(at, self._tensor)
        if step.waits_groups is not None:
            at = max(at, warp.groups[-1 - min(step.waits_groups, len(warp.groups) - 1)])
        return at

    def issue(self, warp: _Warp, step: _Step, at: float) -> None:
        """Let a warp issue its next instruction at a time."""
        code, cost = step.code, step.cost
        if cost.unit is not None:
            self._units[cost.unit] = at + cost.cycles
        if cost.tensor:
            self._tensor = max(at, self._tensor) + cost.tensor
            if step.closes_group:
                warp.groups.append(self._tensor)
        if code.sets_done < 6:
            warp.scoreboards[code.sets_done] = at + _LATENCY.get(cost.kind, _SHORT)
        if code.sets_read not in (6, NO_SCOREBOARD, code.sets_done):
            warp.scoreboards[code.sets_read] = at + _SHORT
        self.clock = at + 1
        warp.ready = at + code.stall
        warp.issued += 1
