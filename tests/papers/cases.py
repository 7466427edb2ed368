"""Calls of group A's programs: lengths that nothing divides, grouped heads, more than one batch entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import attngen
from attngen.api import Attention
from tests.oracle import Shape
from tests.papers import definitions as by_hand


@dataclass(frozen=True)
class Case:
    """One call of a program, and the pairs it must keep."""

    name: str
    program: str
    shape: Shape
    keep: by_hand.Keep  # [heads or 1, n_q, n_k], or [batch, 1, n_q, n_k]
    values: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> Attention:
        return attngen.load(self.program, ("O", "LSE"), **self.values)

    def kept(self) -> torch.Tensor:
        """bool [B, H, n_q, n_k]."""
        s = self.shape
        keep = torch.from_numpy(np.ascontiguousarray(self.keep))
        return (keep if keep.dim() == 4 else keep[None]).expand(s.b, s.h, s.n_q, s.n_k)

    @property
    def heads_agree(self) -> bool:
        """Whether the call may have any number of heads: fewer of them cost the interpreter less."""
        return len(self.keep) == 1 and "bias" not in self.values

    def __str__(self) -> str:
        return f"{self.program}-{self.name}"


def _shape(n_q: int, n_k: int | None = None, *, b: int = 2, h: int = 4, hkv: int = 2) -> Shape:
    return Shape(b=b, h=h, hkv=hkv, n_q=n_q, n_k=n_q if n_k is None else n_k, d=16, e=24)


def _line() -> list[Case]:
    """Programs over tokens on a line."""
    s2 = {"block": 16, "local_blocks": 2, "stride": 5, "group": 2}
    bidirectional = {"block": 16, "left": 2, "right": 1, "stride": 3, "group": 2}
    longgen = {"block": 16, "sink_blocks": 1, "local_blocks": 2, "stride": 4, "group": 2}
    widths, references = [3, 40, 64, 500], {0, 4}
    table = torch.tensor([f in references for f in range(8)])
    square, chunk = (150, 150), (67, 150)
    out: list[Case] = []
    for name, (n_q, n_k) in (("square", square), ("chunk", chunk)):
        at = _shape(n_q, n_k)
        out += [
            Case(name, "s2_attention", at, by_hand.s2_attention(n_q, n_k, 4, 2, 16, 2, 5), s2),
            Case(
                f"{name}_dense_heads", "s2_attention", at,
                by_hand.s2_attention(n_q, n_k, 4, 2, 16, 2, 5, n_dense=1, offset=2), s2 | {"n_dense": 1, "offset": 2},
            ),
            Case(
                f"{name}_homo", "s2_attention", at,
                by_hand.s2_attention(n_q, n_k, 4, 2, 16, 2, 5, homo=True), s2 | {"homo": True},
            ),
            Case(
                name, "s2_attention_bidirectional", at,
                by_hand.s2_bidirectional(n_q, n_k, 4, 2, 16, 2, 1, 3), bidirectional,
            ),
            Case(
                f"{name}_dense_heads", "s2_attention_bidirectional", at,
                by_hand.s2_bidirectional(n_q, n_k, 4, 2, 16, 2, 1, 3, n_dense=1), bidirectional | {"n_dense": 1},
            ),
            Case(name, "longgen_blocks", at, by_hand.longgen_blocks(n_q, n_k, 4, 2, 16, 1, 2, 4), longgen),
            Case(
                f"{name}_longgen", "sliding_window_sink", at,
                by_hand.sink_window(n_q, n_k, 5, [40] * 4), {"sink": 5, "window": 40},
            ),
            Case(
                name, "moa", at, by_hand.sink_window(n_q, n_k, 5, widths),
                {"sink": 5, "window": torch.tensor(widths)},
            ),
            Case(
                name, "vdit_tile", at, by_hand.vdit(n_q, n_k, 21, references),
                {"frame": 21, "reference": table},
            ),
            Case(name, "longlora", at, by_hand.longlora(n_q, n_k, 4, 40), {"group": 40}),
            Case(f"{name}_odd_group", "longlora", at, by_hand.longlora(n_q, n_k, 4, 33), {"group": 33}),
            Case(name, "sinklora", at, by_hand.longlora(n_q, n_k, 4, 40, 3), {"group": 40, "sink": 3}),
            Case(name, "lamp_first_frame", at, by_hand.first_frame(n_q, n_k, 21), {"frame": 21}),
            Case(
                name, "lengths", at,
                np.stack([np.broadcast_to(np.arange(n_k) < n, (1, n_q, n_k)) for n in (97, 1)]),
                {"length": torch.tensor([97, 1])},
            ),
            Case(name, "causal", at, by_hand.causal(n_q, n_k)),
            Case(name, "softmax", at, by_hand.dense(n_q, n_k)),
        ]  # fmt: skip
    rolled = _shape(160)
    out += [
        Case("whole_groups", "longlora_roll", rolled, by_hand.longlora_roll(160, 4, 40), {"group": 40}),
        Case("ragged", "longlora_roll", _shape(150), by_hand.longlora_roll(150, 4, 40), {"group": 40}),
        Case("pooled", "mask_unit", _shape(64, 256), by_hand.mask_units(256, 64, 4), {}),
        Case(
            "small_units",
            "mask_unit",
            _shape(48, 192),
            by_hand.mask_units(192, 16, 4),
            {"unit": 16, "queries": 4},
        ),
        Case(
            "not_pooled", "mask_unit", _shape(96), by_hand.mask_units(96, 16, 1), {"unit": 16, "queries": 16}
        ),
    ]
    return out


def _near(name: str, grid: tuple[int, ...], **each: tuple[Any, ...]) -> Case:
    """Neighbourhood attention on a grid; `each` gives window, dilation, stride, causal for every axis."""
    n = len(grid)
    defaults = {"window": (7,) * n, "dilation": (1,) * n, "stride": (1,) * n, "causal": (False,) * n}
    rules = defaults | each
    axes = "tyx"[3 - n :]
    values = {f"{rule}_{a}": v for rule, of in each.items() for a, v in zip(axes, of, strict=True)}
    keep = by_hand.neighborhood(grid, rules["window"], rules["dilation"], rules["stride"], rules["causal"])
    return Case(name, f"neighborhood_{n}d", _shape(int(np.prod(grid))), keep, {"grid": grid, **values})


def _grids() -> list[Case]:
    """Programs over grids."""
    bias = torch.linspace(-2, 2, 49 * 4).reshape(49, 4).sin()
    out = [
        _near("plain", (131,)),
        _near("even_strided", (131,), window=(8,), stride=(3,)),
        _near("dilated_ragged", (131,), window=(9,), dilation=(4,), stride=(2,)),
        _near("causal", (131,), window=(9,), stride=(4,), causal=(True,)),
        _near("causal_dilated_ragged", (131,), window=(6,), dilation=(5,), stride=(3,), causal=(True,)),
        _near("whole", (37,), window=(37,)),
        _near("plain", (11, 13)),
        _near("mixed", (11, 13), window=(4, 3), dilation=(2, 4), stride=(3, 1)),
        _near("causal_rows", (11, 13), window=(5, 4), causal=(True, False)),
        _near("plain", (4, 6, 7), window=(3, 3, 5)),
        _near("causal_time", (5, 6, 7), window=(3, 5, 2), dilation=(1, 1, 3), stride=(1, 2, 1),
              causal=(True, False, False)),
    ]  # fmt: skip
    for name, (height, width, shift) in {
        "windows": (8, 12, 0), "shifted": (8, 12, 2), "padded": (11, 13, 0), "padded_shifted": (11, 13, 2),
    }.items():  # fmt: skip
        keep = by_hand.swin(height, width, 4, shift)
        values = {"grid": (height, width), "window": 4, "shift": shift, "bias": bias}
        out.append(Case(name, "swin", _shape(height * width), keep, values))
    for name, (height, width, shift) in {"whole": (12, 8, 2), "cut": (11, 13, 2)}.items():
        grid = {"grid": (height, width), "window": 4}
        at = _shape(height * width)
        keep, rolled = (by_hand.rolled_windows(height, width, 4, s) for s in (0, shift))
        out += [
            Case(name, "vitdet_window", at, keep, grid),
            Case(name, "vitdet_roll", at, rolled, grid | {"shift": shift}),
        ]
    for name, sizes in {"few_steps": (3, 50), "many_steps": (19, 7)}.items():
        at = _shape(sizes[0] * sizes[1])
        out += [
            Case(name, "spatial", at, by_hand.fold(sizes, 0), {"grid": sizes}),
            Case(name, "temporal", at, by_hand.fold(sizes, 1), {"grid": sizes}),
        ]
    return out


CASES = (*_line(), *_grids())
