"""The definitions of groups C and D, held to what must be true of them whatever the inputs; and every case is a call.

Group F is in `test_definitions_f`.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.papers import (
    group_c,
    group_d,
    group_d_papers,
    group_f,
    group_f_cab,
    group_f_pooling,
    group_f_sources,
    inputs_c,
    inputs_d,
    inputs_f,
)
from tests.papers.group_common import (
    Draw,
    Tensor,
    attend,
    but,
    close,
    log_sum,
    mix,
    ones,
    scores,
    share,
    softmax,
)


def definition(name: str) -> Any:
    modules = (group_c, group_d, group_d_papers, group_f, group_f_sources, group_f_cab, group_f_pooling)
    return next(getattr(m, name) for m in modules if hasattr(m, name))


def cases() -> list[tuple[ModuleType, str]]:
    return [(m, x[5:]) for m in (inputs_c, inputs_d, inputs_f) for x in dir(m) if x.startswith("case_")]


def tensors(x: object) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [y for z in x for y in tensors(z)] if isinstance(x, tuple | list) else []


@pytest.mark.parametrize(("inputs", "name"), cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_case_is_a_call_and_batch_entries_differ(inputs: ModuleType, name: str):
    case = getattr(inputs, f"case_{name}")(3)
    outs = tensors(definition(name)(**case))
    again = tensors(definition(name)(**getattr(inputs, f"case_{name}")(3)))
    assert outs
    for out, twin in zip(outs, again, strict=True):
        assert not out.isnan().any()
        assert torch.equal(out, twin)
        assert out.dim() == 0 or not torch.equal(out[0], out[-1])
        assert out.dtype in (torch.float64, torch.bool, torch.int64)
    other = tensors(definition(name)(**getattr(inputs, f"case_{name}")(4)))
    assert any(not torch.equal(out, twin) for out, twin in zip(outs, other, strict=True))


def test_softmax_of_nothing_is_zero_and_its_log_sum_minus_infinity():
    case = inputs_d.case_entropy()
    o, lse = attend(scores(case["q"], case["k"]), case["k"], case["keep"])
    empty = ~case["keep"].any(-1)
    assert empty.sum() == 6
    assert (o[:, :, empty] == 0).all()
    assert (lse[:, :, empty] == -torch.inf).all()
    assert torch.isfinite(lse[:, :, ~empty]).all()


# group C


def test_alibi_slopes_of_other_head_counts_interleave():
    assert group_c.alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    four, eight = group_c.alibi_slopes(4).tolist(), group_c.alibi_slopes(8).tolist()
    assert group_c.alibi_slopes(6).tolist() == [*four, eight[0], eight[2]]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_buckets_are_those_of_the_formula_away_from_its_jumps(bidirectional: bool):
    half = 16 if bidirectional else 32
    exact, seen = half // 2, set[int]()
    for n in range(300):
        got = group_c.t5_bucket(n, bidirectional)
        seen.add(got)
        if n >= exact:
            step = math.log(n / exact) / math.log(128 / exact) * (half - exact)
            if abs(step - round(step)) > 1e-9:
                assert got == min(half - 1, exact + math.floor(step))
        else:
            assert got == n
        after = group_c.t5_bucket(-n, bidirectional)
        assert after == (half + got if bidirectional and n else 0 if not bidirectional else got)
    assert seen == set(range(half))
    # 8 * 2^(m / 2) with even m are the jumps that floating point may miss
    assert [group_c.t5_bucket(n, True) for n in (15, 16, 31, 32, 63, 64)] == [9, 10, 11, 12, 13, 14]


def test_t5_table_is_the_bucket_of_each_distance():
    table = group_c.t5_buckets(16, True, 8)
    assert [int(table[n + 16]) for n in (-16, -1, 0, 1, 16)] == [7, 5, 0, 1, 3]


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_depends_on_distance_alone_and_keeps_the_other_features(interleaved: bool):
    case = inputs_c.case_rope(interleaved=interleaved)
    q, k = case["q"], case["k"][:, :1]
    args = (case["dims"], case["base"], interleaved)
    a = group_c.rotate(q, torch.tensor(9), *args) @ group_c.rotate(k, torch.tensor(4), *args).transpose(
        -1, -2
    )
    b = group_c.rotate(q, torch.tensor(5), *args) @ group_c.rotate(k, torch.tensor(0), *args).transpose(
        -1, -2
    )
    close(a, b)
    turned = group_c.rotate(q, torch.tensor(9), *args)
    assert torch.equal(turned[..., 6:], q[..., 6:])
    close(turned.norm(dim=-1), q.norm(dim=-1))
    plain = group_c.rotate(q, torch.tensor(9), case["dims"], case["base"], not interleaved)
    assert not torch.allclose(turned, plain)


def test_sigmoid_is_half_a_tanh_and_does_not_mix_keys():
    case = inputs_c.case_sigmoid_attention()
    x = scores(case["q"], case["k"]) + case["bias"]
    close(group_c.sigmoid_attention(**case), mix((0.5 * torch.tanh(x / 2) + 0.5) * case["keep"], case["v"]))
    less = case["keep"].clone()
    less[:, 5] = False
    change = group_c.sigmoid_attention(**case) - group_c.sigmoid_attention(**but(case, keep=less))
    close(change, mix((torch.sigmoid(x) * case["keep"])[..., 5:6], case["v"][:, :, 5:6]))


def test_entropy_scale_is_one_at_the_trained_length():
    case = inputs_c.case_entropy_scale()
    o, _ = group_c.entropy_scale(case["q"], case["k"], case["v"], 19)
    close(o, attend(scores(case["q"], case["k"]), case["v"])[0])
    assert math.sqrt(math.log(16384) / math.log(4096)) == pytest.approx(1.0801, abs=1e-4)


def test_act_equals_two_partitions_and_leaves_row_zero():
    case = inputs_c.case_act()
    o, new = group_c.act(**case)
    s, keep = scores(case["q"], case["k"]), case["keep"]
    old = softmax(s, keep)
    ones(new)
    close(new[:, :, 0], old[:, :, 0])
    assert torch.equal(new[:, 1], old[:, 1])
    v, changed = share(case["v"], 4), 0
    for b in range(2):
        for h in (0, 2, 3):
            sinks = torch.zeros(17, dtype=torch.bool)
            sinks[group_c.act_sinks(old[b, h], keep, case["tau"])] = True
            changed += int(sinks.sum())
            e = torch.exp(s[b, h]) * keep
            z_p, z_r = e[:, sinks].sum(1), e[:, ~sinks].sum(1)
            n_p, n_r = e[:, sinks] @ v[b, h][sinks], e[:, ~sinks] @ v[b, h][~sinks]
            sigma = z_p / (z_p + z_r)
            grown = (1 - case["beta"] * sigma) / (1 - sigma)
            want = (case["beta"] * n_p + grown[:, None] * n_r) / (z_p + z_r)[:, None]
            close(o[b, h], want)
    assert changed > 2


def test_dgq_needs_the_log_sum_only():
    case = inputs_c.case_dgq()
    s, keep, step = scores(case["q"], case["k"]), case["keep"], case["step"][:, None, None]
    lse = log_sum(s, keep)[..., None]
    e = torch.clamp(torch.round((lse - s) / math.log(2) + torch.log2(step)), 0, 15)
    a = torch.where(torch.arange(19) == 0, torch.exp(s - lse), step * 2.0**-e)
    close(group_c.dgq(**case), mix(a * keep, case["v"]))
    raw = group_c.dgq_exponents(softmax(s, keep), case["step"], 4)
    off = (raw - torch.floor(raw) - 0.5).abs()[keep.expand_as(raw)]
    assert off.min() > 1e-6, "a rounding tie: choose another seed"


def test_gat_scores_are_separable():
    case = inputs_c.case_gat()
    _, lse = group_c.gat(**case)
    h = torch.einsum("hdf,btf->bhtd", case["w"], case["x"])
    b, i = 1, 4
    total = torch.zeros(4, dtype=torch.float64)
    for j in range(17):
        if j == i or case["adjacency"][b, i, j]:
            x = (case["a_query"] * h[b, :, i]).sum(-1) + (case["a_key"] * h[b, :, j]).sum(-1)
            total += torch.exp(torch.where(x > 0, x, 0.2 * x))
    close(lse[b, :, i], torch.log(total))


def test_perturbation_without_shift_is_the_first_pass_and_an_attack_has_its_size():
    case = inputs_c.case_perturbed(with_query=False)
    calm = group_c.perturbed(**but(case, shift=torch.zeros_like(case["shift"])))[0]
    assert not torch.allclose(calm, group_c.perturbed(**case)[0])
    constant = group_c.perturbed(**but(case, shift=torch.full_like(case["shift"], 2.0)))[0]
    close(calm, constant)
    close(group_c.attack(case["shift"], 0.5).norm(dim=-1), torch.full((2, 1), 0.5, dtype=torch.float64))


def test_vsformer_log_prior_multiplies_weights_and_drops_zeros():
    case = inputs_c.case_vsformer()
    o, lse = group_c.vsformer(**case)
    e = torch.exp(scores(case["q"], case["k"])) * case["prior"][:, None] * case["keep"]
    assert (lse[:, :, 2] == -torch.inf).all()
    z = e.sum(-1, keepdim=True)
    close(o, mix(e / torch.where(z > 0, z, 1.0), case["v"]))
    for form in ("add", "product"):
        other = inputs_c.case_vsformer(form=form)
        flat = but(other, prior=torch.ones_like(other["prior"]))
        close(group_c.vsformer(**flat)[0], attend(scores(flat["q"], flat["k"]), flat["v"], flat["keep"])[0])


def test_boost_raises_chosen_tokens_in_decoded_rows_only():
    case = inputs_c.case_boosted()
    plain = attend(scores(case["q"], case["k"]), case["v"], case["keep"])
    boost = group_c.boosted(**case)
    start = case["start"] - (19 - 13)
    close(boost[0][:, :, :start], plain[0][:, :, :start])
    assert (boost[1][:, :, start:] > plain[1][:, :, start:]).all()


def test_anchored_swap_is_a_rank_one_change():
    case = inputs_c.case_anchored()
    o, a = group_c.anchored(**case)
    old = softmax(scores(case["q"], case["k"]), case["keep"])
    ones(a)
    want, v = mix(old, case["v"]), share(case["v"], 4)
    for b in range(2):
        for h in (1, 2):
            i, j = int(case["first"][b]), int(case["second"][b])
            want[b, h, -1] += (old[b, h, -1, j] - old[b, h, -1, i]) * (v[b, h, i] - v[b, h, j])
    close(o, want)


# group D


def test_entropy_in_one_pass():
    case = inputs_d.case_entropy()
    s, keep = scores(case["q"], case["k"]), case["keep"]
    lse = log_sum(s, keep)
    a = softmax(s, keep)
    want = torch.where(keep.any(-1), lse - (a * s).sum(-1), 0.0)
    close(group_d.entropy(**case), want)
    assert (group_d.entropy(**case) <= torch.log(keep.sum(-1).clamp(min=1)) + 1e-12).all()
    square = inputs_d.case_mean_entropy()
    gap = group_d.entropy(**square).mean(-1) - group_d.mean_entropy(**square)
    assert ((gap > 0) & (gap < 17e-6)).all()


def test_nmi_is_entropy_of_the_mean_minus_mean_of_entropies():
    case = inputs_d.case_nmi()
    a = group_d.attention_map(**case)
    h_k = -group_d.plogp(a.mean(2)).sum(-1)
    want = (h_k - group_d.entropy(**case).mean(-1)) / torch.sqrt(h_k * math.log(17))
    close(group_d.nmi(**case), want)
    alike = but(case, q=case["q"][:, :, :1].expand_as(case["q"]))
    close(group_d.nmi(**alike), torch.zeros(2, 4, dtype=torch.float64))


def test_kl_in_one_pass():
    case = inputs_d.case_kl_rows()
    t, s, keep = case.values()
    want = (softmax(t, keep) * (t - s)).sum(-1) - log_sum(t, keep) + log_sum(s, keep)
    close(group_d.kl_rows(**case), want)
    assert (want > 0).all()
    close(group_d.kl_rows(t, t + 3, keep), torch.zeros_like(want))


def test_masses_of_parts_add_up():
    case = inputs_d.case_span_mass()
    a = group_d.attention_map(case["q"], case["k"], case["keep"])
    spans = group_d.span_mass(**case)
    close(spans.sum(-1) + a[..., case["span"] < 0].sum(-1), torch.ones(2, 4, 13, dtype=torch.float64))
    sizes = torch.tensor([(case["span"] == j).sum() for j in range(3)])
    close(group_d_papers.consistency(**inputs_d.case_consistency()) * sizes, spans[:, :, -1, :3])
    ones(group_d.distance_histogram(**inputs_d.case_distance_histogram()))
    blocks = group_d.block_sum(**inputs_d.case_block_sum())
    close(blocks.sum(-1), torch.tensor([4.0, 4, 4, 1]).double().expand(2, 4, 4))
    diagonals = group_d.diagonal_sums(**inputs_d.case_diagonal_sums())
    close(diagonals.sum(-1), torch.full((2, 4), 13.0).double())
    assert group_d.distance_histogram(**inputs_d.case_distance_histogram()).shape[-1] == 5


def test_column_means_divide_by_the_rows_that_see_the_column():
    case = inputs_d.case_column_means()
    total, mean = group_d.column_sums(**case), group_d.column_means(**case)
    close(total.sum(-1), torch.full((2, 4), 7.0).double())
    close(mean[..., 0], total[..., 0] / 7)
    close(mean[..., 16], total[..., 16])  # the last row of the set alone
    assert (mean[..., 17:] == 0).all()


def test_block_maximum_is_the_greatest_weight_not_the_greatest_score():
    case = inputs_d.case_block_max()
    a, got = group_d.attention_map(case["q"], case["k"], case["keep"]), group_d.block_max(**case)
    assert torch.equal(got[:, :, 2, 3], a[:, :, 8:12, 15:19].amax((-1, -2)))
    s, lse = scores(case["q"], case["k"]), log_sum(scores(case["q"], case["k"]), case["keep"])
    rows = torch.where(case["keep"], s, -torch.inf)[..., 5:10].amax(-1)
    close(got[:, :, 1, 1], torch.exp(rows - lse)[:, :, 4:8].amax(-1))


def test_the_lower_key_wins_a_tie():
    case = inputs_d.case_top_of_row()
    values, ids = group_d.top_of_row(**case)
    assert (values[..., :-1] >= values[..., 1:]).all()
    for row in ids.flatten(0, 1).tolist():
        if 6 in row:
            assert row.index(5) == row.index(6) - 1
    assert any(6 in row for row in ids.flatten(0, 1).tolist())


def test_icr_drops_outliers_of_each_document():
    case = inputs_d.case_icr()
    got = group_d_papers.icr(**case)
    c = case["score"] - case["blank"]
    for n, ((first, last), gone) in enumerate(zip(case["documents"], (7, 15, 30), strict=True)):
        close(got[:, n], c[:, first:last].sum(1) - c[:, gone])
    score = group_d_papers.icr_scores(**inputs_d.case_icr_scores())
    close(score.sum(-1), torch.full((2,), 4.0).double())


def test_adl_of_equal_rows_is_one():
    case = inputs_d.case_adl()
    assert 0 <= float(group_d_papers.adl(**case)) < 1
    alike = but(case, q=case["q"][:, :, :1].expand_as(case["q"]))
    close(group_d_papers.adl(**alike), torch.tensor(1.0).double())


def test_vhd_in_one_pass_with_two_classes_of_keys():
    case = inputs_d.case_vhd()
    s, v, image = scores(case["q"], case["k"]), share(case["v"], 4), case["image"]
    e = torch.exp(s) * case["keep"]
    z_i, z_t = e[..., image].sum(-1, keepdim=True), e[..., ~image].sum(-1, keepdim=True)
    n_i, n_t = e[..., image] @ v[:, :, image], e[..., ~image] @ v[:, :, ~image]
    full = (n_i + n_t) / (z_i + z_t)
    divergence, o = group_d_papers.vhd(**case)
    close(o, full)
    close(divergence, (full - n_t / z_t).norm(dim=-1))


def test_opera_counts_the_diagonal_and_changes_after_ten_tokens():
    case = inputs_d.case_opera()
    phi, penalty, at = group_d_papers.opera(**case)
    a = group_d.head_max(case["q"], case["k"], case["keep"])
    a = a / a.sum(-1, keepdim=True)
    close(phi[:, -1], 1e-7 * 50 * a[:, -1, -1])
    close(phi[:, 0], 1e-7 * (50 * a[:, 17:, 17]).prod(-1))
    close(penalty, phi.gather(1, at[:, None])[:, 0])
    assert (group_d_papers.opera(**inputs_d.case_opera(response=10))[1] < 0).all()


def test_disendiff_smooths_with_reflected_borders():
    x = Draw(1).uniform(2, 5, 6)
    kernel = group_d_papers.gaussian_kernel()
    scaled = (x - x.amin((1, 2), True)) / (x.amax((1, 2), True) - x.amin((1, 2), True) + 1e-8)
    padded = torch.nn.functional.pad(scaled[:, None], (1, 1, 1, 1), mode="reflect")
    close(group_d_papers.smooth_map(x, kernel), torch.nn.functional.conv2d(padded, kernel[None, None])[:, 0])
    close(kernel.sum(), torch.tensor(1.0).double())
    mask = (x > 0.5).double()
    close(group_d_papers.soft_iou(mask, mask), torch.ones(2).double())


def test_echo_replays_the_leader():
    case = inputs_d.case_echo()
    s = scores(case["q"], case["k"])
    a = torch.exp(s - log_sum(s, case["keep"])[..., None]) * case["keep"]
    for got, v in zip(group_d_papers.echo(**case), case["followers"], strict=True):
        close(got, mix(a, v))
