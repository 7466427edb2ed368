"""What every stage made of a specification, as text and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen import arguments, blockmap, forms, pipeline
from attngen.analysed import analyse, consts_of, with_consts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attngen.api import Attention
    from attngen.explain_plan import Planned
    from attngen.head_maps import HeadMap

STAGES = ("lang", "algebra", "planner", "emit")
_MAPS = 4  # block maps in a text, at most
_AXIS_CELLS = 24
_AXIS_SIDE = 160  # pixels


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
    planner   how each part of the mask was solved, and the counts of tiles and pairs;
    tiles     the block map of the first batch entry and head, `[n_q_tiles, n_k_tiles]`;
    kernels   the generated sources;
    planned   what `planner` says, as fields: form and reason, axes, pairs kept and computed, bytes of metadata;
    heads     a block map for each set of heads that agree, on a grid with a map for each axis.
    """

    name: str
    lang: str
    algebra: str
    planner: str
    tiles: NDArray[np.int8]
    kernels: tuple[Kernel, ...]
    planned: Planned
    heads: tuple[HeadMap, ...]

    def stage(self, name: str) -> str:
        """The text of one stage: "lang", "algebra", "planner" or "emit"."""
        if name == "emit":
            return "\n".join(k.text for k in self.kernels)
        if name == "planner":
            return "\n\n".join([self.planner, *self._maps(), blockmap.LEGEND])
        return {"lang": self.lang, "algebra": self.algebra}[name].rstrip()

    def __str__(self) -> str:
        parts = [f"{name}\n{_indent(self.stage(name))}" for name in ("lang", "algebra", "planner")]
        lines = ", ".join(f"{k.title} ({k.text.count(chr(10))} lines)" for k in self.kernels)
        return "\n\n".join([*parts, f"emit\n{_indent(lines)}"])

    def _maps(self) -> list[str]:
        """The block maps of the first few heads that differ, as text."""
        out: list[str] = []
        for head in self.heads[:_MAPS]:
            out.append(f"{head.label}: queries down, keys to the right\n{blockmap.to_text(head.tiles)}")
            if head.axes:
                out.append(
                    blockmap.beside(
                        [(f"axis {a.axis}", blockmap.to_text(a.tiles, _AXIS_CELLS)) for a in head.axes]
                    )
                )
        if len(self.heads) > _MAPS:
            out.append(f"{len(self.heads) - _MAPS} more maps of heads that differ; the page shows all")
        return out

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
            heads=[
                (
                    head.label,
                    blockmap.to_svg(head.tiles, side=_side(len(self.heads))),
                    [(a.axis, blockmap.to_svg(a.tiles, side=_AXIS_SIDE)) for a in head.axes],
                )
                for head in self.heads
            ],
            kernels=[(f"k{i}", k.title, k.text.splitlines()) for i, k in enumerate(self.kernels)],
        )
        out = Path(path)
        out.write_text(page, encoding="utf-8")
        return out


def explain(
    spec: Attention, n_q: int, n_k: int, *, batch: int, heads: int, tensors: Mapping[str, Any]
) -> Explanation:
    """Run the stages of `spec` for the given lengths; nothing is compiled or launched.

    Raises MissingTensorError for a grid whose extents were not given.
    """
    from attngen.algebra.record import format_derivation, print_fold
    from attngen.explain_plan import planned
    from attngen.head_maps import head_maps
    from attngen.lang.domain import with_grid_sizes
    from attngen.planner.plan_mask import check_grid

    check_grid(spec.program, with_grid_sizes(spec.program.grid, {**spec.values, **tensors}))
    derivation = spec.derivation()
    algebra = format_derivation(derivation)
    kernels: tuple[Kernel, ...] = ()
    if not derivation.refusals:
        algebra += "\n\n" + print_fold(forms.fold_of(analyse(spec.program)))
        kernels = tuple(
            Kernel(title, spec.source(target, dtype, head_dim))
            for title, target, dtype, head_dim in (
                ("Triton, sm_90, bf16, head_dim 128", "sm_90", "bf16", 128),
                ("C++, fp32, head_dim 64", "cpu", "fp32", 64),
            )
        )
    schedule = spec.schedule(n_q, n_k, batch, heads, **tensors)
    captured, params = arguments.bind(spec.program, spec.values, tensors)
    program = with_consts(spec.program, dict(consts_of(spec.program, params)))
    plan = pipeline.plan_of(analyse(program))
    classes = schedule.tiles().numpy()
    stage = planned(program, plan, schedule, {**params, **captured}, classes)
    maps = head_maps(program, plan, schedule, {**params, **arguments.as_numpy(captured)}, classes)
    return Explanation(
        name=spec.program.name,
        lang=spec.text(),
        algebra=algebra,
        planner=stage.text(),
        tiles=maps[0].tiles,
        kernels=kernels,
        planned=stage,
        heads=maps,
    )


def _side(maps: int) -> int:
    """Pixels of a block map where there are so many."""
    return 480 if maps == 1 else 240


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
