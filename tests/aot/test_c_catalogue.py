"""Programs of the catalogue through the C interface give, bit for bit, what the artefact gives in Python."""

from __future__ import annotations

import threading

import pytest
import torch

import attngen
from attngen import arguments
from attngen.aot.list_families import list_families
from tests.aot.c_calls import CallError, CArtefact, empty_outputs
from tests.forward.suite import PROGRAMS
from tests.oracle import Shape, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=130, n_k=130, d=16, e=16)
GRID = (9, 14)
NAMES = (
    "flex_alibi", "flex_relative_bias", "flex_prefix", "sliding_window_sink", "prefix_lm", "documents", "dilated",
    "global_tokens", "varlen", "row_bounds", "cascade_sigmoid", "cascade_softmax_sink",
)  # fmt: skip


def named(name: str):
    return next(p for p in PROGRAMS if p.name == name)


def both(spec, tensors, inputs, tmp_path, **options):
    """What an artefact of the specification gives in Python and in C, and the artefact in C."""
    captured = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
    options = {
        "target": "cpu",
        "dtype": "fp32",
        "head_dim": inputs[0].shape[-1],
        "captured": captured,
        **options,
    }
    loaded = attngen.load_artefact(spec.compile(path=tmp_path, **options))
    got = loaded(*inputs, **tensors)
    expected = dict(zip(loaded.outputs, got if isinstance(got, tuple) else (got,), strict=True))
    bound, params = arguments.bind(loaded.program, loaded.bound(tensors), {})
    c = CArtefact(loaded.path, tmp_path)
    outputs = empty_outputs(expected)
    args = c.args(inputs, outputs, bound, {**params, "scale": inputs[0].shape[-1] ** -0.5})
    return loaded, expected, c, args, outputs


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits(tmp_path, name):
    spec, tensors = named(name).build(SHAPE)
    loaded, expected, c, args, outputs = both(spec, tensors, make_inputs(SHAPE), tmp_path)
    c.run(args)
    listed = any(k.layout.lists for k in loaded.manifest.kernels)
    for found, wanted in ((outputs[n], expected[n]) for n in outputs):
        if listed:  # the launcher's lists visit every tile, where Python's leave some out
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found, wanted)
    c.close()


def test_boxes_of_a_grid_that_is_known(tmp_path):
    """A kernel that counts on windows of the grid that it was built for serves no others."""
    values = {"grid": GRID, "window_y": 5, "window_x": 7}
    spec = attngen.load("neighborhood_2d", ("O", "LSE"), **values)
    n = GRID[0] * GRID[1]
    inputs = make_inputs(Shape(b=1, h=2, hkv=2, n_q=n, n_k=n, d=16, e=16))
    loaded, expected, c, args, outputs = both(spec, {}, inputs, tmp_path)
    assert all(k.special.boxes.tight for k in loaded.manifest.kernels)
    assert (args.size_y, args.size_x, args.window_x) == (*GRID, 7)
    c.run(args)
    for name in outputs:
        assert torch.equal(outputs[name], expected[name])
    args.window_x = 3
    with pytest.raises(CallError, match="has window_x 7, not 3"):
        c.run(args)
    args.window_x, args.size_x = 7, 13
    with pytest.raises(CallError, match="has size_x 14, not 13"):
        c.run(args)


def test_boxes_that_need_lists(tmp_path):
    """The launcher lists every box of keys, as many as there are along the axes."""
    spec = attngen.load("vitdet_roll", ("O", "LSE"), grid=GRID)
    n = GRID[0] * GRID[1]
    inputs = make_inputs(Shape(b=2, h=2, hkv=1, n_q=n, n_k=n, d=16, e=16))
    loaded, expected, c, args, outputs = both(spec, {}, inputs, tmp_path)
    assert all(k.layout.lists and k.special.boxes for k in loaded.manifest.kernels)
    c.run(args)
    for name in outputs:
        torch.testing.assert_close(outputs[name], expected[name], rtol=1e-5, atol=1e-5)


def test_a_program_of_several_kernels(tmp_path):
    """Each has an entry of its own; a caller passes what one leaves to the next."""
    spec = attngen.load("column_sums")
    path = spec.compile("cpu", "fp32", 16, path=tmp_path)
    manifest = attngen.load_artefact(path).manifest
    prefixes = [f.prefix for f in list_families(manifest)]
    assert prefixes == ["column_sums_one_pass_0", "column_sums_one_pass_1"]
    inputs = make_inputs(SHAPE)
    row = torch.arange(SHAPE.n_q) % 3 > 0
    expected = dict(zip(spec.outputs, spec(*inputs, row=row), strict=True))
    c = CArtefact(path, tmp_path)
    rows = {f.prefix: [t.name for t in f.tensors if t.role == "output"] for f in list_families(manifest)}
    stats = {n: torch.full((SHAPE.b, SHAPE.h, SHAPE.n_q), 7.0) for n in rows[prefixes[0]]}
    sums = {n: torch.full((SHAPE.b, SHAPE.h, SHAPE.n_k), 7.0) for n in rows[prefixes[1]]}
    _, params = arguments.bind(spec.program, spec.values, {"row": row})
    params["scale"] = 0.25
    c.run(c.args(inputs, stats, {"row": row}, params, prefixes[0]), prefixes[0])
    between = {**stats, "Z_part": torch.where(stats["Z"] == 0, 0, 1 / stats["Z"]), "row": row}
    c.run(c.args(inputs, sums, between, params, prefixes[1]), prefixes[1])
    for name, wanted in expected.items():
        torch.testing.assert_close(sums[name], wanted, rtol=1e-5, atol=1e-5)
    short = {**between, "M": stats["M"][:, :, :-1]}
    with pytest.raises(CallError, match="axis 2 of M has 129 elements, n_q is 130"):
        c.run(c.args(inputs, sums, short, params, prefixes[1]), prefixes[1])


def test_threads_share_a_library(tmp_path):
    spec, tensors = named("causal").build(SHAPE)
    inputs = make_inputs(SHAPE)
    _, expected, c, _, _ = both(spec, tensors, inputs, tmp_path)
    outs = [empty_outputs(expected) for _ in range(8)]
    failed: list[str] = []

    def work(outputs, right: bool) -> None:
        args = c.args(inputs, outputs, {}, {"scale": 0.25})
        args.head_dim = 16 if right else 17
        for _ in range(20):
            try:
                c.run(args)
            except CallError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=work, args=(o, i % 2 == 0)) for i, o in enumerate(outs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(failed) == 80
    assert all("has head_dim 16, not 17" in text for text in failed)
    for outputs in outs[::2]:
        assert torch.equal(outputs["O"], expected["O"])


def test_sizes_of_captured_tensors(tmp_path):
    spec, tensors = named("documents").build(SHAPE)
    _, _, c, args, _ = both(spec, tensors, make_inputs(SHAPE), tmp_path)
    assert "const int32_t *doc;" in c.header
    args.doc_size[1] = 129
    with pytest.raises(CallError, match="axis 1 of doc has 129 elements, n_k is 130"):
        c.run(args)
    args.doc_size[1] = 0
    with pytest.raises(CallError, match="tensor doc has no elements"):
        c.run(args)


def test_numbers_beyond_32_bits(tmp_path):
    spec, tensors = named("sliding_window").build(SHAPE)
    _, _, c, args, _ = both(spec, tensors, make_inputs(SHAPE), tmp_path)
    args.window = 1 << 31
    with pytest.raises(CallError, match="window = 2147483648 does not fit 32 bits") as failed:
        c.run(args)
    assert failed.value.status == "INVALID"
