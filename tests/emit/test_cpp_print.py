"""The C++ text as a whole: what it looks like, what it depends on, and what the compiler makes of its inner loops."""

from __future__ import annotations

import platform
import re
import subprocess

import pytest
import torch

import attngen
from attngen import pipeline
from attngen.analysed import analyse
from attngen.api import Attention
from attngen.backends.cpu import CpuBackend
from attngen.backends.cpu_compile import find_compiler, target_flags
from attngen.emit.cpp_names import arg_layout
from attngen.emit.cpp_sweeps import Section, Sweep, lay_out, rounded_name
from attngen.emit.print_cpp import wrap
from attngen.emit.spec import KernelSpec
from attngen.emit.target import parse_target
from attngen.emit.tile import (
    AccDot,
    Carried,
    Dot,
    Mask,
    Operand,
    Output,
    RowLet,
    RowReduce,
    TileLet,
    TileProgram,
)
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Load, Var, apply

CPU = parse_target("cpu")
Q, K, E = Var("q"), Var("k"), Var("e")
B, G, H, D = Var("b"), Var("g"), Var("h"), Var("d")
OPERANDS = (
    Operand("Q", "q", "d", Load("Q", (B, H, Q, D))),
    Operand("K", "k", "d", Load("K", (B, G, K, D))),
    Operand("V", "k", "e", Load("V", (B, G, K, E))),
)


def spec_of(
    attention: Attention, dtype: str = "float32", head_dim: int = 64, value_dim: int = 64, tensors: tuple = ()
) -> KernelSpec:
    return pipeline.kernel_spec(
        analyse(attention.program), pipeline.Specialisation(dtype, head_dim, value_dim, tensors)
    )


def text_of(spec: KernelSpec, target: str = "cpu") -> str:
    return CpuBackend().emit(spec, parse_target(target)).text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sliding_window_with_sinks(dtype, golden):
    spec = spec_of(attngen.load("sliding_window_sink", ("O", "LSE")), dtype)
    golden(f"emit/cpp_sliding_window_sink_{dtype}.cpp", text_of(spec))


def test_ranges_from_the_rows(golden):
    tensors = (("first", "int32", 1), ("last", "int32", 1))
    golden("emit/cpp_varlen.cpp", text_of(spec_of(attngen.load("varlen", ("O", "LSE")), tensors=tensors)))


def test_documents_with_a_score(golden):
    doc = torch.zeros(1, 9, dtype=torch.int64)
    slope = torch.zeros(4)
    attention = Attention(
        mask=lambda b, h, q, k: (doc[b, q] == doc[b, k]) & (k <= q),
        score=lambda s, b, h, q, k: s - slope[h] * (q - k),
        outputs=("O", "LSE"),
    )
    tensors = (("doc", "int64", 2), ("slope", "float32", 1))
    golden("emit/cpp_documents_with_a_score.cpp", text_of(spec_of(attention, tensors=tensors)))


def test_the_text_is_the_same_for_every_machine_and_run():
    spec = spec_of(attngen.load("causal"))
    texts = {text_of(spec, target) for target in ("cpu", "cpu-avx2", "cpu-avx512")}
    assert texts == {text_of(spec)}
    text = texts.pop()
    assert len(set(re.findall(r"#include <(.*)>", text))) == 2
    assert "attngen" in text.splitlines()[0]
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_program_without_a_mask_evaluates_none():
    text = text_of(spec_of(Attention()))
    assert "ws.keep" not in text
    assert "see(" not in text


def test_the_comment_lists_the_arguments_in_the_order_of_the_layout():
    spec = spec_of(attngen.load("sliding_window_sink", ("O", "LSE")))
    layout = arg_layout(spec)
    comment = re.sub(r"\n//\s*", " ", text_of(spec))
    assert ", ".join(layout.pointers) in comment
    assert ", ".join(layout.ints) in comment
    assert layout.pointers == ("Q", "K", "V", "O", "LSE")
    assert layout.ints[-2:] == ("sink", "window")
    assert layout.floats == ("scale",)


def test_lines_break_at_spaces_and_comments_stay_comments():
    code = "    const int64_t x = " + " + ".join(["some_long_name"] * 12) + ";"
    comment = "// " + "word " * 40
    for line in wrap(f"{code}\n{comment}").splitlines():
        assert len(line) <= 120
    assert "".join(wrap(code).split()) == "".join(code.split())
    assert all(line.startswith("//") for line in wrap(comment).splitlines())


def softmax_like(*steps) -> TileProgram:
    return TileProgram(
        OPERANDS, (), (Carried("M", "row", Const(0.0)), Carried("O", "acc", Const(0.0))), steps, (), ()
    )


