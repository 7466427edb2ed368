"""The CPU backend: C++ text, the system's compiler, the artefact cache, ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import torch

from attngen.backends.base import Call, order_of
from attngen.backends.cpu_compile import (
    LIBRARY_NAME,
    check_runs_here,
    compile_kernel,
    compiler_identity,
    cpu_features,
    find_compiler,
    target_flags,
)
from attngen.emit.configs import Config
from attngen.emit.cpp_names import ENTRY, MAX_POSITION, ArgLayout, arg_layout, layout_from_json
from attngen.emit.cpu_config import CpuConfig, config_of, of_boxes
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.errors import (
    LaunchError,
    LoadError,
    ParameterError,
    ResourceError,
    ShapeError,
    UnsupportedError,
)
from attngen.resources import data_dir
from attngen.store.cache import default_store
from attngen.store.fingerprint import fingerprint
from attngen.store.key import digest
from attngen.store.settings import settings

_KIND = "cpu"
_Entry = Callable[
    [ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_int64], ctypes.Array[ctypes.c_double]], int
]


class CpuKernel:
    """A loaded kernel. Calls from several threads at once are fine: it holds no state but its code."""

    packed = jit = False

    def __init__(
        self, entry: _Entry, layout: ArgLayout, config: CpuConfig, key: Mapping[str, object]
    ) -> None:
        self.block_q, self.block_k = config.block_q, config.block_k
        self.needs_lists, self.needs_order = layout.lists, layout.order
        # read here: the environment costs more than a short launch
        self._threads = settings().threads or config.threads
        self._config = config
        self._key = key
        self._entry, self._layout = entry, layout
        self._outputs = tuple(name for name, _ in layout.outputs)
        self._tensors = tuple(name for name, _ in layout.tensors)
        self._pointer_array = ctypes.c_void_p * len(layout.pointers)
        self._int_array = ctypes.c_int64 * len(layout.ints)
        self._float_array = ctypes.c_double * len(layout.floats)

    def launch(self, call: Call) -> None:
        """Run; writes every element of every output, on ATTNGEN_THREADS threads or as many as torch uses.

        Raises ParameterError for an integer parameter beyond 32 bits, ShapeError for a captured tensor without
        elements, UnsupportedError for an axis too long, LaunchError when there is no memory to work in.
        """
        layout = self._layout
        n_b, n_h, n_q, n_k = call.extents
        n_kv = call.key.shape[1]
        given = {"Q": call.query, "K": call.key, "V": call.value}
        inputs = [given[name] for name in layout.inputs]
        if n_q > MAX_POSITION or n_k > layout.max_keys:
            raise _too_long(n_q, n_k, layout.max_keys)
        outputs = [call.outputs[name] for name in self._outputs]
        tensors = [call.tensors[name] for name in self._tensors]
        threads = self._threads or torch.get_num_threads()
        ints = [n_b, n_h, n_kv, n_q, n_k, threads]
        for tensor in (*inputs, *outputs):
            ints += tensor.stride()
        for name, tensor in zip(self._tensors, tensors, strict=True):
            if tensor.numel() == 0 and call.query.numel() and call.key.numel():
                raise ShapeError(f"tensor `{name}` has no elements: shape {tuple(tensor.shape)}")
            ints += tensor.shape
            ints += tensor.stride()
        ints += [_int_param(name, call.params[name]) for name in layout.int_params]
        pointers = [t.data_ptr() for t in (*inputs, *outputs, *tensors)]
        if layout.lists:
            self._add_lists(call, pointers, ints)
        if layout.order:
            tiles = -(-n_q // self.block_q) if call.n_q_tiles is None else call.n_q_tiles
            pointers.append(order_of(call, n_b * n_h * tiles).data_ptr())
        code = self._entry(
            self._pointer_array(*pointers),
            self._int_array(*ints),
            self._float_array(*[float(call.params[name]) for name in layout.float_params]),
        )
        if code != 0:
            raise ResourceError("the kernel found no memory for its threads to work in")

    def with_threads(self, threads: int) -> CpuKernel:
        """The same code on so many threads, unless the settings say how many."""
        config = replace(self._config, threads=threads)
        return CpuKernel(self._entry, self._layout, config, self._key)

    def recipe(self) -> dict[str, object]:
        """The key of the built library, and how it is called."""
        return {
            "key": dict(self._key),
            "layout": asdict(self._layout),
            "config": [self.block_q, self.block_k, self._config.threads],
        }

    def _add_lists(self, call: Call, pointers: list[int], ints: list[int]) -> None:
        from attngen.planner.plan import BlockLists

        lists = call.lists
        if not isinstance(lists, BlockLists):
            raise LaunchError("this mask is scheduled ahead of the launch, and the call brings no lists")
        arrays = (lists.partial_ptr, lists.partial_index, lists.full_ptr, lists.full_index)
        pointers += [array.ctypes.data for array in arrays]
        ints += (lists.batch, lists.heads, lists.n_q_tiles)


def _too_long(n_q: int, n_k: int, max_keys: int) -> UnsupportedError:
    """The refusal of an axis too long; a kernel that selects keys counts them in fp32."""
    if max(n_q, n_k) > MAX_POSITION:
        return UnsupportedError(f"the CPU backend takes at most {MAX_POSITION} tokens, not {max(n_q, n_k)}")
    return UnsupportedError(
        f"this kernel numbers the keys it selects in fp32, which is exact for {max_keys} keys, not for {n_k}"
    )


def _int_param(name: str, value: float | bool) -> int:
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise ParameterError(
            f"parameter `{name}` = {number} does not fit 32 bits",
            hint="positions are 32-bit integers, so no larger number makes a difference: use one below 2**31",
        )
    return number


class CpuBackend:
    """Kernels for this machine's processor, compiled by its C++ compiler."""

    name = "cpu"

    def __init__(self) -> None:
        self._loaded: dict[str, CpuKernel] = {}

    def emit(self, spec: KernelSpec, target: Target, config: Config | None = None) -> Source:
        """The kernel's text; without a configuration, with the default tile sizes. Pure."""
        from attngen.emit.print_cpp import print_cpp

        return print_cpp(spec, target, self._chosen(spec, target, config))

    def _chosen(self, spec: KernelSpec, target: Target, config: Config | None) -> CpuConfig:
        if config is None:
            return self.config(spec, target)
        assert isinstance(config, CpuConfig)
        return of_boxes(config, spec)

    def config(self, spec: KernelSpec, target: Target) -> CpuConfig:
        """The tile sizes `emit` and `load` use."""
        from attngen.emit.cpp_cells import with_operands

        return of_boxes(config_of(with_operands(spec), target), spec)

    def load(self, spec: KernelSpec, target: Target, config: Config | None = None) -> CpuKernel:
        """A callable kernel, from the cache or built now.

        Raises CompilerNotFoundError, CompileError, LoadError, CacheError, and TargetError for a target with
        instructions this machine lacks.
        """
        check_runs_here(target)
        compiler = find_compiler()
        chosen = self._chosen(spec, target, config)
        key = self.key(spec, target, compiler, chosen)
        name = digest({**key, "threads": chosen.threads})
        if name not in self._loaded:
            loaded = default_store().use(
                _KIND, key, lambda stage: _build(self.emit(spec, target, chosen), stage, compiler), _open
            )
            self._loaded[name] = CpuKernel(loaded, arg_layout(spec), chosen, key)
        return self._loaded[name]

    def reopen(self, recipe: Mapping[str, object]) -> CpuKernel | None:
        """The kernel of a recipe, if it was built by this compiler for a processor like this one."""
        match recipe:
            case {
                "key": dict(key),
                "layout": dict(layout),
                "config": [int(block_q), int(block_k), int(threads)],
            }:
                key = {**key, "compiler": compiler_identity(find_compiler()), "features": cpu_features()}
                loaded = default_store().use_existing(_KIND, key, _open)
                if loaded is None:
                    return None
                config = CpuConfig(block_q, block_k, threads)
                return CpuKernel(loaded, layout_from_json(layout), config, key)
            case _:
                return None

    def key(
        self, spec: KernelSpec, target: Target, compiler: Path, config: CpuConfig | None = None
    ) -> dict[str, object]:
        """What a built kernel depends on.

        The text is a function of the specification, the tile sizes and our own printers and templates, so these
        stand for it, and a cached kernel is found without printing it.
        """
        config = self._chosen(spec, target, config)
        return {
            "specification": sha256(repr(spec).encode()).hexdigest(),
            "block_q": config.block_q,
            "block_k": config.block_k,
            "printers": fingerprint("emit", "lang"),
            "templates": _templates_digest(),
            "target": target.arch,
            "flags": target_flags(target),
            "compiler": compiler_identity(compiler),
            "features": cpu_features(),
        }


def _templates_digest() -> str:
    root = data_dir("templates") / "cpu"
    state = sha256()
    for path in sorted(root.rglob("*.jinja")):
        data = path.read_bytes()
        state.update(f"{path.relative_to(root).as_posix()}\0{len(data)}\0".encode())
        state.update(data)
    return state.hexdigest()


def _build(source: Source, stage: Path, compiler: Path) -> None:
    compile_kernel(source, stage, compiler)


def _open(directory: Path) -> _Entry:
    return open_library(directory / LIBRARY_NAME, ENTRY, hint="run `attngen cache clear` and try again")


def open_library(path: Path, symbol: str, hint: str = "build it again") -> _Entry:
    """The entry of a built kernel. Raises LoadError."""
    try:
        entry = getattr(ctypes.CDLL(str(path)), symbol)
    except (OSError, AttributeError) as error:
        raise LoadError(
            f"the built kernel in {path.parent} could not be loaded: {error}", hint=hint
        ) from error
    entry.restype = ctypes.c_int
    return entry
