"""What outputs beside O cost on a GPU, and what forms of a cascade gain: causal, bf16, head dim 128.

    python benchmarks/gpu_outputs.py --out benchmarks/results/NAME.json

Candidates take turns, round by round; a figure is the median over the rounds of the time between two CUDA events, and a
ratio the median of ratios within a round. `--device cpu --n 256 --rounds 1` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attngen.api import Attention
from attngen.bench.timing import machine
from attngen.lang.parse import parse_program

D = 128
WEIGHTS = """mask = k <= pos(q)
S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
A[q, k] = E[q, k] / Z[q]
O[q, e] = sum[k](A[q, k] * V[k, e])
"""
OUTPUTS = {
    "plain": WEIGHTS + "return O",
    "entropy": WEIGHTS + "H[q] = -sum[k](A[q, k] * log(A[q, k]))\nreturn O, H",
    "span_mass": "j: rank = 8\nspan[k]: int\n"
    + WEIGHTS
    + "m[q, j] = sum[k](where(span[k] == j, A[q, k], 0.0))\nreturn O, m",
    "divergence": "Qt[b, h, q, d]: float\nKt[b, g, k, d]: float\n"
    + WEIGHTS
    + "T[q, k] = sum[d](Qt[b, h, q, d] * Kt[b, g, k, d]) * scale\nMt[q] = max[k](T[q, k])\n"
    "Et[q, k] = exp(T[q, k] - Mt[q])\nZt[q] = sum[k](Et[q, k])\nB[q, k] = Et[q, k] / Zt[q]\n"
    "KL[q] = sum[k](B[q, k] * (log(B[q, k]) - log(A[q, k])))\nreturn O, KL",
    "block_max": "j: rank = (n_k + 63) // 64\n"
    + WEIGHTS
    + "R[q, j] = max[k](where(k // 64 == j, A[q, k], 0.0))\nreturn O, R",
    "column_sums": WEIGHTS + "C[k] = sum[q](A[q, k])\nreturn O, C",
}
LINEAR = """mask = k <= pos(q)
gamma[h]: float
W[q, k] = sum[d](Q[q, d] * K[k, d]) * scale * gamma[h] ** (pos(q) - k)
O[q, e] = sum[k](W[q, k] * V[k, e])
return O
"""


def spec(name: str, text: str, **options: Any) -> Attention:
    """The specification of a text."""
    return Attention.from_program(parse_program(text, name=name, file=name), **options)


def timed(fn: Callable[[], Any], device: str) -> float:
    """Milliseconds of one call."""
    if device == "cpu":
        begin = time.perf_counter()
        fn()
        return (time.perf_counter() - begin) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    fn()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def measure(candidates: dict[str, Callable[[], Any]], base: str, rounds: int, device: str) -> dict[str, Any]:
    """Medians of alternating rounds, and of ratios to `base` within a round; a failure is recorded."""
    times: dict[str, list[float]] = {}
    errors: dict[str, str] = {}
    for name, fn in candidates.items():
        try:
            fn()
            fn()
            times[name] = []
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"[:300]
    for _ in range(rounds):
        for name, seen in times.items():
            seen.append(timed(candidates[name], device))
    pairs = {n: [a / b for a, b in zip(t, times[base], strict=True)] for n, t in times.items()}
    return {
        "ms": {n: round(statistics.median(t), 4) for n, t in times.items()},
        f"ratio_to_{base}": {n: round(statistics.median(r), 3) for n, r in pairs.items()},
        "errors": errors,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    n, h = args.n, args.heads
    torch.manual_seed(0)
    q, k, v, qt, kt = (torch.randn(1, h, n, D, device=args.device, dtype=dtype) for _ in range(5))
    extra = {
        "span_mass": {"span": torch.arange(n, device=args.device) * 8 // n},
        "divergence": {"Qt": qt, "Kt": kt},
    }
    results: dict[str, Any] = {}

    def candidate(s: Attention, name: str, *inputs: torch.Tensor, **tensors: Any) -> Callable[[], Any]:
        given = extra.get(name, {}) | tensors
        return lambda: s(*inputs, **given)

    outputs = {name: candidate(spec(name, text), name, q, k, v) for name, text in OUTPUTS.items()}
    results["outputs"] = {"n": n, "heads": h} | measure(outputs, "plain", args.rounds, args.device)
    gamma = {"gamma": torch.linspace(0.9, 1.0, h, device=args.device)}
    linear = {
        algorithm: candidate(spec("retention", LINEAR, algorithm=algorithm), "", q, k, v, **gamma)
        for algorithm in ("one_pass", "reassociated")
    }
    results["retention"] = {"n": n, "heads": h} | measure(linear, "one_pass", args.rounds, args.device)
    one = q[:, :, -1:]
    decode = {
        algorithm: candidate(
            spec("softmax", OUTPUTS["plain"], algorithm=algorithm), "", one[:, :4], k[:, :4], v[:, :4]
        )
        for algorithm in ("one_pass", "local_then_merge")
    }
    results["one_query_4_heads"] = {"n": n} | measure(decode, "one_pass", args.rounds, args.device)
    print(json.dumps(results, indent=2))
    if args.out is not None:
        args.out.write_text(
            json.dumps({"machine": machine(), "results": results}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
