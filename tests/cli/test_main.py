"""The command's frame: every end of a verb becomes an exit code and one message."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from attngen.cli import main as main_module
from attngen.cli.common import add_verb, bytes_text, columns, seconds_text
from attngen.cli.main import VERBS, main
from attngen.errors import InternalError, ShapeError

ROOT = Path(__file__).resolve().parents[2]


def attngen(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("ATTNGEN_")}
    surroundings |= {"PYTHONPATH": str(ROOT), "ATTNGEN_CACHE_DIR": str(cwd / "cache"), **env}
    return subprocess.run(
        [sys.executable, "-m", "attngen", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=surroundings,
        check=False,
    )


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Replaces the verb `list` by one whose `run` is given."""

    def replace(run: Callable[[argparse.Namespace], int]) -> None:
        def add_parser(subparsers) -> None:
            add_verb(subparsers, "list", help="h", description="d", examples=["attngen list"])

        module = SimpleNamespace(add_parser=add_parser, run=run)
        monkeypatch.setattr(main_module, "_module", lambda name: module)

    return replace


@pytest.mark.parametrize("name", [v.name for v in VERBS])
def test_every_verb_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"\n  attngen {name}" in text
    assert "--traceback" in text


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for each in VERBS:
        assert f"\n    {each.name} " in text
    assert main([]) == 2
    assert capsys.readouterr().out == text


def test_help_imports_no_verb_and_nothing_heavy():
    code = (
        "import sys; from attngen.cli.main import main; main(['--help'])\n"
        "loaded = {n for n in sys.modules if n.startswith('attngen.cli.')}\n"
        "assert loaded == {'attngen.cli.main', 'attngen.cli.common'}, loaded\n"
        "assert not {'torch', 'numpy', 'sympy', 'triton'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("attngen ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["list", "--nonsense"],
        ["list", "extra"],
        ["cache"],
        ["cache", "burn"],
        ["cache", "explain"],
    ],
)
def test_bad_usage_is_the_users_mistake(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    assert "usage: attngen" in capsys.readouterr().err


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["expalin", "x"]) == 2
    assert "did you mean 'explain'?" in capsys.readouterr().err


def test_our_errors_on_purpose_are_one_message_and_2(verb, capsys: pytest.CaptureFixture[str]):
    def run(args: argparse.Namespace) -> int:
        raise ShapeError("query and key differ", hint="pass [B, H, N, D]")

    verb(run)
    assert main(["list"]) == 2
    err = capsys.readouterr().err
    assert err == "attngen: [AG401] query and key differ\n  hint: pass [B, H, N, D]\n"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division"), InternalError("broken"), RecursionError("deep")]
)
def test_what_nobody_foresaw_is_our_fault_and_1(verb, capsys: pytest.CaptureFixture[str], error: Exception):
    def run(args: argparse.Namespace) -> int:
        raise error

    verb(run)
    assert main(["list"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("attngen: [AG901] ")
    assert str(error) in err
    assert "attngen doctor" in err
    assert "Traceback" not in err


def test_traceback_on_request(verb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run(args: argparse.Namespace) -> int:
        raise ShapeError("query and key differ")

    verb(run)
    for arguments in (["--traceback", "list"], ["list", "--traceback"]):
        assert main(arguments) == 2
        assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("ATTNGEN_TRACEBACK", "1")
    assert main(["list"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_file_that_cannot_be_opened_is_named(verb, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    def run(args: argparse.Namespace) -> int:
        (tmp_path / "missing" / "out.txt").write_text("x")
        return 0

    verb(run)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == f"attngen: {tmp_path}/missing/out.txt: No such file or directory\n"


def test_interrupted(verb):
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    verb(run)
    assert main(["list"]) == 130


def test_the_code_of_the_verb_is_the_code_of_the_command(verb):
    verb(lambda args: 7)
    assert main(["list"]) == 7


def test_a_reader_that_leaves_is_no_error(tmp_path: Path):
    command = f"{sys.executable} -m attngen list | true; echo ${{PIPESTATUS[0]}}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert done.stdout.strip() in ("141", "0")  # 0 when the reader left only after everything was written
    assert done.stderr == ""


def test_a_bad_variable_is_one_message(tmp_path: Path):
    done = attngen("cache", "info", cwd=tmp_path, ATTNGEN_CACHE_LIMIT_MB="lots")
    assert done.returncode == 2
    assert done.stderr.startswith("attngen: [AG602] ATTNGEN_CACHE_LIMIT_MB='lots' cannot be used")
    assert "Traceback" not in done.stderr


def test_quantities_for_people():
    assert [bytes_text(n) for n in (0, 1023, 1024, 1536, 5 << 20, 3 << 30, 2 << 40)] == [
        *("0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB", "2.0 TiB")
    ]
    assert [seconds_text(s) for s in (83.1e-6, 1.2444e-3, 0.5, 1.0, 2.05, 99, 200)] == [
        *("83.1 us", "1.24 ms", "500 ms", "1 s", "2.05 s", "99 s", "3 min 20 s")
    ]
    assert columns([("a", "bb", "c"), ("aaa", "b", "")], indent=" ") == " a    bb  c\n aaa  b"
