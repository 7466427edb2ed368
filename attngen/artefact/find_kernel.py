"""A kernel for a specification that is run as it is, among the artefacts that are installed; so nothing is built.

It must be the kernel that would be built now: of the same program and outputs, specialised alike, printed by the same
attngen, for a machine whose kernels run here. One for GPUs that counts on alignment takes the calls that have it; for
the others a kernel is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attngen import pipeline
from attngen.artefact.choose import preference
from attngen.artefact.installed import Place, installed
from attngen.artefact.kernels import load_kernel
from attngen.artefact.manifest import Kernel, identity
from attngen.artefact.read import Opened, open_artefact
from attngen.artefact.targets import accepted, features
from attngen.backends.base import Call
from attngen.errors import ArtefactError, LoadError

if TYPE_CHECKING:
    import torch

    from attngen.analysed import Analysed
    from attngen.artefact.gpu_kernel import GpuKernel
    from attngen.backends import base
    from attngen.emit.configs import Config

log = logging.getLogger("attngen.artefact")


def find_kernel(
    device: torch.device,
    analysed: Analysed,
    special: pipeline.Specialisation,
    build: Callable[[Config], pipeline.Loaded],
) -> pipeline.Loaded | None:
    """The installed kernel of a sweep; None where there is none that can be loaded, with a warning if one is damaged.

    `build` makes the kernel of a configuration, for calls that do not lie as an installed one counts on.
    """
    program = identity(analysed.text, analysed.program.outputs)
    for place in installed():
        if place.programs is not None and program not in place.programs:
            continue
        try:
            opened = _opened(place)
            if opened is None:
                continue
            found = _suiting(opened.manifest.kernels, program, device, special)
            if found:
                return _loaded(opened, found, build)
        except (ArtefactError, LoadError) as error:
            log.warning("the installed artefact %s is passed over: %s", place.path, error.message)
    return None


@cache
def _opened(place: Place) -> Opened | None:
    """An artefact that this attngen would have built in the same way; None, told once, for one of another."""
    ours = pipeline.sources()
    if place.sources is not None and place.sources != ours:
        return _of_another(place.path)
    opened = open_artefact(place.path)
    if opened.manifest.versions.get("sources") != ours:
        return _of_another(place.path)
    return opened


def _of_another(path: Path) -> None:
    log.info(
        "the installed artefact %s is passed over: another version of attngen built it, so it may compute differently; "
        "attngen.load_artefact takes it as it is",
        path,
    )


def _suiting(
    kernels: Sequence[Kernel], program: str, device: torch.device, special: pipeline.Specialisation
) -> list[Kernel]:
    """The kernels of one configuration that may run, the most demanding first."""
    targets = accepted(device)
    known = features() if device.type == "cpu" else None
    found = [
        k
        for k in kernels
        if k.program == program
        and k.special == special
        and k.packed == 0
        and k.target.arch in targets
        and (known is None or known.issuperset(k.needs))
    ]
    found.sort(key=lambda k: preference(k, targets))
    return [k for k in found if k.target == found[0].target and k.config == found[0].config]


def _loaded(
    opened: Opened, found: Sequence[Kernel], build: Callable[[Config], pipeline.Loaded]
) -> pipeline.Loaded:
    first = found[0]
    log.info("%s of the installed artefact %s is taken", first.name, opened.directory)
    if first.target.kind == "cpu":
        return pipeline.Loaded(load_kernel(opened, first), first.divisors)
    from attngen.artefact.gpu_kernel import GpuKernel

    loaded: list[tuple[Kernel, GpuKernel]] = []
    for kernel in found:
        made = load_kernel(opened, kernel)
        assert isinstance(made, GpuKernel)
        loaded.append((kernel, made))
    return pipeline.Loaded(InstalledKernel(loaded, lambda: build(first.config).kernel), first.divisors)


class InstalledKernel:
    """Kernels for GPUs of one text that count on different alignment; a call takes the first whose demands it meets.

    A call that meets none is run by a kernel of the same configuration that is built for it, once.
    """

    jit = False

    def __init__(self, loaded: Sequence[tuple[Kernel, GpuKernel]], build: Callable[[], base.Kernel]) -> None:
        self._loaded, self._build = tuple(loaded), cache(build)
        first = self._loaded[0][1]
        self.block_q, self.block_k = first.block_q, first.block_k
        self.needs_lists, self.needs_order, self.packed = first.needs_lists, first.needs_order, first.packed

    def launch(self, call: Call) -> None:
        """Run, as a kernel of `backends.base` does."""
        for _, loaded in self._loaded:
            if loaded.refusal(call) is None:
                loaded.launch(call)
                return
        self._build().launch(call)

    def recipe(self) -> dict[str, object]:
        """Where it came from: it is found anew, never reopened."""
        return {"artefact": self._loaded[0][0].name}


__all__ = ["InstalledKernel", "find_kernel"]
