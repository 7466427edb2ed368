"""Measuring one workload with fakes: smaller cases, absent peers, time, verdicts, operations."""

from __future__ import annotations

import pytest
import torch

from attngen.bench.gpu import measure as module
from attngen.bench.gpu.cases import Bar, Case
from attngen.bench.gpu.masks import Full, Window
from attngen.bench.gpu.measure import Bench, is_out_of_memory, judge, measure, tflops
from attngen.bench.gpu.peers import Prepared, prepare
from attngen.bench.gpu.stopwatch import LEAST_ROUNDS, MOST_ROUNDS, HostStopwatch, alternate

CPU = torch.device("cpu")


class Fake:
    """A stopwatch by which each call takes as long as it says itself."""

    def time(self, fn):
        out = fn()
        return (out, 7.0) if isinstance(out, float) else (2.0, 7.0)


def case(**more):
    settings = {"head_dim": 16, "peers": (), "bar": Bar("TF/s", 1.0)} | more
    return Case("window", "G4", Window(32), 2, 4, 2, 128, **settings)


def bench(prepare=prepare, left=lambda: 100.0):
    return Bench(CPU, Fake(), left, prepare)


class DeviceFull(RuntimeError):
    """As PyTorch names it."""


DeviceFull.__name__ = "OutOfMemoryError"


def too_small(most):
    """A device that holds no more than `most` query heads over the batch."""

    def made(name, work):
        if work.query.shape[0] * work.query.shape[1] > most:
            raise DeviceFull("no room")
        return prepare(name, work)

    return made


def test_a_case_that_fits_is_measured_checked_and_judged():
    found = measure(case(), bench())
    assert found.ms == {"attngen": 2.0}
    assert found.host_us == {"attngen": 7.0}
    assert found.pairs == 2 * 4 * (32 * 33 // 2 + 96 * 32)
    assert found.tflops["attngen"] == round(4 * 16 * found.pairs / 2e-3 / 1e12, 2)
    assert found.error < 1.0
    assert found.rounds == MOST_ROUNDS
    assert found.judged.verdict == "fail"
    assert found.shrunk == ()
    assert found.planning_ms["attngen"] >= 0


def test_a_case_that_does_not_fit_is_made_smaller_and_not_judged():
    found = measure(case(), bench(too_small(2)))
    assert found.shape[:3] == (1, 2, 1)
    assert found.shrunk == ("batch 2 to 1", "heads 4 to 2")
    assert found.judged.verdict == ""
    assert found.judged.reason == "a smaller case"


def test_a_case_that_never_fits_fails_with_the_devices_words():
    with pytest.raises(DeviceFull, match="no room"):
        measure(case(), bench(too_small(0)))


def test_other_failures_of_ours_do_not_make_a_case_smaller():
    def broken(name, work):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure(case(), bench(broken))


def test_peers_that_are_missing_or_fail_are_recorded_with_the_reason():
    def made(name, work):
        match name:
            case "attngen":
                return prepare(name, work)
            case "flash_attn":
                return "flash-attn is not installed"
            case "sdpa_flash":
                return Prepared(lambda: 3.0, superset="the triangle")
            case "sdpa_cudnn":
                return Prepared(lambda: torch.zeros(1) @ torch.zeros(2))
            case _:
                raise DeviceFull("no room")

    peers = ("flex", "sdpa_flash", "sdpa_cudnn", "flash_attn")
    found = measure(case(peers=peers), bench(made))
    assert found.ms == {"attngen": 2.0, "sdpa_flash": 3.0}
    assert found.ratio == {"sdpa_flash": 1.5}
    assert found.superset == {"sdpa_flash": "the triangle"}
    assert found.absent["flash_attn"] == "flash-attn is not installed"
    assert found.absent["flex"] == "out of memory"
    assert found.absent["sdpa_cudnn"].startswith("RuntimeError: ")


def test_peers_are_left_out_when_time_is_short():
    found = measure(case(peers=("sdpa_flash",)), bench(left=lambda: 3.0))
    assert found.absent == {"sdpa_flash": "out of time"}
    assert "attngen" in found.ms


def test_packages_that_are_not_here_say_so():
    work = module.make_inputs(case(), CPU)
    assert prepare("flash_attn", work) == "flash-attn is not installed"
    assert prepare("natten", work) == "NATTEN has no such mask"


def test_sdpa_says_what_it_computes_instead():
    supersets = {}
    for mask, n_q in ((Window(), None), (Window(8), None), (Full(), None), (Window(8), 1)):
        work = module.make_inputs(Case("c", "", mask, 1, 2, 2, 64, n_q=n_q, head_dim=16), CPU)
        supersets[mask, n_q] = prepare("sdpa_flash", work).superset
    assert list(supersets.values()) == ["", "the triangle", "", "every pair"]


def test_failures_about_room_are_known_by_name_and_by_words():
    assert is_out_of_memory(DeviceFull("x"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("illegal memory access"))


def test_teraflops():
    assert tflops(10**12, 1.0) == 1000.0
    assert tflops(4 * 128 * 100, 0.001) == 0.05


def test_figures_that_a_bar_may_ask_for():
    found = measure(case(peers=("sdpa_flash",)), bench(lambda n, w: prepare("attngen", w)))
    for unit, value in (("ms", 2.0), ("us", 2000.0)):
        assert judge(case(), Bar(unit, 5), found, None).value == value
    faster = judge(case(over="sdpa_flash"), Bar("x", 0.5), found, None)
    assert (faster.value, faster.verdict) == (1.0, "pass")
    assert judge(case(over="flex"), Bar("x", 3), found, None).reason == "flex was not measured"
    share = judge(case(), Bar("% of bandwidth", 75), found, 1e9)
    assert share.value == round(100 * case().touched_bytes(found.pairs) / 2e-3 / 1e9, 3)
    assert judge(case(), Bar("% of bandwidth", 75), found, None).reason


def test_rounds_fit_the_time_and_candidates_take_turns():
    order = []

    def candidate(name, ms):
        def call():
            order.append(name)
            return ms

        return call

    slow = alternate({"a": candidate("a", 900.0), "b": candidate("b", 1200.0)}, Fake())
    assert slow.rounds == LEAST_ROUNDS
    assert order == ["a", "b"] * (LEAST_ROUNDS + 1)
    assert slow.ratio("b", "a") == pytest.approx(4 / 3)
    assert slow.medians() == {"a": 900.0, "b": 1200.0}
    ms, us = HostStopwatch().time(lambda: None)
    assert us == pytest.approx(ms * 1e3)
