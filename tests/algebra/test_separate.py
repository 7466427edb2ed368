"""Rule D3 on shapes: what separates, by which ratio, and that proofs are bounded and shared."""

from __future__ import annotations

import time

import pytest

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Scope, Shape
from attngen.algebra.defer import defer, joined
from attngen.algebra.separate import Inseparable, Ratio, separate
from attngen.algebra.signs import Sign, sign_of, signs_of
from attngen.lang.expr import Apply, Const, Expr, Load, Var, map_children
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr

from .programs import FOLDED, program


def parsed(text: str) -> Expr:
    """An expression over x0, d0, ..., read as tensors of no rank and made Vars."""

    def to_var(node: Expr) -> Expr:
        return Var(node.tensor) if isinstance(node, Load) else map_children(node, to_var)

    names = ("x0", "x1", "d0", "d1", "c0")
    head = "".join(f"{n}[q]: float\n" for n in names)
    body = text
    for n in names:
        body = body.replace(n, f"{n}[q]")
    return to_var(parse_program(f"{head}R[q] = {body}\nreturn R").cascade[0].body)


@pytest.mark.parametrize(
    ("reducer", "body", "signs", "ratio"),
    [
        ("sum", "exp(x0 - d0)", {}, "exp(d0_old - d0)"),
        ("sum", "x1 * exp(x0 - d0)", {}, "exp(d0_old - d0)"),
        ("sum", "exp2(x0 - d0)", {}, "exp2(d0_old - d0)"),
        ("sum", "exp((x0 - d0) / c0)", {}, "exp((d0_old - d0) / c0)"),
        ("sum", "exp(x0 - d0) / d1", {"d1": Sign.NONNEG}, None),
        ("sum", "(x0 / d0) ** 3", {}, "(d0_old / d0) ** 3"),
        ("sum", "abs(x0 / d0)", {"d0": Sign.NONNEG}, "d0_old / d0"),
        ("sum", "exp(tanh(x0) - d0)", {}, "exp(d0_old - d0)"),
        ("max", "x0 - d0", {}, "d0_old - d0"),
        ("min", "x0 + 2 * d0", {}, None),
        ("max", "x0 * exp(-d0)", {}, "exp(d0_old - d0)"),
        ("logaddexp", "x0 - d0", {}, "d0_old - d0"),
    ],
)
def test_separable(reducer, body, signs, ratio):
    found = separate(reducer, Shape(parsed(body), tuple(signs.items())))
    assert isinstance(found, Ratio), found
    assert found.ratio is not None
    if ratio is not None:
        assert print_expr(found.ratio) == ratio


@pytest.mark.parametrize(
    ("reducer", "body", "rank"),
    [
        ("sum", "sigmoid(x0 - d0)", None),
        ("sum", "max(x0 - d0, 0)", None),
        ("sum", "round(x0 / d0)", None),
        ("sum", "exp(-(x0 - d0) ** 2)", None),
        ("sum", "exp((x0 - d0) / d1)", None),
        ("sum", "(x0 - d0) ** 2", 3),
        ("sum", "(x0 - d0) * exp(x0 - d0)", 2),
        ("sum", "cos(x0 - d0)", 2),
        ("sum", "exp(x0 - d0) + 1", 2),
        ("max", "x0 * d0", None),  # a factor of unknown sign
        ("prod", "x0 * d0", None),
    ],
)
def test_inseparable(reducer, body, rank):
    found = separate(reducer, Shape(parsed(body), ()))
    assert isinstance(found, Inseparable)
    assert found.reason
    assert found.rank == rank


def test_a_statistic_that_does_not_matter_needs_no_rescale():
    found = separate("sum", Shape(parsed("x0 + 0 * d0"), ()))
    assert isinstance(found, Ratio)
    assert found.ratio is None


def test_proofs_are_shared_by_shape():
    shape = Shape(parsed("x0 * x1 * exp(x0 - d0)"), ())
    assert separate("sum", shape) is separate("sum", Shape(shape.body, ()))


def test_a_proof_cannot_run_for_ever():
    def endless() -> str:
        n = 0
        while True:
            n += 1

    start = time.perf_counter()
    assert bounded(endless, 0.2, "gave up") == "gave up"
    assert time.perf_counter() - start < 5
    assert bounded(lambda: "done", 5.0, "gave up") == "done"
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: str(1 // 0), 5.0, "gave up")


def scope_of(*running: str) -> Scope:
    scope = Scope("k")
    scope.running |= set(running)
    return scope


def row(name: str) -> Load:
    return Load(name, (Var("q"),))


def key(name: str) -> Load:
    return Load(name, (Var("q"), Var("k")))


def test_deferral_takes_what_stands_outside():
    body = Apply("mul", (Apply("div", (key("E"), row("Z"))), Load("V", (Var("k"), Var("e")))))
    found = defer("sum", body, scope_of("Z"))
    assert found is not None
    assert print_expr(found.core) == "E[q, k] * V[k, e]"
    assert print_expr(joined(row("A"), found)) == "A[q] / Z[q]"


def test_deferral_leaves_powers_and_exponents_whole():
    quotient = Apply("pow", (Apply("div", (key("S"), row("A"))), Const(3)))
    assert defer("sum", quotient, scope_of("A")) is None
    shifted = Apply("exp", (Apply("sub", (key("S"), row("M"))),))
    assert defer("sum", shifted, scope_of("M")) is None


def test_deferral_asks_for_the_side_condition():
    scaled = Apply("mul", (key("S"), row("A")))
    assert defer("max", scaled, scope_of("A")) is None
    scope = scope_of("A")
    scope.signs["A"] = Sign.NONNEG
    assert defer("max", scaled, scope) is not None
    raised = Apply("pow", (key("S"), row("A")))
    assert defer("prod", raised, scope_of("A")) is None
    scope.signs["S"] = Sign.POSITIVE
    found = defer("prod", raised, scope)
    assert found is not None
    assert print_expr(joined(row("P"), found)) == "P[q] ** A[q]"


def test_signs():
    signs = signs_of(program(FOLDED["softmax_sink"][0]).cascade)
    assert signs["S"] is Sign.ANY
    assert signs["E"] is Sign.POSITIVE
    assert signs["Z"] is Sign.POSITIVE
    assert signs_of(program(FOLDED["softmax"][0]).cascade)["Z"] is Sign.NONNEG
    for text, sign in (
        ("abs(x0)", Sign.NONNEG),
        ("x0 ** 2", Sign.NONNEG),
        ("x0 * x0 + 1", Sign.POSITIVE),
        ("max(abs(x0), 0.5)", Sign.POSITIVE),
        ("exp(x0) / abs(x1)", Sign.NONNEG),
        ("exp(x0) - 1", Sign.ANY),
        ("-exp(x0)", Sign.ANY),
        ("x0 ** 3", Sign.ANY),
    ):
        assert sign_of(parsed(text), {}) is sign, text
