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
    for i in range(0, n_full):
        a = 1
    done = 1
"""
LINES = {"partial": range(3, 9), "full": range(11, 13)}


def test_lines_of_the_loops():
    assert loop_lines(TEXT) == LINES
    assert loop_lines("") == {}
    assert loop_lines("    # Full tiles: cut off") == {}


def test_the_printed_kernel_has_both():
    (spec,), target = attngen.load("sliding_window").kernel_specs("sm_90", "bf16", 64)
    text = TritonBackend().emit(spec, target).text
    found = loop_lines(text)
    lines = text.splitlines()
    assert list(found) == ["partial", "full"]
    for own in found.values():
        assert lines[own.start - 1].startswith("    for i in range(0, n_")
        assert all(line.startswith("        ") for line in lines[own.start : own.stop - 1])
        assert lines[own.stop - 2].strip() == "M = M_new"


def at(*numbers: int, file: str = "/x/kernel.py") -> list[tuple[str, int] | None]:
    return [(file, n) for n in numbers]


def test_nearly_all_lines_decide():
    assert label_of(at(*[4] * 9, 12), LINES, "kernel.py") == "partial"
    assert label_of(at(*[12] * 9, 4), LINES, "kernel.py") == "full"
    assert label_of(at(4, 12), LINES, "kernel.py") is None


def test_lines_of_other_files_and_of_no_loop_do_not_count():
    assert label_of([*at(12), None, *at(1, 13), *at(4, 5, file="/y/other.py")], LINES, "kernel.py") == "full"
    assert label_of(at(1, 13), LINES, "kernel.py") is None
    assert label_of([None], LINES, "kernel.py") is None
    assert label_of(at(4), {}, "kernel.py") is None
