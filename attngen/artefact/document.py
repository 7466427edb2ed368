"""Reading JSON that nobody vouches for: each field has a known type, lies within bounds, and is named when refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from attngen.errors import ArtefactError

T = TypeVar("T")

MAX_BYTES = 4 << 20
MAX_ITEMS = 1 << 16
MAX_DEPTH = 400
_MAX_TEXT = 1 << 20

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}){0,7}")
WORD = re.compile(r"[A-Za-z0-9_.:+-]{1,100}")
# How a kernel for CPUs calls an argument: `n_q`, `Q.stride[0]`, `doc.shape[1]`.
ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]]{0,249}")
_HEX_FLOAT = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}|-?inf|nan")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(data: bytes, what: str) -> Doc:
    """The object in `data`. Raises ArtefactError for too much of it, for what is no JSON, or nests too deep."""
    if len(data) > MAX_BYTES:
        raise ArtefactError(f"{what} has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        found = json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_members_once)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{what} is not JSON: {error}") from None
    _check_depth(found, what)
    return Doc(found, what)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; what two members of one name mean, readers of other languages may see differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has two members of one name")
    return found


def _check_depth(found: object, what: str) -> None:
    level: list[object] = [found]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ArtefactError(f"{what} nests more than {MAX_DEPTH} deep")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += cast("dict[str, object]", item).values()
            elif isinstance(item, list):
                below += cast("list[object]", item)
        level = below


class Doc:
    """An item of a document and where it stands, for the message that refuses it."""

    __slots__ = ("of", "where")

    def __init__(self, of: object, where: str) -> None:
        self.of, self.where = of, where

    def refuse(self, expected: str) -> ArtefactError:
        """The error that says what was expected here."""
        return ArtefactError(f"{self.where}: expected {expected}, found {_short(self.of)}")

    def field(self, name: str) -> Doc:
        """A member of an object."""
        members = self.object()
        if name not in members:
            raise ArtefactError(f"{self.where}: {name!r} is missing")
        return Doc(members[name], f"{self.where}.{name}")

    def optional(self, name: str) -> Doc | None:
        """A member of an object; None where it is missing or null."""
        found = self.object().get(name)
        return None if found is None else Doc(found, f"{self.where}.{name}")

    def object(self) -> dict[str, Any]:
        """The item as an object."""
        if not isinstance(self.of, dict):
            raise self.refuse("an object")
        return cast("dict[str, Any]", self.of)

    def only(self, *names: str) -> Doc:
        """The item, which is an object that has no other members."""
        for name in self.object():
            if name not in names:
                raise ArtefactError(f"{self.where}: nothing is known of {_short(name)}")
        return self

    def members(self) -> Iterator[tuple[str, Doc]]:
        """The members of an object, at most `MAX_ITEMS`."""
        members = self.object()
        if len(members) > MAX_ITEMS:
            raise self.refuse(f"at most {MAX_ITEMS} members")
        for name, item in members.items():
            yield name, Doc(item, f"{self.where}[{_short(name)}]")

    def items(self) -> Iterator[Doc]:
        """The items of a list, at most `MAX_ITEMS`."""
        if not isinstance(self.of, list):
            raise self.refuse("a list")
        items = cast("list[object]", self.of)
        if len(items) > MAX_ITEMS:
            raise self.refuse(f"at most {MAX_ITEMS} items")
        for i, item in enumerate(items):
            yield Doc(item, f"{self.where}[{i}]")

    def tuple(self, read: Callable[[Doc], T]) -> tuple[T, ...]:
        """The items of a list, read."""
        return tuple(read(item) for item in self.items())

    def text(self, shape: re.Pattern[str] | None = None, most: int = _MAX_TEXT) -> str:
        """A string, wholly of a shape."""
        if not isinstance(self.of, str) or len(self.of) > most:
            raise self.refuse(f"a string of at most {most} characters")
        if _SURROGATE.search(self.of):
            raise self.refuse("a string without halves of surrogate pairs")
        if shape is not None and not shape.fullmatch(self.of):
            raise self.refuse(f"a string of the form {shape.pattern}")
        return self.of

    def one_of(self, *known: str) -> str:
        """A string out of a few."""
        if not isinstance(self.of, str) or self.of not in known:
            raise self.refuse(f"one of {', '.join(known)}")
        return self.of

    def integer(self, least: int = 0, most: int = 2**63 - 1) -> int:
        """An integer within bounds; a boolean is none."""
        if type(self.of) is not int or not least <= self.of <= most:
            raise self.refuse(f"an integer from {least} to {most}")
        return self.of

    def boolean(self) -> bool:
        """True or false."""
        if not isinstance(self.of, bool):
            raise self.refuse("true or false")
        return self.of

    def number(self) -> int | float | bool:
        """A parameter's value: a boolean, an integer, or a real as `{"float": "0x1.8p+0"}`."""
        if isinstance(self.of, dict):
            text = self.only("float").field("float").text(_HEX_FLOAT)
            try:
                return float.fromhex(text)
            except OverflowError:
                raise self.refuse("a float in hexadecimal") from None
        if not isinstance(self.of, bool | int) or not -(2**63) <= self.of < 2**63:
            raise self.refuse("a number")
        return self.of


def _short(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= 60 else f"{text[:57]}..."
