"""The file of many programs: what it says is what is ordered, and what it must not say is told."""

from __future__ import annotations

import pytest

from attngen.aot.read_matrix import read_matrix
from attngen.aot.request import Request
from attngen.errors import ParameterError, ProgramNotFoundError

WHOLE = """
[build]
targets = ["sm_90", "cpu-avx2"]
dtypes = ["bf16", "fp16"]
head-dims = [64, [192, 128]]
out = "kernels"
jobs = 3

[[program]]
name = "sliding_window_sink"
outputs = ["O", "LSE"]
values = { window = 512 }

[[program]]
name = "mine.attn"
targets = ["gfx942"]
forms = ["one_pass", "local_then_merge"]
alignments = ["all", "none"]
packed = [16, 64]

[[program]]
name = "neighborhood_2d"
values = { grid = [30, 48] }
captured = { bias = "float32" }
extents = { j = 5 }
"""


def write(folder, text):
    (folder / "mine.attn").write_text("mask = k <= q\n")
    path = folder / "attngen.toml"
    path.write_text(text)
    return path


def test_everything_a_file_says(tmp_path):
    matrix = read_matrix(write(tmp_path, WHOLE))
    first, mine, grid = matrix.orders
    assert (matrix.out, matrix.jobs) == (tmp_path / "kernels", 3)
    dims = ((64, 64), (192, 128))
    assert first.request == Request(("sm_90", "cpu-avx2"), ("bf16", "fp16"), dims)
    assert first.spec.outputs == ("O", "LSE")
    assert first.spec.values["window"] == 512
    assert mine.name == "mine"
    assert mine.request == Request(
        ("gfx942",), ("bf16", "fp16"), dims, ("one_pass", "local_then_merge"), ("all", "none"), (16, 64)
    )
    assert grid.spec.values["size_x"] == 48
    assert (grid.request.extents, grid.request.captured) == ({"j": 5}, {"bias": "float32"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no programs"),
        ("[build", "not TOML"),
        ("[[program]]\nname = 1", "expected a program's name"),
        ("[[program]]\nname = 'causal'\ncolour = 1", "nothing is known of 'colour'"),
        ("[built]\n[[program]]\nname = 'causal'", "nothing is known of 'built'"),
        ("[build]\njobs = 0\n[[program]]\nname = 'causal'", "jobs: expected"),
        ("[build]\nout = 1\n[[program]]\nname = 'causal'", "out: expected a path"),
        ("[build]\ntargets = 'cpu'\n[[program]]\nname = 'causal'", "targets: expected a list"),
        ("[build]\nhead-dims = [[1, 2, 3]]\n[[program]]\nname = 'causal'", "a pair of widths"),
        ("[build]\nhead-dims = [true]\n[[program]]\nname = 'causal'", "expected a whole number"),
        ("[[program]]\nname = 'causal'\nvalues = 3", "expected a table"),
        ("program = 3", "names no programs"),
        ("[[program]]\nname = 'causal'\nextents = { j = 'x' }", "expected a whole number"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(ParameterError, match=told) as error:
        read_matrix(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ParameterError, match="cannot be read"):
        read_matrix(tmp_path / "nothing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match="not TOML"):
        read_matrix(tmp_path / "bytes.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ParameterError, match="more than"):
        read_matrix(tmp_path / "large.toml")


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(ProgramNotFoundError, match="causall"):
        read_matrix(write(tmp_path, "[[program]]\nname = 'causall'"))
