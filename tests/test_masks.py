"""The catalogue of masks: against brute force from the definitions, and against the programs of `ir/`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen import masks
from attngen.capture import Mask, as_mask, mask
from attngen.errors import DTypeError, ParameterError, ShapeError
from attngen.lang.library import load_program, program_names
from attngen.papers_cdf import PAPERS
from tests.captured import B, H, reference


def matrix(m: Mask, n_q: int, n_k: int) -> np.ndarray:
    return reference(m, n_q=n_q, n_k=n_k)


def brute(n_q: int, n_k: int, keep) -> np.ndarray:
    """`keep(b, h, p, k)` pair by pair, with p the query's position among the keys."""
    out = np.zeros((B, H, n_q, n_k), bool)
    for b, h, q, k in np.ndindex(out.shape):
        out[b, h, q, k] = keep(b, h, q + n_k - n_q, k)
    return out


CASES = {
    "causal": (masks.causal(), lambda b, h, p, k: k <= p),
    "sliding_window": (masks.sliding_window(3), lambda b, h, p, k: p - 2 <= k <= p),
    "symmetric_window": (masks.symmetric_window(2, 1), lambda b, h, p, k: p - 2 <= k <= p + 1),
    "symmetric_default": (masks.symmetric_window(2), lambda b, h, p, k: abs(p - k) <= 2),
    "sink": (masks.sink(2), lambda b, h, p, k: k < 2),
    "sliding_window_sink": (
        masks.sliding_window_sink(3, 2),
        lambda b, h, p, k: k <= p and (k < 2 or k > p - 3),
    ),
    "prefix_lm": (masks.prefix_lm(3), lambda b, h, p, k: k < 3 or k <= p),
    "chunked": (masks.chunked(4), lambda b, h, p, k: k <= p and k // 4 == p // 4),
    "dilated": (masks.dilated(3, 2), lambda b, h, p, k: k in (p, p - 2, p - 4)),
    "global_tokens": (masks.global_tokens(1, 2), lambda b, h, p, k: abs(p - k) <= 1 or k < 2 or p < 2),
    "lengths": (masks.lengths(5), lambda b, h, p, k: k < 5),
}


@pytest.mark.parametrize("sizes", [(9, 9), (4, 9), (1, 8), (11, 6)])
@pytest.mark.parametrize("name", CASES)
def test_definition(name, sizes):
    built, keep = CASES[name]
    np.testing.assert_array_equal(matrix(built, *sizes), brute(*sizes, keep))


def test_a_window_keeps_exactly_its_width():
    kept = matrix(masks.sliding_window(4), 12, 12).sum(-1)[0, 0]
    np.testing.assert_array_equal(kept, np.minimum(np.arange(12) + 1, 4))


# The same masks from `ir/`, with the same parameters.

PROGRAMS = {
    "causal": {},
    "sliding_window": {"window": 3},
    "sliding_window_sink": {"window": 3, "sink": 2},
    "prefix_lm": {"prefix": 3},
    "chunked": {"chunk": 4},
    "dilated": {"window": 3, "dilation": 2},
    "global_tokens": {"radius": 2, "n_global": 1},
    "block_diffusion": {"block": 2},
}


def from_ir(name: str, **values: object) -> Mask:
    program = as_mask(load_program(name))
    assert program is not None
    return program.bind(**values)


@pytest.mark.parametrize("sizes", [(12, 12), (4, 12), (1, 7)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_the_program(name, sizes):
    built = getattr(masks, name)(**PROGRAMS[name])
    program = from_ir(name, **PROGRAMS[name])
    assert {(p.name, p.kind) for p in built.params} == {(p.name, p.kind) for p in program.params}
    np.testing.assert_array_equal(matrix(built, *sizes), matrix(program, *sizes))


def test_documents_are_the_program_s():
    doc = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 3]])
    built, program = masks.documents(doc), from_ir("documents", doc=doc)
    assert built.tensors == program.tensors
    for sizes in [(8, 8), (3, 8)]:
        np.testing.assert_array_equal(matrix(built, *sizes), matrix(program, *sizes))


