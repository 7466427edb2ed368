"""Choose the kernel of a call among those of an artefact, by what the planner would specialise one on.

dtype, widths, captured dtypes, constants, extents, outputs    must be equal
target                                                        the device runs it; the best of those first
tile that holds rows of all heads                             for as few rows as it was built for, first
alignment                                                     the call meets it; the most demanding first
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from attngen.artefact.manifest import ALIGNMENTS, Kernel
from attngen.artefact.special import without_boxes
from attngen.errors import NoVariantError
from attngen.pipeline import Specialisation
from attngen.value import value


@value
class Wanted:
    """What a call asks of a kernel.

    name        of the program, for messages.
    special     without boxes: those are the kernel's.
    targets     names of machines whose kernels the device runs, the best first.
    features    instruction sets of the processor; None where they are not known or do not matter.
    few_rows    rows of a tile that holds all rows of a key head, 0 where they are not few.
    """

    name: str
    special: Specialisation
    targets: tuple[str, ...]
    features: frozenset[str] | None
    few_rows: int


def candidates(kernels: Iterable[Kernel], wanted: Wanted) -> tuple[Kernel, ...]:
    """The kernels of one program that suit a call, the best first. Raises NoVariantError if there is none."""
    known = tuple(kernels)
    found = [k for k in known if not _differences(k, wanted) and k.packed in (0, wanted.few_rows)]
    if not found:
        raise none_suits(known, wanted)
    return tuple(sorted(found, key=lambda k: preference(k, wanted.targets)))


def preference(kernel: Kernel, targets: tuple[str, ...]) -> tuple[int, bool, int, str]:
    """By which kernels that suit a call are ordered, the best first; `targets` come in the order of the device."""
    return (
        targets.index(kernel.target.arch),
        kernel.packed == 0,
        ALIGNMENTS.index(kernel.alignment),
        kernel.name,
    )


def none_suits(kernels: Sequence[Kernel], wanted: Wanted, also: str = "") -> NoVariantError:
    """The error for a call that no kernel suits; `also` says what stands against those that come nearest."""
    if not kernels:
        return NoVariantError(
            f"{wanted.name}: the artefact holds no kernel of this step",
            hint="build it with the forms of computing it that calls take (attngen compile --forms)",
        )
    near = min(kernels, key=lambda k: (sum(w for _, w in _differences(k, wanted)), k.name))
    differs = [text for text, _ in _differences(near, wanted)] or [also]
    return NoVariantError(
        f"{wanted.name}: no kernel of the artefact suits this call; the nearest, {near.name}, "
        f"{'; '.join(d for d in differs if d) or 'does not'}",
        hint="build the variant with attngen compile, or call with what the artefact was built for",
    )


def _differences(kernel: Kernel, wanted: Wanted) -> list[tuple[str, int]]:
    """In what a kernel differs from what a call asks for, each with how far that is."""
    out: list[tuple[str, int]] = []
    if kernel.target.arch not in wanted.targets:
        out.append((f"is for {kernel.target.arch}, not {' or '.join(wanted.targets) or 'this device'}", 8))
    elif wanted.features is not None and (missing := set(kernel.needs) - wanted.features):
        out.append((f"needs {', '.join(sorted(missing))}, which this processor lacks", 8))
    mine, asked = without_boxes(kernel.special), wanted.special
    if mine == asked:
        return out
    for field in fields(Specialisation):
        have, want = getattr(mine, field.name), getattr(asked, field.name)
        if have != want:
            out.append((_difference(field.name, have, want), _WEIGHTS.get(field.name, 1)))
    return out


_WEIGHTS = {"dtype": 4, "head_dim": 2, "value_dim": 2, "tensors": 3}


def _difference(name: str, have: object, want: object) -> str:
    match name:
        case "dtype" | "head_dim" | "value_dim":
            return f"has {name} {have}, not {want}"
        case "scale_positive":
            return f"is for {'positive' if have else 'negative'} scales"
        case "tensors":
            return f"takes {_tensors(have)}, not {_tensors(want)}"
        case "consts" | "extents":
            return f"is for {_pairs(have)}, not {_pairs(want)}"
        case _:
            return f"has other {name}"


def _tensors(tensors: object) -> str:
    return ", ".join(f"{n}: {dtype}" for n, dtype, _ in tensors) if isinstance(tensors, tuple) else ""  # pyright: ignore


def _pairs(pairs: object) -> str:
    return ", ".join(f"{n} = {x}" for n, x in pairs) if isinstance(pairs, tuple) else ""  # pyright: ignore
