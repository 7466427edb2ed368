"""The papers whose operators are programs of `ir/`, as data: rows, programs, and one small call of each program.

`attngen papers` makes a page of it (see `attngen.paper_page`); the tests hold every program to its paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from attngen.value import value

TESTS = "tests/papers"


@value
class Example:
    """One call of a program, small enough to look at all of its pairs.

    n_q, n_k    tokens.
    heads       of queries, where they differ; else 1.
    block       lanes of a tile of queries and of keys.
    values      parameters and, as nested tuples, tensors; `grid` gives the extents of a grid's axes.
    caption     what the call is, in the paper's words.
    """

    program: str
    caption: str
    n_q: int
    n_k: int
    heads: int = 1
    block: int = 64
    values: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The values as a call takes them: nested tuples as tensors, `grid` as it is."""
        import torch

        return {
            name: torch.tensor(x) if isinstance(x, tuple) and name != "grid" else x
            for name, x in self.values.items()
        }


@value
class Paper:
    """A row: its number in the list of 85 papers, the title, and the programs that are its operators.

    note    what of the paper is which program, and what is not an attention operator.
    test    the file of `tests/papers` that works the operator out by the paper's own procedure.
    """

    number: int
    title: str
    programs: tuple[str, ...]
    note: str = ""
    test: str = "test_procedures.py"


def _example(
    program: str, caption: str, n: int | tuple[int, int], *, heads: int = 1, block: int = 64, **values: Any
) -> Example:
    n_q, n_k = n if isinstance(n, tuple) else (n, n)
    return Example(program, caption, n_q, n_k, heads, block, MappingProxyType(values))


GROUP_A: tuple[Paper, ...] = (
    Paper(8, "MoA: mixture of sparse attention", ("moa",), "`masks.elastic_window` gives the widths"),
    Paper(
        9,
        "Faster neighborhood attention",
        ("neighborhood_1d", "neighborhood_2d", "neighborhood_3d"),
        "also `masks.neighborhood`",
    ),
    Paper(
        17,
        "LongGen: a little goes a long way",
        ("sliding_window_sink", "longgen_blocks", "causal"),
        "either sparse mask in the outer two thirds of the layers, `causal` in the middle third",
    ),
    Paper(
        24,
        "LongLoRA (S2-Attn) and SinkLoRA (SF-Attn)",
        ("longlora", "longlora_roll", "sinklora"),
        "the two published paths of LongLoRA are different operators; also `masks.grouped`",
    ),
    Paper(32, "OAT: object-level attention", ("softmax", "causal"), "encoder and cross attention; decoder"),
    Paper(
        34,
        "S2-Attention (DKernel)",
        ("s2_attention", "s2_attention_bidirectional"),
        "also `masks.strided_blocks`",
    ),
    Paper(38, "Tourism demand forecasting with MHAC", ("softmax",), "attention over variables"),
    Paper(
        39,
        "LAMP: few-shot video generation",
        ("lamp_first_frame", "temporal"),
        "first-frame attention; temporal attention of every pixel",
    ),
    Paper(44, "Efficient-vDiT (attention tile)", ("vdit_tile",), "also `masks.frames`"),
    Paper(
        50,
        "STTN: traffic flow forecasting",
        ("spatial", "temporal"),
        "the gate with the graph convolution comes after",
    ),
    Paper(53, "SEE: event cameras", ("softmax",), "cross attention"),
    Paper(54, "Todyformer: dynamic graphs", ("lengths",), "a node's window embeddings, padded"),
    Paper(
        55,
        "LoCoNet: active speaker detection",
        ("temporal", "softmax"),
        "over time for each speaker; between sound and picture",
    ),
    Paper(
        60,
        "Detection-oriented image-text pretraining",
        ("vitdet_window", "vitdet_roll"),
        "the image and the rolled image",
    ),
    Paper(67, "TurboViT (mask-unit attention)", ("mask_unit", "temporal"), "queries are pooled before"),
    Paper(
        72,
        "Attention Swin U-Net",
        ("swin",),
        "also `masks.shifted_windows`; reusing the encoder's weights is not in the published code",
    ),
)

_TABLE = tuple((0.0,) for _ in range(169))

EXAMPLES: tuple[Example, ...] = (
    _example("causal", "1024 tokens", 1024),
    _example("lamp_first_frame", "10 frames of 100 tokens", 1000, frame=100),
    _example("lengths", "700 of 1000 keys are real", 1000, length=(700,)),
    _example(
        "longgen_blocks", "blocks of 64: 1 sink, 2 local, stride 8", 2048, heads=4, local_blocks=2, stride=8
    ),
    _example("longlora", "4 groups of 256", 1024, heads=2, group=256),
    _example("longlora_roll", "4 groups of 256", 1024, heads=2, group=256),
    _example("mask_unit", "16 units of 64 keys and 16 queries", (256, 1024)),
    _example("moa", "4 heads", 1024, heads=4, window=(64, 128, 320, 1024)),
    _example("neighborhood_1d", "1000 tokens, window 65", 1000, grid=(1000,), window_x=65),
    _example(
        "neighborhood_2d", "32 x 32, window 13, dilation 2 along x", 1024,
        grid=(32, 32), window_y=13, window_x=13, dilation_x=2,
    ),
    _example(
        "neighborhood_3d", "8 x 12 x 12, window 3 x 5 x 5, causal in time", 1152,
        grid=(8, 12, 12), window_t=3, window_y=5, window_x=5, causal_t=True,
    ),
    _example(
        "s2_attention", "blocks of 64: 2 local, stride 8; one dense head", 2048,
        heads=4, local_blocks=2, stride=8, n_dense=1,
    ),
    _example(
        "s2_attention_bidirectional", "blocks of 64: 2 local on each side, stride 6", 2048,
        left=2, right=2, stride=6,
    ),
    _example("sinklora", "4 groups of 256, 4 sinks", 1024, heads=2, group=256),
    _example("sliding_window_sink", "64 sinks, window 256", 1024, window=256),
    _example("softmax", "256 queries, 1024 keys", (256, 1024)),
    _example("spatial", "12 steps, 80 places", 960, grid=(12, 80)),
    _example("swin", "28 x 28, window 7, shift 3", 784, grid=(28, 28), shift=3, bias=_TABLE),
    _example("temporal", "16 steps, 64 places", 1024, grid=(16, 64)),
    _example(
        "vdit_tile", "8 frames of 120 tokens, 2 of them references", 960,
        frame=120, reference=(True, False, False, False, True, False, False, False),
    ),
    _example("vitdet_roll", "28 x 28, window 14, rolled by 7", 784, grid=(28, 28)),
    _example("vitdet_window", "28 x 28, window 14", 784, grid=(28, 28)),
)  # fmt: skip


def example(program: str) -> Example:
    """The example call of a program of the table."""
    return next(e for e in EXAMPLES if e.program == program)
