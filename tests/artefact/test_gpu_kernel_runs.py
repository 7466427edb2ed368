"""Kernels built ahead of time on real hardware, against what Triton compiles at the launch; skipped without a GPU."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

import attngen
from attngen.aot.build_gpu import build_gpu
from attngen.artefact.gpu_kernel import GpuKernel
from attngen.artefact.manifest import Kernel, Launch
from attngen.artefact.targets import accepted, shared_limit
from attngen.emit.spec import Target
from attngen.emit.triton.config import TritonConfig
from attngen.errors import LaunchError
from attngen.pipeline import target_of_device
from tests.artefact.launches import Launched, built, moved
from tests.forward.suite import PROGRAMS
from tests.oracle import DTYPES, Shape, make_inputs

pytestmark = pytest.mark.gpu

NAMES = (
    "causal", "sliding_window", "documents", "flex_alibi", "varlen", "prefix_lm", "dilated", "cascade_softcap",
)  # fmt: skip
SHAPE = Shape(b=2, h=4, hkv=2, n_q=301, n_k=333, d=64, e=64)


def build_here(spec, config: TritonConfig, alignment, directory) -> tuple[Kernel, GpuKernel]:
    """The kernel that a launch of Triton had, built ahead of time for this device."""
    target: Target = target_of_device("cuda", 0)
    directory.mkdir()
    made = build_gpu(spec, target, config, alignment, directory)
    assert made.shared <= shared_limit(torch.device("cuda", 0))
    launch = Launch("1", "1", made.threads, made.shared, made.scratch)
    kernel = replace(built(spec, made.config, alignment, target), entry=made.entry, launch=launch)
    assert kernel.args == made.args
    return kernel, GpuKernel(kernel, (directory / made.files["binary"]).read_bytes())


def launches(monkeypatch, spec, tensors, inputs):
    """The launches of a call, with what Triton computed."""
    seen = Launched(monkeypatch, run=True)
    spec(*inputs, backend="triton", **tensors)
    monkeypatch.undo()
    assert seen.seen
    return seen.seen


def again(kernel: GpuKernel, call) -> None:
    """The same call computes the same bits."""
    outputs = {n: torch.full_like(t, 7) for n, t in call.outputs.items()}
    kernel.launch(replace(call, outputs=outputs))
    for name, found in outputs.items():
        assert torch.equal(found.view(torch.uint8), call.outputs[name].view(torch.uint8)), name


def program(name: str):
    return next(p for p in PROGRAMS if p.name == name)


def test_the_target_of_this_device_is_accepted():
    assert target_of_device("cuda", 0).arch in accepted(torch.device("cuda", 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits(monkeypatch, tmp_path, name, dtype):
    spec, tensors = moved(*program(name).build(SHAPE), "cuda")
    for i, (kspec, kernel, call) in enumerate(
        launches(monkeypatch, spec, tensors, make_inputs(SHAPE, dtype, "cuda"))
    ):
        _, ahead = build_here(kspec, kernel._config, "features", tmp_path / str(i))
        again(ahead, call)


@pytest.mark.parametrize("alignment", ["all", "none"])
def test_other_alignments(monkeypatch, tmp_path, alignment):
    inputs = make_inputs(replace(SHAPE, n_q=320, n_k=336), "bf16", "cuda")
    ((spec, kernel, call),) = launches(monkeypatch, attngen.load("causal", ("O", "LSE")), {}, inputs)
    _, ahead = build_here(spec, kernel._config, alignment, tmp_path / "kernel")
    again(ahead, call)
    turned = replace(call, key=call.key.mT.contiguous().mT, value=call.value.mT.contiguous().mT)
    if alignment == "all":
        assert ahead.refusal(turned) is not None
        with pytest.raises(LaunchError):
            ahead.launch(turned)
    else:
        outputs = {n: torch.empty_like(t) for n, t in call.outputs.items()}
        ahead.launch(replace(turned, outputs=outputs))
        torch.testing.assert_close(outputs["O"], call.outputs["O"], atol=2e-2, rtol=2e-2)


def test_descriptors(monkeypatch, tmp_path):
    """With memory to work in, which the launch allocates."""
    inputs = make_inputs(SHAPE, "bf16", "cuda")
    ((spec, kernel, call),) = launches(monkeypatch, attngen.load("causal", ("O", "LSE")), {}, inputs)
    config = replace(kernel._config, descriptors=True)
    _, ahead = build_here(spec, config, "features", tmp_path / "kernel")
    outputs = {n: torch.empty_like(t) for n, t in call.outputs.items()}
    ahead.launch(replace(call, outputs=outputs))
    torch.testing.assert_close(outputs["O"], call.outputs["O"], atol=2e-2, rtol=2e-2)


def test_streams_threads_and_graphs(monkeypatch, tmp_path):
    inputs = make_inputs(SHAPE, "bf16", "cuda")
    ((spec, kernel, call),) = launches(monkeypatch, attngen.load("causal", ("O", "LSE")), {}, inputs)
    _, ahead = build_here(spec, kernel._config, "features", tmp_path / "kernel")
    torch.cuda.synchronize()
    results = [{n: torch.full_like(t, 7) for n, t in call.outputs.items()} for _ in range(4)]

    def on_a_stream(outputs):
        with torch.cuda.stream(torch.cuda.Stream()):
            ahead.launch(replace(call, outputs=outputs))

    threads = [threading.Thread(target=on_a_stream, args=(r,)) for r in results]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    torch.cuda.synchronize()
    captured = {n: torch.full_like(t, 7) for n, t in call.outputs.items()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ahead.launch(replace(call, outputs=captured))
    graph.replay()
    torch.cuda.synchronize()
    for outputs in (*results, captured):
        for name, found in outputs.items():
            assert torch.equal(found, call.outputs[name]), name


def test_strides_of_heads_beyond_32_bits(tmp_path, monkeypatch):
    """Two heads of keys that lie more than 2^31 elements apart."""
    q, k, v = make_inputs(replace(SHAPE, b=1, h=2, hkv=2), "bf16", "cuda")
    ((spec, kernel, call),) = launches(monkeypatch, attngen.load("causal", ("O", "LSE")), {}, (q, k, v))
    _, ahead = build_here(spec, kernel._config, "features", tmp_path / "kernel")
    apart = 2**31 + 64
    room = torch.empty(apart + k[0, 0].numel(), dtype=k.dtype, device="cuda")
    far = room.as_strided(k.shape, (0, apart, 64, 1))
    far.copy_(k)
    again(ahead, replace(call, key=far))
