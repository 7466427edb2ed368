"""Whatever happens to the bytes of a cache: `python -m tests.store.corruptions FOLDER COUNT SEED`.

Each round damages files of a cache at random; then `verify` must say what is damaged and nothing else, and a fresh
process must get what is right. Prints one line of JSON, as `tests.store.faults` does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from attngen.store.cache import Store
from attngen.store.entry import MANIFEST, read_manifest
from attngen.tune.journal import line_of, record_of
from tests.store.faults import in_child
from tests.store.scenes import BYSTANDERS, OLD, RECORDS, built, document, furnish, is_right, journal

Damage = Callable[[Path, random.Random], object]


def truncated(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def longer(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 100)))


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def swapped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if len(data) > 1:
        a, b = rng.sample(range(len(data)), 2)
        data[a], data[b] = data[b], data[a]
    path.write_bytes(data)


def moved(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    cut = rng.randrange(len(data) + 1)
    path.write_bytes(data[cut:] + data[:cut])


def zeroed(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.choice((1, 16, 512)))
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def random_bytes(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice((0, 1, 100, 5000))))


def exchanged(path: Path, rng: random.Random) -> None:
    other = rng.choice(sorted(p for p in path.parents[4].rglob("*") if p.is_file() and not p.is_symlink()))
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def exchanged_folders(path: Path, rng: random.Random) -> None:
    folder = path.parent
    other = rng.choice([p for p in sorted(folder.parent.parent.glob("*/*")) if p.is_dir()])
    if other not in (folder, *folder.parents) and folder not in other.parents:
        aside = folder.with_name("aside")
        folder.rename(aside)
        other.rename(folder)
        aside.rename(other)


def gone(path: Path, rng: random.Random) -> None:
    path.unlink()


def folder_instead(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def link_instead(path: Path, rng: random.Random) -> None:
    other = rng.choice(sorted(p for p in path.parents[4].rglob("*") if p.is_file()))
    path.unlink()
    path.symlink_to(rng.choice((other, Path("/dev/zero"), path, Path("nowhere"))))


def pipe_instead(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path, rng: random.Random) -> None:
    os.truncate(path, 1 << 40)


def newer(path: Path, rng: random.Random) -> None:
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return
    try:
        said = json.loads(manifest.read_bytes())
        said["format"] = rng.choice((3, 99, "2", None, 2.5))
        rest = {name: item for name, item in said.items() if name != "sha256"}
        said["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        manifest.write_text(json.dumps(said))
    except (ValueError, TypeError, KeyError):
        pass


def stray_above(path: Path, rng: random.Random) -> None:
    folder = rng.choice(list(path.parents)[:3])
    shutil.rmtree(folder)
    rng.choice(
        (lambda: folder.write_text("stray"), lambda: folder.symlink_to("/tmp"), lambda: os.mkfifo(folder))
    )()


BYTES: tuple[Damage, ...] = (
    truncated,
    longer,
    flipped,
    swapped,
    moved,
    zeroed,
    random_bytes,
    exchanged,
    gone,
)
WAYS: tuple[Damage, ...] = (
    *BYTES, *BYTES, exchanged_folders, folder_instead, link_instead, pipe_instead, huge, newer, stray_above,
)  # fmt: skip


def plain_files(root: Path) -> list[Path]:
    """Every file of entries and journals that is still a plain one; locks and areas of the store are not."""
    return sorted(
        p
        for p in root.rglob("*")
        if p.is_file() and not p.is_symlink() and not any(part.startswith(".") for part in p.relative_to(root).parts)
        and p.stat().st_size < 1 << 30
    )  # fmt: skip


def content_of(folder: Path) -> dict[str, object]:
    """What an entry says, by the bytes of its files and the meaning of its manifest."""
    out: dict[str, object] = {}
    for name in ("kernel.so", "kernel.cpp", "deep/er/log.txt", "document.json", MANIFEST):
        path = folder / name
        parents = [path.parent, *list(path.parents)[: name.count("/") + 1]]
        if path.is_symlink() or any(p.is_symlink() for p in parents) or not path.is_file():
            continue
        data = path.read_bytes() if path.stat().st_size < 1 << 30 else b"huge"
        try:
            out[name] = json.loads(data) if name == MANIFEST else data
        except ValueError:
            out[name] = data
    return out


def entries_of(root: Path) -> dict[str, dict[str, object]]:
    """What each entry says, by its place."""
    return {
        f"{p.parents[1].name}/{p.name}": content_of(p)
        for p in root.glob("v1/[a-z]*/??/*")
        if len(p.name) == 64
    }


def truth(root: Path, whole: dict[str, dict[str, object]]) -> list[str]:
    """Whether `verify` says what is so."""
    store = Store(root)
    said = {f"{e.kind}/{e.digest}" for e, _ in store.verify()}
    now = entries_of(root)
    wrong = [f"verify is silent of {n}" for n, what in now.items() if what != whole[n] and n not in said]
    wrong += [f"verify blames {n}" for n, what in now.items() if what == whole[n] and n in said]
    for entry in store.entries():  # `explain` reads manifests
        if f"{entry.kind}/{entry.digest}" not in said and read_manifest(entry.path).digest != entry.digest:
            wrong.append("explain would lie")
    return wrong


def of_entries(root: Path) -> list[str]:
    """What a fresh process gets."""
    wrong: list[str] = []
    store = Store(root, lock_timeout_s=2)
    for n in (*BYSTANDERS, *OLD):
        if not store.use("cpu", {"n": n}, built(n), lambda d, n=n: is_right(d, n)):
            wrong.append(f"artefact {n}")
        if root not in store.get_or_build("cpu", {"n": n}, built(n)).parents:
            wrong.append(f"artefact {n} is not in the cache again")
    for n in BYSTANDERS:
        if store.get_json("fold", {"n": n}) not in (None, document(n)):
            wrong.append(f"document {n}")
        store.put_json("fold", {"n": n}, document(n))
        if store.get_json("fold", {"n": n}) != document(n):
            wrong.append(f"document {n} is not in the cache again")
    store.prune()
    return wrong + [f"afterwards {e.path}: {p}" for e, p in Store(root).verify()]


def of_journal(root: Path) -> tuple[list[str], list[str]]:
    """The journal: what is whole is read, and nothing else."""
    own = journal(root)
    is_plain = own.path.is_file() and not own.path.is_symlink() and own.path.stat().st_size < 1 << 30
    lines = own.path.read_bytes().split(b"\n") if is_plain else []
    known = [{"n": n, "of": "before"} for n in range(RECORDS)]
    whole = Counter(line for line in lines if line + b"\n" in {line_of(r) for r in known})
    found = own.read()
    read = Counter(line_of(r)[:-1] for r in found)
    wrong = [f"record {r}" for r in found if r not in known]
    bad = sum(bool(line.strip()) and record_of(line) is None for line in lines)
    if is_plain and own.damaged() != bad:
        wrong.append("damaged lines are counted wrongly")
    if not own.append({"after": 1}) or own.read()[-1:] != [{"after": 1}]:
        wrong.append("nothing can be added to the journal")
    return wrong, [f"record {line!r}" for line in whole - read]


def main(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    os.environ["TMPDIR"] = str(folder)
    logging.getLogger("attngen").addHandler(logging.NullHandler())
    template, root = folder / "template", folder / "cache"
    in_child(lambda _: furnish(template))
    whole = entries_of(template)
    wrong: list[str] = []
    lost: list[str] = []
    done = 0
    while done < count:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)
        how: list[str] = []
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            path, way = rng.choice(plain_files(root)), rng.choice(WAYS)
            if path.suffix == ".jsonl" and way in (stray_above, exchanged_folders, newer):
                continue
            way(path, rng)
            how.append(f"{getattr(way, '__name__', way)} {path.relative_to(root)}")
        done += len(how)

        def work(say: Callable[[str], None]) -> None:
            bad = truth(root, whole)
            more, missing = of_journal(root)
            say(json.dumps([bad + of_entries(root) + more, missing]))

        status, said = in_child(work)
        w, m = json.loads(said[-1]) if status == 0 else (said, [])
        wrong += [f"{how}: {x}" for x in w]
        lost += [f"{how}: {x}" for x in m]
    print(json.dumps({"faults": done, "wrong": wrong, "lost": lost}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
