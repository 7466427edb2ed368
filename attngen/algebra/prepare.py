"""What happens to a cascade before any rule: reductions isolated, logarithms apart, unread Einsums dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.algebra.fold import RuleUse
from attngen.algebra.isolate import isolate
from attngen.algebra.logs import expand_logs
from attngen.algebra.obligations import isolate_use
from attngen.algebra.prune import prune
from attngen.algebra.tests_apart import with_tests_apart
from attngen.algebra.write_out import write_out
from attngen.lang.program import Einsum, Program


@dataclass(frozen=True, slots=True)
class Prepared:
    """The program that the rules see, the same as written but isolated and pruned, and what was done."""

    program: Program
    written: Program
    uses: tuple[RuleUse, ...]
    notes: tuple[str, ...]


def prepare(source: Program, rank: str) -> Prepared:
    """The program made ready for the rules. Raises OutputError for an output that no Einsum writes."""
    plain = write_out(source)
    isolated = with_tests_apart(isolate(plain, rank), rank)
    written = prune(isolated)
    expanded, logs = expand_logs(written, rank)
    program = prune(expanded)
    kept = {e.target for e in program.cascade}
    dropped = [e.target for e in plain.cascade if e.target not in kept]
    notes = (f"dropped, since no output reads it: {', '.join(dropped)}",) if dropped else ()
    uses = (*_isolations(source, isolated, kept), *(u for u in logs if u.target in kept))
    return Prepared(program, replace(source, cascade=written.cascade), uses, notes)


def _isolations(source: Program, isolated: Program, kept: set[str]) -> list[RuleUse]:
    written = {e.target: e for e in source.cascade}
    uses: list[RuleUse] = []
    made: list[Einsum] = []
    for einsum in isolated.cascade:
        made.append(einsum)
        before = written.get(einsum.target)
        if before is None:
            continue
        if len(made) > 1 and einsum.target in kept:
            uses.append(isolate_use(before, tuple(made)))
        made = []
    return uses
