"""The forms in which a program can run: its Fold, its sweeps, and how they were derived.

Results are kept within a process by the program's canonical text, and on disk: deriving a Fold is the one step that
needs sympy, and a warm process reads it back in a millisecond.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attngen.analysed import Analysed, analyse, cascade_text, is_pair, recall, remember
from attngen.documents import kept
from attngen.errors import CacheError, DerivationError
from attngen.lang.ops import Kind
from attngen.limit_time import within_time
from attngen.value import value

if TYPE_CHECKING:
    from attngen.algebra.fold import Derivation, Fold
    from attngen.algebra.steps import Sweeps


@kept(256)
def derivation_of(analysed: Analysed, *, follow: bool = True) -> Fold:
    """The Fold of a program, complete or refused, from this process, from disk, or derived now.

    Without `follow` it is refused as soon as a statistic would have to be followed.
    """
    from attngen.algebra.serialize import fold_from_json, fold_to_json
    from attngen.store.fingerprint import fingerprint

    key = {
        "text": cascade_text(analysed),
        "outputs": list(analysed.program.outputs),
        "follow": follow,
        "sources": fingerprint("lang", "algebra"),
    }
    known = recall("fold", key)
    if known is not None:
        return fold_from_json(known)
    from attngen.algebra.derive import derive

    fold = within_time(
        f"deriving {analysed.program.name}", lambda: derive(analysed.program, follow_statistics=follow)
    )
    remember("fold", key, fold_to_json(fold))
    return fold


@kept(256)
def fold_of(analysed: Analysed) -> Fold:
    """The Fold of a program of one sweep.

    Raises DerivationError when the cascade has no one-pass form, with the reason for each Einsum.
    """
    if analysed.fold is not None:
        return analysed.fold
    if any(is_pair(analysed.program.einsum(n)) for n in analysed.program.outputs):
        from attngen.algebra.pairs import pair_fold

        return pair_fold(analysed.program)
    fold = derivation_of(analysed)
    if fold.derivation.refusals:
        raise DerivationError(
            "this cascade has no one-pass form: "
            + "; ".join(f"{r.target}: {r.reason}" for r in fold.derivation.refusals),
            hint="spec.derivation() shows each step and what was left over",
        )
    return fold


@kept(256)
def sweeps_of(analysed: Analysed, *, reassociate: bool = False, follow: bool = True) -> Sweeps:
    """The sweeps of a program: one, if all its outputs are rows of one fold. Raises DerivationError.

    With `reassociate`, sums of plain products are taken apart. Without `follow`, no accumulator follows a statistic
    that is still running: whatever reads one waits for its end, in a pass of its own.
    """
    from attngen.algebra.pairs import may_be_one
    from attngen.algebra.plain import Plain
    from attngen.algebra.steps import Sweep, Sweeps
    from attngen.algebra.sweeps import plan_sweeps

    program = analysed.program
    if may_be_one(program) and not reassociate:
        fold = derivation_of(analysed, follow=follow)
        if not fold.derivation.refusals:
            return Sweeps(program, (Sweep(program, "q"),))
    made = Plain(program) if analysed.plain is None else analysed.plain
    return within_time(
        f"deriving the sweeps of {program.name}",
        lambda: plan_sweeps(
            program, lambda p: derivation_of(analyse(p), follow=follow), reassociate=reassociate, made=made
        ),
    )


@value
class Forms:
    """The forms in which a program can run.

    single      one kernel does everything.
    mergeable   its Fold may run over parts of the keys; False for several kernels.
    prefix      every query does the same with the keys before its end, so that a scan serves all.
    products    some sum over keys is of plain products, and can be re-associated.
    """

    single: bool
    mergeable: bool = False
    prefix: bool = False
    products: bool = False


_FORMS = ("single", "mergeable", "prefix", "products")


@kept(256)
def forms_of(analysed: Analysed) -> Forms:
    """The forms of a program; known from an earlier process without its derivation."""
    from attngen.store.fingerprint import fingerprint

    key = {
        "text": analysed.text,
        "outputs": list(analysed.program.outputs),
        "sources": fingerprint("lang", "algebra", "emit"),
    }
    known = recall("forms", key)
    if known is not None:
        if set(known) != set(_FORMS):
            raise CacheError(f"not the forms of a program: {', '.join(known)}")
        return Forms(**{n: bool(v) for n, v in known.items()})
    forms = within_time(f"deriving the forms of {analysed.program.name}", lambda: _forms(analysed))
    remember("forms", key, {n: getattr(forms, n) for n in _FORMS})
    return forms


def _forms(analysed: Analysed) -> Forms:
    from attngen.algebra.partials import can_merge, is_prefix

    single = analysed.fold is not None or sweeps_of(analysed).single
    products = analysed.fold is None and sweeps_of(analysed, reassociate=True).reassociated
    if not single:
        return Forms(False, products=products)
    fold = fold_of(analysed)
    return Forms(True, can_merge(fold), is_prefix(analysed.program, fold), products)


@lru_cache(maxsize=256)
def has_plain_outputs(analysed: Analysed) -> bool:
    """Whether a sweep's outputs are the call's as they are: `[B, H, n_q, E]` and rows of floats."""
    program = analysed.program
    einsums = [program.einsum(n) for n in program.outputs]
    if not all(e is not None and e.ranks in (("q",), ("q", "e")) for e in einsums):
        return False
    from attngen.lang.kinds import kinds_of
    from attngen.lang.varies import varying_heads

    per_head, kinds = varying_heads(program), kinds_of(program)
    return all(per_head[n] and kinds[n] is Kind.FLOAT for n in program.outputs)


def forget() -> None:
    """Let what this process worked out go, so that it is asked for anew: of disk, or of an artefact."""
    for known in (derivation_of, fold_of, sweeps_of, forms_of, has_plain_outputs, _record_of):
        known.cache_clear()


def record_of(analysed: Analysed) -> Derivation:
    """How a cascade became what runs: the derivation of its fold, or of each of its sweeps."""
    record = _record_of(analysed)
    if analysed.plain is None or analysed.plain.refusals:
        return record
    from attngen.algebra.derive import with_source

    return with_source(record, analysed.plain)


@kept(256)
def _record_of(analysed: Analysed) -> Derivation:
    from attngen.algebra.fold import Derivation
    from attngen.algebra.pairs import may_be_one
    from attngen.algebra.plain import passes_as_written
    from attngen.algebra.steps import Sweep

    program = analysed.program
    if may_be_one(program):
        whole = derivation_of(analysed).derivation
        if not whole.refusals:
            return whole
    try:
        sweeps = sweeps_of(analysed)
    except DerivationError:
        return derivation_of(analysed).derivation
    kernels = [s for s in sweeps.steps if isinstance(s, Sweep)]
    parts = [fold_of(analyse(s.program)).derivation for s in kernels]
    written = passes_as_written(program)
    return Derivation(
        rank="k",
        passes_written=written.passes,
        passes=len(kernels),
        rules=tuple(rule for part in parts for rule in part.rules),
        refusals=sweeps.refusals,
        tensor_passes=tuple(sorted(written.tensor_passes.items())),
        notes=tuple(step.describe() for step in sweeps.steps),
    )
