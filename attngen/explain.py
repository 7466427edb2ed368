"""What every stage made of a specification, as text and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen import blockmap, pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attngen.api import Attention

STAGES = ("lang", "algebra", "planner", "emit")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The text of one generated kernel."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All stages of a specification.

    lang      the program's canonical text;
    algebra   pass counts, each rule with what it was applied to, and the Fold;
    planner   how each part of the mask was solved, and the counts of tiles;
    tiles     the block map of the first batch entry and head, `[n_q_tiles, n_k_tiles]`;
    kernels   the generated sources.
    """

    name: str
    lang: str
    algebra: str
    planner: str
    tiles: NDArray[np.int8]
    kernels: tuple[Kernel, ...]

    def stage(self, name: str) -> str:
        """The text of one stage: "lang", "algebra", "planner" or "emit"."""
        if name == "emit":
            return "\n".join(k.text for k in self.kernels)
        if name == "planner":
            return f"{self.planner}\n\n{blockmap.to_text(self.tiles)}\n{blockmap.LEGEND}"
        return {"lang": self.lang, "algebra": self.algebra}[name].rstrip()

    def __str__(self) -> str:
        parts = [f"{name}\n{_indent(self.stage(name))}" for name in ("lang", "algebra", "planner")]
        lines = ", ".join(f"{k.title} ({k.text.count(chr(10))} lines)" for k in self.kernels)
        return "\n\n".join([*parts, f"emit\n{_indent(lines)}"])

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page; returns its path."""
        from attngen.emit.render import render

        page = render(
            "explain/page.html.jinja",
            name=self.name,
            lang=self.lang,
            algebra=self.algebra,
            planner=self.planner,
            legend=blockmap.LEGEND,
            svg=blockmap.to_svg(self.tiles),
            kernels=[(f"k{i}", k.title, k.text.splitlines()) for i, k in enumerate(self.kernels)],
        )
        out = Path(path)
        out.write_text(page, encoding="utf-8")
        return out


def explain(
    spec: Attention, n_q: int, n_k: int, *, batch: int, heads: int, tensors: Mapping[str, Any]
) -> Explanation:
    """Run the stages of `spec` for the given lengths; nothing is compiled or launched."""
    from attngen.algebra.record import format_derivation, print_fold

    derivation = spec.derivation()
    algebra = format_derivation(derivation)
    kernels: tuple[Kernel, ...] = ()
    if not derivation.refusals:
        algebra += "\n\n" + print_fold(pipeline.fold_of(pipeline.analyse(spec.program)))
        kernels = tuple(
            Kernel(title, spec.source(target, dtype, head_dim))
            for title, target, dtype, head_dim in (
                ("Triton, sm_90, bf16, head_dim 128", "sm_90", "bf16", 128),
                ("C++, fp32, head_dim 64", "cpu", "fp32", 64),
            )
        )
    schedule = spec.schedule(n_q, n_k, batch, heads, **tensors)
    plan = pipeline.plan_of(pipeline.analyse(spec.program))
    notes = "\n".join(f"  {n}" for n in (plan.ranges.notes if plan.ranges else plan.notes))
    return Explanation(
        name=spec.program.name,
        lang=spec.text(),
        algebra=algebra,
        planner=f"{plan.form}: {plan.reason}\n{notes}\n{schedule}",
        tiles=schedule.tiles()[0, 0].numpy(),
        kernels=kernels,
    )


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
