"""What a kernel built ahead of time hands to the driver, against what Triton's launcher would get for the same call."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.artefact.gpu_kernel import GpuKernel
from attngen.artefact.manifest import Kernel
from attngen.backends.base import Call
from attngen.backends.triton import TritonKernel
from attngen.backends.triton_call import tensor_of
from attngen.emit.spec import Target
from attngen.errors import (
    AttngenError,
    DeviceError,
    LaunchError,
    LoadError,
    ParameterError,
    ResourceError,
    ShapeError,
    UnsupportedError,
)
from attngen.planner.plan import BlockLists, DeviceBlockLists
from tests.artefact.launches import FakeGpu, Launched, built, module_of
from tests.forward.suite import PROGRAMS
from tests.oracle import Shape, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=96, n_k=112, d=32, e=48)
STREAM, DEVICE = 77, 3


class Recorded:
    """Stands in for a function of Triton: keeps the grid and the arguments of a launch."""

    def __getitem__(self, grid):
        self.grid = grid
        return self

    def __call__(self, *values, **options):
        self.values, self.options = values, options


def triton_gets(kernel: TritonKernel, call: Call) -> tuple[int, dict[str, object]]:
    """The programs and the arguments by name that Triton's launcher gets of a call."""
    recorded = Recorded()
    TritonKernel(recorded, kernel._args, kernel._config, {}).launch(call)
    names = [a.name for a in kernel._args]
    return recorded.grid[0], dict(zip(names, recorded.values, strict=True))


def launched(monkeypatch, program, shape=SHAPE, dtype="fp16"):
    """The launches of a program, none of which ran."""
    seen = Launched(monkeypatch)
    spec, tensors = program.build(shape)
    spec(*make_inputs(shape, dtype), backend="triton", **tensors)
    monkeypatch.undo()
    assert seen.seen
    return [(spec, kernel, replace(call, lists=on_device(call.lists))) for spec, kernel, call in seen.seen]


def on_device(lists: BlockLists | None) -> DeviceBlockLists | None:
    """Lists as a GPU makes them."""
    if lists is None:
        return None
    arrays = (lists.partial_ptr, lists.partial_index, lists.full_ptr, lists.full_index)
    tensors = [torch.from_numpy(a) if a.size else torch.zeros(1, dtype=torch.int32) for a in arrays]
    return DeviceBlockLists(lists.batch, lists.heads, lists.n_q_tiles, lists.n_k_tiles, *tensors)


def only(monkeypatch, name="causal", shape=SHAPE, **values):
    """The specification, the kernel and the call of a program of one kernel."""
    seen = Launched(monkeypatch)
    attngen.load(name, ("O", "LSE"), **values)(*make_inputs(shape, "fp16"), backend="triton")
    monkeypatch.undo()
    ((spec, kernel, call),) = seen.seen
    return spec, kernel, call


def start(kernel: Kernel, call: Call, gpu: FakeGpu, kind: str = "cuda") -> GpuKernel:
    out = GpuKernel(kernel, module_of(kernel))
    out.start(call, gpu.driver(kind), DEVICE, STREAM)
    return out


def named(kernel: Kernel, gpu: FakeGpu) -> dict[str, bytes]:
    """The parameters of the only launch by argument."""
    names = [a.name for a in kernel.args if a.name not in kernel.ones]
    return dict(zip(names, gpu.params()[:-2], strict=True))


def refusal(kernel: Kernel, call: Call) -> str | None:
    return GpuKernel(kernel, b"").refusal(call)


def as_bytes(value: object, size: int) -> bytes:
    """A value as a kernel reads it."""
    if isinstance(value, torch.Tensor):
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, bool):
        return struct.pack("<?", value)
    if isinstance(value, float):
        return struct.pack("<f", value)
    assert isinstance(value, int)
    return struct.pack("<q" if size == 8 else "<i", value)


