"""The driver of a GPU: modules of code, and launches in the context and on the stream that PyTorch uses.

Two libraries, libcuda.so.1 and libamdhip64.so, behind one interface. Nothing is loaded before the first kernel is.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from attngen.errors import AttngenError, LaunchError, LoadError, ResourceError

Handle = int

_MAX_DYNAMIC_SHARED = 8  # the function attribute, in both libraries
_PREFER_SHARED = 1
_ALWAYS_SHARED = 48 << 10  # bytes of shared memory that every thread block may take unasked
_OUT_OF_MEMORY, _OUT_OF_RESOURCES = 2, 701  # errors, in both libraries
_MAPS = Path("/proc/self/maps")

_POINTER, _UINT, _INT = ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
_LAUNCH: list[Any] = [_POINTER, *[_UINT] * 7, _POINTER, _POINTER, _POINTER]


class Driver(ABC):
    """What both libraries have in common. `device` is PyTorch's number of a device, the current one of this thread."""

    load_name: ClassVar[str]
    get_name: ClassVar[str]
    launch_name: ClassVar[str]

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._load = self._function(self.load_name, [_POINTER, ctypes.c_char_p])
        self._get = self._function(self.get_name, [_POINTER, _POINTER, ctypes.c_char_p])
        self._launch = self._function(self.launch_name, _LAUNCH)

    def load(self, binary: bytes, entry: str, shared: int, device: int) -> Handle:
        """The kernel `entry` of a module, ready to take so many bytes of shared memory. The module stays loaded.

        Raises LoadError, ResourceError for more shared memory than a thread block may have.
        """
        self.bind(device)
        module, function = _POINTER(), _POINTER()
        self._check(self._load(ctypes.byref(module), binary), f"load {entry}", LoadError)
        found = self._get(ctypes.byref(function), module, entry.encode())
        self._check(found, f"find {entry} in its module", LoadError)
        handle = function.value or 0
        self.allow(handle, shared)
        return handle

    def launch(
        self,
        function: Handle,
        programs: int,
        threads: int,
        shared: int,
        stream: int,
        params: ctypes.Array[ctypes.c_void_p],
        device: int,
    ) -> None:
        """Start thread blocks on a stream; `params` are the addresses of the parameters. Raises LaunchError."""
        self.bind(device)
        code = self._launch(function, programs, 1, 1, threads, 1, 1, shared, stream, params, None)
        self._check(code, f"launch {programs} blocks of {threads} threads", LaunchError)

    @abstractmethod
    def bind(self, device: int) -> None:
        """See to it that this thread works on a device."""

    @abstractmethod
    def allow(self, function: Handle, shared: int) -> None:
        """Let a kernel take so many bytes of shared memory."""

    @abstractmethod
    def text(self, code: int) -> str:
        """What the library calls an error."""

    def _function(self, name: str, argtypes: list[Any], restype: Any = _INT) -> Callable[..., Any]:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise LoadError(
                f"{self._library._name} has no function {name}", hint="install the driver that PyTorch wants"
            ) from None
        function.argtypes, function.restype = argtypes, restype
        return function

    def _check(self, code: int, what: str, error: type[AttngenError]) -> None:
        if code == 0:
            return
        if code in (_OUT_OF_MEMORY, _OUT_OF_RESOURCES):
            error = ResourceError
        raise error(f"the driver could not {what}: {self.text(code)}")


class CudaDriver(Driver):
    """NVIDIA's."""

    load_name, get_name, launch_name = "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self._attribute = self._function("cuFuncSetAttribute", [_POINTER, _INT, _INT])
        self._cache_config = self._function("cuFuncSetCacheConfig", [_POINTER, _INT])
        self._name = self._function("cuGetErrorName", [_INT, _POINTER])
        self._string = self._function("cuGetErrorString", [_INT, _POINTER])
        self._current = self._function("cuCtxGetCurrent", [_POINTER])
        self._make_current = self._function("cuCtxSetCurrent", [_POINTER])
        self._device = self._function("cuDeviceGet", [_POINTER, _INT])
        self._primary = self._function("cuDevicePrimaryCtxRetain", [_POINTER, _INT])
        self._contexts: dict[int, int] = {}
        self._check(self._function("cuInit", [_UINT])(0), "start", LoadError)

    def bind(self, device: int) -> None:
        """Make PyTorch's context of a device current: a thread that asked for nothing yet has none."""
        context = self._contexts.get(device)
        if context is None:
            context = self._contexts[device] = self._context(device)
        current = _POINTER()
        self._check(self._current(ctypes.byref(current)), "tell its context", LaunchError)
        if current.value != context:
            self._check(self._make_current(context), "enter PyTorch's context", LaunchError)

    def _context(self, device: int) -> int:
        ordinal, context = _INT(), _POINTER()
        self._check(self._device(ctypes.byref(ordinal), device), f"find device {device}", LoadError)
        retained = self._primary(ctypes.byref(context), ordinal)
        self._check(retained, f"enter the context of device {device}", LoadError)
        return context.value or 0

    def allow(self, function: Handle, shared: int) -> None:
        """Beyond 48 KiB a kernel must ask for shared memory, and wants less of it to be a cache."""
        if shared <= _ALWAYS_SHARED:
            return
        what = f"give a thread block {shared} bytes of shared memory"
        self._check(self._cache_config(function, _PREFER_SHARED), what, LoadError)
        self._check(self._attribute(function, _MAX_DYNAMIC_SHARED, shared), what, ResourceError)

    def text(self, code: int) -> str:
        """What the library calls an error."""
        name, string = ctypes.c_char_p(), ctypes.c_char_p()
        self._name(code, ctypes.byref(name))
        self._string(code, ctypes.byref(string))
        return _shown(code, name.value, string.value)


class HipDriver(Driver):
    """AMD's."""

    load_name, get_name, launch_name = "hipModuleLoadData", "hipModuleGetFunction", "hipModuleLaunchKernel"

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self._name = self._function("hipGetErrorName", [_INT], ctypes.c_char_p)
        self._string = self._function("hipGetErrorString", [_INT], ctypes.c_char_p)

    def bind(self, device: int) -> None:
        """The current device of a thread is all that there is, and PyTorch has set it."""

    def allow(self, function: Handle, shared: int) -> None:
        """A thread block may take all of the LDS that there is, unasked."""

    def text(self, code: int) -> str:
        """What the library calls an error."""
        return _shown(code, self._name(code), self._string(code))


def _shown(code: int, name: bytes | None, string: bytes | None) -> str:
    return f"{(name or b'error').decode()} ({code}), {(string or b'unknown').decode()}"


@cache
def driver_of(kind: Literal["cuda", "hip"]) -> Driver:
    """The driver of this machine. Raises LoadError where there is none."""
    if kind == "cuda":
        return CudaDriver(_opened(["libcuda.so.1"]))
    # PyTorch brings a library of its own, and a second one beside it would know nothing of its streams
    beside = Path(torch.__file__).parent / "lib" / "libamdhip64.so"
    return HipDriver(_opened([*_loaded("libamdhip64.so"), str(beside), "libamdhip64.so"]))


def _opened(names: list[str]) -> ctypes.CDLL:
    failed = ""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            failed = str(error)
    raise LoadError(f"there is no driver of a GPU: {failed}", hint="install the driver, or run on the CPU")


def _loaded(name: str) -> list[str]:
    """The paths of libraries of a name that this process has loaded."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    paths = (line.partition("/") for line in lines)
    return sorted(
        {f"/{rest}" for _, slash, rest in paths if slash and rest.rsplit("/", 1)[-1].startswith(name)}
    )
