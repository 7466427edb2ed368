"""The system's C++ compiler: finding it, and running it on a kernel's text.

The command needs nothing of torch or Python, so the same one serves kernels built ahead of time.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

from attngen.emit.spec import Source, Target
from attngen.errors import CompileError, CompilerNotFoundError, TargetError
from attngen.store.settings import settings

log = logging.getLogger("attngen.backends.cpu")

SOURCE_NAME, LIBRARY_NAME = "kernel.cpp", "kernel.so"

# Contraction makes a * b + c one instruction. What -ffast-math adds beyond these would break NaN and infinity.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-fvisibility=default",
    "-Wno-psabi",
)
_X86_LEVELS = {"cpu-avx2": "x86-64-v3", "cpu-avx512": "x86-64-v4"}
_NEEDED_FEATURES = {
    "cpu-avx2": {"avx2", "fma", "f16c", "bmi2"},
    "cpu-avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}

# What -march=native may turn on in a kernel, x86 and Arm.
_USED_FEATURES = frozenset(
    "avx avx2 fma f16c bmi1 bmi2 sse4_1 sse4_2 ssse3 popcnt movbe abm avx_vnni avx_ifma avx_vnni_int8 "  # noqa: SIM905
    "avx_ne_convert avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni "
    "avx512_bitalg avx512_vpopcntdq avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 "
    "asimd asimdhp asimddp asimdfhm fphp fcma sve sve2 svebf16 svei8mm bf16 i8mm".split()
)


def find_compiler() -> Path:
    """The compiler: ATTNGEN_CXX, else CXX, else c++, g++ or clang++ on the path.

    Raises CompilerNotFoundError; a compiler that was asked for by name is never replaced by another.
    """
    asked = settings().cxx or os.environ.get("CXX", "").strip()
    names = (asked,) if asked else ("c++", "g++", "clang++")
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    looked = f"{asked!r} is not a program on the path" if asked else "looked for c++, g++ and clang++"
    raise CompilerNotFoundError(
        f"no C++ compiler: {looked}",
        hint="install one (apt install g++), or set ATTNGEN_CXX to its path",
    )


def compiler_identity(compiler: Path) -> str:
    """What changes when the compiler does: its real path, size and time of installation.

    Asking it for its version would start a process each time a cached kernel is loaded.
    """
    real = compiler.resolve()
    stat = real.stat()
    return f"{real}:{stat.st_size}:{stat.st_mtime_ns}"


def target_flags(target: Target) -> tuple[str, ...]:
    """All flags for a target. Raises TargetError for an x86 target on another architecture."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if target.arch in _X86_LEVELS:
        if not x86:
            raise TargetError(
                f"{target.arch} is an x86 target; this machine's compiler builds for {platform.machine()}",
                hint="use the target cpu, which is the machine's own instruction set",
            )
        return (*_FLAGS, f"-march={_X86_LEVELS[target.arch]}")
    return (*_FLAGS, "-march=native" if x86 else "-mcpu=native")


def needed_features(target: Target) -> tuple[str, ...]:
    """The instruction sets that a kernel built here for a target may use, as Linux calls them.

    For the target cpu, which is this machine, those of it that compilers make use of.
    """
    known = _NEEDED_FEATURES.get(target.arch)
    return tuple(sorted(known if known is not None else machine_features() & _USED_FEATURES))


def machine_features() -> frozenset[str]:
    """The instruction sets of this machine; empty where Linux does not tell."""
    names = ("flags", "Features")
    return frozenset(word for line in _cpu_lines() if line.startswith(names) for word in line.split())


def check_runs_here(target: Target) -> None:
    """Raise TargetError for a target with instructions this machine lacks, which would end the process."""
    flags = machine_features()
    missing = _NEEDED_FEATURES.get(target.arch, set[str]()) - flags
    if missing and flags:
        raise TargetError(
            f"this machine cannot run {target.arch} kernels: its processor lacks {', '.join(sorted(missing))}",
            hint="use the target cpu, which is the machine's own instruction set",
        )


def is_known_to_run(arch: str) -> bool:
    """Whether this machine says of itself that it has every instruction of a CPU target."""
    return _NEEDED_FEATURES.get(arch, set[str]()) <= machine_features()


@cache
def _cpu_lines() -> tuple[str, ...]:
    """What Linux says of the processors, empty elsewhere."""
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return ()


@cache
def cpu_features() -> str:
    """A digest of the instruction sets of this machine: what -march=native means here."""
    lines = _cpu_lines()
    if not lines:
        return f"{platform.machine()} {platform.processor()}"
    facts = ("flags", "Features", "vendor_id", "cpu family", "model\t", "CPU implementer", "CPU part")
    return sha256("\n".join(sorted({ln for ln in lines if ln.startswith(facts)})).encode()).hexdigest()


def compile_command(compiler: Path, target: Target, source: Path, library: Path) -> list[str]:
    """The command that turns a kernel's text into a shared library."""
    return [str(compiler), *target_flags(target), "-o", str(library), str(source), "-lm"]


def compile_kernel(source: Source, directory: Path, compiler: Path) -> Path:
    """Write the text into `directory` and compile it there; the library's path.

    Raises CompileError with the compiler's output and a copy of the text that stays after the directory is gone,
    also when the compiler runs longer than ATTNGEN_COMPILE_TIMEOUT_S.
    """
    text_path, library = directory / SOURCE_NAME, directory / LIBRARY_NAME
    text_path.write_text(source.text, encoding="utf-8")
    # By name: a path of this machine in the library would make it differ from one built elsewhere.
    command = compile_command(compiler, source.target, Path(SOURCE_NAME), Path(LIBRARY_NAME))
    log.debug("compiling: %s", " ".join(command))
    limit_s = settings().compile_timeout_s
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
            check=False,
            cwd=directory,
        )
    except subprocess.TimeoutExpired as error:
        raise _failure(source, f"{compiler.name} was still compiling after {limit_s:g} s", "") from error
    except OSError as error:
        raise CompilerNotFoundError(
            f"{compiler} could not be started: {error.strerror}", hint="set ATTNGEN_CXX to a C++ compiler"
        ) from error
    if done.returncode != 0:
        first = next((ln for ln in done.stderr.splitlines() if "error" in ln), f"exit code {done.returncode}")
        raise _failure(source, f"{compiler.name} rejected a generated kernel: {first.strip()}", done.stderr)
    return library


def _failure(source: Source, message: str, output: str) -> CompileError:
    kept = Path(tempfile.mkdtemp(prefix="attngen-failed-")) / SOURCE_NAME
    kept.write_text(source.text, encoding="utf-8")
    return CompileError(
        message,
        log=output,
        path=str(kept),
        hint=f"the kernel's text is in {kept}; GCC 10 or Clang 14 and newer are expected to compile it",
    )
