"""Every torch function and method the tracer knows, against torch itself on the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attngen.capture import Captured, mask, score
from attngen.errors import TraceError
from attngen.lang.desugar import desugar_expr
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Load, Var
from attngen.lang.kinds import kind_of
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import Kind
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr
from attngen.lang.torch_names import MEANINGS

X = torch.tensor([-7.5, -3.0, -1.5, -0.5, -0.0, 0.3, 0.5, 1.0, 2.5, 6.25, 30.0], dtype=torch.float64)
Q = torch.arange(0, 11, dtype=torch.int64)
K = torch.tensor([3, 0, 5, 1, 9, 10, 2, 7, 4, 6, 8])


@pytest.fixture(autouse=True)
def _in_float64():
    """An integer divided by an integer has torch's default dtype; the language's reference is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def run(captured: Captured) -> np.ndarray:
    """The traced expression over the pairs (X[i], Q[i], K[i]), in float64."""
    table = {"q": Q.numpy(), "k": K.numpy(), "b": np.zeros(11, int), "h": np.ones(11, int)}

    def leaf(node):
        match node:
            case Const(value):
                return value
            case Var(name):
                return table[name]
            case Load("S", ()):
                return X.numpy()
            case Load(name, indices):
                at = tuple(evaluate(i, leaf, NUMPY_OPS) for i in indices)
                return captured.values[name].numpy()[at]
        raise AssertionError(node)

    return np.broadcast_to(evaluate(desugar_expr(captured.expr), leaf, NUMPY_OPS), X.shape)


def check_score(fn) -> None:
    """`fn(score, q, k)` traced and evaluated equals `fn` on torch tensors; its text means the same."""
    traced = score(lambda s, b, h, q, k: fn(s, q, k))
    with torch.no_grad():
        expected = fn(X, Q, K)
    expected = torch.as_tensor(expected, dtype=torch.float64).broadcast_to(X.shape)
    np.testing.assert_allclose(run(traced), expected.numpy(), rtol=1e-12, atol=1e-12, equal_nan=True)
    again = parse_program(f"score = {print_expr(traced.expr)}").score
    assert again == traced.expr


def check_mask(fn) -> None:
    traced = mask(lambda b, h, q, k: fn(q, k))
    expected = torch.as_tensor(fn(Q, K)).broadcast_to(X.shape)
    assert expected.dtype == torch.bool
    np.testing.assert_array_equal(run(traced), expected.numpy())
    assert parse_program(f"mask = {print_expr(traced.expr)}").mask == traced.expr


UNARY = [
    "abs",
    "absolute",
    "sign",
    "sgn",
    "floor",
    "ceil",
    "exp",
    "exp2",
    "sigmoid",
    "tanh",
    "erf",
    "erfc",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "neg",
    "negative",
    "positive",
    "square",
    "expm1",
    "round",
    "trunc",
    "fix",
    "frac",
    "deg2rad",
    "rad2deg",
]
POSITIVE = ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"]


@pytest.mark.parametrize("name", UNARY)
def test_unary_function_and_method(name):
    check_score(lambda s, q, k: getattr(torch, name)(s))
    check_score(lambda s, q, k: getattr(torch, name)(s * 0.25 + 1))
    if hasattr(torch.Tensor, name):
        check_score(lambda s, q, k: getattr(s, name)())


@pytest.mark.parametrize("name", POSITIVE)
def test_unary_of_positive_numbers(name):
    check_score(lambda s, q, k: getattr(torch, name)(s.abs() + 0.125))
    check_score(lambda s, q, k: getattr(s.abs() + 0.125, name)())


