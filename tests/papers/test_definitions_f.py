"""The definitions of group F, held to what must be true of them whatever the inputs."""

from __future__ import annotations

import math

import pytest
import torch

from tests.papers import group_f, group_f_cab, group_f_pooling, group_f_sources, inputs_f
from tests.papers.group_common import (
    Draw,
    Tensor,
    attend,
    but,
    causal,
    close,
    ones,
    scores,
    share,
    softmax,
)


def test_fusemax_in_one_two_and_three_passes():
    case = inputs_f.case_fusemax_three_pass()
    want = attend(scores(case["q"], case["k"]), case["v"], case["keep"])[0]
    close(group_f.fusemax_three_pass(**case), want)
    for tile in (1, 4, 9):
        close(group_f.fusemax_two_pass(**case, tile=tile), want)
        close(group_f.fusemax_one_pass(**case, tile=tile), want)


@pytest.mark.parametrize("is_causal", [False, True])
def test_mossformer_is_one_matrix_for_both_values(is_causal: bool):
    case = inputs_f.case_mossformer(is_causal=is_causal)
    chunk = torch.arange(17) // 5
    a = torch.relu(scores(case["q1"], case["k1"], 0.2)) ** 2 * (chunk[:, None] == chunk[None])
    linear = scores(case["q2"], case["k2"], 1.0)
    if is_causal:
        a, linear = a * causal(17, 17), linear / 5 * (chunk[:, None] > chunk[None])
    else:
        linear = linear / 17
    att_v, att_u, out = group_f.mossformer(**case)
    close(att_v, (a + linear) @ case["v"])
    close(att_u, (a + linear) @ case["u"])
    close(out, att_u * case["v"] / (1 + torch.exp(-att_v * case["u"])))


def test_aaren_is_every_prefix_and_causal_attention_of_equal_queries():
    case = inputs_f.case_aaren()
    got = group_f.aaren(**case)
    q = case["query"].expand(2, *case["query"].shape)[:, :, None]
    for t in range(17):
        prefix = case["k"][:, :, : t + 1], case["v"][:, :, : t + 1]
        close(got[:, :, t], attend(scores(q, prefix[0]), prefix[1])[0][:, :, 0])
    close(got, attend(scores(q.expand(2, 4, 17, 8), case["k"]), case["v"], causal(17, 17))[0])


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_combiner_is_a_full_matrix_whose_rows_sum_to_one(is_causal: bool, pool: str):
    case = inputs_f.case_combiner_fixed(is_causal=is_causal, pool=pool)
    full = group_f.combiner_fixed(**case)[1]
    ones(full)
    assert ((full > 0) == (causal(17, 17) if is_causal else True)).all()
    whole = but(case, segment=17)
    keep = causal(17, 17) if is_causal else None
    close(group_f.combiner_fixed(**whole)[0], attend(scores(case["q"], case["k"]), case["v"], keep)[0])


def test_combiner_of_a_grid_sums_to_one_and_does_not_look_ahead():
    for full in (
        group_f.combiner_axial(**inputs_f.case_combiner_axial())[1],
        group_f.combiner_rows(**inputs_f.case_combiner_rows())[1],
        group_f.combiner_rows(**inputs_f.case_combiner_rows(mixed_keys=False))[1],
    ):
        ones(full)
        assert (full[:, :, ~causal(17, 17)] == 0).all()
        assert (full[:, :, causal(17, 17)] > 0).all()


def test_hilo_pooling_commutes_with_the_projection():
    draw = Draw(2)
    x, w, bias = draw.normal(2, 24, 7), draw.normal(7, 5), draw.normal(5)
    pooled = group_f_sources.pooled_tokens(x, 4, 6, 2)
    close(pooled @ w + bias, group_f_sources.pooled_tokens(x @ w + bias, 4, 6, 2))
    assert pooled.shape == (2, 6, 7)
    close(pooled[:, 1], x[:, [2, 3, 8, 9]].mean(1))
    case = inputs_f.case_hilo()
    q, k, v = case["low"]
    close(group_f_sources.hilo_low(q, k, v, 4, 6, 1), attend(scores(q, k), v)[0])


def test_sources_merge_by_their_log_sums():
    case = inputs_f.case_memory_slots()
    o, lse = group_f_sources.memory_slots(**case)
    own = attend(scores(case["q"], case["k"]), case["v"], case["keep"])
    mem = [x.expand(2, *x.shape) for x in (case["mem_k"], case["mem_v"])]
    slots = attend(scores(case["q"], mem[0]), mem[1])
    parts = torch.stack((own[1], slots[1]), -1)
    close(lse, torch.logsumexp(parts, -1))
    close(o, (softmax(parts)[..., None, :] @ torch.stack((own[0], slots[0]), -2))[..., 0, :])
    close(o[1], slots[0][1])
    fca = inputs_f.case_fca()
    want = attend(scores(fca["q"], fca["k"]), fca["v"])[0]
    close(group_f_sources.fca(**but(fca, cross=fca["cross"][:, :0])), want)
    assert not torch.allclose(group_f_sources.fca(**fca), want)


