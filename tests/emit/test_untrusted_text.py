"""What strangers write into a program reaches comments of generated text, and nothing else of it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from attngen.api import Attention
from attngen.errors import AttngenError, ParameterError
from attngen.lang.parse import parse_program
from attngen.lang.print import print_program

EVIL = (
    '*/ int evil; /*', '"""\nimport evil\n"""', "\\\nint evil;", "ends in \\", "\\ \\ ", "// ??/\nint evil;",
    "{{ 7 * 191 }} {% raw %}",
    "\u202eevil\u202c", "\x1b[2Jevil", "a\u2028int evil;\u2029\x0b\x0c\x85int evil;", "%s%n%d", "#include <evil>",
    "'''", "λ ﬁ 𝒳", "\r\nint evil;",
)  # fmt: skip
KEYWORDS = (
    "int_", "for_", "evil", "auto", "register", "NULL", "INT_FAST16_MAX", "UINT8_C", "SIZE_MAX", "RAND_MAX", "offsetof",
    "unix", "errno", "main", "printf", "torch", "triton", "tl", "self", "print", "exec", "object", "type", "async_",
    "EOF", "std", "args", "out", "x" * 200,
)  # fmt: skip


def program_of(doc: str, name: str = "program") -> str:
    """A program with a docstring, whatever is in that."""
    base = parse_program("window: int = 3\nmask = (k <= q) & (q - k < window)\n", name=name)
    from dataclasses import replace

    return print_program(replace(base, doc=doc))


def code_of(cpp: str) -> str:
    """C++ without its line comments and blank lines; a comment that goes on in the next line would swallow it."""
    assert not re.search(r"//.*\\[ \t]*$", cpp, re.MULTILINE)
    return "\n".join(line for line in (re.sub(r"//.*$", "", ln).rstrip() for ln in cpp.split("\n")) if line)


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    spec = Attention.from_program(parse_program(program_of("")))
    return {target: spec.source(target, "fp32", 16) for target in ("cpu", "sm_90")}


@pytest.mark.parametrize("doc", EVIL, ids=ascii)
def test_a_docstring_stays_in_comments(doc: str, plain: dict[str, str]):
    # the text of equal programs is kept, so each gets a parameter of its own
    number = 1000 + EVIL.index(doc)
    text = program_of(doc).replace("= 3", f"= {number}")
    assert parse_program(text).doc == doc.strip()
    spec = Attention.from_program(parse_program(text))
    cpp = spec.source("cpu", "fp32", 16)
    assert code_of(cpp) == code_of(plain["cpu"])
    assert all(c.isprintable() or c == "\n" for c in cpp)
    triton = spec.source("sm_90", "fp32", 16)
    body, wanted = ast.parse(triton).body, ast.parse(plain["sm_90"]).body
    assert [ast.dump(n) for n in body[1:]] == [ast.dump(n) for n in wanted[1:]]
    assert "1337" not in triton + cpp  # no template evaluates it


@pytest.mark.parametrize(
    "name", ["a b", "*/ int evil;", '"""', "ends in \\", "..", "-o", "{{ 7 * 191 }}", "λ", "$(evil)", "a;b"]
)
def test_a_name_stays_in_comments(name: str, tmp_path: Path, plain: dict[str, str]):
    number = 2000 + sum(map(ord, name))
    spec = Attention.from_program(parse_program(program_of("").replace("= 3", f"= {number}"), name=name))
    cpp, triton = (spec.source(target, "fp32", 16) for target in ("cpu", "sm_90"))
    assert name.rstrip("\\") in cpp
    assert code_of(cpp) == code_of(plain["cpu"])
    ast.parse(triton)
    assert "1337" not in triton + cpp
    with pytest.raises(ParameterError, match="cannot name an artefact"):
        spec.compile("cpu", "fp32", 16, path=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", KEYWORDS)
def test_names_that_mean_something_elsewhere(name: str):
    """Either the language refuses a name, or kernels spell it so that it means nothing else."""
    text = (
        f"{name}: int = 2\nt_{name}[k]: float\nmask = (k <= q) & (q - k < {name})\nscore = S + t_{name}[k]"[
            :60_000
        ]
    )
    try:
        program = parse_program(text)
    except AttngenError:
        assert name == "x" * 200  # `t_` in front makes it too long
        return
    spec = Attention.from_program(program)
    ast.parse(spec.source("sm_90", "fp32", 16))
    compiler = shutil.which("c++")
    if compiler is not None:
        done = subprocess.run(
            [compiler, "-std=c++17", "-fsyntax-only", "-Wno-psabi", "-x", "c++", "-"],
            input=spec.source("cpu", "fp32", 16),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["__class__", "_x", "é", "a\u200bb", "1x", "lambda", "None", "x.y", "class"])
def test_names_that_are_no_names(name: str):
    with pytest.raises(AttngenError):
        parse_program(f"{name}: int = 2\nmask = (k <= q) & (q - k < {name})")


def test_every_macro_of_the_headers_is_avoided():
    """What the headers of kernels define without an underscore in front."""
    from attngen.emit.cpp_names import RESERVED

    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no compiler")
    text = "#include <stdint.h>\n#include <stdlib.h>\n"
    command = [compiler, "-std=c++17", "-fopenmp", "-dM", "-E", "-x", "c++", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    macros = {re.split(r"[ (]", line)[1] for line in done.stdout.splitlines()}
    assert {m for m in macros if not m.startswith("_") and m not in RESERVED} <= {"linux", "unix"}


def test_a_name_that_is_a_keyword_runs():
    """End to end: a parameter called `register` and a tensor called `template`."""
    text = (
        "register: int = 2\ntemplate[k]: float\nmask = (q - k < register) & (k <= q)\nscore = S + template[k]"
    )
    spec = Attention.from_program(parse_program(text))
    q = torch.randn(1, 2, 9, 16)
    bias = torch.randn(9)
    out = spec(q, q, q, template=bias, backend="cpu")
    assert (out - spec.reference(q, q, q, template=bias)).abs().max() < 1e-5
