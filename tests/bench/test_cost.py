"""The cost suite: points that hold what was measured and counted, and what the command writes and reads again."""

from __future__ import annotations

import json

import pytest
import torch

from attngen.bench.cost import suite
from attngen.bench.cost.cases import CASES, CostCase
from attngen.bench.cost.measure import measure
from attngen.cli.main import main
from attngen.cost import prices as shipped

TINY = CostCase(
    "sliding_window", 96, 130, heads=1, kv_heads=1, head_dim=16, value_dim=16, values={"window": 20}
)


def test_names_tell_cases_apart():
    assert len({c.name for c in CASES}) == len(CASES) >= 50


def test_points_of_a_call():
    points = list(measure(TINY, configs=2, rounds=1, seed=0, threads=1))
    assert [p.is_default for p in points].count(True) == 1
    assert len(points) == 2
    assert len({str(p.config) for p in points}) == 2
    for p in points:
        assert p.seconds > 0
        assert p.imbalance == 1.0
        assert p.work["products"] > 0
        assert p.work["launch"] == 1.0


@pytest.fixture
def own_prices(tmp_path, monkeypatch):
    """A file of prices that a test may rewrite."""
    file = tmp_path / "prices.json"
    file.write_text(shipped.FILE.read_text(encoding="utf-8"), encoding="utf-8")
    for module in (shipped, suite):
        monkeypatch.setattr(module, "FILE", file)
    shipped.prices.cache_clear()
    threads = torch.get_num_threads()
    yield file
    torch.set_num_threads(threads)
    shipped.prices.cache_clear()


def test_the_command_measures_fits_and_reads_its_own_result(own_prices, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "CASES", (TINY, CostCase("causal", 96, 96, heads=1, kv_heads=1, head_dim=16)))
    out = tmp_path / "cost.json"
    before = json.loads(own_prices.read_text(encoding="utf-8"))
    monkeypatch.setattr("attngen.cli.bench_cost._CONFIGS", 4)
    assert main(["bench", "cost", "--rounds", "1", "--threads", "1", "--fit", "--out", str(out)]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))
    assert held["judgement"]["fitted"]["points"] == len(held["points"]) == 8
    after = json.loads(own_prices.read_text(encoding="utf-8"))
    assert after["cpu"]["seconds"] == held["prices"] != before["cpu"]["seconds"]
    assert after["tile sm_90"] == before["tile sm_90"]
    capsys.readouterr()
    assert main(["bench", "cost", "--points", str(out)]) == 0
    assert "rank_correlation" in capsys.readouterr().out
    assert main(["bench", "cost", "--case", "nothing", "--threads", "1"]) == 2
    out.write_text("{}", encoding="utf-8")
    assert main(["bench", "cost", "--points", str(out)]) == 2
