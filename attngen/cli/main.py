"""The `attngen` command: finds the verb, runs it, and turns every end into an exit code.

0 done · 1 our fault, or a check that failed · 2 the user's mistake, told in one message · 130 interrupted
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from attngen.cli.common import HelpFormatter
from attngen.errors import AttngenError, InternalError

EXIT_OURS = 1
EXIT_YOURS = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


@dataclass(frozen=True, slots=True)
class Verb:
    """A row of the command's help. `attngen.cli.<name>` has `add_parser(subparsers)` and `run(args)`."""

    name: str
    help: str


VERBS: tuple[Verb, ...] = (
    Verb("list", "the programs and cascades that come with attngen"),
    Verb("run", "run a program on this machine, stage by stage, and check it against float64"),
    Verb("explain", "show what each stage made of a program"),
    Verb("emit", "print the generated kernel"),
    Verb("inspect", "compile for a target and report registers, spills, occupancy and hot loops"),
    Verb("compile", "build kernels ahead of time, for machines that need not be here"),
    Verb("package", "make an installable wheel of artefacts"),
    Verb("artefact", "look at artefacts, and compare their files with their manifests"),
    Verb("tune", "measure configurations of a program's kernels here, and keep the best"),
    Verb("bench", "measure against PyTorch's attention"),
    Verb("papers", "write the pages of papers: programs, tiles, pictures, passes, and whether kernels agree"),
    Verb("doctor", "check this machine and say what is missing"),
    Verb("cache", "look at the cache of built kernels, check it, clear it"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    want_traceback = "--traceback" in arguments
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # the one place where everything ends
        return _report(error, want_traceback)
    return code


def _dispatch(arguments: list[str]) -> int:
    verb = next((a for a in arguments if not a.startswith("-")), None)
    if verb is not None and verb not in {v.name for v in VERBS}:
        return _unknown(verb)
    parser = _parser(verb)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as end:  # argparse has printed the help or what is wrong
        return end.code if isinstance(end.code, int) else EXIT_YOURS
    if verb is None:
        parser.print_help()
        return EXIT_YOURS
    code: int = _module(verb).run(args)
    return code


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; only the module of `verb` is imported, the other verbs are names in the help."""
    parser = argparse.ArgumentParser(
        prog="attngen",
        description="Sparse attention, generated: from a mask and a cascade of Einsums to kernels.",
        epilog="example:\n  attngen run sliding_window_sink\n\n`attngen VERB --help` explains a verb.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attngen {_version()}")
    _add_traceback(parser)
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=verb is not None)
    for each in VERBS:
        if each.name == verb:
            _module(each.name).add_parser(subparsers)
            _add_traceback(subparsers.choices[each.name])
        else:
            subparsers.add_parser(each.name, help=each.help, add_help=False)
    return parser


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the Python traceback of an error (also ATTNGEN_TRACEBACK=1)",
    )


def _module(verb: str):  # noqa: ANN202  the modules share a shape, not a type
    return importlib.import_module(f"attngen.cli.{verb}")


def _unknown(verb: str) -> int:
    names = [v.name for v in VERBS]
    near = get_close_matches(verb, names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    _say(f"attngen: there is no verb {verb!r}\n  hint: {meant}verbs: {', '.join(names)}")
    return EXIT_YOURS


def _report(error: Exception, want_traceback: bool) -> int:
    if want_traceback or _traceback_is_set():
        traceback.print_exception(error)
    if isinstance(error, AttngenError) and not isinstance(error, InternalError):
        _say(f"attngen: {error}")
        return EXIT_YOURS
    if isinstance(error, OSError) and error.filename is not None:
        # A file the user named: it is not there, is a directory, cannot be written.
        _say(f"attngen: {error.filename}: {error.strerror}")
        return EXIT_YOURS
    ours = error if isinstance(error, InternalError) else InternalError(f"{type(error).__name__}: {error}")
    _say(f"attngen: {ours}")
    _say(
        "  hint: this is a fault of attngen, not yours; a report with the command, its output under"
        " --traceback and the output of `attngen doctor` lets us find it"
    )
    return EXIT_OURS


def _traceback_is_set() -> bool:
    from attngen.errors import SettingsError
    from attngen.store.settings import settings

    try:
        return settings().traceback
    except SettingsError:  # which is likely the error being reported
        return False


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("attngen")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _forget_stdout() -> None:
    """Point the descriptor at nothing, so that the interpreter's last flush does not complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
