"""The pass counts that the literature gives for well-known cascades."""

from __future__ import annotations

import pytest

from attngen.algebra.isolate import isolate
from attngen.algebra.passes import Access, Traversal, count_passes, footprints

from .followers import FOLLOWERS
from .programs import FOLDED, SCORE, program


def cascade(*lines):
    """Traversals from `"Z[p] = A[p, m] B[m]"`."""

    def access(text):
        name, ranks = text.rstrip("]").split("[")
        return Access(name, tuple(r for r in ranks.split(",") if r))

    out = []
    for line in lines:
        target, reads = line.split(" = ")
        head = access(target)
        out.append(Traversal(head.tensor, head.ranks, tuple(access(r) for r in reads.split())))
    return out


TEXTBOOK = cascade(
    "QK[p,m] = Q[p,e] K[e,m]",
    "GM[p] = QK[p,m]",
    "SN[p,m] = QK[p,m] GM[p]",
    "SD[p] = SN[p,m]",
    "A[p,m] = SN[p,m] SD[p]",
    "AV[p,f] = A[p,m] V[m,f]",
)
DEFERRED_DIVISION = [*TEXTBOOK[:4], *cascade("SNV[p,f] = SN[p,m] V[m,f]", "AV[p,f] = SNV[p,f] SD[p]")]
WITHOUT_MAX = cascade(
    "QK[p,m] = Q[p,e] K[e,m]",
    "SN[p,m] = QK[p,m]",
    "SD[p] = SN[p,m]",
    "SNV[p,f] = SN[p,m] V[m,f]",
    "AV[p,f] = SNV[p,f] SD[p]",
)
# The key rank split into tiles m1 of m0; RM, PRM, RD and RNV run along m1, their last elements are read at the end.
FLASH_ATTENTION_2 = cascade(
    "BQK[m1,m0,p] = Q[p,e] BK[e,m1,m0]",
    "LM[m1,p] = BQK[m1,m0,p]",
    "RM[m1,p] = LM[m1,p]",
    "SLN[m1,m0,p] = BQK[m1,m0,p] RM[m1,p]",
    "SLD[m1,p] = SLN[m1,m0,p]",
    "SLNV[m1,f,p] = SLN[m1,m0,p] BV[f,m1,m0]",
    "PRM[m1,p] = RM[m1,p]",
    "RD[m1,p] = PRM[m1,p] SLD[m1,p]",
    "RNV[m1,f,p] = PRM[m1,p] SLNV[m1,f,p]",
    "RDlast[p] = RD[m1,p]",
    "RNVlast[f,p] = RNV[m1,f,p]",
    "AV[f,p] = RNVlast[f,p] RDlast[p]",
)
LOCAL_MAX = cascade(
    "BQK[m1,m0,p] = Q[p,e] BK[e,m1,m0]",
    "LM[m1,p] = BQK[m1,m0,p]",
    "SLN[m1,m0,p] = BQK[m1,m0,p] LM[m1,p]",
    "SLD[m1,p] = SLN[m1,m0,p]",
    "GM[p] = LM[m1,p]",
    "PM[m1,p] = LM[m1,p] GM[p]",
    "SD[p] = SLD[m1,p] PM[m1,p]",
    "SN[m1,m0,p] = SLN[m1,m0,p] PM[m1,p]",
    "SNV[f,p] = SN[m1,m0,p] BV[f,m1,m0]",
    "AV[f,p] = SNV[f,p] SD[p]",
)
PEDAGOGIC = cascade("Y[] = A[k] B[k]", "Z[] = Y[] A[k]")
PEDAGOGIC_DEFERRED = cascade("Y[] = A[k] B[k]", "X[] = A[k]", "Z[] = Y[] X[]")
LAYER_NORM = cascade("S[] = X[n]", "MU[] = S[]", "D[n] = X[n] MU[]", "VAR[] = D[n]", "Y[n] = D[n] VAR[]")


