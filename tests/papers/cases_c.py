"""Group C: one call of each program, with the outputs of its definition. See `cases_cdf`."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.papers import group_c as by_hand
from tests.papers import inputs_c as inputs
from tests.papers.cases_cdf import CAUSAL, Call, Table, length, qkv, rounded, tuple_of

BOTH = ("O", "LSE")


def _alibi() -> Call:
    c = rounded(inputs.case_alibi())
    return Call("alibi", qkv(c), by_hand.alibi(**c), BOTH, values={"slope": c["slopes"]})


def _t5(bidirectional: bool) -> Call:
    c = rounded(inputs.case_t5(bidirectional=bidirectional))
    table = by_hand.t5_buckets(16, bidirectional, 8)
    values = {"far": 16, "bidirectional": bidirectional, "bucket": table, "table": c["table"]}
    return Call("t5_bias", qkv(c), by_hand.t5(**c), BOTH, values=values, scale=1.0)


def _rope(interleaved: bool) -> Call:
    c = rounded(inputs.case_rope(interleaved=interleaved))
    values = {"j": 3, "base": 100.0, "interleaved": interleaved}
    return Call("rope", qkv(c), by_hand.rope(**c), BOTH, values=values)


def _nope() -> Call:
    c = rounded(inputs.case_nope())
    return Call("causal", qkv(c), by_hand.nope(**c), BOTH)


def _sigmoid() -> Call:
    c = rounded(inputs.case_sigmoid_attention())
    want = by_hand.sigmoid_attention(**c)
    return Call("sigmoid", qkv(c), (want,), mask=CAUSAL, values={"bias": c["bias"]})


def _relu_features() -> Call:
    c = rounded(inputs.case_relu_features())
    return Call("relu_features", qkv(c), (by_hand.relu_features(**c),), values={"count": c["count"]})


def _entropy_scale() -> Call:
    c = rounded(inputs.case_entropy_scale())
    return Call("entropy_scale", qkv(c), by_hand.entropy_scale(**c), BOTH, values={"trained": c["trained"]})


def _act() -> Call:
    c = rounded(inputs.case_act())
    return Call("act", qkv(c), by_hand.act(**c), values={n: c[n] for n in ("tau", "beta", "chosen")})


def _dgq(masked: bool) -> Call:
    c = rounded(inputs.case_dgq(masked=masked))
    keys = length(c["keep"]) if masked else inputs.torch.full((2,), inputs.N_K)
    values = {"step": c["step"], "bits": c["bits"], "length": keys}
    return Call("dgq", qkv(c), (by_hand.dgq(**c),), values=values)


def _gat() -> Call:
    c = rounded(inputs.case_gat())
    nodes = rounded(inputs.torch.einsum("hdf,btf->bhtd", c["w"], c["x"]))
    # The projected nodes are what the program reads; their rounding is not its error.
    heads = inputs.torch.eye(nodes.shape[1] * nodes.shape[3]).double().unflatten(0, nodes.shape[1::2])
    c |= {"x": nodes.transpose(1, 2).flatten(2), "w": heads}
    values = {n: c[n] for n in ("a_query", "a_key", "adjacency")}
    return Call("gat", (nodes, nodes, nodes), by_hand.gat(**c), values=values)


def _perturbed(with_query: bool) -> Call:
    c = rounded(inputs.case_perturbed(with_query=with_query))
    names = ("w_key", "w_out", "shift", *(("w_query",) if with_query else ()))
    values = {**{n: c[n] for n in names}, "length": length(c["keep"])}
    name = "perturbed_additive" if with_query else "perturbed_unary"
    return Call(name, qkv(c), by_hand.perturbed(**c), values=values)


def _prior(form: str) -> Call:
    c = rounded(inputs.case_vsformer(form=form))
    values: dict[str, Any] = {"prior": c["prior"], "length": length(c["keep"])}
    values |= {"gamma": c["gamma"]} if form == "add" else {}
    return Call(f"prior_{form}", qkv(c), by_hand.vsformer(**c), BOTH, values=values)


def _boosted() -> Call:
    c = rounded(inputs.case_boosted())
    names = ("alpha", "beta", "start", "local", "summary", "gain")
    return Call("boosted_tokens", qkv(c), by_hand.boosted(**c), BOTH, values={n: c[n] for n in names})


def _anchored() -> Call:
    c = rounded(inputs.case_anchored())
    values = {n: c[n] for n in ("first", "second", "chosen")}
    return Call("anchored_swap", qkv(c), tuple_of(by_hand.anchored(**c)), values=values)


CASES: Table = {
    "alibi": _alibi,
    "t5_bias": partial(_t5, False),
    "t5_bias bidirectional": partial(_t5, True),
    "rope": partial(_rope, False),
    "rope interleaved": partial(_rope, True),
    "causal": _nope,
    "sigmoid": _sigmoid,
    "relu_features": _relu_features,
    "entropy_scale": _entropy_scale,
    "act": _act,
    "dgq": partial(_dgq, True),
    "dgq whole": partial(_dgq, False),
    "gat": _gat,
    "perturbed_additive": partial(_perturbed, True),
    "perturbed_unary": partial(_perturbed, False),
    "prior_log": partial(_prior, "log"),
    "prior_add": partial(_prior, "add"),
    "prior_product": partial(_prior, "product"),
    "boosted_tokens": _boosted,
    "anchored_swap": _anchored,
}
