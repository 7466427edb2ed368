"""The CPU backend: shapes, strides, NaN, schedules, captured tensors, threads and mistakes, against float64."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import attngen
from attngen import pipeline
from attngen.analysed import analyse
from attngen.api import Attention
from attngen.backends import cpu_compile
from attngen.backends.base import Call
from attngen.backends.cpu import CpuBackend
from attngen.backends.cpu_compile import compile_command, find_compiler
from attngen.emit.cpu_config import KEY_STEP, QUERY_STEP, CpuConfig, default_config
from attngen.emit.spec import KernelSpec
from attngen.emit.target import parse_target
from attngen.errors import (
    CompileError,
    CompilerNotFoundError,
    LaunchError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedError,
)
from attngen.planner.layout import Boxes
from attngen.planner.layout import Shape as BoxShape
from tests.oracle import DTYPES, Shape, assert_matches_reference, make_inputs

CPU = parse_target("cpu")
OUTPUTS = ("O", "LSE")


def kernel_spec(
    spec: Attention, dtype: str = "float32", head_dim: int = 64, value_dim: int = 64
) -> KernelSpec:
    """The kernel a call with float parameters only and no captured tensors would run."""
    return pipeline.kernel_spec(analyse(spec.program), pipeline.Specialisation(dtype, head_dim, value_dim))


def check(spec: Attention, query, key, value, **given):
    return assert_matches_reference(spec, query, key, value, backend="cpu", **given)


@pytest.mark.parametrize(("d", "e"), [(1, 3), (16, 16), (24, 80), (80, 24), (128, 64), (256, 256)])
def test_head_widths(d, e):
    shape = Shape(h=2, n_q=70, n_k=133, d=d, e=e)
    check(attngen.load("sliding_window", OUTPUTS, window=40), *make_inputs(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_q", "n_k"), [(1, 300), (8, 9), (9, 8), (127, 129), (128, 128), (129, 300), (300, 127)]
)
def test_lengths(dtype, n_q, n_k):
    shape = Shape(n_q=n_q, n_k=n_k, d=16, e=16)
    check(attngen.load("sliding_window_sink", OUTPUTS, sink=3, window=50), *make_inputs(shape, dtype))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_strides(dtype):
    """Transposed heads, a last axis that is not contiguous, a broadcast head, rows a page apart, odd offsets."""
    spec = attngen.load("causal", OUTPUTS)
    q, k, v = make_inputs(Shape(b=2, h=4, hkv=2, n_q=40, n_k=70, d=16, e=16), dtype)
    plain = check(spec, q, k, v)
    layouts = {
        "tokens first": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        "features strided": lambda t: t.mT.contiguous().mT,
        "every other feature": lambda t: torch.stack([t, t + 1], -1)[..., 0],
        "a page apart": lambda t: torch.cat([t, t.new_zeros(*t.shape[:3], 512 - t.shape[3])], -1)[
            ..., : t.shape[3]
        ],
        "odd offset": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    }
    for name, layout in layouts.items():
        out = check(spec, layout(q), layout(k), layout(v))
        assert torch.equal(out["O"], plain["O"]), name
    shared = k[:, :1].expand(-1, 2, -1, -1)
    check(spec, q, shared, v)


def test_outputs_may_have_any_strides():
    spec = kernel_spec(attngen.load("causal", OUTPUTS), head_dim=16, value_dim=16)
    kernel = CpuBackend().load(spec, CPU)
    q, k, v = make_inputs(Shape(n_q=40, n_k=40, d=16, e=16))
    want = {"O": torch.empty_like(q), "LSE": torch.empty(q.shape[:3])}
    strided = {
        "O": torch.full((1, 40, 16, 2), 7.0).permute(0, 3, 1, 2),
        "LSE": torch.full((1, 40, 2), 7.0).mT,
    }
    for outputs in (want, strided):
        kernel.launch(Call(q, k, v, outputs, {}, {"scale": 0.25}))
    assert torch.equal(want["O"], strided["O"])
    assert torch.equal(want["LSE"], strided["LSE"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sliding_window", "dilated"])
def test_nan_in_unreachable_keys_does_not_spread(name, dtype):
    """The first rows are too old for every query; dilation also skips keys between visible ones."""
    values = {"window": 20} if name == "sliding_window" else {"window": 5, "dilation": 4}
    spec = attngen.load(name, OUTPUTS, **values)
    n_q, n_k = 4, 150
    q, k, v = make_inputs(Shape(n_q=n_q, n_k=n_k, d=16, e=16), dtype)
    clean = check(spec, q[:, :, -1:], k, v)
    seen = torch.zeros(n_k, dtype=torch.bool)
    for j in range(n_k):
        moved = v.clone()
        moved[:, :, j] += 100
        seen[j] = not torch.equal(spec(q[:, :, -1:], k, moved, backend="cpu")[0], clean["O"])
    assert 0 < int(seen.sum()) < n_k
    for bad in (float("nan"), float("inf")):
        k[:, :, ~seen] = bad
        v[:, :, ~seen] = bad
        out = spec(q[:, :, -1:], k, v, backend="cpu")
        assert torch.equal(out[0], clean["O"])
        assert torch.equal(out[1], clean["LSE"])


@pytest.mark.parametrize("cascade", ["softmax", "sigmoid", "relu2"])
def test_a_visible_nan_reaches_its_rows_and_no_others(cascade):
    spec = Attention(mask=attngen.masks.causal(), cascade=cascade)
    q, k, v = make_inputs(Shape(n_q=100, n_k=100, d=16, e=16))
    clean = spec(q, k, v, backend="cpu")
    k[:, :, 60] = float("nan")
    out = spec(q, k, v, backend="cpu")
    assert out[:, :, 60:].isnan().all()
    assert torch.equal(out[:, :, :60], clean[:, :, :60])


def test_rows_that_see_nothing():
    spec = attngen.load("causal", OUTPUTS)  # bottom-right aligned: the first 60 of 100 rows see no key
    q, k, v = make_inputs(Shape(n_q=100, n_k=40, d=16, e=16))
    out = check(spec, q, k, v)
    assert (out["O"][:, :, :60] == 0).all()
    assert (out["LSE"][:, :, :60] == float("-inf")).all()
    assert out["LSE"][:, :, 60:].isfinite().all()


@pytest.mark.parametrize("torch_dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_captured_integers_of_every_width(torch_dtype):
    ids = (torch.arange(150) // 40).to(torch_dtype)
    spec = Attention(mask=lambda b, h, q, k: (ids[q] == ids[k]) & (k <= q), outputs=OUTPUTS)
    check(spec, *make_inputs(Shape(n_q=150, n_k=150, d=16, e=16)))


def test_captured_integers_beyond_32_bits_are_exact():
    """Ids that agree in their lower 32 bits are still different documents."""
    ids = (torch.arange(100) // 30 << 32) + 7
    spec = Attention(mask=lambda b, h, q, k: ids[q] == ids[k], outputs=OUTPUTS)
    check(spec, *make_inputs(Shape(n_q=100, n_k=100, d=16, e=16)))


@pytest.mark.parametrize("torch_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_captured_floats_of_every_width(torch_dtype):
    bias = torch.randn(2, 90, 110).to(torch_dtype)
    slope = torch.rand(2).to(torch_dtype)
    spec = Attention(
        score=lambda s, b, h, q, k: s + bias[h, q, k] - slope[h] * (q - k).abs(), outputs=OUTPUTS
    )
    check(spec, *make_inputs(Shape(n_q=90, n_k=110, d=16, e=16)))


def test_captured_booleans_strided_and_clamped():
    wide = torch.rand(2, 120, 2) < 0.6
    keep = wide[..., 0].mT.contiguous().mT  # [h, k], neither axis contiguous in the usual order
    table = torch.randn(2, 17)
    spec = Attention(
        mask=lambda b, h, q, k: keep[h, k] & (k <= q),
        score=lambda s, b, h, q, k: s + table[h, q - k + 3],  # far outside the table on both sides
        outputs=OUTPUTS,
    )
    check(spec, *make_inputs(Shape(n_q=120, n_k=120, d=16, e=16)))


def test_schedule_in_lists_agrees_with_ranges():
    """The same mask once in closed form, once through a captured tensor that says the same."""
    n = 300
    window = torch.full((n,), 70)
    lists = Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < window[k]), outputs=OUTPUTS)
    ranges = Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < 70), outputs=OUTPUTS)
    assert pipeline.plan_of(analyse(lists.program)).form == "lists"
    assert pipeline.plan_of(analyse(ranges.program)).form == "ranges"
    inputs = make_inputs(Shape(n_q=n, n_k=n, d=16, e=16))
    one, two = check(lists, *inputs), check(ranges, *inputs)
    torch.testing.assert_close(one["O"], two["O"])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_threads_do_not_change_a_bit(dtype):
    spec = attngen.load("sliding_window_sink", OUTPUTS, sink=4, window=60)
    inputs = make_inputs(Shape(b=2, h=3, hkv=1, n_q=310, n_k=310, d=16, e=16), dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(spec(*inputs, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for out in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(out, results[0], strict=True))


def test_names_that_mean_something_in_cpp(tmp_path):
    """Parameters, captures and Einsums named like C++ keywords, variables of the templates and types."""
    path = tmp_path / "awkward.attn"
    path.write_text(
        "double: int = 5\n"
        "LANES: int = 3\n"
        "args[k]: float\n"
        "mask = (k <= q + double) & (q - k < 40 * LANES)\n"
        "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale + args[k]\n"
        "ws[q] = max[k](S[q, k])\n"
        "vf[q, k] = exp(S[q, k] - ws[q])\n"
        "n[q] = sum[k](vf[q, k])\n"
        "load[q, e] = sum[k](vf[q, k] / n[q] * V[k, e])\n"
        "return load, n\n"
    )
    inputs = make_inputs(Shape(n_q=60, n_k=60, d=16, e=16))
    args = torch.randn(60, generator=torch.Generator().manual_seed(0))
    check(attngen.load(str(path)), *inputs, args=args)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tiles_always_suit_every_register_tile(dtype):
    for d in (1, 16, 64, 80, 128, 256, 512):
        config = default_config(CPU, dtype, d, d)
        assert config.block_q % QUERY_STEP == 0 < config.block_q
        assert config.block_k % KEY_STEP == 0 < config.block_k


def test_mistakes_at_launch_are_errors_of_ours():
    kernel = CpuBackend().load(
        kernel_spec(attngen.load("sliding_window", window=3), head_dim=16, value_dim=16), CPU
    )
    q, k, v = make_inputs(Shape(n_q=4, n_k=4, d=16, e=16))
    outputs = {"O": torch.empty_like(q)}
    with pytest.raises(ParameterError, match="window"):
        kernel.launch(Call(q, k, v, outputs, {}, {"scale": 1.0, "window": 2**40}))
    endless = k[:, :, :1].expand(-1, -1, 2**27 + 1, -1)
    with pytest.raises(UnsupportedError, match="tokens"):
        kernel.launch(Call(q, endless, endless, outputs, {}, {"scale": 1.0, "window": 3}))


def test_a_schedule_that_is_missing_or_a_tensor_without_elements_is_an_error():
    ids = torch.zeros(4, dtype=torch.int64)
    spec = Attention(mask=lambda b, h, q, k: ids[q] == ids[k])
    analysed = analyse(spec.program)
    (name,) = [t.name for t in spec.program.tensors]
    built = pipeline.kernel_spec(analysed, pipeline.Specialisation("float32", 16, 16, ((name, "int64", 1),)))
    kernel = CpuBackend().load(built, CPU)
    q, k, v = make_inputs(Shape(n_q=4, n_k=4, d=16, e=16))
    with pytest.raises(LaunchError, match="lists"):
        kernel.launch(Call(q, k, v, {"O": torch.empty_like(q)}, {name: ids}, {"scale": 1.0}))
    with pytest.raises(ShapeError, match="no elements"):
        kernel.launch(Call(q, k, v, {"O": torch.empty_like(q)}, {name: ids[:0]}, {"scale": 1.0}))


def test_no_compiler_is_said_so(monkeypatch):
    monkeypatch.setenv("ATTNGEN_CXX", "no-such-compiler")
    with pytest.raises(CompilerNotFoundError, match="no-such-compiler"):
        find_compiler()
    monkeypatch.delenv("ATTNGEN_CXX")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CompilerNotFoundError, match="looked for"):
        find_compiler()


def test_a_compiler_that_fails_leaves_its_output_and_the_text(monkeypatch, tmp_path):
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\necho 'kernel.cpp:1: error: no such luck' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("ATTNGEN_CXX", str(fake))
    spec = kernel_spec(attngen.load("causal"), head_dim=8, value_dim=8)
    with pytest.raises(CompileError, match="no such luck") as caught:
        CpuBackend().load(spec, CPU)
    assert "no such luck" in caught.value.log
    assert "attngen_kernel" in Path(caught.value.path).read_text(encoding="utf-8")


def test_a_compiler_that_hangs_is_stopped(monkeypatch, tmp_path):
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("ATTNGEN_CXX", str(fake))
    monkeypatch.setenv("ATTNGEN_COMPILE_TIMEOUT_S", "0.2")
    with pytest.raises(CompileError, match="still compiling"):
        CpuBackend().load(kernel_spec(attngen.load("causal"), head_dim=8, value_dim=8), CPU)


def test_x86_targets_need_an_x86_compiler(monkeypatch):
    monkeypatch.setattr(cpu_compile.platform, "machine", lambda: "aarch64")
    with pytest.raises(TargetError, match="x86"):
        cpu_compile.target_flags(parse_target("cpu-avx512"))
    assert "-mcpu=native" in cpu_compile.target_flags(CPU)


def test_a_target_this_machine_cannot_run_is_refused(monkeypatch):
    monkeypatch.setattr(cpu_compile, "_cpu_lines", lambda: ("flags : sse2 avx2 fma f16c bmi2",))
    spec = kernel_spec(attngen.load("causal"), head_dim=8, value_dim=8)
    with pytest.raises(TargetError, match="avx512bw"):
        CpuBackend().load(spec, parse_target("cpu-avx512"))
    cpu_compile.check_runs_here(parse_target("cpu-avx2"))


def test_a_second_backend_finds_the_kernel_without_printing_it(monkeypatch):
    spec = kernel_spec(attngen.load("causal"), head_dim=16, value_dim=16)
    CpuBackend().load(spec, CPU)
    monkeypatch.setattr(CpuBackend, "emit", lambda *_: pytest.fail("the cached kernel was printed again"))
    CpuBackend().load(spec, CPU)


@pytest.mark.parametrize("arch", ["cpu-avx2", "cpu-avx512"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_instruction_sets_compile_without_warnings(arch, dtype, tmp_path):
    spec = kernel_spec(attngen.load("sliding_window_sink", OUTPUTS), dtype)
    target = parse_target(arch)
    text = tmp_path / "kernel.cpp"
    text.write_text(CpuBackend().emit(spec, target).text, encoding="utf-8")
    command = compile_command(find_compiler(), target, text, tmp_path / "kernel.so")
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", "-Werror"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("dtype", "head_dim"), [("bf16", 128), ("fp16", 96), ("fp32", 256)])
def test_boxes_of_wide_heads_have_room(dtype, head_dim):
    """A box of more queries than a tile of such heads has once wrote past a thread's memory."""
    shape = Shape(h=2, n_q=1024, n_k=1024, d=head_dim, e=head_dim)
    check(attngen.load("dilated"), *make_inputs(shape, dtype))


@pytest.mark.parametrize("volume", [(256, 96), (1000, 500), (1, 1)])
def test_a_kernel_is_cut_for_its_boxes(volume):
    """Whatever tile sizes a configuration names, the text holds every token of a box."""
    spec = attngen.load("dilated")
    boxes = Boxes((BoxShape("residue", 1, 1, 0), BoxShape("step", *volume, 0)))
    special = pipeline.Specialisation("bfloat16", 128, 128, boxes=boxes)
    kernel = pipeline.kernel_spec(analyse(spec.program), special)
    for config in (None, CpuConfig(QUERY_STEP, KEY_STEP)):
        meta = dict(CpuBackend().emit(kernel, CPU, config).meta)
        assert meta["block_q"] >= volume[0]
        assert meta["block_k"] >= volume[1]
        assert meta["block_q"] % QUERY_STEP == 0
