"""The search: what it finds, what it never chooses, and that nothing is measured twice."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from attngen.errors import ParameterError
from attngen.tune.budget import BUDGETS, Budget, budget_named, covering
from attngen.tune.measurement import Measurement, Sample, best, join, measurement_from_json, speeds
from tests.tune.labs import BEST, DEFAULT, SPACE, FakeLab, bowl, searching


@pytest.mark.parametrize("seed", range(5))
def test_it_walks_into_the_valley(seed):
    search = searching(FakeLab(), seed=seed)
    assert search.run()
    assert best(search.known.values()).config == BEST
    assert best(search.known.values()).is_final


def test_it_is_the_same_for_the_same_seed():
    orders = []
    for seed in (1, 1, 2):
        lab = FakeLab()
        searching(lab, seed=seed).run()
        orders.append(lab.built)
    assert orders[0] == orders[1] != orders[2]


def test_it_keeps_to_the_default_where_nothing_is_faster():
    search = searching(FakeLab(lambda c: 1e-3 if c == DEFAULT else 1.01e-3))
    search.run()
    assert best(search.known.values()) is None


def test_noise_alone_is_no_gain():
    rng = random.Random(0)
    chosen = 0
    for _ in range(30):
        search = searching(FakeLab(lambda _: 1e-3 * (1 + 0.1 * rng.random())), budget=BUDGETS["quick"])
        search.clock = lambda: 0.0
        search.run()
        chosen += best(search.known.values()) is not None
    assert chosen <= 6


@pytest.mark.parametrize("failing", ["failing", "mistaken"])
def test_where_every_candidate_fails_the_default_stays(failing):
    lab = FakeLab(**{failing: lambda _: True})
    search = searching(lab)
    assert search.run()
    assert best(search.known.values()) is None
    assert {m.status for m in search.known.values()} == {"compile_error" if failing == "failing" else "wrong"}
    assert set(lab.sampled) <= {DEFAULT}


def test_what_is_wrong_is_never_chosen_though_it_is_fast():
    search = searching(FakeLab(mistaken=lambda c: c == BEST))
    search.run()
    assert search.known[BEST].status == "wrong"
    assert best(search.known.values()).config != BEST


def test_budgets_are_kept():
    lab = FakeLab()
    searching(lab, budget=Budget("test", 1e9, 10, 2, 1, 3)).run()
    assert len(set(lab.built)) <= 10
    now = iter(range(10**6))
    lab = FakeLab()
    searching(lab, budget=Budget("test", 200.0, 10**6, 2, 1, 3), clock=lambda: float(next(now))).run()
    assert len(set(lab.built)) < 60
    with pytest.raises(ParameterError, match="no budget 'huge'"):
        budget_named("huge")
    assert covering("default") == {"default", "full"}


def test_what_is_clearly_slower_leaves_early():
    lab = FakeLab(lambda c: 1e-3 if c == DEFAULT else 9e-3)
    searching(lab, budget=Budget("test", 1e9, 8, 6, 1, 3)).run()
    counts = Counter(lab.sampled)
    assert all(n == 2 for c, n in counts.items() if c != DEFAULT)


def test_every_sample_is_learnt_at_once():
    learnt = []
    search = searching(FakeLab(), learn=learnt.append)
    search.run()
    assert join(learnt) == search.known
    assert all(len(m.samples) <= 1 for m in learnt)


def test_an_interrupted_search_keeps_what_it_learnt():
    lab, learnt = FakeLab(), []
    calls = iter(range(40))

    def seconds(config):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return bowl(config)

    lab.seconds = seconds
    search = searching(lab, learn=learnt.append)
    assert not search.run()
    assert join(learnt) == search.known != {}


@pytest.mark.parametrize("cut", [1, 7, 23, 40, 60])
def test_a_search_that_was_cut_off_measures_nothing_again(cut):
    class Cut(Exception):
        pass

    learnt = []

    def learn(m):
        if len(learnt) == cut:
            raise Cut
        learnt.append(m)

    with pytest.raises(Cut):
        searching(FakeLab(), learn=learn).run()
    search = searching(FakeLab(), learn=learnt.append, known=join(learnt))
    search.run()
    budget = search.budget
    for m in search.known.values():
        assert sum(not s.final for s in m.samples) <= budget.rounds
        assert sum(s.final for s in m.samples) <= budget.final_rounds
    assert best(search.known.values()).config == BEST


def test_candidates_that_are_refused_are_not_built():
    lab = FakeLab()
    searching(lab, rank=lambda found: [c for c in found if c.block_q != 64]).run()
    assert lab.built
    assert all(c.block_q != 64 for c in lab.built)
    none = FakeLab()
    assert searching(none, rank=lambda _: []).run()
    assert none.built == []


def test_progress_goes_forward():
    parts = []
    searching(FakeLab(), progress=lambda _, part: parts.append(part)).run()
    assert all(0 <= p <= 1 for p in parts)
    assert parts == sorted(parts)


def test_a_measurement_survives_being_written_down():
    m = Measurement(BEST, "ok", (Sample(1e-3, 2e-3), Sample(1.5e-3, 2e-3, True)), "note")
    assert measurement_from_json("cpu", m.to_json()) == m
    assert measurement_from_json("triton", m.to_json()) is None
    for bad in (
        {"status": "fine"},
        {"samples": [[1]]},
        {"samples": [[0.0, 1.0, False]]},
        {"config": {}},
        {"samples": 1},
    ):
        assert measurement_from_json("cpu", {**m.to_json(), **bad}) is None


def test_finals_count_before_first_samples():
    lucky = tuple(Sample(1e-3, 3e-3) for _ in range(3))
    fair = tuple(Sample(1e-3, 1.1e-3, True) for _ in range(3))
    m = Measurement(BEST, "ok", lucky + fair)
    assert m.speedup == pytest.approx(1.1)
    other = Measurement(SPACE.default, "ok", lucky)
    assert best([other, m]) is m
    assert speeds({BEST: m, DEFAULT: other})[0] is other


def test_a_failure_outweighs_samples():
    good = Measurement(BEST, "ok", (Sample(1e-3, 2e-3),))
    assert good.joined(Measurement(BEST, "wrong")).status == "wrong"
    assert best([good.joined(Measurement(BEST, "wrong"))]) is None


def test_a_candidate_that_ends_the_process_is_not_run_for_ever():
    lab = FakeLab()
    search = searching(lab, attempt=lambda c: c != BEST)
    search.run()
    assert BEST not in lab.checked
    assert search.known[BEST].status == "compile_error"
