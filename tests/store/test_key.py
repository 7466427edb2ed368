from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.errors import UnkeyableError
from attngen.store.fingerprint import fingerprint
from attngen.store.key import canonical_json, digest

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


def same(a: object, b: object) -> bool:
    """Equality that tells 1 from 1.0 and True, and -0.0 from 0.0; nan equals itself."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@settings(print_blob=True, deadline=None)
@given(KEYS, KEYS)
def test_equal_keys_and_only_they_have_equal_digests(a: dict[str, object], b: dict[str, object]):
    assert (digest(a) == digest(b)) == same(a, b)


@settings(print_blob=True, deadline=None)
@given(KEYS)
def test_order_of_names_does_not_matter(key: dict[str, object]):
    assert digest(dict(reversed(key.items()))) == digest(key)


def test_tuples_are_lists_and_any_mapping_will_do():
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    assert digest(MappingProxyType({"a": 1})) == digest({"a": 1})


def test_digest_is_the_same_in_every_process():
    key: Mapping[str, object] = {"text": "é\udc80", "n": 1, "x": 0.1, "flags": ("-O3", None, True)}
    assert canonical_json(key).isascii()
    code = (
        "from attngen.store.key import digest;"
        "print(digest({'flags': ('-O3', None, True), 'x': 0.1, 'n': 1, 'text': 'é\\udc80'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(key)


class Colour(enum.Enum):
    RED = 1


class Tone(enum.StrEnum):
    LOW = "low"


@pytest.mark.parametrize(
    "value",
    [object(), {1}, b"x", Path("x"), np.float32(1), np.int64(1), np.zeros(2), Colour.RED, lambda: 0, 1j],
    ids=lambda v: type(v).__name__,
)
def test_unknown_objects_are_refused_by_name(value: object):
    with pytest.raises(UnkeyableError, match=r"key\.a\[1\]\.b ") as caught:
        digest({"a": [0, {"b": value}]})
    assert isinstance(caught.value, TypeError)


def test_names_must_be_strings():
    with pytest.raises(UnkeyableError, match="not a string"):
        digest({"a": {1: 2}})


def test_fingerprint_follows_the_sources():
    assert fingerprint("lang") != fingerprint("store")
    assert fingerprint("lang", "store") not in (fingerprint("lang"), fingerprint("store"))
    with pytest.raises(ValueError, match="no room 'nowhere'"):
        fingerprint("nowhere")
