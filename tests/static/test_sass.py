"""Listings of nvdisasm, read."""

from __future__ import annotations

import pytest

from attngen.errors import CompileError
from attngen.static.loops import Jump
from attngen.static.sass import Instruction, parse_sass
from tests.static.listings import HEAD, SMALL, code, line


def test_a_small_listing():
    first, skip, matrix, exp2, wait, spin, compare, back, leave, forever = parse_sass(SMALL, "k")
    assert (first.opcode, first.operands, first.stall) == ("LDC", "R1, c[0x0][0x28]", 8)
    assert (first.sets_done, first.sets_read, first.waits) == (7, 7, ())
    assert (skip.predicate, skip.target, skip.jump) == ("@!P0", 8, Jump(8, True))
    assert (matrix.base, matrix.stall, matrix.source) == ("HMMA", 15, ("/tmp/kernel.py", 12))
    assert (exp2.stall, exp2.sets_done, exp2.sets_read) == (1, 1, 7)
    assert exp2.source == ("/python/triton/language/standard.py", 40)
    assert wait.jump is None
    assert spin.target == 4
    assert compare.source == ("/tmp/kernel.py", 13)
    assert back.jump == Jump(2, True)
    assert leave.jump == Jump(None, False)
    assert forever.jump == Jump(9, False)


def test_scoreboards_waited_for():
    (x,) = parse_sass(HEAD + code("FADD R1, R2, R3", control=0x021FE20000000000), "k")
    assert x.waits == (0, 5)


def test_lines_of_inlined_functions_are_those_of_the_caller():
    text = HEAD + '\t//## File "/a/help.py", line 7 inlined at "/b/kernel.py", line 90\n' + code("NOP")
    assert parse_sass(text, "k")[0].source == ("/b/kernel.py", 90)


def test_conditions_among_the_operands():
    assert Instruction("BRA.U", "UP0, `(.L_x_1)", target=3).jump == Jump(3, True)
    assert Instruction("BRA", "`(.L_x_1)", target=3).jump == Jump(3, False)
    assert Instruction("EXIT", predicate="@P0").jump == Jump(None, True)
    assert Instruction("CALL.REL.NOINC", "`(.L_x_1)", target=3).jump is None


def test_other_functions_are_left_out():
    other = '\t.section\t.text.other,"ax",@progbits\n' + code("NOP") + code("NOP")
    assert len(parse_sass(other + HEAD + code("EXIT") + other, "k")) == 1


@pytest.mark.parametrize("text", ["", "nvdisasm fatal : not a cubin", HEAD, HEAD + line(3), SMALL.lower()])
def test_a_listing_without_code_is_an_error_of_ours(text):
    with pytest.raises(CompileError, match="lists no code of k") as caught:
        parse_sass(text, "k")
    assert caught.value.log == text


def test_a_jump_to_a_label_that_is_not_there_has_no_target():
    assert parse_sass(HEAD + code("BRA `(.L_x_9)"), "k")[0].jump == Jump(None, False)


def test_an_instruction_without_its_second_word_has_no_schedule():
    (first, second) = parse_sass(HEAD + code("NOP").splitlines()[0] + "\n" + code("NOP"), "k")
    assert (first.stall, first.waits) == (1, ())
    assert second.stall == 1
