"""The README's Python runs as it stands, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from attngen.cli.main import VERBS

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    import linecache

    from attngen.tune.budget import BUDGETS, Budget

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        BUDGETS, "quick", Budget("quick", 60.0, 1, 1, 1, 3)
    )  # what the search finds is not looked at
    names = {}
    for i, block in enumerate(blocks("python")):
        file = f"<README block {i}>"
        linecache.cache[file] = (len(block), None, block.splitlines(keepends=True), file)
        exec(compile(block, file, "exec"), names)
    shown = capsys.readouterr().out
    assert "3 -> 1" in shown
    assert "tl.dot" in shown
    assert "#include" in shown


def test_the_commands_name_verbs_that_exist():
    used = set(re.findall(r"^attngen (\w+)", "\n".join(blocks("bash")), re.MULTILINE))
    assert used <= {v.name for v in VERBS}
    assert len(used) >= 5


def test_the_two_commands_set_everything_up():
    commands = [
        line for block in blocks("bash")[:2] for line in block.splitlines() if line.startswith("python3")
    ]
    assert len(commands) == 2
    for command in commands:
        assert "-c constraints-cpu.txt -e '.[dev]'" in command
    assert commands[0].endswith("attngen run sliding_window_sink")
    assert commands[1].endswith("pytest -n auto")


def test_the_picture_is_what_the_stages_return():
    import importlib.util

    path = README.parent / "examples" / "picture.py"
    spec = importlib.util.spec_from_file_location("picture", path)
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    assert picture.OUT.read_text(encoding="utf-8") == picture.draw()
