"""Group F: one call of each program, with the outputs of its definition. See `cases_cdf`."""

from __future__ import annotations

from functools import partial

import torch

from tests.papers import group_f as by_hand
from tests.papers import group_f_cab as cab
from tests.papers import group_f_pooling as pooling
from tests.papers import group_f_sources as sources
from tests.papers import inputs_f as inputs
from tests.papers.cases_cdf import CAUSAL, Call, Table, length, qkv, rounded
from tests.papers.group_common import Tensor, scores, softmax

BOTH = ("O", "LSE")


def unread(n_q: int, heads: int = 4, d: int = 8) -> Tensor:
    """A query that a program does not read: its shape says how many heads and rows there are."""
    return torch.zeros(2, heads, n_q, d, dtype=torch.float64)


def _fusemax(passes: str, name: str) -> Call:
    c = rounded(getattr(inputs, f"case_fusemax_{passes}_pass")())
    want = getattr(by_hand, f"fusemax_{passes}_pass")(**c)
    values = {"tile": c["tile"]} if "tile" in c else {}
    return Call(name, qkv(c), (want,), mask=CAUSAL, values=values)


def _online() -> Call:
    """The recurrence of a fixed query, as rows that are all that query."""
    c = rounded(inputs.case_aaren())
    n = c["k"].shape[2]
    q = c["query"].expand(c["k"].shape[0], *c["query"].shape)[:, :, None].expand(-1, -1, n, -1)
    return Call("online_softmax", (q, c["k"], c["v"]), (by_hand.aaren(**c),), mask=CAUSAL)


def _mossformer(causal: bool) -> Call:
    c = rounded(inputs.case_mossformer(is_causal=causal))
    values = {n: c[n] for n in ("q2", "k2", "u", "chunk")}
    att_v, att_u, out = by_hand.mossformer(**c)
    name = "mossformer2_causal" if causal else "mossformer2"
    return Call(name, (c["q1"], c["k1"], c["v"]), (out, att_v, att_u), values=values)


def _aaren() -> Call:
    c = rounded(inputs.case_aaren())
    want = by_hand.aaren(**c)
    return Call("aaren", (unread(17), c["k"], c["v"]), (want,), ("O",), values={"learned": c["query"]})


def _combiner_fixed(causal: bool) -> Call:
    c = rounded(inputs.case_combiner_fixed(is_causal=causal))
    want = by_hand.combiner_fixed(**c)[0]
    return Call("combiner_fixed", qkv(c), (want,), values={"segment": 5, "causal": causal})


def _combiner_axial() -> Call:
    c = rounded(inputs.case_combiner_axial())
    return Call("combiner_axial", qkv(c), (by_hand.combiner_axial(**c)[0],), values={"x": 5})


def _combiner_rows(mixed: bool) -> Call:
    c = rounded(inputs.case_combiner_rows(mixed_keys=mixed))
    values = {"columns": 5, "mixed_keys": mixed}
    return Call("combiner_rowmajor", qkv(c), (by_hand.combiner_rows(**c)[0],), values=values)


def _hilo_low() -> Call:
    c = rounded(inputs.case_hilo())
    want = sources.hilo_low(*c["low"], 4, 6, 2)
    return Call("hilo_low", c["low"], (want,), values={"width": 6})


def _hilo_high() -> Call:
    c = rounded(inputs.case_hilo())
    want = sources.hilo_high(*c["high"], 4, 6, 2)
    values = {"grid": (4, 6), "window": 2}
    return Call("vitdet_window", c["high"], (want,), ("O",), values=values)


def _fcaformer() -> Call:
    c = rounded(inputs.case_fca())
    merged = c["cross"] * c["factor"]
    given = [rounded(torch.einsum("gdc,bjc->bgjd", c[w], merged)) for w in ("w_k", "w_v")]
    # The program reads the projections; `fca` makes them, so it is given tokens that are projected to them.
    eyes = [torch.eye(2 * x.shape[3]).double().unflatten(0, (2, -1)) for x in given]
    flat = [x.transpose(1, 2).flatten(2) for x in given]
    w_k = torch.cat((eyes[0], torch.zeros(2, eyes[0].shape[1], flat[1].shape[2])), -1)
    w_v = torch.cat((torch.zeros(2, eyes[1].shape[1], flat[0].shape[2]), eyes[1]), -1)
    one = torch.ones(1, dtype=torch.float64)
    want = sources.fca(c["q"], c["k"], c["v"], torch.cat(flat, -1), one, w_k, w_v)
    values = {"extra_k": given[0], "extra_v": given[1]}
    return Call("extra_keys", qkv(c), (want,), values=values)


