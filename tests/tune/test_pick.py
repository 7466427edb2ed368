"""Which configuration a call takes of which nothing was measured."""

from __future__ import annotations

import logging

import pytest
import torch

import attngen
from attngen import run_choice
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.target import parse_target
from attngen.emit.triton.config import TritonConfig, shared_bytes
from attngen.run_sweep import SweepRunner
from attngen.store.settings import settings
from attngen.tune import pick
from attngen.tune.decide import predicted
from attngen.tune.key import facts_of
from tests.tune.calls import calls_of

FEW = (1, 1, 128, 4096)  # one tile of rows by default: one thread of two would have nothing to do


@pytest.fixture
def two_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTNGEN_THREADS", "2")
    run_choice.forget_choices()
    yield tmp_path / "cache"
    run_choice.forget_choices()


def inputs(batch, heads, n_q, n_k, dim=64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, heads, n, dim) for n in (n_q, n_k, n_k))
    return tuple(torch.randn(s, generator=generator) for s in shapes)


def taken(monkeypatch, spec, *qkv, **tensors):
    """The configuration that a call was launched with, and its result."""
    seen = []
    ready = SweepRunner.ready

    def watched(self, call, shapes, outs, config):
        seen.append(config)
        return ready(self, call, shapes, outs, config)

    monkeypatch.setattr(SweepRunner, "ready", watched)
    out = spec(*qkv, **tensors)
    monkeypatch.setattr(SweepRunner, "ready", ready)
    assert len(seen) == 1
    return seen[0], out


def test_few_rows_take_smaller_tiles(two_threads, monkeypatch, caplog):
    spec, qkv = attngen.load("causal"), inputs(*FEW)
    with caplog.at_level(logging.INFO, logger="attngen.tune"):
        config, out = taken(monkeypatch, spec, *qkv)
    assert isinstance(config, CpuConfig)
    assert config.block_q <= 64
    assert "the default one is predicted to take" in caplog.text
    assert torch.allclose(out.double(), spec.reference(*qkv), atol=1e-5)


def test_threads_change_the_pick_and_not_a_bit(two_threads, monkeypatch):
    spec, qkv = attngen.load("sliding_window_sink", sink=3, window=3000), inputs(*FEW)
    results = []
    for threads in ("1", "2", "4"):
        monkeypatch.setenv("ATTNGEN_THREADS", threads)
        results.append(taken(monkeypatch, spec, *qkv))
    rows = [config.block_q if config else None for config, _ in results]
    assert rows[0] is None
    assert len(set(rows)) >= 2
    assert all(torch.equal(out, results[0][1]) for _, out in results)


def test_boxes_keep_the_default(two_threads, monkeypatch):
    spec = attngen.load("neighborhood_2d", grid=(16, 64), window_y=9, window_x=9)
    config, _ = taken(monkeypatch, spec, *inputs(1, 1, 1024, 1024))
    assert config is None


def test_enough_rows_keep_the_default(two_threads, monkeypatch):
    config, _ = taken(monkeypatch, attngen.load("causal"), *inputs(1, 8, 512, 512))
    assert config is None


def test_policy_off_takes_nothing_but_the_default(two_threads, monkeypatch):
    monkeypatch.setenv("ATTNGEN_TUNE", "off")
    config, _ = taken(monkeypatch, attngen.load("causal"), *inputs(*FEW))
    assert config is None


def test_masks_planned_tile_by_tile_keep_the_default(two_threads, monkeypatch):
    spec = attngen.Attention(mask=lambda b, h, q, k: (q * k) % 7 < 4)
    config, _ = taken(monkeypatch, spec, *inputs(1, 1, 128, 512))
    assert config is None


def test_a_choice_is_kept_on_disk(two_threads, monkeypatch):
    spec, qkv = attngen.load("causal"), inputs(*FEW)
    (call,) = calls_of(spec, *qkv)
    first = predicted(call, settings())
    assert first is not None

    def no_model(*_):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(pick, "_predicted", no_model)
    assert predicted(call, settings()) == first
    (other,) = calls_of(spec, *inputs(1, 8, 512, 512))
    with pytest.raises(AssertionError):
        predicted(other, settings())


def test_what_was_kept_and_is_no_configuration_is_none(two_threads, monkeypatch):
    (call,) = calls_of(attngen.load("causal"), *inputs(*FEW))
    monkeypatch.setattr(pick, "recall", lambda *_: {"config": {"block_q": "many"}})
    assert pick.picked(call, facts_of(call, settings())) is None


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_candidates_are_never_larger_than_what_is_known_to_fit(arch):
    target = parse_target(arch)
    default = TritonConfig(128, 64, 8, 2, max_registers=128)
    found = list(pick.candidates(default))
    assert len(found) == len(set(found)) == 4
    for config in found:
        assert config.block_k == default.block_k
        sizes = [shared_bytes(c, target, "bfloat16", 128, 128) for c in (config, default)]
        assert sizes[0] <= sizes[1]
        assert config.num_warps * 16 <= max(config.block_q, 16)
