"""Compile candidates in processes of their own, several at once, none for ever.

A process serves one job after another. One that ends, or is still at work when its time is up, is replaced and its
job is reported as failed. The time allowed follows what compilers took so far.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

from attngen.tune.measurement import Status
from attngen.tune.memory import workers_for

log = logging.getLogger("attngen.tune")

L = TypeVar("L")

LEAST_LIMIT_S = 30.0
_TIMES_AS_LONG = 4.0
_MOST_JOBS = 200  # of a process: compilers keep some memory of each
_START = "import sys; sys.path[:] = {path!r}; from attngen.tune.child import main; main()"


@dataclass(frozen=True, slots=True)
class Job(Generic[L]):
    """What is to be built, and the function of a module that builds it, with its arguments."""

    label: L
    function: Callable[..., object]
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Built(Generic[L]):
    """What became of a job."""

    label: L
    status: Status
    seconds: float
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


class Pool:
    """Compiling processes, started when they are needed and ended with the block; at most `most_workers` at once."""

    def __init__(
        self,
        kind: str,
        *,
        least_limit_s: float = LEAST_LIMIT_S,
        most_limit_s: float = 300.0,
        most_workers: int | None = None,
    ) -> None:
        self.kind, self.least_limit_s, self.most_limit_s = kind, least_limit_s, most_limit_s
        self.most_workers = most_workers
        self._took: list[float] = []
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def limit_s(self) -> float:
        """Seconds that a job may take now."""
        if len(self._took) < 2:
            return min(self.least_limit_s * 2, self.most_limit_s)
        usual = statistics.quantiles(self._took, n=10, method="inclusive")[8]
        return min(max(self.least_limit_s, _TIMES_AS_LONG * usual), self.most_limit_s)

    def build(self, jobs: Sequence[Job[L]]) -> Iterator[Built[L]]:
        """Do the jobs, in order of their ends."""
        waiting = deque(jobs)
        while waiting or self._busy:
            while waiting and (not self._busy or len(self._busy) < self._room(len(jobs))):
                worker = self._idle.pop() if self._idle else _Worker()
                self._busy.append(worker)
                worker.start(waiting.popleft(), self.limit_s())
            yield from self._ended()

    def _room(self, jobs: int) -> int:
        """Processes at once; asked again for each job, since others on the machine take memory too."""
        room = workers_for(self.kind, jobs)
        return room if self.most_workers is None else min(room, self.most_workers)

    def _ended(self) -> Iterator[Built[Any]]:
        """Wait for the first end, or for the first limit."""
        with selectors.DefaultSelector() as selector:
            for worker in self._busy:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            left = min(w.deadline for w in self._busy) - time.monotonic()
            ready = [key.data for key, _ in selector.select(max(left, 0.0))]
        now = time.monotonic()
        for worker in list(self._busy):
            if worker in ready:
                built = worker.answer()
            elif worker.deadline <= now:
                built = worker.overdue()
            else:
                continue
            self._busy.remove(worker)
            if worker.jobs >= _MOST_JOBS:
                worker.end()
            if worker.is_alive:
                self._idle.append(worker)
            if built.status == "ok":
                self._took.append(built.seconds)
            yield built

    def close(self) -> None:
        """End every process."""
        for worker in (*self._idle, *self._busy):
            worker.end()
        self._idle.clear()
        self._busy.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One compiling process; in a session of its own, so that its compilers end with it."""

    def __init__(self) -> None:
        # `-c` with the path of this process: what it imports here it imports there.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._job: Job[Any] | None = None
        self._begun = 0.0
        self.deadline = 0.0
        self.is_alive = True
        self.jobs = 0

    @property
    def answers(self) -> int:
        """The descriptor on which verdicts arrive."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def start(self, job: Job[Any], limit_s: float) -> None:
        """Hand over a job."""
        data = pickle.dumps((job.function, job.arguments))
        self._job, self._begun = job, time.monotonic()
        self.jobs += 1
        self.deadline = self._begun + limit_s
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # found out when the answer is read
            self._process.stdin.write(len(data).to_bytes(8, "big") + data)
            self._process.stdin.flush()

    def answer(self) -> Built[Any]:
        """The verdict that has arrived, or that the process has ended."""
        assert self._job is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        took = time.monotonic() - self._begun
        if not line.endswith(b"\n"):
            with suppress(subprocess.TimeoutExpired):  # its pipe is closed, so it is about to end
                self._process.wait(2.0)
            self.end()
            code = self._process.returncode
            if code == -signal.SIGKILL:  # nobody here sent it: the machine ran out of memory
                return Built(self._job.label, "oom", took, "the compiling process was killed")
            return Built(self._job.label, "compile_error", took, f"the compiling process ended with {code}")
        said = json.loads(line)
        if said["ok"]:
            return Built(self._job.label, "ok", said["seconds"], facts=said["facts"])
        return Built(self._job.label, said["status"], took, said["note"])

    def overdue(self) -> Built[Any]:
        """End the process, whose time is up."""
        assert self._job is not None
        self.end()
        took = time.monotonic() - self._begun
        return Built(self._job.label, "timeout", took, f"still compiling after {took:.0f} s")

    def end(self) -> None:
        """End the process and its compilers."""
        self.is_alive = False
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
