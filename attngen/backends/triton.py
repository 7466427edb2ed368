"""The Triton backend: emitted text, imported from the cache, compiled at launch by Triton itself.

With TRITON_INTERPRET=1 in the environment the same text runs on CPU tensors, in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attngen.backends.base import Call
from attngen.backends.triton_call import CallArgs, Passed, tensor_of
from attngen.backends.triton_compile import triton_version
from attngen.backends.triton_import import import_kernel, interprets
from attngen.backends.triton_request import compiler_options
from attngen.emit.configs import Config, config_from_json, config_to_json
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import StoreBlock
from attngen.emit.triton.config import (
    TritonConfig,
    default_config,
    fewer_stages,
    lanes,
    with_matrix_rows,
)
from attngen.emit.triton.names import Arg, kernel_args
from attngen.emit.triton.pressure import fitted, relieved, roomier
from attngen.emit.triton.sides import shared_widths, sides, tile_widths
from attngen.errors import (
    DeviceError,
    LaunchError,
    LoadError,
    ResourceError,
    UnsupportedError,
)
from attngen.store.cache import default_store
from attngen.store.entry import write_file

_KIND = "triton"
_SOURCE = "kernel.py"
_TOO_BIG = ("OutOfResources", "PTXASError")  # of Triton: shared memory, threads or registers


class TritonKernel:
    """A loaded kernel. Triton compiles it at the first launch for each dtype and alignment of its arguments."""

    jit = True

    def __init__(
        self,
        function: Any,
        args: tuple[Arg, ...],
        config: TritonConfig,
        key: Mapping[str, object],
        described: Described | None = None,
    ) -> None:
        self.block_q, self.block_k = config.block_q, config.block_k
        self._call = CallArgs(args, config)
        self.packed = self._call.packed
        self.needs_lists, self.needs_order = self._call.needs_lists, self._call.needs_order
        self._function, self._args, self._config, self._key = function, args, config, key
        self._described = described

    def launch(self, call: Call) -> None:
        """Run on the tensors' device; writes every element of every output.

        Raises LaunchError, ShapeError for a captured tensor without elements, UnsupportedError.
        """
        rows = self._call.rows(call)
        if not rows:
            return None
        _check_interprets(call)
        if self._described is not None:
            if not all(_is_aligned(tensor_of(name, call)) for name in self._described.tensors):
                return self._described.otherwise.launch(call)
            _allow_scratch(call.query.device)
        call = self._call.near(call)
        values = [_value(self._call.value(arg, call)) for arg in self._args]
        config = self._config
        try:
            with torch.cuda.device_of(
                call.query
            ):  # Triton launches on the current device, wherever its tensors lie
                self._function[(self._call.programs(rows, call.query.device),)](
                    *values,
                    BLOCK_Q=config.block_q,
                    BLOCK_K=config.block_k,
                    num_warps=config.num_warps,
                    num_stages=config.num_stages,
                    **compiler_options(config_to_json(config)),
                )
        except Exception as error:  # Triton's own errors have no common base
            if type(error).__name__ in _TOO_BIG:
                raise ResourceError(
                    f"the kernel takes more than the GPU has: {str(error).splitlines()[0][:200]}",
                    hint="smaller tiles are tried where no configuration was asked for",
                ) from error
            raise LaunchError(
                f"Triton could not compile or launch the kernel: {str(error).splitlines()[0][:200]}",
                hint="attngen inspect shows what the kernel takes of a target",
            ) from error

    def recipe(self) -> dict[str, object]:
        """The key of the stored text, and how it is called."""
        return {
            "key": dict(self._key),
            "args": [[a.name, a.role, a.of, a.axis, a.last, a.dtype] for a in self._args],
            "config": config_to_json(self._config),
            "described": None if self._described is None else self._described.recipe(),
        }


def _value(passed: Passed) -> Passed:
    """Triton has no pointers to booleans."""
    if isinstance(passed, torch.Tensor) and passed.dtype == torch.bool:
        return passed.view(torch.uint8)
    return passed


def _check_interprets(call: Call) -> None:
    """Refuse what Triton's interpreter computes wrongly without a word."""
    if call.query.dtype == torch.bfloat16 and not call.query.is_cuda:
        raise UnsupportedError(
            "Triton's interpreter multiplies bfloat16 tiles as if they were integers",
            hint="use float32 or float16 with TRITON_INTERPRET=1; bfloat16 runs on a GPU",
        )


@dataclass(frozen=True, slots=True)
class Described:
    """What a kernel reads through tensor descriptors, and the kernel for calls that these cannot describe."""

    tensors: tuple[str, ...]
    otherwise: TritonKernel

    def recipe(self) -> dict[str, object]:
        """As JSON."""
        return {"tensors": list(self.tensors), "otherwise": self.otherwise.recipe()}


def _is_aligned(tensor: torch.Tensor) -> bool:
    """Whether the rows of every head of a tensor can be described: elements adjacent, the rest 16 bytes apart."""
    *outer, last = tensor.stride()
    size = tensor.element_size()
    return last == 1 and tensor.data_ptr() % 16 == 0 and all(stride * size % 16 == 0 for stride in outer)