def test_gates_of_levels_stay_between_zero_and_all():
    case = inputs_f.case_gated_levels()
    shut = but(case, w_gate=torch.zeros_like(case["w_gate"]), scaled=False)
    c = sum(attend(scores(case["q"], k), v)[0] for k, v in case["levels"])
    assert isinstance(c, Tensor)
    close(group_f_sources.gated_levels(**shut), 0.5 * c.transpose(1, 2).flatten(2))
    close(
        math.sqrt(3) * group_f_sources.gated_levels(**case),
        group_f_sources.gated_levels(**but(case, scaled=False)),
    )


def test_mqsa_padding_rows_are_zero_and_a_window_of_one_is_the_item_itself():
    case = inputs_f.case_mqsa()
    out = group_f_sources.mqsa(**case)
    assert (out[1, :, :5] == 0).all()
    assert (out[1, :, 5:] != 0).any()
    close(group_f_sources.moving_average(case["x"], case["valid"], 1), case["x"])
    mean = group_f_sources.moving_average(case["x"], case["valid"], 4)
    close(mean[1, 6], case["x"][1, 5:7].mean(0))
    close(mean[0, 9], case["x"][0, 6:10].mean(0))
    q, k, v = case["short"]
    short = group_f_sources.mqsa_branch(q, k, v, case["valid"])
    close(group_f_sources.mqsa(**but(case, alpha=1.0)), short)


def test_cab_patterns_and_local_windows():
    dense = group_f.cross_pattern(13, 19, False, False)
    assert dense.all()
    assert group_f.cross_pattern(13, 19, True, True).all()
    assert group_f.cross_pattern(13, 19, False, True).all()
    assert torch.equal(group_f.cross_pattern(13, 19, True, False), causal(13, 19))
    case = inputs_f.case_local()
    s = scores(case["q"], case["k"])
    for is_causal, first, last in ((False, 6, 12), (True, 7, 9)):
        lse = group_f_cab.local(**but(case, is_causal=is_causal))[1]
        close(lse[:, :, 9], torch.logsumexp(s[:, :, 9, first : last + 1], -1))


def test_abc_in_its_last_row_is_not_causal_and_one_slot_is_one_value():
    case = inputs_f.case_abc_causal()
    close(group_f_cab.abc_causal(**case)[:, :, -1], group_f_cab.abc(**case)[:, :, -1])
    one = but(case, w_k=case["w_k"][:, :1], w_v=case["w_v"][:, :1])
    out = group_f_cab.abc(**one)
    close(out, out[:, :, :1].expand_as(out))


def test_linear_attentions_equal_their_recurrence_over_keys():
    case = inputs_f.case_performer()
    phi_q = group_f_cab.performer_features(case["q"], case["projection"], True)
    phi_k = group_f_cab.performer_features(share(case["k"], 4), case["projection"], False)
    v, state, total = share(case["v"], 4), 0.0, 0.0
    for t in range(19):
        state = state + phi_k[:, :, t, :, None] * v[:, :, t, None, :]
        total = total + phi_k[:, :, t, :, None]
    z = phi_q @ torch.as_tensor(total)
    assert (z < 0.1).any()
    assert (z > 0.1).any()
    close(group_f_cab.performer(**case), phi_q @ torch.as_tensor(state) / z.clamp(min=0.1))
    q, k, v = inputs_f.case_cosformer().values()
    turn = math.pi / 2 / 19
    at_q, at_k = (torch.arange(1, n).double()[:, None] * turn for n in (14, 20))
    q, k = torch.relu(q), share(torch.relu(k), 4)
    q = torch.cat((q * torch.sin(at_q), q * torch.cos(at_q)), -1)
    k = torch.cat((k * torch.sin(at_k), k * torch.cos(at_k)), -1)
    want = q @ (k.transpose(-1, -2) @ share(v, 4)) / (q @ k.sum(2)[..., None])
    close(group_f_cab.cosformer(**inputs_f.case_cosformer()), want)


def test_lara_and_nystrom_mix_values_with_weights_that_sum_to_one():
    for name, atol in (("lara", 1e-12), ("nystrom", 0.05)):
        case = getattr(inputs_f, f"case_{name}")()
        flat = but(case, v=torch.ones_like(case["v"]))
        close(getattr(group_f_cab, name)(**flat), torch.ones(2, 4, 17, 6).double(), atol)
    assert [len(x) for x in torch.arange(17).split([3, 3, 3, 4, 4])] == [3, 3, 3, 4, 4]
    means = group_f_cab.segment_means(torch.arange(17.0)[None, None, :, None].double(), 5)
    assert means.flatten().tolist() == [1, 4, 7, 10.5, 14.5]


