"""What processes do to a cache, and what must hold in a fresh process whatever befell them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attngen.errors import CacheError
from attngen.store.cache import Store
from attngen.store.key import digest
from attngen.store.upkeep import LOCKS, STAGING
from attngen.tune import journal as journal_module
from attngen.tune.folder import journal_path
from attngen.tune.journal import Journal

BYSTANDERS = range(100, 103)  # finished long before, and in use: nothing may befall them
OLD = range(200, 206)  # finished long before, and not used since
TARGET = 1
TUNED = "ab" * 32
RECORDS = 12


def content(n: int, name: str) -> bytes:
    """What is right for a key."""
    return f"{n} {name} ".encode() * (200 + n)


NAMES = ("kernel.so", "kernel.cpp", "deep/er/log.txt")


def built(n: int, say: Callable[[str], None] = lambda _: None) -> Callable[[Path], None]:
    """A builder that says so."""

    def build(directory: Path) -> None:
        say(f"built {n}")
        (directory / "deep" / "er").mkdir(parents=True)
        for name in NAMES:
            (directory / name).write_bytes(content(n, name))

    return build


def is_right(directory: Path, n: int) -> bool:
    """Whether an artefact is the one of its key."""
    return all((directory / name).read_bytes() == content(n, name) for name in NAMES)


def document(n: int) -> object:
    """What is right for a document's key."""
    return {"n": n, "rules": ["D1", n, None, True], "text": "é" * 50}


def journal(root: Path) -> Journal:
    """The journal of the scenes."""
    return Journal(journal_path(root, TUNED), 0.2)


def furnish(root: Path) -> None:
    """A cache with everything in it."""
    store = Store(root)
    for n in (*BYSTANDERS, *OLD):
        path = store.get_or_build("cpu", {"n": n}, built(n))
        if n in OLD:
            os.utime(path / "manifest.json", (1e9 + n, 1e9 + n))
    for n in BYSTANDERS:
        store.put_json("fold", {"n": n}, document(n))
    for n in range(RECORDS):
        assert journal(root).append({"n": n, "of": "before"})


def target(root: Path) -> Path:
    """Where the entry under construction is to be."""
    name = digest({"n": TARGET})
    return root / "v1" / "cpu" / name[:2] / name


@dataclass(frozen=True)
class Scene:
    """One thing to do. `stage` prepares the cache for it; `act` does it and tells of each piece of finished work."""

    name: str
    act: Callable[[Path, Callable[[str], None]], None]
    stage: Callable[[Path], None] = lambda root: None
    flock: int = 0


def build(root: Path, tell: Callable[[str], None], limit: int = 1 << 30) -> None:
    store = Store(root, limit_bytes=limit, lock_timeout_s=0.2)
    places: list[Path] = []

    def read(path: Path) -> bool:
        places.append(path)
        return is_right(path, TARGET)

    assert store.use("cpu", {"n": TARGET}, built(TARGET), read), "wrong"
    if root in places[-1].parents:
        tell("entry")
    try:
        store.put_json("fold", {"n": TARGET}, document(TARGET))
    except CacheError:
        return
    tell("document")
    assert store.get_json("fold", {"n": TARGET}) in (None, document(TARGET)), "wrong"


def clean(root: Path, tell: Callable[[str], None]) -> None:
    store = Store(root)
    try:
        store.clear("none-of-this-kind")
        store.prune()
    except CacheError:
        pass
    build(root, tell)


def append(root: Path, tell: Callable[[str], None]) -> None:
    own = journal(root)
    for n in range(4):
        if own.append({"n": n, "of": "now"}):
            tell(f"record {n}")


def rewrite(root: Path, tell: Callable[[str], None]) -> None:
    journal_module._LARGE_BYTES = 64
    journal(root).load(list)
    append(root, tell)
    journal(root).load(list)


def damage(root: Path) -> None:
    path = Store(root).get_or_build("cpu", {"n": TARGET}, built(TARGET))
    (path / "kernel.so").write_bytes(b"damaged")


def stray(root: Path) -> None:
    shard = target(root).parent
    shutil.rmtree(shard, ignore_errors=True)
    shard.write_text("a file in the place of a directory")


