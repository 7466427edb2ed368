"""Recurrences and reductions of tiles: what they are as reductions over all keys, and which are none."""

from __future__ import annotations

import itertools

import pytest
import torch

from attngen.algebra.derive import derive
from attngen.algebra.fold import Fold, Let, State
from attngen.algebra.plain import passes_as_written, plain
from attngen.algebra.sweeps import plan_sweeps
from attngen.api import Attention
from attngen.assemble import finish_program
from attngen.backends.reference import reference
from attngen.errors import DerivationError
from attngen.lang.expr import Expr, Load, map_children
from attngen.lang.library import load_cascade
from attngen.lang.parse import parse_program
from attngen.lang.print import einsum_lines
from attngen.lang.program import Program

SCORE = "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\n"
TILES = "m: rank = (n_k + 15) // 16\n"
ONLINE = "M[q, 0] = -inf\nM[q, k + 1] = max(M[q, k], S[q, k])\n"
RATIO = "exp(M[q, k] - M[q, k + 1])"
TERM = "exp(S[q, k] - M[q, k + 1])"
TILE_MAX = "LM[q, m] = max[k](where(k // 16 == m, S[q, k], -inf))\n"
RUNNING = TILE_MAX + "RM[q, 0] = -inf\nRM[q, m + 1] = max(RM[q, m], LM[q, m])\n"


def program(text: str) -> Program:
    return finish_program(parse_program(text, name="p", file="p"))


def lines(text: str) -> list[str]:
    """The plain cascade's Einsums but the score's."""
    found = plain(program(text))
    assert not found.refusals, found.refusals
    return [line for e in found.program.cascade if e.target != "S" for line in einsum_lines(e)]


