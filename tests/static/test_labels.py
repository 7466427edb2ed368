"""Which loop of the text a loop of the code is."""

from __future__ import annotations

import attngen
from attngen.backends.triton import TritonBackend
from attngen.static.labels import label_of, loop_lines

TEXT = """\
def kernel():
    # Partial tiles: the mask decides.
    for i in range(0, n_partial):
        a = (
            1
        )

        b = 2

    # Full tiles: every pair is kept.
    k_from = (
        0
    )
    for start in range(0, n_full):
        a = 1

    # Right edge: only where each row ends decides.
    done = 1
    # What comes after.
    for i in range(0, 1):
        pass
"""
LINES = {"partial": range(3, 9), "full": range(14, 16)}


def test_lines_of_the_loops():
    assert loop_lines(TEXT) == LINES
    assert loop_lines("") == {}
    assert loop_lines("    # Full tiles: every pair is kept.") == {}
    assert loop_lines("    # Full tiles: every pair is kept.\nfor i in x:\n    pass") == {}


def test_every_loop_of_a_printed_kernel_is_found():
    (spec,), target = attngen.load("sliding_window").kernel_specs("sm_90", "bf16", 64)
    text = TritonBackend().emit(spec, target).text
    found = loop_lines(text)
    lines = text.splitlines()
    assert list(found) == ["partial", "left", "full", "right"]
    for own in found.values():
        assert lines[own.start - 1].startswith("    for ")
        assert all(line.startswith("        ") for line in lines[own.start : own.stop - 1])
        assert any(line.strip() == "M = M_new" for line in lines[own.start : own.stop - 1])
    assert sum(line.startswith("    for ") for line in lines) == len(found)


def at(*numbers: int, file: str = "/x/kernel.py") -> list[tuple[str, int] | None]:
    return [(file, n) for n in numbers]


def test_nearly_all_lines_decide():
    assert label_of(at(*[4] * 9, 14), LINES, "kernel.py") == "partial"
    assert label_of(at(*[14] * 9, 4), LINES, "kernel.py") == "full"
    assert label_of(at(4, 14), LINES, "kernel.py") is None


def test_lines_of_other_files_and_of_no_loop_do_not_count():
    assert label_of([*at(15), None, *at(1, 13), *at(4, 5, file="/y/other.py")], LINES, "kernel.py") == "full"
    assert label_of(at(1, 13), LINES, "kernel.py") is None
    assert label_of([None], LINES, "kernel.py") is None
    assert label_of(at(4), {}, "kernel.py") is None
