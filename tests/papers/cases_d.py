"""Group D and EchoAtt: one call of each program, with the outputs of its definition. See `cases_cdf`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.papers import group_d as by_hand
from tests.papers import group_d_papers as papers
from tests.papers import inputs_d as inputs
from tests.papers.cases_cdf import CAUSAL, Call, Table, qkv, rounded, tuple_of
from tests.papers.group_common import Draw, causal, log_sum, scores


def _read(program: str, case: str, definition: str, mask: str | None = CAUSAL, **names: Any) -> Call:
    """A statistic that has a definition of its own: values by name in the case, or as they are."""
    c = rounded(getattr(inputs, f"case_{case}")())
    want = getattr(by_hand if hasattr(by_hand, definition) else papers, definition)(**c)
    values = {n: c[x] if isinstance(x, str) else x for n, x in names.items()}
    return Call(program, qkv(c), tuple_of(want), mask=mask, values=values)


def _column_sums() -> Call:
    c = rounded(inputs.case_column_sums())
    want = (by_hand.column_sums(**c), by_hand.column_means(**c))
    return Call("column_sums", qkv(c), want, mask=CAUSAL, values={"row": c["rows"]})


def _blocks(program: str, mask: str | None, rows: int, keys: int) -> Call:
    name = "block_max" if program == "block_max" else "block_sum"
    c = rounded(getattr(inputs, f"case_{name}")()) | {"block_q": rows, "block_k": keys}
    want = getattr(by_hand, name)(**c)
    return Call(program, qkv(c), (want,), mask=mask, values={"rows": rows, "keys": keys})


def _head_maps() -> Call:
    c = rounded(inputs.case_head_mean())
    return Call("head_maps", qkv(c), (by_hand.head_mean(**c), by_hand.head_max(**c)), mask=CAUSAL)


def _span_mass() -> Call:
    c = rounded(inputs.case_span_mass())
    values = {"span": c["span"], "j": c["count"]}
    return Call("span_mass", qkv(c), (by_hand.span_mass(**c),), ("m",), CAUSAL, values)


def _top_of_row() -> Call:
    c = rounded(inputs.case_top_of_row())
    values = {"row": c["row"], "j": c["count"]}
    return Call("top_of_row", qkv(c), by_hand.top_of_row(**c), mask=CAUSAL, values=values)


def _attention_kl() -> Call:
    c = rounded(inputs.case_unip())
    want = by_hand.kl_rows(scores(c["q_t"], c["k_t"]), scores(c["q_s"], c["k_s"]))
    values = {"q_t": c["q_t"], "k_t": c["k_t"], "scale_t": 12**-0.5}
    return Call("attention_kl", (c["q_s"], c["k_s"], c["k_s"]), (want,), values=values)


def _value_relation() -> Call:
    c = rounded(inputs.case_hybrid_distillation())
    want = papers.hybrid_distillation(**c)[1]
    values = {"v_t": c["v_t"], "scale_t": 10**-0.5}
    # Relations of values are those of key heads; a program has query heads, which repeat them.
    call = (c["q_s"], c["k_s"], c["v_s"])
    return Call("value_relation_kl", call, (want,), values=values, pick=lambda outs: (outs[0][:, ::2],))


def _icr_scores() -> Call:
    c = rounded(inputs.case_icr_scores())
    return Call("icr_scores", qkv(c), (papers.icr_scores(**c),), values={"row": c["rows"]})


def _diversification() -> Call:
    c = rounded(inputs.case_adl())
    return Call("diversification_loss", qkv(c), (papers.adl(**c),), pick=lambda outs: (outs[0].mean(),))


def _relative() -> Call:
    own, neutral = (rounded(inputs.case_attention_map(seed)) for seed in (0, 5))
    rows = [by_hand.attention_map(**c)[:, :, -1] for c in (own, neutral)]
    mean = rounded(rows[1].mean(1))
    want = papers.relative_attention(rows[0], mean[:, None], 3, 18)
    values = {"neutral": mean}
    return Call(
        "relative_attention", qkv(own), (want,), ("ratio",), values=values, pick=lambda o: (o[0][:, 3:18],)
    )


def _weighted_rows() -> Call:
    c = rounded(inputs.case_weighted_rows())
    values = {"rows": c["rows"], "w_out": c["w_out"]}
    return Call("weighted_rows", qkv(c), (papers.weighted_rows(**c),), values=values)


def _object_map() -> Call:
    c = rounded(inputs.case_object_mask())
    values = {"token": c["tokens"], "threshold": c["threshold"]}
    return Call("object_map", qkv(c), papers.object_mask(**c), values=values)


def _vision_divergence() -> Call:
    c = rounded(inputs.case_vhd())
    chosen = Draw(1).bits(0.5, 2, 4)
    divergence, o = papers.vhd(**c)
    values = {"image": c["image"], "gain": torch.where(chosen, 1.5, 1.0)}
    want = (papers.vhr(o, chosen, 1.5), divergence)
    return Call("vision_divergence", qkv(c), want, values=values)


def _opera(response: int) -> Call:
    c = rounded(inputs.case_opera(response=response))
    values = {"start": 29 - response, "first_image": 2, "last_image": 10, "j": response}
    return Call("opera", qkv(c), papers.opera(**c), values=values)


def _disendiff(twice: bool) -> Call:
    c = rounded(inputs.case_disendiff(twice=twice))
    c["layers"] = c["layers"][:1]
    q, k = c["layers"][0]
    values = {"side": 5, "power": 4 if twice else 2, "token": c["tokens"], "kernel": c["kernel"]}
    return Call("disendiff", (q, k, k), (papers.disendiff(**c),), values=values)


def _token_maps() -> Call:
    c = rounded(inputs.case_disendiff())
    layers = c["layers"][1:]
    maps = [papers.token_map(layers, c["tokens"][:, n], 5).flatten(1) for n in range(4)]
    q, k = layers[0]
    return Call("token_maps", (q, k, k), (torch.stack(maps, -1),), values={"token": c["tokens"]})


def _replay() -> Call:
    c = rounded(inputs.case_echo())
    follower = c["followers"][1]
    lse = log_sum(scores(c["q"], c["k"]), causal(13, 19))
    want = papers.echo(**c)[1]
    return Call("softmax_replay", (c["q"], c["k"], follower), (want,), mask=CAUSAL, values={"lse": lse})


CASES: Table = {
    "entropy": partial(_read, "entropy", "entropy", "entropy"),
    "mean_entropy": partial(_read, "mean_entropy", "mean_entropy", "mean_entropy", None),
    "mutual_information": partial(_read, "mutual_information", "nmi", "nmi", None),
    "attention_kl": _attention_kl,
    "value_relation_kl": _value_relation,
    "span_mass": _span_mass,
    "distance_profile": partial(
        _read, "distance_profile", "distance_profile", "distance_profile", None, width=5, r=5, gate="gate"
    ),
    "column_sums": _column_sums,
    "diagonal_sums": partial(_read, "diagonal_sums", "diagonal_sums", "diagonal_sums"),
    "block_max": partial(_blocks, "block_max", CAUSAL, 4, 8),
    "block_max odd": partial(_blocks, "block_max", CAUSAL, 4, 5),
    "block_mass": partial(_blocks, "block_mass", None, 4, 8),
    "block_mass odd": partial(_blocks, "block_mass", None, 4, 5),
    "map_rows": partial(_read, "map_rows", "map_rows", "map_rows", rows="rows"),
    "head_maps": _head_maps,
    "top_of_row": _top_of_row,
    "icr_scores": _icr_scores,
    "diversification_loss": _diversification,
    "relative_attention": _relative,
    "weighted_rows": _weighted_rows,
    "object_map": _object_map,
    "vision_divergence": _vision_divergence,
    "opera": partial(_opera, 12),
    "opera short": partial(_opera, 10),
    "disendiff": partial(_disendiff, False),
    "disendiff twice": partial(_disendiff, True),
    "token_maps": _token_maps,
    "softmax_replay": _replay,
}
