"""Remembering traces: a function called in a loop is traced once, as long as nothing it reads has changed.

A trace may be reused when everything the function reads from outside is the very same object, and is of a
type whose identity settles what a trace reads of it: numbers, strings, tensors (their contents are read at
run time), functions of the same sort, and modules known to hold constants. Anything else (an object with
attributes, a list, a user's module) may have changed inside: such functions are traced afresh each time.
"""

from __future__ import annotations

import dis
import weakref
from collections.abc import Callable
from functools import cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

from attngen.lang.naming import captured_variables, codes
from attngen.lang.symbol import Sym, is_tensor

T = TypeVar("T")

_CONSTANT_MODULES = ("torch", "math", "operator", "functools", "numpy", "attngen", "builtins")
_PLAIN = (bool, int, float, str, bytes, type(None), type(Ellipsis))
_WRITES = frozenset(
    {"STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME", "IMPORT_FROM", "STORE_ATTR", "STORE_SUBSCR"}
)

# What a function reads, in a form that compares: plain values by type and text, the rest by identity.
Snapshot = tuple[tuple[object, ...], ...]


class Memo(Generic[T]):
    """One remembered value a function, forgotten with the function."""

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[Callable[..., Any], tuple[Snapshot, T]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, fn: Callable[..., Any], snapshot: Snapshot) -> T | None:
        """What was remembered for `fn`, if it still reads the same things."""
        entry = self._entries.get(fn)
        return entry[1] if entry is not None and entry[0] == snapshot else None

    def put(self, fn: Callable[..., Any], snapshot: Snapshot, value: T) -> None:
        """Remember `value` until `fn` dies or reads something else."""
        self._entries[fn] = (snapshot, value)


def snapshot(fn: object) -> Snapshot | None:
    """What `fn` reads from outside, or None when that cannot be told from identities."""
    found: list[tuple[object, ...]] = []
    return tuple(found) if _collect(fn, found, set()) else None


def _collect(obj: object, found: list[tuple[object, ...]], seen: set[int]) -> bool:
    if isinstance(obj, _PLAIN):
        found.append(("plain", type(obj), repr(obj)))
        return True
    if id(obj) in seen:
        found.append((_Same(obj),))
        return True
    if isinstance(obj, FunctionType):
        seen.add(id(obj))
        found.append((_Same(obj), obj.__code__))
        return _is_pure(obj.__code__) and all(
            _named(name, value, found, seen) for name, value in captured_variables(obj)
        )
    if isinstance(obj, partial):
        seen.add(id(obj))
        return all(_collect(part, found, seen) for part in (obj.func, obj.args, tuple(obj.keywords.items())))
    if isinstance(obj, tuple):
        found.append(("tuple", len(obj)))
        return all(_collect(item, found, seen) for item in obj)
    return _collect_identity(obj, found)


def _named(name: str, value: object, found: list[tuple[object, ...]], seen: set[int]) -> bool:
    found.append(("name", name))
    return _collect(value, found, seen)


def _collect_identity(obj: object, found: list[tuple[object, ...]]) -> bool:
    if is_tensor(obj):  # dtype and shape are baked into a trace, and `tensor.data = ...` changes them
        found.append((_Same(obj), str(getattr(obj, "dtype", "")), tuple(getattr(obj, "shape", ()))))
        return True
    if isinstance(obj, Sym):  # a parameter: immutable, and it carries its value
        found.append((_Same(obj),))
        return True
    if isinstance(obj, ModuleType):
        found.append(("module", obj.__name__))
        return obj.__name__.split(".")[0] in _CONSTANT_MODULES
    if isinstance(obj, type):  # a class of the user's may hold settings that change
        found.append((_Same(obj),))
        return obj.__module__.split(".")[0] in _CONSTANT_MODULES
    if isinstance(obj, BuiltinFunctionType) or _is_frozen_capture(obj) or _is_torch_constant(obj):
        found.append((_Same(obj),))
        return True
    return False


class _Same:
    """Compares by identity, without keeping the object alive where that can be helped.

    A dead object equals nothing, so an identity that was given to another object meanwhile is not mistaken.
    """

    __slots__ = ("_get",)

    def __init__(self, obj: object) -> None:
        try:
            self._get: Callable[[], object] = weakref.ref(obj)
        except TypeError:  # a dtype or a builtin: these live as long as the process
            self._get = lambda: obj

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return False
        mine = self._get()
        return mine is not None and mine is other._get()

    __hash__ = None  # type: ignore[assignment]


def _is_frozen_capture(obj: object) -> bool:
    return type(obj).__module__ == "attngen.capture"


def _is_torch_constant(obj: object) -> bool:
    return type(obj).__module__ == "torch" and type(obj).__name__ in ("dtype", "device")


@cache
def _is_pure(code: CodeType) -> bool:
    """Whether running the code changes nothing outside and imports nothing."""
    return not any(
        instruction.opname in _WRITES
        or (instruction.opname == "STORE_DEREF" and instruction.argval in part.co_freevars and part is code)
        for part in codes(code)
        for instruction in dis.get_instructions(part)
    )