# What the steps or tiles add up to; None where they do not.
CLOSED = [
    pytest.param(
        "N[q, 0] = 0.0\nN[q, k + 1] = N[q, k] + exp(S[q, k])\nO[q] = N[q, n_k]\nreturn O",
        ["N[q] = sum[k](exp(S[q, k]))", "O[q] = N[q]"],
        id="sum",
    ),
    pytest.param(
        "P[q, 0] = 1.0\nP[q, k + 1] = tanh(S[q, k]) * P[q, k]\nO[q] = P[q, n_k]\nreturn O",
        ["P[q] = prod[k](tanh(S[q, k]))", "O[q] = P[q]"],
        id="product",
    ),
    pytest.param(
        "P[q, 0] = inf\nP[q, k + 1] = min(S[q, k], min(P[q, k], -S[q, k]))\nO[q] = P[q, n_k]\nreturn O",
        ["P[q] = min[k](min(-S[q, k], S[q, k]))", "O[q] = P[q]"],
        id="a chain",
    ),
    pytest.param(
        "s[h]: float\nP[q, 0] = s[h]\nP[q, k + 1] = max(P[q, k], S[q, k])\nO[q] = P[q, n_k]\nreturn O",
        ["P[q] = max(s[h], max[k](S[q, k]))", "O[q] = P[q]"],
        id="a start that is no identity",
    ),
    pytest.param(
        ONLINE + f"Z[q, 0] = 0.0\nZ[q, k + 1] = {TERM} + {RATIO} * Z[q, k]\nO[q] = Z[q, n_k]\nreturn O",
        ["M[q] = max[k](S[q, k])", "Z[q] = sum[k](exp(S[q, k] - M[q]))", "O[q] = Z[q]"],
        id="online softmax",
    ),
    pytest.param(
        ONLINE
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + {TERM}\nH[q, 0] = 0.0\n"
        + f"H[q, k + 1] = {RATIO} * (H[q, k] + Z[q, k] * (finite(M[q, k]) - M[q, k + 1]))"
        + f" + (S[q, k] - M[q, k + 1]) * {TERM}\nO[q] = log(Z[q, n_k]) - H[q, n_k] / Z[q, n_k]\nreturn O",
        [
            "M[q] = max[k](S[q, k])",
            "Z[q] = sum[k](exp(S[q, k] - M[q]))",
            "H[q] = sum[k]((S[q, k] - M[q]) * exp(S[q, k] - M[q]))",
            "O[q] = log(Z[q]) - H[q] / Z[q]",
        ],
        id="entropy, coupled with the denominator",
    ),
    pytest.param(
        ONLINE
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = where(M[q, k] > -inf, {RATIO} * Z[q, k], 0.0) + {TERM}\n"
        + "O[q] = Z[q, n_k]\nreturn O",
        ["M[q] = max[k](S[q, k])", "Z[q] = sum[k](exp(S[q, k] - M[q]))", "O[q] = Z[q]"],
        id="guarded by hand",
    ),
    pytest.param(
        ONLINE
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * where(M[q, k] > -inf, {RATIO}, 1.0) + {TERM}\n"
        + "O[q] = Z[q, n_k]\nreturn O",
        ["M[q] = max[k](S[q, k])", "Z[q] = sum[k](exp(S[q, k] - M[q]))", "O[q] = Z[q]"],
        id="its factor guarded by hand",
    ),
    pytest.param(
        ONLINE
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + where(M[q, k + 1] > -inf, {TERM}, 0.0)\n"
        + "O[q] = Z[q, n_k]\nreturn O",
        ["M[q] = max[k](S[q, k])", "Z[q] = sum[k](exp(S[q, k] - M[q]))", "O[q] = Z[q]"],
        id="what it adds guarded by hand",
    ),
    pytest.param(
        "s[h]: float\nM[q, 0] = s[h]\nM[q, k + 1] = max(M[q, k], S[q, k])\n"
        f"Z[q, 0] = 1.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + {TERM}\nO[q] = Z[q, n_k]\nreturn O",
        [
            "M[q] = max(s[h], max[k](S[q, k]))",
            "Z[q] = 1.0 * exp(s[h] - M[q]) + sum[k](exp(S[q, k] - M[q]))",
            "O[q] = Z[q]",
        ],
        id="a sink as the start",
    ),
    pytest.param(
        ONLINE
        + "image[b, k]: bool\n".replace("image", "image")
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + where(image[b, k], {TERM}, 0.0)\n"
        + "O[q] = Z[q, n_k]\nreturn O",
        [
            "M[q] = max[k](S[q, k])",
            "Z[q] = sum[k](where(image[b, k], exp(S[q, k] - M[q]), 0.0))",
            "O[q] = Z[q]",
        ],
        id="a class of keys",
    ),
    pytest.param(
        ONLINE
        + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + {TERM}\n"
        + f"A[q, 0] = 0.0\nA[q, k + 1] = A[q, k] * {RATIO} + Z[q, k] * {TERM}\n"
        + "O[q] = A[q, n_k]\nreturn O",
        None,
        id="reads another before its end",
    ),
    pytest.param(
        TILES
        + RUNNING
        + "RD[q, 0] = 0.0\nRD[q, m + 1] = RD[q, m] * exp(RM[q, m] - RM[q, m + 1])"
        + " + sum[k](where(k // 16 == m, exp(S[q, k] - RM[q, m + 1]), 0.0))\n"
        + "O[q] = RM[q, n_m] + log(RD[q, n_m])\nreturn O",
        ["RM[q] = max[k](S[q, k])", "RD[q] = sum[k](exp(S[q, k] - RM[q]))", "O[q] = RM[q] + log(RD[q])"],
        id="tiles",
    ),
    pytest.param(
        "m: rank = 2\n" + RUNNING + "O[q] = RM[q, n_m]\nreturn O",
        [
            "RM[q] = max[k](where(k // 16 < n_m, where(k // 16 >= 0, S[q, k], -inf), -inf))",
            "O[q] = RM[q]",
        ],
        id="tiles that may not cover the keys",
    ),
    pytest.param(
        "m: rank = 4\nw[m]: float\nX[q, 0] = 0.0\nX[q, m + 1] = X[q, m] + w[m] * q\nO[q] = X[q, n_m]\nreturn O",
        ["X[q] = sum[m](w[m] * q)", "O[q] = X[q]"],
        id="no keys at all",
    ),
    pytest.param(
        TILES + TILE_MAX + "GM[q] = max[m](LM[q, m])\nO[q] = GM[q]\nreturn O",
        ["GM[q] = max[k](S[q, k])", "O[q] = GM[q]"],
        id="maxima of tiles",
    ),
    pytest.param(
        TILES
        + TILE_MAX
        + "LD[q, m] = sum[k](where(k // 16 == m, exp(S[q, k] - LM[q, m]), 0.0))\nGM[q] = max[m](LM[q, m])\n"
        + "O[q] = sum[m](exp(LM[q, m] - GM[q]) * LD[q, m])\nreturn O",
        ["GM[q] = max[k](S[q, k])", "O[q] = sum[k](exp(S[q, k] - GM[q]))"],
        id="sums of tiles",
    ),
    pytest.param(
        TILES + "LD[q, m] = sum[k](where(k // 16 == m, S[q, k], 0.0))\nO[q] = sum[m](LD[q, m])\nreturn O",
        ["O[q] = sum[k](S[q, k])"],
        id="plain sums of tiles",
    ),
]


