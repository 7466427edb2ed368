"""Groups C, D, E.2 and F: every program against its definition by hand, on every backend that is here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attngen.api import Attention
from attngen.errors import UnsupportedError
from attngen.lang.library import cascade_names, program_names
from attngen.paper_groups import agreement
from attngen.paper_samples import CAUSAL, SAMPLES, sample
from attngen.papers_cdf import GROUPS
from tests.papers.cases_cdf import all_cases, call_of

NAMES = list(all_cases())
# A block of the map is cut from a tile, whose keys on a GPU are a power of two.
NOT_IN_TRITON = {"block_max odd", "block_mass odd"}
# One case for each way of computing that a kernel has; the others are slow.
INTERPRETED = {
    "t5_bias", "rope interleaved", "sigmoid", "relu_features", "dgq", "gat", "boosted_tokens", "anchored_swap",
    "entropy", "attention_kl", "span_mass", "column_sums", "block_max", "map_rows", "top_of_row", "icr_scores",
    "vision_divergence", "softmax_replay", "softmax_two_pass", "mossformer2_causal", "aaren", "combiner_fixed",
    "hilo_low", "extra_keys of memory", "performer", "lama", "acmil", "expert_gate", "extractor_we",
    "act", "opera", "diagonal_sums", "combiner_rowmajor", "nystrom", "long_short", "rope", "cosformer", "weighted_rows",
    "perturbed_additive", "mqsa_long",
}  # fmt: skip
interpreter = pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets")


def holds(checks):
    for check in checks:
        assert check.ok, f"{check.output}: error {check.error:.3e}, allowed {check.allowed:.3e}"


def quick(names, those):
    """Every name, as a slow one if it is not among `those`."""
    return [n if n in those else pytest.param(n, marks=pytest.mark.slow) for n in names]


def test_every_program_of_the_papers_has_a_case_and_a_call():
    named = {
        p for group in GROUPS for section in group.sections for row in section.papers for p in row.programs
    }
    assert named == {call.program for call in SAMPLES}
    assert named <= {name.split()[0] for name in NAMES}
    assert named <= {*program_names(), *cascade_names()}
    assert set(NAMES) >= INTERPRETED | NOT_IN_TRITON


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_definition(name):
    call = call_of(name)
    for got, want in zip(call.dense(torch.float64), call.want, strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got.double(), want.double(), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_cpu(name):
    call = call_of(name)
    call.holds(call.run("cpu"))


@interpreter
@pytest.mark.parametrize("name", quick([n for n in NAMES if n not in NOT_IN_TRITON], INTERPRETED))
def test_in_the_interpreter(name):
    call = call_of(name)
    call.holds(call.run("triton"))


@interpreter
@pytest.mark.parametrize("name", sorted(NOT_IN_TRITON))
def test_blocks_that_no_tile_of_a_gpu_holds_are_refused(name):
    with pytest.raises(UnsupportedError, match="powers of two"):
        call_of(name).run("triton")


@interpreter
@pytest.mark.slow
@pytest.mark.parametrize("call", SAMPLES, ids=lambda s: s.program)
def test_more_than_one_tile_in_the_interpreter(call):
    holds(agreement(call, "triton"))


IN_HALF = ("entropy", "column_sums", "span_mass", "extra_keys", "rope", "aaren", "block_max", "icr_scores")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("program", quick(IN_HALF, ("column_sums", "rope")))
def test_half_precision(program, dtype):
    holds(agreement(sample(program), dtype=dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("call", SAMPLES, ids=lambda s: s.program)
def test_on_a_gpu(call, dtype):
    holds(agreement(call, None, dtype=dtype))


# Lengths

READ_OFF = ("entropy", "column_sums", "diagonal_sums", "block_max", "head_maps", "span_mass", "extra_keys")


@pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=[interpreter, pytest.mark.slow])])
@pytest.mark.parametrize("program", READ_OFF)
def test_rows_that_see_nothing(program, backend):
    """More queries than keys: the first 26 rows of a causal map are empty."""
    call = replace(sample(program), n_q=67, n_k=41)
    holds(agreement(call, backend))
    spec = Attention.from_linked(call.spec().program, call.spec().values)
    outs = spec(*call.inputs())
    if program in ("entropy", "span_mass"):
        first = outs[0] if isinstance(outs, tuple) else outs
        assert (first[:, :, :26] == 0).all()


@pytest.mark.parametrize("n", [(1, 83), (1, 1), (83, 1), (128, 64)])
@pytest.mark.parametrize(
    "program", ["alibi", "entropy", "head_maps", "column_sums", "performer", "extra_keys"]
)
def test_lengths(program, n):
    holds(agreement(replace(sample(program), n_q=n[0], n_k=n[1])))


@pytest.mark.parametrize("heads", [(1, 1), (6, 2), (4, 4)])
@pytest.mark.parametrize("program", ["attention_kl", "icr_scores", "abc", "object_map"])
def test_heads(program, heads):
    holds(agreement(replace(sample(program), heads=heads)))


# Keys that nobody sees, and strides

HIDDEN = "(k >= 20) & (k < 60)"
POISONED = (
    "entropy", "column_sums", "head_maps", "span_mass", "extra_keys", "softmax_two_pass", "block_max", "sigmoid",
)  # fmt: skip


@pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=[interpreter, pytest.mark.slow])])
@pytest.mark.parametrize("program", POISONED)
def test_nan_in_keys_that_no_query_may_see_does_not_spread(program, backend):
    call = replace(sample(program), mask=HIDDEN)
    spec, (q, k, v) = call.spec(), call.inputs()
    clean = spec(q, k, v, backend=backend)
    k[:, :, :20] = v[:, :, :20] = math.nan
    k[:, :, 60:] = v[:, :, 60:] = math.inf
    assert same(spec(q, k, v, backend=backend), clean)


@pytest.mark.parametrize("program", ["prior_add", "dgq", "expert_gate", "lama"])
def test_nan_past_the_length_does_not_spread(program):
    call = sample(program)
    spec, (q, k, v) = call.spec(), call.inputs()
    length = torch.tensor([60, 41])
    clean = spec(q, k, v, length=length)
    for entry, n in enumerate(length):
        k[entry, :, n:] = v[entry, :, n:] = math.nan
    assert same(spec(q, k, v, length=length), clean)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=[interpreter, pytest.mark.slow])])
@pytest.mark.parametrize("program", ["column_sums", "rope", "performer", "extra_keys", "attention_kl"])
def test_strides(program, backend):
    call = sample(program)
    spec, given = call.spec(), call.inputs()
    tensors = {n: x for n, x in spec.values.items() if isinstance(x, torch.Tensor) and x.dim() > 1}
    want = spec(*given, backend=backend)
    for strided in (
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda x: x.repeat_interleave(2, -1)[..., ::2],
    ):
        moved = {n: strided(x) for n, x in tensors.items()}
        got = spec(*(strided(x) for x in given), backend=backend, **moved)
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


def same(got, want):
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Algorithms

ALGORITHMS = ("one_pass", "several_passes", "local_then_merge", "scan", "reassociated")
LINEAR = """
decay: float = 0.9

mask = k <= pos(q)

F[q, d] = exp(Q[q, d] / 4)
G[k, d] = exp(K[k, d] / 4)
A[q, k] = sum[d](F[q, d] * G[k, d])
O[q, e] = sum[k](A[q, k] * V[k, e])
return O
"""
FORCED = ("softmax", "sigmoid", "entropy", "aaren", "extra_keys", "column_sums", "performer")
TEXTS = {
    "linear": LINEAR.replace("decay: float = 0.9\n\n", ""),
    "linear with decay": LINEAR.replace("G[k, d])\n", "G[k, d]) * decay ** (pos(q) - k)\n"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("program", FORCED)
def test_every_algorithm_gives_the_same(program, algorithm):
    call = sample(program)
    if program == "softmax":
        call = replace(call, mask=CAUSAL)
    holds(agreement(call, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_algorithm_of_linear_attention_gives_the_same(text, algorithm):
    from attngen.lang.parse import parse_program

    program = parse_program(TEXTS[text], name="linear")
    call = sample("alibi")
    q, k, v = (torch.cat((x, x[:, :, :60]), 2) for x in call.inputs())
    want = Attention.from_program(program).reference(q, k, v)
    got = Attention.from_program(program, algorithm=algorithm)(q, k, v)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-5)
