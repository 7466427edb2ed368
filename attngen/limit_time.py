"""Work out what a program becomes within a bound of time: a short text may ask for more than anybody waits for.

Rewrites of expressions and computer algebra have no limit of their own. They run in a thread that is stopped; a result
never depends on the time it took, since work that is stopped ends in an error.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Generic, TypeVar

from attngen.errors import UnsupportedError
from attngen.store.settings import settings

T = TypeVar("T")

_STOP_S = 5.0  # for the thread to notice; a single step of it takes less
_inside: ContextVar[bool] = ContextVar("inside", default=False)


class _Expired(BaseException):
    """Raised inside the worker when its time is up; no Exception, so that handlers let it pass."""


class _Worker(threading.Thread, Generic[T]):
    def __init__(self, fn: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="attngen-derivation")
        self._fn = fn
        self._context = copy_context()
        self.results: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.results.append(self._context.run(self._inner))
        except _Expired:
            pass
        except BaseException as error:  # raised where it was asked for
            self.error = error

    def _inner(self) -> T:
        _inside.set(True)
        return self._fn()

    def stop(self) -> None:
        if self.is_alive() and self.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(_Expired))
            self.join(_STOP_S)


def within_time(what: str, fn: Callable[[], T]) -> T:
    """`fn()`, and what it raises. Work inside of other such work shares its time.

    Raises UnsupportedError if it takes longer than ATTNGEN_DERIVE_TIMEOUT_S, or nests deeper than Python's stack.
    """
    try:
        if _inside.get():
            return fn()
        return _bounded(what, fn, settings().derive_timeout_s)
    except RecursionError:
        raise UnsupportedError(
            f"{what} nests too deeply", hint="write it in fewer, or less nested, expressions"
        ) from None


def _bounded(what: str, fn: Callable[[], T], seconds: float) -> T:
    worker = _Worker(fn)
    worker.start()
    try:
        worker.join(seconds)
    finally:  # also where the user interrupts
        worker.stop()
    if worker.error is not None:
        raise worker.error
    if worker.results:
        return worker.results[0]
    raise UnsupportedError(
        f"{what} took longer than {seconds:g} s",
        hint="write it more simply, or give it more time with ATTNGEN_DERIVE_TIMEOUT_S",
    )