def _memory_slots() -> Call:
    c = rounded(inputs.case_memory_slots())
    kept = length(c["keep"])
    values = {f"extra_{x}": c[f"mem_{x}"].expand(2, -1, -1, -1) for x in "kv"} | {"length": kept}
    mask = "length[b]: int\nmask = k < length[b]"
    return Call("extra_keys", qkv(c), sources.memory_slots(**c), BOTH, mask, values)


def _mqsa_short() -> Call:
    c = rounded(inputs.case_mqsa())
    want = sources.mqsa_branch(*c["short"], c["valid"])
    return Call("padded_causal", c["short"], (want,), ("O",), values={"valid": c["valid"]})


def _mqsa_long() -> Call:
    c = rounded(inputs.case_mqsa()) | {"alpha": 0.0}
    values = {n: c[n] for n in ("last", "x", "valid", "w_query")}
    return Call("mqsa_long", (unread(17, 2), c["k"], c["v"]), (sources.mqsa(**c),), values=values)


def _local() -> Call:
    c = rounded(inputs.case_local())
    return Call("bidirectional_window", qkv(c), cab.local(**c), BOTH, values={"radius": c["width"]})


def _local_causal() -> Call:
    c = rounded(inputs.case_local(is_causal=True))
    return Call("sliding_window", qkv(c), cab.local(**c), BOTH, values={"window": c["width"]})


def _abc(causal: bool) -> Call:
    name = "abc_causal" if causal else "abc"
    c = rounded(getattr(inputs, f"case_{name}")())
    want = getattr(cab, name)(**c)
    return Call(name, qkv(c), (want,), values={n: c[n] for n in ("w_k", "w_v")})


def _performer() -> Call:
    c = rounded(inputs.case_performer())
    return Call("performer", qkv(c), (cab.performer(**c),), values={"w": c["projection"]})


def _cosformer() -> Call:
    c = rounded(inputs.case_cosformer())
    return Call("cosformer", qkv(c), (cab.cosformer(**c),))


def _lara() -> Call:
    c = rounded(inputs.case_lara())
    return Call("lara", qkv(c), (cab.lara(**c),), values={"j": c["count"]})


def _landmarks(c: dict[str, Tensor]) -> Tensor:
    bars = [cab.segment_means(x, 5) for x in (c["q"], c["k"])]
    return softmax(scores(bars[0], bars[1], 1 / c["q"].shape[-1]))


def _nystrom_landmarks() -> Call:
    c = rounded(inputs.case_nystrom())
    return Call("nystrom_landmarks", qkv(c), (_landmarks(c),), values={"j": 5}, scale=1 / 8)


def _nystrom() -> Call:
    c = rounded(inputs.case_nystrom())
    values = {"inverse": cab.iterative_inverse(_landmarks(c)), "j": 5}
    return Call("nystrom", qkv(c), (cab.nystrom(**c),), values=values, scale=1 / 8)


def _probsparse() -> Call:
    c = rounded(inputs.case_probsparse())
    return Call("probsparse", qkv(c), (cab.probsparse(**c),), values={"chosen": c["chosen"]})


def _long_short() -> Call:
    c = rounded(inputs.case_long_short())
    values = {"logits": c["logits"], "window": 5}
    return Call("long_short", qkv(c), (cab.long_short(**c),), ("O",), values=values)


def _long_short_given() -> Call:
    c = rounded(inputs.case_long_short(norm=True))
    shares = softmax(c["logits"].transpose(-1, -2))
    values = {
        f"extra_{x}": sources.layer_norm((shares @ c[x]).transpose(1, 2).flatten(2), 1e-5)
        .unflatten(2, (4, -1))
        .transpose(1, 2)
        for x in "kv"
    }
    want = cab.long_short(**c)
    return Call("long_short_given", qkv(c), (want,), ("O",), values=values | {"window": 5})


