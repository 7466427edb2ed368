"""Cascades that are more than one softmax: what they compute, and the tensors they read, for any extents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tests.oracle import Shape

Tensors = dict[str, torch.Tensor]

SCORE = "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\n"
WEIGHTS = (
    SCORE
    + "M[q] = max[k](S[q, k])\nE[q, k] = exp(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\nA[q, k] = E[q, k] / Z[q]\n"
)
OUTPUT = "O[q, e] = sum[k](A[q, k] * V[k, e])\n"


def _nothing(_shape: Shape, _g: torch.Generator) -> Tensors:
    return {}


@dataclass(frozen=True)
class Cascade:
    """A text without a mask, and what fills its tensors."""

    name: str
    text: str
    tensors: Callable[[Shape, torch.Generator], Tensors] = _nothing
    values: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _teacher(s: Shape, g: torch.Generator) -> Tensors:
    return {
        "Qt": torch.randn(s.b, s.h, s.n_q, 12, generator=g),
        "Kt": torch.randn(s.b, s.hkv, s.n_k, 12, generator=g),
    }


def _memory(s: Shape, g: torch.Generator) -> Tensors:
    return {
        "mem_k": torch.randn(s.hkv, 5, s.d, generator=g),
        "mem_v": torch.randn(s.hkv, 5, s.e, generator=g),
    }


def _spans(s: Shape, g: torch.Generator) -> Tensors:
    return {"span": torch.randint(-1, 6, (s.b, s.n_k), generator=g)}


def _graph(s: Shape, g: torch.Generator) -> Tensors:
    return {
        "a": torch.randn(s.b, s.h, s.n_q, generator=g),
        "c": torch.randn(s.b, s.h, s.n_k, generator=g),
    }


CASCADES = (
    Cascade("entropy", WEIGHTS + OUTPUT + "H[q] = -sum[k](A[q, k] * log(A[q, k]))\nreturn O, H"),
    Cascade(
        "two_values",
        "U[b, g, k, f]: float\n"
        + WEIGHTS
        + OUTPUT
        + "W[q, f] = sum[k](A[q, k] * U[b, g, k, f])\nreturn O, W",
        lambda s, g: {"U": torch.randn(s.b, s.hkv, s.n_k, 7, generator=g)},
    ),
    Cascade(
        "computed_values",
        "U[b, g, k, f]: float\n"
        + WEIGHTS
        + OUTPUT
        + "W[q, f] = sum[k](A[q, k] * max(U[b, g, k, f], 0.0))\nreturn O, W",
        lambda s, g: {"U": torch.randn(s.b, s.hkv, s.n_k, 7, generator=g)},
    ),
    Cascade(
        "divergence",
        "Qt[b, h, q, i]: float\nKt[b, g, k, i]: float\n"
        + WEIGHTS
        + "T[q, k] = sum[i](Qt[b, h, q, i] * Kt[b, g, k, i]) * 0.3\n"
        "Mt[q] = max[k](T[q, k])\nEt[q, k] = exp(T[q, k] - Mt[q])\nZt[q] = sum[k](Et[q, k])\n"
        "B[q, k] = Et[q, k] / Zt[q]\nD[q] = sum[k](B[q, k] * (log(B[q, k]) - log(A[q, k])))\nreturn D",
        _teacher,
    ),
    Cascade(
        "classes",
        "image[b, k]: bool\n"
        + WEIGHTS
        + OUTPUT
        + "I[q, e] = sum[k](where(image[b, k], A[q, k], 0.0) * V[k, e])\n"
        "T[q] = sum[k](where(image[b, k], 0.0, A[q, k]))\nreturn O, I, T",
        lambda s, g: {"image": torch.rand(s.b, s.n_k, generator=g) < 0.4},
    ),
    Cascade(
        "memory",
        "mem_k[g, j, d]: float\nmem_v[g, j, e]: float\n"
        + SCORE
        + "T[q, j] = sum[d](Q[q, d] * mem_k[g, j, d]) * scale\n"
        "M[q] = max(max[k](S[q, k]), max[j](T[q, j]))\nE[q, k] = exp(S[q, k] - M[q])\n"
        "F[q, j] = exp(T[q, j] - M[q])\nZ[q] = sum[k](E[q, k]) + sum[j](F[q, j])\n"
        "O[q, e] = (sum[k](E[q, k] * V[k, e]) + sum[j](F[q, j] * mem_v[g, j, e])) / Z[q]\nreturn O",
        _memory,
    ),
    Cascade(
        "separable",
        "a[b, h, q]: float\nc[b, h, k]: float\nT[q, k] = a[b, h, q] + c[b, h, k]\n"
        "S[q, k] = where(T[q, k] > 0.0, T[q, k], 0.2 * T[q, k])\nM[q] = max[k](S[q, k])\n"
        "E[q, k] = exp(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\nO[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])\nreturn O",
        _graph,
    ),
    Cascade(
        "additive",
        "x[i, d]: float\ny[i, d]: float\nw[i]: float\n"
        "X[q, i] = sum[d](x[i, d] * Q[q, d])\nY[k, i] = sum[d](y[i, d] * K[k, d])\n"
        "S[q, k] = sum[i](w[i] * tanh(X[q, i] + Y[k, i]))\nM[q] = max[k](S[q, k])\nE[q, k] = exp(S[q, k] - M[q])\n"
        "Z[q] = sum[k](E[q, k])\nO[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])\nreturn O",
        lambda s, g: {
            "x": torch.randn(5, s.d, generator=g) / s.d**0.5,
            "y": torch.randn(5, s.d, generator=g) / s.d**0.5,
            "w": torch.randn(5, generator=g),
        },
    ),
    Cascade(
        "spans",
        "j: rank = 6\nspan[b, k]: int\n"
        + WEIGHTS
        + OUTPUT
        + "m[q, j] = sum[k](where(span[b, k] == j, A[q, k], 0.0))\nreturn O, m",
        _spans,
    ),
    Cascade(
        "distances",
        "j: rank = 9\n" + WEIGHTS + "m[q, j] = sum[k](where(abs(pos(q) - k) // 16 == j, A[q, k], 0.0))\n"
        "P[j] = sum[q](m[q, j]) / max(n_q, 1)\nreturn m, P",
    ),
    Cascade(
        "selection",
        "j: rank = 4\n"
        + WEIGHTS
        + OUTPUT
        + "T[q, j] = topk[k](S[q, k], j)\nI[q, j] = argtopk[k](S[q, k], j)\n"
        "best[q] = argmax[k](S[q, k])\nreturn O, T, I, best",
    ),
    Cascade("columns", WEIGHTS + OUTPUT + "C[k] = sum[q](A[q, k])\nX[k] = max[q](A[q, k])\nreturn O, C, X"),
    Cascade(
        "gradient_of_values",
        "dO[b, h, q, e]: float\n" + WEIGHTS + "dV[k, e] = sum[q](A[q, k] * dO[b, h, q, e])\nreturn dV",
        lambda s, g: {"dO": torch.randn(s.b, s.h, s.n_q, s.e, generator=g)},
    ),
    Cascade(
        "blocks",
        "i: rank = (n_q + 31) // 32\nj: rank = (n_k + 31) // 32\n"
        + WEIGHTS
        + "B[i, j] = max[q, k](where((q // 32 == i) & (k // 32 == j), A[q, k], 0.0))\n"
        "L[q, j] = sum[k](where(k // 32 == j, A[q, k], 0.0))\nreturn B, L",
    ),
    Cascade("weights", WEIGHTS + "return A, S"),
    Cascade("head_mean", WEIGHTS + "B[q, k] = sum[h](A[q, k]) / n_h\nX[k] = max[q](B[q, k])\nreturn B, X"),
    Cascade(
        "above_the_mean",
        SCORE + "N[q] = sum[k](1.0)\nT[q] = sum[k](S[q, k]) / max(N[q], 1.0)\n"
        "V2[q] = sum[k]((S[q, k] - T[q]) ** 2) / max(N[q], 1.0)\n"
        "O[q, e] = sum[k](max(S[q, k] - T[q], 0.0) * V[k, e])\nreturn O, T, V2",
    ),
    Cascade(
        "quantised",
        "step: float = 0.125\n" + WEIGHTS + "X[q] = max[k](A[q, k])\n"
        "O[q, e] = sum[k](round(A[q, k] / X[q] / step) * step * X[q] * V[k, e])\nreturn O",
    ),
    Cascade(
        "online",
        SCORE + "M[q, 0] = -inf\nM[q, k + 1] = max(M[q, k], S[q, k])\n"
        "R[q, k] = exp(M[q, k] - finite(M[q, k + 1]))\nE[q, k] = exp(S[q, k] - M[q, k + 1])\n"
        "Z[q, 0] = 0.0\nZ[q, k + 1] = Z[q, k] * R[q, k] + E[q, k]\n"
        "H[q, 0] = 0.0\nH[q, k + 1] = (H[q, k] + Z[q, k] * (finite(M[q, k]) - M[q, k + 1])) * R[q, k]"
        " + (S[q, k] - M[q, k + 1]) * E[q, k]\n"
        "N[q, e, 0] = 0.0\nN[q, e, k + 1] = N[q, e, k] * R[q, k] + E[q, k] * V[k, e]\n"
        "O[q, e] = where(Z[q, n_k] > 0.0, N[q, e, n_k] / Z[q, n_k], 0.0)\n"
        "L[q] = where(Z[q, n_k] > 0.0, log(Z[q, n_k]) - H[q, n_k] / Z[q, n_k], 0.0)\nreturn O, L",
    ),
    Cascade(
        "tiles",
        "sink[h]: float\nm: rank = (n_k + 31) // 32\n"
        + SCORE
        + "LM[q, m] = max[k](where(k // 32 == m, S[q, k], -inf))\n"
        "M[q, 0] = sink[h]\nM[q, m + 1] = max(M[q, m], LM[q, m])\n"
        "E[q, k] = exp(S[q, k] - M[q, k // 32 + 1])\nR[q, m] = exp(M[q, m] - M[q, m + 1])\n"
        "Z[q, 0] = 1.0\nZ[q, m + 1] = Z[q, m] * R[q, m] + sum[k](where(k // 32 == m, E[q, k], 0.0))\n"
        "N[q, e, 0] = 0.0\n"
        "N[q, e, m + 1] = N[q, e, m] * R[q, m] + sum[k](where(k // 32 == m, E[q, k] * V[k, e], 0.0))\n"
        "LD[q, m] = sum[k](where(k // 32 == m, exp(S[q, k] - LM[q, m]), 0.0))\nG[q] = max[m](LM[q, m])\n"
        "T[q] = sum[m](LD[q, m] * exp(LM[q, m] - finite(G[q])))\n"
        "O[q, e] = N[q, e, n_m] / Z[q, n_m]\nreturn O, T",
        lambda s, g: {"sink": torch.randn(s.h, generator=g)},
    ),
    Cascade(
        "follower",
        "lse[b, h, q]: float\n"
        + SCORE
        + "A[q, k] = exp(S[q, k] - lse[b, h, q])\nO[q, e] = sum[k](A[q, k] * V[k, e])\nreturn O",
        lambda s, g: {"lse": 3.0 + torch.rand(s.b, s.h, s.n_q, generator=g)},
    ),
    Cascade(
        "linear",
        "W[q, k] = sum[d](max(Q[q, d], 0.0) * max(K[k, d], 0.0))\nZ[q] = sum[k](W[q, k])\n"
        "O[q, e] = sum[k](W[q, k] * V[k, e]) / max(Z[q], 0.01)\nreturn O, Z",
    ),
    Cascade(
        "retention",
        "gamma[h]: float\nW[q, k] = sum[d](Q[q, d] * K[k, d]) * scale * gamma[h] ** (pos(q) - k)\n"
        "O[q, e] = sum[k](W[q, k] * V[k, e])\nreturn O",
        lambda s, g: {"gamma": 0.8 + 0.2 * torch.rand(s.h, generator=g)},
    ),
    Cascade(
        "fixed_query",
        "w[h, d]: float\nS[k] = sum[d](w[h, d] * K[k, d]) * scale\nM[q] = max[k](S[k])\nE[q, k] = exp(S[k] - M[q])\n"
        "Z[q] = sum[k](E[q, k])\nO[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])\nL[q] = M[q] + log(Z[q])\nreturn O, L",
        lambda s, g: {"w": torch.randn(s.h, s.d, generator=g)},
    ),
    Cascade(
        "moving_average",
        "c: rank = 4\nP[q, d] = Q[q, d]\nX[q, d] = sum[c](where(q >= c, P[q - c, d], 0.0)) / 4.0\n"
        "S[q, k] = sum[d](X[q, d] * K[k, d]) * scale\n"
        "M[q] = max[k](S[q, k])\nE[q, k] = exp(S[q, k] - M[q])\nZ[q] = sum[k](E[q, k])\n"
        "O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])\nG[q, e] = O[q, e] * sigmoid(Z[q])\nreturn G",
    ),
)


def named(name: str) -> Cascade:
    """The cascade of a name."""
    return next(c for c in CASCADES if c.name == name)
