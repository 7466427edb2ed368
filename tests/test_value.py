"""`@value` is `@dataclass(frozen=True, slots=True)` by another road."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import ClassVar

import pytest

from attngen.value import value


@value
class Base:
    note: str | None = field(default=None, compare=False, repr=False, kw_only=True)


@value
class Point(Base):
    x: int
    y: int = 2
    tags: list[int] = field(default_factory=list)
    kind: ClassVar[str] = "point"

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class TwinBase:
    note: str | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Twin(TwinBase):
    x: int
    y: int = 2
    tags: list[int] = field(default_factory=list)
    kind: ClassVar[str] = "point"


def test_it_behaves_as_a_dataclass_does():
    p, t = Point(1, note="a"), Twin(1, note="a")
    assert repr(p) == repr(t).replace("Twin", "Point")
    assert p == Point(1, 2, [], note="b")
    assert p != Point(3)
    assert p != t
    assert (p.x, p.y, p.tags, p.note, p.total, p.kind) == (1, 2, [], "a", 3, "point")
    assert Point.__match_args__ == Twin.__match_args__
    assert [f.name for f in fields(p)] == [f.name for f in fields(t)]
    assert asdict(p) == asdict(t)
    assert replace(p, y=5) == Point(1, 5)
    assert replace(p, y=5).note == "a"
    assert not hasattr(p, "__dict__")
    match p:
        case Point(1, y):
            assert y == 2
        case _:
            pytest.fail("no match")


def test_equal_values_hash_alike():
    assert hash(replace(Point(1), tags=())) == hash(Point(1, tags=()))
    assert len({Point(1, tags=()), Point(1, tags=(), note="x"), Point(2, tags=())}) == 2


def test_it_is_frozen():
    p = Point(1)
    with pytest.raises(FrozenInstanceError):
        p.x = 3
    with pytest.raises(FrozenInstanceError):
        del p.x


@pytest.mark.parametrize(
    "call", [lambda: Point(), lambda: Point(1, 2, [], 4), lambda: Point(1, x=1), lambda: Point(1, z=1)]
)
def test_wrong_arguments_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


def test_a_class_may_bring_its_own_equality():
    @value
    class Odd:
        n: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Odd) and self.n % 2 == other.n % 2

        def __hash__(self) -> int:
            return self.n % 2

    assert Odd(1) == Odd(3)
    assert hash(Odd(1)) == hash(Odd(3))


def test_copies_and_pickles():
    from attngen.lang.expr import Const, Var, apply

    expr = apply("add", Var("q"), Const(1))
    assert copy.deepcopy(expr) == expr
    assert pickle.loads(pickle.dumps(expr)) == expr
