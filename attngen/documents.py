"""Small documents that stand for work done earlier: those that an artefact ships, and noting those that a call needs.

A program's Fold and forms are facts: an artefact carries them, so that a process that loads it derives nothing and
looks into no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Generic, ParamSpec, TypeVar

from attngen.store.key import digest

P = ParamSpec("P")
R = TypeVar("R")

# Names of a key that say which sources made a document, or where its text was: no part of what it says.
_ORIGIN = ("sources", "file")


class Documents:
    """Documents by what they say of what."""

    def __init__(self, known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.known: dict[str, Mapping[str, Any]] = dict(known or {})

    def find(self, kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
        """The document of a key, whichever version of attngen made it."""
        found = self.known.get(_name(kind, key))
        return None if found is None else dict(found)

    def add(self, kind: str, key: Mapping[str, object], document: Mapping[str, Any]) -> None:
        """Keep a document."""
        self.known[_name(kind, key)] = document


def _name(kind: str, key: Mapping[str, object]) -> str:
    return f"{kind}-{digest({n: v for n, v in key.items() if n not in _ORIGIN})}"


_shipped: ContextVar[Documents | None] = ContextVar("shipped", default=None)
_noted: ContextVar[Documents | None] = ContextVar("noted", default=None)


def shipped() -> Documents | None:
    """The documents of the artefact that is being called; None outside of such a call."""
    return _shipped.get()


def noted() -> Documents | None:
    """Where documents are noted that are asked for now; None where nobody wants to know."""
    return _noted.get()


def kept(maxsize: int) -> Callable[[Callable[P, R]], Kept[P, R]]:
    """As `functools.lru_cache`, of what is worked out from documents: calls of an artefact see what it ships.

    What an artefact says of a program, which another version may have derived, is thus never taken for what this
    process derives of the same program, nor kept in the cache as that.
    """
    return lambda fn: Kept(fn, maxsize)


class Kept(Generic[P, R]):
    """A function with its results, those under each artefact apart."""

    def __init__(self, fn: Callable[P, R], maxsize: int) -> None:
        self.__doc__, self.__name__ = fn.__doc__, fn.__name__

        @lru_cache(maxsize=maxsize)
        def results(_shipped_by: Documents | None, *args: P.args, **given: P.kwargs) -> R:
            return fn(*args, **given)

        self._results = results

    def __call__(self, *args: P.args, **given: P.kwargs) -> R:
        """The result, from this process if it was asked for before."""
        return self._results(_shipped.get(), *args, **given)

    def cache_clear(self) -> None:
        """Forget all results."""
        self._results.cache_clear()


@contextmanager
def shipping(documents: Documents) -> Generator[None]:
    """Within it these documents are all there is: the cache is neither read nor written for others."""
    before = _shipped.set(documents)
    try:
        yield
    finally:
        _shipped.reset(before)


@contextmanager
def noting() -> Generator[Documents]:
    """Note every document that is asked for or made within it."""
    found = Documents()
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)
