"""Run steps in order, each guarded: what one finds is on disk before the next, and no failure ends the others.

budget        a step begins only while time is left, and is told when it has to end
interruption  Ctrl-C ends the suite; what was found before stays, and the report says "interrupted"
failure       the step's report says what was raised; the suite goes on
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attngen.bench.gpu.report import Report, StepReport, write
from attngen.bench.gpu.table import line

Entry = Mapping[str, Any]
_LEAST_S = 5.0  # less is no time to begin a step


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the suite. `run` gives its entries as they come, until the moment on `time.monotonic` it is given.

    share  the part of the whole budget that the step may take.
    """

    name: str
    share: float
    run: Callable[[float], Iterator[Entry]]


@dataclass(slots=True)
class _Run:
    report: Report
    folder: Path
    say: Callable[[str], None]
    begun: float
    budget: float
    scale: float  # of shares, where the steps asked for have less than the whole together

    def left(self) -> float:
        return self.budget - (time.monotonic() - self.begun)

    def save(self, step: StepReport | None = None, status: str | None = None) -> None:
        report = self.report if step is None else self.report.with_step(step)
        seconds = round(time.monotonic() - self.begun, 1)
        self.report = replace(report, seconds=seconds, status=status or report.status)
        write(self.report, self.folder)


def run_suite(
    steps: Sequence[Step], report: Report, folder: Path, *, budget: float, say: Callable[[str], None]
) -> Report:
    """The finished report, "complete", "out of time" or "interrupted"; it is in `folder` too, at every moment."""
    scale = 1.0 / min(1.0, sum(s.share for s in steps) or 1.0)
    run = _Run(report, folder, say, time.monotonic(), budget, scale)
    run.save()
    status = "complete"
    for step in steps:
        if run.left() < _LEAST_S:
            run.save(StepReport(step.name, "out of time"))
            status = "out of time"
            continue
        try:
            done = _run_step(step, run)
        except KeyboardInterrupt:
            run.save(status="interrupted")
            return run.report
        if done.status == "out of time":
            status = "out of time"
    run.save(status=status)
    return run.report


def _run_step(step: Step, run: _Run) -> StepReport:
    """One step's report, saved after each of its entries. Raises KeyboardInterrupt, after the report says so."""
    begun = time.monotonic()
    until = begun + min(run.left(), step.share * run.scale * run.budget)
    current = StepReport(step.name, "running")
    run.say(f"== {step.name}")

    def ended(status: str, error: str = "") -> StepReport:
        out = replace(current, status=status, seconds=round(time.monotonic() - begun, 1), error=error)
        run.save(out)
        return out

    try:
        with closing(_as_generator(step.run(until))) as entries:
            for entry in entries:
                current = replace(current, entries=(*current.entries, entry))
                run.say(f"  {line(entry)}")
                run.save(replace(current, seconds=round(time.monotonic() - begun, 1)))
    except KeyboardInterrupt:
        ended("interrupted")
        raise
    except Exception as error:  # a step's failure is part of the report
        run.say(f"  failed: {error}")
        return ended("failed", f"{type(error).__name__}: {error}"[:600])
    late = any(e.get("error") == "out of time" for e in current.entries)
    return ended("out of time" if late else "done")


def _as_generator(entries: Iterator[Entry]) -> Any:
    """An iterator that can be closed, which ends what it has started."""

    def run() -> Iterator[Entry]:
        yield from entries

    return run()
