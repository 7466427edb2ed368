"""Programs as JSON."""

from __future__ import annotations

import json

import pytest

from attngen.api import Attention
from attngen.errors import CacheError
from attngen.lang.library import cascade_names, program_names
from attngen.lang.parse import parse_program
from attngen.lang.serialize import expr_from_json, program_from_json, program_to_json


@pytest.mark.parametrize("name", program_names())
def test_every_program_round_trips(name):
    import attngen

    program = attngen.load(name).program
    back = program_from_json(json.loads(json.dumps(program_to_json(program))))
    assert back == program
    assert back.doc == program.doc
    assert [p.loc for p in back.params] == [p.loc for p in program.params]


@pytest.mark.parametrize("name", cascade_names())
def test_every_cascade_round_trips(name):
    program = Attention(mask="k <= q", cascade=name).program
    assert program_from_json(json.loads(json.dumps(program_to_json(program)))) == program


def test_ranks_and_slots_round_trip():
    program = parse_program(
        "n: const[int] = 4\nj: rank = 16\ni: rank\nc: rank = (n_k + n_j) // n\n"
        "X[q, j] = topk[k](1.0 * k, j)\nY[i, c] = 1.0 * argtopk[k](1.0 * k, i)\nreturn X, Y"
    )
    back = program_from_json(json.loads(json.dumps(program_to_json(program))))
    assert back.params == program.params
    assert back.cascade == program.cascade


def test_anything_else_is_a_cache_error():
    with pytest.raises(CacheError):
        program_from_json({"name": "x"})
    with pytest.raises(CacheError):
        expr_from_json(["nothing", 1])
