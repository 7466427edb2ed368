"""FlexAttention's own functions traced unchanged, captured tensors, names, composition and memoisation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import and_masks, create_block_mask, noop_mask, or_masks

from attngen.capture import Mask, Score, as_mask, as_score, mask, score
from attngen.errors import (
    DTypeError,
    MissingTensorError,
    ProgramSyntaxError,
    ProgramTypeError,
    TraceError,
    UnexpectedArgumentError,
)
from attngen.lang.expr import Const, Load
from attngen.lang.ops import OPS, Kind
from attngen.lang.parse import parse_program
from attngen.lang.trace import extent, param, pos
from tests.captured import N_K, N_Q, B, H, indices, reference, same_as_eager_mask, same_as_eager_score

# FlexAttention's documentation and its introduction, as they stand there.

SLIDING_WINDOW = 3
prefix_length = torch.tensor([2, 5], dtype=torch.int32)
document_id = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
soft_cap = 20


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def sliding_window_causal(b, h, q_idx, kv_idx):
    causal_mask = q_idx >= kv_idx
    window_mask = q_idx - kv_idx <= SLIDING_WINDOW
    return causal_mask & window_mask


def prefix_mask(b, h, q_idx, kv_idx):
    return kv_idx <= prefix_length[b]


def document_causal_mask(b, h, q_idx, kv_idx):
    causal_mask = q_idx >= kv_idx
    document_mask = document_id[q_idx] == document_id[kv_idx]
    return causal_mask & document_mask


def generate_alibi(slopes):
    def alibi(score, b, h, q_idx, kv_idx):
        bias = slopes[h] * (kv_idx - q_idx)
        return score + bias

    return alibi


def tanh_soft_cap(score, b, h, q_idx, kv_idx):
    score = score / soft_cap
    score = torch.tanh(score)
    score = score * soft_cap
    return score  # noqa: RET504


def relative_positional(score, b, h, q_idx, kv_idx):
    return score + (q_idx - kv_idx)


def generate_relative_bias(table):
    def relative_bias(score, b, h, q_idx, kv_idx):
        return score + table[h, q_idx - kv_idx + N_K]

    return relative_bias


def checkerboard(score, batch, head, token_q, token_kv):
    score = torch.where(torch.abs(token_kv - token_q) % 2 == 1, score * 0.5, score)
    score = torch.where(torch.abs(token_kv - token_q) % 2 == 0, score * 2.0, score)
    return score  # noqa: RET504


def prefix_lm_causal(b, h, q_idx, kv_idx):
    return or_masks(prefix_mask, causal)(b, h, q_idx, kv_idx)


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (causal, "q >= k"),
        (sliding_window_causal, "(q >= k) & (q - k <= 3)"),
        (prefix_mask, "k <= prefix_length[b]"),
        (or_masks(prefix_mask, causal), "(k <= prefix_length[b]) | (q >= k)"),
        (and_masks(causal, sliding_window_causal), "(q >= k) & ((q >= k) & (q - k <= 3))"),
        (prefix_lm_causal, "(k <= prefix_length[b]) | (q >= k)"),
        (document_causal_mask, "(q >= k) & (document_id[q] == document_id[k])"),
        (noop_mask, "True"),
    ],
)
def test_flexattention_masks_unchanged(fn, text):
    assert same_as_eager_mask(fn).text().replace("true", "True") == text


def test_flexattention_scores_unchanged():
    slopes = torch.exp2(-torch.arange(1.0, H + 1))
    table = torch.randn(H, 2 * N_K + 1)
    assert same_as_eager_score(generate_alibi(slopes), 1e-6).text() == "S + slopes[h] * (k - q)"
    assert same_as_eager_score(tanh_soft_cap).text() == "tanh(S / 20) * 20"
    assert same_as_eager_score(relative_positional).text() == "S + (q - k)"
    assert same_as_eager_score(generate_relative_bias(table)).tensors[0].ranks == ("h", "j")
    same_as_eager_score(checkerboard)


# Captured tensors


def test_indexing_forms():
    bias = torch.randn(B, H, N_Q, N_K)
    offset = torch.tensor(2)
    window = torch.tensor([1, 2, 3])
    flags = torch.randn(N_K) > 0
    t = torch.arange(12).reshape(2, 6)
    same_as_eager_score(lambda s, b, h, q, k: s + bias[b, h, q, k])
    chained = score(lambda s, b, h, q, k: s + bias[b][h][q][k])
    assert chained.expr == score(lambda s, b, h, q, k: s + bias[b, h, q, k]).expr
    assert chained.expr == score(lambda s, b, h, q, k: s + bias[b, h][q, k]).expr
    assert score(lambda s, b, h, q, k: s + t[:, q][b]).expr == score(lambda s, b, h, q, k: s + t[b, q]).expr
    assert score(lambda s, b, h, q, k: s + t[..., q][b]).expr == score(lambda s, b, h, q, k: s + t[b, q]).expr
    same_as_eager_score(lambda s, b, h, q, k: s + bias[0, -1, q, k] + bias[b, 1, 2, k])
    same_as_eager_mask(lambda b, h, q, k: (q - k <= window[h]) & flags[k] | (q == offset))
    same_as_eager_mask(lambda b, h, q, k: k < offset + b)
    same_as_eager_mask(lambda b, h, q, k: offset >= k - q)
    same_as_eager_score(lambda s, b, h, q, k: torch.take(window, h) * s)


def test_zero_dimensional_tensors_are_read_at_run_time():
    window = torch.tensor(3)
    m = mask(lambda b, h, q, k: q - k < window)
    assert Load("window", ()) in m.expr.args  # type: ignore[attr-defined]
    assert repr(m) == f"Mask({m.text()!r}, window=tensor)"
    assert m.values["window"] is window
    assert m.tensors[0].ranks == ()


def test_constants_made_inside_are_literals():
    m = score(lambda s, b, h, q, k: torch.where(q >= k, s, torch.tensor(float("-inf"))))
    assert m.tensors == ()
    same_as_eager_score(lambda s, b, h, q, k: torch.where(q >= k, s, torch.tensor(-5.0, dtype=torch.float64)))


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
)
def test_kinds_of_captured_integers(dtype):
    t = torch.ones(N_K, dtype=dtype)
    m = same_as_eager_mask(lambda b, h, q, k: t[k] == t[q])
    assert m.tensors[0].kind is (Kind.BOOL if dtype is torch.bool else Kind.INT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kinds_of_captured_floats(dtype):
    t = torch.randn(H).to(dtype)
    assert same_as_eager_score(lambda s, b, h, q, k: s * t[h], 1e-2).tensors[0].kind is Kind.FLOAT


def test_complex_tensors_are_refused():
    t = torch.zeros(H, dtype=torch.complex64)
    with pytest.raises(TraceError, match="complex64"):
        score(lambda s, b, h, q, k: s + t[h])


def test_closure_numbers_are_literals():
    def window_of(n):
        return lambda b, h, q, k: q - k < n

    assert mask(window_of(4)).expr != mask(window_of(5)).expr
    assert mask(window_of(np.int64(4))).expr == mask(window_of(4)).expr


# Signatures


def test_signatures():
    assert mask(lambda q, k: k <= q).expr == mask(causal_le).expr
    assert score(lambda s: s * 2).expr == score(lambda s, b, h, q, k: s * 2).expr
    assert mask(lambda *args: args[3] <= args[2]).expr == mask(causal_le).expr
    assert mask(lambda b, h, q, k, window=4: q - k < window).text() == "q - k < 4"
    assert mask(functools.partial(lambda b, h, q, k, window: q - k < window, window=4)).text() == "q - k < 4"
    assert mask(lambda q, k, /, *, w=2: q - k < w).text() == "q - k < 2"


def causal_le(b, h, q, k):
    return k <= q


def test_constant_results():
    assert mask(lambda q, k: True).expr == Const(True)
    assert mask(lambda q, k: np.bool_(False)).expr == Const(False)
    assert score(lambda s: 0).expr.op == "float"  # type: ignore[attr-defined]
    flag = torch.tensor(True)
    assert mask(lambda q, k: flag).tensors[0].kind is Kind.BOOL


def test_decorators():
    @mask
    def near(q, k):
        """Near keys."""
        return abs(q - k) < 3

    @score
    def half(s):
        return s / 2

    assert isinstance(near, Mask)
    assert (near.name, near.doc) == ("near", "Near keys.")
    assert isinstance(half, Score)
    assert str(near) == "mask = abs(q - k) < 3"
    assert mask(near) is near
    assert score(half) is half


# Composition and binding


def test_masks_combine():
    near = mask(lambda q, k: q - k < 4)
    both, either, neither = near & causal, causal | near, ~near
    np.testing.assert_array_equal(reference(both), reference(mask(causal)) & reference(near))
    np.testing.assert_array_equal(reference(either), reference(mask(causal)) | reference(near))
    np.testing.assert_array_equal(reference(neither), ~reference(near))
    assert (near & "k <= q").text() == "(q - k < 4) & (k <= q)"
    assert (near & (lambda q, k: True)).expr == near.expr


def test_clashing_names_are_told_apart_and_equal_ones_shared():
    def at_most(tensor):
        return mask(lambda b, h, q, k: k < tensor[b])

    one, two = torch.tensor([1, 2]), torch.tensor([3, 4])
    clash = at_most(one) | at_most(two)
    assert [t.name for t in clash.tensors] == ["tensor", "tensor_2"]
    assert clash.values["tensor"] is one
    assert clash.values["tensor_2"] is two
    assert [t.name for t in (at_most(one) & ~at_most(one)).tensors] == ["tensor"]

    def window(n):
        size = param("window", n)
        return mask(lambda q, k: q - k < size)

    assert [(p.name, (window(3) | window(5)).values[p.name]) for p in (window(3) | window(5)).params] == [
        ("window", 3),
        ("window_2", 5),
    ]
    assert len((window(3) | ~window(3)).params) == 1


def test_masks_are_callable_inside_other_functions():
    near = mask(lambda b, h, q, k: q - k < prefix_length[b])
    combined = same_as_eager_mask(and_masks(near, causal))
    assert combined.tensors[0].name == "prefix_length"
    shifted = mask(lambda b, h, q, k: near(b, h, q + 1, k))
    assert shifted.text() == "q + 1 - k < prefix_length[b]"


def test_scores_chain():
    double = score(lambda s: s * 2)
    capped = score(lambda s: torch.tanh(s))
    assert double.then(capped).text() == "tanh(S * 2)"
    assert capped.then(double).text() == "tanh(S) * 2"


def test_parameters():
    window = param("window", 4)
    m = mask(lambda q, k: (q - k < window) & (k - q < window // 2))
    assert [(p.name, p.kind, p.default, p.const) for p in m.params] == [("window", Kind.INT, None, False)]
    assert m.values["window"] == 4
    wider = m.bind(window=8)
    assert wider.values["window"] == 8
    assert wider.structure == m.structure
    assert wider != m
    assert m.bind(window=4) == m
    assert hash(wider) == hash(m)
    with pytest.raises(UnexpectedArgumentError, match="windows"):
        m.bind(windows=8)
    late = mask(lambda q, k: q - k < param("window", kind="int"))
    assert "window" not in late.values
    assert (late & causal).params == late.params
    assert mask(lambda q, k: q - k < param("w", 3, const=True)).params[0].const


def test_masks_with_lengths():
    aligned = mask(lambda q, k: k <= pos(q))
    np.testing.assert_array_equal(aligned(*indices(), n_q=N_Q, n_k=N_K)[..., :, :], reference(aligned)[0, 0])
    with pytest.raises(MissingTensorError, match="n_k"):
        aligned(*indices())
    first_half = mask(lambda q, k: k < extent("n_k") // 2)
    assert reference(first_half).sum() == B * H * N_Q * (N_K // 2)


def test_a_mask_serves_flexattention():
    near = mask(lambda b, h, q, k: (q >= k) & (q - k < prefix_length[b]))
    ours = create_block_mask(near, B, H, 256, 256, device="cpu")
    theirs = create_block_mask(
        lambda b, h, q, k: (q >= k) & (q - k < prefix_length[b]), B, H, 256, 256, device="cpu"
    )
    assert torch.equal(ours.to_dense(), theirs.to_dense())


# Coercion


def test_as_mask_takes_what_callers_pass():
    assert as_mask(None) is None
    assert as_score(None) is None
    m = mask(causal)
    assert as_mask(m) is m
    assert as_mask("k <= pos(q)") == mask(lambda q, k: k <= pos(q))
    assert as_score("20 * tanh(S / 20)").text() == "20 * tanh(S / 20)"
    program = parse_program("window: int = 3\nmask = (k <= q) & (q - k < window)")
    assert as_mask(program).values == {"window": 3}
    assert as_mask("window: int = 3\nmask = q - k < window").params[0].default is None


@pytest.mark.parametrize(
    ("obj", "error", "text"),
    [
        (torch.ones(3, 3, dtype=torch.bool), DTypeError, "allowed[q, k]"),
        (3, ProgramTypeError, "int"),
        (score(lambda s: s), ProgramTypeError, "Score"),
        (create_block_mask(causal, 1, 1, 128, 128, device="cpu"), ProgramTypeError, "mask_mod"),
        ("k <=", ProgramSyntaxError, "k <="),
        ("score = S", ProgramTypeError, "no mask"),
    ],
)
def test_as_mask_refuses_the_rest(obj, error, text):
    with pytest.raises(error) as caught:
        as_mask(obj)
    assert text in str(caught.value)


def test_as_score_refuses_a_mask():
    with pytest.raises(ProgramTypeError, match="Mask"):
        as_score(mask(causal))


def test_the_torch_meaning_covers_every_operator():
    from attngen.eager import TORCH_OPS

    assert set(TORCH_OPS) == set(OPS)