def litter(root: Path) -> None:
    for name in ("dead", "gone"):
        (root / "v1" / STAGING / name / "sub").mkdir(parents=True)
        (root / "v1" / STAGING / name / "half").write_text("half")
        (root / "v1" / STAGING / f"{name}.lock").write_text("")
    (root / "v1" / LOCKS / f"cpu-{digest({'n': TARGET})}.lock").write_text("")


def forget(root: Path) -> None:
    shutil.rmtree(root)


SCENES = (
    Scene("build", build),
    Scene("build in no cache", build, forget),
    Scene("build over damage", build, damage),
    Scene("build over a stray", build, stray),
    Scene("build after the dead", build, litter),
    Scene("build past the limit", lambda root, tell: build(root, tell, 30_000)),
    Scene("prune", clean, damage),
    Scene("build without locks", build, litter, flock=errno.ENOLCK),
    Scene("build where locks are never had", build, flock=errno.EWOULDBLOCK),
    Scene("append", append),
    Scene("append in no cache", append, forget),
    Scene("rewrite", rewrite),
    Scene("rewrite without locks", rewrite, flock=errno.EOPNOTSUPP),
)


def verdict(root: Path, scene: Scene, told: list[str]) -> tuple[list[str], list[str]]:
    """What is wrong, and what is lost, as a fresh process finds it; it mends what there is to mend."""
    wrong: list[str] = []
    lost: list[str] = []
    store = Store(root)
    had_entry = target(root).is_dir() and store.problem(store_entry(store)) is None
    builds: list[str] = []

    def fetch(n: int) -> int:
        before = len(builds)
        if not is_right(store.get_or_build("cpu", {"n": n}, built(n, builds.append)), n):
            wrong.append(f"artefact {n}")
        return len(builds) - before

    if fetch(TARGET) and (had_entry or "entry" in told):
        lost.append("the entry that was finished")
    if "document" in told and store.get_json("fold", {"n": TARGET}) is None:
        lost.append("the document that was finished")
    is_new = scene.stage is forget
    for n in () if is_new else BYSTANDERS:
        lost += [f"bystander {n}"] * fetch(n)
        if store.get_json("fold", {"n": n}) != document(n):
            lost.append(f"document {n}")
    if not is_new and "limit" not in scene.name and any(store.get("cpu", {"n": n}) is None for n in OLD):
        lost.append("old entries")
    if store.get_json("fold", {"n": TARGET}) not in (None, document(TARGET)):
        wrong.append("document")
    fetch(999)
    wrong += _left(root, scene) + [f"verify: {p}" for _, p in store.verify()]
    more_wrong, more_lost = _of_journal(root, is_new, told)
    return wrong + more_wrong, lost + more_lost


def store_entry(store: Store):
    """The target among the entries."""
    return next(e for e in store.entries("cpu") if e.path == target(store.root))


def _left(root: Path, scene: Scene) -> list[str]:
    if scene.flock == errno.ENOLCK:  # there, time alone tells that a builder is dead
        now = time.time()
        real, time.time = time.time, lambda: now + 2 * 86400
        Store(root).prune(1 << 30)
        time.time = real
    base = root / "v1"
    return [f"left: {p}" for area in (STAGING, LOCKS) for p in (base / area).glob("*")]


def _of_journal(root: Path, is_new: bool, told: list[str]) -> tuple[list[str], list[str]]:
    own = journal(root)
    found = Counter(json.dumps(r, sort_keys=True) for r in own.read())
    before = Counter(
        json.dumps({"n": n, "of": "before"}, sort_keys=True) for n in (() if is_new else range(RECORDS))
    )
    now = Counter(
        json.dumps({"n": int(t.split()[1]), "of": "now"}, sort_keys=True)
        for t in told
        if t.startswith("record")
    )
    possible = before + Counter(
        json.dumps({"n": n, "of": "now"}, sort_keys=True) for n in range(4) for _ in "ab"
    )
    lost = [f"record {r}" for r in (before + now) - found]
    wrong = [f"record {r}" for r in found if r not in possible]
    if not own.append({"after": True}) or own.read()[-1:] != [{"after": True}]:
        wrong.append("nothing can be added to the journal")
    own.load(list)
    journal_module._LARGE_BYTES = 64
    own.load(list)
    wrong += [f"left: {p}" for p in own.path.parent.glob(".*.new")]
    return wrong, lost
