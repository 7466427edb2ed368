"""Traced masks and scores evaluated densely in float64, and compared with the same function run by torch."""

from __future__ import annotations

import numpy as np
import torch

from attngen.capture import Captured, Mask, Score, mask, score
from attngen.lang.desugar import desugar_expr
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Load, Param, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.parse import parse_program
from attngen.lang.print import print_program
from attngen.lang.program import Program

B, H, N_Q, N_K = 2, 3, 7, 9


def reference(
    captured: Captured, scores: np.ndarray | None = None, *, n_q: int = N_Q, n_k: int = N_K
) -> np.ndarray:
    """The captured expression in float64 over all (b, h, q, k)."""
    index = dict(zip("bhqk", np.ogrid[:B, :H, :n_q, :n_k], strict=True))

    def leaf(node):
        match node:
            case Const(value):
                return value
            case Var(name):
                return index[name]
            case Size(name):
                return {"n_q": n_q, "n_k": n_k}[name]
            case Param(name):
                return captured.values[name]
            case Load("S", ()):
                return scores
            case Load(name, indices):
                tensor = captured.values[name].detach()
                tensor = (tensor.double() if tensor.dtype.is_floating_point else tensor).numpy()
                at = [evaluate(i, leaf, NUMPY_OPS) for i in indices]
                return tensor[tuple(np.clip(i, 0, n - 1) for i, n in zip(at, tensor.shape, strict=True))]
        raise AssertionError(node)

    return np.broadcast_to(evaluate(desugar_expr(captured.expr), leaf, NUMPY_OPS), (B, H, n_q, n_k))


def indices() -> list[torch.Tensor]:
    b, h, q, k = torch.arange(B), torch.arange(H), torch.arange(N_Q), torch.arange(N_K)
    return [b[:, None, None, None], h[:, None, None], q[:, None], k]


def same_as_eager_mask(fn) -> Mask:
    traced = mask(fn)
    expected = torch.as_tensor(fn(*indices())).broadcast_to(B, H, N_Q, N_K).numpy()
    assert expected.dtype == bool
    np.testing.assert_array_equal(reference(traced), expected)
    np.testing.assert_array_equal(torch.as_tensor(traced(*indices())).broadcast_to(B, H, N_Q, N_K), expected)
    round_trip(traced)
    return traced


def same_as_eager_score(fn, tol: float = 1e-12) -> Score:
    traced = score(fn)
    scores = torch.randn(B, H, N_Q, N_K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    expected = torch.as_tensor(fn(scores, *indices())).detach().double().broadcast_to(B, H, N_Q, N_K)
    np.testing.assert_allclose(reference(traced, scores.numpy()), expected.numpy(), rtol=tol, atol=tol)
    eager = traced(scores, *indices())
    np.testing.assert_allclose(
        eager.detach().double().broadcast_to(B, H, N_Q, N_K), expected, rtol=1e-6, atol=1e-6
    )
    round_trip(traced)
    return traced


def round_trip(traced: Captured) -> None:
    """Text of a program with the traced expression parses back to the same expression and declarations."""
    field = {"mask": traced.expr} if isinstance(traced, Mask) else {"mask": None, "score": traced.expr}
    program = Program("p", "", traced.params, traced.tensors, cascade=(), outputs=(), **field)
    again = parse_program(print_program(program))
    assert (again.mask, again.score) == (program.mask, program.score)
    assert (again.params, again.tensors) == (program.params, program.tensors)
