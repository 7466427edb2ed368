"""Small calls of group F's operators: the arguments of each definition of the `group_f` modules, from one seed.

Two batch entries, four query heads on two key heads where the paper allows it, 13 rows and 19 keys or 17 tokens.
"""

from __future__ import annotations

import torch

from tests.papers.group_common import Case, Draw, causal, softmax
from tests.papers.group_f_cab import probsparse_rows

N_Q, N_K, N = 13, 19, 17


def case_fusemax_three_pass(seed: int = 0) -> Case:
    """More rows than keys: the first rows see nothing."""
    return {**Draw(seed).qkv(11, 9), "keep": causal(11, 9)}


def case_fusemax_two_pass(seed: int = 0) -> Case:
    return {**case_fusemax_three_pass(seed), "tile": 4}


def case_fusemax_one_pass(seed: int = 0) -> Case:
    return {**case_fusemax_three_pass(seed), "tile": 4}


def case_mossformer(seed: int = 0, is_causal: bool = False) -> Case:
    """One head, chunks of 5 tokens of 17."""
    draw = Draw(seed)
    case = {name: draw.normal(2, 1, N, 8) for name in ("q1", "k1", "q2", "k2")}
    return {
        **case,
        "v": draw.normal(2, 1, N, 6),
        "u": draw.normal(2, 1, N, 6),
        "chunk": 5,
        "is_causal": is_causal,
    }


