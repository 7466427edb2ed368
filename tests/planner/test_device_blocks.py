"""Lists built by tensors on a device are those that numpy builds, and nothing is asked of the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from attngen.lang.ops import OPS
from attngen.lang.print import print_expr
from attngen.lang.program import Program
from attngen.planner import device_tensors
from attngen.planner.blocks import build_blocks
from attngen.planner.bounds import INTERVAL_OPS, Interval
from attngen.planner.device_blocks import build_device_blocks, device_classes, device_lists
from attngen.planner.evaluate_plan import Extents
from attngen.planner.plan import BlockLists, DeviceBlockLists
from tests.planner.dense import program
from tests.planner.random_masks import B, Case, H, cases
from tests.planner.test_bounds import boxes, kinds_for
from tests.planner.test_soundness import DEFAULT, SWEEP, expand
from tests.planner.test_tightness import FAMILIES

ASKS = (
    "item",
    "__bool__",
    "nonzero",
    "cpu",
    "tolist",
    "numpy",
    "__int__",
    "__float__",
    "__index__",
    "unique",
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@contextmanager
def nothing_asked() -> Iterator[None]:
    """No tensor gives its value to the host, and none is indexed by booleans."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ASKS:
            patch.setattr(torch.Tensor, name, _refuse(name))
        for name in ("nonzero", "masked_select", "unique"):
            patch.setattr(torch, name, _refuse(name))
        index = torch.Tensor.__getitem__

        def checked(self: torch.Tensor, at: Any) -> torch.Tensor:
            for x in at if isinstance(at, tuple) else (at,):
                assert not (isinstance(x, torch.Tensor) and x.dtype == torch.bool), "boolean index"
            return index(self, at)

        patch.setattr(torch.Tensor, "__getitem__", checked)
        yield


def _refuse(name: str) -> Any:
    def asked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"a tensor was asked for its value: {name}")

    return asked


def on(device: str, values: dict[str, Any]) -> dict[str, Any]:
    return {n: torch.from_numpy(v).to(device) if isinstance(v, np.ndarray) else v for n, v in values.items()}


def on_device(p: Program, values: dict[str, Any], sizes: dict[str, int], device: str) -> DeviceBlockLists:
    return build_device_blocks(p, values, Extents(**sizes), torch.device(device))


def host(lists: DeviceBlockLists) -> BlockLists:
    """The lists in the form numpy's have, after checking that the tensor holds what it says and room for the rest."""
    partial_ptr, full_ptr = lists.partial_ptr.cpu().numpy(), lists.full_ptr.cpu().numpy()
    assert all(t.dtype == torch.int32 for t in (lists.partial_ptr, lists.full_ptr, lists.partial_index))
    assert lists.full_index is lists.partial_index
    assert full_ptr[0] == partial_ptr[-1]
    index = lists.partial_index.cpu().numpy()
    return BlockLists(
        lists.batch, lists.heads, lists.n_q_tiles, lists.n_k_tiles,
        partial_ptr, index[: partial_ptr[-1]], full_ptr - full_ptr[0], index[full_ptr[0] : full_ptr[-1]],
    )  # fmt: skip


