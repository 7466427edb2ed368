"""Papers of groups C, D, E.2 and F, as data: other scores and weights, what is read off the map, other cascades.

`attngen papers` makes a page of each group (see `attngen.paper_groups`); the tests hold every program to its paper.
"""

from __future__ import annotations

from attngen.papers import GROUP_A, Paper
from attngen.value import value

_TEST = "test_programs_cdf.py"


@value
class Section:
    """A table of a page."""

    title: str
    papers: tuple[Paper, ...]


@value
class Group:
    """A page: the file's name, its heading, a paragraph, its tables."""

    name: str
    title: str
    intro: str
    sections: tuple[Section, ...]


def _row(number: int, title: str, *programs: str, note: str = "", policy: str = "") -> Paper:
    """A row; `policy` is the function of `attngen.policies` that puts the programs together."""
    if policy:
        note = f"{note}; `attngen.policies.{policy}`" if note else f"`attngen.policies.{policy}`"
    return Paper(number, title, programs, note, _TEST)


GROUP_C: tuple[Paper, ...] = (
    _row(3, "Fixing imbalanced attention to mitigate in-context hallucination", "boosted_tokens"),
    _row(16, "Anchored answers: positional bias in multiple choice", "anchored_swap"),
    _row(
        21,
        "The impact of positional encoding on length generalization",
        "causal",
        "alibi",
        "t5_bias",
        "rope",
        note="`causal` is NoPE; `attngen.scores.alibi_slopes` and `attngen.policies.t5_buckets` make the tables",
    ),
    _row(
        35,
        "VSFormer (prior-enhanced attention)",
        "prior_log",
        "prior_add",
        "prior_product",
        note="the paper leaves room for three forms",
    ),
    _row(37, "GA-MATR (graph attention)", "gat", policy="graph_attention"),
    _row(52, "DGQ: quantised attention of text-to-image models", "dgq"),
    _row(59, "Variable-sized text-to-image synthesis", "entropy_scale"),
    _row(73, "Sigmoid self-attention (FlashSigmoid)", "sigmoid", note="the paper's bias is -log(n_k)"),
    _row(74, "ACT: hidden attention sinks", "act"),
    _row(80, "What can a single attention layer learn? (random features)", "relu_features"),
    _row(
        85,
        "Attention meets perturbations",
        "perturbed_additive",
        "perturbed_unary",
        note="the shift of the second pass is the gradient of the first in the scores, scaled",
    ),
)

GROUP_D: tuple[Paper, ...] = (
    _row(1, "UNIP: infrared segmentation", "mutual_information", "attention_kl", policy="unip_loss"),
    _row(2, "How does attention work in vision transformers?", "entropy", "distance_profile"),
    _row(10, "ICR: attention as a re-ranker", "icr_scores", policy="icr"),
    _row(
        12,
        "TAP and ADL: robust token attention",
        "diversification_loss",
        note="`attngen.policies.token_pooling` mixes the tokens before attention",
        policy="diversification_loss",
    ),
    _row(15, "MLLMs know where to look", "relative_attention", policy="relative_attention"),
    _row(18, "Circuits of multiple choice in Chinchilla", "weighted_rows"),
    _row(25, "Internal consistency of reasoning", "span_mass", policy="internal_consistency"),
    _row(29, "sigmaReparam: attention entropy collapse", "entropy", "mean_entropy"),
    _row(51, "ASGDiffusion", "object_map"),
    _row(61, "VHR: vision-aware head divergence", "vision_divergence", policy="vision_reinforced"),
    _row(
        65, "OPERA: over-trust penalty", "opera", "head_maps",
        note="the whole window, or a decoding step's row of the head maximum; choosing among beams is decoding",
        policy="opera_penalty",
    ),
    _row(68, "Hybrid Distillation", "attention_kl", "value_relation_kl", policy="hybrid_distillation"),
    _row(79, "DisenDiff", "disendiff", "token_maps", note="one layer; maps of several", policy="disendiff_loss"),
)  # fmt: skip

