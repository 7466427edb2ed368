"""What a manifest says to people: how a program was derived, and which tiles its kernels visit."""

from __future__ import annotations

import subprocess

from attngen import forms, pipeline
from attngen.analysed import Analysed
from attngen.aot.list_kernels import Part
from attngen.errors import CompilerNotFoundError
from attngen.explain_steps import derivation_text
from attngen.lang.expr import Expr, Var, rewrite
from attngen.lang.print import print_expr
from attngen.planner.rows import RowExtreme, row_extremes


def derivation(analysed: Analysed) -> str:
    """The rules and Folds of every step."""
    return derivation_text(analysed, forms.sweeps_of(analysed))


def schedule(parts: tuple[Part, ...]) -> str:
    """For each kernel the form of its schedule, and in closed form the runs of key tiles of a query tile."""
    return "\n\n".join(f"{part.form} {part.step}: {_plan(part.analysed)}" for part in parts)


def _plan(analysed: Analysed) -> str:
    plan = pipeline.plan_of(analysed)
    lines: list[str] = []
    if plan.boxes is not None:
        axes = ", ".join(a.name for a in plan.boxes.q.axes)
        known = "runs along each axis in closed form" if plan.boxes.runs else f"lists ({plan.reason})"
        lines.append(f"boxes of coordinates {axes}; {known}")
        lets = plan.boxes.lets
    elif plan.ranges is not None:
        lines.append("runs of key tiles in closed form")
        lets = plan.ranges.lets
    else:
        lines.append(f"lists of key tiles for each query tile ({plan.reason})")
        lets: tuple[tuple[str, Expr], ...] = ()
    lines += [f"  {note}" for note in (*plan.notes, *(plan.ranges.notes if plan.ranges else ()))]
    rows = {extreme: f"rows_{i}" for i, extreme in enumerate(row_extremes(lets))}
    lines += [
        f"  {name} = {x.op} over the rows of the tile of {print_expr(x.body)}" for x, name in rows.items()
    ]
    for name, body in lets:
        named = rewrite(body, lambda n: Var(rows[n]) if isinstance(n, RowExtreme) else None)
        lines.append(f"  {name} = {print_expr(named)}")
    if plan.ranges is not None:
        lines += [
            f"  visits {p.start} .. {p.end}, without the mask {p.full_start} .. {p.full_end}"
            for p in plan.ranges.pieces
        ]
    return "\n".join(lines)


def versions(targets: tuple[str, ...]) -> dict[str, str]:
    """Of attngen, its sources, and the compilers of the targets. Raises CompilerNotFoundError."""
    import attngen

    found = {"attngen": attngen.__version__, "sources": pipeline.sources()}
    if any(not target.startswith("cpu") for target in targets):
        from attngen.backends.triton_compile import triton_version

        found["triton"] = triton_version()
    if any(target.startswith("cpu") for target in targets):
        found["compiler"] = _compiler()
    return found


def _compiler() -> str:
    from attngen.backends.cpu_compile import find_compiler

    compiler = find_compiler()
    try:
        done = subprocess.run(
            [str(compiler), "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerNotFoundError(
            f"{compiler} does not tell its version: {error}", hint="set ATTNGEN_CXX to a C++ compiler"
        ) from error
    return next(iter(done.stdout.splitlines()), "unknown")[:200]
