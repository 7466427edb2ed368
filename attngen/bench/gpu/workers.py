"""Child processes that do tasks one after the other, and outlive none of their failures.

A fault of a GPU spoils the process that met it, and some compilers end theirs; so whatever may fail like that is done
by a child. A child that dies, hangs or says that its device is spoiled is replaced, its task has failed, and the others
go on. Each child leads a process group of its own: an interrupt from the terminal reaches the parent alone, which ends
the child and what the child has started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

_SPOILED = ("cuda error", "illegal memory", "unspecified launch failure", "device-side assert", "hip error")
_MOST = 12
_TASK_S = 240.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """A module's function and its arguments, which travel to a child."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task: `value`, or what went wrong."""

    task: Task
    value: Any = None
    error: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class _Child:
    process: Any
    link: Connection
    task: Task | None = None
    since: float = 0.0


def how_many() -> int:
    """Children for this machine: one a core that this process may use; the parent only waits."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def run_tasks(
    tasks: Sequence[Task], *, until: float, count: int | None = None, task_s: float = _TASK_S
) -> Iterator[Done]:
    """The tasks' results as they come; `until`, on `time.monotonic`, what is left fails with "out of time".

    No child outlives the iteration, however it ends.
    """
    waiting = deque(tasks)
    children: list[_Child] = []
    try:
        most = min(count or how_many(), len(tasks))
        while waiting or any(c.task is not None for c in children):
            if time.monotonic() >= until:
                for task in (*(c.task for c in children if c.task is not None), *waiting):
                    yield Done(task, error="out of time")
                return
            _hand_out(waiting, children, most)
            yield from _collect(children, task_s)
    finally:
        for child in children:
            _end(child)


def _hand_out(waiting: deque[Task], children: list[_Child], most: int) -> None:
    idle = [c for c in children if c.task is None]
    while waiting and (idle or len(children) < most):
        if not idle:
            children.append(_start())
            idle.append(children[-1])
        child = idle.pop()
        child.task, child.since = waiting.popleft(), time.monotonic()
        with suppress(OSError):  # a child that has died is found when it is read
            child.link.send((child.task.function, child.task.arguments))


def _collect(children: list[_Child], task_s: float) -> Iterator[Done]:
    ready = wait([c.link for c in children if c.task is not None], timeout=_POLL_S)
    now = time.monotonic()
    for child in list(children):
        task = child.task
        if task is None:
            continue
        took = now - child.since
        if child.link in ready:
            try:
                value, error = child.link.recv()
            except (EOFError, OSError):
                child.process.join(1.0)
                value, error = None, f"the process ended with code {child.process.exitcode}"
                children.remove(child)
                _end(child)
            child.task = None
            if child in children and spoiled(error):
                children.remove(child)
                _end(child)
            yield Done(task, value, error, took)
        elif took > task_s:
            children.remove(child)
            _end(child)
            yield Done(task, error=f"no answer after {task_s:g} s", seconds=took)


def spoiled(text: str) -> bool:
    """Whether a failure says that the process can use its device no more."""
    lowered = text.lower()
    return any(sign in lowered for sign in _SPOILED)


def _start() -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))  # no daemon: it may have children
    process.start()
    theirs.close()
    return _Child(process, ours)


def _end(child: _Child) -> None:
    child.link.close()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if child.process.exitcode is None:
            try:
                os.killpg(child.process.pid, sign)
            except (ProcessLookupError, PermissionError):  # it has died, or leads no group yet
                child.process.kill()
            child.process.join(2.0)


def _serve(link: Connection) -> None:
    """A child's life: tasks until the other end is closed."""
    os.setpgrp()
    while True:
        try:
            function, arguments = link.recv()
        except (EOFError, OSError):
            return
        try:
            answer = function(*arguments), ""
        except Exception as error:  # whatever it is, the parent is told
            answer = None, f"{type(error).__name__}: {error}"[:600]
        link.send(answer)
