"""The public interface: a mask and a cascade in, tensors out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from attngen import arguments, forms, pipeline
from attngen.ahead import ForTargets
from attngen.analysed import analyse, consts_of, scheduled, with_outputs
from attngen.arguments import Number, Shapes
from attngen.errors import ParameterError
from attngen.lang.program import Program
from attngen.run_program import ProgramRunner
from attngen.run_sweep import Inputs

if TYPE_CHECKING:
    from attngen.algebra.fold import Derivation
    from attngen.assemble import Parts
    from attngen.capture import Mask, Score
    from attngen.explain import Explanation
    from attngen.planner.schedule import Schedule
    from attngen.run_sweep import Kernels, SweepCall
    from attngen.store.settings import Settings
    from attngen.tune.result import TuneResult
    from attngen.tune.sweep import Means

Tensor = torch.Tensor
MaskLike: TypeAlias = "Mask | Callable[..., Any] | str | None"
ScoreLike: TypeAlias = "Score | Callable[..., Any] | str | None"
Output: TypeAlias = "Tensor | tuple[Tensor, ...]"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskLike = None,
    score: ScoreLike = None,
    cascade: str | Program = "softmax",
    scale: float | None = None,
    enable_gqa: bool = False,
    outputs: tuple[str, ...] | None = None,
    **tensors: Any,
) -> Output:
    """Attention with any mask, score function and cascade, on the device the tensors lie on.

    Args:
        query: `[B, Hq, Nq, D]`, fp32, bf16 or fp16, any strides.
        key: `[B, Hkv, Nk, D]`.
        value: `[B, Hkv, Nk, E]`; E may differ from D.
        mask: which pairs are kept: a `Mask`, a function `(b, h, q, k) -> bool` (a FlexAttention mask_mod
            as it is), the text of an expression in the language, or None for all pairs.
        score: a `Score`, a function `(score, b, h, q, k)` (a FlexAttention score_mod as it is), or text.
        cascade: a name in `ir/cascades/`, the text of a cascade, or a `Program`.
        scale: factor on the scores; `D ** -0.5` by default.
        enable_gqa: allow Hq to be a multiple of Hkv.
        outputs: rows to return, e.g. `("O", "LSE")`; by default what the cascade returns.
        tensors: values of tensors and parameters the program declares.

    Returns:
        `[B, Hq, Nq, E]` in the inputs' dtype; a tuple when several outputs are asked for, rows as `[B, Hq,
        Nq]` fp32. The LSE is in natural log. A row that sees no key has O = 0 and LSE = -inf.

    Raises:
        AttngenError: one subclass for each mistake.
    """
    spec = _spec_of(mask, score, cascade, outputs)
    return spec.run(query, key, value, scale=scale, allow_gqa=enable_gqa, tensors=tensors)


class Attention(ForTargets):
    """A reusable specification: one mask, one cascade, chosen outputs.

    `algorithm` forces how it is computed where more than one way is legal: "one_pass", "several_passes" (no
    accumulator follows a running statistic), "local_then_merge" (parts of the keys, merged), "scan" (a prefix scan,
    where all queries do the same with the keys before their end) or "reassociated" (sums of plain products through
    a state). All give the same result; None lets a cost model choose. One that the cascade does not have is run in
    one pass.

    Equal specifications have equal canonical text and values; they hash alike. Building one traces and
    checks, nothing more: planning and compiling happen at the first call, and are kept.
    """

    _kernels: Kernels | None = None

    def __init__(
        self,
        mask: MaskLike = None,
        score: ScoreLike = None,
        cascade: str | Program = "softmax",
        outputs: tuple[str, ...] | None = None,
        name: str = "attention",
        algorithm: str | None = None,
    ) -> None:
        from attngen.assemble import assemble, resolve

        program, values = assemble(resolve(mask, score, cascade), name)
        self._init(program, values, outputs, algorithm)

    def _init(
        self,
        program: Program,
        values: Mapping[str, object],
        outputs: tuple[str, ...] | None,
        algorithm: str | None = None,
    ) -> None:
        self._analysed = analyse(with_outputs(program, outputs))
        self._values = dict(values)
        self._runner = ProgramRunner(self._analysed, algorithm)

    @classmethod
    def from_program(
        cls,
        program: Program,
        values: Mapping[str, object] | None = None,
        outputs: tuple[str, ...] | None = None,
        algorithm: str | None = None,
    ) -> Attention:
        """A specification from a program, linked or not; `values` bind parameters and tensors."""
        from attngen.assemble import finish_program

        return cls.from_linked(finish_program(program), values, outputs, algorithm)

    @classmethod
    def from_linked(
        cls,
        program: Program,
        values: Mapping[str, object] | None = None,
        outputs: tuple[str, ...] | None = None,
        algorithm: str | None = None,
    ) -> Attention:
        """As `from_program`, for a program that is linked, verified and desugared already."""
        spec = cls.__new__(cls)
        spec._init(program, values or {}, outputs, algorithm)
        return spec

    @property
    def program(self) -> Program:
        """The linked program behind the specification."""
        return self._analysed.as_written

    @property
    def outputs(self) -> tuple[str, ...]:
        """The rows a call returns, in order."""
        return self.program.outputs

    @property
    def values(self) -> Mapping[str, object]:
        """Parameters and captured tensors bound to the specification."""
        return dict(self._values)

    @property
    def algorithm(self) -> str | None:
        """The algorithm that is forced; None where the cost model chooses."""
        return self._runner.algorithm

    def _identity(self) -> tuple[object, ...]:
        bound = tuple(
            (n, id(v) if isinstance(v, torch.Tensor) else v) for n, v in sorted(self._values.items())
        )
        return (self._analysed.text, self.outputs, self._runner.algorithm, bound)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attention) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        bound = ", ".join(f"{n}={_short(v)}" for n, v in sorted(self._values.items()))
        return f"<attngen.Attention {self.program.name}({bound}) -> {', '.join(self.outputs)}>"

    def __str__(self) -> str:
        return self.text()

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None = None,
        backend: str | None = None,
        **tensors: Any,
    ) -> Output:
        """Run on the device the tensors lie on; shapes as for `attention`, grouped heads allowed.

        `backend` is "cpu", "triton" or "reference"; None takes the device's own. `tensors` gives or
        overrides captured tensors and parameters by name.
        """
        return self.run(query, key, value, scale=scale, backend=backend, tensors=tensors)

    def run(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        tensors: Mapping[str, object],
        scale: float | None = None,
        allow_gqa: bool = True,
        backend: str | None = None,
    ) -> Output:
        """As a call, with the captured tensors and parameters in one mapping."""
        from attngen.store.settings import settings

        now = settings()
        inputs = self._inputs(query, key, value, scale, allow_gqa, backend or now.backend, now, tensors)
        if inputs.backend == "reference":
            dense = self._dense(query, key, value, inputs.tensors, inputs.params)
            outs = {n: t.to(query.dtype) if t.dim() == 4 else t.float() for n, t in dense.items()}
        else:
            outs = self._launch(inputs)
        return outs[self.outputs[0]] if len(self.outputs) == 1 else tuple(outs[n] for n in self.outputs)

    def _inputs(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        allow_gqa: bool,
        backend: str,
        now: Settings,
        tensors: Mapping[str, object],
    ) -> Inputs:
        """A call's tensors and values, checked."""
        shapes = arguments.check_qkv(query, key, value, allow_gqa=allow_gqa)
        captured, params = arguments.bind(self.program, self._values_on(query.device), tensors)
        arguments.check_no_grad(query, key, value, *captured.values())
        arguments.check_tensors(self.program, captured, shapes, query.device)
        params["scale"] = arguments.default_scale(shapes.head_dim, scale)
        extents = arguments.own_extents(self.program, captured, params, shapes)
        params |= extents
        return Inputs(
            query, key, value, shapes, captured, params, extents, backend, now, kernels=self._kernels
        )

    def _values_on(self, device: torch.device) -> Mapping[str, object]:
        """What a call on a device is bound to: tensors lie where they were given."""
        del device
        return self._values

    def _launch(self, inputs: Inputs) -> dict[str, Tensor]:
        outs = self._runner.run(inputs)
        if forms.has_plain_outputs(self._analysed):
            return outs
        from attngen.run_sweeps import finished

        return finished(self.program, outs, inputs.query.dtype)

    def _dense(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> dict[str, Tensor]:
        from attngen.backends.reference import reference

        return reference(self.program, query, key, value, tensors=tensors, params=params)

    def reference(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, **tensors: Any
    ) -> Output:
        """The same outputs computed densely in float64, as the program is written: the specification."""
        arguments.check_qkv(query.float(), key.float(), value.float())
        captured, params = arguments.bind(self.program, self._values, tensors)
        params["scale"] = arguments.default_scale(query.shape[-1], scale)
        outs = self._dense(query, key, value, captured, params)
        return outs[self.outputs[0]] if len(self.outputs) == 1 else tuple(outs[n] for n in self.outputs)

    def text(self) -> str:
        """The canonical text of the program: its identity."""
        from attngen.lang.print import print_program

        return print_program(self.program, doc=False)

    def derivation(self) -> Derivation:
        """How the cascade became one pass: `.passes_written`, `.passes`, `.rules`, `.refusals`."""
        return forms.record_of(self._analysed)

    def merge(self, partials: Sequence[Output], **tensors: Any) -> Output:
        """Results over different keys, combined exactly: of devices, splits of a cache, or sources of keys.

        `partials` are what calls of this specification returned, over keys that nobody shares; each in the shapes of
        the others. The outputs must determine what is merged: softmax needs `outputs=("O", "LSE")`, the LSE in
        natural log. A partition that kept no key has O = 0 and LSE = -inf, and changes nothing. `tensors` are the
        tensors and parameters that the end of the cascade reads (a learned sink, say).

        Raises UnsupportedError where the outputs do not determine the running values, ShapeError, ParameterError.
        """
        from attngen.merging import merge_outputs

        parts = [p if isinstance(p, tuple | list) else (p,) for p in partials]
        if any(len(p) != len(self.outputs) for p in parts):
            raise ParameterError(
                f"each partial result holds {len(self.outputs)} outputs: {', '.join(self.outputs)}"
            )
        named = [dict(zip(self.outputs, p, strict=True)) for p in parts]
        outs = merge_outputs(forms.fold_of(self._analysed), named, {**self._values, **tensors})
        return outs[self.outputs[0]] if len(self.outputs) == 1 else tuple(outs[n] for n in self.outputs)

    def schedule(
        self,
        n_q: int,
        n_k: int,
        batch: int = 1,
        heads: int = 1,
        block_q: int = 128,
        block_k: int = 128,
        **tensors: Any,
    ) -> Schedule:
        """Which key tiles each query tile visits: `.n_full .n_partial .n_empty .nbytes .density .tiles()`.

        `.to_block_mask()` gives it to FlexAttention.
        """
        from attngen.planner.schedule import make_schedule
        from attngen.to_flex import convertible

        labels = ("n_q", "n_k", "batch", "heads", "block_q", "block_k")
        extents = (n_q, n_k, batch, heads, block_q, block_k)
        for label, extent, least in zip(labels, extents, (0, 0, 0, 0, 1, 1), strict=True):
            if extent < least:
                raise ParameterError(f"{label} must be at least {least}, got {extent}")
        captured, params = arguments.bind(self.program, self._values, tensors)
        analysed = scheduled(self._analysed, consts_of(self.program, params), 1)
        shapes = Shapes(batch, heads, heads, n_q, n_k, 0, 0)
        key = ("schedule", block_q, block_k)
        boxed = self._runner.fold.sweep.plans.boxes(
            lambda _program: (block_q, block_k), key, shapes, captured, params
        )
        found = make_schedule(
            analysed.program,
            pipeline.plan_of(analysed),
            {**params, **arguments.as_numpy(captured)},
            n_q=n_q,
            n_k=n_k,
            batch=batch,
            heads=heads,
            block_q=block_q,
            block_k=block_k,
            boxes=None if boxed is None else boxed.boxes,
        )
        return convertible(found, self.program, captured, params)

    def tune(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        budget: str = "quick",
        seed: int = 0,
        scale: float | None = None,
        backend: str | None = None,
        **tensors: Any,
    ) -> TuneResult:
        """Measure configurations of this call's kernels, here and now; the best of each is taken from then on.

        `budget` is "quick", "default" or "full". What was measured is kept beside the built kernels, at once: a
        search that was cut off goes on where it was, and later processes take the result (see ATTNGEN_TUNE).
        Raises ParameterError for another budget or a backend without configurations, and what a call raises.
        """
        return self.tune_with(
            query, key, value, tensors=tensors, budget=budget, seed=seed, scale=scale, backend=backend
        )

    def tune_with(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        tensors: Mapping[str, object],
        budget: str = "quick",
        seed: int = 0,
        scale: float | None = None,
        backend: str | None = None,
        means: Means | None = None,
    ) -> TuneResult:
        """As `tune`, with the captured tensors and parameters in one mapping; `means` is what searches use."""
        from attngen.store.settings import settings
        from attngen.tune.program import tune_program

        now = settings()
        inputs = self._inputs(query, key, value, scale, True, backend or now.backend, now, tensors)
        return tune_program(self._runner, inputs, budget=budget, seed=seed, means=means)

    def sweeps(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        tensors: Mapping[str, object],
        backend: str,
        run: bool,
    ) -> list[SweepCall]:
        """The kernels of a call (see `tune.program.sweeps_of`)."""
        from attngen.store.settings import settings
        from attngen.tune.program import sweeps_of

        inputs = self._inputs(query, key, value, None, True, backend, settings(), tensors)
        return sweeps_of(self._runner, inputs, run=run)

    def explain(
        self, n_q: int = 1024, n_k: int | None = None, *, batch: int = 1, heads: int = 1, **tensors: Any
    ) -> Explanation:
        """All stages of this specification, printable, and `.to_html(path)`."""
        from attngen.explain import explain

        return explain(self, n_q, n_q if n_k is None else n_k, batch=batch, heads=heads, tensors=tensors)


def load(name: str | Path, outputs: tuple[str, ...] | None = None, **values: Any) -> Attention:
    """A specification from `ir/` by name, or from a path to a `.attn` file.

    `values` bind parameters and tensors. Raises ProgramNotFoundError, ProgramSyntaxError and its kin,
    UnexpectedArgumentError or ParameterError.
    """
    from attngen.assemble import load_linked
    from attngen.lang.domain import with_grid_sizes

    program = load_linked(name)
    values = with_grid_sizes(program.grid, values)
    spec = Attention.from_linked(program, values, outputs)
    known = {t.name for t in spec.program.tensors} | {p.name for p in spec.program.params}
    for given, value in values.items():
        if given not in known:
            arguments.bind(spec.program, {}, {given: value})
        decl = spec.program.param(given)
        if decl is not None:
            arguments.checked_param(decl, value)
    return spec


_SPECS: OrderedDict[tuple[object, ...], tuple[Attention, Parts]] = OrderedDict()
_SPECS_KEPT = 64


def _spec_of(
    mask: MaskLike, score: ScoreLike, cascade: str | Program, outputs: tuple[str, ...] | None
) -> Attention:
    """The specification of a call of `attention`, kept by what was traced so that a loop builds it once."""
    from attngen.assemble import resolve

    parts = resolve(mask, score, cascade)
    key = (id(parts.mask), id(parts.score), id(parts.cascade), outputs)
    known = _SPECS.get(key)
    if known is not None:
        _SPECS.move_to_end(key)
        return known[0]
    spec = Attention(parts.mask, parts.score, parts.cascade, outputs)
    _SPECS[key] = (spec, parts)  # holding the parts keeps their ids from being reused
    if len(_SPECS) > _SPECS_KEPT:
        _SPECS.popitem(last=False)
    return spec


def _short(value: object) -> str:
    return f"tensor{list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
