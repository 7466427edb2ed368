"""The emitted Triton text: golden files, its structure, its names."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest

import attngen
from attngen.api import Attention
from attngen.backends.triton import TritonBackend
from attngen.emit.target import CUDA_ARCHS, HIP_ARCHS, parse_target
from attngen.emit.triton.config import SHARED_BYTES, default_config, padded_dim, shared_bytes
from attngen.emit.triton.names import RESERVED, identifiers
from attngen.emit.triton.ops import TRITON_OPS
from attngen.emit.triton.pack import packed as packed_config
from attngen.emit.triton.wrap import WIDTH, wrap
from attngen.lang.library import cascade_names, load_program, program_names
from attngen.lang.ops import OPS
from tests.emit.triton_text import loops
from tests.forward.suite import PROGRAMS
from tests.oracle import Shape


def kernel_text(name="sliding_window_sink", target="sm_90", dtype="bf16", head_dim=128, **values):
    return attngen.load(name, **values).source(target, dtype, head_dim)


def packed_text(name, target="sm_90", dtype="bf16", head_dim=128):
    """The text of a decoding call of four heads a key head."""
    (spec,), where = attngen.load(name, ("O", "LSE")).kernel_specs(target, dtype, head_dim)
    backend = TritonBackend()
    config = packed_config(backend.config(spec, where), spec.dtype, n_q=1, group=4)
    return backend.emit(spec, where, config).text


GOLDEN = {
    "sliding_window_sink": lambda: kernel_text(),
    "documents": lambda: kernel_text("documents"),
    "varlen": lambda: kernel_text("varlen"),
    "dilated_fp32": lambda: kernel_text("dilated", dtype="fp32", head_dim=64),
    "softmax_sink_fp16_d80": lambda: Attention(
        mask="k <= pos(q)", cascade="softmax_sink", outputs=("O", "LSE")
    ).source("sm_80", "fp16", 80),
    "alibi_packed": lambda: packed_text("alibi"),
    "sigmoid_gfx942": lambda: Attention(cascade="sigmoid").source("gfx942", "bf16", 64),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden(case, golden):
    golden(f"emit/triton_{case}.py.txt", GOLDEN[case]())


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_program_prints_valid_python_without_long_lines(program):
    spec, _ = program.build(Shape())
    text = spec.source("sm_90", "bf16", 64)
    ast.parse(text)
    assert "\t" not in text
    code = text.split('\n"""\n', 1)[1]  # the header holds the program's text as it is hashed
    assert not [ln for ln in code.splitlines() if ln != ln.rstrip()]
    assert not [ln for ln in code.splitlines() if len(ln) > 110]


UNITS = (
    "swin",
    "vitdet_window",
)  # windows of 7 and 14: their tiles have lanes to spare, which a mask must hide


MASKS = [n for n in program_names() if not load_program(n).cascade and load_program(n).score is None]


@pytest.mark.parametrize("name", [*MASKS, "swin", "alibi"])
def test_the_interior_loop_has_no_mask_in_it(name):
    body = loops(kernel_text(name, **({"window": 8} if name in UNITS else {})))
    full = body.pop("Full")
    assert not re.search(r"\bkeep\b|\bloadable\b|mask=|tl\.where\(keep", full)
    assert not re.search(r"<=|>=| < | > |tl\.where", full.split("k_tile = ", 1)[1])
    general = body.pop("Partial") if "Partial" in body else body.pop("Tiles")
    assert "keep" in general
    assert "mask=" in general
    for edge in body.values():
        assert edge.count("keep = key[None, :]") == 1
        assert "loadable" not in edge


@pytest.mark.parametrize("name", UNITS)
def test_tiles_with_idle_lanes_have_no_loop_without_a_mask(name):
    text = kernel_text(name)
    assert set(loops(text)) == {"Partial"}
    assert "loadable" in text


@pytest.mark.parametrize("name", ["causal", "sliding_window_sink", "bidirectional_window", "varlen"])
def test_the_loops_of_a_packed_kernel_are_those_of_the_plain_one(name):
    (spec,), where = attngen.load(name).kernel_specs("sm_90", "bf16", 64)
    backend = TritonBackend()
    config = backend.config(spec, where)
    plain, packed = (backend.emit(spec, where, replace(config, pack_heads=on)).text for on in (False, True))
    assert "row_inside % group" in packed
    assert "% group" not in plain
    assert loops(packed) == loops(plain)


def test_parameters_and_lengths_are_never_specialised():
    text = kernel_text()
    held = re.search(r"do_not_specialize=\[(.*?)\]", text, re.DOTALL).group(1)
    for name in ("n_q", "n_k", "n_h", "group", "sink", "window", "scale"):
        assert f'"{name}"' in held
    assert "stride" not in held


def test_the_header_says_where_the_text_comes_from():
    text = kernel_text()
    header = ast.get_docstring(ast.parse(text))
    assert "mask = " in header
    assert "D3: Z" in header
    assert "pos" not in header
    assert re.search(r"Program: [0-9a-f]{16}", header)


def test_a_program_name_the_skeleton_uses_gets_another():
    mask = attngen.mask(lambda b, h, q, k: q - k < attngen.param("tile", 3))
    spec = Attention(mask=mask)
    text = spec.source("sm_90", "fp16", 64)
    assert "tile_" in text
    assert identifiers(["q_base", "mine"]) == {"q_base": "q_base_", "mine": "mine"}
    assert "keep" in RESERVED


def test_every_operator_has_a_spelling():
    assert set(TRITON_OPS) == set(OPS)


@pytest.mark.parametrize("arch", CUDA_ARCHS + HIP_ARCHS)
def test_a_default_configuration_always_fits(arch):
    target = parse_target(arch)
    for dtype in ("float32", "bfloat16", "float16"):
        for d in (1, 16, 24, 64, 80, 128, 192, 256):
            for e in (16, 64, 256):
                config = default_config(target, dtype, d, e)
                assert shared_bytes(config, target, dtype, padded_dim(d), padded_dim(e)) <= SHARED_BYTES[arch]
                assert min(config.block_q, config.block_k) >= 16


@pytest.mark.parametrize("cascade", cascade_names())
def test_cascades_print(cascade):
    ast.parse(Attention(mask="k <= pos(q)", cascade=cascade).source("sm_90", "fp16", 64))


@pytest.mark.parametrize(
    "line",
    [
        "x = " + " + ".join(f"operand_{i}" for i in range(20)),
        "x = tl.where(" + ", ".join(f"argument_number_{i}" for i in range(10)) + ")",
        "keep = (a & (" + " | ".join(f"(k[None, :] < b_{i})" for i in range(9)) + "))[:, None] & c",
        "x = f(" + ", ".join(f"g({', '.join(f'a_{i}_{j}' for j in range(9))})" for i in range(3)) + ")",
    ],
)
def test_wrapping_keeps_the_meaning(line):
    wrapped = wrap(line, 8)
    assert max(len(ln) for ln in wrapped) + 8 <= WIDTH
    assert ast.dump(ast.parse("\n".join(wrapped))) == ast.dump(ast.parse(line))