def test_a_sweep_ends_where_a_row_value_needs_its_reduction():
    s, m = Load("S", (Q, K)), Load("m", (Q,))
    tile = softmax_like(
        Dot("S", "Q", "K"),
        Mask("S", float("-inf")),
        RowReduce("m", "max", "S"),
        RowLet("M", m),
        TileLet("P", apply("exp", apply("sub", s, Load("M", (Q,))))),
        RowReduce("z", "sum", "P"),
        AccDot("O", "P", None, "V"),
        RowLet("M", apply("add", m, Load("z", (Q,)))),
    )
    layout = lay_out(tile, masked=True, dtypes={})
    assert [type(p) for p in layout.parts] == [Dot, Section, AccDot]
    section = layout.parts[1]
    assert isinstance(section, Section)
    assert [type(i) for i in section.items] == [Sweep, RowLet, Sweep, RowLet]
    assert layout.slots == {"S": 0, "P": 0}  # P takes the place of S, whose last reader makes it
    assert layout.kept == ()
    sweeps = [
        i
        for i in lay_out(tile, masked=False, dtypes={"V": "bfloat16"}).parts[1].items
        if isinstance(i, Sweep)
    ]
    assert not any(isinstance(s, Mask) for sweep in sweeps for s in sweep.steps)
    assert any(getattr(s, "out", "") == rounded_name("P", "bfloat16") for s in sweeps[1].steps)


def test_row_values_read_after_a_contraction_are_kept():
    tile = softmax_like(
        Dot("S", "Q", "K"),
        RowReduce("m", "max", "S"),
        RowLet("r", Load("m", (Q,))),
        AccDot("O", "S", "r", "V"),
        TileLet("T", apply("mul", Load("S", (Q, K)), Load("r", (Q,)))),
        AccDot("O", "T", None, "V"),
    )
    layout = lay_out(tile, masked=True, dtypes={})
    assert layout.kept == ("r",)
    assert layout.slots["S"] != layout.slots["T"] or layout.slots == {"S": 0, "T": 0}


def test_a_reduction_without_a_lane_form_is_refused():
    spec = spec_of(attngen.load("causal"))
    bad = TileProgram(
        OPERANDS,
        (),
        (Carried("A", "row", Const(0.0)),),
        (Dot("S", "Q", "K"), RowReduce("a", "topk", "S"), RowLet("A", Load("a", (Q,)))),
        (),
        (Output("A", "A", "row"),),
    )
    from dataclasses import replace

    with pytest.raises(UnsupportedError, match="topk"):
        text_of(replace(spec, tile=bad))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
@pytest.mark.parametrize("arch", ["cpu-avx2", "cpu-avx512"])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(64, 64), (80, 128)])
def test_the_contractions_keep_their_accumulators_in_registers(arch, head_dim, value_dim, tmp_path):
    compiler = find_compiler()
    version = subprocess.run([str(compiler), "--version"], capture_output=True, text=True, check=False).stdout
    if "Free Software Foundation" not in version:
        pytest.skip("register allocation is checked for GCC")
    source, assembly = tmp_path / "kernel.cpp", tmp_path / "kernel.s"
    spec = spec_of(attngen.load("causal"), head_dim=head_dim, value_dim=value_dim)
    source.write_text(text_of(spec, arch), encoding="utf-8")
    flags = [f for f in target_flags(parse_target(arch)) if f != "-shared"]
    subprocess.run([str(compiler), *flags, "-S", "-o", str(assembly), str(source)], check=True)
    functions = re.findall(
        r"^(_Z\S*(?:dot_qk|dot_pv)ILi\dE\S*):$(.*?)\.cfi_endproc", assembly.read_text(), re.M | re.S
    )
    assert len(functions) == 4  # each for a full panel and for one vector
    for name, body in functions:
        loops = [loop for loop in innermost_loops(body) if any("vfmadd" in line for line in loop)]
        assert loops, name
        for loop in loops:
            spills = [line for line in loop if "(%rsp)" in line and re.search(r"%[xyz]mm", line)]
            assert not spills, f"{name}: {spills}"


def innermost_loops(body: str) -> list[list[str]]:
    """The lines between a label and a jump back to it, where no other such loop lies inside."""
    lines = body.splitlines()
    labels = {m.group(1): i for i, line in enumerate(lines) if (m := re.match(r"(\.L\w+):", line))}
    jumps = [
        (labels[m.group(1)], i)
        for i, line in enumerate(lines)
        if (m := re.match(r"\s*j\w+\s+(\.L\w+)", line)) and labels.get(m.group(1), i) < i
    ]
    return [lines[a:b] for a, b in jumps if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in jumps)]
