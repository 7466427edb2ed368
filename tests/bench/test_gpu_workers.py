"""Child processes of the GPU suite: results, failures, deaths, hangs, deadlines; none is left behind."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
import time
from functools import partial

import pytest

from attngen.bench.gpu.workers import Task, how_many, run_tasks, spoiled


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert multiprocessing.active_children() == []


def run(*tasks, seconds=60.0, **options):
    return {d.task.name: d for d in run_tasks(tasks, until=time.monotonic() + seconds, **options)}


def test_tasks_are_done_and_failures_are_told():
    done = run(Task("root", math.sqrt, (4.0,)), Task("bad", math.sqrt, (-1.0,)), count=1)
    assert done["root"].value == 2.0
    assert not done["root"].error
    assert done["bad"].error.startswith("ValueError")


def test_a_child_that_dies_is_replaced():
    done = run(Task("dies", os._exit, (7,)), Task("root", math.sqrt, (9.0,)), count=1)
    assert done["dies"].error == "the process ended with code 7"
    assert done["root"].value == 3.0


def test_a_child_that_hangs_is_ended():
    done = run(Task("hangs", time.sleep, (600.0,)), Task("root", math.sqrt, (9.0,)), count=1, task_s=3.0)
    assert done["hangs"].error == "no answer after 3 s"
    assert done["root"].value == 3.0


def test_a_child_whose_device_is_spoiled_is_replaced():
    fails = Task("spoils", operator.getitem, ({}, "CUDA error: an illegal memory access was encountered"))
    done = run(Task("first", os.getpid), fails, Task("second", os.getpid), count=1)
    assert "illegal memory" in done["spoils"].error
    assert done["first"].value != done["second"].value
    assert not spoiled("ValueError: broken")


def test_what_is_left_when_time_is_up_fails():
    begun = time.monotonic()
    done = run(Task("slow", time.sleep, (600.0,)), Task("never", math.sqrt, (9.0,)), count=1, seconds=1.5)
    assert {d.error for d in done.values()} == {"out of time"}
    assert time.monotonic() - begun < 30


def test_closing_the_iteration_ends_the_children():
    tasks = [Task("root", math.sqrt, (4.0,)), Task("slow", time.sleep, (600.0,))]
    results = run_tasks(tasks, until=time.monotonic() + 60, count=1)
    assert next(results).value == 2.0
    results.close()


def test_no_task_is_no_child():
    assert list(run_tasks([], until=time.monotonic() + 1)) == []
    assert how_many() >= 1


def test_arguments_and_results_travel():
    done = run(Task("sorted", partial(sorted, reverse=True), ([1, 3, 2],)))
    assert done["sorted"].value == [3, 2, 1]
