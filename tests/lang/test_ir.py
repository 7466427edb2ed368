"""The shipped programs mean what their sources say: each against a definition written on its own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attngen.lang.library import cascade_names, load_cascade, load_program, program_names
from attngen.lang.link import link
from attngen.lang.parse import parse_program
from tests.lang.dense import Dense
from tests.papers.cases import CASES as PAPERS
from tests.papers.cases_cdf import all_cases

LENGTHS = [(1, 1), (16, 16), (5, 16), (1, 9), (24, 24)]
FIRST, LAST = np.repeat([[0, 3, 9, 30], [3, 9, 9, 40]], 6, axis=1)
DOCS = np.repeat([3, 0, 7, 7, 1, 2], [4, 1, 6, 3, 8, 2])

Keep = Callable[[int, int, int, int], bool]  # row, position of the query, key, number of keys


def _block_diffusion(row: int, _position: int, key: int, n_k: int) -> bool:
    half, block = n_k // 2, 2
    row_clean, key_clean = row >= half, key >= half
    row_block, key_block = (row - half * row_clean) // block, (key - half * key_clean) // block
    if not row_clean and not key_clean:
        return row_block == key_block
    if not row_clean:
        return key_block < row_block
    return key_clean and key_block <= row_block


MASKS: dict[str, tuple[dict[str, Any], Keep]] = {
    "causal": ({}, lambda r, i, k, n: k <= i),
    "sliding_window": ({"window": 4}, lambda r, i, k, n: k in range(i - 3, i + 1)),
    "sliding_window_sink": (
        {"window": 4, "sink": 2},
        lambda r, i, k, n: k <= i and (k in (0, 1) or k > i - 4),
    ),
    "prefix_lm": ({"prefix": 5}, lambda r, i, k, n: k in range(max(5, i + 1))),
    "chunked": ({"chunk": 4}, lambda r, i, k, n: k in range(i - i % 4, i + 1)),
    "documents": ({}, lambda r, i, k, n: k <= i and bool(DOCS[i] == DOCS[k])),
    "dilated": ({"window": 3, "dilation": 4}, lambda r, i, k, n: k in (i, i - 4, i - 8)),
    "global_tokens": (
        {"radius": 2, "n_global": 1},
        lambda r, i, k, n: i == 0 or k == 0 or k in range(i - 2, i + 3),
    ),
    "block_diffusion": ({"block": 2}, _block_diffusion),
    "varlen": ({}, lambda r, i, k, n: FIRST[r] <= k < LAST[r]),
}


# Of groups C, D and F: tests/papers/test_programs_cdf holds them to their definitions.
WITH_DEFINITIONS = {case.split()[0] for case in all_cases()}


def test_every_shipped_program_has_a_definition_here_or_among_the_papers() -> None:
    assert set(MASKS) <= set(program_names())
    assert set(program_names()) <= set(MASKS) | {c.program for c in PAPERS} | WITH_DEFINITIONS
    assert set(cascade_names()) <= set(SOFTMAX_AND_KIN) | WITH_DEFINITIONS


# The training mask of block diffusion has n_q = n_k, in two halves of equal length.
CASES = [(n, *sizes) for n in MASKS for sizes in LENGTHS if n != "block_diffusion" or sizes[0] in (16, 24)]


@pytest.mark.parametrize(("name", "n_q", "n_k"), CASES)
def test_a_mask_keeps_what_its_source_says(name: str, n_q: int, n_k: int) -> None:
    values, keep = MASKS[name]
    program = load_program(name)
    assert set(values) <= {p.name for p in program.params}
    tensors = {"doc": DOCS[None, :n_k], "first": FIRST, "last": LAST}
    got = Dense(program, tensors, values, n_q, n_k).mask()
    want = [[keep(row, row + n_k - n_q, key, n_k) for key in range(n_k)] for row in range(n_q)]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("name", "width"), [("sliding_window", {"window": 4}), ("dilated", {"window": 4, "dilation": 3})]
)
def test_a_window_is_exactly_as_many_keys_as_it_says(name: str, width: dict[str, int]) -> None:
    kept = Dense(load_program(name), {}, width, 40, 40).mask().sum(axis=1)
    assert (kept[20:] == 4).all()


def _softmax(s: Any, keep: Any, v: Any, extra: float = -math.inf) -> tuple[Any, Any]:
    weights = np.where(keep, np.exp(s), 0.0)
    total = weights.sum(axis=1) + np.exp(extra)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(weights / total[:, None]) @ v, np.log(total)


SOFTMAX_AND_KIN = ("relu", "relu2", "sigmoid", "softcap", "softmax", "softmax_sink")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SOFTMAX_AND_KIN)
def test_a_cascade_computes_what_its_source_says(name: str, masked: bool) -> None:
    rng = np.random.default_rng(7)
    n_q, n_k, d, e, sink = 5, 7, 4, 3, 0.3
    query, key, value = (rng.standard_normal(shape) for shape in [(n_q, d), (n_k, d), (n_k, e)])
    program = load_cascade(name)
    if masked:
        # causal but for one step, so that the first row keeps nothing
        program = link(parse_program(f"mask = k <= q - 1\ncascade = {name}"), load_cascade)
    inputs = {"Q": query, "K": key, "V": value, "sink_logit": np.array([9.0, sink])}
    got = Dense(program, inputs, {"bias": -0.7} if name == "sigmoid" else {}, n_q, n_k, head=1).run()
    s = query @ key.T / math.sqrt(d)
    keep = np.ones((n_q, n_k), bool)
    if masked:
        keep = np.arange(n_k)[None] <= np.arange(n_q)[:, None] - 1
    lse = None
    if name == "softmax":
        out, lse = _softmax(s, keep, value)
    elif name == "softcap":
        out, lse = _softmax(50 * np.tanh(s / 50), keep, value)
    elif name == "softmax_sink":
        out, lse = _softmax(s, keep, value, sink)
    else:
        weights = {
            "sigmoid": 1 / (1 + np.exp(-(s - 0.7))),
            "relu": np.maximum(s, 0) / n_k,
            "relu2": np.maximum(s, 0) ** 2,
        }[name]
        out = np.where(keep, weights, 0) @ value
    np.testing.assert_allclose(got["O"], out, rtol=1e-12, atol=1e-13)
    assert ("LSE" in got) == (lse is not None)
    if lse is not None:
        np.testing.assert_allclose(got["LSE"], lse, rtol=1e-12)


@pytest.mark.parametrize("name", program_names() + cascade_names())
def test_every_program_says_what_it_is_and_cites_its_source(name: str) -> None:
    first, _, rest = load_program(name).doc.partition("\n")
    assert first.endswith(".")
    assert re.search(r'arXiv:\d{4}\.\d{4,5}|"[^"]{5,}"', rest)
