"""Identifiers that a kernel's text gives to things of its own, and how names of a program keep clear of them."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable

from attngen.emit.spec import KernelSpec

# What the template and its helpers define where names of the program are in scope.
_OURS = [
    "BLOCK_K",
    "BLOCK_Q",
    "HEAD_DIM",
    "HEAD_PAD",
    "VALUE_DIM",
    "VALUE_PAD",
    "LOG2E",
    "Q",
    "K",
    "V",
    "Q_ptr",
    "K_ptr",
    "V_ptr",
    "tl",
    "triton",
    "b",
    "b64",
    "d",
    "d64",
    "e",
    "e64",
    "group",
    "h",
    "h64",
    "h_stored",
    "i",
    "k",
    "k_base",
    "k_from",
    "k_rows",
    "k_step",
    "key",
    "left_edge",
    "right_edge",
    "n_edges",
    "SUM_PARTS",
    "row_parts",
    "k_inside",
    "k_offsets",
    "k_start",
    "k_tile",
    "keep",
    "key64",
    "kv",
    "kv64",
    "loadable",
    "n_b",
    "n_full",
    "n_h",
    "n_k",
    "n_kv",
    "n_rows",
    "n_partial",
    "n_programs",
    "turn",
    "n_q",
    "n_tiles_q",
    "program",
    "q",
    "q64",
    "q_base",
    "q_hi",
    "q_lo",
    "q_offsets",
    "q_stored",
    "q_tile",
    "row",
    "row64",
    "row_hi",
    "row_inside",
    "row_lo",
    "row_value",
    "row_first",
    "row_end",
    "seen",
    "start",
    "tile",
    "tile_q",
    "v_base",
    "v_from",
    "v_rows",
    "v_step",
    "v_offsets",
    "v_start",
    "v_tile",
    "first_full",
    "first_partial",
    "list_row",
    "list_stride_b",
    "list_stride_h",
    "full_index_ptr",
    "full_lists_ptr",
    "partial_index_ptr",
    "partial_lists_ptr",
    "add_bins",
    "block_max",
    "block_min",
    "clamp",
    "column",
    "finite",
    "float_mod",
    "floor_div",
    "floor_mod",
    "int_power",
    "power",
    "reduced",
    "round_half_even",
    "saturate",
    "sign",
    "tanh",
    "times",
    "larger",
    "row_max",
    "row_min",
    "row_product",
    "smaller",
    "top_k",
]
_RUNS = [
    f"{stem}_{n}"
    for stem in (
        "row_value",
        "row_first",
        "row_end",
        "full_from",
        "full_until",
        "partial_from",
        "partial_until",
    )
    for n in range(16)
]
RESERVED = frozenset((*keyword.kwlist, *dir(builtins), *_OURS, *_RUNS))


def identifiers(names: Iterable[str], taken: frozenset[str] = RESERVED) -> dict[str, str]:
    """A Python identifier for every name: the name itself, or with `_` behind it where it is taken."""
    out: dict[str, str] = {}
    used = set(taken)
    for name in dict.fromkeys(names):
        free = name
        while free in used:
            free += "_"
        out[name] = free
        used.add(free)
    return out


_STEMS = (
    "tiles_q",
    "tiles_k",
    "q_lo",
    "q_hi",
    "k_lo",
    "q_lane",
    "k_lane",
    "q_low",
    "row",
    "k_at",
    "span",
    "clear",
    "nth",
    "row_first",
    "row_end",
)
_FIXED = (
    "lane", "k_lane", "n_tiles_q", "rest", "exists", "slab", "until_0", "until_1", "until_2", "n_visited", "size",
    "key_offset", "place", "first", "last", "hull_first", "hull_last",
)  # fmt: skip


def box_names(spec: KernelSpec) -> frozenset[str]:
    """The identifiers that this module gives to variables of the kernel."""
    plan = spec.plan.boxes
    if plan is None:
        return frozenset()
    axes = [a.name for layout in (plan.q, plan.k) for a in layout.axes]
    axes += [name for layout in (plan.q, plan.k) for name, _ in layout.coordinates]
    return frozenset((*_FIXED, *axes, *(f"{stem}_{axis}" for stem in (*_STEMS, "q", "k") for axis in axes)))
