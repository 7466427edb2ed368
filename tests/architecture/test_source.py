"""Properties of the source text: sizes, printing, the environment, and paths of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from attngen.store.settings import VARIABLES, Settings

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "attngen"
LONGEST_MODULE = 500
LONGEST_FUNCTION = 60  # without the functions defined inside it
LONGEST_TEMPLATE = 150
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".attn", ".jinja", ".json", ".yml", ".sh", ".cfg", ""}
SKIPPED = {".git", "__pycache__", "build", "dist", "shared"}


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    "path", sources("attngen", "tests", "examples", "benchmarks", "checks"), ids=relative
)
def test_no_module_is_longer_than_a_reader_can_hold(path: Path):
    assert length(path) <= LONGEST_MODULE


@pytest.mark.parametrize("path", sorted((ROOT / "templates").rglob("*.jinja")), ids=relative)
def test_templates_are_short(path: Path):
    assert length(path) <= LONGEST_TEMPLATE


def lines_of(node: ast.AST) -> int:
    """Lines of a function, those of the functions inside it left out."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    assert node.end_lineno is not None
    inner = (n for n in ast.iter_child_nodes(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return node.end_lineno - node.lineno + 1 - sum(n.end_lineno - n.lineno + 1 for n in inner)


@pytest.mark.parametrize("path", sources("attngen"), ids=relative)
def test_functions_are_short(path: Path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{relative(path)}:{node.lineno} {node.name}"
            assert lines_of(node) <= LONGEST_FUNCTION, f"{where} has {lines_of(node)} lines"


@pytest.mark.parametrize("path", sources("attngen"), ids=relative)
def test_modules_start_the_same_way(path: Path):
    module = tree(path)
    assert ast.get_docstring(module), "no docstring"
    if len(module.body) > 1:
        second = module.body[1]
        assert isinstance(second, ast.ImportFrom)
        assert second.module == "__future__"


@pytest.mark.parametrize("path", [p for p in sources("attngen") if p.parent.name != "cli"], ids=relative)
def test_the_library_does_not_print(path: Path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.stdout.write", "sys.stderr.write"), node.lineno


def names_in(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and re.fullmatch(r"ATTNGEN_[A-Z0-9_]+", value):
            yield node.lineno, value


def test_every_variable_of_the_environment_is_in_the_table():
    known = {v.name for v in VARIABLES}
    for path in sources("attngen"):
        for line, name in names_in(tree(path)):
            assert name in known, f"{relative(path)}:{line} speaks of {name}"


def test_documents_speak_only_of_variables_in_the_table():
    known = {v.name for v in VARIABLES}
    for path in (ROOT / "templates" / "aot").glob("*.jinja"):  # the C interface has names of its own
        known |= set(re.findall(r"\bATTNGEN_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8")))
    for path in [*ROOT.glob("*.md"), ROOT / "ir" / "README.md"]:
        named = set(re.findall(r"\bATTNGEN_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8")))
        assert named <= known, f"{relative(path)}: {named - known}"


@pytest.mark.parametrize("path", sources("attngen"), ids=relative)
def test_only_the_settings_read_the_environment(path: Path):
    if path == PACKAGE / "store" / "settings.py":
        return
    for node in ast.walk(tree(path)):
        text = ast.unparse(node) if isinstance(node, ast.Subscript | ast.Call) else ""
        if re.match(r"os\.(environ\.get\(|environ\[|getenv\()", text):
            assert "ATTNGEN" not in text, f"{relative(path)}:{node.lineno}"
            # Another tool's variable may be read by its backend, and by nothing else.
            assert path.parent.name == "backends", f"{relative(path)}:{node.lineno} {text}"


@pytest.mark.parametrize("field", [f.name for f in fields(Settings)])
def test_every_setting_has_a_reader(field: str):
    for path in sources("attngen"):
        text = path.read_text(encoding="utf-8")
        if path.name != "settings.py" and "attngen.store.settings" in text:
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Attribute) and node.attr == field:
                    return
    pytest.fail(f"nothing reads settings().{field}: take it out of the table")


def texts() -> list[Path]:
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(p in SKIPPED or p.endswith(".egg-info") or (p[0] == "." and p != ".ci") for p in parts)
        if not hidden and path.is_file() and path.suffix in TEXT_SUFFIXES:
            found.append(path)
    return sorted(found)


def test_no_path_of_one_machine():
    places = "|".join(["root", "work", "home"])
    pattern = re.compile(rf"(?<![\w.~<>])/(?:{places})/\w")
    hits = [
        f"{relative(path)}:{n}: {line.strip()}"
        for path in texts()
        for n, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert hits == []


NORMALISERS = re.compile(r"softmax|entropy|softmin|layer ?norm|log-?sum-?exp", re.IGNORECASE)


@pytest.mark.parametrize("room", ["attngen/algebra", "attngen/emit", "templates"])
def test_no_stage_after_the_language_names_a_normaliser(room):
    files = [p for p in (ROOT / room).rglob("*") if p.suffix in (".py", ".jinja")]
    named = [f"{p.name}: {m.group()}" for p in files for m in [NORMALISERS.search(p.read_text())] if m]
    assert len(files) > 5
    assert named == []