@pytest.mark.parametrize(("text", "expected"), CLOSED)
def test_closed_form(text, expected):
    found = plain(program(SCORE + text))
    if expected is None:
        assert found.refusals
        return
    assert lines(SCORE + text) == expected


@pytest.mark.parametrize("mask", ["", "mask = (k <= pos(q) - 3) & (k % 5 != 2)\n"], ids=["dense", "gaps"])
@pytest.mark.parametrize(("text", "expected"), [c for c in CLOSED if c.values[1] is not None])
def test_the_closed_form_is_what_stepping_gives(text, expected, mask):
    source = program(mask + SCORE + text)
    made = plain(source).program
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, n, 8, generator=g, dtype=torch.float64)
        for n in ((37, 21, 21) if mask else (21, 37, 37))
    )
    extents = {"b": 2, "h": 3, "k": k.shape[2], "m": 4}
    tensors = {
        t.name: torch.rand([extents[r] for r in t.ranks], generator=g, dtype=torch.float64)
        for t in source.tensors
    }
    tensors = {n: t > 0.5 if n == "image" else t for n, t in tensors.items()}
    params = {"scale": 8**-0.5}
    got, want = (reference(p, q, k, v, tensors=tensors, params=params)["O"] for p in (made, source))
    if (
        mask
    ):  # rows that see nothing are where guards differ: exp(-inf + inf) is nan step by step, 1 or 0 as a sum
        seen = want.isfinite()
        assert seen[..., 37 - 21 + 3 :].all()
        got, want = got[seen], want[seen]
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "X[q, 0] = 0.0\nX[q, k + 1] = X[q, k] * 0.9 + S[q, k]\nO[q] = X[q, n_k]\nreturn O",
            "0.9 times the value before does not keep S[q, k]",
        ),
        (
            "X[q, 0] = 0.0\nX[q, k + 1] = X[q, k] + (S[q, k] - X[q, k]) / (k + 1)\nO[q] = X[q, n_k]\nreturn O",
            "neither X (+) t nor c * X + t",
        ),
        (
            "X[q, 0] = 0.0\nX[q, k + 1] = tanh(X[q, k] + S[q, k])\nO[q] = X[q, n_k]\nreturn O",
            "neither X (+) t nor c * X + t",
        ),
        (
            ONLINE + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] + {TERM}\nO[q] = Z[q, n_k]\nreturn O",
            "1.0 times the value before does not keep exp(S[q, k] - M[q, k + 1])",
        ),
        (
            ONLINE
            + "Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * exp(M[q, k + 1] - M[q, k]) + "
            + TERM
            + "\nO[q] = Z[q, n_k]\nreturn O",
            "does not keep",
        ),
        (
            ONLINE
            + "X[q, 0] = -inf\nX[q, k + 1] = max(X[q, k], S[q, k] - M[q, k])\nO[q] = X[q, n_k]\nreturn O",
            "max joins terms that read M as it runs",
        ),
        (
            ONLINE
            + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} * (S[q, k] / S[q, k]) + {TERM}\n"
            + "O[q] = Z[q, n_k]\nreturn O",
            "differs from step to step",
        ),
        (
            "image[b, k]: bool\n" + ONLINE + "N[q, 0] = -inf\n"
            "N[q, k + 1] = max(N[q, k], where(image[b, k], S[q, k], -inf))\nZ[q, 0] = 0.0\n"
            "Z[q, k + 1] = Z[q, k] + where(N[q, k + 1] > -inf, exp(S[q, k]), 0.0)\nO[q] = Z[q, n_k]\nreturn O",
            "over other keys than it adds",
        ),
        (
            ONLINE
            + f"Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * {RATIO} + where(M[q, k + 1] > 0.5, {TERM}, 0.0)\n"
            + "O[q] = Z[q, n_k]\nreturn O",
            "reads a running value",
        ),
        (TILES + RUNNING + "O[q] = RM[q, n_m - 1]\nreturn O", "only the last value of a recurrence"),
        (ONLINE + "O[q, k] = S[q, k] - M[q, k + 1]\nreturn O", "only the last value of a recurrence"),
    ],
)
def test_what_is_no_reduction_is_refused_with_the_reason(text, reason):
    source = program(SCORE + text)
    record = derive(source).derivation
    assert len(record.refusals) == 1
    assert reason in record.refusals[0].reason
    with pytest.raises(DerivationError, match="a recurrence that is no reduction") as error:
        plan_sweeps(source, derive)
    assert reason in error.value.message
    assert error.value.loc is not None


