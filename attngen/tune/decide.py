"""Say which configuration calls of one kind take, by the policy in force, and say why in the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.errors import AttngenError
from attngen.run_choice import may_gain
from attngen.store.lock import FileLock
from attngen.store.upkeep import make_private
from attngen.tune.budget import budget_named, covering
from attngen.tune.key import facts_of, journal_of, soft_versions
from attngen.tune.knowledge import known_of
from attngen.tune.measurement import best
from attngen.tune.result import shown

if TYPE_CHECKING:
    from attngen.emit.configs import Config
    from attngen.run_sweep import SweepCall
    from attngen.store.settings import Settings

log = logging.getLogger("attngen.tune")

_BUDGET = "quick"  # of a first call under the policy `tune`


def decide(call: SweepCall, settings: Settings) -> Config | None:
    """The configuration for calls like this one; None for the default one."""
    policy, _, path = settings.tune.partition(":")
    name = call.runner.program.name
    if policy == "off":
        return None
    if policy == "pinned":
        from attngen.tune.table import pinned_config

        found = pinned_config(facts_of(call, settings), Path(path) if path else None)
        log.info("%s: %s", name, _why(found, "pinned by the table", "not in the table"))
        return found
    facts = facts_of(call, settings)
    kind = str(facts["kind"])
    journal = journal_of(facts, settings)
    known = known_of(journal, kind, soft_versions(kind))
    if policy == "tune" and (known.stale or not known.finished & covering(_BUDGET)):
        return _tuned(call, settings, journal.path)
    found = best(known.measurements.values())
    if known.is_empty and may_gain(call):
        return predicted(call, settings, facts)
    if known.is_empty:
        log.info("%s: the default configuration, since nothing was measured for such calls", name)
        return None
    source = "measured" + (", with other versions of libraries" if known.stale else "")
    config = None if found is None else found.config
    log.info("%s: %s", name, _why(config, source, "nothing measured is faster"))
    return config


def predicted(call: SweepCall, settings: Settings, facts: dict[str, object] | None = None) -> Config | None:
    """The configuration for calls of which nothing was measured: the cost model's pick; None for the default one."""
    from attngen.tune.pick import picked

    name = call.runner.program.name
    try:
        config = picked(call, facts or facts_of(call, settings))
    except AttngenError as error:  # what is wrong with the call shows when it runs
        log.debug("%s: nothing predicted: %s", name, error.message)
        return None
    log.info(
        "%s: %s",
        name,
        _why(config, "predicted", "nothing was measured, and no other is predicted to be faster"),
    )
    return config


def _tuned(call: SweepCall, settings: Settings, path: Path) -> Config | None:
    """Measure now, unless another process is at it."""
    from attngen.tune.sweep import tune_sweep

    name = call.runner.program.name
    lock = FileLock(path.parent.parent / ".locks" / f"{path.stem}.search.lock")
    with lock:
        try:
            make_private(path.parent.parent / ".locks")
            if not lock.acquire(0.0):
                log.info("%s: the default configuration, while another process measures", name)
                return None
        except OSError as error:
            log.debug("no lock to measure under: %s", error)
        try:
            result = tune_sweep(call, settings, budget_named(_BUDGET), seed=0)
        except (
            AttngenError,
            OSError,
        ) as error:  # of the search; what is wrong with the call shows when it runs
            log.warning("%s: the default configuration, since measuring failed: %s", name, error)
            return None
    if result.interrupted:
        raise KeyboardInterrupt  # meant for whoever made the call
    log.info("%s: %s, measured now", name, shown(result.chosen))
    return None if result.chosen == result.default else result.chosen


def _why(config: Config | None, found: str, missing: str) -> str:
    return f"{shown(config)}, {found}" if config is not None else f"the default configuration: {missing}"