@pytest.mark.parametrize(
    ("steps", "rank", "passes"),
    [
        pytest.param(TEXTBOOK, "m", 3, id="textbook"),
        pytest.param(DEFERRED_DIVISION, "m", 2, id="deferred division"),
        pytest.param(WITHOUT_MAX, "m", 1, id="softmax without the maximum"),
        pytest.param(FLASH_ATTENTION_2, "m1", 1, id="FlashAttention-2 over tiles"),
        pytest.param(FLASH_ATTENTION_2, "m0", 2, id="FlashAttention-2 within a tile"),
        pytest.param(LOCAL_MAX, "m1", 2, id="local maxima"),
        pytest.param(PEDAGOGIC, "k", 2, id="two uses of one fiber"),
        pytest.param(PEDAGOGIC_DEFERRED, "k", 1, id="the same, deferred"),
        pytest.param(LAYER_NORM, "n", 3, id="layer norm"),
    ],
)
def test_known_counts(steps, rank, passes):
    assert count_passes(steps, rank).passes == passes


def test_tensor_passes_are_strict():
    """Two sequential loops over k, but each tensor is read once."""
    count = count_passes(cascade("Y[] = A[k]", "Z[] = Y[] B[k]"), "k")
    assert count.passes == 2
    assert count.tensor_passes == {"A": 1, "B": 1}
    assert count_passes(PEDAGOGIC, "k").tensor_passes == {"A": 2, "B": 1}


def test_levels_of_the_textbook_cascade():
    levels = count_passes(TEXTBOOK, "m").levels
    assert levels == {"QK": 1, "GM": 1, "SN": 2, "SD": 2, "A": 3, "AV": 3}
    assert count_passes(TEXTBOOK, "z").passes == 0


def test_counting_does_not_need_isolated_reductions():
    source = program(FOLDED["softmax_sink"][0])
    assert count_passes(source.cascade).passes == count_passes(isolate(source).cascade).passes == 3


def test_what_follows_a_running_value_shares_its_pass():
    text = SCORE + "M[q] = max[k](S[q, k])\nZ[q] = sum[k](exp(S[q, k] - M[q]))\nreturn Z"
    steps = program(text).cascade
    assert count_passes(steps).passes == 2
    assert count_passes(steps, running={"Z": frozenset({"M"})}).passes == 1


@pytest.mark.parametrize(
    ("steps", "rank", "whole"),
    [
        pytest.param(TEXTBOOK, "m", {"QK", "SN"}, id="textbook"),
        pytest.param(DEFERRED_DIVISION, "m", {"QK"}, id="deferred division"),
        pytest.param(WITHOUT_MAX, "m", set(), id="softmax without the maximum"),
        pytest.param(FLASH_ATTENTION_2, "m1", set(), id="FlashAttention-2 over tiles"),
        pytest.param(FLASH_ATTENTION_2, "m0", {"BQK"}, id="FlashAttention-2 within a tile"),
        pytest.param(LOCAL_MAX, "m1", {"LM", "SLN"}, id="local maxima"),
        pytest.param(PEDAGOGIC, "k", {"A"}, id="two uses of one fiber"),
        pytest.param(PEDAGOGIC_DEFERRED, "k", set(), id="the same, deferred"),
        pytest.param(LAYER_NORM, "n", {"X", "D"}, id="layer norm"),
    ],
)
def test_a_tensor_of_more_passes_stays_whole(steps, rank, whole):
    count = count_passes(steps, rank)
    sizes = footprints(count.tensor_passes)
    assert {t for t, size in sizes.items() if size == "O(fiber)"} == whole
    assert set(sizes) == set(count.tensor_passes)


@pytest.mark.parametrize("rank", ["p", "f", "e"])
def test_ranks_that_are_not_reduced_twice_take_one_pass(rank):
    assert count_passes(TEXTBOOK, rank).passes == 1


def test_an_orbit_shares_the_pass_of_its_statistic():
    text, written = FOLLOWERS["variance"]
    steps = isolate(program(text)).cascade
    assert count_passes(steps).passes == written == 2
    assert count_passes(steps, running={"W_0": frozenset({"mu"})}).passes == 1
