"""`attngen cache`: look at the cache of built kernels, check it, clear it."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, bytes_text, columns, seconds_text

if TYPE_CHECKING:
    from attngen.cli.common import Subparsers
    from attngen.store.cache import Store
    from attngen.store.upkeep import EntryInfo


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "cache",
        help="look at the cache of built kernels, check it, clear it",
        description="Look at the cache of built kernels and derivations, check it, clear it.",
        examples=[
            "attngen cache info",
            "attngen cache list --kind cpu",
            "attngen cache explain 3f9a",
            "attngen cache verify --json",
            "attngen cache prune --limit-mb 200",
            "attngen cache clear --kind cpu",
        ],
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("info", help="where it is, how much it holds")
    listing = actions.add_parser("list", help="every entry, the one used last first")
    explain = actions.add_parser("explain", help="what an entry was built from, and its files")
    explain.add_argument("prefix", metavar="KEY-PREFIX", help="the first digits of an entry's key")
    clear = actions.add_parser("clear", help="drop all entries, or those of one kind")
    for action in (listing, clear):
        action.add_argument("--kind", help="only entries of this kind, as `attngen cache info` names them")
    clear.add_argument(
        "--tuning", action="store_true", help="forget what `attngen tune` measured, and nothing else"
    )
    verify = actions.add_parser(
        "verify",
        help="compare every file of every entry with its manifest, and look for damaged measurements",
    )
    prune = actions.add_parser(
        "prune",
        help="drop damaged entries, what dead processes left, and past the limit what was used longest ago",
    )
    prune.add_argument(
        "--limit-mb", type=_size, metavar="N", help="the limit in MiB, instead of ATTNGEN_CACHE_LIMIT_MB"
    )
    for action in (listing, explain, verify, prune):
        action.add_argument("--json", action="store_true", help="print JSON")


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of MiB")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 1 when `verify` finds an entry that is not as it was written."""
    from attngen.store.cache import default_store

    store = default_store()
    match args.action:
        case "info":
            return _info(store)
        case "list":
            return _list(store, args.kind, args.json)
        case "explain":
            return _explain(store, args.prefix, args.json)
        case "clear" if args.tuning:
            from attngen.tune.folder import drop_journals

            print(f"forgot the measurements of {drop_journals(store.root)} kinds of calls")
            return 0
        case "clear":
            dropped = store.clear(args.kind)
            print(f"dropped {len(dropped)} entries, {bytes_text(sum(e.nbytes for e in dropped))}")
            return 0
        case "prune":
            return _prune(store, args.limit_mb, args.json)
        case _:
            return _verify(store, args.json)


def _info(store: Store) -> int:
    entries = store.entries()
    kinds = sorted({e.kind for e in entries})
    total = sum(e.nbytes for e in entries)
    print(f"{store.root}")
    print(f"{len(entries)} entries, {bytes_text(total)} of at most {bytes_text(store.limit_bytes)}")
    rows = [
        (kind, str(len(sizes)), bytes_text(sum(sizes)))
        for kind in kinds
        for sizes in [[e.nbytes for e in entries if e.kind == kind]]
    ]
    if rows:
        print(columns(rows, indent="  "))
    from attngen.tune.folder import list_journals

    journals = list_journals(store.root)
    if journals:
        print(f"measurements of {len(journals)} kinds of calls, kept until `attngen cache clear --tuning`")
    return 0


def _list(store: Store, kind: str | None, as_json: bool) -> int:
    now = time.time()
    entries = sorted(store.entries(kind), key=lambda e: e.used, reverse=True)
    if as_json:
        print(json.dumps([_described(e, has_manifest=_has_manifest(store, e)) for e in entries], indent=2))
        return 0
    rows = [
        (e.digest[:12], e.kind, bytes_text(e.nbytes), _state(store, e) or f"used {_ago(now - e.used)}")
        for e in entries
    ]
    print(columns(rows) if rows else "no entries")
    return 0


def _state(store: Store, entry: EntryInfo) -> str:
    return "" if _has_manifest(store, entry) else "damaged: it is built anew when it is next needed"


