"""What no module does with text or bytes that come from elsewhere: run them, unpickle them, or hand them to a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "attngen"
MODULES = sorted(PACKAGE.rglob("*.py"))

RUNS = {"eval", "exec", "compile", "__import__"}
LOADS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"}
# Jobs of the tuner go from a process to its own children through a pipe that nobody else can write to.
UNPICKLES = {"tune/child.py": {"pickle.loads"}, "tune/pool.py": {"pickle.dumps"}}
# Emitted kernels are Python: they are imported from the store, whose manifest vouches for every byte; the kernels that
# compress lists ship with the templates.
IMPORTS_FILES = {"backends/triton_import.py", "backends/triton_lists.py"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_from_elsewhere_is_run(path: Path):
    name = name_of(path)
    for call, function in calls(path):
        where = f"{name}:{call.lineno} {function}"
        assert function not in RUNS, where
        assert function not in SHELLS, where
        if function.split(".")[0] in LOADS:
            assert function in UNPICKLES.get(name, set()), where
        if function.endswith((".exec_module", ".load_module", ".spec_from_file_location")):
            assert name in IMPORTS_FILES, where
        for keyword in call.keywords:
            if keyword.arg == "shell":
                pytest.fail(where)
            if keyword.arg == "weights_only":
                assert isinstance(keyword.value, ast.Constant), where
        if function in ("torch.load", "np.load", "numpy.load"):
            given = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert given.get("weights_only") == "True" or given.get("allow_pickle") == "False", where


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_commands_are_lists_of_arguments(path: Path):
    """A command that is one string would be taken apart by somebody."""
    for call, function in calls(path):
        if function in ("subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call"):
            first = call.args[0] if call.args else next(k.value for k in call.keywords if k.arg == "args")
            assert not isinstance(first, ast.Constant | ast.JoinedStr), f"{name_of(path)}:{call.lineno}"


def test_the_check_sees_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each kind of offence in a module of its own is found."""
    monkeypatch.setattr("tests.architecture.test_security.PACKAGE", tmp_path)
    offences = (
        "eval('1')", "exec('x = 1')", "import os\nos.system('ls')", "import pickle\npickle.loads(b'')",
        "import subprocess\nsubprocess.run('ls', shell=True)", "import torch\ntorch.load('x')",
    )  # fmt: skip
    for i, text in enumerate(offences):
        path = tmp_path / f"m{i}.py"
        path.write_text(text)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test_nothing_from_elsewhere_is_run(path)
    path = tmp_path / "command.py"
    path.write_text("import subprocess\nsubprocess.run(f'ls {1}')")
    with pytest.raises(AssertionError):
        test_commands_are_lists_of_arguments(path)


# Modules of ours, by tables of ours.
IMPORTS_BY_NAME = {"__init__.py", "cli/main.py"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_imported_stands_in_the_source(path: Path):
    """No name of a module comes from a file: artefacts, entry points and tables name none."""
    for call, function in calls(path):
        if function.endswith("import_module"):
            is_literal = isinstance(call.args[0], ast.Constant)
            assert is_literal or name_of(path) in IMPORTS_BY_NAME, f"{name_of(path)}:{call.lineno}"
        is_loaded = isinstance(call.func, ast.Attribute) and call.func.attr == "load" and not call.args
        assert not is_loaded, f"{name_of(path)}:{call.lineno} may load an entry point"


PROMISES = (PACKAGE.parent / "SECURITY.md").read_text(encoding="utf-8")


def test_the_tests_behind_the_promises_exist():
    named = set(re.findall(r"tests/[a-z_/]+\.py", PROMISES))
    assert len(named) >= 6
    assert {name for name in named if not (PACKAGE.parent / name).is_file()} == set()


def test_the_limits_are_those_of_the_code():
    from attngen.artefact import document
    from attngen.lang import limits, program, words
    from attngen.store.settings import VARIABLES

    defaults = {v.name: v.default for v in VARIABLES}
    rows = (
        f"| characters of a text | {program.MAX_CHARS:,} |",
        f"| depth of an expression | {words.MAX_DEPTH} |",
        f"written out | {words.MAX_NODES:,} |",
        f"| parts of all of them together | {limits.MAX_TOTAL_NODES:,} |",
        f"| {limits.MAX_EINSUMS}; {limits.MAX_DECLARATIONS:,}; {limits.MAX_RANKS}; {limits.MAX_AXES} |",
        f"| {defaults['ATTNGEN_DERIVE_TIMEOUT_S']} s (`ATTNGEN_DERIVE_TIMEOUT_S`) |",
        f"| {defaults['ATTNGEN_COMPILE_TIMEOUT_S']} s (`ATTNGEN_COMPILE_TIMEOUT_S`) |",
        f"at most {limits.MAX_NAME} characters",
        f"at most {document.MAX_BYTES >> 20} MiB, {document.MAX_DEPTH} levels",
    )
    text = " ".join(PROMISES.split())
    assert [row for row in rows if " ".join(row.split()) not in text] == []
