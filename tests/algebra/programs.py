"""Cascades by name, as text, for the tests of this room."""

from __future__ import annotations

from attngen.lang.desugar import desugar
from attngen.lang.parse import parse_program
from attngen.lang.program import Program

SCORE = "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\n"
AVERAGE = "O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])\n"
MAX = "M[q] = max[k](S[q, k])\n"
SOFTMAX = MAX + "E[q, k] = exp(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\n"

# name -> (text, passes as written)
FOLDED: dict[str, tuple[str, int]] = {
    "softmax": (SCORE + SOFTMAX + AVERAGE + "LSE[q] = M[q] + log(Z[q])\nreturn O", 3),
    "softmax_lse": (SCORE + SOFTMAX + AVERAGE + "LSE[q] = M[q] + log(Z[q])\nreturn O, LSE", 3),
    "softmax_named_weights": (
        SCORE + SOFTMAX + "P[q, k] = E[q, k] / Z[q]\nO[q, e] = sum[k](P[q, k] * V[k, e])\n"
        "R[q] = max[k](P[q, k])\nreturn O, R",
        3,
    ),
    "softmax_divided_last": (
        SCORE + SOFTMAX + "O[q, e] = sum[k](E[q, k] * V[k, e]) / Z[q]\nreturn O",
        2,
    ),
    "softmax_sink": (
        "sink_logit[h]: float\n"
        + SCORE
        + "M[q] = max(max[k](S[q, k]), sink_logit[h])\nE[q, k] = exp(S[q, k] - M[q])\n"
        + "Z[q] = sum[k](E[q, k]) + exp(sink_logit[h] - M[q])\n"
        + AVERAGE
        + "LSE[q] = M[q] + log(Z[q])\nreturn O, LSE",
        3,
    ),
    "softcap": (
        "cap: float = 30.0\nT[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\nS[q, k] = cap * tanh(T[q, k] / cap)\n"
        + SOFTMAX
        + AVERAGE
        + "return O",
        3,
    ),
    "softmin": (
        SCORE
        + "M[q] = min[k](S[q, k])\nE[q, k] = exp(M[q] - S[q, k])\nZ[q] = sum[k](E[q, k])\n"
        + AVERAGE
        + "return O",
        3,
    ),
    "softmax_base2": (
        SCORE + MAX + "E[q, k] = exp2(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\n" + AVERAGE + "return O",
        3,
    ),
    "softmax_temperature": (
        "temperature: float = 2.0\n"
        + SCORE
        + MAX
        + "E[q, k] = exp((S[q, k] - M[q]) / temperature)\nZ[q] = sum[k](E[q, k])\n"
        + AVERAGE
        + "return O",
        3,
    ),
    "logaddexp": (
        SCORE + "L[q] = logaddexp[k](S[q, k])\nO[q, e] = sum[k](exp(S[q, k] - L[q]) * V[k, e])\nreturn O, L",
        2,
    ),
    "running_lse": (
        SCORE
        + SOFTMAX
        + "L[q] = M[q] + log(Z[q])\nO[q, e] = sum[k](exp(S[q, k] - L[q]) * V[k, e])\nreturn O",
        3,
    ),
    "no_max": (SCORE + "E[q, k] = exp(S[q, k])\nZ[q] = sum[k](E[q, k])\n" + AVERAGE + "return O", 2),
    "sigmoid": (SCORE + "O[q, e] = sum[k](sigmoid(S[q, k]) * V[k, e])\nreturn O", 1),
    "relu": (SCORE + "O[q, e] = sum[k](max(S[q, k], 0) * V[k, e])\nreturn O", 1),
    "relu2": (SCORE + "O[q, e] = sum[k](max(S[q, k], 0) ** 2 * V[k, e])\nreturn O", 1),
    "power": (
        SCORE + "E[q, k] = abs(S[q, k]) ** 3\nZ[q] = sum[k](E[q, k])\n" + AVERAGE + "return O",
        2,
    ),
    "power_scaled": (
        SCORE
        + "A[q] = max[k](abs(S[q, k]))\nE[q, k] = (abs(S[q, k]) / A[q]) ** 3\nZ[q] = sum[k](E[q, k])\n"
        + AVERAGE
        + "return O",
        3,
    ),
    "power_scaled_by_sum": (
        SCORE
        + "A[q] = sum[k](S[q, k] * S[q, k])\nO[q, e] = sum[k](abs(S[q, k] / sqrt(A[q])) * V[k, e])\nreturn O",
        2,
    ),
    "quotient_of_absmax": (
        SCORE + "A[q] = max[k](abs(S[q, k]))\nO[q, e] = sum[k](S[q, k] / A[q] * V[k, e])\nreturn O, A",
        2,
    ),
    "l2": (
        SCORE
        + "N[q] = sum[k](S[q, k] * S[q, k])\nO[q, e] = sum[k](S[q, k] / sqrt(N[q]) * V[k, e])\nreturn O",
        2,
    ),
    "retention": (
        SCORE + "N[q] = sum[k](S[q, k])\nO[q, e] = sum[k](S[q, k] / max(abs(N[q]), 1) * V[k, e])\nreturn O",
        2,
    ),
    "two_outputs": (
        SCORE + SOFTMAX + AVERAGE + "U[q, e] = sum[k](sigmoid(S[q, k]) * V[k, e])\nreturn O, U, M",
        3,
    ),
    "shifted_max": (SCORE + "T[q] = sum[k](S[q, k])\nR[q] = max[k](S[q, k] - T[q])\nreturn R", 2),
    "scaled_max": (
        "weight[k]: float\n" + SCORE + MAX + "R[q] = max[k](exp(S[q, k] - M[q]) * abs(weight[k]))\nreturn R",
        2,
    ),
    "log_in_the_exponent": (
        SCORE + SOFTMAX + "O[q, e] = sum[k](exp(S[q, k] - M[q] - log(Z[q])) * V[k, e])\nreturn O",
        3,
    ),
    "times_an_extreme": (SCORE + MAX + "O[q, e] = sum[k](S[q, k] * M[q] * V[k, e])\nreturn O", 2),
    "minus_an_extreme": (SCORE + MAX + "R[q] = max[k](S[q, k] - M[q])\nreturn R", 2),
    "minimum_over_extreme": (
        SCORE + "A[q] = min[k](abs(S[q, k]))\nR[q] = min[k](S[q, k] / max(A[q], 0.5))\nreturn R",
        2,
    ),
    "split_exponential": (SCORE + MAX + "O[q, e] = sum[k](exp(S[q, k]) * exp(-M[q]) * V[k, e])\nreturn O", 2),
    "key_norms": (
        SCORE
        + "N[k] = sum[d](K[k, d] * K[k, d])\nO[q, e] = sum[k](sigmoid(S[q, k] - N[k]) * V[k, e])\nreturn O",
        1,
    ),
    "query_norms": (
        SCORE
        + "N[q] = sum[d](Q[q, d] * Q[q, d])\nO[q, e] = sum[k](sigmoid(S[q, k] - N[q]) * V[k, e])\nreturn O",
        1,
    ),
    "weighted_values": (
        SCORE + SOFTMAX + "W[q, k, e] = E[q, k] / Z[q] * V[k, e]\nO[q, e] = sum[k](W[q, k, e])\nreturn O",
        3,
    ),
    "outside_its_domain": (
        "level[h]: float\n" + SCORE + MAX + "R[q] = M[q] + log(-abs(level[h]))\nreturn R",
        1,
    ),
    "mean_value": (
        "weight[k]: float\nO[q, e] = sum[k](weight[k] * V[k, e]) / sum[k](weight[k] ** 2)\nreturn O",
        1,
    ),
}