def test_a_guard_that_drops_what_was_added_is_no_guard():
    """Where the maximum is over other keys than the sum, -inf does not mean that nothing was added."""
    text = (
        "image[b, k]: bool\nM[q, 0] = -inf\nM[q, k + 1] = max(M[q, k], where(image[b, k], S[q, k], -inf))\n"
        "Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * where(M[q, k] > -inf, 1.0, 0.0) + exp(S[q, k])\n"
        "O[q] = Z[q, n_k]\nreturn O"
    )
    assert plain(program(SCORE + text)).refusals


def test_reductions_of_tiles_that_do_not_cancel_stay():
    text = SCORE + TILES + TILE_MAX + "O[q] = sum[m](exp(LM[q, m]))\nreturn O"
    source = program(text)
    assert plain(source).program is source


# The published cascades, 3, 2 and 1 passes as they are written, and one as derived: one algorithm.
FUSEMAX = {"softmax": 3, "softmax_two_pass": 2, "softmax_one_pass": 1, "online_softmax": 1}


@pytest.mark.parametrize(("name", "passes"), FUSEMAX.items())
def test_published_pass_counts(name, passes):
    source = finish_program(load_cascade(name))
    assert passes_as_written(source).passes == passes
    record = Attention(cascade=name).derivation()
    assert (record.passes_written, record.passes) == (passes, 1)
    assert not record.refusals


def renamed(fold: Fold) -> tuple[object, ...]:
    """A Fold with its states called by their order, so that two of them compare whatever they are called."""
    names = {s.name: f"x{i}" for i, s in enumerate(fold.states)}
    lets = {s.name: s for s in fold.absorb if isinstance(s, Let)}

    def new(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.tensor in lets:
            return new(lets[expr.tensor].body)
        if isinstance(expr, Load):
            stem, _, old = expr.tensor.partition(".")
            return Load(names.get(stem, stem) + ("." + old if old else ""), expr.indices)
        return map_children(expr, new)

    return tuple(
        (names[s.name], s.reduce, new(s.body), s.rescale and new(s.rescale))
        for s in fold.absorb
        if isinstance(s, State)
    )


def test_the_published_cascades_are_one_algorithm():
    folds = [renamed(derive(finish_program(load_cascade(name)))) for name in FUSEMAX]
    for a, b in itertools.pairwise(folds):
        assert a == b


@pytest.mark.parametrize("mask", ["", "mask = k <= pos(q)\n", "mask = (k <= pos(q) - 3) & (k % 5 != 2)\n"])
@pytest.mark.parametrize("name", sorted(set(FUSEMAX) - {"softmax"}))
def test_stepping_through_is_the_textbook(name, mask):
    """The oracle steps through recurrences as they are written; rows that see nothing are 0."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8, generator=g, dtype=torch.float64) for n in (37, 53, 53))
    outs = []
    for cascade in (name, "softmax"):
        source = finish_program(parse_program(f"{mask}cascade = {cascade}\nreturn O", name="p", file="p"))
        params = {"scale": 8**-0.5, "tile": 16}
        outs.append(reference(source, q, k, v, tensors={}, params=params)["O"])
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-12, atol=1e-12)


def test_ranks_and_parameters_that_nothing_reads_any_more_are_gone():
    text = (
        "tile: int = 16\nbase: int = 2\nm: rank = (n_k + tile - 1) // tile\ni: rank = n_m * base\nj: rank = n_k\n"
        + SCORE
        + "LM[q, m] = max[k](where(k // tile == m, S[q, k], -inf))\nGM[q] = max[m](LM[q, m])\n"
    )
    alone = plain(program(text + "O[q] = GM[q]\nreturn O")).program
    assert alone.params == ()
    used = plain(program(text + "O[q] = GM[q] + sum[i](1.0 * i)\nreturn O")).program
    assert [p.name for p in used.params] == ["tile", "base", "m", "i"]


def test_a_warm_process_reads_what_was_closed(tmp_path, monkeypatch):
    from attngen import analysed

    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path))
    analysed._plain.cache_clear()
    spec = Attention(cascade="softmax_one_pass")
    analysed._plain.cache_clear()
    monkeypatch.setattr("attngen.algebra.plain.plain", None)  # not asked again
    again = Attention(cascade="softmax_one_pass")
    assert again.derivation() == spec.derivation()
    assert again._analysed.program == spec._analysed.program
