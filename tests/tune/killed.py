"""A search over a formula that keeps what it learns: `python -m tests.tune.killed JOURNAL`, to be killed at any moment.

After each sample is kept, its configuration is said on standard output; "done" at the end.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from attngen.tune import journal as journal_module
from attngen.tune.budget import Budget
from attngen.tune.journal import Journal
from attngen.tune.knowledge import known_of, measured_record
from attngen.tune.measurement import Measurement
from tests.tune.labs import FakeLab, bowl, searching

SOFT = {"torch": "any"}
BUDGET = Budget("test", 1e9, 64, 6, 3, 20)


def slowly(config):
    time.sleep(0.004)
    return bowl(config)


def main(path: Path) -> None:
    journal_module._LARGE_BYTES = 8192  # rewritten by every process after the first few
    journal = Journal(path)
    known = dict(known_of(journal, "cpu", SOFT).measurements)
    if not path.exists():
        journal.append({"event": "key", "key": {"kind": "cpu"}})

    def learn(m: Measurement) -> None:
        assert journal.append(measured_record(m, SOFT))
        os.write(1, f"{m.config.block_q} {m.config.block_k} {len(m.samples)}\n".encode())

    os.write(1, b"begun\n")
    searching(FakeLab(slowly), budget=BUDGET, learn=learn, known=known).run()
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
