"""The steps of the GPU suite, run on the CPU: the catalogue, workloads in child processes, and a dry run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from attngen.api import Attention
from attngen.bench.gpu import cases, catalogue, sanitizer, steps, tasks
from attngen.bench.gpu.cases import Bar, Case
from attngen.bench.gpu.masks import Window
from attngen.bench.gpu.masks_grid import Near
from attngen.bench.gpu.report import JSON_NAME, TABLE_NAME
from attngen.bench.gpu.steps import Plan
from attngen.cli.main import main
from attngen.lang.library import cascade_names, program_names

CPU = torch.device("cpu")
SMALL = (
    Case(
        "window",
        "G4",
        Window(32),
        1,
        4,
        2,
        128,
        head_dim=16,
        peers=("sdpa_flash",),
        bar=Bar("ms", 1e6),
        tune=True,
    ),
    Case("near", "G7", Near((8, 8), (3, 3), (1, 1)), 1, 2, 2, 64, head_dim=16, peers=("natten",)),
)


def entries(step, **plan):
    (chosen,) = [s for s in steps.steps_of(Plan(device="cpu", **plan)) if s.name == step]
    return list(chosen.run(time.monotonic() + 120))


def test_every_program_has_a_call():
    assert set(catalogue.names()) == {*program_names(), *cascade_names()}
    assert len(catalogue.names()) == len(set(catalogue.names()))


@pytest.mark.parametrize("name", ["documents", "swin", "softmax_sink"])
def test_a_call_agrees_and_a_wrong_one_does_not(name):
    found = catalogue.check(name, "fp32", CPU)
    assert found.ok, found
    call = catalogue.call_of(name)
    query, key, value = call.qkv
    assert query.shape[1] % key.shape[1] == 0
    bent = catalogue.Call(
        Attention.from_linked(call.spec.program, call.spec.values), (query, key, value), 1e-6
    )
    assert not catalogue.agreement(name, "fp32", bent).ok


@pytest.mark.slow
@pytest.mark.parametrize("dtype", catalogue.DTYPES)
@pytest.mark.parametrize("name", catalogue.names())
def test_every_call_agrees(name, dtype):
    found = catalogue.check(name, dtype, CPU)
    assert found.ok, found


def test_what_a_program_raises_is_its_result():
    found = catalogue.check("no_such_program", "fp32", CPU)
    assert found.worst is None
    assert found.error.startswith("ProgramNotFoundError")


def test_correctness_in_child_processes(monkeypatch):
    monkeypatch.setattr(catalogue, "names", lambda: ("causal", "no_such_program"))
    monkeypatch.setattr(catalogue, "DTYPES", ("fp32",))
    found = {e["name"]: e for e in entries("correctness")}
    assert set(found) == {f"{n} {d}" for n in ("causal", "no_such_program") for d in ("fp32",)}
    assert all(e["ok"] == e["name"].startswith("causal") for e in found.values())


def test_workloads_are_measured_in_child_processes(monkeypatch):
    monkeypatch.setattr(cases, "GOALS", SMALL)
    monkeypatch.setattr(cases, "MORE", ())
    measured = {e["name"]: e for e in entries("goals")}
    assert measured["window"]["kind"] == "measured"
    assert measured["window"]["judged"]["verdict"] == "pass"
    assert measured["near"]["absent"] == {"natten": "NATTEN is not installed"}


@pytest.mark.slow
def test_workloads_are_prepared_in_child_processes(monkeypatch):
    monkeypatch.setattr(cases, "GOALS", SMALL)
    monkeypatch.setattr(cases, "MORE", ())
    assert {e["name"] for e in entries("goals", only=("G7",))} == {"near"}
    prepared = {e["name"]: e["seconds_of"] for e in entries("prepare")}
    assert set(prepared["window"]) == {"attngen"}


def test_tuning_asks_the_tuner_where_there_is_one(monkeypatch):
    if not hasattr(Attention, "tune"):
        assert tasks.tune_case(SMALL[0], "cpu") == "no tuner"

    def tune(self, query, key, value, *, budget, seed):
        assert (budget, seed) == ("quick", 0)
        return SimpleNamespace(chosen="128x64", default_s=3e-3, chosen_s=2e-3)

    monkeypatch.setattr(Attention, "tune", tune, raising=False)
    assert tasks.tune_case(SMALL[0], "cpu") == tasks.Tuned("window", "128x64", 3.0, 2.0)


def test_without_a_sanitizer_a_note_says_so(monkeypatch):
    monkeypatch.setattr(sanitizer, "tool", lambda: None)
    (note,) = entries("sanitizer")
    assert note["text"] == "compute-sanitizer is not installed"


def test_a_dry_run_plans_counts_and_compiles(tmp_path, capsys):
    assert main(["bench", "gpu", "--out", str(tmp_path), "--only", "G4", "--dry-run"]) == 0
    report = json.loads((tmp_path / JSON_NAME).read_text())
    assert report["format"] == 1
    assert report["status"] == "complete"
    assert report["protocol"]["asked for"] == "G4"
    assert "triton" in report["machine"]
    (step,) = report["steps"]
    assert (step["name"], step["status"]) == ("compile goals", "done")
    (entry,) = step["entries"]
    assert (entry["kind"], entry["goal"], entry["name"]) == ("compiled", "G4", "window 1024, 32k")
    assert entry["pairs"] == 64 * (1024 * 1025 // 2 + (32768 - 1024) * 1024)
    assert entry["schedule"].startswith("ranges: 32768 queries")
    (kernel,) = entry["kernels"]
    assert kernel["registers"] > 0
    assert kernel["spill_bytes"] == 0
    assert "| G4 | window 1024, 32k | bf16 |" in (tmp_path / TABLE_NAME).read_text()
    assert "window 1024, 32k: " in capsys.readouterr().out


@pytest.mark.slow
def test_an_ended_run_keeps_what_it_found(tmp_path):
    command = [sys.executable, "-m", "attngen", "bench", "gpu", "--dry-run", "--out", str(tmp_path)]
    with subprocess.Popen([*command, "--only", "G4,G7,G9"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        said += process.stdout.readlines()
    assert said[-1].startswith("interrupted")
    report = json.loads((tmp_path / JSON_NAME).read_text())
    assert report["status"] == "interrupted"
    (step,) = report["steps"]
    assert step["status"] == "interrupted"
    assert step["entries"][0]["name"] == "window 1024, 32k"


@pytest.mark.slow
def test_a_dry_run_of_every_workload(tmp_path):
    only = ",".join([*cases.goal_names(), "more"])
    assert main(["bench", "gpu", "--out", str(tmp_path), "--only", only, "--dry-run"]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing")
def test_without_a_gpu_the_command_says_so(tmp_path, capsys):
    assert main(["bench", "gpu", "--out", str(tmp_path)]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_the_command_says_what_it_needs(tmp_path, capsys):
    assert main(["bench", "gpu", "--dry-run"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["bench", "gpu", "--out", str(tmp_path), "--only", "G99", "--dry-run"]) == 2
    assert "G99" in capsys.readouterr().err
