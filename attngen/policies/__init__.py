"""Papers that are more than one program: short functions that put programs of `ir/` together, as the paper does.

Shapes are those of attention calls: a query `[B, H, Nq, D]`, a key `[B, G, Nk, D]`, a value `[B, G, Nk, E]`. What stays
in torch is what is not attention: means over layers, gates, choices, small inverses.
"""

from __future__ import annotations

from attngen.policies.layers import (
    echo,
    gated_levels,
    graph_attention,
    hilo,
    mqsa,
    multiple_instances,
    t5_buckets,
    token_pooling,
)
from attngen.policies.maps import (
    disendiff_loss,
    diversification_loss,
    hybrid_distillation,
    icr,
    internal_consistency,
    opera_penalty,
    relative_attention,
    unip_loss,
    vision_reinforced,
)
from attngen.policies.summaries import (
    extractor,
    forward_cross_attention,
    landmark_inverse,
    long_short,
    nystrom,
    probsparse,
)

__all__ = [
    "disendiff_loss",
    "diversification_loss",
    "echo",
    "extractor",
    "forward_cross_attention",
    "gated_levels",
    "graph_attention",
    "hilo",
    "hybrid_distillation",
    "icr",
    "internal_consistency",
    "landmark_inverse",
    "long_short",
    "mqsa",
    "multiple_instances",
    "nystrom",
    "opera_penalty",
    "probsparse",
    "relative_attention",
    "t5_buckets",
    "token_pooling",
    "unip_loss",
    "vision_reinforced",
]
