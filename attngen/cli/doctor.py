"""`attngen doctor`: check this machine and say what is missing, each with its cure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, columns
from attngen.cli.findings import Finding, State, examine

if TYPE_CHECKING:
    from attngen.cli.common import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "doctor",
        help="check this machine and say what is missing",
        description="Check Python, PyTorch, Triton, the C++ compiler, the processor, the GPU, its driver and cache, "
        "and build and run a kernel. Exit code 0 when `attngen run` can work here, 1 when it cannot.",
        examples=["attngen doctor", "attngen doctor --json"],
    )
    parser.add_argument("--json", action="store_true", help="the findings and the settings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the findings and the settings; 1 when one of them keeps the main job from running."""
    findings = list(examine())
    problems = sum(f.state is State.PROBLEM for f in findings)
    print(_json(findings) if args.json else _text(findings, problems))
    return 1 if problems else 0


def _json(findings: Sequence[Finding]) -> str:
    """For programs: `state` is "ok", "note" or "problem"."""
    from attngen.store.settings import texts

    document = {
        "works": all(f.state is not State.PROBLEM for f in findings),
        "findings": [{**asdict(f), "state": f.state.name.lower()} for f in findings],
        "settings": texts(),
    }
    return json.dumps(document, indent=2)


def _text(findings: Sequence[Finding], problems: int) -> str:
    """For people: a line a finding, the settings, then the cures."""
    from attngen.store.settings import settings_table

    lines = [columns([(f.state.value, f.subject, f.text) for f in findings])]
    lines.append(f"\nsettings (environment variables)\n{_indented(settings_table())}")
    for finding in findings:
        if finding.cure and finding.state is not State.OK:
            lines.append(f"\n{finding.state} {finding.subject}: {finding.text}\n   cure: {finding.cure}")
            if finding.command:
                lines.append(f"   run:  {finding.command}")
    lines.append(
        f"\n{problems} to cure before `attngen run` can work" if problems else "\n`attngen run` can work here"
    )
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