def _allow_scratch(device: torch.device) -> None:
    """Let Triton take the memory in which a kernel builds its descriptors from PyTorch."""
    import triton

    def allocate(size: int, alignment: int, stream: int | None) -> torch.Tensor:
        del alignment, stream  # PyTorch's memory is aligned to 512 bytes and belongs to the current stream
        return torch.empty(size, dtype=torch.int8, device=device)

    triton.set_allocator(allocate)


class TritonBackend:
    """Kernels for NVIDIA and AMD GPUs."""

    name = "triton"

    def emit(self, spec: KernelSpec, target: Target, config: Config | None = None) -> Source:
        """The kernel's text; without a configuration, with the default one. Pure."""
        from attngen.emit.triton.print_kernel import print_triton

        return print_triton(spec, target, self._chosen(spec, target, config))

    def _chosen(self, spec: KernelSpec, target: Target, config: Config | None) -> TritonConfig:
        if config is None:
            return self.config(spec, target)
        assert isinstance(config, TritonConfig)
        return _for_target(_of_boxes(config, spec), target)

    def config(self, spec: KernelSpec, target: Target) -> TritonConfig:
        """The configuration `emit` and `load` use."""
        across, along = tile_widths(spec)
        config = default_config(target, spec.dtype, across, along)
        config = relieved(config, target, across, along, spec.program)
        config = fitted(roomier(config, target, spec), target, spec)
        blocks = [s.width for s in spec.tile.steps if isinstance(s, StoreBlock)]
        config = replace(config, block_k=max(config.block_k, *blocks)) if blocks else config
        config = with_matrix_rows(_of_boxes(config, spec), target)
        return fewer_stages(config, target, spec.dtype, *shared_widths(spec))

    def load(self, spec: KernelSpec, target: Target, config: Config | None = None) -> TritonKernel:
        """A callable kernel. Raises CompilerNotFoundError, DeviceError, LoadError, CacheError."""
        triton_version()
        _check_runs(target)
        chosen = self._chosen(spec, target, config)
        source = self.emit(spec, target, chosen)
        key: dict[str, object] = {"text": source.text}
        function = default_store().use(
            _KIND,
            key,
            lambda stage: write_file(stage / _SOURCE, source.text.encode()),
            lambda directory: _import(directory / _SOURCE, source.entry, interprets()),
        )
        described = None
        if chosen.descriptors:
            names = (
                s.load.tensor for s in sides(spec).values() if s.load is not None and s.operand.row == "k"
            )
            without = replace(chosen, descriptors=False, warp_specialize=False)
            described = Described(tuple(names), self.load(spec, target, without))
        return TritonKernel(function, kernel_args(spec), chosen, key | {"entry": source.entry}, described)

    def reopen(self, recipe: Mapping[str, object]) -> TritonKernel | None:
        """The kernel of a recipe, if its text is still in the cache."""
        match recipe:
            case {
                "key": {"text": str(text), "entry": str(entry)},
                "args": list(args),
                "config": dict(document),
            }:
                config = config_from_json("triton", document)
                if not isinstance(config, TritonConfig):
                    return None
                _check_runs(Target("cpu", "cpu") if interprets() else Target("cuda", ""))
                function = default_store().use_existing(
                    _KIND,
                    {"text": text},
                    lambda directory: _import(directory / _SOURCE, entry, interprets()),
                )
                if function is None:
                    return None
                described = None
                match recipe.get("described"):
                    case {"tensors": list(names), "otherwise": dict(other)}:
                        otherwise = self.reopen(other)
                        if otherwise is None:
                            return None
                        described = Described(tuple(names), otherwise)
                    case _:
                        pass
                key = {"text": text, "entry": entry}
                return TritonKernel(function, tuple(Arg(*a) for a in args), config, key, described)
            case _:
                return None


def _of_boxes(config: TritonConfig, spec: KernelSpec) -> TritonConfig:
    """The configuration with as many lanes as the boxes of a kernel take, and a program for each box."""
    if spec.boxes is None:
        return config
    volume = spec.boxes.volume
    return replace(config, block_q=lanes(volume("q")), block_k=lanes(volume("k")), persistent=0)


def _for_target(config: TritonConfig, target: Target) -> TritonConfig:
    """The configuration without what the compiler of a target has no option for."""
    if target.kind == "hip":
        return replace(config, max_registers=0)
    return replace(config, matrix_rows=0, waves_per_eu=0)


def _check_runs(target: Target) -> None:
    """Refuse CPU tensors without the interpreter, and a Triton imported in the other mode than asked for now."""
    if target.kind == "cpu" and not interprets():
        raise DeviceError(
            "the triton backend needs tensors on a GPU",
            hint="TRITON_INTERPRET=1 runs the same text on the CPU, slowly",
        )
    import triton.language as tl

    if interprets() != (type(tl.sum).__name__ == "InterpretedFunction"):
        raise DeviceError(
            "Triton was imported before TRITON_INTERPRET changed",
            hint="set it in the environment before Python starts",
        )


def _import(path: Path, entry: str, interpret: bool) -> Callable[..., object]:
    """The kernel's function. Triton decides at decoration whether it is interpreted, so each mode imports anew."""
    name = f"attngen_kernels.{path.parent.name}_{'interpreted' if interpret else 'compiled'}"
    try:
        return import_kernel(path, entry, name)
    except Exception as error:
        raise LoadError(f"the kernel in {path} could not be imported: {error}") from error
