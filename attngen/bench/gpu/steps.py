"""The steps of the suite, the most important results first.

    correctness  every catalogue program in fp32, bf16 and fp16 against float64, in several processes at once
    ahead        some of them built ahead of time and loaded from their artefacts
    sanitizer    some of them under compute-sanitizer, where it is installed
    prepare      the kernels of the workloads compiled into the caches, in several processes at once
    tuning       some workloads through the tuner, where there is one
    goals        G1 to G18, measured in one process that is replaced if a kernel spoils its device
    more         workloads beside the goals; outputs beside O; forms of cascades

A dry run has `compile goals` and `compile catalogue` in their place. A check of another kind (of gradients, say) is a
line more in `CHECKS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from attngen.bench.gpu import cases, catalogue, sanitizer, tasks
from attngen.bench.gpu.cases import Case, Special
from attngen.bench.gpu.stopwatch import FLUSHED_BYTES, LEAST_ROUNDS, MOST_ROUNDS
from attngen.bench.gpu.suite import Entry, Step
from attngen.bench.gpu.workers import Done, Task, how_many, run_tasks
from attngen.errors import ParameterError

STEPS = ("correctness", "ahead", "sanitizer", "prepare", "tuning", "goals", "more")
# What is held to float64, by name: a program, a dtype and a device in, an agreement out.
CHECKS: dict[str, Callable[[str, str, str], catalogue.Agreement]] = {"forward": tasks.check_program}
# One of each kind: ranges, lists, boxes, captured tensors, several sweeps, rows that are keys.
AHEAD = (
    ("causal", "bf16"),
    ("sliding_window_sink", "fp16"),
    ("documents", "bf16"),
    ("neighborhood_2d", "bf16"),
    ("alibi", "bf16"),
    ("varlen", "bf16"),
    ("column_sums", "fp16"),
    ("causal", "fp32"),
)
_ROOM = 6  # processes that may have a workload's tensors on the device at once
_CASE_S = 150.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: goals and steps by name, all where none is, and where it runs."""

    only: tuple[str, ...] = ()
    device: str = "cuda"
    target: str = "sm_90"

    @property
    def goals(self) -> tuple[str, ...]:
        """The goals named."""
        return tuple(n for n in self.only if n in cases.goal_names())

    def has(self, step: str) -> bool:
        """Whether a step is asked for: by its name, by a goal that it serves, or because nothing is named."""
        serves = step in ("prepare", "tuning", "goals") and bool(self.goals)
        return not self.only or step in self.only or serves


def checked_names(text: str) -> tuple[str, ...]:
    """`G1,G4,correctness` as names. Raises ParameterError for one that is neither a goal nor a step."""
    names = tuple(n for n in (part.strip() for part in text.split(",")) if n)
    known = (*cases.goal_names(), *STEPS)
    for name in names:
        if name not in known:
            raise ParameterError(f"there is no goal or step {name!r}", hint=f"there are: {', '.join(known)}")
    return names


def protocol(plan: Plan, *, dry: bool) -> dict[str, str]:
    """How figures come about, in words."""
    asked = {"asked for": ", ".join(plan.only) or "everything"}
    if dry:
        return asked | {"dry run": f"planned, counted and compiled for {plan.target}; nothing launched"}
    return asked | {
        "inputs": "standard normal, bf16, seeded; 128 features unless a workload says otherwise",
        "times": f"medians of {LEAST_ROUNDS} to {MOST_ROUNDS} alternating rounds, each call between two events, the "
        f"second-level cache overwritten ({FLUSHED_BYTES >> 20} MiB) before it; ratios are medians within a round",
        "TFLOP/s": "4 operations a feature and kept pair, counted exactly; what a peer computes beyond earns nothing",
        "planning": "apart: for attngen a new specification's first call less a later one, for FlexAttention a "
        "compiled create_block_mask, the first call of which compiles",
        "correctness": "against float64, by the rule of attngen/tolerance.py",
    }


def steps_of(plan: Plan) -> list[Step]:
    """The steps that measure."""
    steps = (
        Step("correctness", 0.35, lambda until: _correctness(plan, until)),
        Step("ahead", 0.1, lambda until: _ahead(plan, until)),
        Step("sanitizer", 0.12, lambda until: _sanitizer(plan, until)),
        Step("prepare", 0.25, lambda until: _prepare(plan, until)),
        Step("tuning", 0.2, lambda until: _tuning(plan, until)),
        Step("goals", 1.0, lambda until: _goals(plan, until)),
        Step("more", 1.0, lambda until: _more(plan, until)),
    )
    return [s for s in steps if plan.has(s.name)]


def dry_steps_of(plan: Plan) -> list[Step]:
    """The steps of a dry run: everything but launches."""
    steps: list[Step] = []
    if _workloads(plan) or _calls(plan):
        steps.append(Step("compile goals", 1.0, lambda until: _compile_goals(plan, until)))
    if not plan.only or "correctness" in plan.only:
        steps.append(Step("compile catalogue", 1.0, lambda until: _compile_catalogue(plan, until)))
    return steps


