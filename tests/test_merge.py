"""Merging results over different keys: exact, in any order, with empty partitions."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attngen
from attngen.api import Attention
from attngen.lang.parse import parse_program
from tests.cascades import named
from tests.oracle import Shape, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=9, n_k=60, d=16, e=8)


def parts_of(spec: Attention, inputs, cuts: list[int], **tensors):
    q, k, v = inputs
    bounds = [0, *sorted(cuts), k.shape[2]]
    return [spec(q, k[:, :, a:b], v[:, :, a:b], **tensors) for a, b in itertools.pairwise(bounds)]


def close(got, expected) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), atol=3e-6, rtol=3e-6)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), seed=st.integers(0, 99))
def test_any_partition_of_the_keys_gives_the_whole(cuts, seed):
    spec = Attention(outputs=("O", "LSE"))
    inputs = make_inputs(SHAPE, seed=seed)
    parts = parts_of(spec, inputs, cuts)
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
    close(spec.merge([parts[i] for i in order]), spec.reference(*inputs))


def test_partitions_that_kept_nothing_change_nothing():
    spec = Attention(outputs=("O", "LSE"))
    q, k, v = make_inputs(SHAPE)
    whole = spec(q, k, v)
    empty = spec(q, k[:, :, :0], v[:, :, :0])
    assert bool((empty[1] == -torch.inf).all())
    close(spec.merge([empty, whole, empty]), whole)
    nothing = spec.merge([empty, empty])
    assert bool((nothing[0] == 0).all())
    assert bool((nothing[1] == -torch.inf).all())


def test_rows_that_one_part_does_not_see():
    """Causal parts at their own positions, as a cache split over devices has them."""
    q, k, v = make_inputs(SHAPE)
    late = Attention(mask="start: int = 0\nmask = k + start <= q + 51", outputs=("O", "LSE"))
    parts = [late(q, k[:, :, a : a + 20], v[:, :, a : a + 20], start=a) for a in (0, 20, 40)]
    close(late.merge(parts), late.reference(q, k, v))


def test_a_sink_is_counted_once():
    spec = Attention(cascade="softmax_sink", outputs=("O", "LSE"))
    sink = {"sink_logit": torch.tensor([-1.0, 0.0, 2.0, 5.0])}
    inputs = make_inputs(SHAPE)
    parts = parts_of(spec, inputs, [0, 13, 40], **sink)
    close(spec.merge(parts, **sink), spec.reference(*inputs, **sink))


def test_sums_without_a_normaliser_add():
    spec = Attention(cascade="sigmoid")
    inputs = make_inputs(SHAPE)
    close([spec.merge(parts_of(spec, inputs, [10, 11, 50]))], [spec.reference(*inputs)])


def test_running_values_merge_as_they_are():
    spec = Attention(outputs=("O", "M", "Z"))
    inputs = make_inputs(SHAPE)
    close(spec.merge(parts_of(spec, inputs, [7, 30])), spec.reference(*inputs))


def test_an_entropy_merges_with_its_log_sum():
    text = named("entropy").text.replace("return O, H", "LSE[q] = M[q] + log(Z[q])\nreturn O, H, LSE")
    spec = Attention.from_program(parse_program(text, name="e", file="e"))
    inputs = make_inputs(SHAPE)
    close(spec.merge(parts_of(spec, inputs, [0, 5, 33])), spec.reference(*inputs))


@pytest.mark.parametrize(("cascade", "outputs"), [("softmax", ("O",)), ("relu", ("O",))])
def test_outputs_that_do_not_determine_the_result_are_refused(cascade, outputs):
    spec = Attention(cascade=cascade, outputs=outputs)
    parts = parts_of(spec, make_inputs(SHAPE), [20])
    with pytest.raises(attngen.AttngenError, match=r"do not determine|differs between"):
        spec.merge(parts)


def test_mistakes_are_clear():
    spec = Attention(outputs=("O", "LSE"))
    whole = spec(*make_inputs(SHAPE))
    with pytest.raises(attngen.AttngenError, match="no partial results"):
        spec.merge([])
    with pytest.raises(attngen.AttngenError, match="O, LSE"):
        spec.merge([whole[0]])
    with pytest.raises(attngen.AttngenError, match="shape"):
        spec.merge([whole, (whole[0][:, :, :4], whole[1][:, :, :4])])


def test_half_precision_partials_keep_their_dtype():
    spec = Attention(outputs=("O", "LSE"))
    inputs = make_inputs(SHAPE, "bf16")
    merged = spec.merge(parts_of(spec, inputs, [30]))
    assert [t.dtype for t in merged] == [torch.bfloat16, torch.float32]
