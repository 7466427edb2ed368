"""A search that is killed at any moment loses at most what it was measuring, and the next goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from attngen.emit.cpu_config import CpuConfig
from attngen.tune.journal import Journal
from attngen.tune.knowledge import known_of
from attngen.tune.measurement import best
from tests.tune.killed import BUDGET, SOFT
from tests.tune.labs import BEST

ROOT = Path(__file__).resolve().parents[2]
KILLS = 24


def test_nothing_that_was_measured_is_lost(tmp_path: Path):
    path = tmp_path / "v1" / "aa" / "aa.jsonl"
    path.parent.mkdir(parents=True)
    rng = random.Random(0)
    told: Counter[CpuConfig] = Counter()
    kills = 0
    for _ in range(200):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.tune.killed", path], stdout=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdout is not None
        if kills < KILLS:
            early = rng.random() < 0.2
            said = b"" if early else child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.06) + 0.1 * early)
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read()
            kills += child.wait() == -signal.SIGKILL
        else:
            said = child.stdout.read()
            assert child.wait() == 0
        lines = said.decode().splitlines()
        for line in lines:
            if line not in ("begun", "done"):
                q, k, count = map(int, line.split())
                told[CpuConfig(q, k)] += count
        known = known_of(Journal(path), "cpu", SOFT).measurements
        kept = Counter({c: len(m.samples) for c, m in known.items()})
        assert not told - kept, "something that was kept is gone"
        assert (kept - told).total() <= kills  # kept, and killed before it could be said
        if "done" in lines:
            break
    assert kills >= 20
    assert best(known.values()).config == BEST
    for m in known.values():  # nothing was measured again
        assert sum(not s.final for s in m.samples) <= BUDGET.rounds
        assert sum(s.final for s in m.samples) <= BUDGET.final_rounds


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(tmp_path: Path):
    def command(cache: str, budget: str) -> tuple[list[str], dict[str, str]]:
        line = [sys.executable, "-m", "attngen", "tune", "causal", "--shape", "1,2,96,16", "--budget", budget]
        surroundings = {
            "PYTHONPATH": str(ROOT),
            "ATTNGEN_CACHE_DIR": str(tmp_path / cache),
            "ATTNGEN_THREADS": "1",
        }
        return line, {**os.environ, **surroundings}

    def whole(cache: str) -> str:
        line, env = command(cache, "quick")
        return subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout

    start = time.monotonic()
    whole("undisturbed")
    took = time.monotonic() - start
    line, env = command("killed", "default")
    rng = random.Random(1)
    held = 0
    for _ in range(8):
        child = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0.2, 1.2) * took)
        child.kill()
        child.communicate()
        now = samples(tmp_path / "killed")
        assert now >= held
        held = now
    assert held > 0
    assert "configurations measured" in whole("killed")
    assert samples(tmp_path / "killed") >= held
    assert "all of it known before" in whole("killed")


def samples(cache: Path) -> int:
    """Samples in all journals; every line is a whole record but for torn ones."""
    count = 0
    for path in cache.glob("tuning/v1/??/*.jsonl"):
        records = Journal(path).read()
        assert len(path.read_bytes().splitlines()) - len(records) <= 8  # one torn line a kill, at most
        count += sum(len(r.get("samples", ())) for r in records)
    return count
