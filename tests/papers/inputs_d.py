"""Small calls of group D's operators: the arguments of each definition of the `group_d` modules, from one seed.

Two batch entries, four query heads on two key heads, 13 rows and 19 keys where nothing else is said.
"""

from __future__ import annotations

import torch

from tests.papers.group_common import Case, Draw, Tensor, causal, softmax
from tests.papers.group_d_papers import gaussian_kernel

N_Q, N_K = 13, 19


def _qk(draw: Draw, n_q: int = N_Q, n_k: int = N_K, **more: int) -> Case:
    case = draw.qkv(n_q, n_k, **more)
    return {"q": 2 * case["q"], "k": case["k"]}


def _map(seed: int, n_q: int = N_Q, n_k: int = N_K) -> Case:
    return {**_qk(Draw(seed), n_q, n_k), "keep": causal(n_q, n_k)}


def case_attention_map(seed: int = 0) -> Case:
    return _map(seed)


def case_entropy(seed: int = 0) -> Case:
    """More rows than keys: the first rows see nothing."""
    return _map(seed, 19, 13)


def case_mean_entropy(seed: int = 0) -> Case:
    return _qk(Draw(seed), 17, 17)


def case_nmi(seed: int = 0) -> Case:
    return _qk(Draw(seed), 17, 17)


def case_kl_rows(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {
        "teacher": draw.normal(2, 4, N_Q, N_K),
        "student": draw.normal(2, 4, N_Q, N_K),
        "keep": causal(N_Q, N_K),
    }


def case_span_mass(seed: int = 0) -> Case:
    span = torch.tensor([-1, -1, 0, 0, 0, 0, 1, 1, 1, -1, 2, 2, 2, 2, 2, 3, 3, 3, 3])
    return {**_map(seed), "span": span, "count": 4}


def case_distance_histogram(seed: int = 0) -> Case:
    """A grid of 3 x 5 patches."""
    return {**_qk(Draw(seed), 15, 15), "height": 3, "width": 5}


def _rows() -> Tensor:
    return (torch.arange(N_Q) >= 4) & (torch.arange(N_Q) < 11)


def case_column_sums(seed: int = 0) -> Case:
    return {**_map(seed), "rows": _rows()}


def case_column_means(seed: int = 0) -> Case:
    return {**_map(seed), "rows": _rows()}


def case_diagonal_sums(seed: int = 0) -> Case:
    return _map(seed)


def case_block_max(seed: int = 0) -> Case:
    return {**_map(seed), "block_q": 4, "block_k": 5}


def case_block_sum(seed: int = 0) -> Case:
    return {**_qk(Draw(seed)), "keep": None, "block_q": 4, "block_k": 5}


def case_map_rows(seed: int = 0) -> Case:
    return {**_map(seed), "rows": torch.tensor([12, 3, 7])}


def case_head_mean(seed: int = 0) -> Case:
    return _map(seed)


def case_head_max(seed: int = 0) -> Case:
    return _map(seed)


def case_top_of_row(seed: int = 0) -> Case:
    """Keys 5 and 6 are the same, so there is a tie."""
    case = _map(seed)
    case["k"][:, :, 6] = case["k"][:, :, 5]
    return {**case, "row": N_Q - 1, "count": 8}


def case_unip(seed: int = 0) -> Case:
    """The teacher has wider heads."""
    draw = Draw(seed)
    teacher, student = _qk(draw, 17, 17, d=12), _qk(draw, 17, 17)
    return {"q_t": teacher["q"], "k_t": teacher["k"], "q_s": student["q"], "k_s": student["k"]}


def case_distance_profile(seed: int = 0) -> Case:
    gate = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    return {**Draw(seed).qkv(15, 15), "height": 3, "width": 5, "gate": gate}


def case_icr_scores(seed: int = 0) -> Case:
    """The last 6 rows are the query."""
    return {**_map(seed, N_Q, 41), "rows": torch.arange(N_Q) >= N_Q - 6}


def case_icr(seed: int = 0) -> Case:
    """Three documents; each has a token that calibration makes an outlier."""
    draw = Draw(seed)
    score, blank = draw.uniform(2, 41), draw.uniform(2, 41)
    score[:, [7, 15, 30]] -= 4
    return {"score": score, "blank": blank, "documents": [(2, 12), (13, 20), (21, 34)]}


def case_adl(seed: int = 0) -> Case:
    return _qk(Draw(seed), 17, 17)


def case_relative_attention(seed: int = 0) -> Case:
    draw = Draw(seed)
    own, generic = softmax(draw.normal(2, 4, 23)), softmax(draw.normal(2, 4, 23))
    return {"own": own, "generic": generic, "first": 3, "last": 18}


def case_weighted_rows(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {
        **draw.qkv(),
        "keep": causal(N_Q, N_K),
        "rows": torch.tensor([N_Q - 1]),
        "w_out": draw.normal(4, 11, 6),
    }


def case_consistency(seed: int = 0) -> Case:
    case = case_span_mass(seed)
    return {**case, "row": N_Q - 1, "count": 3}


def case_object_mask(seed: int = 0) -> Case:
    return {**_qk(Draw(seed), 16, 11), "tokens": torch.arange(11) % 4 == 1, "threshold": 0.09}


def case_vhd(seed: int = 0) -> Case:
    image = (torch.arange(N_K) >= 3) & (torch.arange(N_K) < 12)
    return {**Draw(seed).qkv(), "keep": causal(N_Q, N_K), "image": image}


def case_vhr(seed: int = 0) -> Case:
    draw = Draw(seed)
    return {"o": draw.normal(2, 4, N_Q, 6), "chosen": draw.bits(0.5, 2, 4), "gain": 1.4}


def case_opera(seed: int = 0, response: int = 12) -> Case:
    """Twelve response tokens of 29; with ten or fewer the penalty is the image mass."""
    return {**_map(seed, 29, 29), "start": 29 - response, "image": (2, 11)}


def case_hybrid_distillation(seed: int = 0) -> Case:
    draw = Draw(seed)
    teacher, student = draw.qkv(17, 17, d=12, e=10), draw.qkv(17, 17)
    return {f"{x}_t": teacher[x] for x in "qkv"} | {f"{x}_s": student[x] for x in "qkv"}


def case_disendiff(seed: int = 0, twice: bool = False) -> Case:
    """Two layers on a map of 5 x 5, 11 text tokens."""
    draw = Draw(seed)
    layers = [(q["q"], q["k"]) for q in (_qk(draw, 25, 11) for _ in range(2))]
    tokens = torch.tensor([[2, 3, 6, 7], [1, 2, 8, 9]])
    return {"layers": layers, "tokens": tokens, "side": 5, "kernel": gaussian_kernel(), "twice": twice}


def case_echo(seed: int = 0) -> Case:
    """Two followers, one with wider values."""
    draw = Draw(seed)
    case = _qk(draw)
    return {**case, "keep": causal(N_Q, N_K), "followers": [draw.normal(2, 2, N_K, e) for e in (6, 9)]}
