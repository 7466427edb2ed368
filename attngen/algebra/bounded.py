"""Run a proof under a wall-clock bound: computer algebra has no upper limit of its own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Generic, TypeVar

T = TypeVar("T")


class _Expired(BaseException):
    """Raised inside the worker when its time is up; no Exception, so that sympy's handlers let it pass."""


class _Worker(threading.Thread, Generic[T]):
    def __init__(self, fn: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="attngen-proof")
        self.fn = fn
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False

    def run(self) -> None:
        try:
            self.result = self.fn()
            self.done = True
        except _Expired:
            pass
        except Exception as err:
            self.error = err


def bounded(fn: Callable[[], T], seconds: float, default: T) -> T:
    """`fn()`, or `default` if it takes longer than `seconds`; what `fn` raises is raised here."""
    import_module("sympy")  # outside the bound, which must never cut an import short
    worker = _Worker(fn)
    worker.start()
    worker.join(seconds)
    if worker.is_alive() and worker.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(_Expired))
        worker.join(1.0)
    if worker.error is not None:
        raise worker.error
    return worker.result if worker.done else default  # type: ignore[return-value]
