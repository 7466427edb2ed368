"""The forward cases every backend is held to; each backend's test file chooses how many it can afford."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import attngen
from attngen.api import Attention
from tests.forward import flex_mods
from tests.oracle import Shape

LENGTHS = (0, 1, 127, 128, 129)


@dataclass(frozen=True)
class Program:
    """A specification for given extents, and the tensors to call it with."""

    name: str
    build: Callable[[Shape], tuple[Attention, dict[str, torch.Tensor]]]

    def __str__(self) -> str:
        return self.name


def _flex(name: str, make: Callable[[Shape], dict[str, object]]) -> Program:
    return Program(name, lambda shape: (Attention(**make(shape), outputs=("O", "LSE")), {}))  # type: ignore[arg-type]


def _named(name: str, outputs: tuple[str, ...] = ("O", "LSE"), **values: object) -> Program:
    return Program(name, lambda _shape: (attngen.load(name, outputs, **values), {}))


def _cascade(name: str, outputs: tuple[str, ...]) -> Program:
    def build(shape: Shape) -> tuple[Attention, dict[str, torch.Tensor]]:
        sinks = {"sink_logit": torch.linspace(-2, 2, shape.h)} if name == "softmax_sink" else {}
        return Attention(mask=flex_mods.causal, cascade=name, outputs=outputs), sinks

    return Program(f"cascade_{name}", build)


def _document_ids(n: int) -> torch.Tensor:
    return torch.arange(max(n, 1)) // 23


FLEX_PROGRAMS = (
    _flex("flex_causal", lambda s: {"mask": flex_mods.causal}),
    _flex("flex_sliding_window", lambda s: {"mask": flex_mods.sliding_window}),
    _flex("flex_prefix", lambda s: {"mask": flex_mods.make_prefix(torch.arange(3, 3 + 17 * s.b, 17))}),
    _flex("flex_document", lambda s: {"mask": flex_mods.make_document(_document_ids(max(s.n_q, s.n_k)))}),
    _flex("flex_alibi", lambda s: {"mask": flex_mods.causal, "score": flex_mods.make_alibi(s.h)}),
    _flex("flex_softcap", lambda s: {"mask": flex_mods.causal, "score": flex_mods.make_softcap()}),
    _flex("flex_relative_bias", lambda s: {"score": flex_mods.make_relative_bias(s.h, 9)}),
)


def _documents(shape: Shape) -> tuple[Attention, dict[str, torch.Tensor]]:
    n = max(shape.n_q, shape.n_k, 1)
    doc = torch.stack([torch.arange(n) // (19 + 7 * b) for b in range(shape.b)]).int()
    return attngen.load("documents", ("O", "LSE")), {"doc": doc}


def _varlen(shape: Shape) -> tuple[Attention, dict[str, torch.Tensor]]:
    """Sequences of 23 queries each and as many keys as fit, causal; the last rows see nothing."""
    rows = torch.arange(max(shape.n_q, 1))
    first = rows // 23 * 31
    last = torch.minimum(first + 31, first + rows % 23 + 9)
    sees = (first < shape.n_k) & (rows < shape.n_q - 5)
    return attngen.load("varlen", ("O", "LSE")), {
        "first": torch.where(sees, first, shape.n_k).int(),
        "last": torch.where(sees, last, 0),
    }


def _row_bounds(shape: Shape) -> tuple[Attention, dict[str, torch.Tensor]]:
    """Bounds and conditions read at the query, in any order and of several dtypes."""
    mask = (
        "start[b, q]: int\nwidth[i]: int\nopen[q]: bool\n"
        "mask = (abs(k - start[b, q]) <= width[q // 3]) & open[q] | (k < 3) & ((q ^ 5) % 7 < width[q])"
    )
    g = torch.Generator().manual_seed(3)
    n = max(shape.n_q, 1)
    tensors = {
        "start": torch.randint(-9, shape.n_k + 9, (shape.b, n), generator=g),
        "width": torch.randint(0, 25, (n,), generator=g).to(torch.int8),
        "open": torch.rand(n, generator=g) < 0.8,
    }
    return Attention(mask=mask, outputs=("O", "LSE")), tensors


NAMED_PROGRAMS = (
    _named("causal"),
    _named("sliding_window", window=50),
    _named("sliding_window_sink", sink=5, window=40),
    _named("prefix_lm", prefix=30),
    _named("chunked", chunk=24),
    Program("documents", _documents),
    _named("dilated"),
    _named("global_tokens"),
    _named("block_diffusion"),
    Program("varlen", _varlen),
)
CASCADES = (
    _cascade("softmax", ("O", "LSE", "M", "Z")),
    _cascade("sigmoid", ("O",)),
    _cascade("relu", ("O",)),
    _cascade("relu2", ("O",)),
    _cascade("softmax_sink", ("O", "LSE")),
    _cascade("softcap", ("O", "LSE")),
)
DATA_PROGRAMS = (Program("row_bounds", _row_bounds),)
PROGRAMS = FLEX_PROGRAMS + NAMED_PROGRAMS + DATA_PROGRAMS + CASCADES
