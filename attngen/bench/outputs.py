"""What outputs beside O cost on the CPU: entropy, divergence, span masses, block maxima and sums of columns.

Each program computes causal attention and one thing more; its time is held against O alone, within a round. A
divergence has a second score, so it is also held against two plain calls, the teacher's and the student's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from attngen.api import Attention
from attngen.bench.timing import Fn, Timings, alternate
from attngen.errors import ParameterError
from attngen.lang.parse import parse_program

Tensor = torch.Tensor
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPANS = 8
BLOCK = 64

_MASK = "mask = k <= pos(q)\n"
_WEIGHTS = (
    _MASK
    + """S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
A[q, k] = E[q, k] / Z[q]
O[q, e] = sum[k](A[q, k] * V[k, e])
"""
)
_TEACHER = """T[q, k] = sum[d](q_t[b, h, q, d] * k_t[b, g, k, d]) * scale
Mt[q] = max[k](T[q, k])
Et[q, k] = exp(T[q, k] - Mt[q])
Zt[q] = sum[k](Et[q, k])
KL[q] = sum[k](Et[q, k] * (T[q, k] - S[q, k])) / Zt[q] - Mt[q] - log(Zt[q]) + M[q] + log(Z[q])
"""


@dataclass(frozen=True, slots=True)
class Extra:
    """An output beside O: the program, and what a call may take of the time of O alone, None where no limit is set."""

    text: str
    limit: float | None = None


# The measures of `entropy`, `span_mass`, `attention_kl`, `block_max` and `column_sums` in `ir/`, with O beside them.
EXTRAS: dict[str, Extra] = {
    "entropy": Extra(_WEIGHTS + "H[q] = -sum[k](A[q, k] * log(A[q, k]))\nreturn O, H", 1.25),
    "divergence": Extra(
        f"q_t[b, h, q, d]: float\nk_t[b, g, k, d]: float\n{_WEIGHTS}{_TEACHER}return O, KL", 1.25
    ),
    "span_mass": Extra(_MASK + "cascade = span_mass\n", 1.25),
    "block_max": Extra(
        f"i: rank = (n_q + {BLOCK - 1}) // {BLOCK}\nj: rank = (n_k + {BLOCK - 1}) // {BLOCK}\n{_WEIGHTS}"
        f"B[i, j] = max[q, k](where((q // {BLOCK} == i) & (k // {BLOCK} == j), A[q, k], 0.0))\nreturn O, B",
        2.1,
    ),
    "column_sums": Extra(_WEIGHTS + "C[k] = sum[q](A[q, k])\nreturn O, C"),
}
PLAIN, TWO = "plain", "two plain"
_SHAPE = (1, 8, 4096, 64)


@dataclass(frozen=True, slots=True)
class Result:
    """One output in one dtype.

    ms, plain_ms  medians of a call with the output and of one without.
    ratio         median over the rounds of the time with it to the time without, within a round.
    ratio_to_two  the same to two plain calls, for what computes two scores.
    limit         what `ratio` is meant to stay below.
    """

    output: str
    dtype: str
    sweeps: int
    ms: float
    plain_ms: float
    ratio: float
    ratio_to_two: float | None
    limit: float | None
    shape: tuple[int, ...]

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def run_suite(
    names: tuple[str, ...], rounds: int, dtypes: tuple[str, ...] = tuple(DTYPES), n: int = _SHAPE[2]
) -> Iterator[Result]:
    """Measure the named outputs dtype by dtype; all candidates of a dtype take turns."""
    for dtype in dtypes:
        yield from measure(names, dtype, rounds, n)


def measure(names: tuple[str, ...], dtype: str, rounds: int, n: int) -> list[Result]:
    """Time a plain call and those with outputs beside it in turn, causal, batch 1, 8 heads of 64 features."""
    shape = (*_SHAPE[:2], n, _SHAPE[3])
    generator = torch.Generator().manual_seed(0)
    q, k, v, q_t, k_t = (torch.randn(shape, generator=generator).to(DTYPES[dtype]) for _ in range(5))
    given: dict[str, dict[str, Any]] = {
        "divergence": {"q_t": q_t, "k_t": k_t},
        "span_mass": {"j": SPANS, "span": torch.arange(n, dtype=torch.int32) * SPANS // max(n, 1)},
    }
    plain = program(PLAIN)
    specs = {name: program(name) for name in names}
    candidates: dict[str, Fn] = {PLAIN: lambda: plain(q, k, v)}
    if "divergence" in names:
        candidates[TWO] = lambda: (plain(q, k, v), plain(q_t, k_t, v))
    for name, spec in specs.items():
        candidates[name] = _call(spec, (q, k, v), given.get(name, {}))
    with torch.no_grad():
        timings = alternate(candidates, rounds=rounds)
    return [_result(name, specs[name], dtype, shape, timings) for name in names]


def program(name: str) -> Attention:
    """The specification of one output beside O; of O alone for "plain". Raises ParameterError."""
    if name != PLAIN and name not in EXTRAS:
        raise ParameterError(f"there is no output {name!r}", hint=f"outputs: {', '.join(EXTRAS)}")
    text = _WEIGHTS + "return O" if name == PLAIN else EXTRAS[name].text
    return Attention.from_program(parse_program(text, name=name, file=name))


def _call(spec: Attention, qkv: tuple[Tensor, Tensor, Tensor], given: dict[str, Any]) -> Fn:
    return lambda: spec(*qkv, **given)


def _result(name: str, spec: Attention, dtype: str, shape: tuple[int, ...], timings: Timings) -> Result:
    two = round(timings.ratio(name, TWO), 3) if name == "divergence" else None
    return Result(
        output=name,
        dtype=dtype,
        sweeps=spec.derivation().passes,
        ms=round(timings.median(name) * 1e3, 3),
        plain_ms=round(timings.median(PLAIN) * 1e3, 3),
        ratio=round(timings.ratio(name, PLAIN), 3),
        ratio_to_two=two,
        limit=EXTRAS[name].limit,
        shape=shape,
    )
