"""Dividing a cascade into sweeps: what waits for what, and why."""

from __future__ import annotations

import pytest

from attngen.algebra.derive import derive
from attngen.algebra.pairs import may_be_one
from attngen.algebra.steps import Between, Carry, Sweep
from attngen.algebra.swap import swapped
from attngen.algebra.sweeps import plan_sweeps
from attngen.assemble import finish_program
from attngen.errors import DerivationError
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr, print_program

SCORE = "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\n"
WEIGHTS = (
    SCORE
    + "M[q] = max[k](S[q, k])\nE[q, k] = exp(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\nA[q, k] = E[q, k] / Z[q]\n"
)
OUTPUT = "O[q, e] = sum[k](A[q, k] * V[k, e])\n"


def program(text: str):
    return finish_program(parse_program(text, name="p", file="p"))


def sweeps_of(text: str, **options: bool):
    return plan_sweeps(program(text), derive, **options)


def outline(text: str, **options: bool) -> list[str]:
    """Each step as its kind and what it leaves."""
    out: list[str] = []
    for step in sweeps_of(text, **options).steps:
        if isinstance(step, Sweep):
            out.append(f"{step.rows}: {', '.join(step.program.outputs)}")
        elif isinstance(step, Between):
            out.append(f"-: {', '.join(step.targets)}")
        else:
            out.append(f"carry: {step.target}")
    return out


def test_softmax_with_statistics_is_one_sweep():
    assert outline(WEIGHTS + OUTPUT + "H[q] = -sum[k](A[q, k] * log(A[q, k]))\nreturn O, H") == ["q: O, H"]


def test_column_sums_replay_the_weights_with_the_keys_as_rows():
    text = WEIGHTS + OUTPUT + "C[k] = sum[q](A[q, k])\nreturn O, C"
    assert outline(text) == ["q: M, Z, O", "-: Z_part", "k: C"]
    last = sweeps_of(text).steps[-1]
    assert isinstance(last, Sweep)
    body = last.program.einsum("A")
    assert body is not None
    assert print_expr(body.body) == "E[k, q] * Z_part[b, h, k]"
    assert [t.name for t in last.program.tensors] == ["M", "Z_part"]


def test_the_mask_changes_places_with_the_rest():
    text = "mask = k <= pos(q)\n" + WEIGHTS + "C[k] = sum[q](A[q, k])\nreturn C"
    last = sweeps_of(text).steps[-1]
    assert isinstance(last, Sweep)
    assert last.program.mask is not None
    assert print_expr(last.program.mask) == "q <= k + (n_q - n_k)"
    assert print_program(swapped(swapped(last.program))) == print_program(last.program)


def test_what_cannot_follow_a_mean_waits_for_it_and_says_why():
    text = (
        SCORE + "N[q] = sum[k](1.0)\nT[q] = sum[k](S[q, k]) / N[q]\n"
        "O[q, e] = sum[k](max(S[q, k] - T[q], 0.0) * V[k, e])\nreturn O"
    )
    assert outline(text) == ["q: T", "q: O"]
    refusals = sweeps_of(text).refusals
    assert [r.target for r in refusals] == ["O"]
    assert "cannot follow T" in refusals[0].reason


def test_without_following_statistics_every_one_is_a_pass():
    text = WEIGHTS + OUTPUT + "return O"

    def waiting(p):
        return derive(p, follow_statistics=False)

    sweeps = [s for s in plan_sweeps(program(text), waiting).steps if isinstance(s, Sweep)]
    assert [s.program.outputs for s in sweeps] == [("M",), ("O",)]
    assert not any(state.rescale for s in sweeps for state in waiting(s.program).states)


def test_keys_of_a_second_source_share_the_softmax():
    text = (
        "mem_k[g, j, d]: float\nmem_v[g, j, e]: float\n"
        + SCORE
        + "T[q, j] = sum[d](Q[q, d] * mem_k[g, j, d]) * scale\n"
        "M[q] = max(max[k](S[q, k]), max[j](T[q, j]))\nE[q, k] = exp(S[q, k] - M[q])\n"
        "F[q, j] = exp(T[q, j] - M[q])\nZ[q] = sum[k](E[q, k]) + sum[j](F[q, j])\n"
        "O[q, e] = (sum[k](E[q, k] * V[k, e]) + sum[j](F[q, j] * mem_v[g, j, e])) / Z[q]\nreturn O"
    )
    steps = outline(text)
    assert [s for s in steps if not s.startswith("-")] == ["q: M, Z_0, O_0"]
    assert steps[-1] == "-: Z_1, Z, O_1, O"


def test_a_mean_over_heads_stores_the_pairs_it_needs():
    text = WEIGHTS + "B[q, k] = sum[h](A[q, k]) / n_h\nC[k] = sum[q](B[q, k])\nreturn C"
    assert outline(text) == ["q: M, Z", "-: Z_part", "pair: A", "-: B_0", "k: C"]


def test_blocks_of_keys_wait_for_final_weights():
    text = (
        "j: rank = (n_k + 63) // 64\n"
        + WEIGHTS
        + "R[q, j] = max[k](where(k // 64 == j, A[q, k], -inf))\nreturn R"
    )
    assert outline(text) == ["q: M, Z", "-: Z_part", "q: R"]


def test_linear_attention_is_reassociated_where_asked():
    text = (
        "W[q, k] = sum[d](max(Q[q, d], 0.0) * max(K[k, d], 0.0))\n"
        "O[q, e] = sum[k](W[q, k] * V[k, e])\nreturn O"
    )
    assert outline(text) == ["q: O"]
    assert outline(text, reassociate=True) == ["-: O_state, O"]
    causal = outline("mask = k <= pos(q)\n" + text, reassociate=True)
    assert [s.split(":")[0] for s in causal] == ["-", "carry", "q", "-"]


@pytest.mark.parametrize(
    ("mask", "factor"),
    [
        ("(k <= pos(q)) & (k > 3)", "1.0"),  # keys are dropped at the front: no prefix
        ("k <= pos(q)", "(pos(q) - k)"),  # a factor of the pair that is no product along the axis
        ("k <= pos(q)", "exp(-(pos(q) - k) * k * 0.01)"),
    ],
)
def test_what_is_no_product_along_a_prefix_stays_quadratic(mask, factor):
    text = (
        f"mask = {mask}\nW[q, k] = sum[d](Q[q, d] * K[k, d]) * {factor}\n"
        "O[q, e] = sum[k](W[q, k] * V[k, e])\nreturn O"
    )
    steps = sweeps_of(text, reassociate=True).steps
    assert not any(isinstance(s, Carry) for s in steps)


def test_a_nonlinearity_between_the_contractions_is_not_reassociated():
    text = "W[q, k] = max(sum[d](Q[q, d] * K[k, d]), 0.0)\nO[q, e] = sum[k](W[q, k] * V[k, e])\nreturn O"
    assert outline(text, reassociate=True) == ["q: O"]


@pytest.mark.parametrize(
    "tail",
    [
        "C[k] = sum[q](A[q, k])\nreturn C",
        "B[q, k] = sum[h](A[q, k])\nreturn B",
        "X[q] = M[q - 1]\nreturn X",
        "return A",
    ],
)
def test_one_fold_is_for_rows_of_one_head(tail):
    assert not may_be_one(program(WEIGHTS + tail))


def test_what_no_pass_computes_is_an_error_with_its_place():
    text = SCORE + "X[q] = topk[k](S[q, k], 0)\nreturn X"
    with pytest.raises(DerivationError, match="slot") as caught:
        sweeps_of(text)
    assert caught.value.loc is not None
