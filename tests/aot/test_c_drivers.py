"""The launcher for GPUs: compiled against the vendors' headers, run on drivers that print what they are asked for."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
from pathlib import Path

import pytest

from attngen.artefact.manifest import Kernel
from attngen.artefact.read import open_artefact
from tests.aot.test_c_interface import SOURCES, program, run

triton = pytest.importorskip("triton")
HEADERS = Path(triton.__file__).parent / "backends/nvidia/include"
CUDA = ("-DATTNGEN_WITH_CUDA", "-isystem", str(HEADERS))
AMD = Path(triton.__file__).parent / "backends/amd/include"
_PARAMS = re.compile(r"\.param\s+\.[a-z](\d+)\s")


@pytest.fixture(scope="session")
def causal(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cuda")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}  # with it, nothing is compiled
    run(
        sys.executable, "-m", "attngen", "compile", "causal", "--outputs", "O,LSE", "--target", "sm_80,sm_90,gfx942",
        "--head-dim", "64", "--alignment", "features,none", "--packed", "16,64", "-o", out, env=env,
    )  # fmt: skip
    return out / "causal"


@pytest.fixture(scope="session")
def kernels(causal) -> dict[str, Kernel]:
    return {k.name: k for k in open_artefact(causal).manifest.kernels}


def sizes(ptx: str, entry: str) -> list[int]:
    """The bytes of each parameter, as the assembly of the kernel declares them."""
    signature = re.search(rf"\.entry\s+{entry}\s*\((.*?)\n\)", ptx, re.DOTALL)
    assert signature is not None
    return [int(bits) // 8 for bits in _PARAMS.findall(signature[1])]


@pytest.fixture(scope="session")
def fake(causal, kernels, tmp_path_factory) -> tuple[Path, Path, Path]:
    """The artefact with modules of the fake driver, a folder with the driver, and the program."""
    folder = tmp_path_factory.mktemp("fake_cuda")
    copy = folder / "causal"
    shutil.copytree(causal, copy)
    for kernel in kernels.values():
        if kernel.target.kind == "cuda":
            ptx = (causal / kernel.files["assembly"]).read_text()
            text = " ".join(map(str, sizes(ptx, kernel.entry)))
            (copy / kernel.files["binary"]).write_text(text)
    compiler = ("gcc", "-shared", "-fPIC", "-O1", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror")
    run(*compiler, SOURCES / "fake_cuda.c", "-o", folder / "libcuda.so.1", "-Wl,-soname,libcuda.so.1")
    return copy, folder, program(causal, "cuda.c", folder, *CUDA)


def call(fake, *calls: str, capability: int = 80, **more: object) -> list[str]:
    artefact, driver, made = fake
    env = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_CAPABILITY": str(capability)}
    return run(made, artefact, *calls, env=env | {k: str(v) for k, v in more.items()}).splitlines()


def chosen(lines: list[str]) -> list[str]:
    return [line.removeprefix("chosen ") for line in lines if line.startswith("chosen ")]


def results(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"\d ", line)]


def f32(x: float) -> int:
    return struct.unpack("<I", struct.pack("<f", x))[0]


def expected_params(kernel: Kernel) -> str:
    """What the call of `cuda.c` passes, by the kernel's own arguments."""
    q, k = (3 * 300 * 64, 300 * 64, 64, 1), (3 * 400 * 64, 400 * 64, 64, 1)
    strides = {"Q": q, "K": k, "V": k, "O": q, "LSE": (900, 300, 1)}
    pointers = {"Q": 0x1000, "K": 0x2000, "V": 0x3000, "O": 0x4000, "LSE": 0x5000}
    extents = {"n_b": 2, "n_h": 3, "n_q": 300, "n_k": 400, "group": 1}
    words: list[str] = []
    for arg in kernel.args:
        if arg.name in kernel.ones:
            continue
        match arg.role:
            case "pointer":
                value = pointers[arg.of]
            case "stride":
                value = strides[arg.of][arg.axis]
            case "extent":
                value = extents[arg.of]
            case _:
                assert arg.of == "scale"
                value = f32(0.125)
        words.append(f"{arg.nbytes}:{value:x}")
    return " ".join([*words, "8:0", "8:0"])


