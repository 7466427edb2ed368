"""Tune the kernel of one sweep: what is known, a search for more, and the choice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from attngen.run_choice import forget_choices
from attngen.tune.budget import Budget, covering
from attngen.tune.journal import Journal
from attngen.tune.key import facts_of, journal_of, soft_versions
from attngen.tune.knowledge import Known, keep_here, known_of, measured_record, trying_record
from attngen.tune.lab import SweepLab
from attngen.tune.machine_load import busy_part
from attngen.tune.predict import Predictor, cost_model, fits, ranked
from attngen.tune.result import SweepResult, shown, sweep_result
from attngen.tune.search import Progress, Search
from attngen.tune.space import space_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attngen.emit.configs import Config
    from attngen.run_sweep import SweepCall
    from attngen.store.settings import Settings
    from attngen.tune.measurement import Measurement
    from attngen.tune.timer import Timer

log = logging.getLogger("attngen.tune")

_MOST_ATTEMPTS = 2
_QUIET = 0.15  # of the processors may be at other work while several threads are timed
_TILES_A_THREAD = 4


@dataclass(frozen=True, slots=True)
class Means:
    """What a search works with besides the call; tests bring their own.

    timer      None: the device's.
    predictor  makes the predictions for a call whose launches take so many threads (None: as many as they like).
    progress   told what is being done.
    """

    timer: Timer | None = None
    predictor: Callable[[SweepCall, int | None], Predictor] = cost_model
    progress: Progress = lambda _text, _part: None


@dataclass
class Record:
    """Writes knowledge down as it comes in."""

    journal: Journal
    facts: Mapping[str, object]
    soft: Mapping[str, object]
    attempts: Mapping[Config, int]
    fresh: bool
    count: int = 0
    is_kept: bool = True

    def learn(self, m: Measurement) -> None:
        """Keep one piece."""
        self.count += 1
        self._append(measured_record(m, self.soft))

    def attempt(self, config: Config) -> bool:
        """Keep that a configuration is about to run; False where it has ended the process before."""
        if self.attempts.get(config, 0) >= _MOST_ATTEMPTS:
            return False
        self._append(trying_record(config, self.soft))
        return True

    def finish(self, budget: Budget) -> None:
        """Keep that a search came to its end."""
        self._append({"event": "finished", "soft": dict(self.soft), "budget": budget.name})

    def _append(self, record: Mapping[str, object]) -> None:
        if self.fresh:
            self.fresh = False
            self._append({"event": "key", "key": dict(self.facts)})
        self.is_kept = self.journal.append(record) and self.is_kept


def tune_sweep(
    call: SweepCall, settings: Settings, budget: Budget, seed: int, means: Means | None = None
) -> SweepResult:
    """Search for the best configuration of one sweep; nothing is measured where a search of this size was finished."""
    means = means or Means()
    facts = facts_of(call, settings)
    kind = str(facts["kind"])
    soft = soft_versions(kind)
    journal = journal_of(facts, settings)
    known = known_of(journal, kind, soft)
    if known.stale:
        known = Known()
    record = Record(journal, facts, soft, known.attempts, fresh=not journal.exists())
    measurements = dict(known.measurements)
    interrupted = False
    outputs = call.runner.program.outputs
    is_due = not known.finished & covering(budget.name)
    one_thread = is_due and _is_disturbed(kind, settings)
    lab = SweepLab(call, timer=means.timer, most_limit_s=settings.compile_timeout_s, one_thread=one_thread)
    with torch.no_grad(), lab:
        if is_due:
            threads = None if kind != "cpu" or settings.threads or one_thread else torch.get_num_threads()
            search = Search(
                lab,
                space_of(lab.default, lab.spec(None), lab.target, threads),
                budget,
                seed,
                record.learn,
                attempt=record.attempt,
                rank=_ranking(lab, means.predictor(call, 1 if one_thread else None)),
                progress=means.progress,
                known=measurements,
            )
            interrupted = not search.run()
            if not interrupted:
                record.finish(budget)
            if not record.is_kept:
                done = known.finished if interrupted else known.finished | {budget.name}
                keep_here(journal, Known(measurements, done))
        result = sweep_result(
            outputs, kind, lab.default, measurements,
            new=record.count, interrupted=interrupted, journal=str(journal.path), facts=facts,
        )  # fmt: skip
    forget_choices()
    log.info(
        "tuned %s: %s, %.2fx as fast as the default", ", ".join(outputs), shown(result.chosen), result.speedup
    )
    return result


def _is_disturbed(kind: str, settings: Settings) -> bool:
    """Whether several threads cannot be timed fairly now, because others have the processors."""
    if kind != "cpu" or (settings.threads or torch.get_num_threads()) == 1:
        return False
    busy = busy_part()
    if busy > _QUIET:
        log.info(
            "other work takes %.0f%% of the processors: launches are timed on one thread, and the number of threads is "
            "left as it is",
            100 * busy,
        )
    return busy > _QUIET


def _ranking(lab: SweepLab, predict: Predictor) -> Callable[[Sequence[Config]], list[Config]]:
    """Leaves out what cannot fit, and what one thread cannot judge: tiles too few for all threads."""
    shapes, threads = lab.call.shapes, torch.get_num_threads()

    def tiles(config: Config) -> int:
        return shapes.batch * shapes.heads * -(-shapes.n_q // config.block_q)

    enough = min(_TILES_A_THREAD * threads, tiles(lab.default)) if lab.one_thread else 0

    def rank(configs: Sequence[Config]) -> list[Config]:
        spec = lab.spec(None)
        room = [c for c in configs if fits(c, spec, lab.target) and tiles(c) >= enough]
        return ranked(room, predict)

    return rank
