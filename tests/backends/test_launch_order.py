"""Rows of work are handed to kernels longest first, heads of a kind together, and what is computed stays the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import attngen
from attngen import call_plans
from attngen.api import Attention
from attngen.arguments import Shapes
from attngen.backends.base import Call
from attngen.backends.cpu import CpuKernel
from attngen.backends.triton import TritonKernel
from attngen.errors import LaunchError
from attngen.planner.order import FULL, PARTIAL
from tests.oracle import Shape, assert_matches_reference, make_inputs

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process compiles or interprets, not both"
)

N = 640
SHAPE = Shape(b=2, h=4, hkv=2, n_q=N, n_k=N, d=16, e=16)
WIDTHS = torch.tensor([20, 10**6, 150, 20])
DOCS = torch.stack([torch.arange(N) // 130, torch.arange(N) // 300])
REACH = torch.tensor([2, 40, 1, 5])


def windows() -> Attention:
    return Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < WIDTHS[h]))


def moa() -> Attention:
    return attngen.load("moa", sink=8, window=WIDTHS)


def documents() -> Attention:
    return Attention(mask=lambda b, h, q, k: (DOCS[b, q] == DOCS[b, k]) & (k <= q))


@attngen.mask(grid=("y", "x"))
def square(b, h, q, k):
    return (q.y - k.y < REACH[h]) & (k.y - q.y < REACH[h])


@attngen.mask(grid=("y", "x"))
def disc(b, h, q, k):
    return (q.y - k.y) * (q.y - k.y) + (q.x - k.x) * (q.x - k.x) < REACH[h]


def grid_runs() -> Attention:
    return Attention(mask=square.bind(grid=(20, 32)))


def grid_lists() -> Attention:
    return Attention(mask=disc.bind(grid=(20, 32)))


CASES = [windows, moa, documents, grid_runs, grid_lists]
FORMS = {
    "windows": "ranges",
    "moa": "ranges",
    "documents": "lists",
    "grid_runs": "ranges",
    "grid_lists": "lists",
}
HOMES = {"cpu": CpuKernel, "triton": TritonKernel}


class Launches:
    """What reaches the kernels of one backend."""

    def __init__(self, monkeypatch, backend):
        self.seen: list[tuple[CpuKernel | TritonKernel, Call]] = []
        launch = HOMES[backend].launch

        def spied(kernel, call):
            self.seen.append((kernel, call))
            launch(kernel, call)

        monkeypatch.setattr(HOMES[backend], "launch", spied)


def work_of(spec, kernel):
    """The work of every row, `[batch * heads, query tiles]`, from the classes of its tiles."""
    at = {"n_q": N, "n_k": N, "batch": SHAPE.b, "heads": SHAPE.h}
    found = spec.schedule(**at, block_q=kernel.block_q, block_k=kernel.block_k)
    tiles = found.tiles().numpy()
    work = (tiles == 1).sum(3) * PARTIAL + (tiles == 2).sum(3) * FULL
    return found, np.broadcast_to(work, (SHAPE.b, SHAPE.h, work.shape[2])).reshape(SHAPE.b * SHAPE.h, -1)


@pytest.mark.parametrize("backend", HOMES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_the_longest_rows_come_first(monkeypatch, case, backend):
    spec = case()
    inputs = make_inputs(SHAPE)
    launches = Launches(monkeypatch, backend)
    monkeypatch.setattr(call_plans, "_heads_together", lambda shapes, query: shapes.batch * shapes.heads)
    outs = assert_matches_reference(spec, *inputs, backend=backend)
    ((kernel, call),) = launches.seen
    found, work = work_of(spec, kernel)
    assert found.form == FORMS[case.__name__]
    order = call.order.numpy()
    assert call.order.dtype == torch.int32
    assert sorted(order) == list(range(work.size))
    assert (np.diff(work.reshape(-1)[order]) <= 0).all()
    assert work.min() < work.max()

    monkeypatch.undo()
    launches = Launches(monkeypatch, backend)
    by_head = case()(*inputs, backend=backend)
    assert torch.equal(outs["O"], by_head)
    heads, rows = np.divmod(launches.seen[0][1].order.numpy(), work.shape[1])
    assert (np.diff(work[heads, rows].reshape(work.shape), axis=1) <= 0).all()
    assert (heads.reshape(work.shape) == heads[:: work.shape[1], None]).all()
    assert (np.diff(work[heads[:: work.shape[1]]].sum(1)) <= 0).all()


@pytest.mark.parametrize("backend", HOMES)
def test_an_order_that_is_missing_or_of_other_rows_is_refused(monkeypatch, backend):
    launches = Launches(monkeypatch, backend)
    windows()(*make_inputs(SHAPE), backend=backend)
    ((kernel, call),) = launches.seen
    assert kernel.needs_order
    with pytest.raises(LaunchError, match="brings none"):
        kernel.launch(replace(call, order=None))
    assert call.order is not None
    for wrong in (call.order[1:], call.order[None], call.order.long(), call.order.repeat(2)[::2]):
        with pytest.raises(LaunchError, match="int32 vector"):
            kernel.launch(replace(call, order=wrong))


def test_rows_that_are_all_equal_keep_their_order(monkeypatch):
    launches = Launches(monkeypatch, "cpu")
    spec = Attention(mask=lambda b, h, q, k: k < WIDTHS[h] * 0 + 200)
    spec(*make_inputs(SHAPE))
    order = launches.seen[0][1].order
    assert order is not None
    assert order.tolist() == list(range(order.numel()))


def test_an_order_is_kept_until_a_tensor_changes(monkeypatch):
    launches = Launches(monkeypatch, "cpu")
    widths = WIDTHS.clone()
    spec = Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < widths[h]))
    inputs = make_inputs(SHAPE)
    spec(*inputs)
    spec(*inputs)
    widths[3] = 10**6
    assert_matches_reference(spec, *inputs)
    first, same, other = (call.order for _, call in launches.seen)
    assert first is same
    assert not torch.equal(first, other)


@pytest.mark.parametrize("backend", HOMES)
def test_a_call_without_keys_or_queries_needs_no_values(backend):
    for n_q, n_k in ((5, 0), (0, 5)):
        for case in (windows, documents):
            inputs = make_inputs(replace(SHAPE, n_q=n_q, n_k=n_k))
            assert (case()(*inputs, backend=backend) == 0).all()


def test_heads_that_are_alike_take_no_order(monkeypatch):
    launches = Launches(monkeypatch, "cpu")
    spec = attngen.load("sliding_window", window=9)
    spec(*make_inputs(SHAPE))
    ((kernel, call),) = launches.seen
    assert not kernel.needs_order
    assert call.order is None
    assert "args.order" not in spec.source("cpu")
    assert "order_ptr" not in spec.source("sm_90")


@pytest.mark.parametrize("backend", HOMES)
def test_a_tensor_may_have_the_name_of_the_order(backend):
    order = WIDTHS
    spec = Attention(mask=lambda b, h, q, k: (k <= q) & (q - k < order[h]))
    assert [t.name for t in spec.program.tensors] == ["order"]
    assert_matches_reference(spec, *make_inputs(replace(SHAPE, n_q=70, n_k=70)), backend=backend)


def test_heads_run_together_on_a_gpu_while_their_keys_and_values_fit_its_cache(monkeypatch):
    shapes = Shapes(batch=1, heads=12, kv_heads=4, n_q=8, n_k=1024, head_dim=64, value_dim=64)
    query = torch.empty(1, 12, 8, 64, dtype=torch.bfloat16, device="meta")
    sizes = {2**21: 12, 2**20: 6, 2**12: 3}
    for size, together in sizes.items():
        properties = SimpleNamespace(L2_cache_size=size)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert call_plans._heads_together(shapes, query) == together
    assert call_plans._heads_together(shapes, torch.empty(1, 12, 8, 64)) == 1