def assert_same(a: BlockLists, b: BlockLists) -> None:
    assert (a.batch, a.heads, a.n_q_tiles, a.n_k_tiles) == (b.batch, b.heads, b.n_q_tiles, b.n_k_tiles)
    for name in ("partial_ptr", "partial_index", "full_ptr", "full_index"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name


def check(case: Case, device: str) -> None:
    note(f"mask = {print_expr(case.program.mask)}")
    sizes = {"n_q": case.n_q, "n_k": case.n_k, "batch": B, "heads": H}
    sizes |= {"block_q": case.block_q, "block_k": case.block_k}
    values = on(device, case.values)
    with nothing_asked():
        found = on_device(case.program, values, sizes, device)
    assert_same(host(found), build_blocks(case.program, case.values, **sizes))


@pytest.mark.parametrize("device", DEVICES)
def test_same_as_numpy(device: str) -> None:
    @given(cases(data=True))
    @DEFAULT
    def run(case: Case) -> None:
        check(case, device)

    run()


@pytest.mark.slow
@given(cases(data=True))
@SWEEP
def test_sweep_same_as_numpy(case: Case) -> None:
    check(case, "cpu")


@pytest.mark.parametrize("name", OPS)
def test_rules_give_the_same_on_tensors(name: str) -> None:
    @given(st.data())
    @settings(max_examples=40, deadline=None, print_blob=True)
    def run(data: st.DataObject) -> None:
        drawn = [
            data.draw(boxes(k))[0] for k in data.draw(st.composite(lambda draw: kinds_for(name, draw))())
        ]
        tensors = [Interval(torch.from_numpy(x.lo), torch.from_numpy(x.hi)) for x in drawn]
        with nothing_asked():
            got = INTERVAL_OPS[name](*tensors)
        want = INTERVAL_OPS[name](*drawn)
        assert got.kind == want.kind
        for a, b in ((got.lo, want.lo), (got.hi, want.hi)):
            # functions differ by an ulp or two, which the rules widen by more than
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-300)

    run()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "text",
    [
        "doc[b, k]: int\nmask = doc[b, k] == doc[b, pos(q)]",
        "m[h, i, j]: bool\nmask = m[h, q // 96, k // 96]",
        "rel[i]: int\nmask = rel[q - k + 300] > 7",
        "m[i, j]: bool\ndoc[b, k]: int\nmask = m[doc[b, q], doc[b, k]]",
        "doc[b, k]: int\nw[h]: int\nmask = (k <= q) & (doc[b, k] == doc[b, q]) & (q - k < w[h])",
        "x[k]: float\nmask = exp(x[k]) + 0.5 < 2.0",
    ],
)
def test_masks_that_read_data(text: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = {
        "doc": np.sort(rng.integers(0, 9, (2, 700)), axis=1),
        "m": rng.random((3, 12, 12) if "m[h" in text else (12, 12)) < 0.5,
        "rel": np.cumsum(rng.integers(-1, 2, 900)),
        "w": np.array([40, 200, 700]),
        "x": rng.standard_normal(700),
    }
    p = program(text)
    names = {t.name for t in p.tensors}
    values = {n: v for n, v in values.items() if n in names}
    sizes = {"n_q": 650, "n_k": 700, "batch": 2, "heads": 3, "block_q": 32, "block_k": 64}
    with nothing_asked():
        found = on_device(p, on(device, values), sizes, device)
    want = build_blocks(p, values, **sizes)
    assert_same(host(found), want)
    monkeypatch.setattr(device_tensors, "_MOST_ENTRIES", 64)
    coarse = expand(host(on_device(p, on(device, values), sizes, device)))
    exact = expand(want)
    assert ((coarse == exact) | (coarse == 1)).all(), "longer blocks only make tiles partial"


def test_narrow_integers_and_half_floats() -> None:
    p = program("doc[k]: int\nx[k]: float\nmask = (doc[k] == doc[q]) & (x[k] < 0.5)")
    rng = np.random.default_rng(1)
    doc, x = np.sort(rng.integers(0, 100, 500)), np.round(rng.standard_normal(500) * 8) / 8
    sizes = {"n_q": 500, "n_k": 500, "batch": 1, "heads": 1, "block_q": 16, "block_k": 16}
    want = build_blocks(p, {"doc": doc, "x": x}, **sizes)
    for ints in (torch.int32, torch.int16, torch.uint8, torch.int8):
        for floats in (torch.float16, torch.bfloat16, torch.float32):
            values = {"doc": torch.from_numpy(doc).to(ints), "x": torch.from_numpy(x).to(floats)}
            assert_same(host(on_device(p, values, sizes, "cpu")), want)


@pytest.mark.parametrize("name", FAMILIES)
def test_chunks_and_transposes(name: str) -> None:
    text, choices = FAMILIES[name]
    p = program(text)
    rng = np.random.default_rng(2)
    values: dict[str, Any] = {n: int(rng.choice(v)) for n, v in choices.items()}
    values |= {t.name: rng.integers(0, 2 if t.kind == "bool" else 90, 3) for t in p.tensors}
    values |= {t.name: values[t.name] > 0 for t in p.tensors if str(t.kind) == "bool"}
    values = on("cpu", values)
    at = Extents(200, 300, 3, 3, 16, 32)
    classes = device_classes(p, values, at, torch.device("cpu"))
    for chunk in (1, 100, 1000):
        assert torch.equal(device_classes(p, values, at, torch.device("cpu"), chunk), classes)
        assert_same(host(device_lists(classes, chunk)), host(device_lists(classes)))
    assert (expand(host(device_lists(classes))) == classes.numpy()).all()
    assert (expand(host(device_lists(classes.mT))) == classes.mT.numpy()).all()


@pytest.mark.parametrize(("n_q", "n_k"), [(0, 0), (0, 200), (200, 0)])
def test_nothing_to_schedule(n_q: int, n_k: int) -> None:
    p = program("doc[q]: int\nmask = doc[q] == doc[k]")
    sizes = {"n_q": n_q, "n_k": n_k, "batch": 1, "heads": 1, "block_q": 16, "block_k": 16}
    values = {"doc": np.zeros(200, dtype=np.int64)}
    found = on_device(p, on("cpu", values), sizes, "cpu")
    assert_same(host(found), build_blocks(p, values, **sizes))
