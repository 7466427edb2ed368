"""Names for what a function captures: as the user wrote them, unique, and valid in program text."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from attngen.lang.ops import OPS, REDUCERS, SUGAR
from attngen.lang.program import IMPLICIT_PARAMS, INPUT_RANKS, SIZES
from attngen.lang.symbol import is_tensor

_WORDS = [
    "b",
    "h",
    "g",
    "q",
    "k",
    "d",
    "e",
    "S",
    "mask",
    "score",
    "cascade",
    "outputs",
    "tokens",
    "grid",
    "const",
    "rank",
    "int",
    "float",
    "bool",
    "inf",
    "nan",
    "true",
    "false",
]
RESERVED: frozenset[str] = frozenset(
    [*_WORDS, *OPS, *SUGAR, *REDUCERS, *SIZES, *IMPLICIT_PARAMS, *INPUT_RANKS, *keyword.kwlist]
)

_MAX_DEPTH = 6
_MAX_ITEMS = 64


def tensor_names(fn: Callable[..., Any]) -> dict[int, str]:
    """Names under which tensors are reachable from `fn`, by `id`; the nearest name wins.

    Looks through closures, globals the code mentions, defaults, `functools.partial`, bound methods, callable
    objects and their attributes, nested functions, lists, tuples and dictionaries.
    """
    names: dict[int, str] = {}
    seen: set[int] = set()
    level: list[tuple[str, object]] = [("", fn)]
    for _ in range(_MAX_DEPTH):
        following: list[tuple[str, object]] = []
        for name, obj in level:
            if id(obj) in seen:
                continue
            seen.add(id(obj))
            if is_tensor(obj):
                names[id(obj)] = name
            else:
                following.extend(_contents(name, obj))
        level = following
    return names


def _contents(name: str, obj: object) -> Iterator[tuple[str, object]]:
    if isinstance(obj, partial):
        yield from obj.keywords.items()
        yield from zip(_parameter_names(obj.func), obj.args, strict=False)
        yield "", obj.func
    elif isinstance(obj, MethodType):
        yield from _contents(name, obj.__self__)
        yield "", obj.__func__
    elif isinstance(obj, FunctionType):
        yield from captured_variables(obj)
    elif isinstance(obj, list | tuple):
        yield from ((f"{name}_{i}", item) for i, item in enumerate(obj[:_MAX_ITEMS]))
    elif isinstance(obj, dict):
        yield from ((str(key), item) for key, item in list(obj.items())[:_MAX_ITEMS])
    elif not isinstance(obj, type | ModuleType) and hasattr(obj, "__dict__"):
        yield from _attributes(obj)


def _attributes(obj: object) -> Iterator[tuple[str, object]]:
    attributes = dict(vars(obj))
    for table in ("_parameters", "_buffers"):  # where torch.nn.Module keeps its tensors
        inner = attributes.pop(table, None)
        if isinstance(inner, dict):
            yield from inner.items()
    yield from list(attributes.items())[:_MAX_ITEMS]
    call = getattr(type(obj), "__call__", None)  # noqa: B004 -- the function itself is wanted
    if isinstance(call, FunctionType):
        yield "", call


def captured_variables(fn: FunctionType) -> Iterator[tuple[str, object]]:
    """Variables that a function reads from outside: closure, defaults, globals its code mentions."""
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # assigned later than the function is made
            continue
    positional = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    defaults = fn.__defaults__ or ()
    yield from zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
    yield from (fn.__kwdefaults__ or {}).items()
    for code in codes(fn.__code__):
        for name in code.co_names:
            if name in fn.__globals__:
                yield name, fn.__globals__[name]


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of the functions and comprehensions inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes(const)


def _parameter_names(fn: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return []


def choose_names(wanted: Iterable[str | None]) -> list[str]:
    """One name for each wish, in order: valid, unreserved, unique; `t0`, `t1`, ... where there is no wish.

    Names in capitals become lower case, because Einsum targets (`M`, `LSE`) are written in capitals.
    """
    taken: set[str] = set()
    chosen: list[str] = []
    n_unnamed = 0
    for wish in wanted:
        base = _identifier(wish)
        if base is None:
            while f"t{n_unnamed}" in taken:
                n_unnamed += 1
            base = f"t{n_unnamed}"
        name, suffix = base, 2
        while name in taken or name in RESERVED:
            name, suffix = f"{base}_{suffix}", suffix + 1
        taken.add(name)
        chosen.append(name)
    return chosen


def _identifier(wish: str | None) -> str | None:
    """The wish as an ASCII identifier, or None where nothing of it can be kept."""
    if not wish:
        return None
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in wish).strip("_")
    if not text:
        return None
    text = text.lower() if text.isupper() else text
    text = text if text[0].isalpha() else f"t_{text}"
    return f"{text}_" if text in RESERVED else text
