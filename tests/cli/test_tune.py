"""`attngen tune`, with times from a formula."""

from __future__ import annotations

import json

import pytest

from attngen import run_choice
from attngen.cli.main import main
from attngen.cli.progress import Bar
from attngen.tune.budget import BUDGETS, Budget
from tests.tune.test_decide import Formula

SMALL = ("--shape", "1,2,64,16", "--device", "cpu")


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 600.0, 2, 3, 1, 3))
    monkeypatch.setattr("attngen.tune.sweep.busy_part", lambda: 1.0)
    monkeypatch.setattr("attngen.tune.lab.timer_for", lambda *_: Formula())
    yield
    run_choice.forget_choices()


def test_tune_measures_keeps_and_exports(tmp_path, capsys):
    table = tmp_path / "table.json"
    assert main(["tune", "causal", *SMALL, "--export", str(table)]) == 0
    out, err = capsys.readouterr()
    assert "O         block_q=" in out
    assert "1 ms a launch, default 2 ms, 2.00x as fast" in out
    assert "2 configurations measured; 9 new samples" in out
    assert err == ""
    (entry,) = json.loads(table.read_text())["entries"]
    assert entry["key"]["bucket"]["n_q"] == 64
    assert main(["tune", "causal", *SMALL, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "(final)" in out
    assert main(["tune", "causal", *SMALL]) == 0
    assert "all of it known before" in capsys.readouterr().out


def test_an_interrupted_search_shows_what_it_has(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("attngen.tune.lab.SweepLab.check", interrupted)
    assert main(["tune", "causal", *SMALL]) == 130
    assert "(the default)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--shape", "1,2,64"], ["--shape", "a"], ["--budget", "huge"], ["--device", "tpu"], ["--heads", "0"]],
)
def test_mistakes_are_told(arguments, capsys):
    assert main(["tune", "causal", *arguments]) == 2
    assert capsys.readouterr().err


def test_the_bar_is_drawn_on_terminals_alone(monkeypatch, capsys):
    bar = Bar()
    bar.show("building", 0.5)
    bar.clear()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = Bar()
    bar.show("building", 0.5)
    bar.show("", 0.75)
    bar.clear()
    err = capsys.readouterr().err
    assert "[##########..........]  50%  building" in err
    assert "[###############.....]  75%  building" in err
    assert err.endswith("\r")


@pytest.mark.parametrize("target", [None, "sm_90", "gfx942", "sm_120"])
def test_predictions_are_shown_and_nothing_is_kept(target, tmp_path, capsys):
    chosen = () if target is None else ("--target", target, "--dtype", "bf16")
    assert main(["tune", "sliding_window", *SMALL, "--predict", *chosen]) == 0
    out = capsys.readouterr().out
    default, *others = out.splitlines()[2:]
    assert default.startswith("  default  block_q=")
    assert len(others) >= 5
    factors = [float(line.split("x ")[0]) for line in others]
    assert factors == sorted(factors, reverse=True)
    assert "ms (" in default
    assert not (tmp_path / "cache" / "tuning").exists()


def test_mistakes_with_predictions(capsys):
    assert main(["tune", "causal", *SMALL, "--predict", "--target", "sm_75"]) == 2
    assert main(["tune", "causal", *SMALL, "--target", "sm_90"]) == 2
    assert "--predict" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_by_compiled_code(capsys):
    arguments = ["--predict", "--target", "sm_90", "--dtype", "bf16", "--compile", "1", "--head-dim", "64"]
    assert main(["tune", "causal", "--shape", "1,8,2048,64", "--device", "cpu", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 2
    assert lines[0].startswith("  default")