def test_a_launch(fake, kernels):
    lines = call(fake, "", "stream=77", capability=90)
    kernel = kernels["sm_90/bf16-d64/one_pass-0"]
    launch = kernel.launch
    tiles = -(-300 // kernel.config.block_q)
    start = f"launch {2 * 3 * tiles} 1 1 x {launch.threads} 1 1 shared {launch.shared} stream"
    shared = ["cache 1", f"attribute 8 {launch.shared}"] if launch.shared > 48 << 10 else []
    assert lines == [
        "retain", "push 100", "pop", f"chosen {kernel.name}",
        "push 100", "load", f"function {kernel.entry}", *shared,
        f"{start} 0: {expected_params(kernel)}", "pop", "0 ran",
        "push 100", "pop", f"chosen {kernel.name}",
        "push 100", f"{start} 77: {expected_params(kernel)}", "pop", "0 ran",
        "push 100", "unload", "pop", "release",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("capability", "arch"),
    [(80, "sm_80"), (86, "sm_80"), (89, "sm_80"), (90, "sm_90"), (100, None), (75, None)],
)
def test_devices(fake, capability, arch):
    lines = call(fake, "", capability=capability)
    if arch:
        assert chosen(lines) == [f"{arch}/bf16-d64/one_pass-0"]
    else:
        assert results(lines)[0].startswith("2 causal: no kernel suits this call; the nearest, sm_90/bf16")
        assert results(lines)[0].endswith(f"is for sm_90, not sm_{capability}")


def test_alignment_and_lengths(fake):
    calls = {
        "": "",
        "Q=0x1008": "-none",
        "k_row=72": "-none",
        "v_last=2": "-none",
        "n_b=1": "",
        "n_h=6,n_q=1": "-packed16",
        "n_h=24,n_q=5": "-packed64",
        "n_h=24,n_q=100": "",
        "n_h=24,n_q=5,Q=0x1008": "-packed64-none",
        "k_head=0x100000000": "",
    }
    lines = call(fake, *(c or "default" for c in calls))
    assert chosen(lines) == [f"sm_80/bf16-d64/one_pass-0{suffix}" for suffix in calls.values()]
    assert all(line == "0 ran" for line in results(lines))


def test_packed_launches(fake, kernels):
    lines = call(fake, "n_h=24,n_q=5")
    assert kernels["sm_80/bf16-d64/one_pass-0-packed64"].config.block_q == 64
    (launch,) = (line for line in lines if line.startswith("launch"))
    assert launch.startswith(f"launch {2 * 3 * 1} ")  # 40 rows of 8 heads fit a tile


def test_errors(fake):
    lines = call(
        fake, "head_dim=32", "dtype=1", "device=0", "device=2", "k_row=0x7fffffff", "k_row=0x100000000"
    )
    texts = results(lines)
    near = "2 causal: no kernel suits this call; the nearest, "
    assert texts[0].endswith("has head_dim 64, not 32")
    assert texts[1].endswith("has dtype bfloat16, not float32")
    assert texts[2].startswith(near)
    assert texts[2].endswith("not a CPU")
    assert texts[3] == "5 causal: causal.c was compiled without ATTNGEN_WITH_HIP"
    assert texts[4].endswith("counts on rows of K that lie closer together")
    assert "passes stride 2 of K in 32 bits" in texts[5]


def test_a_device_with_little_shared_memory(fake, kernels):
    """A kernel that takes more is passed over."""
    little = 1000
    assert all(k.launch.shared > little for k in kernels.values() if k.target.kind == "cuda")
    (text,) = results(call(fake, "", capability=90, FAKE_SHARED=little))
    assert "bytes of shared memory, and a thread block gets 1000" in text


@pytest.mark.parametrize(
    ("function", "status", "text"),
    [
        ("cuInit", 5, "could not start: CUDA_ERROR_FAKE (999), a fake error"),
        ("cuCtxGetDevice", 5, "could not describe its device"),
        ("cuModuleLoadData", 3, "could not load a kernel: CUDA_ERROR_FAKE (209)"),
        ("cuModuleGetFunction", 3, "could not prepare a kernel"),
        ("cuLaunchKernel", 6, "could not launch a kernel: CUDA_ERROR_FAKE (719)"),
    ],
)
def test_a_driver_that_fails(fake, function, status, text):
    result = results(call(fake, "", FAKE_FAIL=function))[0]
    assert result.startswith(f"{status} the CUDA driver ")
    assert text in result


def test_no_driver(fake, tmp_path):
    artefact, _, made = fake
    lines = run(made, artefact, "", env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}).splitlines()
    assert results(lines)[0].startswith("5 there is no CUDA driver: libcuda.so.1")


