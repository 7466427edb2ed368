"""Labs that need no machine: times come from a formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attngen.emit.configs import Config
from attngen.emit.cpu_config import CpuConfig
from attngen.tune.budget import Budget
from attngen.tune.measurement import Measurement
from attngen.tune.pool import Built
from attngen.tune.search import Search
from attngen.tune.space import CPU_VALUES, Space

DEFAULT = CpuConfig(128, 96)
BEST = CpuConfig(64, 192)
SPACE = Space(
    DEFAULT,
    {"block_q": CPU_VALUES["block_q"], "block_k": CPU_VALUES["block_k"], "threads": (0,)},
    lambda _: True,
)


def bowl(config: Config) -> float:
    """Seconds with one valley, at BEST."""
    rows = [
        abs(CPU_VALUES[n].index(getattr(config, n)) - CPU_VALUES[n].index(getattr(BEST, n)))
        for n in CPU_VALUES
    ]
    return 1e-3 * (1 + sum(rows[:2]))


class FakeLab:
    """Counts what is asked of it. `failing` fail to build, `mistaken` compute something else."""

    def __init__(
        self,
        seconds: Callable[[Config], float] = bowl,
        failing: Callable[[Config], bool] = lambda _: False,
        mistaken: Callable[[Config], bool] = lambda _: False,
    ) -> None:
        self.seconds, self.failing, self.mistaken = seconds, failing, mistaken
        self.built: list[Config] = []
        self.checked: list[Config] = []
        self.sampled: list[Config] = []

    def build(self, configs: Sequence[Config]) -> Iterator[Built[Config]]:
        for config in configs:
            self.built.append(config)
            failed = self.failing(config)
            yield Built(config, "compile_error" if failed else "ok", 0.1, "no" if failed else "")

    def check(self, config: Config) -> Measurement:
        self.checked.append(config)
        return Measurement(config, "wrong" if self.mistaken(config) else "ok")

    def sample(self, config: Config) -> float:
        self.sampled.append(config)
        return self.seconds(config)

    def release(self, config: Config) -> None:
        pass


def searching(lab: FakeLab, **changes) -> Search:
    known = {"budget": Budget("test", 1e9, 60, 3, 2, 5), "seed": 0, "learn": lambda _: None}
    return Search(lab, SPACE, **{**known, **changes})
