"""Search a space: walk from the default to better neighbours, a few candidates at a time, then measure the best again.

    propose  neighbours of the best so far, then points at random; ranked by a cost model if there is one
    build    in parallel, in processes of their own
    check    against the default's result and float64
    measure  round by round beside the default; what is clearly slower leaves early
    final    the best few again, more often, so that luck in the first samples decides nothing

Every piece of knowledge is handed to `learn` at once. What is known already is not measured again, so a search that
was cut off goes on where it was.
"""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from attngen.emit.configs import Config
from attngen.tune.budget import Budget
from attngen.tune.measurement import Measurement, Sample, best
from attngen.tune.pool import Built
from attngen.tune.space import Space

log = logging.getLogger("attngen.tune")

_AT_ONCE = 4  # candidates that are built, and then measured beside each other
_REACH = 2
_DRAWS = 64
_SCREENING = 0.75  # of the seconds: the rest is for the final
_LATEST = 1.2  # of the seconds: then the final ends as well
_CLEARLY_SLOWER = 0.85  # of the best speed so far, in every round so far
_PROMISING = 0.97


class Lab(Protocol):
    """Where candidates are built, checked and timed: a machine, or a test's idea of one."""

    def build(self, configs: Sequence[Config]) -> Iterator[Built[Config]]:
        """Compile them; one verdict each, in any order."""
        ...

    def check(self, config: Config) -> Measurement:
        """Run it once and compare; a measurement without samples, `ok` where the result is right."""
        ...

    def sample(self, config: Config) -> float:
        """Seconds of a launch, from one sample."""
        ...

    def release(self, config: Config) -> None:
        """It is not measured again soon."""
        ...


Learn = Callable[[Measurement], None]
Rank = Callable[[Sequence[Config]], list[Config]]
Progress = Callable[[str, float], None]


