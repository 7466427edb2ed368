"""A prediction, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.emit.configs import Config, config_to_json


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a launch is predicted to take.

    seconds  of the launch.
    parts    what takes them, by name, in seconds of all units together divided by their number; the parts of a
             launch that waits for one thing at a time add up, of a GPU they are what each unit would take alone.
    facts    what else decided, by name: the rows of work, how unevenly they end, what limits occupancy.
    """

    config: Config
    seconds: float
    parts: Mapping[str, float]
    facts: Mapping[str, float]

    def text(self) -> str:
        """One line: the configuration, the time, and the largest parts."""
        config = " ".join(f"{n}={v}" for n, v in config_to_json(self.config).items() if v not in (0, False))
        total = sum(self.parts.values()) or 1.0
        parts = sorted(self.parts.items(), key=lambda item: -item[1])[:4]
        shares = ", ".join(f"{name} {part / total:.0%}" for name, part in parts if part > 0.005 * total)
        facts = ", ".join(f"{name} {value:.3g}" for name, value in self.facts.items())
        return f"{config}: {self.seconds * 1e3:.4g} ms ({shares}; {facts})"
