"""Folds and derivations as text, for `attngen explain` and for golden files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attngen.algebra.fold import Derivation, Fold, Let, Refusal, RuleUse, State
from attngen.algebra.passes import footprints
from attngen.lang.expr import Load, Var, apply
from attngen.lang.ops import REDUCERS, SLOTTED
from attngen.lang.print import einsum_lines, print_expr
from attngen.lang.program import Einsum

_WIDTH = 8


def einsum_text(einsum: Einsum) -> str:
    """`O[q, e] = sum[k](...)`, on one line; of a recurrence its start as well."""
    return "; ".join(einsum_lines(einsum))


def let_text(let: Let) -> str:
    """`E[q, k] = exp(S[q, k] - finite(M[q]))`, on one line."""
    return f"{let.name}[{', '.join(let.ranks)}] = {print_expr(let.body)}"


def state_text(state: State, rank: str = "k", ranks_of: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """`Z[q] <- Z[q] * exp(M.old[q] - finite(M[q])) + sum[k](E[q, k])`, on one line.

    Everything on the right of the arrow is the value before the tile, except inside bodies and factors. The
    states that `state` takes shares of have the ranks that `ranks_of` gives, its own by default.
    """
    read = f"{state.name}[{', '.join(state.ranks)}]"
    kept = read
    if state.rescale is not None:
        symbol = "*" if state.combine == "mul" else "+"
        kept = f"{read} {symbol} {print_expr(state.rescale)}"
    for mix in state.mix:
        ranks = (ranks_of or {}).get(mix.state, state.ranks)
        kept += f" + {print_expr(apply('mul', Load(mix.state, tuple(map(Var, ranks))), mix.factor))}"
    slot = f", {state.ranks[-1]}" if state.reduce in SLOTTED else ""
    tile = f"{state.reduce}[{rank}]({print_expr(state.body)}{slot})"
    joined = f"{kept} + {tile}" if state.reduce == "sum" else f"{state.reduce}({kept}, {tile})"
    return f"{read} <- {joined}"


def print_fold(fold: Fold) -> str:
    """The Fold as an algorithm; for a refused cascade, why there is none."""
    if not fold.absorb and fold.derivation.refusals:
        lines = [f"no fold over {fold.rank}"]
        return "\n".join(lines + refusal_lines(fold.derivation.refusals)) + "\n"
    rows: list[tuple[str, str]] = []
    for state in fold.states:
        ranks = ", ".join(state.ranks)
        rows.append(("init", f"{state.name}[{ranks}] = {REDUCERS[state.reduce].identity:g}"))
    ranks_of = {s.name: s.ranks for s in fold.states}
    for step in fold.absorb:
        if isinstance(step, State):
            rows.append(("absorb", f"{state_text(step, fold.rank, ranks_of)}  # {step.rule}"))
        else:
            rows.append(("absorb", let_text(step)))
    rows.extend(("finish", let_text(let)) for let in fold.finish)
    rows.append(("return", ", ".join(fold.outputs)))
    lines = [f"fold over {fold.rank}"]
    previous = ""
    for head, text in rows:
        lines.append(f"  {'' if head == previous else head:<{_WIDTH}}{text}")
        previous = head
    return "\n".join(lines) + "\n"


def format_derivation(derivation: Derivation) -> str:
    """The record of a derivation: passes, each rewrite with what had to be shown, refusals."""
    d = derivation
    lines = passes_lines(d)
    lines.extend(d.notes)
    for use in d.rules:
        lines.extend(rule_lines(use))
    lines.extend(refusal_lines(d.refusals))
    return "\n".join(lines) + "\n"


def passes_lines(derivation: Derivation) -> list[str]:
    """The passes as written and after rewriting, and what of each tensor has to stay at hand."""
    d = derivation
    lines = [f"passes over {d.rank}: {d.passes_written} as written, {d.passes} after rewriting"]
    read = ", ".join(f"{name} {count}" for name, count in d.tensor_passes)
    if read:
        lines.append(f"passes by tensor, as written: {read}")
    kept = footprints(dict(d.tensor_passes))
    footprint = ", ".join(f"{name} {size}" for name, size in kept.items())
    if footprint:
        lines.append(f"live footprint, as written: {footprint}")
    return lines


def rule_lines(use: RuleUse) -> list[str]:
    """One rewrite: the Einsum, what it became, and what had to be shown."""
    lines = [f"{use.rule:<{_WIDTH}}{use.target}"]
    if use.before != use.after:
        lines.extend(f"      {part}" for part in use.before.split("; "))
        lines.extend(f"   {'->' if i == 0 else '  '} {part}" for i, part in enumerate(use.after.split("; ")))
    elif use.before != use.target:
        lines.extend(f"      {part}" for part in use.before.split("; "))
    for o in use.obligations:
        rest = "" if o.residual == "0" else f", residual {o.residual}"
        lines.append(f"        {o.name} {o.statement} [{o.method}{rest}]")
    return lines


def refusal_lines(refusals: Iterable[Refusal]) -> list[str]:
    """Why Einsums could not be folded."""
    lines: list[str] = []
    for r in refusals:
        lines.append(f"{'refused':<{_WIDTH}}{r.target}")
        lines.append(f"      {r.reason}")
        if r.residual:
            lines.append(f"        residual {r.residual}")
    return lines
