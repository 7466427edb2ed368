"""Comparisons of attngen's own programs: what outputs beside O cost, and what the forms of a cascade gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from attngen.bench.gpu.measure import Measured
from attngen.bench.gpu.stopwatch import Stopwatch, alternate
from attngen.bench.outputs import EXTRAS as OUTPUTS
from attngen.bench.outputs import PLAIN, SPANS, program

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.bench.timing import Fn

Tensor = torch.Tensor

_HEADS, _N, WIDTH = 16, 8192, 128
_DECODE_HEADS = 4
_RETENTION = """mask = k <= pos(q)
gamma[h]: float
W[q, k] = sum[d](Q[q, d] * K[k, d]) * scale * gamma[h] ** (pos(q) - k)
O[q, e] = sum[k](W[q, k] * V[k, e])
return O
"""


def _inputs(device: torch.device, count: int, heads: int = _HEADS, n: int = _N) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16
    return [
        torch.randn(1, heads, n, WIDTH, generator=generator, device=device, dtype=dtype) for _ in range(count)
    ]


def _outputs(device: torch.device, watch: Stopwatch) -> Measured:
    """Causal attention with one output more, against O alone."""
    q, k, v, q_t, k_t = _inputs(device, 5)
    span = (torch.arange(_N, dtype=torch.int32) * SPANS // _N).to(device)
    given: dict[str, dict[str, Any]] = {
        "divergence": {"q_t": q_t, "k_t": k_t},
        "span_mass": {"j": SPANS, "span": span},
    }
    calls = {name: _call(spec, (q, k, v), given.get(name, {})) for name, spec in specs_of("outputs").items()}
    return _compared("outputs beside O", (1, _HEADS, _HEADS, _N, _N, WIDTH), calls, PLAIN, watch)


def _retention(device: torch.device, watch: Stopwatch) -> Measured:
    """Linear attention with decay: pairs, or a state carried from chunk to chunk."""
    q, k, v = _inputs(device, 3)
    given = {"gamma": torch.linspace(0.9, 1.0, _HEADS, device=device)}
    calls = {a: _call(spec, (q, k, v), given) for a, spec in specs_of("retention").items()}
    return _compared("retention, forms", (1, _HEADS, _HEADS, _N, _N, WIDTH), calls, "one_pass", watch)


def _decode(device: torch.device, watch: Stopwatch) -> Measured:
    """One query and few heads: in one go, or over parts of the keys that are merged."""
    q, k, v = _inputs(device, 3, _DECODE_HEADS)
    one = q[:, :, -1:]
    calls = {a: _call(spec, (one, k, v), {}) for a, spec in specs_of("one query").items()}
    shape = (1, _DECODE_HEADS, _DECODE_HEADS, 1, _N, WIDTH)
    return _compared("one query, forms", shape, calls, "one_pass", watch)


def specs_of(name: str) -> dict[str, Attention]:
    """The specifications that a comparison calls, by the labels of its table."""
    from attngen.api import Attention
    from attngen.lang.parse import parse_program

    if name == "outputs":
        return {output: program(output) for output in (PLAIN, *OUTPUTS)}
    forms = ("one_pass", "reassociated" if name == "retention" else "local_then_merge")
    if name != "retention":
        return {a: Attention(mask="k <= pos(q)", algorithm=a) for a in forms}
    parsed = parse_program(_RETENTION, name=name, file=name)
    return {a: Attention.from_program(parsed, algorithm=a) for a in forms}


def _call(spec: Attention, qkv: tuple[Tensor, Tensor, Tensor], given: dict[str, Any]) -> Fn:
    return lambda: spec(*qkv, **given)


def _compared(
    name: str, shape: tuple[int, ...], calls: dict[str, Fn], base: str, watch: Stopwatch
) -> Measured:
    """Times of all calls that run; `ratio` is how many times longer than `base` each takes."""
    absent: dict[str, str] = {}
    works: dict[str, Fn] = {}
    for label, fn in calls.items():
        try:
            fn()
            works[label] = fn
        except Exception as error:  # one output's failure is a line of the table
            absent[label] = f"{type(error).__name__}: {error}"[:300]
    samples = alternate(works, watch)
    ratio = {n: round(samples.ratio(n, base), 3) for n in works if n != base and base in works}
    return Measured(
        name, "", shape, rounds=samples.rounds, ms=samples.medians(), ratio=ratio, host_us=samples.launches(),
        absent=absent, note=f"ratios are times over {base}",
    )  # fmt: skip


EXTRAS: dict[str, Callable[[torch.device, Stopwatch], Measured]] = {
    "outputs": _outputs,
    "retention": _retention,
    "one query": _decode,
}
