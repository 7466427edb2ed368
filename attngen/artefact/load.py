"""Load an artefact: a callable with the signature of the specification that it was built of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attngen.api import Attention, Output
from attngen.artefact.installed import find_artefact
from attngen.artefact.kernels import ArtefactKernels
from attngen.artefact.read import Opened, documents_of, open_artefact, program_of, tensors_of
from attngen.documents import shipping
from attngen.errors import ArtefactError, AttngenError, LoadError, UnsupportedError

if TYPE_CHECKING:
    from attngen.algebra.fold import Derivation
    from attngen.artefact.manifest import Manifest
    from attngen.run_sweep import Inputs

Tensor = torch.Tensor

# What reading a program that is none may raise; ImportError where a document is missing that would be derived anew.
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, ImportError,
)  # fmt: skip


def load_artefact(path: str | Path) -> Artefact:
    """The artefact in a directory that `attngen compile` or `spec.compile` wrote, or an installed one by its name.

    `load_artefact("causal")` is the directory `causal` where there is one, and else the artefact of that program in a
    package that `attngen package` made, or in a directory that ATTNGEN_ARTEFACTS names.

    Nothing is built, derived or tuned: no compiler, no Triton, no sympy. Kernels are read when a call first takes
    them, and their bytes are compared with the manifest.

    Raises ArtefactError for what is no artefact, was changed, or could have been written by others.
    """
    return Artefact(open_artefact(find_artefact(path)))


class Artefact(Attention):
    """A specification whose kernels were built ahead of time; a call takes the one that suits it.

    A call that no kernel suits raises NoVariantError, which names the nearest. It may be used within `torch.compile`
    and `torch.export`; a process that runs an exported program loads the artefact first.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._documents = documents_of(opened)
        manifest = opened.manifest
        try:
            program = program_of(opened)
            self._tensors = tensors_of(opened)
            values: dict[str, object] = {**manifest.values, **self._tensors}
            with shipping(self._documents):
                self._init(program, values, None)
        except AttngenError as error:
            raise ArtefactError(f"{opened.directory} cannot be loaded: {error.message}") from error
        except _MALFORMED as error:
            raise ArtefactError(f"{opened.directory} cannot be loaded: {error!r}") from error
        self._moved: dict[torch.device, dict[str, object]] = {}
        self._kernels = ArtefactKernels(opened)
        from attngen.artefact.torch_op import register

        self._handle = register(self, opened.digest)

    @property
    def manifest(self) -> Manifest:
        """What the artefact holds, and how it was built."""
        return self._opened.manifest

    @property
    def path(self) -> Path:
        """The directory of the artefact."""
        return self._opened.directory

    def __repr__(self) -> str:
        return (
            f"<attngen.Artefact {self.manifest.name} of {len(self.manifest.kernels)} kernels in {self.path}>"
        )

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
        """As the specification is called. Raises NoVariantError where no kernel suits the call."""
        if torch.compiler.is_compiling():
            from attngen.artefact.torch_op import call_within_graph

            return call_within_graph(self, self._handle, query, key, value, scale, tensors)
        return self.run(query, key, value, scale=scale, backend=backend, tensors=tensors)

    def _values_on(self, device: torch.device) -> Mapping[str, object]:
        """What the artefact is bound to; its captured tensors are copied to a device once."""
        if not self._tensors or device.type == "cpu":
            return self._values
        found = self._moved.get(device)
        if found is None:
            moved = {n: t.to(device) for n, t in self._tensors.items()}
            found = self._moved[device] = {**self._values, **moved}
        return found

    def _launch(self, inputs: Inputs) -> dict[str, Tensor]:
        home = "cpu" if inputs.query.device.type == "cpu" else "triton"
        if inputs.backend not in ("auto", home):
            raise UnsupportedError(
                f"an artefact runs the kernels it holds, not the backend {inputs.backend!r}",
                hint="load the program with attngen.load to choose a backend",
            )
        try:
            with shipping(self._documents):
                return super()._launch(inputs)
        except ModuleNotFoundError as error:  # a derivation was started: a document is missing
            raise LoadError(
                f"{self.path} lacks what this call needs: {error}", hint="build the artefact again"
            ) from error

    def derivation(self) -> Derivation:
        """How the cascade became what runs."""
        with shipping(self._documents):
            return super().derivation()

    def merge(self, partials: Sequence[Output], **tensors: Any) -> Output:
        """As `Attention.merge`."""
        with shipping(self._documents):
            return super().merge(partials, **tensors)

    def bound(self, tensors: Mapping[str, object]) -> Mapping[str, object]:
        """The values of a call: those the artefact is bound to, and `tensors`."""
        return {**self._values, **tensors}
