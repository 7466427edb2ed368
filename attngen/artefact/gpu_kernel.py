"""A kernel for GPUs that was built ahead of time, launched through the driver.

Call  ->  one buffer of parameters, laid out as the kernel reads it:
          Q.data_ptr(), Q.stride(0), ..., n_b, n_h, ..., scale, memory to work in, memory of a profiler (none)
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from threading import Lock
from typing import Literal, cast

import torch

from attngen.artefact.driver import Driver, Handle, driver_of
from attngen.artefact.manifest import Kernel as Built
from attngen.artefact.targets import shared_limit
from attngen.backends.base import Call
from attngen.backends.triton_call import CallArgs, tensor_of
from attngen.emit.triton.assume import ALIGNED
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.names import TRAILING_POINTERS, Arg
from attngen.errors import DeviceError, InternalError, LaunchError, ParameterError
from attngen.value import value

_LEAST, _MOST = -(2**31), 2**31 - 1
_NARROW = 4  # bytes of a stride


@value
class Lies:
    """How a kernel counts on a tensor to lie.

    aligned  whether its address is a multiple of 16 bytes.
    ones     the axes whose stride is 1; of `wholes` it is a multiple of 16 elements, of `narrow` it fits 32 bits.
    """

    name: str
    aligned: bool
    ones: tuple[int, ...]
    wholes: tuple[int, ...]
    narrow: tuple[int, ...]


def lies_of(kernel: Built) -> tuple[Lies, ...]:
    """What a kernel counts on, by tensor. Lists and orders come with the launch, which makes them as they must be."""
    aligned, ones = set(kernel.aligned), set(kernel.ones)
    pointers = {a.of: a.name in aligned for a in kernel.args if a.role == "pointer"}

    def axes(of: str, wanted: Callable[[Arg], bool]) -> tuple[int, ...]:
        return tuple(a.axis for a in kernel.args if a.role == "stride" and a.of == of and wanted(a))

    return tuple(
        Lies(
            name,
            whole,
            axes(name, lambda a: a.name in ones),
            axes(name, lambda a: a.name in aligned),
            axes(name, lambda a: a.name not in ones and a.nbytes == _NARROW),
        )
        for name, whole in pointers.items()
    )


def _too_large(kernel: Built, call: Call) -> str | None:
    device, shared = call.query.device, kernel.launch.shared
    if device.type == "cuda" and shared > shared_limit(device):
        return (
            f"takes {shared} bytes of shared memory, and {device} gives a thread block {shared_limit(device)}"
        )
    return None


def _obstacle(counted_on: tuple[Lies, ...], call: Call) -> str | None:
    for lies in counted_on:
        name, tensor = lies.name, tensor_of(lies.name, call)
        if lies.aligned and tensor.data_ptr() % ALIGNED:
            return f"{name} begins at the address {tensor.data_ptr():#x}, no multiple of {ALIGNED} bytes"
        strides = _strides(tensor)
        for axis in lies.ones:
            if strides[axis] != 1 and tensor.shape[axis] != 1:
                return f"axis {axis} of {name} has a stride of {strides[axis]} elements, not 1"
        for axis in lies.wholes:
            if strides[axis] % ALIGNED:
                return f"axis {axis} of {name} has a stride of {strides[axis]} elements, no multiple of {ALIGNED}"
        for axis in lies.narrow:
            if not _LEAST <= strides[axis] <= _MOST:
                return f"axis {axis} of {name} has a stride of {strides[axis]} elements, which 32 bits do not hold"
    return None


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides; 0 of an axis of a single element, whose stride is never multiplied by anything but 0."""
    strides = tensor.stride()
    if 1 in tensor.shape:
        return tuple(0 if n == 1 else s for n, s in zip(tensor.shape, strides, strict=True))
    return strides


