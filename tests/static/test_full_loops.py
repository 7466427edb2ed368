"""The mask is nowhere in the loop over full tiles: not in the text of any program, nor in the code of some."""

from __future__ import annotations

import ast
from functools import cache

import pytest

import attngen
from attngen.api import Attention
from attngen.backends.triton import TritonBackend
from attngen.emit.spec import KernelSpec
from attngen.lang.expr import Expr, Load, Param, walk
from attngen.lang.library import cascade_names
from attngen.resources import data_dir
from attngen.static.labels import loop_lines

CASCADES = sorted(cascade_names())
PROGRAMS = sorted(p.stem for p in data_dir("ir").glob("*.attn"))
CAUSAL = "k <= pos(q)"

# What decides about pairs in the loop over partial tiles, and bounds its loads.
DECIDES = {
    "keep",
    "loadable",
    "lo",
    "hi",
    "k_inside",
    "hull_first",
    "hull_last",
    "place",
    "row_first",
    "row_end",
}


def kernels(name: str) -> list[KernelSpec]:
    spec = Attention(mask=CAUSAL, cascade=name) if name in CASCADES else attngen.load(name)
    return list(spec.kernel_specs("sm_90", "bf16", 64)[0])


def read_by(*exprs: Expr) -> set[str]:
    """Tensors, as their pointers, and parameters that expressions read."""
    nodes = [node for e in exprs for node in walk(e)]
    return {f"{n.tensor}_ptr" for n in nodes if isinstance(n, Load)} | {
        n.name for n in nodes if isinstance(n, Param)
    }


def full_loop(text: str) -> ast.For | None:
    lines = loop_lines(text)
    if "full" not in lines:
        return None
    fors = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.For)]
    return next(node for node in fors if node.lineno == lines["full"].start)


@pytest.mark.parametrize("name", [*PROGRAMS, *CASCADES])
def test_the_text_of_the_loop_over_full_tiles_has_no_mask(name):
    target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)[1]
    for spec in kernels(name):
        text = TritonBackend().emit(spec, target).text
        loop = full_loop(text)
        if loop is None:  # every tile of this mask is partial
            assert "Full tiles" not in text
            continue
        read = {node.id for node in ast.walk(loop) if isinstance(node, ast.Name)}
        assert not read & DECIDES
        elsewhere = read_by(*spec.tile.bodies())
        if spec.plan.boxes is None and spec.keep is not None:
            assert not read & (read_by(spec.keep, spec.program.mask) - elsewhere)
        for node in ast.walk(loop):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.load":
                assert not {k.arg for k in node.keywords} & {"mask", "other"}, ast.unparse(node)


def test_some_loops_over_full_tiles_are_looked_at():
    target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)[1]
    texts = [TritonBackend().emit(kernels(n)[0], target).text for n in ("causal", "documents", "swin")]
    assert [full_loop(text) is not None for text in texts] == [True, True, False]


# Selects and predicates of whole tiles, not of pairs: which run of tiles comes next, the end of the pipeline.
_OF_TILES = 12


@cache
def maskless(head_dim: int) -> int:
    """Mask instructions of the loop over full tiles in a kernel that has no mask."""
    loop = Attention().inspect("sm_90", "bf16", head_dim).loop("full")
    assert loop is not None
    return loop.mix.get("mask", 0)


QUICK = ("sliding_window", "documents", "neighborhood_2d")
MORE = ("causal", "sliding_window_sink", "chunked", "longlora", "moa", "prefix_lm", "varlen", "global_tokens")
MORE += ("dilated", "neighborhood_3d", "block_diffusion", "s2_attention", "padded_causal", "temporal")


def check_code(name: str, head_dim: int) -> None:
    found = attngen.load(name).inspect("sm_90", "bf16", head_dim)
    partial, full = found.loop("partial"), found.loop("full")
    assert partial is not None
    assert full is not None
    assert full.mix.get("mask", 0) <= maskless(head_dim) + _OF_TILES
    # at least one comparison or select for each pair of a thread, where the mask is
    assert partial.mix["mask"] >= found.block_q * found.block_k // (32 * found.num_warps)


@pytest.mark.parametrize("name", QUICK)
def test_the_code_of_the_loop_over_full_tiles_has_no_mask(name):
    check_code(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", [*QUICK, *MORE])
def test_the_code_of_more_loops_over_full_tiles_has_no_mask(name, head_dim):
    check_code(name, head_dim)
