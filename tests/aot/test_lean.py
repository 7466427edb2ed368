"""Artefacts load and run where there is PyTorch and nothing that derives, prints or compiles kernels."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

import attngen
from attngen.paper_samples import SAMPLES
from tests.aot.test_c_interface import SOURCES
from tests.aot.test_load import qkv

ROOT = Path(__file__).resolve().parents[2]
# What builds kernels, and what only that needs.
ABSENT = ("triton", "sympy", "jinja2", "networkx", "mpmath", "markupsafe", "isympy")

RUN = """
import importlib.util, json, sys
import torch

for name in {absent!r}:
    assert importlib.util.find_spec(name) is None, name
before = set(sys.modules)
import attngen

for case in json.loads(sys.argv[1]):
    given = torch.load(case["inputs"], weights_only=True)
    loaded = attngen.load_artefact(case["artefact"])
    got = loaded(*given["qkv"], **given["tensors"])
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(given["expected"])
    for a, b in zip(got, given["expected"]):
        assert a.dtype == b.dtype
        assert torch.equal(a.nan_to_num(nan=7.0), b.nan_to_num(nan=7.0)), case
    print("ran", loaded.manifest.name)
"""


@pytest.fixture(scope="module")
def lean_python(tmp_path_factory) -> Path:
    """The interpreter of an environment that has all packages of this one but `ABSENT`."""
    home = tmp_path_factory.mktemp("lean") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    )
    for kind in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(kind)).iterdir():
            name = entry.name.split("-")[0].split(".")[0].lower()
            is_ours = name.startswith(("attngen", "__editable__"))
            if (
                name not in ABSENT
                and not is_ours
                and entry.suffix != ".pth"
                and not (packages / entry.name).exists()
            ):
                (packages / entry.name).symlink_to(entry)
    return python


def run_lean(python: Path, cases: str, home: Path) -> str:
    env = {n: v for n, v in os.environ.items() if not n.startswith(("ATTNGEN_", "PYTHON", "XDG_", "TRITON"))}
    package = Path(attngen.__file__).resolve().parents[1]
    env |= {
        "PYTHONPATH": str(package),
        "HOME": str(home),
        "TMPDIR": str(home),
        "ATTNGEN_CXX": "no-compiler",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [python, "-c", RUN.format(absent=ABSENT), cases],
        capture_output=True, text=True, env=env, cwd=home, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def case(folder: Path, name: str, artefact: Path, inputs, tensors, expected) -> dict[str, str]:
    expected = expected if isinstance(expected, tuple) else (expected,)
    path = folder / f"{name}.pt"
    torch.save({"qkv": list(inputs), "tensors": tensors, "expected": list(expected)}, path)
    return {"artefact": str(artefact), "inputs": str(path)}


def test_artefacts_run_without_what_builds_them(built, lean_python, tmp_path):
    import json

    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    path = built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16"))
    home = tmp_path / "home"
    home.mkdir()
    cases = [
        case(tmp_path, str(dtype), path, qkv(dtype=dtype), {}, spec(*qkv(dtype=dtype)))
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ]
    inputs = qkv(72, 72, b=1, h=2)
    boxes = built("neighborhood_2d", ("O", "LSE"), {"grid": (8, 9)})
    cases.append(case(tmp_path, "boxes", boxes, inputs, {}, attngen.load_artefact(boxes)(*inputs)))
    doc = torch.arange(80).div(17, rounding_mode="floor").expand(2, -1).contiguous()
    lists, given = built("documents", ("O", "LSE")), qkv(80, 80)
    expected = attngen.load("documents", ("O", "LSE"))(*given, doc=doc)
    cases.append(case(tmp_path, "lists", lists, given, {"doc": doc}, expected))
    for name in ("column_sums", "entropy"):
        sample = next(s for s in SAMPLES if s.program == name)
        artefact = built(name, head_dim=8, value_dim=6, extents=dict(sample.ranks))
        tensors = {n: v for n, v in sample.spec().values.items() if isinstance(v, torch.Tensor)}
        loaded = attngen.load_artefact(artefact)
        cases.append(
            case(tmp_path, name, artefact, sample.inputs(), tensors, loaded(*sample.inputs(), **tensors))
        )
    out = run_lean(lean_python, json.dumps(cases), home)
    assert out.count("ran ") == len(cases)
    assert list(home.iterdir()) == []  # no cache is made


@pytest.mark.slow
def test_the_whole_catalogue_runs_there(lean_python, tmp_path):
    """Every program and cascade: what the artefact gives in the lean environment is what its specification gives."""
    import json

    from attngen.aot.compile_programs import Order, compile_programs
    from attngen.aot.request import Request
    from attngen.api import Attention
    from tests.papers.cases import CASES

    calls = []
    for sample in {s.program: s for s in SAMPLES}.values():
        spec = sample.spec()
        calls.append((spec, sample.inputs(), dict(sample.ranks), sample.widths))
    for one in {c.program: c for c in CASES}.values():
        g = torch.Generator().manual_seed(1)
        s = one.shape
        q = torch.randn(s.b, s.h, s.n_q, s.d, generator=g)
        k = torch.randn(s.b, s.hkv, s.n_k, s.d, generator=g)
        calls.append((one.spec(), (q, k, torch.randn(s.b, s.hkv, s.n_k, s.e, generator=g)), {}, (s.d, s.e)))
    calls = list({spec.program.name: call for call in reversed(calls) for spec in call[:1]}.values())
    orders = []
    for spec, _, ranks, widths in calls:
        captured = {n: str(v.dtype) for n, v in spec.values.items() if isinstance(v, torch.Tensor)}
        numbers = {n: v for n, v in spec.values.items() if not isinstance(v, torch.Tensor)}
        request = Request(("cpu",), ("fp32",), (widths,), extents=ranks, captured=captured)
        orders.append(Order(Attention.from_linked(spec.program, numbers), request))
    made = {m.name: m for m in compile_programs(orders, tmp_path / "out")}
    assert not [m.failures for m in made.values() if m.failures]
    home = tmp_path / "home"
    home.mkdir()
    cases = []
    for i, (spec, inputs, _, _) in enumerate(calls):
        path = made[spec.program.name].path
        tensors = {n: v for n, v in spec.values.items() if isinstance(v, torch.Tensor)}
        here = attngen.load_artefact(path)(*inputs, **tensors)
        torch.testing.assert_close(
            here, spec(*inputs), rtol=1e-4, atol=1e-5, equal_nan=True
        )  # boxes may differ
        cases.append(case(tmp_path, f"{i}", path, inputs, tensors, here))
    assert len(cases) >= 80
    out = run_lean(lean_python, json.dumps(cases), home)
    assert out.count("ran ") == len(cases)


def test_a_c_program_is_built_and_run_there(built, lean_python, tmp_path):
    """A header, a launcher and a C compiler are enough: nothing of Python is needed, and nothing of it is there."""
    artefact = built("causal", ("O", "LSE"), target=("cpu", "cpu-avx2", "cpu-avx512"), dtype=("fp32", "bf16"))
    code = f"""
import importlib.util, subprocess
for name in {ABSENT!r}:
    assert importlib.util.find_spec(name) is None, name
import torch
command = {["cc", "-std=c99", "-O2", "-I", str(artefact), "-I", str(SOURCES), str(SOURCES / "causal.c")]!r}
command += [{str(artefact / "causal.c")!r}, "-o", "causal", "-ldl", "-lpthread", "-lm"]
subprocess.run(command, check=True)
print(subprocess.run(["./causal", {str(artefact)!r}], check=True, capture_output=True, text=True).stdout)
"""
    done = subprocess.run(
        [lean_python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": O within") == 14
