"""The frame of the GPU suite with made-up steps: interruption, failure, budget, what is on disk at each moment."""

from __future__ import annotations

import json
import time

import pytest

from attngen.bench.gpu import suite
from attngen.bench.gpu.report import JSON_NAME, TABLE_NAME, Report
from attngen.bench.gpu.steps import STEPS, Plan, checked_names, dry_steps_of, steps_of
from attngen.bench.gpu.suite import Step, run_suite
from attngen.errors import ParameterError


def note(text):
    return {"kind": "note", "name": text, "text": text}


def step(name, *texts, error=None, share=1.0):
    def run(until):
        for text in texts:
            yield note(text)
        if error is not None:
            raise error

    return Step(name, share, run)


def run(tmp_path, *steps, budget=60.0):
    said = []
    report = run_suite(steps, Report({"gpu": "none"}, {}), tmp_path, budget=budget, say=said.append)
    held = json.loads((tmp_path / JSON_NAME).read_text())
    assert held == json.loads(json.dumps(report.as_json()))
    assert f"**{report.status}**" in (tmp_path / TABLE_NAME).read_text()
    assert not list(tmp_path.glob(".*partial"))
    return report, said


def statuses(report):
    return {s.name: (s.status, len(s.entries)) for s in report.steps}


def test_everything_is_done_in_order(tmp_path):
    report, said = run(tmp_path, step("a", "one", "two"), step("b", "three"))
    assert report.status == "complete"
    assert statuses(report) == {"a": ("done", 2), "b": ("done", 1)}
    assert said == ["== a", "  one: one", "  two: two", "== b", "  three: three"]


def test_an_interruption_keeps_what_was_found_before(tmp_path):
    steps = (step("a", "one"), step("b", "two", error=KeyboardInterrupt()), step("c", "three"))
    report, _ = run(tmp_path, *steps)
    assert report.status == "interrupted"
    assert statuses(report) == {"a": ("done", 1), "b": ("interrupted", 1)}


def test_an_interruption_ends_what_a_step_has_started(tmp_path):
    ended = []

    def entries(until):
        try:
            yield note("one")
            yield note("two")
        finally:
            ended.append("step")

    def say(text):
        if "one" in text:
            raise KeyboardInterrupt

    report = run_suite([Step("a", 1.0, entries)], Report({}, {}), tmp_path, budget=60, say=say)
    assert report.status == "interrupted"
    assert ended == ["step"]


def test_results_are_on_disk_after_each_entry(tmp_path):
    seen = []

    def entries(until):
        for i in range(3):
            held = json.loads((tmp_path / JSON_NAME).read_text())
            seen.append([len(s["entries"]) for s in held["steps"]])
            yield note(str(i))

    run(tmp_path, Step("a", 1.0, entries))
    assert seen == [[], [1], [2]]


def test_a_failing_step_is_recorded_and_the_others_run(tmp_path):
    report, said = run(tmp_path, step("a", "one", error=ValueError("broken")), step("b", "two"))
    assert statuses(report) == {"a": ("failed", 1), "b": ("done", 1)}
    assert report.steps[0].error == "ValueError: broken"
    assert report.failures() == 1
    assert "  failed: broken" in said


def test_no_step_begins_when_the_budget_is_used_up(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(suite.time, "monotonic", lambda: now[0])

    def long(until):
        now[0] = 58.0
        yield note("slow")

    report, _ = run(tmp_path, Step("a", 1.0, long), step("b", "two"))
    assert report.status == "out of time"
    assert statuses(report) == {"a": ("done", 1), "b": ("out of time", 0)}


def test_a_step_is_told_when_to_end(tmp_path):
    told = []

    def entries(until):
        told.append(until - time.monotonic())
        yield note("one")

    run(tmp_path, Step("a", 0.25, entries), Step("b", 1.0, entries), budget=40.0)
    assert told[0] == pytest.approx(10, abs=0.5)
    assert told[1] == pytest.approx(40, abs=0.5)


def test_few_steps_share_the_whole_budget(tmp_path):
    told = []

    def entries(until):
        told.append(until - time.monotonic())
        yield note("one")

    run(tmp_path, Step("a", 0.1, entries), Step("b", 0.3, entries), budget=40.0)
    assert told[0] == pytest.approx(10, abs=0.5)
    assert told[1] == pytest.approx(30, abs=0.5)


def test_a_step_that_ran_out_of_time_says_so(tmp_path):
    late = {"kind": "failed", "of": "measured", "name": "x", "error": "out of time", "seconds": 0.0}
    report, _ = run(tmp_path, Step("a", 1.0, lambda until: iter([late])))
    assert report.status == "out of time"
    assert report.steps[0].status == "out of time"


def names(steps):
    return [s.name for s in steps]


def test_goals_and_steps_are_chosen_by_name():
    assert names(steps_of(Plan())) == list(STEPS)
    assert names(steps_of(Plan(("G4",)))) == ["prepare", "tuning", "goals"]
    assert names(steps_of(Plan(("correctness", "more")))) == ["correctness", "more"]
    assert names(dry_steps_of(Plan())) == ["compile goals", "compile catalogue"]
    assert names(dry_steps_of(Plan(("G4",)))) == ["compile goals"]
    assert names(dry_steps_of(Plan(("correctness",)))) == ["compile catalogue"]
    assert checked_names(" G4, correctness,") == ("G4", "correctness")
    with pytest.raises(ParameterError, match="G99"):
        checked_names("G99")