def test_every_mask_of_ir_is_in_the_catalogue_or_a_paper_s():
    with_mask = {name for name in program_names() if load_program(name).mask is not None}
    general = with_mask - {name for row in PAPERS for name in row.programs if name not in PROGRAMS}
    assert general <= set(masks.__all__)
    assert general <= {*PROGRAMS, "documents", "varlen"}


def test_varlen_is_the_program_s():
    built = masks.varlen(torch.tensor([0, 3, 8]), torch.tensor([0, 4, 6]))
    program = from_ir("varlen", **built.values)
    assert built.structure == program.structure
    np.testing.assert_array_equal(matrix(built, 8, 6), matrix(program, 8, 6))


def by_sequence(lengths_q, lengths_k, causal):
    """FlashAttention's definition, sequence by sequence; rows past the last sequence see nothing."""
    out = np.zeros((sum(lengths_q), sum(lengths_k)), bool)
    q, k = 0, 0
    for n_q, n_k in zip(lengths_q, lengths_k, strict=True):
        for i, j in np.ndindex(n_q, n_k):
            out[q + i, k + j] = not causal or j <= i + n_k - n_q
        q, k = q + n_q, k + n_k
    return out


LENGTHS_OF_SEQUENCES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(LENGTHS_OF_SEQUENCES, st.booleans())
def test_varlen(sequences, causal):
    n_q, n_k = [q for q, _ in sequences], [k for _, k in sequences]
    built = masks.varlen(_offsets(n_q), _offsets(n_k), causal=causal)
    want = by_sequence(n_q, n_k, causal)
    if sum(n_q):
        np.testing.assert_array_equal(matrix(built, *want.shape)[0, 0], want)
        rows = want.any(axis=1)
        assert (built.values["first"].numpy()[~rows] == sum(n_k)).all()
        assert (built.values["last"].numpy()[~rows] == 0).all()
    if n_q == n_k:
        same = masks.documents(offsets=_offsets(n_q), causal=causal)
        if sum(n_q):
            np.testing.assert_array_equal(matrix(same, *want.shape)[0, 0], want)


def _offsets(lengths):
    return torch.tensor([0, *np.cumsum(lengths, dtype=int)], dtype=torch.int32)


@pytest.mark.parametrize("causal", [True, False])
def test_padded(causal):
    lengths_q, lengths_k = torch.tensor([5, 2]), torch.tensor([3, 9])
    got = matrix(masks.padded(lengths_q, lengths_k, causal=causal), 6, 10)
    want = np.zeros_like(got)
    for b, h, q, k in np.ndindex(got.shape):
        n_q, n_k = int(lengths_q[b]), int(lengths_k[b])
        want[b, h, q, k] = q < n_q and k < n_k and (not causal or k <= q + n_k - n_q)
    np.testing.assert_array_equal(got, want)
    one = masks.padded(5, 3, causal=causal)
    np.testing.assert_array_equal(matrix(one, 6, 10)[0], got[0])
    assert {p.name for p in one.params} == {"lengths_q", "lengths_k"}


def test_documents_from_offsets():
    offsets = torch.tensor([0, 3, 3, 4, 8], dtype=torch.int32)
    start = np.array([0, 0, 0, 3, 4, 4, 4, 4])
    np.testing.assert_array_equal(
        matrix(masks.documents(offsets=offsets), 8, 8), brute(8, 8, lambda b, h, p, k: start[p] <= k <= p)
    )
    both_ways = masks.documents(offsets=offsets, causal=False)
    np.testing.assert_array_equal(
        matrix(both_ways, 8, 8), brute(8, 8, lambda b, h, p, k: start[p] == start[k])
    )
    assert both_ways.text() == "(first[pos(q)] <= k) & (k < last[pos(q)])"
    assert all(t.dtype is torch.int32 for t in both_ways.values.values())