def test_iterated_inverse_is_the_inverse():
    a = softmax(3 * Draw(5).normal(2, 4, 4) + 6 * torch.eye(4))
    close(group_f_cab.iterative_inverse(a, 20) @ a, torch.eye(4).double().expand(2, 4, 4), 1e-9)


def test_probsparse_rows_and_the_mean_of_the_others():
    case = inputs_f.case_probsparse()
    assert (case["chosen"].sum(-1) == 6).all()
    out = group_f_cab.probsparse(**case)
    exact = attend(scores(case["q"], case["k"]), case["v"])[0]
    mean = share(case["v"], 4).mean(2, keepdim=True).expand_as(out)
    close(out[case["chosen"]], exact[case["chosen"]])
    close(out[~case["chosen"]], mean[~case["chosen"]])


@pytest.mark.parametrize("norm", [False, True])
def test_long_short_without_slots_is_a_window_of_blocks(norm: bool):
    case = inputs_f.case_long_short(norm=norm)
    none = but(case, logits=case["logits"][..., :0], norm=False)
    s = scores(case["q"], case["k"])
    out = group_f_cab.long_short(**none)
    seen = slice(3, 12)  # of the block of 5 to 9, two more on each side
    close(out[:, :, 5:10], softmax(s[:, :, 5:10, seen]) @ case["v"][:, :, seen])
    flat = but(case, v=torch.ones_like(case["v"]), norm=False)
    close(group_f_cab.long_short(**flat), torch.ones_like(flat["v"]))


def test_lama_has_one_effective_query_a_head():
    case = inputs_f.case_lama()
    q = torch.einsum("jxc,bc,jxf->bjf", case["p"], case["context"], case["q"])[:, :, None]
    states = case["states"][:, None]
    want = attend(scores(q, states, 1.0), states, case["keep"][:, None, None])[0][:, :, 0]
    close(group_f_pooling.lama(**case), want)


def test_acmil_bag_is_the_mean_of_its_branches_and_drops_some_of_the_largest():
    case = inputs_f.case_acmil()
    branches, bag, logits = group_f_pooling.acmil(**case)
    close(bag, branches.mean(1))
    order = torch.stack([torch.randperm(10, generator=torch.Generator().manual_seed(n)) for n in range(6)])
    gone = group_f_pooling.acmil_dropped(logits, order.reshape(2, 3, 10), 10, 0.6)
    assert (gone.sum(-1) == 6).all()
    tenth = logits.sort(-1, descending=True).values[..., 9:10]
    assert (logits[gone] >= tenth.expand_as(logits)[gone]).all()


def test_pooling_by_sets_is_two_attentions_and_by_experts_is_linear():
    case = inputs_f.case_apem()
    y, points = group_f_pooling.apem(**case)
    close(
        points[0, 2, 1], softmax(case["inducing"][2, 1] @ case["k"][0, 1].T / math.sqrt(8)) @ case["v"][0, 1]
    )
    keys, values = points[1, 3] @ case["w_k"][3], points[1, 3] @ case["w_v"][3]
    close(y[1, 3, 4], softmax(case["q"][1, 3, 4] @ keys.T / math.sqrt(8)) @ values)
    gate = group_f_pooling.squeeze_excite(y[:, 0], torch.zeros(3, 7).double(), torch.zeros(7, 3).double())
    close(gate, 0.5 * y[:, 0])
    expert = inputs_f.case_aw_moe()
    early = torch.arange(17) < 9
    halves = [group_f_pooling.aw_moe(**but(expert, keep=expert["keep"] & m)) for m in (early, ~early)]
    close(group_f_pooling.aw_moe(**expert), halves[0] + halves[1])


def test_dual_attention_starts_as_the_identity_and_flips():
    case = inputs_f.case_position_attention()
    assert torch.equal(group_f_pooling.position_attention(**but(case, gamma=0.0)), case["x"])
    close(
        (group_f_pooling.position_attention(**case) - case["x"]) / 0.6,
        attend(scores(case["q"] * math.sqrt(8), case["k"]), case["v"])[0],
    )
    x = inputs_f.case_channel_attention()["x"]
    e = x.transpose(-1, -2) @ x
    for flipped, sign in ((False, 1), (True, -1)):
        want = 0.6 * x @ softmax(sign * e).transpose(-1, -2) + x
        close(group_f_pooling.channel_attention(x, 0.6, flipped), want)


def test_extractors_of_equal_weights_agree():
    x, current = Draw(1).normal(2, 17, 6), Draw(2).normal(2, 17, 6)
    w = Draw(3).normal(17)
    we = group_f_pooling.extractor(x, current, "WE", w)
    close(we, group_f_pooling.extractor(x, current, "HE", w[:, None].expand(17, 6)))
    close(we, group_f_pooling.extractor(x, current, "SHE", w[:, None, None] * torch.eye(6)))
    me = group_f_pooling.extractor(x, current, "ME", None)
    close(me, current * x.cumsum(1))