ACTIVATIONS = [
    "relu",
    "relu6",
    "silu",
    "gelu",
    "softplus",
    "leaky_relu",
    "hardtanh",
    "elu",
    "selu",
    "celu",
    "mish",
    "hardsigmoid",
    "hardswish",
    "logsigmoid",
    "softsign",
    "tanhshrink",
    "sigmoid",
    "tanh",
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    check_score(lambda s, q, k: getattr(F, name)(s))


@pytest.mark.parametrize(
    "fn",
    [
        lambda s, q, k: F.gelu(s, approximate="tanh"),
        lambda s, q, k: F.softplus(s, beta=2.0, threshold=5.0),
        lambda s, q, k: F.leaky_relu(s, negative_slope=0.2),
        lambda s, q, k: F.hardtanh(s, -2.0, 0.25),
        lambda s, q, k: F.elu(s, alpha=0.5),
        lambda s, q, k: F.celu(s, alpha=2.0),
        lambda s, q, k: F.threshold(s, 0.1, -3.0),
        lambda s, q, k: F.relu(s, inplace=False),
        lambda s, q, k: torch.nn.SiLU()(s),
        lambda s, q, k: torch.special.expit(s),
    ],
)
def test_activation_with_arguments(fn):
    check_score(fn)


BINARY = [
    "add",
    "sub",
    "subtract",
    "mul",
    "multiply",
    "minimum",
    "maximum",
    "fmin",
    "fmax",
    "hypot",
    "logaddexp",
]


@pytest.mark.parametrize("name", BINARY)
def test_binary_function(name):
    fn = getattr(torch, name)
    check_score(lambda s, q, k: fn(s, s * 0.5 - 1))
    if name not in ("hypot", "logaddexp"):
        check_score(lambda s, q, k: fn(q, k))
    if name not in ("hypot", "logaddexp", "fmin", "fmax"):
        check_score(lambda s, q, k: fn(s, other=k))
        check_score(lambda s, q, k: getattr(s, name)(k))


DIVISORS = [
    lambda s, q, k: (s, k + 1),
    lambda s, q, k: (q - 5, k - 11),
    lambda s, q, k: (q - 5, k + 1),
    lambda s, q, k: (5 - q, 3),
]


@pytest.mark.parametrize("args", DIVISORS)
@pytest.mark.parametrize("name", ["div", "divide", "true_divide", "floor_divide", "remainder", "fmod"])
def test_division(name, args):
    check_score(lambda s, q, k: getattr(torch, name)(*args(s, q, k)))


@pytest.mark.parametrize("args", DIVISORS)
@pytest.mark.parametrize("mode", [None, "floor", "trunc"])
def test_division_with_rounding_mode(mode, args):
    check_score(lambda s, q, k: torch.div(*args(s, q, k), rounding_mode=mode))


@pytest.mark.parametrize(
    "fn",
    [
        lambda s, q, k: s + k,
        lambda s, q, k: 1 - s,
        lambda s, q, k: 2 / (s + 100),
        lambda s, q, k: q // 3 + s // 2,
        lambda s, q, k: 7 // (k + 1),
        lambda s, q, k: (q - 5) % 3 + s % 2,
        lambda s, q, k: 7 % (k + 1),
        lambda s, q, k: q**2 + 2**k + (s.abs() + 1) ** 0.5,
        lambda s, q, k: 2.0 ** (-0.5 * q) * s,
        lambda s, q, k: torch.pow(s, 3) + torch.pow(2, q) + s.pow(2),
        lambda s, q, k: torch.float_power(s.abs(), 0.5),
        lambda s, q, k: -s + +s - abs(s),
        lambda s, q, k: (q << 2) + (q >> 1) + (q & 3) + (q | 8) + (q ^ k) + ~q,
        lambda s, q, k: (
            torch.bitwise_left_shift(q, 2) + torch.bitwise_right_shift(q, 1) + torch.bitwise_not(q)
        ),
        lambda s, q, k: torch.bitwise_and(q, 3) + torch.bitwise_or(q, 8) + torch.bitwise_xor(q, k),
        lambda s, q, k: torch.add(s, k, alpha=3) + torch.sub(s, q, alpha=0.5) + torch.rsub(s, k),
        lambda s, q, k: (
            torch.clamp(s, -1, 2) + s.clamp(min=-0.5) + torch.clip(s, max=1.5) + torch.clamp(q, 2, 5)
        ),
        lambda s, q, k: torch.clamp(q, k, k + 2) + s.clamp_min(0) + s.clamp_max(1),
        lambda s, q, k: torch.clamp(q, -0.5, 2.5),
        lambda s, q, k: torch.max(s, s * 2) + torch.min(q, k) + torch.maximum(q, k) + q.max(k),
        lambda s, q, k: torch.where(q >= k, s, -float("inf")),
        lambda s, q, k: torch.where(s > 0, q, k),
        lambda s, q, k: s.where(q > k, 0.0),
        lambda s, q, k: s.masked_fill(q < k, -math.inf),
        lambda s, q, k: s * (q >= k) + (q == k),
        lambda s, q, k: torch.round(s * 1.37, decimals=1),
        lambda s, q, k: torch.lerp(s, s * 2, 0.25) + torch.addcmul(s, s, s, value=0.5),
        lambda s, q, k: torch.heaviside(s, torch.tensor(0.5, dtype=torch.float64)),
        lambda s, q, k: torch.zeros_like(s) + torch.ones_like(q) + torch.full_like(s, 3.5),
        lambda s, q, k: s.new_zeros(()) + s.new_ones(()) + s.new_full((), 2.0) + s.new_tensor(1.5),
        lambda s, q, k: s + torch.tensor(2.5) + torch.tensor(1, dtype=torch.int64),
        lambda s, q, k: (
            (q - k).float() * 0.5 + (s * 3).int() + (s * 3).long() + (q > k).float() + (q > 3).int()
        ),
        lambda s, q, k: (
            s.to(torch.float64) + q.to(torch.float64) + s.to(torch.int32) + q.to(s.dtype) + q.type_as(s)
        ),
        lambda s, q, k: q.double() + s.clone() + s.contiguous() + q.detach(),
        lambda s, q, k: s.bool() + q.bool() * 2.0 + (~(q > k)).to(s.dtype),
        lambda s, q, k: torch.where(torch.isnan(s / s), 1.0, 2.0),
        lambda s, q, k: torch.where(torch.isinf(1 / s), 1.0, 2.0) + torch.isfinite(1 / s),
        lambda s, q, k: (
            torch.where(torch.signbit(s + 1), s, q) + torch.isposinf(-1 / s) + torch.isneginf(-1 / s)
        ),
        lambda s, q, k: s.is_floating_point() + (1 if q.is_floating_point() else 2) + s,
        lambda s, q, k: np.float64(2.5) * s + s * np.int64(3) + np.float32(0.5) / (s + 100),
        lambda s, q, k: q,
        lambda s, q, k: 3,
    ],
)
def test_arithmetic(fn):
    check_score(fn)


@pytest.mark.parametrize(
    "fn",
    [
        lambda q, k: q >= k,
        lambda q, k: (q > 3) & (k <= 7) | (q == k) ^ (q != 2),
        lambda q, k: ~(q > k),
        lambda q, k: torch.logical_and(q >= k, q - k < 3),
        lambda q, k: torch.logical_or(q, k) & torch.logical_xor(q > 3, k > 3) & torch.logical_not(k == 2),
        lambda q, k: (q > k).logical_and(k > 1).logical_or(q == 0).logical_not(),
        lambda q, k: torch.bitwise_and(q > k, k > 2) | torch.bitwise_or(q < 2, k < 2),
        lambda q, k: (q > k) * (k > 1),
        lambda q, k: (q > k) + (k > 7),
        lambda q, k: (q > k) == (k > 4),
        lambda q, k: (q > k) != (k > 4),
        lambda q, k: (q > 3) & True,
        lambda q, k: False | (q > 3),
        lambda q, k: ((q > 3) & 1) == 1,
        lambda q, k: torch.maximum(q > 3, k > 3) & torch.minimum(q > 3, k > 3),
        lambda q, k: (
            torch.eq(q, k)
            | torch.ne(q, 3) & torch.lt(q, k)
            | torch.ge(q, 9) & torch.gt(q, k)
            | torch.le(q, 1)
        ),
        lambda q, k: (
            torch.less(q, k) | torch.greater(q, 8) | torch.less_equal(k, 1) & torch.greater_equal(q, 1)
        ),
        lambda q, k: torch.where(q > 3, k > 2, k < 2),
        lambda q, k: (q - k).abs() <= 2,
        lambda q, k: ((q - k) % 4 == 0) & (q // 4 == k // 4),
        lambda q, k: (q & 1).bool(),
        lambda q, k: q.new_ones((), dtype=torch.bool) & (q >= k),
        lambda q, k: q.to(torch.float32) * 0.5 > k,
    ],
)
def test_predicate(fn):
    check_mask(fn)


def test_kinds_agree_with_the_language():
    """The kind the tracer gives while building is the kind the language's own rules give afterwards."""
    seen = []

    def fn(s, b, h, q, k):
        for sym in (
            s + q,
            q // 3,
            q / 3,
            (q > k) + 1,
            torch.where(q > k, 1, 2.5),
            torch.exp(q),
            ~(q > k),
            -q,
            s.int(),
        ):
            seen.append(sym)
        return s

    score(fn)
    assert len(seen) == 9
    assert [kind_of(sym.expr, {"S": Kind.FLOAT}) for sym in seen] == [sym.kind for sym in seen]


def test_every_name_of_the_table_is_torch_s_own():
    known = {
        *dir(torch),
        *dir(torch.Tensor),
        *dir(F),
        *dir(torch.special),
        "special_expit",
        "special_erf",
        "special_exp2",
    }
    known |= {"sym_ite", "log_sigmoid"}
    assert sorted(set(MEANINGS.functions) - known) == []


def test_casts_by_method_take_a_memory_format_and_nothing_else():
    traced = mask(lambda b, h, q, k: q.float(memory_format=torch.preserve_format) < k)
    assert print_expr(traced.expr) == "float(q) < k"
    with pytest.raises(TraceError):
        mask(lambda b, h, q, k: q.float(2.0) < k)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_an_integer_is_filled_with_finite_numbers(value):
    with pytest.raises(TraceError, match="an integer cannot be"):
        mask(lambda b, h, q, k: torch.full_like(q, value) < k)
    mask(lambda b, h, q, k: torch.full_like(q.float(), value) < k)