# name -> (text, words that the reason must hold, passes after rewriting)
REFUSED: dict[str, tuple[str, tuple[str, ...], int]] = {
    "row_temperature": (
        SCORE
        + MAX
        + "T[q] = sum[k](S[q, k] * S[q, k])\nE[q, k] = exp((S[q, k] - M[q]) / T[q])\nZ[q] = sum[k](E[q, k])\n"
        + AVERAGE
        + "return O",
        ("sum[k](E[q, k])", "M and T", "exp()"),
        2,
    ),
    "sparsemax_like": (
        SCORE + "T[q] = sum[k](S[q, k])\nO[q, e] = sum[k](max(S[q, k] - T[q], 0) * V[k, e])\nreturn O",
        ("cannot follow T", "max()", "pass 2"),
        2,
    ),
    "quantise": (
        SCORE + "A[q] = max[k](abs(S[q, k]))\nO[q, e] = sum[k](round(S[q, k] / A[q]) * V[k, e])\nreturn O",
        ("cannot follow A", "round()", "pass 2"),
        2,
    ),
    "shifted_sigmoid": (
        SCORE + MAX + "O[q, e] = sum[k](sigmoid(S[q, k] - M[q]) * V[k, e])\nreturn O",
        ("cannot follow M", "sigmoid()"),
        2,
    ),
    "gaussian": (
        SCORE + "T[q] = sum[k](S[q, k])\nO[q, e] = sum[k](exp(-(S[q, k] - T[q]) ** 2) * V[k, e])\nreturn O",
        ("cannot follow T", "exp()"),
        2,
    ),
    "fourth_moment": (
        SCORE + "T[q] = sum[k](S[q, k])\nW[q] = sum[k]((S[q, k] - T[q]) ** 4)\nreturn W",
        ("cannot follow T", "separable rank 5", "no 4 functions or fewer"),
        2,
    ),
    "unsafe_spread": (
        SCORE
        + "N[q] = sum[k](1.0)\nmu[q] = sum[k](S[q, k]) / N[q]\n"
        + "W[q] = sum[k]((S[q, k] - mu[q]) ** 2)\n"
        + "G[q] = sum[k](((S[q, k] - mu[q]) / sqrt(W[q])) ** 3)\nreturn G",
        ("sqrt(W[q]) may be 0",),
        2,
    ),
    "argmin_by_sign": (
        SCORE + MAX + "I[q] = argmax[k](M[q] - S[q, k])\nreturn I",
        ("no increasing map takes M out of argmax",),
        2,
    ),
    "fixed_slot": (
        SCORE + "R[q] = topk[k](S[q, k], 0)\nreturn R",
        ("the slot of topk has to be a rank of R",),
        1,
    ),
    "selected_values": (
        SCORE + "I[q, e] = argmax[k](S[q, k] * V[k, e])\nreturn I",
        ("argmax keeps a list a row, not one for each of q, e",),
        1,
    ),
    "other_row": (
        SCORE + "M[q] = max[k](S[q, k])\nD[q] = M[q] - M[q - 1]\nreturn D",
        ("reads the value of another row",),
        1,
    ),
    "column_statistic": (
        SCORE + SOFTMAX + AVERAGE + "C[q, e] = sum[k](E[q, k] * S[q, k] * (V[k, e] - O[q, e]))\nreturn C",
        ("O is a statistic of each column",),
        2,
    ),
    "column_sum": (SCORE + "C[k] = sum[q](S[q, k])\nreturn C", ("combines query rows",), 1),
    "unsafe_zero": (
        SCORE
        + "A[q] = max[k](abs(S[q, k]))\nO[q, e] = sum[k](((S[q, k] + 1) / A[q]) ** 3 * V[k, e])\nreturn O",
        ("A[q] may be 0", "pass 2 of 2"),
        2,
    ),
}


def program(text: str) -> Program:
    """The linked and desugared program of a text that holds its whole cascade."""
    return desugar(parse_program(text))
