"""Folds lowered to tile operations."""

from __future__ import annotations

import pytest

from attngen.algebra.derive import derive
from attngen.algebra.pairs import may_be_one
from attngen.api import Attention
from attngen.emit.lower import lower
from attngen.emit.mask_point import Limit, is_identity, limit_of
from attngen.emit.print_tile import print_tile
from attngen.emit.tile import Mask, RowReduce, TileLet
from attngen.emit.verify_tile import verify_tile
from attngen.errors import InternalError, UnsupportedError
from attngen.lang.library import cascade_names
from attngen.lang.parse import parse_program


def tile_of(cascade, outputs=None, score=None, scale_positive=True):
    program = Attention(score=score, cascade=cascade, outputs=outputs).program
    tile = lower(program, derive(program), scale_positive=scale_positive)
    verify_tile(tile, frozenset(t.name for t in program.tensors))
    return tile


def _of_one_fold() -> list[str]:
    return [n for n in cascade_names() if may_be_one(Attention(cascade=n).program)]


@pytest.mark.parametrize("cascade", _of_one_fold())
def test_cascades(cascade, golden):
    rows = Attention(cascade=cascade).program.cascade
    outputs = tuple(n for n in ("O", "LSE") if any(e.target == n for e in rows)) or None
    golden(f"emit/tile_{cascade}.txt", print_tile(tile_of(cascade, outputs)) + "\n")


def test_a_score_function_moves_the_mask_behind_it(golden):
    finite = tile_of("softmax", score="S - 0.5 * (q - k)")
    golden("emit/tile_softmax_with_score.txt", print_tile(finite) + "\n")
    assert [m.out for m in finite.steps if isinstance(m, Mask)] == ["S_dot"]
    # a captured slope may be infinite, and -inf + inf is no -inf: only the finished score will do
    captured = tile_of("softmax", score="slope[h]: float\nscore = S - slope[h] * (q - k)")
    assert [m.out for m in captured.steps if isinstance(m, Mask)] == ["S"]


def test_a_scale_of_unknown_sign_is_applied_before_the_maximum():
    tile = tile_of("softmax", scale_positive=False)
    assert not tile.uniforms or all("scale" not in name for name, _ in tile.uniforms)
    reduced = next(s for s in tile.steps if isinstance(s, RowReduce))
    assert any(isinstance(s, TileLet) and s.out == reduced.source for s in tile.steps)


def test_where_minus_infinity_on_the_score_is_not_enough_each_source_is_masked():
    tile = tile_of(
        """
S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
O[q, e] = sum[k]((S[q, k] + 1.0) * V[k, e])
return O
"""
    )
    assert [m.fill for m in tile.steps if isinstance(m, Mask)] == [0.0]


def test_a_contraction_no_tile_operation_computes_is_refused():
    with pytest.raises(UnsupportedError, match="S"):
        tile_of(
            """
S[q, k] = sum[d](Q[q, d] * sum[e](K[k, d] * V[k, e]))
O[q, e] = sum[k](exp(S[q, k]) * V[k, e])
return O
"""
        )


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("exp(S - 1.0)", Limit.ZERO),
        ("sigmoid(S * 2.0)", Limit.ZERO),
        ("max(S, 0.0)", Limit.ZERO),
        ("max(S, 0.0) * max(S, 0.0)", Limit.ZERO),
        ("tanh(S)", Limit.FINITE),
        ("S * -1.0", Limit.ANY),
        ("-S", Limit.POS_INF),
        ("abs(S)", Limit.POS_INF),
        ("S - S", Limit.ANY),
        ("exp(-S)", Limit.POS_INF),
        ("min(S, 3.0)", Limit.NEG_INF),
        ("where(q < k, S, 0.0)", Limit.ANY),
        ("exp(S) * exp(-S)", Limit.ANY),
    ],
)
def test_limits_at_minus_infinity(text, limit):
    expr = parse_program(f"score = {text}\n").score
    assert limit_of(expr, {"S": Limit.NEG_INF}, frozenset()) is limit


def test_identities():
    assert is_identity(Limit.ZERO, "sum")
    assert is_identity(Limit.NEG_INF, "max")
    assert is_identity(Limit.POS_INF, "min")
    assert not is_identity(Limit.ZERO, "max")
    assert not is_identity(Limit.FINITE, "sum")


def test_a_broken_tile_program_is_caught():
    from dataclasses import replace

    tile = tile_of("softmax", ("O", "LSE"))
    with pytest.raises(InternalError, match="M_log2"):
        verify_tile(
            replace(tile, steps=tuple(s for s in tile.steps if getattr(s, "out", "") != "M_log2")),
            frozenset(),
        )
    with pytest.raises(InternalError, match="not defined"):
        verify_tile(replace(tile, carried=tile.carried[:-1]), frozenset())
