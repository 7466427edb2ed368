"""Cascades whose sums follow several statistics, select keys, or read scores of their own."""

from __future__ import annotations

from .programs import AVERAGE, MAX, SCORE, SOFTMAX

WEIGHTS = SOFTMAX + "P[q, k] = E[q, k] / Z[q]\n"
MEAN = "N[q] = sum[k](1.0)\nmu[q] = sum[k](S[q, k]) / N[q]\n"
TWO_SCORES = (
    "Qt[b, h, q, d]: float\nKt[b, h, k, d]: float\n"
    + SCORE
    + "MS[q] = max[k](S[q, k])\nES[q, k] = exp(S[q, k] - MS[q])\nZS[q] = sum[k](ES[q, k])\n"
    "PS[q, k] = ES[q, k] / ZS[q]\n"
    "T[q, k] = sum[d](Qt[b, h, q, d] * Kt[b, h, k, d]) * scale\n"
    "MT[q] = max[k](T[q, k])\nET[q, k] = exp(T[q, k] - MT[q])\nZT[q] = sum[k](ET[q, k])\n"
    "PT[q, k] = ET[q, k] / ZT[q]\n"
)

# name -> (text, passes as written)
FOLLOWERS: dict[str, tuple[str, int]] = {
    "entropy": (SCORE + WEIGHTS + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\nreturn H", 3),
    "entropy_base2": (
        SCORE
        + MAX
        + "E[q, k] = exp2(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\nP[q, k] = E[q, k] / Z[q]\n"
        + "H[q] = -sum[k](P[q, k] * log2(P[q, k]))\nreturn H",
        3,
    ),
    "entropy_guarded": (
        SCORE + WEIGHTS + "H[q] = -sum[k](where(P[q, k] > 0, P[q, k] * log(P[q, k]), 0.0))\nreturn H",
        3,
    ),
    "entropy_from_lse": (
        SCORE
        + SOFTMAX
        + "LSE[q] = M[q] + log(Z[q])\nH[q] = LSE[q] - sum[k](E[q, k] * S[q, k]) / Z[q]\nreturn H",
        2,
    ),
    "entropy_no_max": (
        SCORE
        + "E[q, k] = exp(S[q, k])\nZ[q] = sum[k](E[q, k])\nP[q, k] = E[q, k] / Z[q]\n"
        + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\nreturn H",
        2,
    ),
    "entropy_with_output": (
        SCORE + WEIGHTS + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\n" + AVERAGE + "return O, H",
        3,
    ),
    "entropy_sink": (
        "sink_logit[h]: float\n"
        + SCORE
        + "M[q] = max(max[k](S[q, k]), sink_logit[h])\nE[q, k] = exp(S[q, k] - M[q])\n"
        + "Z[q] = sum[k](E[q, k]) + exp(sink_logit[h] - M[q])\nP[q, k] = E[q, k] / Z[q]\n"
        + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\nreturn H",
        3,
    ),
    "shifted_moment": (
        SCORE + SOFTMAX + "T[q] = sum[k]((S[q, k] - M[q]) * E[q, k])\nreturn T, Z",
        2,
    ),
    "shifted_moment_alone": (
        SCORE + MAX + "T[q] = sum[k]((S[q, k] - M[q]) * exp(S[q, k] - M[q]))\nreturn T",
        2,
    ),
    "weighted_moment": (
        SCORE + SOFTMAX + "T[q, e] = sum[k]((S[q, k] - M[q]) * E[q, k] * V[k, e]) / Z[q]\nreturn T",
        2,
    ),
    "weighted_covariance": (
        "weight[k]: float\n"
        + SCORE
        + SOFTMAX
        + "m[q] = sum[k](E[q, k] * S[q, k]) / Z[q]\nw[q] = sum[k](E[q, k] * weight[k]) / Z[q]\n"
        + "C[q] = sum[k](E[q, k] * (S[q, k] - m[q]) * (weight[k] - w[q])) / Z[q]\nreturn C",
        3,
    ),
    "weighted_variance": (
        SCORE
        + SOFTMAX
        + "m[q] = sum[k](E[q, k] * S[q, k]) / Z[q]\n"
        + "W[q] = sum[k](E[q, k] * (S[q, k] - m[q]) ** 2) / Z[q]\nreturn W",
        3,
    ),
    "divergence": (TWO_SCORES + "D[q] = sum[k](PT[q, k] * (log(PT[q, k]) - log(PS[q, k])))\nreturn D", 3),
    "divergence_of_quotient": (
        TWO_SCORES + "D[q] = sum[k](PT[q, k] * log(PT[q, k] / PS[q, k]))\nreturn D",
        3,
    ),
    "cross_entropy": (TWO_SCORES + "C[q] = -sum[k](PT[q, k] * log(PS[q, k]))\nreturn C", 3),
    "variance": (SCORE + MEAN + "W[q] = sum[k]((S[q, k] - mu[q]) ** 2) / N[q]\nreturn W", 2),
    "variance_as_product": (
        SCORE + MEAN + "W[q] = sum[k]((S[q, k] - mu[q]) * (S[q, k] - mu[q])) / N[q]\nreturn W, mu",
        2,
    ),
    "around_a_sum": (SCORE + "T[q] = sum[k](S[q, k])\nW[q] = sum[k]((S[q, k] - T[q]) ** 2)\nreturn W", 2),
    "third_moment": (SCORE + MEAN + "G[q] = sum[k]((S[q, k] - mu[q]) ** 3) / N[q]\nreturn G", 2),
    "skewness_parts": (
        SCORE
        + MEAN
        + "W[q] = sum[k]((S[q, k] - mu[q]) ** 2)\nG[q] = sum[k]((S[q, k] - mu[q]) ** 3)\nreturn W, G",
        2,
    ),
    "covariance": (
        "weight[k]: float\n"
        + SCORE
        + MEAN
        + "nu[q] = sum[k](weight[k]) / N[q]\n"
        + "C[q] = sum[k]((S[q, k] - mu[q]) * (weight[k] - nu[q])) / N[q]\nreturn C",
        2,
    ),
    "cosine": (SCORE + MAX + "O[q, e] = sum[k](cos(S[q, k] - M[q]) * V[k, e])\nreturn O", 2),
    "argmax": (SCORE + "I[q] = argmax[k](S[q, k])\nreturn I", 1),
    "argmax_of_weights": (SCORE + WEIGHTS + "I[q] = argmax[k](P[q, k])\nreturn I, M", 3),
    "top_scores": (
        "j: rank = 3\n"
        + SCORE
        + "R[q, j] = topk[k](S[q, k], j)\nI[q, j] = argtopk[k](S[q, k], j)\nreturn R, I",
        1,
    ),
    "top_keys": ("j: rank = 3\n" + SCORE + WEIGHTS + "I[q, j] = argtopk[k](P[q, k], j)\nreturn I", 3),
    "routing": (
        "j: rank = 3\n"
        + SCORE
        + WEIGHTS
        + "R[q, j] = topk[k](P[q, k], j)\nI[q, j] = argtopk[k](P[q, k], j)\nreturn R, I, M, Z",
        3,
    ),
    "blocks": (
        "span[b, k]: int\nj: rank = 4\n"
        + SCORE
        + WEIGHTS
        + "m[q, j] = sum[k](P[q, k] * where(span[b, k] == j, 1.0, 0.0))\nreturn m",
        3,
    ),
    "log_weights": (SCORE + WEIGHTS + "O[q, e] = sum[k](log(P[q, k]) * V[k, e])\nreturn O", 3),
}
