"""The launcher on a real GPU, on memory that PyTorch owns; skipped without one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import attngen
from attngen import arguments
from attngen.pipeline import target_of_device
from tests.aot.c_calls import CallError, CArtefact, empty_outputs
from tests.aot.test_c_interface import run
from tests.oracle import Shape, make_inputs

pytestmark = pytest.mark.gpu

SHAPE = Shape(b=2, h=8, hkv=2, n_q=301, n_k=333, d=64, e=64)


@pytest.fixture(scope="module")
def headers() -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends/nvidia/include")


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("gpu")
    arch = target_of_device("cuda", 0).arch
    run(
        sys.executable, "-m", "attngen", "compile", "causal", "sliding_window", "documents", "alibi", "--outputs",
        "O,LSE", "--target", arch, "--head-dim", "64", "--alignment", "features,none", "--packed", "16,64,256",
        "--dtype", "bf16,fp16", "-o", out, env=dict(os.environ),
    )  # fmt: skip
    return out


def opened(artefacts: Path, name: str, folder: Path, headers: str) -> CArtefact:
    return CArtefact(artefacts / name, folder, "-DATTNGEN_WITH_CUDA", "-isystem", headers)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("n_q", [301, 1, 5, 100])
@pytest.mark.parametrize("name", ["causal", "sliding_window", "alibi"])
def test_the_same_bits(artefacts, tmp_path, headers, name, n_q, dtype):
    shape = Shape(b=2, h=8, hkv=2, n_q=n_q, n_k=333, d=64, e=64)
    inputs = make_inputs(shape, dtype, "cuda")
    tensors = {"slope": torch.linspace(0.1, 1, 8, device="cuda")} if name == "alibi" else {}
    loaded = attngen.load_artefact(artefacts / name)
    expected = dict(zip(loaded.outputs, loaded(*inputs, **tensors), strict=True))
    bound, params = arguments.bind(loaded.program, loaded.bound(tensors), {})
    c = opened(artefacts, name, tmp_path, headers)
    outputs = empty_outputs(expected)
    args = c.args(inputs, outputs, bound, {**params, "scale": 0.125})
    args.device = 1
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    args.stream = stream.cuda_stream
    if "order" in {field for field, _ in args._fields_} and c.choose(args).takes_order:
        order = torch.arange(c.choose(args).tiles * shape.b * shape.h, dtype=torch.int32, device="cuda")
        args.order = order.data_ptr()
        torch.cuda.synchronize()
    c.run(args)
    stream.synchronize()
    for output in outputs:
        assert torch.equal(outputs[output], expected[output])
    c.close()


def test_lists_are_asked_for(artefacts, tmp_path, headers):
    inputs = make_inputs(SHAPE, "bf16", "cuda")
    doc = torch.zeros(2, 333, dtype=torch.int64, device="cuda")
    outputs = {"O": torch.empty_like(inputs[0]), "LSE": torch.empty(2, 8, 301, device="cuda")}
    c = opened(artefacts, "documents", tmp_path, headers)
    args = c.args(inputs, outputs, {"doc": doc}, {"scale": 0.125})
    args.device = 1
    if c.choose(args).takes_lists:
        with pytest.raises(CallError, match="lists"):
            c.run(args)
