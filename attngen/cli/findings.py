"""What `attngen doctor` looks at: each check yields findings, each with its cure."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from attngen.cli.common import bytes_text, seconds_text
from attngen.errors import AttngenError, CompilerNotFoundError, SettingsError

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
    """One line of the report.

    cure     says what to do; shown where something is missing.
    command  does it, where one command can.
    """

    subject: str
    state: State
    text: str
    cure: str = ""
    command: str = ""


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
        ("artefacts", _artefacts),
        *TRIALS,
    )
    healthy = True
    for subject, check in checks:
        if not healthy and (subject, check) in TRIALS:
            yield Finding(subject, State.NOTE, "not tried", "cure what is above first")
            continue
        try:
            for finding in check():
                healthy = healthy and finding.state is not State.PROBLEM
                yield finding
        except AttngenError as error:
            healthy = False
            yield Finding(subject, State.PROBLEM, error.message, error.hint or "")
        except Exception as error:  # a doctor outlives what it finds
            healthy = False
            text = f"{type(error).__name__}: {error}"
            yield Finding(
                subject, State.PROBLEM, text, "reinstall this package", _pip("--force-reinstall attngen")
            )


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("python", State.OK, text)


def _settings() -> Iterator[Finding]:
    from attngen.store.settings import VARIABLES, settings

    try:
        settings()
    except SettingsError as error:
        named = next((v.name for v in VARIABLES if v.name in error.message), "")
        yield Finding(
            "settings", State.PROBLEM, error.message, error.hint or "", f"unset {named}" if named else ""
        )
        return
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
                yield Finding(name, State.PROBLEM, "not installed", "install it", _pip(name))


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", State.PROBLEM, f"cannot be imported: {error}", "install it", _pip("torch"))
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    build = f"ROCm {torch.version.hip}" if torch.version.hip else build
    yield Finding("torch", State.OK, f"{torch.__version__}, {build}")


def _triton() -> Iterator[Finding]:
    cure = "install it, to run on a GPU and to inspect or compile kernels for one"
    try:
        import triton
    except ImportError as error:
        yield Finding("triton", State.NOTE, f"cannot be imported: {error}", cure, _pip("triton"))
        return
    yield Finding("triton", State.OK, str(triton.__version__))
    from triton import knobs

    try:
        ptxas = knobs.nvidia.ptxas
    except RuntimeError as error:
        cure = "reinstall triton, whose wheel ships ptxas"
        yield Finding("ptxas", State.NOTE, str(error), cure, _pip("--force-reinstall triton"))
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
            cure = "reinstall this package, which ships them"
            yield Finding(
                name, State.PROBLEM, f"no {pattern} in {folder}", cure, _pip("--force-reinstall attngen")
            )


def _compiler() -> Iterator[Finding]:
    from attngen.backends.cpu_compile import compile_command, find_compiler
    from attngen.emit.target import parse_target
    from attngen.store.settings import settings

    try:
        compiler = find_compiler()
    except CompilerNotFoundError as error:
        command = "unset ATTNGEN_CXX" if settings().cxx else _install_compiler()
        yield Finding("compiler", State.PROBLEM, error.message, error.hint or "", command)
        return
    version = _output([str(compiler), "--version"]).split("\n", 1)[0]
    with tempfile.TemporaryDirectory(prefix="attngen-doctor-") as folder:
        source, library = Path(folder, "probe.cpp"), Path(folder, "probe.so")
        source.write_text(_PROBE, encoding="utf-8")
        try:
            _output(compile_command(compiler, parse_target("cpu"), source, library))
        except subprocess.CalledProcessError as error:
            first = (error.output or "").strip().split("\n", 1)[0]
            cure = "install a C++17 compiler with OpenMP and its headers"
            text = f"{compiler} cannot build a kernel: {first}"
            yield Finding("compiler", State.PROBLEM, text, cure, _install_compiler())
            return
    yield Finding("compiler", State.OK, f"{compiler}, {version}")


def _pip(what: str) -> str:
    """The command that installs packages for this Python."""
    return f"{sys.executable} -m pip install {what}"


def _install_compiler() -> str:
    """The command of this system's package manager; empty where none is known."""
    known = {
        "apt-get": "apt-get install -y g++",
        "dnf": "dnf install -y gcc-c++",
        "zypper": "zypper install -y gcc-c++",
        "apk": "apk add g++",
        "pacman": "pacman -S --noconfirm gcc",
        "brew": "brew install gcc",
    }
    return next((command for manager, command in known.items() if shutil.which(manager)), "")


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

    driver = _driver()
    if not torch.cuda.is_available():
        if driver and not (torch.version.cuda or torch.version.hip):
            cure = "install a build of PyTorch for this GPU"
            text = f"a driver is here ({driver}), but this PyTorch knows no GPU"
            yield Finding("gpu", State.NOTE, text, cure, _pip("--force-reinstall torch"))
            return
        if driver:
            cure = "a driver as new as PyTorch's CUDA is needed, and the right to open its devices"
            text = f"a driver is here ({driver}), but PyTorch's CUDA {torch.version.cuda} cannot use it"
            yield Finding("gpu", State.NOTE, text, cure, "nvidia-smi")
            return
        cure = "none needed: the CPU backend runs here, and kernels compile for GPUs that are elsewhere"
        yield Finding("gpu", State.NOTE, "none that PyTorch sees", cure)
        return
    yield Finding("driver", State.OK, driver or "of a version that is not told")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        arch = getattr(about, "gcnArchName", "") if torch.version.hip else f"sm_{about.major}{about.minor}"
        memory = bytes_text(about.total_memory)
        yield Finding(f"gpu {index}", State.OK, f"{about.name}, {arch}, {memory}")


