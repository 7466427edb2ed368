"""C programs include the header of an artefact, link its launcher or its kernels, run them and check the results."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).with_name("c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
COMPILERS = [c for c in ("gcc", "clang") if shutil.which(c)] or [os.environ.get("CC", "cc")]


def run(*command: object, **options) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def program(
    artefact: Path, source: str, folder: Path, *flags: str, compiler: str = COMPILERS[0], launcher: bool = True
) -> Path:
    """A program of tests with an artefact's launcher, compiled without a warning."""
    out = folder / source.removesuffix(".c")
    texts = [artefact / f"{artefact.name}.c"] if launcher else []
    includes = ("-I", artefact, "-I", SOURCES)
    for text in texts:  # the launcher alone: the tests' own helpers are not for sale
        run(compiler, *STRICT, "-O2", *flags, "-c", text, "-o", folder / "launcher.o")
    # what a test does not call of `reference.h` is no fault
    objects = [folder / "launcher.o"] if launcher else []
    extra = ("-Wno-unused-function", "-O1", "-g")
    run(compiler, *STRICT, *extra, *includes, SOURCES / source, *objects, *flags, "-o", out, "-ldl", "-lpthread", "-lm")
    return out


@pytest.fixture
def causal(built) -> Path:
    return built("causal", ("O", "LSE"), target=("cpu", "cpu-avx2", "cpu-avx512"), dtype=("fp32", "bf16"))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_causal(causal, tmp_path, compiler):
    out = run(program(causal, "causal.c", tmp_path, compiler=compiler), causal)
    assert out.count(": O within") == 14


def test_causal_under_sanitizers(causal, tmp_path):
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    made = program(causal, "causal.c", tmp_path, *flags)
    run(made, causal, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})


def test_lists_and_captured_tensors(built, tmp_path):
    artefact = built("documents", ("O", "LSE"))
    out = run(program(artefact, "documents.c", tmp_path), artefact).splitlines()
    assert "lists of 1 x 1 x" in out[0]
    assert "only 3 of the four lists" in out[1]
    assert out[2] == "documents: axis 1 of doc has 299 elements, n_k is 300"


def test_boxes(built, tmp_path):
    artefact = built("neighborhood_2d", ("O", "LSE"))
    out = run(program(artefact, "neighborhood_2d.c", tmp_path), artefact).splitlines()
    assert out[0].endswith("the grid has more tokens than the 713 keys")
    assert out[1].endswith("cpu/fp32-d16/one_pass-0, has dilation_x 1, not 2")
    assert "stride_y is 0" in out[2]


def test_a_call_that_nothing_serves_names_the_nearest(causal, tmp_path):
    lines = run(program(causal, "errors.c", tmp_path), causal).splitlines()
    best = "cpu-avx512"
    if "avx512vl" not in Path("/proc/cpuinfo").read_text():
        best = "cpu-avx2"
    near = "2 causal: no kernel suits this call; the nearest, "
    assert lines[0] == "0 ran"
    assert lines[1] == f"{near}{best}/fp32-d16/one_pass-0, has head_dim 16, not 24; has value_dim 16, not 24"
    assert lines[2] == f"{near}{best}/bf16-d16/one_pass-0, has dtype bfloat16, not float16"
    assert lines[3].endswith("has dtype bfloat16, not no dtype")
    assert lines[4].endswith("is for positive scales, not -1")
    assert lines[5] == "1 causal: scale is not finite"
    assert lines[6].startswith("2 ")
    assert lines[6].endswith(", not CUDA")
    assert lines[7] == "1 causal: 7 is no device"
    assert lines[8] == "1 causal: n_h = 3 is not a multiple of n_kv = 2"
    assert lines[9] == "1 causal: n_q is -1"
    assert lines[10] == "1 causal: at most 134217728 tokens are supported"
    assert lines[11] == "1 causal: the address of V is NULL"
    assert lines[12] == "1 causal: the address of O is NULL"
    assert lines[13] == "1 causal: an argument is NULL"
    assert lines[14] == "1 causal_open: an argument is NULL"
    assert lines[15].startswith(f"3 /nowhere/{best}/fp32-d16/one_pass-0/kernel.so")
    assert lines[16] == f"{best}/fp32-d16/one_pass-0 1 2"


def test_a_kernel_linked_with_directly(causal, tmp_path):
    kernel = causal / "cpu/fp32-d16/one_pass-0/kernel.so"
    made = program(causal, "direct.c", tmp_path, kernel, f"-Wl,-rpath,{kernel.parent}", launcher=False)
    run(made)


def test_headers_of_two_artefacts_in_one_program_of_cpp(built, causal, tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler is not None
    other = built("documents", ("O", "LSE"))
    text = tmp_path / "both.cpp"
    text.write_text(
        '#include "causal.h"\n#include "documents.h"\n'
        "int main() { causal_args a; documents_args b; causal_init(&a); documents_init(&b); return a.dtype + b.dtype; }\n"
    )
    objects: list[Path] = []
    for artefact in (causal, other):
        objects.append(tmp_path / f"{artefact.name}.o")
        run(COMPILERS[0], *STRICT, "-c", artefact / f"{artefact.name}.c", "-o", objects[-1])
    flags = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", causal, "-I", other)
    run(compiler, *flags, text, *objects, "-o", tmp_path / "both", "-ldl", "-lpthread")
    run(tmp_path / "both")
