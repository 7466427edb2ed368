"""The tolerance rule for outputs of any ranks and kinds: right results pass, changed ones do not."""

from __future__ import annotations

import pytest
import torch

from attngen import arguments, tolerance
from attngen.api import Attention
from attngen.lang.parse import parse_program
from attngen.tolerance import check_rows, dense_numbers, mixes_rows, shapes_of, tokens_at_once
from tests.cascades import SCORE, named
from tests.oracle import Shape, assert_matches_reference, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=37, n_k=45, d=16, e=24)
KINDS = ("columns", "weights", "spans", "selection", "blocks", "head_mean", "distances", "gradient_of_values")


def call(text: str, shape: Shape = SHAPE, mask: str = "mask = k <= pos(q)\n", **tensors):
    spec = Attention.from_program(parse_program(mask + text, name="p", file="p"))
    qkv = make_inputs(shape)
    captured, params = arguments.bind(spec.program, spec.values, tensors)
    params["scale"] = arguments.default_scale(shape.d, None)
    params |= arguments.own_extents(spec.program, captured, params, shapes_of(*qkv))
    result = spec(*qkv, **tensors)
    outs = dict(zip(spec.outputs, result if isinstance(result, tuple) else (result,), strict=True))

    def check(changed):
        checks = check_rows(spec.program, *qkv, changed, tensors=captured, params=params, factor=6.0)
        return {c.output: c for c in checks}

    return spec, qkv, outs, check, captured, params


@pytest.mark.parametrize("name", KINDS)
def test_outputs_of_any_ranks_pass_and_changed_ones_do_not(name):
    cascade = named(name)
    tensors = cascade.tensors(SHAPE, torch.Generator().manual_seed(1))
    spec, _, outs, check, _, _ = call(cascade.text, **tensors)
    for found in check(outs).values():
        assert found.ok, found
        assert found.entries == outs[found.output].numel()
        has_rows = "q" in spec.program.einsum(found.output).ranks
        assert found.rows == (SHAPE.n_q if has_rows else 0)
    for output, t in outs.items():
        changed = t.clone()
        changed.view(-1)[-1] += 1 if not t.is_floating_point() else 0.1
        assert not check({**outs, output: changed})[output].ok, output
        assert not check({**outs, output: t.unsqueeze(0)})[output].ok


def test_a_tied_index_is_as_good_and_a_dropped_one_is_not():
    text = SCORE + "best[q] = argmax[k](S[q, k])\nreturn best"
    spec, (q, k, v), _, _, captured, params = call(text)
    k[:, :, 3] = k[:, :, 2]  # two keys that no score tells apart
    best = spec(q, k, v)

    def ok(index):
        (found,) = check_rows(spec.program, q, k, v, {"best": index}, tensors=captured, params=params)
        return found.ok

    assert ok(best)
    rows = best == 2
    assert bool(rows.any())
    assert ok(torch.where(rows, 3, best))
    assert not ok(torch.where(rows, 4, best))
    assert not ok(torch.where(rows, -1, best))
    late = best.clone()
    late[:, :, 0] = SHAPE.n_k - 1  # the mask hides it from the first query
    assert not ok(late)


def test_an_index_into_features_and_one_that_heads_share():
    own = "w[k]: float\n"
    text = (
        SCORE + "M[q] = max[k](S[q, k])\nE[q, k] = exp(S[q, k] - M[q])\nO[q, e] = sum[k](E[q, k] * V[k, e])\n"
    )
    text += "widest[q] = argmax[e](O[q, e])\nheaviest[q] = argmax[k](w[k])\nreturn widest, heaviest"
    _, _, outs, check, _, _ = call(
        own + text, w=torch.randn(SHAPE.n_k, generator=torch.Generator().manual_seed(2))
    )
    assert outs["heaviest"].dim() == 2
    assert all(c.ok for c in check(outs).values())
    for name, t in outs.items():
        assert not check({**outs, name: (t + 1) % 24})[name].ok


def test_other_integers_and_booleans_are_compared_exactly():
    text = SCORE + "best[q] = argmax[k](S[q, k])\nshifted[q] = 2 * best[q] + 1\n"
    _, _, outs, check, _, _ = call(text + "seen[q] = any[k](S[q, k] > 1.0)\nreturn shifted, seen")
    assert not any(t.is_floating_point() for t in outs.values())
    assert all(c.ok for c in check(outs).values())
    assert not check({**outs, "shifted": outs["shifted"] + 1})["shifted"].ok
    assert not check({**outs, "seen": ~outs["seen"]})["seen"].ok


def test_rows_are_sampled_where_they_are_by_themselves(monkeypatch):
    monkeypatch.setattr(tolerance, "_AT_ONCE", 8 * 45 * 5)
    cascade = named("entropy")
    _, _, outs, check, _, _ = call(cascade.text)
    found = check(outs)
    assert {c.rows for c in found.values()} == {4}
    assert all(c.ok for c in found.values())
    changed = outs["O"].clone()
    changed[:, :, -1] += 1
    assert not check({**outs, "O": changed})["O"].ok
    _, _, columns, check, _, _ = call(named("columns").text)
    assert {c.rows for c in check(columns).values()} == {37, 0}


def test_how_many_tokens_are_checked_at_once():
    spec, qkv, _, _, captured, params = call(named("blocks").text)
    assert mixes_rows(spec.program, *qkv, captured, params)
    entropy, qkv, _, _, captured, _ = call(named("entropy").text)
    assert not mixes_rows(entropy.program, *qkv, captured, params)
    free = {"scale": 1.0}
    long = arguments.Shapes(1, 8, 8, 4096, 4096, 64, 64)
    n = tokens_at_once(spec.program, long, {}, free)
    shorter = arguments.Shapes(1, 8, 8, n, n, 64, 64)
    assert (
        dense_numbers(spec.program, shorter, {}, free)
        <= 1 << 24
        < dense_numbers(spec.program, long, {}, free)
    )
    # a block has 32 x 32 pairs, and the dense evaluation holds every pair for every block
    assert dense_numbers(spec.program, long, {}, free) == 8 * 4096**2 * 128**2
    assert tokens_at_once(entropy.program, arguments.Shapes(1, 8, 8, 300, 200, 64, 64), {}, free) == 300


@pytest.mark.parametrize("name", ["spans", "blocks", "columns"])
def test_the_oracle_takes_ranks_of_a_programs_own(name):
    cascade = named(name)
    spec = Attention.from_program(parse_program(cascade.text, name=name, file=name))
    tensors = cascade.tensors(SHAPE, torch.Generator().manual_seed(3))
    assert_matches_reference(spec, *make_inputs(SHAPE), **tensors)
