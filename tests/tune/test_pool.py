"""Compiling processes: several at once, none for ever, and none that takes this process down."""

from __future__ import annotations

import os
import time

import pytest

from attngen.emit.cpu_config import CpuConfig
from attngen.tune import pool as pool_module
from attngen.tune.memory import available_bytes, workers_for
from attngen.tune.pool import Job, Pool


def config(n: int) -> CpuConfig:
    return CpuConfig(32 * n, 24)


def jobs(*works) -> list[Job]:
    return [Job(config(n + 1), function, arguments) for n, (function, *arguments) in enumerate(works)]


def test_crashes_and_hangs_are_reported_and_the_rest_is_done():
    with Pool("cpu", least_limit_s=3.0) as pool:
        pool._took = [0.1, 0.1]
        works = jobs(
            (os.getpid,), (os.abort,), (time.sleep, 60), (os._exit, 3), (int, "x"), (os.kill, 0, 9), (print, "noise"),
            (os.getpid,),
        )  # fmt: skip
        start = time.monotonic()
        found = {b.label: b for b in pool.build(works)}
        assert time.monotonic() - start < 40
    assert [found[config(n)].status for n in range(1, 9)] == [
        "ok", "compile_error", "timeout", "compile_error", "compile_error", "oom", "ok", "ok",
    ]  # fmt: skip
    assert "invalid literal" in found[config(5)].note
    assert "ended with 3" in found[config(4)].note


def test_no_process_outlives_the_pool():
    with Pool("cpu") as pool:
        list(pool.build(jobs((os.getpid,))))
        pids = [w._process.pid for w in pool._idle]
        worker = pool_module._Worker()
        worker.start(jobs((time.sleep, 60))[0], 60)
        pool._busy.append(worker)
        pids.append(worker._process.pid)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_limit_follows_what_compilers_take():
    pool = Pool("cpu", most_limit_s=300.0)
    assert pool.limit_s() == 60.0
    pool._took = [1.0] * 20
    assert pool.limit_s() == 30.0
    pool._took = [1.0] * 15 + [20.0] * 5
    assert pool.limit_s() == 80.0
    pool._took = [200.0] * 5
    assert pool.limit_s() == 300.0
    assert Pool("cpu", most_limit_s=5.0).limit_s() == 5.0


def test_compilers_at_once_fit_the_memory(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert workers_for("cpu", 8, available=4 << 30) == 4
    assert workers_for("triton", 8, available=4 << 30) == 2
    assert workers_for("cpu", 3, available=1 << 40) == 3
    assert workers_for("cpu", 100, available=1 << 40) == 64
    assert workers_for("cpu", 8, available=0) == 1
    assert available_bytes() is None or available_bytes() > 0


def test_memory_that_is_short_is_waited_for(monkeypatch):
    monkeypatch.setattr(pool_module, "workers_for", lambda kind, count: 1)
    with Pool("cpu") as pool:
        assert len([b for b in pool.build(jobs((os.getpid,), (os.getpid,))) if b.status == "ok"]) == 2
        assert len(pool._idle) == 1


def pid():
    return {"pid": os.getpid()}


def test_a_process_serves_so_many_jobs_and_is_replaced(monkeypatch):
    monkeypatch.setattr(pool_module, "workers_for", lambda kind, count: 1)
    monkeypatch.setattr(pool_module, "_MOST_JOBS", 2)
    with Pool("cpu") as pool:
        pids = [b.facts["pid"] for b in pool.build(jobs(*[(pid,)] * 5))]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
