"""`attngen doctor`: check this machine and say what is missing, each with its cure."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, bytes_text, columns, seconds_text
from attngen.errors import AttngenError

if TYPE_CHECKING:
    from attngen.cli.common import Subparsers

# What a kernel asks of a compiler, in one small file: C++17, OpenMP with its header, a shared object.
_PROBE = """\
#include <omp.h>
#include <cmath>
#include <cstdint>
extern "C" std::int32_t attngen_probe(const float* x, std::int32_t n) {
    std::int32_t seen = 0;
    #pragma omp parallel for reduction(+ : seen)
    for (std::int32_t i = 0; i < n; ++i) {
        seen += std::isinf(x[i]) ? omp_get_max_threads() : 1;
    }
    return seen;
}
"""
_PROBE_TIMEOUT_S = 60
_CPU_FLAGS = (
    *("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16"),
    *("asimd", "sve", "bf16"),
)


class State(StrEnum):
    """How a finding bears on the main job."""

    OK = "ok"
    NOTE = "--"  # something optional is absent; the main job runs without it
    PROBLEM = "!!"  # the main job cannot run until it is cured


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `cure` says what to do and is shown when something is missing."""

    subject: str
    state: State
    text: str
    cure: str = ""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    add_verb(
        subparsers,
        "doctor",
        help="check this machine and say what is missing",
        description="Check Python, PyTorch, Triton, the C++ compiler, the processor, the GPU and the cache. "
        "Exit code 0 when `attngen run` can work here, 1 when it cannot.",
        examples=["attngen doctor"],
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings and the settings; 1 when one of them keeps the main job from running."""
    from attngen.store.settings import settings_table

    del args
    findings = list(examine())
    print(columns([(f.state.value, f.subject, f.text) for f in findings]))
    print(f"\nsettings (environment variables)\n{_indented(settings_table())}")
    for finding in findings:
        if finding.cure and finding.state is not State.OK:
            print(f"\n{finding.state} {finding.subject}: {finding.text}\n   cure: {finding.cure}")
    problems = sum(f.state is State.PROBLEM for f in findings)
    if problems:
        print(f"\n{problems} to cure before `attngen run` can work")
    else:
        print("\n`attngen run` can work here")
    return 1 if problems else 0


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the report. A check that fails in an unforeseen way is a problem."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("settings", _settings),
        ("packages", _packages),
        ("torch", _torch),
        ("triton", _triton),
        ("data", _data),
        ("compiler", _compiler),
        ("processor", _processor),
        ("gpu", _gpu),
        ("cache", _cache),
    )
    for subject, check in checks:
        try:
            yield from check()
        except AttngenError as error:
            yield Finding(subject, State.PROBLEM, error.message, error.hint or "")
        except Exception as error:  # a doctor outlives what it finds
            yield Finding(
                subject, State.PROBLEM, f"{type(error).__name__}: {error}", "reinstall this package"
            )


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("python", State.OK, text)


def _settings() -> Iterator[Finding]:
    from attngen.store.settings import settings

    settings()  # raises SettingsError naming the variable
    yield Finding("settings", State.OK, "every variable has a value that can be used")


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("attngen", "numpy", "sympy", "networkx", "jinja2"):
        try:
            yield Finding(name, State.OK, version(name))
        except PackageNotFoundError:
            if name == "attngen":
                yield Finding(name, State.OK, f"a checkout at {Path(__file__).parents[2]}, not installed")
            else:
                yield Finding(name, State.PROBLEM, "not installed", f"python -m pip install {name}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", State.PROBLEM, f"cannot be imported: {error}", "python -m pip install torch")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    build = f"ROCm {torch.version.hip}" if torch.version.hip else build
    yield Finding("torch", State.OK, f"{torch.__version__}, {build}")


def _triton() -> Iterator[Finding]:
    cure = "python -m pip install triton (needed for `emit`, `inspect` and to run on a GPU)"
    try:
        import triton
    except ImportError as error:
        yield Finding("triton", State.NOTE, f"cannot be imported: {error}", cure)
        return
    yield Finding("triton", State.OK, str(triton.__version__))
    from triton import knobs

    try:
        ptxas = knobs.nvidia.ptxas
    except RuntimeError as error:
        yield Finding("ptxas", State.NOTE, str(error), "reinstall triton: its wheel ships ptxas")
        return
    yield Finding("ptxas", State.OK, f"{ptxas.version}, {ptxas.path}")


def _data() -> Iterator[Finding]:
    from attngen.resources import data_dir

    for name, pattern in (("ir", "**/*.attn"), ("templates", "**/*.jinja")):
        folder = data_dir(name)
        count = sum(1 for _ in folder.glob(pattern))
        if count:
            yield Finding(name, State.OK, f"{count} files in {folder}")
        else:
            yield Finding(name, State.PROBLEM, f"no {pattern} in {folder}", "reinstall attngen")


def _compiler() -> Iterator[Finding]:
    from attngen.backends.cpu_compile import compile_command, find_compiler
    from attngen.emit.target import parse_target

    compiler = find_compiler()
    version = _output([str(compiler), "--version"]).split("\n", 1)[0]
    with tempfile.TemporaryDirectory(prefix="attngen-doctor-") as folder:
        source, library = Path(folder, "probe.cpp"), Path(folder, "probe.so")
        source.write_text(_PROBE, encoding="utf-8")
        try:
            _output(compile_command(compiler, parse_target("cpu"), source, library))
        except subprocess.CalledProcessError as error:
            first = (error.output or "").strip().split("\n", 1)[0]
            cure = "install a C++17 compiler with OpenMP and its headers (Debian: apt-get install g++)"
            text = f"{compiler} cannot build a kernel: {first}"
            yield Finding("compiler", State.PROBLEM, text, cure)
            return
    yield Finding("compiler", State.OK, f"{compiler}, {version}")


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_PROBE_TIMEOUT_S,
        check=True,
        text=True,
        errors="replace",
    )
    return done.stdout


def _processor() -> Iterator[Finding]:
    name, flags = _cpuinfo()
    seen = [flag for flag in _CPU_FLAGS if flag in flags]
    text = " ".join(seen) or "no vector extensions known to attngen"
    yield Finding("processor", State.OK, f"{name}: {text}")
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} cores for this process, PyTorch uses {torch.get_num_threads()}"
    yield Finding("threads", State.OK, text)


def _cpuinfo() -> tuple[str, frozenset[str]]:
    """The processor's name and feature flags as Linux lists them; other systems give what Python knows."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return name, flags
    for line in text.split("\n\n", 1)[0].splitlines():
        label, _, value = (part.strip() for part in line.partition(":"))
        if label == "model name":
            name = value
        elif label in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        cure = "none needed: the CPU backend runs here, and kernels compile for GPUs that are elsewhere"
        yield Finding("gpu", State.NOTE, "none that PyTorch sees", cure)
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        arch = getattr(about, "gcnArchName", "") if torch.version.hip else f"sm_{about.major}{about.minor}"
        memory = bytes_text(about.total_memory)
        yield Finding(f"gpu {index}", State.OK, f"{about.name}, {arch}, {memory}")


def _cache() -> Iterator[Finding]:
    import time

    from attngen.store.cache import default_store

    store = default_store()
    entries = store.entries()
    size = bytes_text(sum(e.nbytes for e in entries))
    begin = time.perf_counter()
    refused = store.writable()
    took = time.perf_counter() - begin
    if refused is not None:
        yield Finding("cache", State.PROBLEM, refused.message, refused.hint or "")
        return
    text = f"{store.root}: {len(entries)} entries, {size}, one write {seconds_text(took)}"
    yield Finding("cache", State.OK, text)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
