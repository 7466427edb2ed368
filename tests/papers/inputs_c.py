"""Small calls of group C's operators: the arguments of each definition of `group_c`, random from one seed.

Two batch entries, four query heads on two key heads, 13 rows and 19 keys where nothing else is said.
"""

from __future__ import annotations

import torch

from tests.papers.group_c import act_sinks, alibi_slopes
from tests.papers.group_common import Case, Draw, causal, scores, softmax

N_Q, N_K = 13, 19


def case_nope(seed: int = 0) -> Case:
    return {**Draw(seed).qkv(), "keep": causal(N_Q, N_K)}


def case_alibi(seed: int = 0, heads: int = 6) -> Case:
    """Six heads: not a power of two."""
    return {**Draw(seed).qkv(h=heads), "keep": causal(N_Q, N_K), "slopes": alibi_slopes(heads)}


def case_t5(seed: int = 0, bidirectional: bool = False) -> Case:
    """Eight buckets and 16 as the furthest distance, so that a short sequence meets all of them."""
    draw = Draw(seed)
    case = draw.qkv(23, 29)
    keep = None if bidirectional else causal(23, 29)
    return {**case, "keep": keep, "table": draw.normal(8, 4), "bidirectional": bidirectional, "furthest": 16}


def case_rope(seed: int = 0, dims: int = 6, interleaved: bool = False) -> Case:
    """Partial: 6 of 8 features. A base of 100 turns the slowest pair visibly within 19 positions."""
    more = {"dims": dims, "base": 100.0, "interleaved": interleaved}
    return {**Draw(seed).qkv(), "keep": causal(N_Q, N_K), **more}


def case_sigmoid_attention(seed: int = 0) -> Case:
    return {**Draw(seed).qkv(), "keep": causal(N_Q, N_K), "bias": -2.9444}


def case_relu_features(seed: int = 0) -> Case:
    """One query token, the last, excluded from the keys; N is the number of the others."""
    keep = torch.arange(N_K)[None] != N_K - 1
    return {**Draw(seed).qkv(1, N_K), "keep": keep, "count": N_K - 1}


def case_entropy_scale(seed: int = 0) -> Case:
    return {**Draw(seed).qkv(19, 19), "trained": 7}


def case_act(seed: int = 0) -> Case:
    """Keys 0, 3 and 8 are attractive: at least two sinks in each chosen head, the first of which is dropped."""
    draw = Draw(seed)
    case = draw.qkv(17, 17)
    for key in (0, 3, 8):
        case["k"][:, :, key] = 3 * case["q"].mean((1, 2))[:, None] + 0.1 * case["k"][:, :, key]
    chosen = torch.tensor([True, False, True, True])
    case |= {"keep": causal(17, 17), "tau": 0.08, "beta": 0.4, "chosen": chosen}
    a = softmax(scores(case["q"], case["k"]), case["keep"])
    assert any(len(act_sinks(a[b, h], case["keep"], 0.08)) for b in range(2) for h in (0, 2, 3))
    return case


def case_dgq(seed: int = 0, masked: bool = True) -> Case:
    """Cross attention to a padded prompt, 4 bits; the step of a head is its greatest weight off the start token."""
    draw = Draw(seed)
    case = draw.qkv()
    keep = draw.lengths(2, N_K) if masked else None
    a = softmax(scores(case["q"], case["k"]), keep)
    return {**case, "keep": keep, "step": a[..., 1:].amax((0, 2, 3)), "bits": 4}


def case_gat(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {
        "x": draw.normal(2, 17, 5),
        "w": draw.normal(4, 8, 5),
        "a_query": draw.normal(4, 8),
        "a_key": draw.normal(4, 8),
        "adjacency": draw.bits(0.2, 2, 17, 17),
    }


def case_perturbed(seed: int = 0, with_query: bool = True) -> Case:
    """One row of queries, one head, padded sequences, a hidden layer of 7."""
    draw = Draw(seed)
    case = draw.qkv(1, N_K, h=1, hkv=1)
    case |= {"keep": draw.lengths(2, N_K), "w_key": draw.normal(7, 8), "w_out": draw.normal(7)}
    case |= {"shift": 0.3 * draw.normal(2, 1, N_K), "w_query": draw.normal(7, 8) if with_query else None}
    return case


def case_vsformer(seed: int = 0, form: str = "log") -> Case:
    """The prior of pairs has zeros, which the first form turns into dropped pairs; row 2 sees nothing there."""
    draw = Draw(seed)
    case = draw.qkv(17, 17)
    pairs = draw.uniform(2, 17, 17) * draw.bits(0.8, 2, 17, 17)
    pairs[:, 2] = 0
    prior = draw.uniform(2, 17) if form == "add" else pairs
    return {**case, "keep": draw.lengths(2, 17), "prior": prior, "form": form, "gamma": 0.7}


def case_boosted(seed: int = 0) -> Case:
    """Tokens 2 to 11 are the image, rows from position 14 on are decoded."""
    draw = Draw(seed)
    case = draw.qkv()
    image = (torch.arange(N_K) >= 2) & (torch.arange(N_K) < 12)
    case |= {"local": image & draw.bits(0.4, 2, N_K), "summary": image & draw.bits(0.3, 2, N_K)}
    case |= {"keep": causal(N_Q, N_K), "gain": draw.uniform(4), "alpha": 0.5, "beta": 0.8, "start": 14}
    return case


def case_anchored(seed: int = 0) -> Case:
    chosen = torch.tensor([False, True, True, False])
    swap = {"first": torch.tensor([4, 0]), "second": torch.tensor([11, 17])}
    return {**Draw(seed).qkv(), "keep": causal(N_Q, N_K), **swap, "chosen": chosen}