def test_values_per_head_and_per_batch_entry():
    widths = torch.tensor([1, 3, 5])
    lens = torch.tensor([2, 6])
    window = masks.sliding_window(widths)
    assert (window.tensors[0].name, window.tensors[0].ranks) == ("window", ("h",))
    np.testing.assert_array_equal(
        matrix(window, 8, 8), brute(8, 8, lambda b, h, p, k: p - int(widths[h]) < k <= p)
    )
    np.testing.assert_array_equal(
        matrix(masks.lengths(lens), 8, 8), brute(8, 8, lambda b, h, p, k: k < int(lens[b]))
    )
    np.testing.assert_array_equal(
        matrix(masks.prefix_lm(lens), 8, 8), brute(8, 8, lambda b, h, p, k: k < int(lens[b]) or k <= p)
    )
    scalar = torch.tensor(3)
    np.testing.assert_array_equal(
        matrix(masks.sliding_window(scalar), 8, 8), matrix(masks.sliding_window(3), 8, 8)
    )


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(0, 5))
def test_composition_is_boolean_algebra(n_q, n_k, width, n_sink):
    causal, window, sink = masks.causal(), masks.sliding_window(width), masks.sink(n_sink)
    c, w, s = (matrix(m, n_q, n_k) for m in (causal, window, sink))
    np.testing.assert_array_equal(matrix(causal & (sink | window), n_q, n_k), c & (s | w))
    np.testing.assert_array_equal(matrix(~(sink | ~window) | causal, n_q, n_k), ~(s | ~w) | c)
    direct = masks.sliding_window_sink(width, n_sink)
    np.testing.assert_array_equal(matrix(causal & (sink | window), n_q, n_k), matrix(direct, n_q, n_k))


def test_another_width_is_the_same_structure():
    assert masks.sliding_window(4).structure == masks.sliding_window(1024).structure
    assert masks.sliding_window(4) != masks.sliding_window(1024)
    assert masks.sliding_window(4).bind(window=1024) == masks.sliding_window(1024)


def test_masks_work_inside_functions_and_as_functions():
    window = masks.sliding_window(3)
    traced = mask(lambda b, h, q, k: window(b, h, q, k) & (k % 2 == 0))
    assert traced.text() == "(k <= pos(q)) & (pos(q) - k < window) & (k % 2 == 0)"
    q, k = torch.arange(6)[:, None], torch.arange(9)
    np.testing.assert_array_equal(window(0, 0, q, k, n_q=6, n_k=9), matrix(window, 6, 9)[0, 0])


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: masks.sliding_window(0), ParameterError, "at least 1"),
        (lambda: masks.sliding_window(2.5), ParameterError, "integer"),
        (lambda: masks.sliding_window(True), ParameterError, "integer"),
        (lambda: masks.sink(-1), ParameterError, "at least 0"),
        (lambda: masks.dilated(4, 0), ParameterError, "dilation"),
        (lambda: masks.sliding_window(torch.ones(3)), DTypeError, "float32"),
        (lambda: masks.sliding_window(torch.ones(3, 3, dtype=torch.int32)), ShapeError, "[3, 3]"),
        (lambda: masks.documents(), ParameterError, "either"),
        (lambda: masks.documents(torch.zeros(3)), DTypeError, "float32"),
        (lambda: masks.documents(torch.zeros(1, 2, 3, dtype=torch.int32)), ShapeError, "[1, 2, 3]"),
        (lambda: masks.documents(offsets=torch.tensor([1, 3])), ParameterError, "starts at 0"),
        (lambda: masks.documents(offsets=torch.tensor([0, 3, 2])), ParameterError, "never falls"),
        (lambda: masks.documents(offsets=torch.tensor([[0, 3]])), ShapeError, "offsets"),
        (
            lambda: masks.varlen(torch.tensor([0, 3]), torch.tensor([0, 3, 5])),
            ShapeError,
            "different sequences",
        ),
        (lambda: masks.varlen(torch.tensor([0, 3]), torch.tensor([1, 3])), ParameterError, "cu_seqlens_k"),
        (lambda: masks.varlen(torch.tensor([0.0, 3]), torch.tensor([0, 3])), ShapeError, "cu_seqlens_q"),
        (lambda: masks.padded(-1, 3), ParameterError, "lengths_q"),
        (lambda: masks.padded(3, torch.ones(2)), DTypeError, "lengths_k"),
    ],
)
def test_bad_values(build, error, text):
    with pytest.raises(error) as caught:
        build()
    assert text in str(caught.value)
