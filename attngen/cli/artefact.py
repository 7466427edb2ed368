"""`attngen artefact`: look at artefacts, and compare their files with their manifests."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, bytes_text, columns

if TYPE_CHECKING:
    from attngen.artefact.manifest import Kernel
    from attngen.artefact.read import Opened
    from attngen.cli.common import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "artefact",
        help="look at artefacts, and compare their files with their manifests",
        description="Look at kernels that were built ahead of time: artefacts by path, folders of artefacts, or "
        "installed ones by name; without any, all that are installed.",
        examples=[
            "attngen artefact list build",
            "attngen artefact show build/causal",
            "attngen artefact verify build/causal build/alibi --json",
            "attngen artefact list",
        ],
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help in (
        ("list", "the kernels: targets, dtypes, head dimensions, sizes"),
        ("show", "what a manifest says: the program, how it was derived, what kernels take of a device"),
        ("verify", "compare every file with the manifest; exit code 1 where one is not as it was built"),
    ):
        action = actions.add_parser(name, help=help)
        action.add_argument(
            "artefacts", metavar="PATH|NAME", nargs="*", help="an artefact, a folder of them, or a name"
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 1 when `verify` finds an artefact that must not be loaded."""
    places = _places(args.artefacts)
    if args.action == "verify":
        return _verify(places, args.json)
    from attngen.artefact.read import open_artefact

    opened = [open_artefact(path) for path in places]
    if args.action == "list":
        _list(opened, args.json)
    elif args.json:
        print(json.dumps([json.loads(one.text) for one in opened], indent=2))
    else:
        print("\n\n".join(map(_shown, opened)) or "no artefacts are installed")
    return 0


def _places(named: Sequence[str]) -> list[Path]:
    """The artefacts that are meant. Raises ArtefactError for a path or a name of none."""
    from attngen.artefact.installed import find_artefact, installed
    from attngen.artefact.read import artefacts_in

    if not named:
        return [place.path for place in installed()]
    return [found for name in named for found in artefacts_in(find_artefact(name))]


def _verify(places: Sequence[Path], as_json: bool) -> int:
    problems = {path: problem for path in places if (problem := _problem(path)) is not None}
    if as_json:
        found = [
            {"path": str(path), "is_whole": path not in problems, "problem": problems.get(path)}
            for path in places
        ]
        print(json.dumps(found, indent=2))
    else:
        for path in places:
            print(f"{path}  {problems.get(path, 'every file is as it was built')}")
        print(f"{len(places)} artefacts checked, {len(problems)} must not be loaded")
    return 1 if problems else 0


def _problem(path: Path) -> str | None:
    """What is wrong with an artefact: the first file that is not as it was built."""
    from attngen.artefact.read import check_all
    from attngen.errors import ArtefactError

    try:
        check_all(path)
    except ArtefactError as error:
        return error.message if error.hint is None else f"{error.message} ({error.hint})"
    return None


def _list(opened: Sequence[Opened], as_json: bool) -> None:
    if as_json:
        found = [
            {
                "path": str(one.directory),
                "name": one.manifest.name,
                "title": one.manifest.title,
                "forms": list(one.manifest.forms),
                "bytes": sum(f.nbytes for f in one.manifest.files),
                "kernels": [_kernel_facts(one, k) for k in one.manifest.kernels],
            }
            for one in opened
        ]
        print(json.dumps(found, indent=2))
        return
    for one in opened:
        size = bytes_text(sum(f.nbytes for f in one.manifest.files))
        print(f"{one.manifest.name}: {_printable(one.manifest.title)}")
        print(f"  {one.directory}, {size}, {len(one.manifest.kernels)} kernels")
        print(columns([_kernel_row(one, k) for k in one.manifest.kernels], indent="  "))
    if not opened:
        print("no artefacts are installed")


def _kernel_row(opened: Opened, kernel: Kernel) -> list[str]:
    special = kernel.special
    wide = "" if special.value_dim == special.head_dim else f", values {special.value_dim}"
    more = f", {kernel.packed} rows of all heads" if kernel.packed else ""
    return [
        kernel.target.arch,
        special.dtype,
        f"head dim {special.head_dim}{wide}",
        f"{kernel.form} {kernel.step}{more}",
        "" if kernel.target.kind == "cpu" else f"alignment {kernel.alignment}",
        bytes_text(_nbytes(opened, kernel)),
    ]


def _kernel_facts(opened: Opened, kernel: Kernel) -> dict[str, object]:
    return {
        "name": kernel.name,
        "target": kernel.target.arch,
        "dtype": kernel.special.dtype,
        "head_dim": kernel.special.head_dim,
        "value_dim": kernel.special.value_dim,
        "form": kernel.form,
        "step": kernel.step,
        "packed": kernel.packed,
        "alignment": kernel.alignment,
        "needs": list(kernel.needs),
        "resources": dict(kernel.resources),
        "bytes": _nbytes(opened, kernel),
    }


def _nbytes(opened: Opened, kernel: Kernel) -> int:
    return sum(opened.manifest.file(name).nbytes for name in kernel.files.values())


def _shown(opened: Opened) -> str:
    """A manifest for people."""
    manifest = opened.manifest
    bound = [f"{name} = {number}" for name, number in manifest.values.items()]
    bound += [f"{name}: {b.dtype}{list(b.shape)}" for name, b in manifest.tensors.items()]
    versions = [(name, version) for name, version in sorted(manifest.versions.items())]
    sections = [
        ("program", manifest.text),
        ("bound to", "\n".join(bound)),
        ("derivation", manifest.derivation),
        ("schedule", manifest.schedule),
        ("kernels", columns([_resources(opened, k) for k in manifest.kernels])),
        ("built by", columns(versions)),
    ]
    lines = [f"{manifest.name}: {_printable(manifest.title)}", str(opened.directory)]
    for title, text in sections:
        if text.strip():
            lines += [title, *(f"  {_printable(line)}" for line in text.rstrip().splitlines())]
    return "\n".join(lines)


def _resources(opened: Opened, kernel: Kernel) -> list[str]:
    """Where a kernel lies, how it is launched, and what it takes of a device."""
    launch = kernel.launch
    taken = [f"{name} {count}" for name, count in kernel.resources.items()]
    if kernel.target.kind == "cpu":
        taken += [f"needs {' '.join(kernel.needs)}"] if kernel.needs else []
    else:
        taken += [f"{launch.threads} threads", f"{launch.shared} bytes of shared memory"]
    return [kernel.name, bytes_text(_nbytes(opened, kernel)), ", ".join(taken)]


def _printable(line: str) -> str:
    """A line of somebody's text, in which nothing moves the terminal's cursor or turns its text around."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