HIP = ("-DATTNGEN_WITH_HIP", "-isystem", str(AMD))
_SIZE = re.compile(r"^ *-? *\.size: *(\d+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def fake_hip(causal, kernels, tmp_path_factory) -> tuple[Path, Path, Path]:
    """As `fake`, for AMD's driver; the program can do both."""
    folder = tmp_path_factory.mktemp("fake_hip")
    copy = folder / "causal"
    shutil.copytree(causal, copy)
    for kernel in kernels.values():
        if kernel.target.kind == "hip":
            args = re.search(
                r"^    \.args:\n(.*?)^    \.\w", (causal / kernel.files["assembly"]).read_text(), re.M | re.S
            )
            assert args is not None
            (copy / kernel.files["binary"]).write_text(" ".join(_SIZE.findall(args[1])))
    defined = ("-D__HIP_PLATFORM_AMD__=1", "-D_POSIX_C_SOURCE=200809L", "-isystem", str(AMD))
    run("gcc", "-shared", "-fPIC", *defined, SOURCES / "fake_hip.c", "-o", folder / "libamdhip64.so")
    return copy, folder, program(causal, "cuda.c", folder, *CUDA, *HIP)


def test_a_launch_on_hip(fake_hip, kernels):
    lines = call(fake_hip, "device=2", "device=2,stream=77,Q=0x1008", FAKE_ARCH="gfx942")
    first, second = (kernels[f"gfx942/bf16-d64/one_pass-0{more}"] for more in ("", "-none"))
    launch = first.launch
    programs = 2 * 3 * -(-300 // first.config.block_q)
    assert lines[:5] == [
        f"chosen {first.name}",
        "load",
        f"function {first.entry}",
        f"launch {programs} 1 1 x {launch.threads} 1 1 shared {launch.shared} stream 0: {expected_params(first)}",
        "0 ran",
    ]
    params = expected_params(second).replace("8:1000", "8:1008", 1)
    assert lines[5] == f"chosen {second.name}"
    assert lines[8].endswith(f" stream 77: {params}")
    assert lines[-2:] == ["unload", "unload"]


def test_errors_on_hip(fake_hip, tmp_path):
    (text,) = results(call(fake_hip, "device=2", FAKE_ARCH="gfx90a"))
    assert text.endswith("not gfx90a")
    (text,) = results(call(fake_hip, "device=2", FAKE_ARCH="gfx942", FAKE_FAIL=1))
    assert text == "6 the HIP driver could not launch a kernel: hipErrorFake (1)"
    artefact, _, made = fake_hip
    (text,) = results(
        run(made, artefact, "device=2", env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}).splitlines()
    )
    assert text.startswith("5 there is no HIP driver: libamdhip64.so")
