"""Fuzz what takes text, functions and files from strangers: `python -m tests.fuzz parser --seconds 600`.

Every input must end within a second in a result or in one error of ours. What does not is printed with the seed of its
round, and kept in a file; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.fuzz import manifest, parser, tracer

TARGETS = {"manifest": manifest.one, "parser": parser.one, "tracer": tracer.one}
# Whose inputs take time to make: that is not the time that is limited.
MAKERS = {"manifest": manifest.make}
LIMIT_S = 1.0  # of this process: others may have the processor
WAIT_S = 20.0  # of the clock, for what waits
_TOO_LONG = "took more than"


class Hang(BaseException):
    """An input took too long. No `except Exception` catches it."""


def _ring(_signal: int, _frame: object) -> None:
    raise Hang


def run(target: str, seconds: float, seed: int, folder: Path, most: int = 10) -> int:
    """Rounds until the time is up or `most` inputs failed; how many failed."""
    for ring in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ring, _ring)
    warnings.simplefilter("ignore")  # Python's, about what is made here
    end, rounds, failed = time.monotonic() + seconds, 0, 0
    outcomes: Counter[str] = Counter()
    while time.monotonic() < end and failed < most:
        held: list[str] = []
        outcome, problem = _round(target, f"{seed} {rounds}", held)
        if problem.startswith(_TOO_LONG):  # once more: the machine may have paused
            held.clear()
            outcome, problem = _round(target, f"{seed} {rounds}", held)
        if not problem:
            outcomes[outcome] += 1
        if problem:
            failed += 1
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{target}-{seed}-{rounds}.txt"
            file.write_text("\n".join([*held, "", problem]), encoding="utf-8", errors="backslashreplace")
            print(
                f"round {rounds} of seed {seed}: {problem.strip().splitlines()[-1][:200]}; see {file}",
                flush=True,
            )
        rounds += 1
    shown = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    print(f"{target}: {rounds} inputs, seed {seed}, {failed} failed; {shown}")
    return failed


def _round(target: str, seed: str, held: list[str]) -> tuple[str, str]:
    """How one input ended, and what is wrong with that."""
    from attngen.errors import AttngenError

    attempt = _attempt(target, random.Random(seed), held)
    _set_timers(LIMIT_S, WAIT_S)
    try:
        attempt()
    except AttngenError as error:
        return error.code, ""
    except Hang as hang:
        if target == "tracer" and tracer.is_own(hang):
            return "the function's own", ""
        return "", f"{_TOO_LONG} {LIMIT_S:g} s\n{traceback.format_exc()}"
    except Exception as error:
        if target == "tracer" and tracer.is_own(error):
            return "the function's own", ""
        return "", traceback.format_exc()  # what is looked for
    finally:
        _set_timers(0, 0)
    return "accepted", ""


def _set_timers(limit: float, wait: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, wait)


def _attempt(target: str, rng: random.Random, held: list[str]) -> Callable[[], None]:
    if target in MAKERS:
        return MAKERS[target](rng, held)
    return partial(TARGETS[target], rng, held)


def main() -> int:
    """The command."""
    known = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    known.add_argument("target", choices=sorted(TARGETS))
    known.add_argument("--seconds", type=float, default=600.0)
    known.add_argument("--seed", type=int, default=int(time.time()))
    known.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    args = known.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # what is remembered of one input must not help another run
        os.environ["ATTNGEN_CACHE_DIR"] = folder
        return 1 if run(args.target, args.seconds, args.seed, args.out) else 0


if __name__ == "__main__":
    sys.exit(main())
