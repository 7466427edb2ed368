"""What every stage made of a specification, as text and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen import arguments, blockmap, forms, pipeline
from attngen.analysed import Analysed, analyse, consts_of, with_consts
from attngen.errors import DerivationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attngen.algebra.steps import Sweeps
    from attngen.api import Attention
    from attngen.explain_plan import Planned
    from attngen.head_maps import HeadMap

STAGES = ("lang", "algebra", "forms", "planner", "emit")
HEAD_DIM = 64  # of the estimates
_TARGETS = (
    ("Triton, sm_90, bf16, head_dim 128", "sm_90", "bf16", 128),
    ("C++, fp32, head_dim 64", "cpu", "fp32", 64),
)
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
    algebra   pass counts; for each sweep why it is one, the rules with what they were applied to, and the Fold;
    forms     the forms in which a call may run, with the estimates of this machine and the one that is taken;
    planner   how each part of the mask was solved, and the counts of tiles and pairs;
    tiles     the block map of the first batch entry and head, `[n_q_tiles, n_k_tiles]`;
    kernels   the generated sources;
    planned   what `planner` says, as fields: form and reason, axes, pairs kept and computed, bytes of metadata;
    heads     a block map for each set of heads that agree, on a grid with a map for each axis.
    """

    name: str
    lang: str
    algebra: str
    forms: str
    planner: str
    tiles: NDArray[np.int8]
    kernels: tuple[Kernel, ...]
    planned: Planned
    heads: tuple[HeadMap, ...]

    def stage(self, name: str) -> str:
        """The text of one stage: "lang", "algebra", "forms", "planner" or "emit"."""
        if name == "emit":
            return "\n".join(k.text for k in self.kernels)
        if name == "planner":
            return "\n\n".join([self.planner, *self._maps(), blockmap.LEGEND])
        return {"lang": self.lang, "algebra": self.algebra, "forms": self.forms}[name].rstrip()

    def __str__(self) -> str:
        parts = [f"{name}\n{_indent(self.stage(name))}" for name in STAGES[:-1]]
        kernels = [f"{k.title} ({k.text.count(chr(10))} lines)" for k in self.kernels]
        lines = (", " if len(kernels) <= len(_TARGETS) else "\n").join(kernels)
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
            forms=self.forms,
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

    Only what the mask reads has to be given, of tensors and parameters: nothing else decides what is planned.

    Raises MissingTensorError for a grid whose extents were not given.
    """
    from attngen.explain_mask import mask_spec
    from attngen.explain_plan import exchanged_text, planned
    from attngen.explain_steps import derivation_text
    from attngen.head_maps import head_maps
    from attngen.lang.domain import with_grid_sizes
    from attngen.planner.plan_mask import check_grid

    check_grid(spec.program, with_grid_sizes(spec.program.grid, {**spec.values, **tensors}))
    shapes = arguments.Shapes(batch, heads, heads, n_q, n_k, HEAD_DIM, HEAD_DIM)
    analysed = analyse(spec.program)
    sweeps = _sweeps(analysed)
    masks = mask_spec(spec, tensors)
    schedule = masks.schedule(n_q, n_k, batch, heads)
    captured, params = arguments.bind(masks.program, masks.values, {})
    program = with_consts(masks.program, dict(consts_of(masks.program, params)))
    plan = pipeline.plan_of(analyse(program))
    classes = schedule.tiles().numpy()
    stage = planned(program, plan, schedule, {**params, **captured}, classes)
    maps = head_maps(program, plan, schedule, {**params, **arguments.as_numpy(captured)}, classes)
    return Explanation(
        name=spec.program.name,
        lang=spec.text(),
        algebra=derivation_text(analysed, sweeps),
        forms=_forms(analysed, sweeps, shapes),
        planner="\n".join([stage.text(), *exchanged_text(masks, sweeps, shapes)]),
        tiles=maps[0].tiles,
        kernels=() if sweeps is None else _kernels(spec, sweeps),
        planned=stage,
        heads=maps,
    )


def _sweeps(analysed: Analysed) -> Sweeps | None:
    """The steps of a cascade; None where no number of passes computes it."""
    try:
        return forms.sweeps_of(analysed)
    except DerivationError:
        return None


def _forms(analysed: Analysed, sweeps: Sweeps | None, shapes: arguments.Shapes) -> str:
    import torch

    from attngen.choose_algorithm import machine_of
    from attngen.explain_forms import forms_text
    from attngen.store.settings import settings

    if sweeps is None:
        return "none: the cascade is refused"
    return forms_text(analysed, sweeps, shapes, machine_of(torch.device("cpu"), settings().threads))


def _kernels(spec: Attention, sweeps: Sweeps) -> tuple[Kernel, ...]:
    """The kernels of each sweep for a GPU and for a CPU; the reason where there is none."""
    from attngen.algebra.steps import Sweep
    from attngen.explain_steps import numbered

    titles = [title for title, step in numbered(sweeps.steps) if isinstance(step, Sweep)]
    out: list[list[Kernel]] = [[] for _ in titles]
    for what, target, dtype, head_dim in _TARGETS:
        for i, text in enumerate(_texts(spec, len(titles), target, dtype, head_dim)):
            out[i].append(Kernel(what if len(titles) == 1 else f"{titles[i]}; {what}", text))
    return tuple(kernel for of_sweep in out for kernel in of_sweep)


def _texts(spec: Attention, count: int, target: str, dtype: str, head_dim: int) -> list[str]:
    from attngen.errors import UnsupportedError

    try:
        specs, where = spec.kernel_specs(target, dtype, head_dim)
        backend = pipeline.backend_named("cpu" if where.kind == "cpu" else "triton")
        return [backend.emit(s, where).text for s in specs]
    except UnsupportedError as error:
        return [f"not generated: {error.message}\n"] * count


def _side(maps: int) -> int:
    """Pixels of a block map where there are so many."""
    return 480 if maps == 1 else 240


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