STATISTICS: tuple[Paper, ...] = (
    _row(7, "Recycled attention", "top_of_row", "map_rows"),
    _row(27, "MInference", "column_sums", "diagonal_sums", note="vertical lines and slashes"),
    _row(33, "AdaSpa", "block_mass"),
    _row(36, "SeerAttention", "block_max"),
)

GROUP_E2: tuple[Paper, ...] = (
    _row(
        22, "EchoAtt", "softmax_replay",
        note="the leader is `causal` with its log-sum-exp; which layers share is the model's choice",
        policy="echo",
    ),
)  # fmt: skip

GROUP_F: tuple[Paper, ...] = (
    _row(
        4, "Combiner", "combiner_fixed", "combiner_axial", "combiner_rowmajor",
        note="three factorisations of one full attention",
    ),
    _row(
        11, "CAB: a benchmark of efficient attentions", "sliding_window", "bidirectional_window", "abc", "abc_causal",
        "performer", "cosformer", "lara", "nystrom_landmarks", "nystrom", "probsparse", "long_short",
        "long_short_given", "softmax",
        note="FlashAttention is `softmax`; S4D has no scores; more than one program are `attngen.policies.long_short`, "
        "`attngen.policies.probsparse`",
        policy="nystrom",
    ),
    _row(13, "FcaFormer", "extra_keys", policy="forward_cross_attention"),
    _row(26, "AW-MoE", "expert_gate"),
    _row(30, "ACMIL: multiple instances", "acmil", policy="multiple_instances"),
    _row(
        31, "APEM: set attention", "inducing_points",
        note="read off its description; the channel gate and the residuals come after",
    ),
    _row(43, "HiLo attention", "vitdet_window", "hilo_low", policy="hilo"),
    _row(45, "MQSA-TED", "padded_causal", "mqsa_long", policy="mqsa"),
    _row(
        58, "MossFormer2", "mossformer2", "mossformer2_causal",
        note="rotary embedding and the memory blocks are around it",
    ),
    _row(
        69, "MemMC-MAE", "extra_keys", "softmax",
        note="the encoder's slots, expanded over the batch; the decoder's levels", policy="gated_levels",
    ),
    _row(
        71, "Attention as an RNN (Aaren)", "aaren", "online_softmax",
        note="a prefix scan, chosen by cost; its recurrence, for any query, closes to softmax",
    ),
    _row(
        75, "Extractors", "extractor_he", "extractor_we", "extractor_me",
        note="the matrices of a lag (SHE) column by column", policy="extractor",
    ),
    _row(77, "LAMA: pooling of low rank", "lama"),
    _row(
        78, "FuseMax", "softmax", "softmax_two_pass", "softmax_one_pass",
        note="its cascades of three passes, two and one are proved to be one algorithm",
    ),
    _row(
        84, "Dual attention for meningioma segmentation", "position_attention", "channel_attention",
        note="convolutions come before and after each",
    ),
)  # fmt: skip

GROUPS: tuple[Group, ...] = (
    Group(
        "group-c",
        "Papers: other scores, weights and normalisers",
        "Eleven papers whose attention differs from softmax in the score, in the weights, or in what normalises them.",
        (Section("Scores, weights and normalisers", GROUP_C),),
    ),
    Group(
        "group-d",
        "Papers: what is read off the attention map",
        "Papers that compute entropies, sums of columns, maps of heads, losses and penalties from the map, which is "
        "never\nwritten to memory unless it is itself what is asked for.",
        (
            Section("Papers", GROUP_D),
            Section("Statistics that choose keys", STATISTICS),
            Section("Attention that another layer uses again", GROUP_E2),
        ),
    ),
    Group(
        "group-f",
        "Papers: other cascades",
        "Fifteen papers whose operator is a cascade of its own: linear forms, summaries of tokens, keys of several "
        "sources,\nlearned queries, scans.",
        (Section("Cascades", GROUP_F),),
    ),
)

PAPERS: tuple[Paper, ...] = (*GROUP_A, *GROUP_C, *GROUP_D, *STATISTICS, *GROUP_E2, *GROUP_F)
