"""What is known of one configuration, how several pieces of knowledge join, and which configuration follows.

A sample is a time of the configuration beside a time of the default one, taken back to back: machines drift, and a
ratio within a round drifts least.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from attngen.emit.configs import Config, config_from_json, config_to_json

Status = Literal["ok", "compile_error", "oom", "wrong", "timeout"]
_MOST_SAMPLES = 64
_LEAST_GAIN = 1.03  # a smaller gain is not worth leaving the default for
_LEAST_LOW = 1.01  # what the lower quartile of the rounds must show
_LEAST_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of a call with the configuration, and with the default one in the same round.

    final  whether it was taken when the finalists were measured again, after they had been chosen.
    """

    seconds: float
    base: float
    final: bool = False

    @property
    def ratio(self) -> float:
        """How many times as fast as the default."""
        return self.base / self.seconds


@dataclass(frozen=True, slots=True)
class Measurement:
    """One configuration: what became of it, and its samples if it runs and is right."""

    config: Config
    status: Status = "ok"
    samples: tuple[Sample, ...] = ()
    note: str = ""

    @property
    def judged(self) -> tuple[Sample, ...]:
        """The samples that count: those of the final where there are enough, which are not biased by the choice."""
        final = tuple(s for s in self.samples if s.final)
        return final if len(final) >= _LEAST_SAMPLES else self.samples

    @property
    def median_s(self) -> float | None:
        """Median seconds of a call."""
        return statistics.median(s.seconds for s in self.judged) if self.judged else None

    @property
    def spread_s(self) -> float | None:
        """Half of the distance between the quartiles of the seconds."""
        low, high = _quartiles([s.seconds for s in self.judged])
        return None if not self.judged else (high - low) / 2

    @property
    def speedup(self) -> float | None:
        """Median over the rounds of how many times as fast as the default it is."""
        return statistics.median(s.ratio for s in self.judged) if self.judged else None

    @property
    def speedup_low(self) -> float:
        """The lower quartile of that: a gain is believed only if this shows one."""
        return _quartiles([s.ratio for s in self.judged])[0]

    @property
    def speedup_undisturbed(self) -> float:
        """The least seconds beside the default's least: other work makes a launch longer, never shorter."""
        if not self.judged:
            return 0.0
        return min(s.base for s in self.judged) / min(s.seconds for s in self.judged)

    @property
    def is_final(self) -> bool:
        """Whether it was measured again as a finalist."""
        return sum(s.final for s in self.samples) >= _LEAST_SAMPLES

    def joined(self, other: Measurement) -> Measurement:
        """Both together; a failure outweighs samples."""
        status = self.status if self.status != "ok" else other.status
        samples = (*self.samples, *other.samples)
        if len(samples) > _MOST_SAMPLES:  # those of finals say most
            samples = tuple(sorted(samples, key=lambda s: s.final)[-_MOST_SAMPLES:])
        return Measurement(self.config, status, samples, self.note or other.note)

    def to_json(self) -> dict[str, object]:
        """As a journal keeps it; median and spread are there to be read by people."""
        return {
            "config": config_to_json(self.config),
            "status": self.status,
            "samples": [[s.seconds, s.base, s.final] for s in self.samples],
            "median_s": self.median_s,
            "spread_s": self.spread_s,
            **({"note": self.note} if self.note else {}),
        }


def measurement_from_json(kind: str, document: Mapping[str, object]) -> Measurement | None:
    """The measurement of a document; None for one that this version does not understand."""
    match document:
        case {"config": dict(config), "status": str(status), "samples": list(samples)}:
            pass
        case _:
            return None
    known = config_from_json(kind, cast("dict[str, object]", config))
    if known is None or status not in get_args(Status):
        return None
    taken: list[Sample] = []
    for entry in cast("list[object]", samples):
        match entry:
            case [float(seconds), float(base), bool(final)] if seconds > 0 and base > 0:
                taken.append(Sample(seconds, base, final))
            case _:
                return None
    return Measurement(known, cast("Status", status), tuple(taken), str(document.get("note", "")))


def join(measurements: Iterable[Measurement]) -> dict[Config, Measurement]:
    """All there is about each configuration, in the order in which they first appear."""
    out: dict[Config, Measurement] = {}
    for m in measurements:
        out[m.config] = m if m.config not in out else out[m.config].joined(m)
    return out


def believed(m: Measurement) -> bool:
    """Whether a configuration was shown to be faster than the default: in most rounds, and at its best."""
    if m.status != "ok" or len(m.judged) < _LEAST_SAMPLES:
        return False
    return min(m.speedup or 0.0, m.speedup_undisturbed) >= _LEAST_GAIN and m.speedup_low >= _LEAST_LOW


def best(measurements: Iterable[Measurement]) -> Measurement | None:
    """The configuration to take; None for the default one. Finalists go before what was measured once."""
    known = list(measurements)
    finals = [m for m in known if m.is_final]
    good = [m for m in (finals or known) if believed(m)]
    return max(good, key=lambda m: m.speedup or 0.0, default=None)


def speeds(known: Mapping[Config, Measurement]) -> list[Measurement]:
    """What was measured, the fastest first, failures last."""
    return sorted(known.values(), key=lambda m: (m.status != "ok", -(m.speedup or 0.0)))


def _quartiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
