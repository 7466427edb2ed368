"""Calls that one measurement serves: lengths, counts and whole parameters in steps.

    n        1 .. 16   17 .. 24   25 .. 32   33 .. 48   49 .. 64   65 .. 96   ...
    bucket      16         24         32         48         64         96     ...

Steps are powers of two and the numbers half way between, so a bucket holds calls that differ by a third at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngen.arguments import Number, Shapes

_LEAST = 16


def bucket(n: int) -> int:
    """The step at or above `n`; numbers up to 16 share the first."""
    if n <= _LEAST:
        return _LEAST
    top = 1 << (n - 1).bit_length()
    between = top - (top >> 2)
    return between if n <= between else top


def count_bucket(n: int) -> int:
    """The power of two at or above a count of heads, rows of a batch or the like."""
    return 1 << max(n - 1, 0).bit_length()


def value_bucket(value: Number) -> Number | None:
    """What of a parameter decides how much work there is: whole numbers in steps, booleans; None for reals."""
    if value.__class__ is float:
        return None
    if value.__class__ is bool:
        return value
    return bucket(int(value)) if value >= 0 else -bucket(-int(value))


def call_bucket(shapes: Shapes, params: Mapping[str, Number]) -> tuple[object, ...]:
    """What calls of one program, dtype and device have in common where one configuration serves them all."""
    return (
        count_bucket(shapes.batch * shapes.heads),
        shapes.heads // (shapes.kv_heads or 1),
        bucket(shapes.n_q),
        bucket(shapes.n_k),
        shapes.head_dim,
        shapes.value_dim,
        *map(value_bucket, params.values()),
    )


def bucket_facts(shapes: Shapes, params: Mapping[str, Number]) -> dict[str, object]:
    """`call_bucket` with names, for keys that are written down."""
    return {
        "batch_heads": count_bucket(shapes.batch * shapes.heads),
        "group": shapes.heads // (shapes.kv_heads or 1),
        "n_q": bucket(shapes.n_q),
        "n_k": bucket(shapes.n_k),
        "head_dim": shapes.head_dim,
        "value_dim": shapes.value_dim,
        "params": {n: b for n, v in params.items() if (b := value_bucket(v)) is not None},
    }
