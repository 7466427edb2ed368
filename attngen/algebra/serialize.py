"""Folds as JSON, so that a warm process reads a derivation instead of repeating it.

The round trip is exact: `fold_from_json(fold_to_json(fold)) == fold`, infinities and the kind of every
literal included. Source locations are not kept; nothing compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from attngen.algebra.fold import Derivation, Fold, Let, Mix, Obligation, Refusal, RuleUse, State, Step
from attngen.algebra.plain import Plain
from attngen.errors import CacheError
from attngen.lang.program import Program
from attngen.lang.serialize import expr_from_json, expr_to_json, program_from_json, program_to_json

VERSION = 2
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)


def fold_to_json(fold: Fold) -> dict[str, Any]:
    """A Fold as a JSON object."""
    d = fold.derivation
    return {
        "version": VERSION,
        "rank": fold.rank,
        "absorb": [_step_to_json(s) for s in fold.absorb],
        "finish": [_step_to_json(s) for s in fold.finish],
        "outputs": list(fold.outputs),
        "derivation": {
            "rank": d.rank,
            "passes_written": d.passes_written,
            "passes": d.passes,
            "rules": _uses_to_json(d.rules),
            "refusals": [[r.target, r.reason, r.residual] for r in d.refusals],
            "tensor_passes": [list(t) for t in d.tensor_passes],
            "notes": list(d.notes),
        },
    }


def fold_from_json(data: Mapping[str, Any]) -> Fold:
    """The Fold that `fold_to_json` wrote. Raises CacheError where `data` is something else."""
    try:
        if data["version"] != VERSION:
            raise CacheError(f"a derivation of version {data['version']}, not {VERSION}")
        return Fold(
            rank=data["rank"],
            absorb=tuple(_step_from_json(s) for s in data["absorb"]),
            finish=tuple(cast("Let", _step_from_json(s)) for s in data["finish"]),
            outputs=tuple(data["outputs"]),
            derivation=_derivation_from_json(data["derivation"]),
        )
    except _MALFORMED as err:
        raise CacheError(f"not a derivation: {err}") from err


def plain_to_json(plain: Plain) -> dict[str, Any]:
    """A cascade without tiles, and how it was made, as a JSON object."""
    return {
        "program": program_to_json(plain.program),
        "uses": _uses_to_json(plain.uses),
        "passes_written": plain.passes_written,
        "tensor_passes": [list(t) for t in plain.tensor_passes],
    }


def plain_from_json(data: Mapping[str, Any], source: Program) -> Plain:
    """What `plain_to_json` wrote of `source`, with its places in the text. Raises CacheError for anything else."""
    try:
        program = program_from_json(data["program"])
        cascade = tuple(
            replace(e, loc=getattr(source.einsum(e.target), "loc", None)) for e in program.cascade
        )
        return Plain(
            replace(program, cascade=cascade),
            _uses_from_json(data["uses"]),
            (),
            int(data["passes_written"]),
            tuple((name, count) for name, count in data["tensor_passes"]),
        )
    except _MALFORMED as err:
        raise CacheError(f"not a cascade without tiles: {err}") from err


def _uses_to_json(uses: tuple[RuleUse, ...]) -> list[Any]:
    return [
        [
            r.rule,
            r.target,
            r.before,
            r.after,
            [[o.name, o.statement, o.method, o.residual] for o in r.obligations],
        ]
        for r in uses
    ]


def _uses_from_json(data: list[Any]) -> tuple[RuleUse, ...]:
    return tuple(
        RuleUse(rule, target, before, after, tuple(Obligation(*o) for o in proofs))
        for rule, target, before, after, proofs in data
    )


def _derivation_from_json(data: Mapping[str, Any]) -> Derivation:
    return Derivation(
        rank=data["rank"],
        passes_written=data["passes_written"],
        passes=data["passes"],
        rules=_uses_from_json(data["rules"]),
        refusals=tuple(Refusal(*r) for r in data["refusals"]),
        tensor_passes=tuple((name, count) for name, count in data["tensor_passes"]),
        notes=tuple(data["notes"]),
    )


def _step_to_json(step: Step) -> dict[str, Any]:
    common: dict[str, Any] = {"name": step.name, "ranks": list(step.ranks), "body": expr_to_json(step.body)}
    if isinstance(step, Let):
        return {"let": common}
    rescale = None if step.rescale is None else expr_to_json(step.rescale)
    more: dict[str, Any] = {"reduce": step.reduce, "combine": step.combine, "rescale": rescale}
    more |= {"rule": step.rule, "mix": [[m.state, expr_to_json(m.factor)] for m in step.mix]}
    return {"state": common | more}


def _step_from_json(data: Mapping[str, Any]) -> Step:
    ((kind, fields),) = data.items()
    name, ranks, body = fields["name"], tuple(fields["ranks"]), expr_from_json(fields["body"])
    if kind == "let":
        return Let(name, ranks, body)
    rescale = None if fields["rescale"] is None else expr_from_json(fields["rescale"])
    mix = tuple(Mix(other, expr_from_json(factor)) for other, factor in fields["mix"])
    return State(name, ranks, fields["reduce"], body, fields["combine"], rescale, fields["rule"], mix)
