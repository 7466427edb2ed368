"""Rule D4 on shapes: which functions join, by which coefficients, and what has no finite orbit."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.orbit import NoOrbit, Orbit, derivative_terms, find_orbit
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Var, map_children
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr

NAMES = ("x0", "x1", "d0", "d1", "d2", "c0")


def parsed(text: str) -> Expr:
    def to_var(node: Expr) -> Expr:
        return Var(node.tensor) if isinstance(node, Load) else map_children(node, to_var)

    for name in NAMES:
        text = text.replace(name, f"{name}[q]")
    head = "".join(f"{n}[q]: float\n" for n in NAMES)
    return to_var(parse_program(f"{head}R[q] = {text}\nreturn R").cascade[0].body)


def orbit(body: str, *existing: str) -> Orbit:
    found = find_orbit(parsed(body), tuple(map(parsed, existing)), ())
    assert isinstance(found, Orbit), found
    return found


def value(expr: Expr, at: dict[str, float]) -> float:
    return float(
        evaluate(expr, lambda n: np.asarray(n.value if isinstance(n, Const) else at[n.name]), NUMPY_OPS)
    )


ORBITS = [
    ("(x0 - d0) * exp(x0 - d0)", ("exp(x0 - d0)",), ["exp(x0 - d0)"]),
    ("(x0 - d0) * exp(x0 - d0)", (), ["exp(x0 - d0)"]),
    ("(x0 - d0) ** 2", ("1.0", "x0"), ["x0 - d0", "1.0"]),
    ("(x0 - d0) * (x0 - d0)", (), ["x0 - d0", "1.0"]),
    ("(x0 - d0) ** 3", ("1.0",), ["(x0 - d0) ** 2", "x0 - d0", "1.0"]),
    ("(x0 - d0) ** 3", ("1.0", "(x0 - d0) ** 2"), ["(x0 - d0) ** 2", "x0 - d0", "1.0"]),
    ("cos(x0 - d0)", (), ["sin(x0 - d0)"]),
    ("(x0 - d0 - (x1 - d1)) * exp(x0 - d0)", ("exp(x0 - d0)", "exp(x1 - d1)"), ["exp(x0 - d0)"]),
    (
        "exp(x0 - d0) * (x0 - d1) * (x1 - d2)",
        ("exp(x0 - d0)",),
        ["exp(x0 - d0) * (x0 - d1)", "(x1 - d2) * exp(x0 - d0)", "exp(x0 - d0)"],
    ),
    ("exp2(x0 - d0) * (x0 - d0)", ("exp2(x0 - d0)",), ["exp2(x0 - d0)"]),
    ("exp((x0 - d0) / c0) * (x0 - d0)", (), ["exp((x0 - d0) / c0)"]),
    ("exp(x0 - d0) + 1", (), ["exp(x0 - d0)"]),
    ("((x0 - d0) / d1) ** 2", ("1.0",), ["x0 - d0", "1.0"]),
    ("where(x1 > 0, (x0 - d0) * exp(x0 - d0), 0.0)", (), ["where(x1 > 0, exp(x0 - d0), 0.0)"]),
]


@pytest.mark.parametrize(("body", "existing", "members"), ORBITS)
def test_members(body, existing, members):
    found = orbit(body, *existing)
    assert sorted(print_expr(m.body) for m in found.members[1:]) == sorted(members)
    assert print_expr(found.members[0].body) == body
    for member, row in zip(found.members, found.rows, strict=True):
        known = print_expr(member.body) in existing
        assert (member.known is not None) == known
        assert (row is None) == known


@pytest.mark.parametrize(("body", "existing", "members"), ORBITS)
@settings(max_examples=25, print_blob=True, deadline=None)
@given(data=st.data())
def test_the_identity_holds_in_float64(body, existing, members, data):
    found = orbit(body, *existing)
    number = st.floats(-2, 2)
    at = {n: data.draw(number) for n in ("x0", "x1")} | {"c0": data.draw(st.floats(0.5, 2))}
    new = {d: data.draw(st.floats(0.5, 2)) for d in ("d0", "d1", "d2")}
    before = {d: data.draw(st.floats(0.5, 2)) for d in new}
    both = at | new | {f"{d}_old": v for d, v in before.items()}
    for member, row in zip(found.members, found.rows, strict=True):
        if row is None:
            continue
        want = value(member.body, at | new)
        got = value(member.body, at | before) * (1 if row.own is None else value(row.own, both))
        got += sum(value(found.members[j].body, at | before) * value(e, both) for j, e in row.shares)
        assert np.isclose(got, want, rtol=1e-9, atol=1e-9)


def test_no_exponential_of_one_statistic_alone():
    """exp(d0) may overflow where exp(d0_old - d0) does not."""
    for body, existing, _ in ORBITS:
        for row in orbit(body, *existing).rows:
            for factor in [] if row is None else [e for _, e in row.shares]:
                assert "exp(d0)" not in print_expr(factor).replace("exp2", "exp")
                assert "exp(-d0)" not in print_expr(factor).replace("exp2", "exp")


@pytest.mark.parametrize(
    "body",
    [
        "sigmoid(x0 - d0)",
        "max(x0 - d0, 0)",
        "abs(x0 - d0)",
        "round(x0 / d0)",
        "exp(-(x0 - d0) ** 2)",
        "exp((x0 - d0) / d1)",
        "(x0 - d0) ** 4",
        "tanh(x0 - d0)",
        "log(x0 + d0)",
        "1 / (x0 - d0)",
    ],
)
def test_no_finite_orbit(body):
    found = find_orbit(parsed(body), (parsed("1.0"),), ())
    assert isinstance(found, NoOrbit)
    assert found.reason


def test_a_proof_that_takes_too_long_says_so(monkeypatch):
    from attngen.algebra import span

    monkeypatch.setattr(span, "PROOF_SECONDS", 0.05)
    monkeypatch.setattr(span, "_prove", lambda *_: time.sleep(1.0))
    found = find_orbit.__wrapped__(parsed("(x0 - d0) ** 2"), (), ())
    assert isinstance(found, NoOrbit)
    assert found.reason == "no proof within 0.05 s that its accumulators follow"


def test_derivatives_keep_differences_together():
    terms = derivative_terms(parsed("(x0 - d0) ** 3 * exp(x0 - d0)"), "d0")
    assert terms is not None
    assert [print_expr(t) for t in terms] == [
        "exp(x0 - d0) * (x0 - d0) ** 2",
        "(x0 - d0) ** 3 * exp(x0 - d0)",
    ]
    assert derivative_terms(parsed("x0 + c0"), "d0") == ()
    assert derivative_terms(parsed("floor(d0)"), "d0") is None