def _lama() -> Call:
    c = rounded(inputs.case_lama())
    states = c["states"][:, None]
    values = {"context": c["context"], "p": c["p"], "w": c["q"], "length": length(c["keep"])}
    call = (unread(1, 4, 6), states, states)
    return Call("lama", call, (pooling.lama(**c),), values=values, pick=lambda outs: (outs[0][:, :, 0],))


def _acmil() -> Call:
    c = rounded(inputs.case_acmil())
    bag = c["x"][:, None]
    values = {n: c[n] for n in ("w_v", "b_v", "w_u", "b_u", "w", "dropped")}
    branches, mean, logits = pooling.acmil(**c)
    want = (branches, mean, logits.masked_fill(c["dropped"], 0.0))
    return Call(
        "acmil", (unread(1, 3, 6), bag, bag), want, values=values,
        pick=lambda o: (o[0][:, :, 0], o[1][:, 0], o[2].masked_fill(c["dropped"], 0.0)),
    )  # fmt: skip


def _inducing_points() -> Call:
    c = rounded(inputs.case_apem())
    values = {n: c[n] for n in ("inducing", "w_k", "w_v")}
    return Call("inducing_points", qkv(c), pooling.apem(**c), values=values)


def _expert_gate() -> Call:
    c = rounded(inputs.case_aw_moe())
    names = ("b_out", "w_query", "w_key", "bias", "w_out")
    values = {**{n: c[n] for n in names}, "length": length(c["keep"])}
    return Call("expert_gate", qkv(c), (pooling.aw_moe(**c),), values=values)


def _position_attention() -> Call:
    c = rounded(inputs.case_position_attention())
    values = {"gamma": c["gamma"], "x": c["x"]}
    return Call("position_attention", qkv(c), (pooling.position_attention(**c),), values=values, scale=1.0)


def _channel_attention(flipped: bool) -> Call:
    c = rounded(inputs.case_channel_attention(flipped=flipped))
    want = pooling.channel_attention(**c)
    values = {"beta": c["beta"], "flipped": flipped}
    return Call("channel_attention", (c["x"],) * 3, (want,), values=values)


def _extractor(kind: str) -> Call:
    c = rounded(inputs.case_extractor(kind=kind))
    x = c["x"][:, None]
    values = {"current": c["current"], **({} if kind == "ME" else {"w": c["weights"]})}
    want = pooling.extractor(**c)
    return Call(
        f"extractor_{kind.lower()}", (x, x, x), (want,), values=values, pick=lambda outs: (outs[0][:, 0],)
    )


CASES: Table = {
    "softmax": partial(_fusemax, "three", "softmax"),
    "softmax_two_pass": partial(_fusemax, "two", "softmax_two_pass"),
    "softmax_one_pass": partial(_fusemax, "one", "softmax_one_pass"),
    "online_softmax": _online,
    "mossformer2": partial(_mossformer, False),
    "mossformer2_causal": partial(_mossformer, True),
    "aaren": _aaren,
    "combiner_fixed": partial(_combiner_fixed, True),
    "combiner_fixed whole": partial(_combiner_fixed, False),
    "combiner_axial": _combiner_axial,
    "combiner_rowmajor": partial(_combiner_rows, True),
    "combiner_rowmajor own keys": partial(_combiner_rows, False),
    "hilo_low": _hilo_low,
    "vitdet_window": _hilo_high,
    "extra_keys": _fcaformer,
    "extra_keys of memory": _memory_slots,
    "padded_causal": _mqsa_short,
    "mqsa_long": _mqsa_long,
    "bidirectional_window": _local,
    "sliding_window": _local_causal,
    "abc": partial(_abc, False),
    "abc_causal": partial(_abc, True),
    "performer": _performer,
    "cosformer": _cosformer,
    "lara": _lara,
    "nystrom_landmarks": _nystrom_landmarks,
    "nystrom": _nystrom,
    "probsparse": _probsparse,
    "long_short": _long_short,
    "long_short_given": _long_short_given,
    "lama": _lama,
    "acmil": _acmil,
    "inducing_points": _inducing_points,
    "expert_gate": _expert_gate,
    "position_attention": _position_attention,
    "channel_attention": partial(_channel_attention, False),
    "channel_attention flipped": partial(_channel_attention, True),
    "extractor_he": partial(_extractor, "HE"),
    "extractor_we": partial(_extractor, "WE"),
    "extractor_me": partial(_extractor, "ME"),
}
