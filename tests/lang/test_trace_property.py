"""Random functions of the score and the indices: traced, they mean what torch computes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.capture import mask, score
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Load, Var
from attngen.lang.kinds import kind_of
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import Kind
from attngen.lang.parse import parse_program

N = 6
TABLE = torch.tensor([4, -2, 0, 7, 1, 3])
FLAGS = torch.tensor([True, False, True, True, False, True])
Q, K = torch.arange(N)[:, None], torch.arange(N)
S = torch.linspace(-3, 3, N * N, dtype=torch.float64).reshape(N, N)

# A function is a nested tuple; `build` computes it on whatever `env` holds, symbols or tensors.
Node = tuple

ints = st.deferred(
    lambda: st.one_of(
        st.sampled_from([("leaf", "q"), ("leaf", "k")]),
        st.integers(-5, 5).map(lambda n: ("lit", n)),
        st.tuples(st.sampled_from(["add", "sub", "mul", "min", "max"]), ints, ints),
        st.tuples(st.sampled_from(["floordiv", "mod"]), ints, st.integers(1, 4).map(lambda n: ("lit", n))),
        st.tuples(st.sampled_from(["neg", "abs", "invert"]), ints),
        st.tuples(st.just("where"), bools, ints, ints),
        st.tuples(st.just("count"), bools),
        st.tuples(st.just("table"), st.sampled_from([("leaf", "q"), ("leaf", "k")])),
    )
)
bools = st.deferred(
    lambda: st.one_of(
        st.tuples(st.sampled_from(["lt", "le", "eq", "ne", "ge"]), ints, ints),
        st.tuples(st.sampled_from(["lt", "ge"]), floats, ints),
        st.tuples(st.sampled_from(["and", "or", "xor", "same", "times", "plus"]), bools, bools),
        st.tuples(st.just("invert"), bools),
        st.tuples(st.just("flags"), st.sampled_from([("leaf", "q"), ("leaf", "k")])),
    )
)
floats = st.deferred(
    lambda: st.one_of(
        st.just(("leaf", "s")),
        st.sampled_from([-1.5, 0.25, 2.0]).map(lambda x: ("lit", x)),
        st.tuples(st.sampled_from(["add", "sub", "mul", "min", "max"]), floats, st.one_of(floats, ints)),
        st.tuples(st.sampled_from(["tanh", "sigmoid", "abs", "neg", "round"]), floats),
        st.tuples(st.just("where"), bools, floats, floats),
        st.tuples(st.just("scale"), floats, bools),
    )
)

BUILD = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": lambda a, b: torch.minimum(torch.as_tensor(a) if not hasattr(a, "dtype") else a, b),
    "max": lambda a, b: torch.maximum(torch.as_tensor(a) if not hasattr(a, "dtype") else a, b),
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "neg": lambda a: -a,
    "abs": abs,
    "invert": lambda a: ~a,
    "where": lambda c, a, b: torch.where(c, a, b),
    "count": lambda c: c.int(),
    "table": lambda i: TABLE[i],
    "flags": lambda i: FLAGS[i],
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "ge": lambda a, b: a >= b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "same": lambda a, b: a == b,
    "times": lambda a, b: a * b,
    "plus": lambda a, b: a + b,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "round": torch.round,
    "scale": lambda a, c: a * c,
}


def build(node: Node, env: dict):
    match node:
        case ("leaf", name):
            return env[name]
        case ("lit", value):
            return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
        case (op, *args):
            return BUILD[op](*(build(a, env) for a in args))


def run(captured) -> np.ndarray:
    index = {"q": Q.numpy(), "k": K.numpy()}

    def leaf(node):
        match node:
            case Const(value):
                return value
            case Var(name):
                return index[name]
            case Load("S", ()):
                return S.numpy()
            case Load(name, indices):
                return captured.values[name].numpy()[tuple(evaluate(i, leaf, NUMPY_OPS) for i in indices)]
        raise AssertionError(node)

    return np.broadcast_to(evaluate(captured.expr, leaf, NUMPY_OPS), (N, N))


@settings(max_examples=150, deadline=None, print_blob=True)
@given(bools)
def test_random_predicates(node):
    captured = mask(lambda b, h, q, k: build(without_score(node), {"q": q, "k": k}))
    expected = torch.as_tensor(build(without_score(node), {"q": Q, "k": K}))
    np.testing.assert_array_equal(run(captured), expected.broadcast_to(N, N).numpy())
    kinds = {t.name: t.kind for t in captured.tensors}
    assert kind_of(captured.expr, kinds) is Kind.BOOL
    declared = "".join(f"{t.name}[{t.ranks[0]}]: {t.kind}\n" for t in captured.tensors)
    assert parse_program(f"{declared}mask = {captured.text()}").mask == captured.expr


@settings(max_examples=150, deadline=None, print_blob=True)
@given(floats)
def test_random_scores(node):
    captured = score(lambda s, b, h, q, k: build(node, {"q": q, "k": k, "s": s}))
    expected = torch.as_tensor(build(node, {"q": Q, "k": K, "s": S}), dtype=torch.float64)
    np.testing.assert_allclose(run(captured), expected.broadcast_to(N, N).numpy(), rtol=1e-12, atol=1e-12)
    kinds = {"S": Kind.FLOAT, **{t.name: t.kind for t in captured.tensors}}
    assert kind_of(captured.expr, kinds) is Kind.FLOAT


def without_score(node):
    """A predicate cannot read the score: k takes its place."""
    if node == ("leaf", "s"):
        return ("leaf", "k")
    return tuple(without_score(part) if isinstance(part, tuple) else part for part in node)
