"""What a journal says of one kind of call, and what it is told: measurements, and searches that came to their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from attngen.emit.configs import Config, config_from_json, config_to_json
from attngen.tune.journal import Journal, Record
from attngen.tune.measurement import Measurement, join, measurement_from_json

_UNKEPT: dict[Path, Known] = {}  # of journals that cannot be written


@dataclass(frozen=True, slots=True)
class Known:
    """What is known.

    measurements  of each configuration.
    finished      budgets of searches that came to their end.
    attempts      how often a configuration was about to run here that nothing is known of: it may end the process.
    stale         whether all of it was measured with other versions of libraries or drivers.
    """

    measurements: Mapping[Config, Measurement] = field(default_factory=dict[Config, Measurement])
    finished: frozenset[str] = frozenset()
    attempts: Mapping[Config, int] = field(default_factory=dict[Config, int])
    stale: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever measured."""
        return not self.measurements


def known_of(journal: Journal, kind: str, soft: Mapping[str, object]) -> Known:
    """What a journal holds: of these versions if there is anything, else of others."""
    if journal.path in _UNKEPT:
        return _UNKEPT[journal.path]
    records = journal.load(compacted)
    current = [r for r in records if r.get("soft") == soft]
    found = _read(current, kind)
    if not found.is_empty or len(current) == len(records):
        return found
    latest = next(
        (r["soft"] for r in reversed(records) if r.get("event") == "measured" and "soft" in r), None
    )
    old = _read([r for r in records if r.get("soft") == latest], kind)
    return Known(old.measurements, old.finished, stale=not old.is_empty)


def keep_here(journal: Journal, known: Known) -> None:
    """Remember for this process what could not be written."""
    _UNKEPT[journal.path] = known


def _read(records: Sequence[Record], kind: str) -> Known:
    measured = [
        m
        for r in records
        if r.get("event") == "measured" and (m := measurement_from_json(kind, r)) is not None
    ]
    finished = frozenset(str(r.get("budget")) for r in records if r.get("event") == "finished")
    known = join(measured)
    tried = [_config(r, kind) for r in records if r.get("event") == "trying"]
    return Known(known, finished, Counter(c for c in tried if c is not None and c not in known))


def _is_understood(record: Record, kind: str) -> bool:
    if not isinstance(record.get("soft"), dict):
        return False
    match record.get("event"):
        case "measured":
            return measurement_from_json(kind, record) is not None
        case "trying":
            return _config(record, kind) is not None
        case "finished":
            return isinstance(record.get("budget"), str)
        case _:
            return False


def _config(record: Record, kind: str) -> Config | None:
    document = record.get("config")
    return config_from_json(kind, cast("Record", document)) if isinstance(document, dict) else None


def measured_record(m: Measurement, soft: Mapping[str, object]) -> dict[str, object]:
    """One piece of knowledge as a record."""
    return {"event": "measured", "soft": dict(soft), **m.to_json()}


def trying_record(config: Config, soft: Mapping[str, object]) -> dict[str, object]:
    """That a configuration is about to run for the first time."""
    return {"event": "trying", "soft": dict(soft), "config": config_to_json(config)}


def compacted(records: Sequence[Record]) -> list[Mapping[str, object]]:
    """The records with all there is about a configuration in one of them.

    What another version of ours wrote, and this one does not understand, stays as it is.
    """
    out: list[Mapping[str, object]] = []
    kinds = [
        str(k.get("kind")) for r in records if r.get("event") == "key" and isinstance(k := r.get("key"), dict)
    ]
    kind = kinds[0] if kinds else ""
    softs: list[object] = []
    for r in records:
        if r.get("event") == "key" and not any(o.get("event") == "key" for o in out):
            out.append(r)
        if r.get("soft") is not None and r["soft"] not in softs:
            softs.append(r["soft"])
    if kind not in ("cpu", "triton"):
        return list(records)
    out += [r for r in records if r.get("event") != "key" and not _is_understood(r, kind)]
    for soft in softs:
        if not isinstance(soft, dict):
            continue
        own = [r for r in records if r.get("soft") == soft and _is_understood(r, kind)]
        known = _read(own, kind)
        out += [measured_record(m, soft) for m in known.measurements.values()]
        out += [trying_record(c, soft) for c, n in known.attempts.items() for _ in range(n)]
        out += [{"event": "finished", "soft": soft, "budget": b} for b in sorted(known.finished)]
    return out
