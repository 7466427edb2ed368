"""Processes that are killed or refused at every step: `python -m tests.store.faults kills|errors FOLDER COUNT SEED`.

Prints one line of JSON: how many faults were injected, what was wrong, what was lost.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from attngen.store import upkeep
from attngen.store.key import digest
from tests.store.scenes import BYSTANDERS, SCENES, Scene, furnish, verdict
from tests.store.steps import REFUSED, Steps


def in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str]]:
    """Run `work` in a fork; how it ended, and the lines it said before that."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        write = os.write
        try:
            os.close(ours)
            logging.disable(logging.NOTSET)
            work(lambda line: write(theirs, f"{line}\n".encode()) and None)
            code = 0
        except BaseException:
            write(theirs, ("error " + traceback.format_exc().replace("\n", " | ") + "\n").encode())
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        said = file.read().decode().splitlines()
    return os.waitpid(child, 0)[1], said


class Warnings(logging.Handler):
    """Says each warning of the store's disk."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(f"warning {record.getMessage()}")


class Trials:
    """One scene after the other, each in a copy of one furnished cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "cache"
        self.faults = 0
        self.wrong: list[str] = []
        self.lost: list[str] = []
        os.environ["TMPDIR"] = str(folder / "tmp")  # of what is built for one process alone
        (folder / "tmp").mkdir(parents=True)
        logging.getLogger("attngen").addHandler(logging.NullHandler())
        for scene in SCENES:
            self._template(scene)

    def _template(self, scene: Scene) -> None:
        place = self.folder / scene.name.replace(" ", "-")

        def work(_: Callable[[str], None]) -> None:
            furnish(place)
            scene.stage(place)

        status, said = in_child(work)
        assert status == 0, said

    def ready(self, scene: Scene) -> None:
        """A fresh cache for a scene."""
        shutil.rmtree(self.root, ignore_errors=True)
        template = self.folder / scene.name.replace(" ", "-")
        if template.exists():
            shutil.copytree(template, self.root, symlinks=True)
            for n in BYSTANDERS:
                for manifest in self.root.glob(f"v1/*/*/{digest({'n': n})}/manifest.json"):
                    os.utime(manifest)  # used just now

    def act(self, scene: Scene, **fault: object) -> tuple[int, list[str]]:
        """Do it under a fault."""

        def work(say: Callable[[str], None]) -> None:
            logging.getLogger("attngen.store").addHandler(Warnings(say))
            upkeep._SWEEPER_S = 0.01  # where locks are never had, each build waits this long
            steps = Steps(self.root, flock=scene.flock, **fault).install()  # type: ignore[arg-type]
            scene.act(self.root, say)
            say(f"steps {steps.count}")

        return in_child(work)

    def judge(self, scene: Scene, told: list[str], how: str) -> None:
        """What a fresh process finds."""

        def work(say: Callable[[str], None]) -> None:
            if scene.flock == errno.ENOLCK:
                Steps(self.root, flock=scene.flock).install()
            wrong, lost = verdict(self.root, scene, told)
            say(json.dumps([wrong, lost]))

        status, said = in_child(work)
        wrong, lost = json.loads(said[-1]) if status == 0 else (said, [])
        self.wrong += [f"{scene.name}, {how}: {w}" for w in wrong]
        self.lost += [f"{scene.name}, {how}: {w}" for w in lost]

    def length(self, scene: Scene, **fault: object) -> int:
        """How many steps it takes undisturbed."""
        self.ready(scene)
        status, said = self.act(scene, **fault)
        assert status == 0, said
        self.judge(scene, said, "undisturbed")
        return int(said[-1].split()[1])

    def kills(self, count: int, rng: random.Random) -> None:
        """Every step of every scene once, then chains of kills at random steps until there were `count`."""
        lengths = {scene: self.length(scene) for scene in SCENES}
        plans = [(s, (n,)) for s, length in lengths.items() for n in range(1, length + 1)]
        if count < len(plans):
            plans = rng.sample(plans, count)
        for scene, chain in plans:
            self.chain(scene, chain)
        while self.faults < count:
            scene = rng.choice(SCENES)
            self.chain(scene, tuple(rng.randint(1, lengths[scene]) for _ in range(rng.randint(2, 4))))

    def chain(self, scene: Scene, steps: tuple[int, ...]) -> None:
        """Kill it at one step after the other, each time in a new process."""
        self.ready(scene)
        told: list[str] = []
        for n in steps:
            status, said = self.act(scene, kill_at=n)
            told += said
            if status == signal.SIGKILL:
                self.faults += 1
            elif status != 0:
                self.wrong.append(f"{scene.name}, step {n}: {said}")
        self.judge(scene, told, f"killed at {steps}")

    def errors(self, count: int, rng: random.Random) -> None:
        """Every fault of the disk at every step of every scene, once and from then on; a sample of `count`."""
        plans: list[tuple[Scene, int, int, bool]] = []
        for scene in SCENES:
            for number in REFUSED:
                length = self.length(scene, refuse=(number, 1 << 30, False))
                plans += [(scene, number, n, good) for n in range(1, length + 1) for good in (False, True)]
        for scene, number, n, good in rng.sample(plans, min(count, len(plans))):
            self.ready(scene)
            status, said = self.act(scene, refuse=(number, n, good))
            self.faults += 1
            how = f"{errno.errorcode[number]} {'from' if good else 'at'} step {n}"
            if status != 0:
                self.wrong.append(f"{scene.name}, {how}: {said[-1]}")
            disk = [w for w in said if w.startswith("warning cannot use the cache")]
            if len(disk) > 1:
                self.wrong.append(f"{scene.name}, {how}: warned {len(disk)} times")
            self.judge(scene, said, how)


def main(what: str, folder: Path, count: int, seed: int) -> None:
    trials = Trials(folder)
    rng = random.Random(seed)
    (trials.kills if what == "kills" else trials.errors)(count, rng)
    left = [p.name for p in (folder / "tmp").iterdir()]
    print(
        json.dumps(
            {"faults": trials.faults, "wrong": trials.wrong, "lost": trials.lost, "temporary": len(left)}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
