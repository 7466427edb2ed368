"""What the Triton printer rewrites of a tile program, and what it must leave alone."""

from __future__ import annotations

import pytest

import attngen
from attngen.emit.tile import RowLet
from attngen.emit.triton.base_two import in_base_two
from attngen.emit.triton.sum_parts import sums_in_parts
from attngen.emit.triton.unguarded import without_guards
from attngen.lang.print import print_expr

ROW_MAX = """
S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])
R[q] = M[q]
return O, {second}
"""


def tile_of(name_or_text, **options):
    if "\n" in name_or_text:
        spec = attngen.Attention(cascade=name_or_text, **options)
    else:
        spec = attngen.load(name_or_text, **options)
    (spec,), _ = spec.kernel_specs("sm_90", "bf16", 64)
    return spec.tile


def lets(steps):
    return {s.out: print_expr(s.body) for s in steps if isinstance(s, RowLet)}


def test_a_maximum_moves_to_the_base_of_its_exponentials():
    tile = tile_of("causal", outputs=("O", "LSE"))
    moved = in_base_two(tile)
    assert lets(moved.steps)["M_tile"] == "M_raw[q] * qk_scale[()]"
    assert lets(moved.steps)["M_log2"] == "finite(M_new[q])"
    assert lets(moved.steps)["Z_scale"] == "exp2(M[q] - M_log2[q])"
    finish = {f.out: print_expr(f.body) for f in moved.finish}
    assert "M[q] * 0.6931471805599453" in finish["LSE"]
    assert in_base_two(moved) == moved, "once is enough"


@pytest.mark.parametrize("name", ["alibi", "sigmoid", "softmax_sink"])
def test_scores_that_no_scale_alone_multiplies_keep_their_units(name):
    tile = tile_of(name)
    moved = in_base_two(tile)
    assert ("M_log2" in lets(moved.steps)) == ("M_log2" in lets(tile.steps))
    if name != "softmax_sink":  # its scores are plain
        assert moved == tile


def test_a_maximum_that_is_stored_keeps_its_units():
    tile = tile_of(ROW_MAX.format(second="M"))
    assert in_base_two(tile) == tile


def test_a_maximum_that_the_end_reads_comes_back_to_its_units():
    moved = in_base_two(tile_of(ROW_MAX.format(second="R")))
    assert {print_expr(f.body) for f in moved.finish if f.out == "R"} == {"M[q] * 0.6931471805599453"}


def test_sums_that_only_their_update_reads_stay_in_parts():
    assert sums_in_parts(in_base_two(tile_of("causal"))) == {"Z_tile": "Z"}
    assert sums_in_parts(in_base_two(tile_of("entropy"))) == {"Z_tile": "Z", "W_tile": "W"}


def test_guards_go_where_every_row_has_seen_a_key():
    plain = in_base_two(tile_of("causal")).steps
    assert lets(without_guards(plain))["M_log2"] == "M_new[q]"
    biased = tile_of("alibi").steps
    assert without_guards(biased) == biased, "a score that reads a tensor may be -inf for every key"
