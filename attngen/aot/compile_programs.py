"""Build the artefacts of many programs at once, each kernel in one of a few compiling processes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attngen.analysed import analyse
from attngen.aot.build_kernel import Work, build_kernel, derive
from attngen.aot.list_kernels import Part, list_kernels
from attngen.aot.rehearse import without_places
from attngen.aot.request import Request, Variant, check_request, variants_of
from attngen.aot.write_artefact import new_stage, write_artefact
from attngen.artefact.document import IDENTIFIER
from attngen.artefact.manifest import Form
from attngen.errors import CompileError, InternalError, ParameterError
from attngen.lang.serialize import program_to_json
from attngen.tune.pool import Built, Job, Pool
from attngen.value import value

if TYPE_CHECKING:
    from attngen.api import Attention

log = logging.getLogger("attngen.aot")

_LEAST_LIMIT_S, _MOST_LIMIT_S = 120.0, 600.0


@value
class Order:
    """A specification and what to build of it; `name` is that of its artefact."""

    spec: Attention
    request: Request

    @property
    def name(self) -> str:
        """The program's name."""
        return self.spec.program.name


@value
class Progress:
    """Kernels that are built, of how many, and the one that was built last."""

    done: int
    total: int
    last: str


@value
class Made:
    """An artefact, or the reasons why there is none.

    nbytes   of its files.
    kernels  how many it holds; `seconds` is what compiling them took, summed over processes.
    without  kernels that were asked for and do not exist, with the reason.
    """

    name: str
    path: Path
    kernels: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    without: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(slots=True)
class _Task:
    """An artefact that is being built."""

    order: Order
    forms: tuple[Form, ...]
    parts: tuple[Part, ...]
    stage: Path
    left: int
    kernels: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    without: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def compile_programs(
    orders: Sequence[Order],
    out: Path,
    *,
    workers: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> list[Made]:
    """Build `out/<name>` for every order, in their order; a program of which a kernel fails has no artefact.

    Raises ParameterError for two orders of one name, TargetError, DTypeError, DerivationError, ArtefactError.
    """
    names = [order.name for order in orders]
    for name in names:
        if not IDENTIFIER.fullmatch(name):
            raise ParameterError(
                f"{name!r} cannot name an artefact",
                hint="files and C functions are named after the program: ASCII letters, digits and _",
            )
        if names.count(name) > 1:
            raise ParameterError(
                f"{name} is asked for twice", hint="give a program one entry, or another name"
            )
    for order in orders:
        check_request(order.request)
    tasks: list[_Task] = []
    everything_on_cpu = all(t.startswith("cpu") for order in orders for t in order.request.targets)
    try:
        with Pool(
            "cpu" if everything_on_cpu else "triton",
            least_limit_s=_LEAST_LIMIT_S,
            most_limit_s=_MOST_LIMIT_S,
            most_workers=workers,
        ) as pool:
            if len(orders) > 1:
                _derive(orders, pool)
            jobs: list[Job[tuple[_Task, Variant]]] = []
            for order in orders:
                task, some = _begin(order, out)
                tasks.append(task)
                jobs += some
            made = _build(jobs, tasks, out, pool, report)
    finally:
        for task in tasks:
            shutil.rmtree(task.stage, ignore_errors=True)
    return [made[task.order.name] for task in tasks]


def _derive(orders: Sequence[Order], pool: Pool) -> None:
    """Let the processes derive the programs: what they leave in the cache, everyone else finds there."""
    works = [_work(order, Path()) for order in orders]
    for built in pool.build([Job(o, derive, (w,)) for o, w in zip(orders, works, strict=True)]):
        log.debug("derived in %.2f s: %s", built.seconds, built.note or built.status)


def _work(order: Order, stage: Path) -> Work:
    values = order.spec.values
    return Work(
        program=json.dumps(without_places(program_to_json(order.spec.program))),
        values={n: v for n, v in values.items() if isinstance(v, int | float)},
        tensors={
            n: (str(v.dtype).removeprefix("torch."), tuple(v.shape))
            for n, v in values.items()
            if isinstance(v, torch.Tensor)
        },
        request=order.request,
        folder=str(stage.absolute()),
    )


def _begin(order: Order, out: Path) -> tuple[_Task, list[Job[tuple[_Task, Variant]]]]:
    """List the kernels of a program."""
    analysed = analyse(order.spec.program)
    forms, parts = list_kernels(analysed, order.request.forms)
    variants = variants_of(order.request, parts)
    task = _Task(order, forms, parts, new_stage(out, order.name), len(variants))
    work = _work(order, task.stage)
    return task, [Job((task, v), build_kernel, (work, v)) for v in variants]


def _build(
    jobs: list[Job[tuple[_Task, Variant]]],
    tasks: list[_Task],
    out: Path,
    pool: Pool,
    report: Callable[[Progress], None],
) -> dict[str, Made]:
    made: dict[str, Made] = {}
    for task in tasks:
        if task.left == 0:  # it has no kernels
            made[task.order.name] = _end(task, out)
    for done, built in enumerate(pool.build(jobs), 1):
        task, variant = built.label
        _note(task, variant, built)
        if task.left == 0:
            made[task.order.name] = _end(task, out)
        report(Progress(done, len(jobs), f"{task.order.name} {variant.name}"))
    return made


def _note(task: _Task, variant: Variant, built: Built[tuple[_Task, Variant]]) -> None:
    task.left -= 1
    task.seconds += built.seconds
    if built.status != "ok":
        task.failures.append(f"{variant.name}: {built.status.replace('_', ' ')}: {built.note}")
    elif "without" in built.facts:
        task.without.append(str(built.facts["without"]))
    else:
        task.kernels.append(built.facts)


def _end(task: _Task, out: Path) -> Made:
    name, path = task.order.name, out / task.order.name
    if task.failures:
        log.warning("%s: no artefact, %d kernels failed", name, len(task.failures))
        return Made(name, path, failures=tuple(sorted(task.failures)), seconds=task.seconds)
    try:
        manifest = write_artefact(
            task.stage,
            path,
            analyse(task.order.spec.program),
            task.order.spec.values,
            task.order.request,
            task.forms,
            task.parts,
            task.kernels,
        )
    except InternalError as error:  # of this program: the kernels of the others are built all the same
        return Made(name, path, failures=(f"the artefact could not be written: {error.message}",))
    nbytes = sum(f.nbytes for f in manifest.files)
    return Made(name, path, len(manifest.kernels), nbytes, task.seconds, tuple(sorted(task.without)))


def compile_spec(spec: Attention, request: Request, out: Path, *, workers: int | None = None) -> Path:
    """Build the artefact of one specification, `out/<name>`; its path. Raises CompileError and its kin."""
    (made,) = compile_programs([Order(spec, request)], out, workers=workers)
    if made.failures:
        raise CompileError(
            f"{made.name}: {len(made.failures)} kernels could not be built: {made.failures[0]}",
            log="\n".join(made.failures),
        )
    return made.path
