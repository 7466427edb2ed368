"""Random cascades: whatever is derived computes what was written, and nothing crashes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.check import check_fold
from attngen.algebra.derive import derive
from attngen.lang.print import print_program

from .programs import SCORE, program

BODIES = (
    "exp(S[q, k] - {s})",
    "S[q, k] / {s}",
    "abs(S[q, k]) ** 2",
    "(S[q, k] / {s}) ** 2",
    "exp2((S[q, k] - {s}) * 0.5)",
    "max(S[q, k], 0) / {s}",
    "S[q, k] * {s}",
    "sigmoid(S[q, k])",
    "where(S[q, k] > 0, exp(S[q, k] - {s}), 0.0)",
    "abs(S[q, k] - {s})",
    "tanh(S[q, k]) * {s}",
)
# Sums that follow in an orbit. Their statistics are kept small: a square around a statistic that falls from e20 to
# 1 loses its digits however it is followed.
ORBITS = (
    "(S[q, k] - {s}) * exp(S[q, k] - {s})",
    "(S[q, k] - {s}) ** 2",
    "(S[q, k] - {s}) * S[q, k]",
    "cos(S[q, k] - {s})",
    "exp(S[q, k]) * log(exp(S[q, k]) / {s})",
    "1.0",
)
SMALL = ("tanh(S[q, k])", "S[q, k]", "abs(S[q, k])", "1.0", "exp(-abs(S[q, k]))")
READS = ("A{i}[q]", "sqrt(abs(A{i}[q]))", "max(A{i}[q], 0.5)")


@st.composite
def cascades(draw):
    orbit = draw(st.booleans())

    def body(statistics, bodies=BODIES):
        return draw(st.sampled_from(bodies)).format(s=draw(st.sampled_from(statistics or ["2.0"])))

    lines, statistics = [], []
    for i in range(draw(st.integers(1, 3))):
        reducer = draw(st.sampled_from(("max", "sum", "min")))
        inner = draw(st.sampled_from(SMALL if orbit else ("S[q, k]", "abs(S[q, k])", body(statistics))))
        lines.append(f"A{i}[q] = {reducer}[k]({inner})")
        statistics.append(draw(st.sampled_from(READS)).format(i=i))
    lines.append(f"O[q, e] = sum[k]({body(statistics, ORBITS if orbit else BODIES)} * V[k, e])")
    return program(SCORE + "\n".join(lines) + "\nreturn O")


@settings(max_examples=15, print_blob=True, deadline=None)
@given(source=cascades(), seed=st.integers(0, 2**31))
def test_a_derived_fold_computes_what_was_written(source, seed):
    fold = derive(source)
    if fold.absorb:
        assert check_fold(fold, source, trials=6, seed=seed) < 1e-6, print_program(source)
    else:
        assert all(r.reason for r in fold.derivation.refusals)
        # A proof that a check contradicts by a finite error would be a bug of the rules. An infinite one is the
        # cascade's own: exp of a distance to a statistic that is no maximum can overflow along the way.
        contradicted = [
            r for r in fold.derivation.refusals if "randomised" in r.reason and r.residual != "inf"
        ]
        assert not contradicted, print_program(source)
