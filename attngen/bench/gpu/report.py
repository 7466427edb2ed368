"""What the suite has found so far, as data, and on disk: one JSON and one table, whole at any time."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from attngen.bench.timing import machine

FORMAT = 1
JSON_NAME, TABLE_NAME = "gpu_suite.json", "gpu_suite.md"
_VERSIONS = ("triton", "flash-attn", "natten", "numpy")


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step: "running", "done", "failed", "interrupted", "out of time" or "left out", and its entries in order.

    entries  plain data; `kind` says what of: "agreement", "sanitized", "compiled", "prepared", "tuned", "measured",
             "failed" or "note".
    """

    name: str
    status: str
    seconds: float = 0.0
    entries: tuple[Mapping[str, Any], ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything: where, how, and the steps as far as they went."""

    machine: Mapping[str, Any]
    protocol: Mapping[str, Any]
    status: str = "running"
    seconds: float = 0.0
    steps: tuple[StepReport, ...] = ()

    def with_step(self, step: StepReport) -> Report:
        """The report with a step added, or brought up to date."""
        kept = tuple(s for s in self.steps if s.name != step.name)
        return replace(self, steps=(*kept, step))

    def entries(self, kind: str) -> list[Mapping[str, Any]]:
        """All entries of a kind, in order."""
        return [e for s in self.steps for e in s.entries if e["kind"] == kind]

    def failures(self) -> int:
        """Steps and entries that failed, and results that are wrong; a goal that is missed is none."""
        wrong = [e for k in ("agreement", "sanitized") for e in self.entries(k) if not e["ok"]]
        return len(self.entries("failed")) + len(wrong) + sum(s.status == "failed" for s in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"format": FORMAT, **asdict(self)}


def write(report: Report, folder: Path) -> None:
    """Both files, each replaced in one go, so that an interruption leaves the ones before."""
    from attngen.bench.gpu.table import markdown

    folder.mkdir(parents=True, exist_ok=True)
    texts = {JSON_NAME: json.dumps(report.as_json(), indent=1) + "\n", TABLE_NAME: markdown(report)}
    for name, text in texts.items():
        partial = folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def machine_facts() -> dict[str, Any]:
    """The machine, its driver and clocks, and versions of whatever takes part."""
    facts: dict[str, Any] = dict(machine())
    facts["system"] = platform.platform(terse=True)
    facts["cuda"] = torch.version.cuda
    facts |= {name: _version(name) for name in _VERSIONS}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        facts["memory_gib"] = round(total / 2**30, 1)
        facts["memory_free_gib"] = round(free / 2**30, 1)
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        first = done.stdout.strip().splitlines()[0].split(", ")
        facts |= {f"nvidia_{name}": value for name, value in zip(fields.split(","), first, strict=False)}
    except (OSError, subprocess.SubprocessError, IndexError):
        facts["nvidia_driver_version"] = None
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