class GpuKernel:
    """A loaded kernel. Calls from several threads at once are fine; its code stays on a device it ran on."""

    jit = False

    def __init__(self, kernel: Built, binary: bytes) -> None:
        config = kernel.config
        if not isinstance(config, TritonConfig):
            raise InternalError(f"{kernel.name} has no configuration of a GPU's kernel")
        self.block_q, self.block_k = config.block_q, config.block_k
        self._kernel, self._binary = kernel, binary
        self._call = CallArgs(kernel.args, config)
        self._counts_on = lies_of(kernel)
        self.packed = self._call.packed
        self.needs_lists, self.needs_order = self._call.needs_lists, self._call.needs_order
        ones = set(kernel.ones)
        self._passed = tuple(a for a in kernel.args if a.name not in ones)
        codes = [_code(a) for a in self._passed] + ["Q"] * TRAILING_POINTERS
        self._layout = struct.Struct("@" + "".join(codes))
        self._offsets = [
            struct.calcsize("@" + "".join(codes[: i + 1])) - struct.calcsize(code)
            for i, code in enumerate(codes)
        ]
        self._addresses = ctypes.c_void_p * len(codes)
        self._functions: dict[int, Handle] = {}
        self._lock = Lock()

    def refusal(self, call: Call) -> str | None:
        """Why it cannot take a call; None where it can.

        The call's tensors may not lie as the kernel counts on, or their device may have less shared memory than a
        thread block takes. An axis of one element has no stride that matters.
        """
        return _too_large(self._kernel, call) or _obstacle(self._counts_on, call)

    def launch(self, call: Call) -> None:
        """Run on the tensors' device and PyTorch's current stream; writes every element of every output.

        Raises DeviceError, LoadError, LaunchError for a call that does not meet what the kernel counts on,
        ResourceError, ParameterError for an integer beyond 32 bits, ShapeError for a captured tensor without elements,
        UnsupportedError.
        """
        device = call.query.device
        if device.type != "cuda":
            raise DeviceError(f"{self._kernel.name} runs on a GPU, and the tensors are on {device}")
        with torch.cuda.device_of(call.query):
            driver = driver_of(cast("Literal['cuda', 'hip']", self._kernel.target.kind))
            self.start(call, driver, device.index, torch.cuda.current_stream(device).cuda_stream)

    def start(self, call: Call, driver: Driver, device: int, stream: int) -> None:
        """Run through a driver, on a stream of a device, which is the current one."""
        rows = self._call.rows(call)
        if not rows:
            return
        call = self._call.near(call)
        why = _obstacle(self._counts_on, call)
        if why is not None:
            raise LaunchError(
                f"{self._kernel.name} cannot take this call: {why}",
                hint="make the tensor contiguous, or build a kernel that counts on less (alignment `none`)",
            )
        programs = self._call.programs(rows, call.query.device)
        launch = self._kernel.launch
        # the allocator hands it on in the order of the stream, so that it may go before the kernel has run
        scratch = self._scratch(launch.scratch * programs, call.query.device)
        values = [self._value(arg, call) for arg in self._passed]
        buffer = ctypes.create_string_buffer(self._layout.size)
        self._layout.pack_into(buffer, 0, *values, 0 if scratch is None else scratch.data_ptr(), 0)
        start = ctypes.addressof(buffer)
        params = self._addresses(*[start + offset for offset in self._offsets])
        function = self._function(driver, device)
        driver.launch(function, programs, launch.threads, launch.shared, stream, params, device)

    @staticmethod
    def _scratch(nbytes: int, device: torch.device) -> torch.Tensor | None:
        return torch.empty(nbytes, dtype=torch.int8, device=device) if nbytes else None

    def recipe(self) -> dict[str, object]:
        """Where it came from: the artefact is opened again, never the cache."""
        return {"artefact": self._kernel.name}

    def _function(self, driver: Driver, device: int) -> Handle:
        function = self._functions.get(device)
        if function is None:
            with self._lock:
                function = self._functions.get(device)
                if function is None:
                    kernel = self._kernel
                    function = driver.load(self._binary, kernel.entry, kernel.launch.shared, device)
                    self._functions[device] = function
        return function

    def _value(self, arg: Arg, call: Call) -> int | float | bool:
        """What a call passes as an argument, as a number."""
        if arg.role == "stride":
            return _strides(tensor_of(arg.of, call))[arg.axis]
        found = self._call.value(arg, call)
        if isinstance(found, torch.Tensor):
            return found.data_ptr()
        if arg.role != "param":
            return found
        if arg.dtype == "float":
            return ctypes.c_float(found).value  # beyond fp32 it is infinite, as a conversion on the device is
        if arg.dtype == "bool":
            return bool(found)
        number = int(found)
        if not _LEAST <= number <= _MOST:
            raise ParameterError(
                f"parameter `{arg.of}` = {number} does not fit 32 bits",
                hint="positions are 32-bit integers, so no larger number makes a difference: use one below 2**31",
            )
        return number


def _code(arg: Arg) -> str:
    """How `struct` lays an argument out."""
    if arg.role == "param" and arg.dtype == "float":
        return "f"
    unsigned = arg.role.endswith("pointer")
    return {1: "?", 4: "i", 8: "Q" if unsigned else "q"}[arg.nbytes]
