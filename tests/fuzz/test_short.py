"""A second of fuzzing of each kind; the command in CONTRIBUTING runs longer. And the harness finds what it is for."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import tracer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_nothing_is_found(target, tmp_path, capsys):
    seed = random.randrange(1 << 30)
    assert fuzz.run(target, 2.0, seed, tmp_path / "found") == 0, capsys.readouterr().out


@pytest.mark.parametrize("problem", ["another's", "endless"])
def test_what_is_wrong_is_found(problem, tmp_path, monkeypatch, capsys):
    def wrong(rng, held):
        held.append("the input")
        while problem == "endless":
            pass
        raise KeyError("not ours")

    monkeypatch.setitem(fuzz.TARGETS, "parser", wrong)
    monkeypatch.setattr(fuzz, "LIMIT_S", 0.05)
    assert fuzz.run("parser", 5.0, 1, tmp_path / "found", most=2) == 2
    files = sorted((tmp_path / "found").iterdir())
    assert len(files) == 2
    assert files[0].read_text().startswith("the input")


def test_errors_of_the_function_are_told_from_ours():
    space = {}
    exec(compile("def function():\n    return 1 // 0\n", "<fuzz>", "exec"), space)
    with pytest.raises(ZeroDivisionError) as caught:
        space["function"]()
    assert tracer.is_own(caught.value)
    with pytest.raises(KeyError) as other:
        {}["x"]
    assert not tracer.is_own(other.value)
