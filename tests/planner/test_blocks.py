"""Block lists: sound on any mask, exact where a comparison is exact, cheap where the mask has few edges."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, note

from attngen.lang.kinds import kinds_of
from attngen.lang.print import print_expr
from attngen.planner.blocks import build_blocks
from attngen.planner.bounds import interval
from attngen.planner.implied import imply
from attngen.planner.plan import BlockLists
from attngen.planner.pyramid import Blocks, Pyramid
from attngen.planner.separate import literal, separate
from tests.planner.dense import classes, dense, program
from tests.planner.random_masks import B, Case, H, cases
from tests.planner.test_soundness import DEFAULT, SWEEP, assert_sound, expand
from tests.planner.test_tightness import BLOCKS, FAMILIES, LENGTHS, values_of
from tests.planner.test_tightness import B as BATCH
from tests.planner.test_tightness import H as HEADS

MILLION = 1 << 20
DOCUMENTS = "doc[b, k]: int\nmask = doc[b, k] == doc[b, pos(q)]"


def check_sound(case: Case) -> None:
    note(f"mask = {print_expr(case.program.mask)}")
    with np.errstate(all="ignore"):
        kept = dense(case.program.mask, case.values, case.n_q, case.n_k, B, H)
    assert_sound(expand(blocks_of(case)), classes(kept, case.block_q, case.block_k))


def blocks_of(case: Case) -> BlockLists:
    sizes = {"n_q": case.n_q, "n_k": case.n_k, "batch": B, "heads": H}
    return build_blocks(case.program, case.values, **sizes, block_q=case.block_q, block_k=case.block_k)


@given(cases(data=True))
@DEFAULT
def test_lists_are_sound(case: Case) -> None:
    check_sound(case)


@given(cases(data=False))
@DEFAULT
def test_lists_of_range_atoms_are_sound(case: Case) -> None:
    check_sound(case)


@pytest.mark.slow
@given(cases(data=True))
@SWEEP
def test_sweep_of_lists(case: Case) -> None:
    check_sound(case)


@pytest.mark.parametrize(
    ("mask", "want"),
    [
        ("q + k - q < pos(q) - 511", "k < q - 511"),
        ("k <= pos(q)", "k <= q"),
        ("q - k < w", "q - 5 < k"),
        ("abs(q - k) <= w", "abs(q - k) - 5 <= 0"),
        ("(q - k) % 64 == 0", "(q - k) % 64 == 0"),
        ("(q + k - q) % 64 == q % 64 - 1", "k % 64 == q % 64 - 1"),
        ("doc[k] == doc[pos(q) + k - k]", "doc[k] == doc[q]"),
        ("r * 1.0 + k < q + r", "2.0 * 1.0 + k < q + 2.0"),
    ],
)
def test_comparisons_part_what_reads_the_key(mask: str, want: str) -> None:
    p = program(f"w: int\nr: float\ndoc[q]: int\nmask = {mask}")
    assert p.mask is not None
    parted = separate(literal(p.mask, {"w": 5, "r": 2.0}, {"n_q": 4096, "n_k": 4096}), kinds_of(p))
    assert print_expr(parted) == want


@pytest.mark.parametrize(
    ("mask", "want"),
    [
        ("(k <= q) & (q - 5 < k)", ""),  # that 1 <= 5 is known
        ("(k <= q) & (q + 1 < k)", " & False"),
        ("(k <= q) & (q - width[h] < k)", " & (width[h] >= 1)"),
        ("(k < 3) | (q - k < 5)", " | (7 >= q)"),
        ("(k <= q) & ((k < 3) | (doc[q] == doc[k]))", ""),
    ],
)
def test_what_two_comparisons_imply(mask: str, want: str) -> None:
    declared = "width[h]: int\ndoc[q]: int\nmask = "
    p, wanted = program(declared + mask), program(f"{declared}{mask}{want}")
    assert p.mask is not None
    assert wanted.mask is not None
    assert print_expr(imply(p.mask, kinds_of(p))) == print_expr(wanted.mask)


@pytest.mark.parametrize("name", FAMILIES)
def test_exact_on_affine_families(name: str) -> None:
    text, choices = FAMILIES[name]
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    p = program(text)
    for n_q, n_k in rng.sample([*product(LENGTHS, LENGTHS), (200, 70), (70, 200), (257, 255)], 6):
        values = values_of(text, {k: rng.choice(v) for k, v in choices.items()}, rng)
        block_q, block_k = rng.choice(BLOCKS), rng.choice(BLOCKS)
        sizes = {"n_q": n_q, "n_k": n_k, "batch": BATCH, "heads": HEADS}
        lists = expand(build_blocks(p, values, **sizes, block_q=block_q, block_k=block_k))
        want = classes(dense(p.mask, values, n_q, n_k, BATCH, HEADS), block_q, block_k) if p.mask else None
        if want is not None:
            assert (np.broadcast_to(lists, want.shape) == want).all(), (seed, values, sizes, block_q, block_k)


@pytest.mark.parametrize("w", [0, -1, -200])
def test_what_a_disjunction_implies_is_bounded_by_what_is_around_it(w: int) -> None:
    text, _ = FAMILIES["sink and window"]
    p, sizes = program(text), {"n_q": 129, "n_k": 127, "batch": 1, "heads": 1}
    for s in (0, 1, 64):
        want = classes(dense(p.mask, {"s": s, "w": w}, 129, 127, 1, 1), 64, 64)
        lists = expand(build_blocks(p, {"s": s, "w": w}, **sizes, block_q=64, block_k=64))
        assert (np.broadcast_to(lists, want.shape) == want).all(), (s, w)


def documents(n: int, mean: int, dtype: type = np.int64) -> np.ndarray:
    lengths = np.random.default_rng(0).exponential(mean, 4 * n // mean + 20).astype(np.int64) + 1
    return np.repeat(np.arange(lengths.size, dtype=dtype), lengths)[None, :n]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (DOCUMENTS, np.int64),
        (DOCUMENTS.replace("mask = ", "mask = (k <= pos(q)) & (") + ")", np.int32),
    ],
)
def test_documents_of_a_million_tokens(text: str, dtype: type) -> None:
    p, values = program(text), {"doc": documents(MILLION, 2048, dtype)}

    def run() -> BlockLists:
        sizes = {"n_q": MILLION, "n_k": MILLION, "batch": 1, "heads": 1}
        return build_blocks(p, values, **sizes, block_q=128, block_k=128)

    best = 1.0
    for _ in range(6):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    tracemalloc.start()
    lists = run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lists.partial_index.size < 5 * 8192, "the documents' edges"
    assert best < 4 * 20e-3, "four times the budget, for noisy machines"
    assert peak < 8 << 20


def test_work_grows_with_the_rows() -> None:
    """Squares classified, a count that no noise disturbs, per query tile of packed documents."""
    from attngen.planner import descent

    counts: list[int] = []
    for n in (MILLION >> 4, MILLION >> 2, MILLION):
        seen = 0
        original = descent.Classifier.__call__

        def counted(self, squares, level, original=original):
            nonlocal seen
            seen += len(squares)
            return original(self, squares, level)

        descent.Classifier.__call__ = counted
        try:
            sizes = {"n_q": n, "n_k": n, "batch": 1, "heads": 1}
            build_blocks(program(DOCUMENTS), {"doc": documents(n, 2048)}, **sizes, block_q=128, block_k=128)
        finally:
            descent.Classifier.__call__ = original
        counts.append(seen * 128 // n)
    assert max(counts) < 1.5 * min(counts)


@pytest.mark.parametrize("shift", [0, 1, 100, -37, -128, 4000])
def test_blocks_follow_tiles_that_are_shifted(shift: int) -> None:
    """`doc[q + shift]` is bounded over exactly the rows of a tile, clamped to the tensor."""
    rng = np.random.default_rng(1)
    doc = rng.integers(0, 50, 300)
    pyramid = Pyramid(doc, (Blocks(128, -shift % 128),))
    first = np.arange(0, 512, 128) + shift
    got = pyramid.query([interval(first, first + 127)])
    for i, lo in enumerate(first):
        exact = doc[np.clip(np.arange(lo, lo + 128), 0, 299)]
        assert got.lo[i] <= exact.min()
        assert exact.max() <= got.hi[i]
        if -128 < lo < 300:
            assert (got.lo[i], got.hi[i]) == (exact.min(), exact.max())


def test_a_map_of_blocks_is_read_exactly() -> None:
    rng = np.random.default_rng(2)
    kept = rng.random((3, 13, 29)) < 0.2
    p = program("m[h, i, j]: bool\nmask = m[h, q // 64, k // 64]")
    lists = build_blocks(p, {"m": kept}, n_q=13 * 64, n_k=29 * 64, batch=2, heads=3, block_q=64, block_k=64)
    assert (expand(lists)[0] == 2 * kept).all()