@dataclass
class Search:
    """One search.

    learn     takes every piece of knowledge when it is there.
    attempt   is told that a candidate is about to run for the first time; False where it is better not to.
    rank      leaves out candidates that cannot be any good, and puts the promising first.
    progress  is told what is being done, and which part of the budget is used.
    known     what is known of each configuration: of earlier searches, and of this one as it goes on.
    """

    lab: Lab
    space: Space
    budget: Budget
    seed: int
    learn: Learn
    attempt: Callable[[Config], bool] = lambda _config: True
    rank: Rank = list
    progress: Progress = lambda _text, _part: None
    known: dict[Config, Measurement] = field(default_factory=dict[Config, Measurement])
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._begun, self._tried = self.clock(), 0
        self._refused: set[Config] = set()

    def run(self) -> bool:
        """Search until the budget is used or nothing is left to try; False where Ctrl-C ended it."""
        try:
            while batch := self._batch():
                self._screen(batch)
            self._final()
        except KeyboardInterrupt:
            log.info("interrupted; what was measured is kept")
            return False
        return True

    # What to try

    def _batch(self) -> list[Config]:
        """The next candidates; none when the budget for them is used."""
        room = min(_AT_ONCE, self.budget.candidates - self._tried)
        if room <= 0 or self._part() >= _SCREENING:
            return []
        unfinished = [c for c, m in self.known.items() if self._lacks(m)]
        if unfinished:  # of a search that was cut off
            return unfinished[:room]
        while found := self._proposed(room):
            kept = self.rank(found)[:room]
            if kept:
                return kept
            self._refused |= set(found)
        return []

    def _proposed(self, room: int) -> list[Config]:
        """New neighbours of the best and of the default, those one step away first; and points at random."""
        leader = best(self.known.values())
        centres = [self.space.default] if leader is None else [leader.config, self.space.default]
        found: list[Config] = []
        for centre in centres:
            for reach in range(1, _REACH + 1):
                ring = [c for c in self.space.neighbours(centre, reach) if self._is_new(c) and c not in found]
                self._rng.shuffle(ring)
                found += ring
            if len(found) >= room:
                return found
        drawn = [self.space.drawn(self._rng) for _ in range(_DRAWS)]
        found += [c for c in drawn if c is not None and self._is_new(c)]
        return list(dict.fromkeys(found))

    def _is_new(self, config: Config) -> bool:
        return config != self.space.default and config not in self.known and config not in self._refused

    def _lacks(self, m: Measurement) -> bool:
        """Whether a candidate that runs has fewer samples than it should, and is not plainly slow."""
        slow = m.samples and max(s.ratio for s in m.samples) < _CLEARLY_SLOWER
        return m.status == "ok" and not slow and 0 < len(m.samples) < self.budget.rounds

    # Finding out

    def _screen(self, batch: Sequence[Config]) -> None:
        """Build, check and measure candidates."""
        self._tried += len(batch)
        self._show(f"building {len(batch)} candidates")
        built: list[Config] = []
        for b in self.lab.build(batch):
            if b.status == "ok":
                built.append(b.label)
            else:
                self._learn(Measurement(b.label, b.status, note=b.note))
        right: list[Config] = []
        for config in (c for c in batch if c in built):  # in one order, whoever was built first
            verdict = Measurement(config) if self._has_samples(config) else self._checked(config)
            if verdict.status == "ok":
                right.append(config)
            else:
                self._learn(verdict)
                self.lab.release(config)
        self._show(f"measuring {len(right)} candidates")
        self._measure(right, self.budget.rounds, final=False)
        for config in right:
            self.lab.release(config)

    def _checked(self, config: Config) -> Measurement:
        if self.attempt(config):
            return self.lab.check(config)
        return Measurement(config, "compile_error", note="the process ended when it ran, more than once")

    def _has_samples(self, config: Config) -> bool:
        return config in self.known and bool(self.known[config].samples)

    def _measure(self, configs: Sequence[Config], rounds: int, *, final: bool) -> None:
        """Samples of each beside the default's, in turn, until each has `rounds` of its kind or is clearly slower."""
        alive = list(configs)
        for _ in range(rounds):
            alive = [c for c in alive if self._count(c, final) < rounds]
            if not alive or (final and self._part() >= _LATEST):
                return
            self._rng.shuffle(alive)
            base = self.lab.sample(self.space.default)
            for i, config in enumerate(alive):
                seconds = self.lab.sample(config)
                again = self.lab.sample(self.space.default) if i % 2 else base
                self._learn(Measurement(config, samples=(Sample(seconds, (base + again) / 2, final),)))
                base = again
            if not final:
                alive = [c for c in alive if not self._is_slow(c)]

    def _count(self, config: Config, final: bool) -> int:
        samples = self.known[config].samples if config in self.known else ()
        return sum(s.final == final for s in samples)

    def _is_slow(self, config: Config) -> bool:
        leader = best(self.known.values())
        lead = 1.0 if leader is None else leader.speedup or 1.0
        ratios = [s.ratio for s in self.known[config].samples]
        return len(ratios) >= 2 and max(ratios) < _CLEARLY_SLOWER * lead

    def _final(self) -> None:
        """Measure the best again. One that turns out worse makes room for the next."""
        for _ in range(self.budget.finalists):
            good = [m for m in self.known.values() if m.status == "ok" and (m.speedup or 0.0) >= _PROMISING]
            good.sort(key=_first_speed, reverse=True)
            again = [m.config for m in good if not m.is_final][: self.budget.finalists]
            leader = best(self.known.values())
            if not again or (leader is not None and leader.is_final):
                return
            self._show(f"measuring {len(again)} finalists again")
            ready = [b.label for b in self.lab.build(again) if b.status == "ok"]
            self._measure([c for c in again if c in ready], self.budget.final_rounds, final=True)

    def _learn(self, m: Measurement) -> None:
        self.known[m.config] = m if m.config not in self.known else self.known[m.config].joined(m)
        self.learn(m)
        self._show("")

    def _part(self) -> float:
        return (self.clock() - self._begun) / self.budget.seconds

    def _show(self, text: str) -> None:
        self.progress(text, min(max(self._part(), self._tried / self.budget.candidates), 1.0))


def _first_speed(m: Measurement) -> float:
    return statistics.median(s.ratio for s in m.samples)
