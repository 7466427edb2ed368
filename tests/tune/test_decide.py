"""Which configuration a call takes: by each policy, in this process and in another, and where a launch is too big."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import attngen
from attngen import run_choice
from attngen.backends.cpu import CpuKernel
from attngen.emit.cpu_config import CpuConfig
from attngen.errors import AttngenError, LaunchError, ParameterError, ResourceError, TuningTableError
from attngen.run_sweep import SweepRunner
from attngen.store.settings import settings
from attngen.tune.budget import BUDGETS, Budget
from attngen.tune.key import facts_of, journal_of, soft_versions
from attngen.tune.knowledge import known_of, measured_record
from attngen.tune.measurement import Measurement, Sample
from attngen.tune.pool import Built
from attngen.tune.sweep import Means
from attngen.tune.table import table_text
from tests.tune.calls import calls_of, qkv

ROOT = Path(__file__).resolve().parents[2]
FAST = CpuConfig(32, 24)


class Formula:
    """A timer that runs nothing: the first launch it sees is the default's, any other is faster."""

    def __init__(self):
        self.first = None

    def seconds(self, launch):
        self.first = self.first or launch.__self__
        return 2e-3 if launch.__self__ is self.first else 1e-3


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache in which the kernel of the usual call is built, and nothing tuned."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTNGEN_CACHE_DIR", str(folder))
        attngen.load("causal")(*qkv())
    assert not (folder / "tuning").exists()
    return folder


@pytest.fixture
def cache(warm, tmp_path, monkeypatch):
    shutil.copytree(warm, tmp_path / "cache", symlinks=True)
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ATTNGEN_TUNE", raising=False)
    run_choice.forget_choices()
    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 600.0, 1, 3, 1, 3))
    monkeypatch.setattr("attngen.tune.sweep.busy_part", lambda: 1.0)
    # what is not built in a process of its own is built when it is launched
    monkeypatch.setattr(
        "attngen.tune.lab.Pool.build", lambda _, jobs: (Built(j.label, "ok", 0.0) for j in jobs)
    )
    return tmp_path / "cache"


@pytest.fixture
def taken(monkeypatch):
    """The configurations that launches take, in order; built as the default, since results are the same."""
    seen = []
    ready = SweepRunner.ready

    def watched(self, call, shapes, outs, config):
        seen.append(config)
        return ready(self, call, shapes, outs, None)

    monkeypatch.setattr(SweepRunner, "ready", watched)
    return seen


def believe(spec, q, k, v, config=FAST, ratio=2.0, soft=None, **tensors):
    """Leave measurements of a call, as an earlier process did."""
    (call,) = calls_of(spec, q, k, v, **tensors)
    journal = journal_of(facts_of(call, settings()), settings())
    samples = tuple(Sample(1e-3, ratio * 1e-3) for _ in range(4))
    journal.append({"event": "key", "key": facts_of(call, settings())})
    journal.append(measured_record(Measurement(config, samples=samples), soft or soft_versions("cpu")))
    run_choice.forget_choices()
    return call, journal


def test_a_call_takes_what_was_measured(cache, taken, caplog):
    caplog.set_level(logging.INFO, "attngen.tune")
    spec, q, k, v = attngen.load("causal"), *qkv()
    spec(q, k, v)
    assert taken == [None]
    believe(spec, q, k, v)
    taken.clear()
    spec(q, k, v)
    attngen.load("causal")(*qkv(n=120))  # of the same bucket
    assert taken == [FAST, FAST]
    assert "block_q=32 block_k=24 threads=0, measured" in caplog.text
    attngen.load("causal")(*qkv(n=200))
    attngen.load("causal")(*qkv(dim=32))
    attngen.load("causal")(*qkv(dtype=torch.float16))
    attngen.load("sliding_window")(q, k, v)
    assert taken[2:] == [None] * 4


def test_parameters_are_part_of_the_kind_of_a_call(cache, taken):
    q, k, v = qkv()
    believe(attngen.load("sliding_window", window=100), q, k, v)
    taken.clear()
    for window in (100, 120, 32):
        attngen.load("sliding_window", window=window)(q, k, v)
    assert taken == [FAST, FAST, None]


@pytest.mark.parametrize(("ratio", "expected"), [(2.0, FAST), (1.001, None), (0.5, None)])
def test_only_a_gain_is_taken(cache, taken, ratio, expected):
    spec, q, k, v = attngen.load("causal"), *qkv()
    believe(spec, q, k, v, ratio=ratio)
    taken.clear()
    spec(q, k, v)
    assert taken == [expected]


