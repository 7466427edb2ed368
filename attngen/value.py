"""Frozen value classes that are cheap to create.

`@value` gives what `@dataclass(frozen=True, slots=True)` gives, and `dataclasses.replace`, `fields`, `asdict` and class
patterns work on the result. The difference is the cost of the class itself: `dataclass` compiles source text for every
method of every class, about a millisecond a class, which a process that only launches a cached kernel pays before
anything else. Here the methods are shared closures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_FIELDS = "__dataclass_fields__"
_HASH = "_hash"  # worked out once: expressions are trees, and planning looks the same ones up again and again
_PLAIN = dataclasses._FIELD  # pyright: ignore


@dataclass_transform(frozen_default=True, eq_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, slotted value class, compared and hashed by its fields."""
    fields: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        fields |= getattr(base, _FIELDS, {})
    own = _own_fields(cls)
    fields |= own
    namespace = {
        name: thing
        for name, thing in vars(cls).items()
        if name not in own and name not in ("__dict__", "__weakref__")
    }
    methods = _methods(cls.__qualname__, fields)
    if "__eq__" in namespace:  # written by hand, and then so is the hash
        del methods["__eq__"], methods["__hash__"]
    namespace |= {name: m for name, m in methods.items() if name not in namespace}
    has_hash = any(_HASH in getattr(base, "__slots__", ()) for base in cls.__mro__[1:])
    namespace["__slots__"] = tuple(own) if has_hash else (*own, _HASH)
    namespace["__match_args__"] = tuple(f.name for f in fields.values() if not f.kw_only)
    namespace[_FIELDS] = fields
    made: Any = type(cls)(cls.__name__, cls.__bases__, namespace)
    return made


def _own_fields(cls: type) -> dict[str, Field[Any]]:
    own: dict[str, Field[Any]] = {}
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if str(annotation).startswith(("ClassVar", "typing.ClassVar")):
            continue
        default = vars(cls).get(name, MISSING)
        made: Field[Any] = default if isinstance(default, Field) else field(default=default)
        made.name, made.type = name, annotation
        made._field_type = _PLAIN  # pyright: ignore
        made.kw_only = made.kw_only is True
        own[name] = made
    return own


def _methods(title: str, fields: dict[str, Field[Any]]) -> dict[str, Callable[..., Any]]:
    """The methods all value classes share, over the fields of one of them."""
    names = tuple(fields)
    positional = tuple(f.name for f in fields.values() if not f.kw_only)
    compared = tuple(f.name for f in fields.values() if f.compare)
    shown = tuple(f.name for f in fields.values() if f.repr)
    put = object.__setattr__

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        if len(args) > len(positional):
            raise TypeError(f"{title} takes {len(positional)} positional arguments, not {len(args)}")
        for name, arg in zip(positional, args, strict=False):
            if name in given:
                raise TypeError(f"{title} got two values for {name!r}")
            put(self, name, arg)
        done = positional[: len(args)]
        for name in names:
            if name in done:
                continue
            put(self, name, given.pop(name) if name in given else _default(title, fields[name]))
        if given:
            raise TypeError(f"{title} has no field {next(iter(given))!r}")

    def __eq__(self: Any, other: object) -> bool:
        if other is self:
            return True
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in compared)

    def __hash__(self: Any) -> int:
        try:
            return self._hash
        except AttributeError:
            put(self, _HASH, hash((title, *[getattr(self, n) for n in compared])))
            return self._hash

    def __repr__(self: Any) -> str:
        return f"{title}({', '.join(f'{n}={getattr(self, n)!r}' for n in shown)})"

    def __setattr__(self: Any, name: str, _value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self: Any, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, n) for n in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, held in zip(names, state, strict=True):
            put(self, name, held)

    made = (__init__, __eq__, __hash__, __repr__, __setattr__, __delattr__, __getstate__, __setstate__)
    return {m.__name__: m for m in made}


def _default(title: str, missing: Field[Any]) -> Any:
    if missing.default is not MISSING:
        return missing.default
    if missing.default_factory is not MISSING:
        return missing.default_factory()
    raise TypeError(f"{title} needs a value for {missing.name!r}")
