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
        examples=["attngen cache info", "attngen cache explain 3f9a", "attngen cache clear --kind cpu"],
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
    actions.add_parser("verify", help="compare every file of every entry with its manifest")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 1 when `verify` finds an entry that is not as it was written."""
    from attngen.store.cache import default_store

    store = default_store()
    match args.action:
        case "info":
            return _info(store)
        case "list":
            return _list(store, args.kind)
        case "explain":
            return _explain(store, args.prefix)
        case "clear" if args.tuning:
            from attngen.tune.folder import drop_journals

            print(f"forgot the measurements of {drop_journals(store.root)} kinds of calls")
            return 0
        case "clear":
            dropped = store.clear(args.kind)
            print(f"dropped {len(dropped)} entries, {bytes_text(sum(e.nbytes for e in dropped))}")
            return 0
        case _:
            return _verify(store)


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


def _list(store: Store, kind: str | None) -> int:
    now = time.time()
    entries = sorted(store.entries(kind), key=lambda e: e.used, reverse=True)
    rows = [(e.digest[:12], e.kind, bytes_text(e.nbytes), f"used {_ago(now - e.used)}") for e in entries]
    print(columns(rows) if rows else "no entries")
    return 0


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{seconds_text(max(1.0, float(int(seconds))))} ago"


def _explain(store: Store, prefix: str) -> int:
    from attngen.errors import CacheError

    found = [e for e in store.entries() if e.digest.startswith(prefix.lower())]
    if not found:
        raise CacheError(f"no cache entry begins with {prefix!r}", hint="`attngen cache list` shows them")
    if len(found) > 1:
        some = ", ".join(sorted(e.digest[:16] for e in found)[:5])
        raise CacheError(f"{len(found)} cache entries begin with {prefix!r}", hint=f"among them {some}")
    _show(store, found[0])
    return 0


def _show(store: Store, entry: EntryInfo) -> None:
    manifest = store.manifest(entry)
    print(f"{entry.kind} {entry.digest}")
    print(f"{entry.path}")
    print("built from")
    print(_indented(json.dumps(manifest.key, indent=2, ensure_ascii=False)))
    print("files")
    print(
        columns([(f.name, bytes_text(f.nbytes), f"sha256 {f.sha256}") for f in manifest.files], indent="  ")
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _verify(store: Store) -> int:
    entries = store.entries()
    problems = store.verify()
    for entry, problem in problems:
        print(f"{entry.digest[:12]}  {entry.kind}: {problem}")
    print(f"{len(entries)} entries checked, {len(problems)} not as they were written")
    if problems:
        print("  hint: they are built anew when they are next needed; `attngen cache clear` drops them now")
    return 1 if problems else 0
