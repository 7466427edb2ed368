"""What tuning found, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attngen.emit.configs import Config, config_to_json
from attngen.tune.measurement import Measurement, best, speeds


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One kernel.

    outputs       what the sweep computes.
    default       the configuration it has where nothing is known.
    chosen        the one it takes from now on: the default, unless another was measured to be faster.
    measurements  everything known, the fastest first.
    new           samples and failures of this search; 0 where all was known.
    interrupted   whether Ctrl-C ended the search.
    journal       the file that keeps them.
    facts         what the measurements belong to.
    """

    outputs: tuple[str, ...]
    kind: str
    default: Config
    chosen: Config
    measurements: tuple[Measurement, ...]
    default_s: float | None
    chosen_s: float | None
    speedup: float
    new: int
    interrupted: bool
    journal: str
    facts: Mapping[str, object] = field(default_factory=dict[str, object], repr=False, hash=False)

    def __str__(self) -> str:
        lines = [f"{', '.join(self.outputs)} ({self.kind}): {shown(self.chosen)}"]
        if self.chosen == self.default:
            lines[0] += ", the default"
        if self.default_s is not None and self.chosen_s is not None:
            lines[0] += f"; {self.chosen_s * 1e3:.4g} ms, default {self.default_s * 1e3:.4g} ms"
            lines[0] += f", {self.speedup:.2f}x as fast"
        for m in self.measurements:
            lines.append(f"  {_mark(m, self.chosen)} {shown(m.config):56} {_outcome(m)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What `Attention.tune` found, kernel by kernel."""

    program: str
    budget: str
    sweeps: tuple[SweepResult, ...]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it; what was measured until then is kept."""
        return any(s.interrupted for s in self.sweeps)

    @property
    def chosen(self) -> Config:
        """The configuration of the first kernel: of the only one, for most programs."""
        return self.sweeps[0].chosen

    @property
    def default_s(self) -> float | None:
        """Seconds of all kernels with their defaults, where each was measured."""
        return _total([s.default_s for s in self.sweeps])

    @property
    def chosen_s(self) -> float | None:
        """Seconds of all kernels as they are chosen."""
        return _total([s.chosen_s for s in self.sweeps])

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Everything known of every kernel."""
        return tuple(m for s in self.sweeps for m in s.measurements)

    def table(self) -> str:
        """The choices as a table for ATTNGEN_TUNE=pinned:FILE."""
        from attngen.tune.table import table_text

        return table_text((s.facts, s.chosen) for s in self.sweeps)

    def __str__(self) -> str:
        return "\n".join([f"{self.program}, budget {self.budget}", *map(str, self.sweeps)])


def sweep_result(
    outputs: tuple[str, ...],
    kind: str,
    default: Config,
    known: dict[Config, Measurement],
    *,
    new: int,
    interrupted: bool,
    journal: str,
    facts: Mapping[str, object],
) -> SweepResult:
    """The choice that follows from what is known."""
    found = best(known.values())
    shown_by = found or next((m for m in speeds(known) if m.status == "ok" and m.judged), None)
    base = None
    if shown_by is not None:
        ordered = sorted(s.base for s in shown_by.judged)
        base = ordered[len(ordered) // 2]
    return SweepResult(
        outputs=outputs,
        kind=kind,
        default=default,
        chosen=default if found is None else found.config,
        measurements=tuple(speeds(known)),
        default_s=base,
        chosen_s=base if found is None else found.median_s,
        speedup=1.0 if found is None else found.speedup or 1.0,
        new=new,
        interrupted=interrupted,
        journal=journal,
        facts=facts,
    )


def shown(config: Config) -> str:
    """The fields of a configuration, for people."""
    return " ".join(f"{n}={v}" for n, v in config_to_json(config).items())


def _mark(m: Measurement, chosen: Config) -> str:
    return "*" if m.config == chosen else " "


def _outcome(m: Measurement) -> str:
    if m.status != "ok" or m.median_s is None or m.speedup is None:
        return f"{m.status}{': ' + m.note if m.note else ''}"
    return (
        f"{m.median_s * 1e3:.4g} ms +- {(m.spread_s or 0.0) * 1e3:.2g}, {m.speedup:.2f}x, {len(m.judged)} samples"
        + (" (final)" if m.is_final else "")
    )


def _total(parts: list[float | None]) -> float | None:
    known = [p for p in parts if p is not None]
    return sum(known) if len(known) == len(parts) else None