def _has_manifest(store: Store, entry: EntryInfo) -> bool:
    """Whether the manifest can be read; `verify` reads the files as well."""
    from attngen.errors import CacheError

    try:
        store.manifest(entry)
    except CacheError:
        return False
    return True


def _described(entry: EntryInfo, **more: object) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "digest": entry.digest,
        "path": str(entry.path),
        "bytes": entry.nbytes,
        "used": entry.used,
        **more,
    }


def _ago(seconds: float) -> str:
    if seconds < -1:
        return "at a time yet to come, by this clock"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{seconds_text(max(1.0, float(int(seconds))))} ago"


def _explain(store: Store, prefix: str, as_json: bool) -> int:
    from attngen.errors import CacheError

    found = [e for e in store.entries() if e.digest.startswith(prefix.lower())]
    if not found:
        raise CacheError(f"no cache entry begins with {prefix!r}", hint="`attngen cache list` shows them")
    if len(found) > 1:
        some = ", ".join(sorted(e.digest[:16] for e in found)[:5])
        raise CacheError(f"{len(found)} cache entries begin with {prefix!r}", hint=f"among them {some}")
    _show(store, found[0], as_json)
    return 0


def _show(store: Store, entry: EntryInfo, as_json: bool) -> None:
    manifest = store.manifest(entry)
    problem = store.problem(entry)
    if as_json:
        files = [{"name": f.name, "bytes": f.nbytes, "sha256": f.sha256} for f in manifest.files]
        print(json.dumps(_described(entry, problem=problem, key=dict(manifest.key), files=files), indent=2))
        return
    print(f"{entry.kind} {entry.digest}")
    print(f"{entry.path}")
    print(
        "every file is as it was written" if problem is None else f"damaged, so it is never loaded: {problem}"
    )
    print("built from")
    print(_indented(json.dumps(manifest.key, indent=2, ensure_ascii=False)))
    print("files")
    print(
        columns([(f.name, bytes_text(f.nbytes), f"sha256 {f.sha256}") for f in manifest.files], indent="  ")
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _verify(store: Store, as_json: bool) -> int:
    from attngen.tune.folder import list_journals
    from attngen.tune.journal import Journal

    entries = store.entries()
    problems = store.verify()
    journals = list_journals(store.root)
    damaged = {path: count for path in journals if (count := Journal(path).damaged())}
    refusal = store.refusal()
    is_well = not problems and not damaged and refusal is None
    if as_json:
        found = {
            "root": str(store.root),
            "refused": None if refusal is None else refusal.message,
            "entries": len(entries),
            "damaged": [_described(e, problem=problem) for e, problem in problems],
            "journals": len(journals),
            "damaged_lines": {str(path): count for path, count in damaged.items()},
        }
        print(json.dumps(found, indent=2))
        return 0 if is_well else 1
    if refusal is not None:
        print(f"{refusal.message}\n  hint: {refusal.hint}")
    for entry, problem in problems:
        print(f"{entry.digest[:12]}  {entry.kind}: {problem}")
    for path, count in damaged.items():
        print(f"{path.stem[:12]}  measurements: {count} lines are not as they were written, and are not used")
    print(f"{len(entries)} entries checked, {len(problems)} not as they were written")
    if problems:
        print("  hint: they are built anew when they are next needed; `attngen cache prune` drops them now")
    return 0 if is_well else 1


def _prune(store: Store, limit_mb: int | None, as_json: bool) -> int:
    before = sum(e.nbytes for e in store.entries())
    damaged, old = store.prune(None if limit_mb is None else limit_mb << 20)
    after = sum(e.nbytes for e in store.entries())
    if as_json:
        found = {
            "damaged": [_described(e) for e in damaged],
            "old": old,
            "bytes": after,
            "freed": before - after,
        }
        print(json.dumps(found, indent=2))
        return 0
    print(
        f"dropped {len(damaged)} damaged entries and {old} that were used longest ago; {bytes_text(after)} are left"
    )
    return 0