def _calls(plan: Plan) -> list[Case]:
    """The workloads asked for that are calls."""
    calls = [c for c in _workloads(plan) if isinstance(c, Case)]
    return calls if plan.only and "more" not in plan.only else [*calls, *cases.MORE]


def _workloads(plan: Plan) -> tuple[Case | Special, ...]:
    if plan.only and not plan.goals and not {"prepare", "tuning", "goals"} & set(plan.only):
        return ()
    return cases.chosen_goals(plan.goals)


def _correctness(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [
        Task(f"{name} {dtype}{'' if kind == 'forward' else f' {kind}'}", function, (name, dtype, plan.device))
        for kind, function in CHECKS.items()
        for dtype in catalogue.DTYPES  # the others find what the first has derived
        for name in catalogue.names()
    ]
    yield from _entries("agreement", run_tasks(jobs, until=until, task_s=_CASE_S), _agreement)


def _ahead(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [
        Task(f"{name} {dtype} ahead", tasks.check_artefact, (name, dtype, plan.device))
        for name, dtype in AHEAD
    ]
    yield from _entries("agreement", run_tasks(jobs, until=until, task_s=_CASE_S), _agreement)


def _agreement(found: catalogue.Agreement) -> dict[str, Any]:
    return {**asdict(found), "ok": found.ok}


def _sanitizer(plan: Plan, until: float) -> Iterator[Entry]:
    tool = sanitizer.tool()
    if tool is None:
        yield {"kind": "note", "name": "sanitizer", "text": "compute-sanitizer is not installed"}
        return
    jobs = [
        Task(f"{name} {dtype}", sanitizer.sanitize, (tool, name, dtype, until - time.monotonic()))
        for name, dtype in sanitizer.SAMPLE
    ]
    yield from _entries("sanitized", run_tasks(jobs, until=until), asdict)


def _prepare(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [Task(c.name, tasks.prepare_case, (c, plan.device)) for c in _calls(plan)]
    done = run_tasks(jobs, until=until, count=min(_ROOM, how_many()), task_s=_CASE_S)
    yield from _entries("prepared", done, lambda took: {"seconds_of": took})


def _tuning(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [Task(c.name, tasks.tune_case, (c, plan.device)) for c in _calls(plan) if c.tune]
    for entry in _entries("tuned", run_tasks(jobs, until=until, count=1, task_s=_CASE_S), _tuned):
        yield entry
        if entry.get("text") == "no tuner":
            return


def _tuned(found: tasks.Tuned | str) -> dict[str, Any]:
    return {"kind": "note", "text": found} if isinstance(found, str) else asdict(found)


def _goals(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [Task(c.name, tasks.measure_case, (c, plan.device, until)) for c in _workloads(plan)]
    yield from _measured(jobs, until)


def _more(plan: Plan, until: float) -> Iterator[Entry]:
    from attngen.bench.gpu.extras import EXTRAS

    jobs = [Task(name, tasks.measure_extra, (name, plan.device)) for name in EXTRAS]
    jobs += [Task(c.name, tasks.measure_case, (c, plan.device, until)) for c in cases.MORE]
    yield from _measured(jobs, until)


def _measured(jobs: Sequence[Task], until: float) -> Iterator[Entry]:
    """One process at a time has the device, so that nothing disturbs a measurement."""
    done = run_tasks(jobs, until=until, count=1, task_s=_CASE_S)
    yield from _entries("measured", done, lambda m: m.as_json())


def _compile_goals(plan: Plan, until: float) -> Iterator[Entry]:
    calls = _calls(plan)
    goals = {c.name: c.goal for c in calls}
    for special in (c for c in _workloads(plan) if isinstance(c, Special)):
        yield {"kind": "note", "name": special.name, "text": f"{special.goal}: would be measured; no kernel"}
    jobs = [Task(c.name, tasks.compile_case, (c, plan.target)) for c in calls]
    if not plan.only or "more" in plan.only:
        from attngen.bench.gpu.extras import EXTRAS, specs_of

        jobs += [
            Task(f"{name}: {label}", tasks.compile_extra, (name, label, plan.target))
            for name in EXTRAS
            for label in specs_of(name)
        ]
    for entry in _entries("compiled", run_tasks(jobs, until=until, task_s=inf), asdict):
        yield {**entry, "goal": goals.get(entry["name"], "")}


def _compile_catalogue(plan: Plan, until: float) -> Iterator[Entry]:
    jobs = [
        Task(f"{name} {dtype}", tasks.compile_program, (name, dtype, plan.target))
        for dtype in catalogue.DTYPES
        for name in catalogue.names()
    ]
    yield from _entries("compiled", run_tasks(jobs, until=until, task_s=inf), asdict)


def _entries(kind: str, done: Iterator[Done], plain: Callable[[Any], dict[str, Any]]) -> Iterator[Entry]:
    """Results as plain data; a task that failed is an entry of the kind "failed"."""
    for one in done:
        seconds = round(one.seconds, 2)
        if one.error:
            yield {
                "kind": "failed",
                "of": kind,
                "name": one.task.name,
                "error": one.error,
                "seconds": seconds,
            }
        else:
            yield {"kind": kind, "name": one.task.name, **plain(one.value), "seconds": seconds}