def case_aaren(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {"query": draw.normal(4, 8), "k": draw.normal(2, 2, N, 8), "v": draw.normal(2, 2, N, 6)}


def case_combiner_fixed(seed: int = 0, is_causal: bool = True, pool: str = "max") -> Case:
    return {**Draw(seed).qkv(N, N), "segment": 5, "is_causal": is_causal, "pool": pool}


def case_combiner_axial(seed: int = 0) -> Case:
    """Three rows and a part of the fourth, of 5 columns."""
    return {**Draw(seed).qkv(N, N), "columns": 5}


def case_combiner_rows(seed: int = 0, mixed_keys: bool = True) -> Case:
    return {**Draw(seed).qkv(N, N), "columns": 5, "mixed_keys": mixed_keys}


def case_hilo(seed: int = 0) -> Case:
    """A map of 4 x 6, windows of 2; one Hi-Fi head, three Lo-Fi heads."""
    draw = Draw(seed)
    high, low = draw.qkv(24, 24, h=1, hkv=1), draw.qkv(24, 24, h=3, hkv=3)
    return {
        "high": tuple(high.values()),
        "low": tuple(low.values()),
        "height": 4,
        "width": 6,
        "window": 2,
    }


def case_fca(seed: int = 0) -> Case:
    draw = Draw(seed)
    case = {**draw.qkv(N, N), "cross": draw.normal(2, 5, 10), "factor": draw.normal(10)}
    return {**case, "w_k": 0.4 * draw.normal(2, 8, 10), "w_v": 0.4 * draw.normal(2, 6, 10)}


def case_memory_slots(seed: int = 0) -> Case:
    """Padded keys; the second entry has none at all."""
    draw = Draw(seed)
    keep = draw.lengths(2, N_K)
    keep[1] = False
    return {**draw.qkv(), "keep": keep, "mem_k": draw.normal(2, 3, 8), "mem_v": draw.normal(2, 3, 6)}


def case_gated_levels(seed: int = 0, scaled: bool = True) -> Case:
    """Three levels; C = 4 heads x 6."""
    draw = Draw(seed)
    levels = [(draw.normal(2, 2, N_K, 8), draw.normal(2, 2, N_K, 6)) for _ in range(3)]
    gate = 0.2 * draw.normal(3, 24, 48)
    return {
        "q": draw.normal(2, 4, N_Q, 8),
        "levels": levels,
        "y": draw.normal(2, N_Q, 24),
        "w_gate": gate,
    } | {"scaled": scaled}


def case_mqsa(seed: int = 0) -> Case:
    """Padded on the left by 0 and 5 items."""
    draw = Draw(seed)
    valid = torch.arange(N)[None] >= torch.tensor([[0], [5]])
    short, long = draw.qkv(N, N, h=2, hkv=2), draw.qkv(N, N, h=2, hkv=2)
    return {
        "short": tuple(short.values()),
        "x": draw.normal(2, N, 7) * valid[..., None],
        "w_query": draw.normal(2, 8, 7),
        "k": long["k"],
        "v": long["v"],
        "valid": valid,
        "last": 4,
        "alpha": 0.3,
    }


def case_local(seed: int = 0, is_causal: bool = False) -> Case:
    return {**Draw(seed).qkv(N, N), "width": 3, "is_causal": is_causal}


def case_abc(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {**draw.qkv(), "w_k": draw.normal(8, 5), "w_v": draw.normal(6, 5)}


def case_abc_causal(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {**draw.qkv(N, N), "w_k": draw.normal(8, 5), "w_v": draw.normal(6, 5)}


def case_performer(seed: int = 0) -> Case:
    """Keys are large enough for the floor of the denominator to act in some rows and not in others."""
    draw = Draw(seed)
    return {**draw.qkv(), "projection": draw.normal(4, 5, 8)}


def case_cosformer(seed: int = 0) -> Case:
    return Draw(seed).qkv()


def case_lara(seed: int = 0) -> Case:
    return {**Draw(seed).qkv(N, N), "count": 5}


def case_nystrom(seed: int = 0) -> Case:
    return {**Draw(seed).qkv(N, N), "count": 5}


def case_probsparse(seed: int = 0) -> Case:
    draw = Draw(seed)
    case = draw.qkv(N, N)
    return {**case, "chosen": probsparse_rows(case["q"], case["k"], draw.ints(0, N, N, 7), 6)}


def case_long_short(seed: int = 0, norm: bool = False) -> Case:
    draw = Draw(seed)
    return {**draw.qkv(N, N, hkv=4), "logits": draw.normal(2, 4, N, 3), "window": 5, "norm": norm}


def case_lama(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {
        "states": draw.normal(2, N, 6),
        "context": draw.normal(2, 5),
        "p": draw.normal(4, 3, 5),
        "q": draw.normal(4, 3, 6),
        "keep": draw.lengths(2, N)[:, 0, 0],
    }


def case_acmil(seed: int = 0) -> Case:
    """Three branches of 23 instances."""
    draw = Draw(seed)
    return {
        "x": draw.normal(2, 23, 6),
        "w_v": draw.normal(5, 6),
        "b_v": draw.normal(5),
        "w_u": draw.normal(5, 6),
        "b_u": draw.normal(5),
        "w": draw.normal(3, 5),
        "dropped": draw.bits(0.2, 2, 3, 23),
    }


def case_apem(seed: int = 0) -> Case:
    draw = Draw(seed)
    case = {"inducing": draw.normal(4, 5, 8), **draw.qkv(N, N)}
    return {**case, "w_k": draw.normal(4, 6, 8), "w_v": draw.normal(4, 6, 7)}


def case_aw_moe(seed: int = 0) -> Case:
    draw = Draw(seed)
    case = {**draw.qkv(1, N, h=2, hkv=1), "keep": draw.lengths(2, N), "w_query": draw.normal(7, 8)}
    return {**case, "w_key": draw.normal(7, 8), "bias": draw.normal(7), "w_out": draw.normal(7), "b_out": 0.2}


def case_position_attention(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {**draw.qkv(N, N, h=1, hkv=1), "x": draw.normal(2, 1, N, 6), "gamma": 0.6}


def case_channel_attention(seed: int = 0, flipped: bool = False) -> Case:
    return {"x": 0.5 * Draw(seed).normal(2, 1, N, 6), "beta": 0.6, "flipped": flipped}


def case_extractor(seed: int = 0, kind: str = "SHE") -> Case:
    draw = Draw(seed)
    shape = {"SHE": (N, 6, 6), "HE": (N, 6), "WE": (N,)}.get(kind)
    case = {"x": draw.normal(2, N, 6), "current": draw.normal(2, N, 6), "kind": kind}
    return {**case, "weights": None if shape is None else softmax(draw.normal(*shape))}