def _driver() -> str:
    """The version of a GPU's driver, as Linux tells it; empty where there is none."""
    for file in ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version"):
        try:
            return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return ""


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
        command = f"chmod 700 {shlex.quote(str(store.root))}" if store.root.is_dir() else ""
        yield Finding("cache", State.PROBLEM, refused.message, refused.hint or "", command)
        return
    text = f"{store.root}: {len(entries)} entries, {size}, one write {seconds_text(took)}"
    yield Finding("cache", State.OK, text)


def _artefacts() -> Iterator[Finding]:
    """Those that are installed: what is refused, and what calls pass over since another attngen built it."""
    from attngen.artefact.installed import installed
    from attngen.artefact.read import open_artefact
    from attngen.pipeline import sources

    places = installed()
    others: list[str] = []
    for place in places:
        try:
            if open_artefact(place.path).manifest.versions.get("sources") != sources():
                others.append(place.path.name)
        except AttngenError as error:
            yield Finding("artefacts", State.NOTE, f"{place.path}: {error.message}", error.hint or "")
    if others:
        text = f"{', '.join(others)}: built by another attngen; load_artefact runs them, other calls do not take them"
        yield Finding(
            "artefacts", State.NOTE, text, "build them again with attngen compile and attngen package"
        )
    yield Finding("artefacts", State.OK, f"{len(places)} installed" if places else "none installed")


def _cpu_kernel() -> Iterator[Finding]:
    """Build the kernel of a small call and run it."""
    from attngen.cli.trials import cpu_trial

    yield Finding("cpu kernel", State.OK, cpu_trial())


def _gpu_kernel() -> Iterator[Finding]:
    """Run a kernel on the GPU that is here, or compile one for a GPU that is not."""
    from attngen.cli.trials import WrongResultError, gpu_trial

    try:
        yield Finding("gpu kernel", State.OK, gpu_trial())
    except WrongResultError:
        raise
    except AttngenError as error:
        cure = error.hint or "the CPU backend is not concerned"
        yield Finding("gpu kernel", State.NOTE, error.message, cure)


TRIALS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("cpu kernel", _cpu_kernel),
    ("gpu kernel", _gpu_kernel),
)