def test_measurements_with_other_versions_of_libraries_serve(cache, taken, caplog):
    caplog.set_level(logging.INFO, "attngen.tune")
    spec, q, k, v = attngen.load("causal"), *qkv()
    believe(spec, q, k, v, soft={"torch": "1.0"})
    taken.clear()
    spec(q, k, v)
    assert taken == [FAST]
    assert "with other versions" in caplog.text


def test_another_text_of_ours_does_not(cache, taken, monkeypatch):
    spec, q, k, v = attngen.load("causal"), *qkv()
    believe(spec, q, k, v)
    monkeypatch.setattr("attngen.tune.key.hard_versions", lambda: {"sources": "other"})
    taken.clear()
    spec(q, k, v)
    assert taken == [None]


def test_off_and_pinned_read_no_measurement(cache, taken, monkeypatch, tmp_path):
    spec, q, k, v = attngen.load("causal"), *qkv()
    call, _ = believe(spec, q, k, v)
    taken.clear()
    monkeypatch.setattr("attngen.tune.journal.Journal.read", lambda _: pytest.fail("a journal was read"))
    for policy in ("off", "pinned"):
        monkeypatch.setenv("ATTNGEN_TUNE", policy)
        spec(q, k, v)
    assert taken == [None, None]
    table = tmp_path / "table.json"
    other = CpuConfig(64, 48)
    table.write_text(table_text([(facts_of(call, settings()), other)]))
    monkeypatch.setenv("ATTNGEN_TUNE", f"pinned:{table}")
    spec(q, k, v)
    attngen.load("causal")(*qkv(n=300))
    assert taken[2:] == [other, None]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 2, "entries": []}', '{"format": 1, "entries": [1]}',
     '{"format": 1, "entries": [{"key": {"kind": "cpu"}, "config": {"block_q": 1}}]}'],
)  # fmt: skip
def test_a_table_that_is_none_says_so(cache, monkeypatch, tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    monkeypatch.setenv("ATTNGEN_TUNE", f"pinned:{tmp_path / 'table.json'}")
    with pytest.raises(TuningTableError, match=r"table\.json"):
        attngen.load("causal")(*qkv())
    monkeypatch.setenv("ATTNGEN_TUNE", "pinned:nowhere.json")
    with pytest.raises(TuningTableError, match="cannot be read"):
        attngen.load("causal")(*qkv())


def test_nothing_is_imported_or_read_where_nothing_was_ever_tuned(cache):
    code = (
        "import sys, os, torch, attngen\n"
        "q, k, v = (torch.randn(1, 2, 40, 16) for _ in range(3))\n"
        "spec = attngen.load('causal')\n"
        "spec(q, k, v)\n"
        "loaded = {n for n in sys.modules if n.startswith('attngen.tune')}\n"
        "assert loaded == {'attngen.tune', 'attngen.tune.bucket'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not (cache / "tuning").exists()


def test_a_bucket_is_looked_up_once(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(run_choice, "_may_be_known", lambda s: asked.append(s) or False)
    spec = attngen.load("causal")
    for n in (128, 120, 128, 100, 300):
        spec(*qkv(n=n))
    assert len(asked) == 2


def test_the_look_up_takes_a_few_microseconds(cache):
    (call,) = calls_of(attngen.load("sliding_window_sink"), *qkv())
    choices = run_choice.Choices()
    call = replace(call, inputs=replace(call.inputs, settings=settings()))
    key = choices._key(call, call.shapes)
    choices._known[key] = None
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            choices._known[choices._key(call, call.shapes)]
        times.append((time.perf_counter() - start) / 500)
    assert min(times) < 12e-6  # measured 1.5e-6


def test_a_configuration_that_cannot_be_used_gives_way_to_the_default(cache, caplog, monkeypatch):
    spec, q, k, v = attngen.load("causal"), *qkv()
    expected = spec(q, k, v)
    believe(spec, q, k, v)
    ready, tried = SweepRunner.ready, []

    def refusing(self, call, shapes, outs, config):
        tried.append(config)
        if config is not None:
            raise LaunchError("no")
        return ready(self, call, shapes, outs, config)

    monkeypatch.setattr(SweepRunner, "ready", refusing)
    for _ in range(2):
        assert torch.equal(spec(q, k, v), expected)
    assert tried == [FAST, None, None]
    assert "cannot be used" in caplog.text


def test_smaller_ones_are_tried_where_the_default_is_too_big(cache, monkeypatch, caplog):
    launch, tried = CpuKernel.launch, []

    def limited(self, call):
        tried.append((self.block_q, self.block_k))
        if self.block_q * self.block_k > 32 * 48:
            raise ResourceError("the kernel takes more than there is")
        launch(self, call)

    spec, q, k, v = attngen.load("causal"), *qkv()
    expected = spec(q, k, v)
    monkeypatch.setattr(CpuKernel, "launch", limited)
    spec = attngen.load("causal")
    for _ in range(2):
        torch.testing.assert_close(spec(q, k, v), expected, atol=1e-5, rtol=0)
    assert tried[-2] == tried[-1] == (64, 24)
    assert "is used from now on" in caplog.text
    result = tuned(attngen.load("causal"), q, k, v)  # beside the first that runs
    assert result.sweeps[0].default.block_q * result.sweeps[0].default.block_k <= 32 * 48
    assert {m.status for m in result.measurements} <= {"ok", "oom"}
    monkeypatch.setattr(CpuKernel, "launch", lambda *_: (_ for _ in ()).throw(ResourceError("too big")))
    with pytest.raises(ResourceError, match="too big"):
        attngen.load("causal")(q, k, v)


def tuned(spec, *args, **given):
    return spec.tune_with(*args, tensors=given, means=Means(timer=Formula()))


def test_tuning_chooses_keeps_and_is_taken_at_once(cache):
    spec, q, k, v = attngen.load("causal"), *qkv()
    expected = spec(q, k, v)
    result = tuned(spec, q, k, v)
    (sweep,) = result.sweeps
    assert sweep.chosen != sweep.default
    assert result.chosen == sweep.chosen
    assert (sweep.speedup, result.default_s, result.chosen_s) == (2.0, 2e-3, 1e-3)
    assert "2.00x as fast" in str(result)
    torch.testing.assert_close(spec(q, k, v), expected, atol=1e-5, rtol=0)
    again = tuned(attngen.load("causal"), q, k, v)
    assert again.sweeps[0].new == 0
    assert again.sweeps[0].chosen == sweep.chosen
    events = [json.loads(line)["record"]["event"] for line in Path(sweep.journal).read_bytes().splitlines()]
    assert events[0] == "key"
    assert events[-1] == "finished"


@pytest.mark.slow
def test_each_kernel_of_a_cascade_is_tuned_on_its_own(cache):
    from tests.tune.test_check import COLUMN_SUMS

    q, k, v = qkv()
    spec = attngen.Attention(mask=attngen.masks.causal(), cascade=COLUMN_SUMS)
    exact = spec.reference(q, k, v)
    result = tuned(spec, q, k, v)
    assert [s.outputs for s in result.sweeps][-1] == ("C",)
    assert len({s.journal for s in result.sweeps}) == 2
    assert all(m.status == "ok" for m in result.measurements)
    for out, wanted in zip(spec(q, k, v), exact, strict=True):
        torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=0)


def test_a_mistake_in_a_call_is_not_the_configurations_fault(cache, taken):
    spec, q, k, v = attngen.load("documents"), *qkv()
    doc = torch.zeros(1, 128, dtype=torch.int64)
    believe(spec, q, k, v, doc=doc)
    taken.clear()
    spec(q, k, v, doc=doc)
    with pytest.raises(AttngenError):
        spec(q, k, v, doc=doc[:, :5])
    spec(q, k, v, doc=doc)
    assert taken == [FAST, FAST]


def test_beside_other_work_one_thread_is_timed(cache, monkeypatch):
    from attngen.tune.lab import SweepLab
    from attngen.tune.timer import CpuTimer

    (call,) = calls_of(attngen.load("causal"), *qkv())
    with SweepLab(call, one_thread=True) as lab:
        assert lab._timer._clock is time.thread_time
        assert lab.sample(lab.default) > 0
        assert lab._ready[lab.default].kernel._threads == 1
    monkeypatch.setenv("ATTNGEN_THREADS", "2")
    call = replace(call, inputs=replace(call.inputs, settings=settings()))
    with SweepLab(call) as lab:
        assert lab._timer._clock is time.perf_counter
    assert CpuTimer(least_s=0.0).seconds(lambda: time.sleep(0.002)) >= 0.002


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets, not both")
def test_a_search_begins_at_the_default_that_the_call_takes(cache):
    """Few rows of grouped heads: the packed variant, beside which the plain one is a candidate like any other."""
    from attngen.run_choice import packed_of
    from attngen.tune.lab import SweepLab
    from attngen.tune.shrink import default_of

    for n_q, kv_heads, is_packed in ((3, 2, True), (3, 8, False), (100, 2, False)):
        query, *_ = qkv(heads=8, n=n_q)
        _, key, value = qkv(heads=8, kv_heads=kv_heads, n=40)
        (call,) = calls_of(attngen.load("causal"), query, key, value, backend="triton")
        with SweepLab(call) as lab:
            assert lab.default == default_of(call)
            assert lab.default.pack_heads is is_packed
            assert (packed_of(call) is not None) is is_packed
            plain = lab.backend.config(lab.spec(None), lab.target)
            assert lab.check(plain).status == "ok"


def test_the_policy_tune_measures_at_the_first_call(cache, monkeypatch):
    monkeypatch.setenv("ATTNGEN_TUNE", "tune")
    monkeypatch.setattr("attngen.tune.lab.timer_for", lambda *_: Formula())
    spec, q, k, v = attngen.load("causal"), *qkv()
    spec(q, k, v)
    (call,) = calls_of(spec, q, k, v)
    known = known_of(journal_of(facts_of(call, settings()), settings()), "cpu", soft_versions("cpu"))
    assert known.finished == {"quick"}
    monkeypatch.setattr("attngen.tune.sweep.tune_sweep", lambda *_: pytest.fail("measured again"))
    attngen.load("causal")(q, k, v)


def test_a_cache_that_cannot_be_written_is_tuned_once_a_process(cache, monkeypatch):
    monkeypatch.setenv("ATTNGEN_TUNE", "tune")
    monkeypatch.setattr("attngen.tune.lab.timer_for", lambda *_: Formula())
    monkeypatch.setattr(
        "attngen.tune.journal.Journal._write", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only"))
    )
    spec, q, k, v = attngen.load("causal"), *qkv(n=100)
    spec(q, k, v)
    monkeypatch.setattr("attngen.tune.sweep.tune_sweep", lambda *_: pytest.fail("measured again"))
    spec(q, k, v)
    attngen.load("causal")(q, k, v)


def test_a_search_that_fails_leaves_the_default(cache, taken, monkeypatch, caplog):
    monkeypatch.setenv("ATTNGEN_TUNE", "tune")
    monkeypatch.setattr(
        "attngen.tune.lab.Pool.build", lambda *_: (_ for _ in ()).throw(OSError("no process"))
    )
    spec, q, k, v = attngen.load("causal"), *qkv()
    spec(q, k, v)
    assert taken[-1] is None
    assert "measuring failed" in caplog.text


def test_ctrl_c_in_a_call_reaches_its_caller(cache, monkeypatch):
    monkeypatch.setenv("ATTNGEN_TUNE", "tune")
    monkeypatch.setattr(
        "attngen.tune.lab.SweepLab.check", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    spec, q, k, v = attngen.load("causal"), *qkv()
    with pytest.raises(KeyboardInterrupt):
        spec(q, k, v)
    result = spec.tune(q, k, v)
    assert result.interrupted
    assert result.chosen == result.sweeps[0].default


def test_a_configuration_that_ended_the_process_twice_is_left_alone(cache):
    from attngen.tune.knowledge import trying_record

    spec, q, k, v = attngen.load("causal"), *qkv()
    first = tuned(spec, q, k, v).sweeps[0]
    path = Path(first.journal)
    path.unlink()
    (call,) = calls_of(spec, q, k, v)
    journal = journal_of(facts_of(call, settings()), settings())
    for m in first.measurements:
        for _ in range(2):
            journal.append(trying_record(m.config, soft_versions("cpu")))
    sweep = tuned(spec, q, k, v).sweeps[0]
    known = {m.config: m for m in sweep.measurements}
    assert all(known[m.config].note.startswith("the process ended") for m in first.measurements)


def test_mistakes_are_told(cache):
    spec, q, k, v = attngen.load("causal"), *qkv()
    with pytest.raises(ParameterError, match="no budget 'huge'"):
        spec.tune(q, k, v, budget="huge")
    with pytest.raises(ParameterError, match="reference backend"):
        spec.tune(q, k, v, backend="reference")
    with pytest.raises(ParameterError, match="nothing to measure"):
        spec.tune(q[:, :, :0], k, v)


SECOND = """
import logging, torch, attngen
logging.basicConfig(level=logging.INFO)
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(1, 2, 128, 16, generator=generator) for _ in range(3))
attngen.load("causal")(q, k, v)
"""


def test_a_second_process_takes_the_result(cache):
    spec, q, k, v = attngen.load("causal"), *qkv()
    result = tuned(spec, q, k, v)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SECOND], env=env, capture_output=True, text=True, check=True)
    chosen = result.chosen
    assert f"block_q={chosen.block_q} block_k={chosen.block_k} threads=0, measured" in done.stderr
