"""What a measurement belongs to: the program, the kind of kernel, the machine, and calls that are alike.

Facts that decide what a kernel's text is, or what it runs on, name the journal: where one of them differs the
measurements are of something else. Versions of libraries and drivers are soft: measurements of others serve until
there are some of this one.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attngen import pipeline
from attngen.analysed import consts_of
from attngen.errors import AttngenError
from attngen.run_sweep import backend_of
from attngen.store.fingerprint import fingerprint
from attngen.store.key import digest
from attngen.store.settings import Settings
from attngen.tune.bucket import bucket_facts
from attngen.tune.folder import journal_path
from attngen.tune.journal import Journal

if TYPE_CHECKING:
    from attngen.run_sweep import SweepCall


def facts_of(call: SweepCall, settings: Settings) -> dict[str, object]:
    """Everything a measurement of this call depends on, sources of ours aside."""
    runner, inputs = call.runner, call.inputs
    device = inputs.query.device
    kind = backend_of(inputs.backend, device)
    name, units = machine_of(device.type, device.index or 0)
    program = runner.program
    threads = (settings.threads or torch.get_num_threads()) if kind == "cpu" else 0
    return {
        "program": program.name,
        "text": sha256("\0".join((runner.analysed.text, *program.outputs)).encode()).hexdigest(),
        "rows": runner.rows,
        "exact": sorted(runner.exact),
        "kind": kind,
        "device": name,
        "units": units,
        "threads": threads,
        "dtype": pipeline.DTYPES[inputs.query.dtype],
        "tensors": [[t.name, str(inputs.tensors[t.name].dtype)] for t in program.tensors],
        "consts": [list(c) for c in consts_of(program, inputs.params)],
        "bucket": bucket_facts(call.shapes, inputs.params),
    }


def hard_versions() -> dict[str, object]:
    """What of attngen decides the text of a kernel and how it is launched."""
    return {"sources": fingerprint("emit", "backends", "templates")}


@cache
def soft_versions(kind: str) -> dict[str, object]:
    """Versions whose change makes measurements old, not wrong."""
    found: dict[str, object] = {"torch": str(torch.__version__), "python": sys.version.split()[0]}
    if kind == "cpu":
        found["compiler"] = _compiler()
        return found
    try:
        found["triton"] = version("triton")
    except PackageNotFoundError:
        found["triton"] = ""
    found["runtime"] = str(torch.version.cuda or torch.version.hip or "")
    found["driver"] = _driver()
    return found


def journal_of(facts: dict[str, object], settings: Settings) -> Journal:
    """The journal of what facts stand for."""
    name = digest({**facts, **hard_versions()})
    return Journal(journal_path(settings.cache_dir, name), settings.lock_timeout_s)


@cache
def machine_of(device: str, index: int) -> tuple[str, int]:
    """The name of a device, and its multiprocessors or cores."""
    if device == "cuda":
        return torch.cuda.get_device_name(index), torch.cuda.get_device_properties(
            index
        ).multi_processor_count
    from attngen.bench.timing import processor

    return processor(), len(os.sched_getaffinity(0))


def _compiler() -> str:
    from attngen.backends.cpu_compile import compiler_identity, find_compiler

    try:
        return compiler_identity(find_compiler())
    except (AttngenError, OSError):
        return ""


def _driver() -> str:
    try:
        lines = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return lines[0].strip() if lines else ""