@pytest.mark.parametrize("alignment", ["all", "features", "none"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_the_parameters_are_those_of_triton(monkeypatch, gpu, program, alignment):
    for spec, kernel, call in launched(monkeypatch, program):
        made = built(spec, kernel._config, alignment)
        obstacle = refusal(made, call)
        if alignment != "none" and obstacle is not None:
            # a length that is no multiple of 16, of a tensor whose strides are lengths, or a view of a tensor
            with pytest.raises(LaunchError, match="cannot take this call"):
                start(made, call, gpu)
            continue
        gpu.library.fake_clear()
        programs, values = triton_gets(kernel, call)
        start(made, call, gpu)
        assert gpu.launches()[0][1:11] == [
            str(programs), "1", "1", "256", "1", "1", "shared", "0", "stream", str(STREAM),
        ]  # fmt: skip
        assert gpu.params()[-2:] == [bytes(8), bytes(8)]
        found = named(made, gpu)
        for arg in made.args:
            lone = arg.role == "stride" and tensor_of(arg.of, call).shape[arg.axis] == 1
            if arg.name in found:
                expected = as_bytes(0 if lone else values[arg.name], len(found[arg.name]))
                assert found[arg.name] == expected, arg.name
            else:
                assert lone or values[arg.name] == 1, arg.name


def test_features_take_every_contiguous_call_of_the_suite(monkeypatch):
    """Where widths are multiples of 16, whatever lengths and captured tensors are."""
    for program in PROGRAMS:
        for spec, kernel, call in launched(monkeypatch, program, replace(SHAPE, n_q=97, n_k=113)):
            assert refusal(built(spec, kernel._config, "features"), call) is None, program


def test_a_boolean_and_numbers_of_every_kind(monkeypatch, gpu):
    spec = Attention(mask="past: bool\nn: int\nr: float\nmask = (past | (k <= q + n)) & (k * r < 50.0)")
    seen = Launched(monkeypatch)
    spec(*make_inputs(SHAPE, "fp16"), backend="triton", past=True, n=-3, r=0.1)
    monkeypatch.undo()
    ((kspec, kernel, call),) = seen.seen
    made = built(kspec, kernel._config, "all")
    start(made, call, gpu)
    found = named(made, gpu)
    assert found["past"] == b"\x01"
    assert found["n"] == struct.pack("<i", -3)
    assert found["r"] == struct.pack("<f", 0.1)
    gpu.library.fake_clear()
    start(made, replace(call, params={**call.params, "r": 1e300}), gpu)
    found = named(made, gpu)
    assert found["r"] == struct.pack("<f", float("inf"))
    with pytest.raises(ParameterError, match="`n` = 2147483648"):
        start(made, replace(call, params={**call.params, "n": 2**31}), gpu)


class TestRefusal:
    def test_a_tensor_that_begins_anywhere(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        shifted = torch.zeros(call.key.numel() + 1, dtype=torch.float16)[1:].view(call.key.shape)
        call = replace(call, key=shifted)
        for alignment in ("all", "features"):
            made = built(spec, kernel._config, alignment)
            assert "K begins at the address" in str(refusal(made, call))
            with pytest.raises(LaunchError, match="K begins"):
                start(made, call, gpu)
        assert gpu.launches() == []
        start(built(spec, kernel._config, "none"), call, gpu)
        assert len(gpu.launches()) == 1

    def test_rows_that_lie_anywhere(self, monkeypatch):
        spec, kernel, call = only(monkeypatch)
        wide = torch.zeros(2, 2, 112, 40, dtype=torch.float16)[..., :32]
        made = built(spec, kernel._config, "features")
        assert refusal(made, replace(call, key=wide)) == (
            "axis 2 of K has a stride of 40 elements, no multiple of 16"
        )
        spread = torch.zeros(2, 2, 112, 64, dtype=torch.float16)[..., ::2]
        assert refusal(made, replace(call, key=spread)) == "axis 3 of K has a stride of 2 elements, not 1"
        assert refusal(built(spec, kernel._config, "none"), replace(call, key=spread)) is None

    def test_lengths_are_strides_of_rows_only(self, monkeypatch):
        spec, kernel, call = only(monkeypatch, shape=replace(SHAPE, n_q=97))
        assert "axis 0 of LSE has a stride of 388" in str(refusal(built(spec, kernel._config, "all"), call))
        assert refusal(built(spec, kernel._config, "features"), call) is None

    def test_an_axis_of_one_element_has_no_stride(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch, shape=replace(SHAPE, b=1, n_q=1))
        query = call.query.as_strided(call.query.shape, (7, 32, 5, 1))
        made = built(spec, kernel._config, "features")
        assert refusal(made, replace(call, query=query)) is None
        start(made, replace(call, query=query), gpu)
        found = named(made, gpu)
        assert found["Q_stride_b"] == bytes(8)
        assert found["Q_stride_h"] == struct.pack("<q", 32)
        assert found["Q_stride_q"] == bytes(4)

    def test_strides_beyond_32_bits(self, monkeypatch, gpu):
        """Those of heads are passed in 64; those of rows are refused."""
        spec, kernel, call = only(monkeypatch)
        far = torch.empty_strided((2, 4, 96, 32), (0, 2**33, 32, 1), dtype=torch.float16, device="meta")
        made = built(spec, kernel._config, "features")
        start(made, replace(call, query=far), gpu)
        found = named(made, gpu)
        assert found["Q_stride_h"] == struct.pack("<q", 2**33)
        rows = torch.empty_strided((2, 4, 96, 32), (0, 0, 2**31, 1), dtype=torch.float16, device="meta")
        assert refusal(made, replace(call, query=rows)) == (
            "axis 2 of Q has a stride of 2147483648 elements, which 32 bits do not hold"
        )

    def test_keys_that_lie_too_far_apart_are_copied_together(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        spread = torch.empty_strided(call.key.shape, (0, 0, 2**27, 2), dtype=torch.float16, device="meta")
        made = built(spec, kernel._config, "features")
        assert refusal(made, replace(call, key=spread)) is not None
        start(made, replace(call, key=spread), gpu)
        found = named(made, gpu)
        assert found["K_stride_k"] == struct.pack("<i", 32)

    def test_more_shared_memory_than_the_device_has(self, monkeypatch):
        spec, kernel, call = only(monkeypatch)
        made = built(spec, kernel._config, "features", shared=120_000)
        assert refusal(made, call) is None
        query = SimpleNamespace(device=torch.device("cuda", 0))
        monkeypatch.setattr("attngen.artefact.gpu_kernel.shared_limit", lambda _: 99 << 10)
        assert refusal(made, replace(call, query=query)) == (
            "takes 120000 bytes of shared memory, and cuda:0 gives a thread block 101376"
        )


class TestLaunch:
    def test_a_module_is_loaded_once_a_device(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        made = GpuKernel(m := built(spec, kernel._config, "features", shared=50_000), module_of(m))
        driver = gpu.driver()
        starts = threading.Barrier(4)

        def go():
            starts.wait()
            made.start(call, driver, 0, STREAM)

        threads = [threading.Thread(target=go) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        made.start(call, driver, 1, STREAM)
        lines = [line.split() for line in gpu.lines()]
        assert [x for x in lines if x[0] in ("load", "get", "prefer", "attribute")] == [
            ["load", "1"], ["get", "fake_entry"], ["prefer", "1"], ["attribute", "8", "=", "50000"],
            ["load", "2"], ["get", "fake_entry"], ["prefer", "1"], ["attribute", "8", "=", "50000"],
        ]  # fmt: skip
        assert {x[1] for x in lines if x[0] == "enter"} == {"100", "101"}
        assert [x[x.index("shared") + 1] for x in lines if x[0] == "launch"] == ["50000"] * 5

    def test_the_context_is_entered_where_another_is_current(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        made = GpuKernel(m := built(spec, kernel._config, "features"), module_of(m))
        driver = gpu.driver()
        for device in (0, 0, 1, 0):
            made.start(call, driver, device, STREAM)
        assert [x for x in gpu.lines() if x.startswith("enter")] == ["enter 100", "enter 101", "enter 100"]

    def test_scratch_is_as_much_as_the_programs_take(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        sizes: list[int] = []
        empty = torch.empty

        def spied(size, *args, **options):
            sizes.append(size)
            return empty(size, *args, **options)

        monkeypatch.setattr(torch, "empty", spied)
        start(built(spec, kernel._config, "features", scratch=384), call, gpu)
        (size,) = sizes
        assert size == 384 * int(gpu.launches()[0][1])
        *_, scratch, profile = gpu.params()
        assert scratch != bytes(8)
        assert profile == bytes(8)

    def test_persistent_kernels_take_as_many_programs_as_run(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        start(built(spec, replace(kernel._config, persistent=2), "features"), call, gpu)
        assert gpu.launches()[0][1] == "6"  # two for each of the three of a CPU that stands in

    def test_nothing_to_do_is_no_launch(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        start(built(spec, kernel._config, "features"), replace(call, query=call.query[:, :, :0]), gpu)
        assert gpu.lines() == []

    def test_amd(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        made = built(spec, kernel._config, "features", Target("hip", "gfx942"), shared=60_000)
        start(made, call, gpu, "hip")
        lines = [line.split()[0] for line in gpu.lines()]
        assert lines == ["load", "get", "launch"]
        gpu.fail("hipModuleLaunchKernel", 1)
        with pytest.raises(LaunchError, match=r"hipErrorFake \(1\), a fake error"):
            start(made, call, gpu, "hip")

    @pytest.mark.parametrize(
        ("function", "code", "error"),
        [
            ("cuModuleLoadData", 209, LoadError),
            ("cuModuleLoadData", 2, ResourceError),
            ("cuModuleGetFunction", 500, LoadError),
            ("cuFuncSetAttribute", 1, ResourceError),
            ("cuLaunchKernel", 700, LaunchError),
            ("cuLaunchKernel", 701, ResourceError),
            ("cuDeviceGet", 101, LoadError),
        ],
    )
    def test_what_the_driver_refuses(self, monkeypatch, gpu, function, code, error):
        spec, kernel, call = only(monkeypatch)
        made = GpuKernel(m := built(spec, kernel._config, "features", shared=50_000), module_of(m))
        driver = gpu.driver()
        gpu.fail(function, code)
        with pytest.raises(AttngenError, match=rf"CUDA_ERROR_FAKE \({code}\), a fake error") as caught:
            made.start(call, driver, 0, STREAM)
        assert type(caught.value) is error
        made.start(call, driver, 0, STREAM)  # nothing of the failure is left
        assert len(gpu.launches()) == 1

    def test_an_error_without_a_name(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        gpu.fail("cuLaunchKernel", 999)
        with pytest.raises(LaunchError, match=r"error \(999\), a fake error"):
            start(built(spec, kernel._config, "features"), call, gpu)

    def test_a_driver_that_does_not_start(self, gpu):
        gpu.fail("cuInit", 100)
        with pytest.raises(LoadError, match="100"):
            gpu.driver()

    def test_calls_that_no_kernel_takes(self, monkeypatch, gpu):
        spec, kernel, call = only(monkeypatch)
        made = GpuKernel(m := built(spec, kernel._config, "features"), module_of(m))
        with pytest.raises(DeviceError, match="runs on a GPU"):
            made.launch(call)
        long = torch.zeros(1, dtype=torch.float16).expand(2, 4, 2**27 + 1, 32)
        with pytest.raises(UnsupportedError, match="tokens"):
            made.start(replace(call, query=long), gpu.driver(), 0, STREAM)
        with pytest.raises(ShapeError, match="no elements"):
            made.start(replace(call, tensors={"x": torch.zeros(0)}), gpu.driver(), 0, STREAM)


def test_lists_and_orders_must_come(monkeypatch, gpu):
    seen = Launched(monkeypatch)
    doc = (torch.arange(112) // 20).int().expand(2, 112).contiguous()
    attngen.load("documents")(*make_inputs(SHAPE, "fp16"), backend="triton", doc=doc)
    monkeypatch.undo()
    ((spec, kernel, call),) = seen.seen
    made = GpuKernel(m := built(spec, kernel._config, "features"), module_of(m))
    assert made.needs_lists
    assert made.needs_order
    assert not made.jit
    assert kernel.jit
    for without in ({"lists": None}, {"order": None}):
        with pytest.raises(LaunchError, match="brings no"):
            made.start(replace(call, **without), gpu.driver(), 0, STREAM)
    assert gpu.launches() == []


def test_no_compiler_is_imported():
    code = (
        "import sys, attngen.artefact.gpu_kernel, attngen.artefact.targets\n"
        "print(*sorted({'triton', 'sympy', 'jinja2', 'networkx', 'mpmath'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
