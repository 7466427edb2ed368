"""What a specification is on machines that need not be here: its text, what a compiler makes of it, its artefact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attngen import pipeline
from attngen.errors import ParameterError, TargetError

if TYPE_CHECKING:
    from attngen.analysed import Analysed
    from attngen.api import Attention
    from attngen.artefact.manifest import Alignment, Form
    from attngen.static.report import Inspection


class ForTargets:
    """The part of `Attention` that names targets. Nothing in it runs a kernel."""

    _analysed: Analysed
    _values: dict[str, object]

    def source(
        self,
        target: str = "sm_90",
        dtype: str = "bf16",
        head_dim: int = 128,
        value_dim: int | None = None,
    ) -> str:
        """The text of the kernel for a target, which need not be present; of all kernels, one after the other."""
        specs, where = self.kernel_specs(target, dtype, head_dim, value_dim)
        backend = pipeline.backend_named("cpu" if where.kind == "cpu" else "triton")
        return "\n\n".join(backend.emit(spec, where).text for spec in specs)

    def inspect(
        self,
        target: str = "sm_90",
        dtype: str = "bf16",
        head_dim: int = 128,
        value_dim: int | None = None,
        sweep: int = 0,
    ) -> Inspection:
        """Compile for a GPU that need not be there: `.registers`, `.spill_bytes`, `.occupancy`, `.loop("full")`.

        Raises TargetError, ParameterError, CompileError, CompilerNotFoundError, CacheError.

        `sweep` chooses the kernel of a cascade that takes several.
        """
        specs, where = self.kernel_specs(target, dtype, head_dim, value_dim)
        if where.kind == "cpu":
            raise TargetError("inspect reads GPU binaries", hint="spec.source(target='cpu') shows the C++")
        if not 0 <= sweep < len(specs):
            raise ParameterError(f"there is no sweep {sweep}: the cascade has {len(specs)} kernels")
        from attngen.static.inspect_kernel import inspect_kernel

        return inspect_kernel(specs[sweep], where)

    def kernel_specs(
        self, target: str, dtype: str, head_dim: int, value_dim: int | None = None
    ) -> tuple[tuple[pipeline.KernelSpec, ...], pipeline.Target]:
        """What the kernels for `target` are specialised on; kinds stand for the dtypes of unbound tensors."""
        from attngen.absent_target import specs_for_target

        return specs_for_target(self._analysed, self._values, target, dtype, head_dim, value_dim)

    def compile(
        self,
        target: str | Sequence[str] = "sm_90",
        dtype: str | Sequence[str] = "bf16",
        head_dim: int | Sequence[int] = 128,
        value_dim: int | None = None,
        *,
        path: str | Path = ".",
        forms: Sequence[Form] = ("one_pass",),
        alignment: Alignment | Sequence[Alignment] = "features",
        packed: Sequence[int] = (),
        extents: Mapping[str, int] | None = None,
        captured: Mapping[str, str] | None = None,
        workers: int | None = None,
    ) -> Path:
        """Build an artefact: every combination of the targets, dtypes and head dimensions, for `load_artefact`, C, C++.

        `value_dim` is the head dimension where it is not given. The artefact is the directory `path / name`, which is
        returned; one that is there is replaced. `forms` names further ways of computing the result whose kernels
        are built too ("local_then_merge" serves few queries with many keys); `alignment`, `packed`, `extents` and
        `captured` are explained at `attngen.aot.request.Request`. Compilers run in `workers` processes.

        Raises TargetError, DTypeError, ParameterError, DerivationError, CompileError, CompilerNotFoundError,
        ArtefactError.
        """
        from attngen.aot.compile_programs import compile_spec
        from attngen.aot.request import Request

        request = Request(
            targets=_several(target),
            dtypes=_several(dtype),
            dims=tuple((d, value_dim or d) for d in ((head_dim,) if isinstance(head_dim, int) else head_dim)),
            forms=tuple(forms),
            alignments=cast("tuple[Alignment, ...]", _several(alignment)),
            packed=tuple(packed),
            extents=extents or {},
            captured=captured or {},
        )
        return compile_spec(cast("Attention", self), request, Path(path), workers=workers)


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
