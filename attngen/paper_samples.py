"""One call of every program of groups C, D, E.2 and F, with inputs that nothing divides and tensors drawn from a seed.

`attngen papers` runs them to say whether a kernel agrees with its program in float64; the tests run them on the
backends, with other lengths and strides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attngen.value import value

if TYPE_CHECKING:
    import torch

    from attngen.api import Attention
    from attngen.lang.program import Program, TensorDecl

_SEED = 7
_BATCH, _HEAD_DIM, _VALUE_DIM = 2, 8, 6
CAUSAL = "k <= pos(q)"


@value
class Sample:
    """One call: two batch entries, feature widths of 8 and 6, and what differs between programs.

    n_q, n_k   tokens.
    heads      query heads, and key heads that share them.
    mask       the pairs that a cascade is called with.
    widths     head and value dimension, where a program needs them equal.
    ranks      extents of ranks that tensors alone have.
    below      for tensors of integers: one more than the largest entry; an extent's name, or a number.
    positive   tensors of reals that must be above zero.
    values     parameters and extents.
    """

    program: str
    n_q: int = 67
    n_k: int = 83
    heads: tuple[int, int] = (4, 2)
    mask: str | None = None
    widths: tuple[int, int] = (_HEAD_DIM, _VALUE_DIM)
    ranks: Mapping[str, int] = field(default_factory=dict)
    below: Mapping[str, str | int] = field(default_factory=dict)
    positive: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def spec(self, outputs: tuple[str, ...] | None = None, algorithm: str | None = None) -> Attention:
        """The specification, with its tensors on the CPU in fp32."""
        from attngen.api import Attention, load
        from attngen.lang.library import cascade_names

        if self.program in cascade_names():
            made = Attention(mask=self.mask, cascade=self.program, outputs=outputs, name=self.program)
        else:
            made = load(self.program, outputs)
        values = dict(load(self.program, outputs, **self.values).values)
        return Attention.from_linked(
            made.program, {**values, **self.tensors(made.program)}, algorithm=algorithm
        )

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Standard normal query, key and value, the same at every call."""
        import torch

        g = torch.Generator().manual_seed(_SEED)
        (h, hkv), (d, e) = self.heads, self.widths
        q = torch.randn(_BATCH, h, self.n_q, d, generator=g)
        k = torch.randn(_BATCH, hkv, self.n_k, d, generator=g)
        return q, k, torch.randn(_BATCH, hkv, self.n_k, e, generator=g)

    def tensors(self, program: Program) -> dict[str, torch.Tensor]:
        """A value for every tensor the program declares, the same at every call."""
        import torch

        g = torch.Generator().manual_seed(_SEED + 1)
        (h, hkv), (d, e) = self.heads, self.widths
        sizes = {"b": _BATCH, "h": h, "g": hkv, "q": self.n_q, "k": self.n_k, "d": d, "e": e, **self.ranks}
        return {t.name: self._drawn(t, sizes, g) for t in program.tensors}

    def _drawn(self, decl: TensorDecl, sizes: Mapping[str, int], g: torch.Generator) -> torch.Tensor:
        import torch

        from attngen.lang.ops import Kind

        shape = [sizes[rank] for rank in decl.ranks]
        if decl.kind is Kind.BOOL:
            return torch.rand(shape, generator=g) < 0.6
        if decl.kind is Kind.INT:
            above = self.below.get(decl.name, "k")
            return torch.randint(0, sizes[above] if isinstance(above, str) else above, shape, generator=g)
        drawn = torch.randn(shape, generator=g) / 2
        return drawn.abs() + 0.1 if decl.name in self.positive else drawn


def _sample(program: str, n: int | tuple[int, int] = (67, 83), **more: Any) -> Sample:
    """Fields of a sample by name; what is none of them is a value of the call."""
    n_q, n_k = n if isinstance(n, tuple) else (n, n)
    names = ("heads", "mask", "widths", "ranks", "below", "positive")
    fields = {x: more.pop(x) for x in names if x in more}
    return Sample(program, n_q, n_k, **fields, values=MappingProxyType(more))


_HIDDEN = {"i": 7}
_GATED = {"i": 5}

SAMPLES: tuple[Sample, ...] = (
    _sample("aaren", 83),
    _sample("abc", ranks={"j": 5}),
    _sample("abc_causal", 83, ranks={"j": 5}),
    _sample("acmil", (1, 83), heads=(3, 1), ranks=_GATED),
    _sample("act", 67, tau=0.05),
    _sample("alibi", positive=("slope",)),
    _sample("anchored_swap"),
    _sample("attention_kl", ranks={"c": 12}, scale_t=0.3),
    _sample("bidirectional_window", radius=9),
    _sample("block_mass", rows=16, keys=32),
    _sample("block_max", mask=CAUSAL, rows=16, keys=32),
    _sample("boosted_tokens", start=60, alpha=0.5, beta=0.8),
    _sample("causal"),
    _sample("channel_attention", 83, heads=(1, 1), widths=(6, 6), beta=0.6),
    _sample("column_sums", mask=CAUSAL),
    _sample("combiner_axial", 67, x=9),
    _sample("combiner_fixed", 83, segment=16),
    _sample("combiner_rowmajor", 83, columns=16),
    _sample("cosformer"),
    _sample("dgq", positive=("step",)),
    _sample("diagonal_sums", mask=CAUSAL),
    _sample("disendiff", (81, 23), side=9, ranks={"i": 4, "u": 3, "v": 3}, positive=("kernel",)),
    _sample("distance_profile", 81, width=9, r=9),
    _sample("diversification_loss", 83),
    _sample("entropy", mask=CAUSAL),
    _sample("entropy_scale", 83, trained=20),
    _sample("expert_gate", (1, 83), heads=(2, 1), ranks=_HIDDEN),
    _sample("extra_keys", mask=CAUSAL, ranks={"j": 6}),
    _sample("extractor_he", 83, heads=(1, 1), ranks={"l": 83}),
    _sample("extractor_me", 83, heads=(1, 1)),
    _sample("extractor_we", 83, heads=(1, 1), ranks={"l": 83}),
    _sample("gat", 83),
    _sample("head_maps", mask=CAUSAL),
    _sample("hilo_low", 80, width=10),
    _sample("icr_scores"),
    _sample("inducing_points", ranks={"j": 5, "c": 7}),
    _sample("lama", (1, 83), heads=(4, 1), ranks={"c": 5, "x": 3}),
    _sample("lara", 83),
    _sample("long_short", 83, ranks={"j": 3}),
    _sample("long_short_given", 83, heads=(4, 4), ranks={"j": 3}),
    _sample("map_rows", mask=CAUSAL, ranks={"i": 3}, below={"rows": "q"}),
    _sample("mean_entropy", mask=CAUSAL),
    _sample("mossformer2", 83, heads=(1, 1), chunk=16),
    _sample("mossformer2_causal", 83, heads=(1, 1), chunk=16),
    _sample("mqsa_long", 83, ranks={"f": 7}, last=4),
    _sample("mutual_information", 83),
    _sample("nystrom", 83, ranks={"i": 16, "j": 16}),
    _sample("nystrom_landmarks", 83),
    _sample("object_map", threshold=0.2),
    _sample("online_softmax", mask=CAUSAL),
    _sample("opera", 83, start=71, first_image=2, last_image=40, j=12),
    _sample("padded_causal", 83),
    _sample("performer", ranks={"m": 20}),
    _sample("perturbed_additive", (1, 83), heads=(1, 1), ranks=_HIDDEN),
    _sample("perturbed_unary", (1, 83), heads=(1, 1), ranks=_HIDDEN),
    _sample("position_attention", 83, heads=(1, 1), gamma=0.6),
    _sample("prior_add", 83),
    _sample("prior_log", 83),
    _sample("prior_product", 83),
    _sample("probsparse", 83),
    _sample("relative_attention", positive=("neutral",)),
    _sample("relu_features", count=82),
    _sample("rope"),
    _sample("sigmoid", mask=CAUSAL, bias=-4.0),
    _sample("sliding_window", window=9),
    _sample("softmax"),
    _sample("softmax_one_pass", mask=CAUSAL, tile=32),
    _sample("softmax_replay", mask=CAUSAL, positive=("lse",)),
    _sample("softmax_two_pass", mask=CAUSAL, tile=32),
    _sample("span_mass", mask=CAUSAL, j=4, below={"span": 4}),
    _sample("t5_bias", far=20, ranks={"i": 41, "c": 8}, below={"bucket": 8}),
    _sample("token_maps", ranks={"i": 4}),
    _sample("top_of_row", mask=CAUSAL, row=60, j=8),
    _sample("value_relation_kl", 83, ranks={"c": 10}, scale_t=0.3),
    _sample("vision_divergence", positive=("gain",)),
    _sample("vitdet_window", 80, grid=(8, 10), window=4),
    _sample("weighted_rows", ranks={"i": 3, "m": 11}, below={"rows": "q"}),
)


def sample(program: str) -> Sample:
    """The call of a program."""
    return next(s for s in SAMPLES if s.program == program)
