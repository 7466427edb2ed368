"""What cannot be traced raises a TraceError that shows the user's line and says what to write instead."""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest
import torch

from attngen.capture import mask, score
from attngen.errors import AttngenError, ParameterError, TraceError
from attngen.lang.arith import index_var
from attngen.lang.trace import Role, param, trace

SLOPES = [0.5, 0.25]
TABLE = {0: 1.0}
ARRAY = np.arange(4)
BIAS = torch.zeros(2, 3, 4)
FLAGS = torch.zeros(4)


def if_statement(b, h, q, k):
    if q >= k:  # here
        return q - k < 4
    return k < 2


def and_operator(b, h, q, k):
    return q >= k and q - k < 4  # here


def or_operator(b, h, q, k):
    return (k < 2) or q >= k  # here


def not_operator(b, h, q, k):
    return not q < k  # here


def chained(b, h, q, k):
    return 0 <= q - k < 4  # here


def conditional_expression(score, b, h, q, k):
    return score if q >= k else 0.0  # here


def conditional_inside_call(score, b, h, q, k):
    return torch.exp(score if q >= k else -score)  # here


def while_loop(score, b, h, q, k):
    while score > 0:  # here
        score = score - 1
    return score


def assertion(b, h, q, k):
    assert q >= 0  # here
    return q >= k


def membership(b, h, q, k):
    return k in (0, 5)  # here


def builtin_max(score, b, h, q, k):
    return score + max(q - k, 0)  # here


def builtin_min(score, b, h, q, k):
    return score + min(q, k)  # here


def builtin_any(b, h, q, k):
    return any([q > k, k == 0])  # here


def builtin_bool(b, h, q, k):
    return bool(q)  # here


def builtin_int(b, h, q, k):
    return int(q / 2) == k  # here


def builtin_float(score, b, h, q, k):
    return float(q) * score  # here


def math_function(score, b, h, q, k):
    return math.exp(-q) * score  # here


def numpy_function(score, b, h, q, k):
    return np.exp(score)  # here


def range_loop(b, h, q, k):
    total = k
    for i in range(q):  # here
        total = total + i
    return total > 0


def for_loop(b, h, q, k):
    for i in q:  # here
        k = k + i
    return k > 0


def list_index(score, b, h, q, k):
    return score * SLOPES[h]  # here


def dictionary(score, b, h, q, k):
    return score * TABLE[h]  # here


def numpy_array(b, h, q, k):
    return ARRAY[q] == k  # here


def item(b, h, q, k):
    return q.item() >= k  # here


def random_like(score, b, h, q, k):
    return score + torch.rand_like(score)  # here


def random_number(score, b, h, q, k):
    return score + torch.rand(())  # here


def reduction(score, b, h, q, k):
    return score - score.sum()  # here


def softmax(score, b, h, q, k):
    return torch.softmax(score, dim=-1)  # here


def factory(b, h, q, k):
    return torch.arange(4)[q] == torch.stack([q, k])[0]  # here


def in_place(score, b, h, q, k):
    return score.add_(1)  # here


def shape_operation(score, b, h, q, k):
    return score.unsqueeze(0)  # here


def unknown(score, b, h, q, k):
    return torch.lgamma(score)  # here


def unknown_method(score, b, h, q, k):
    return score.spline()  # here


def half_indexed(score, b, h, q, k):
    return score + BIAS[b, h]  # here


def half_indexed_method(score, b, h, q, k):
    return score + BIAS[b][h].sum()  # here


def too_many_indices(b, h, q, k):
    return FLAGS[q, k] > 0  # here


def float_index(b, h, q, k):
    return FLAGS[q / 2] > 0  # here


def partial_slice(score, b, h, q, k):
    return score + BIAS[b, 1:, q][k]  # here


def index_out_of_range(score, b, h, q, k):
    return score + BIAS[b, h, 7]  # here


def tensor_operand(score, b, h, q, k):
    return score + FLAGS  # here


def string_operand(b, h, q, k):
    return q == "first"  # here


def none_operand(score, b, h, q, k):
    return score + None  # here


def boolean_minus(b, h, q, k):
    return (q > k) - (k > 2) != 0  # here


def float_logic(score, b, h, q, k):
    return score & 1  # here


def negative_power(score, b, h, q, k):
    return score + q**-1  # here


def narrow_integer(b, h, q, k):
    return q.to(torch.int8) == k  # here


def detached(score, b, h, q, k):
    return score.detach() + 1  # here


def attribute(score, b, h, q, k):
    return score * 2 if score.is_cuda else score  # here


def clamp_without_bounds(score, b, h, q, k):
    return score.clamp()  # here


def wrong_keyword(score, b, h, q, k):
    return torch.exp(score, out=score)  # here


def wide_characters(b, h, q, k):
    return (k == ord("語")) and q > k  # here


# function, the text under the carets, a word of the message, a word of the hint
CASES = [
    (if_statement, "q >= k", "`if`", "torch.where(q >= k, a, b)"),
    (and_operator, None, "`and`", "(q >= k) & (q - k < 4)"),
    (or_operator, None, "`or`", "(k < 2) | (q >= k)"),
    (not_operator, "not q < k", "`not`", "~(q < k)"),
    (chained, "0 <= q - k < 4", "chained", "(0 <= q - k) & (q - k < 4)"),
    (conditional_expression, None, "conditional", "torch.where(q >= k, score, 0.0)"),
    (conditional_inside_call, None, "conditional", "torch.where(q >= k, score, -score)"),
    (while_loop, "score > 0", "`while`", "torch.where"),
    (assertion, None, "`assert`", "torch.where"),
    (membership, "k in (0, 5)", "`in`", "(k == 0) | (k == 5)"),
    (builtin_max, "max(q - k, 0)", "max()", "torch.maximum(q - k, 0)"),
    (builtin_min, "min(q, k)", "min()", "torch.minimum(q, k)"),
    (builtin_any, "any([q > k, k == 0])", "any()", "|"),
    (builtin_bool, "bool(q)", "bool()", "(q) != 0"),
    (builtin_int, "int(q / 2)", "int()", "(q / 2).int()"),
    (builtin_float, "float(q)", "float()", "(q).float()"),
    (math_function, "math.exp(-q)", "math.exp()", "torch.exp(-q)"),
    (numpy_function, "np.exp(score)", "refused", "torch functions"),
    (range_loop, "range(q)", "range()", "known while tracing"),
    (for_loop, None, "loop", "known while tracing"),
    (list_index, "SLOPES[h]", "SLOPES[h]", "SLOPES = torch.as_tensor(SLOPES)"),
    (dictionary, "TABLE[h]", "TABLE[h]", "TABLE = torch.as_tensor(TABLE)"),
    (numpy_array, "ARRAY[q]", "ARRAY[q]", "torch.as_tensor(ARRAY)"),
    (item, "q.item()", "item()", "leave item() out"),
    (random_like, "torch.rand_like(score)", "`rand_like`", "random"),
    (random_number, "torch.rand(())", "random", "captured tensors"),
    (reduction, "score.sum", "`sum`", "one number"),
    (softmax, "torch.softmax(score, dim=-1)", "`softmax`", "one number"),
    (factory, "torch.stack([q, k])", "`stack`", "symbolic values"),
    (in_place, "score.add_", "`add_`", "x = x.op(...)"),
    (shape_operation, "score.unsqueeze", "`unsqueeze`", "no dimensions"),
    (unknown, "torch.lgamma(score)", "`lgamma`", "pointwise"),
    (unknown_method, "score.spline", "`spline`", "pointwise"),
    (half_indexed, "score + BIAS[b, h]", "3 dimensions and 1", "bias[h, q, k]"),
    (half_indexed_method, "BIAS[b][h].sum", "3 dimensions and 1", "bias[h, q, k]"),
    (too_many_indices, "FLAGS[q, k]", "1 dimension", None),
    (float_index, "FLAGS[q / 2]", "float", ".int()"),
    (partial_slice, "BIAS[b, 1:, q]", "plain `:`", "before the function"),
    (index_out_of_range, "BIAS[b, h, 7]", "out of range", None),
    (tensor_operand, "score + FLAGS", "shape [4]", "bias[h]"),
    (string_operand, 'q == "first"', "str", None),
    (none_operand, "score + None", "None", None),
    (boolean_minus, "(q > k) - (k > 2)", "subtracted", "^"),
    (float_logic, "score & 1", "&", "compare"),
    (negative_power, "q**-1", "negative integer power", ".float()"),
    (narrow_integer, "q.to(torch.int8)", "int8", "int32"),
    (detached, "score.detach()", "gradient", "leave it out"),
    (attribute, "score.is_cuda", "`is_cuda`", "pointwise"),
    (clamp_without_bounds, "score.clamp()", "min, max", None),
    (wrong_keyword, "torch.exp(score, out=score)", "these arguments", None),
    (wide_characters, None, "`and`", "(k == ord('語')) & (q > k)"),
]


@pytest.mark.parametrize(("fn", "marked", "message", "hint"), CASES, ids=[c[0].__name__ for c in CASES])
def test_error_shows_line_caret_and_hint(fn, marked, message, hint):
    role = score if "score" in inspect.signature(fn).parameters else mask
    with pytest.raises(TraceError) as caught:
        role(fn)
    error = caught.value
    lines, first = inspect.getsourcelines(fn)
    offset = next(i for i, line in enumerate(lines) if "# here" in line)
    assert error.loc is not None
    assert error.loc.file == __file__
    assert error.loc.line == first + offset
    assert error.loc.text == lines[offset]
    under = error.loc.text[error.loc.col : error.loc.end_col]
    assert under
    if marked is not None:
        assert under == marked
    assert message in error.message
    assert (hint or "") in (error.hint or "")
    shown = str(error)
    assert f"{__file__}:{error.loc.line}:" in shown
    assert "^" in shown


def no_return(b, h, q, k):
    q >= k  # noqa: B015


def returns_number(b, h, q, k):
    return q - k


def returns_boolean(score, b, h, q, k):
    return q >= k


def returns_tensor(score, b, h, q, k):
    return BIAS


def returns_part(score, b, h, q, k):
    return BIAS[h]


def returns_text(score, b, h, q, k):
    return "score"


@pytest.mark.parametrize(
    ("fn", "role", "message", "hint"),
    [
        (no_return, mask, "returns nothing", "return"),
        (returns_number, mask, "returns int", "compare"),
        (returns_boolean, score, "returns a boolean", "torch.where"),
        (returns_tensor, score, "tensor with dimensions", "bias[h, q, k]"),
        (returns_part, score, "tensor with dimensions", "bias[h, q, k]"),
        (returns_text, score, "returns str", ""),
    ],
)
def test_wrong_result(fn, role, message, hint):
    with pytest.raises(TraceError) as caught:
        role(fn)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    _, first = inspect.getsourcelines(fn)
    assert caught.value.loc is not None
    assert caught.value.loc.line in (first, first + 1)


@pytest.mark.parametrize(
    ("fn", "role", "accepted"),
    [
        (lambda b, h, q: q > 0, mask, "(b, h, q, k) or (q, k)"),
        (lambda b, h, q, k, x: q > 0, mask, "(b, h, q, k) or (q, k)"),
        (lambda s, q, k: s, score, "(score, b, h, q, k) or (score)"),
        (functools.partial(lambda w, b, h, q, k, x: q > w, 3), mask, "(b, h, q, k) or (q, k)"),
    ],
)
def test_wrong_arity_names_the_signatures(fn, role, accepted):
    with pytest.raises(TraceError, match="signature") as caught:
        role(fn)
    assert accepted in caught.value.message
    assert caught.value.loc is not None


def test_an_error_of_the_user_s_own_passes_through():
    def broken(b, h, q, k):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mask(broken)

    def typo(b, h, q, k):
        return q >= kk  # noqa: F821

    with pytest.raises(NameError, match="kk"):
        mask(typo)

    def own_type_error(b, h, q, k):
        return len(3) > q

    with pytest.raises(TypeError, match="has no len") as caught:
        mask(own_type_error)
    assert not isinstance(caught.value, AttngenError)

    def own_value_error(b, h, q, k):
        raise ValueError("Symmetric windows only")

    with pytest.raises(ValueError, match="Symmetric windows only") as checked:
        mask(own_value_error)
    assert not isinstance(checked.value, AttngenError)
    assert checked.value.__cause__ is None


def test_error_in_a_helper_points_into_the_helper():
    def helper(a, b):
        return a if a > b else b

    with pytest.raises(TraceError) as caught:
        score(lambda s, b, h, q, k: helper(s, 0))
    assert caught.value.loc is not None
    assert caught.value.loc.line == inspect.getsourcelines(helper)[1] + 1


def test_error_without_source_still_names_file_and_line():
    space: dict = {}
    exec(compile("def f(b, h, q, k):\n    return q and k\n", "<made up>", "exec"), space)
    with pytest.raises(TraceError) as caught:
        mask(space["f"])
    assert caught.value.loc is not None
    assert (caught.value.loc.file, caught.value.loc.line) == ("<made up>", 2)
    assert "truth value" in caught.value.message


def test_loops_that_grow_too_large_are_refused():
    def unrolled(b, h, q, k):
        keep = q == k
        for i in range(400):
            keep = keep | (k == i)
        return keep

    with pytest.raises(TraceError, match="too large") as caught:
        mask(unrolled)
    assert "tensor" in (caught.value.hint or "")

    def doubled(score):
        for _ in range(60):
            score = score * score
        return score

    with pytest.raises(TraceError, match="too large"):
        trace(doubled, Role.SCORE)


@pytest.mark.parametrize("name", ["k", "S", "max", "n_q", "scale", "lambda", "two words", "größe", ""])
def test_parameter_names_must_fit_program_text(name):
    with pytest.raises(ParameterError):
        param(name, 1)


def test_parameter_values_are_numbers():
    with pytest.raises(ParameterError, match="not a number"):
        param("window", "wide")
    with pytest.raises(ParameterError, match="neither"):
        param("window")
    with pytest.raises(ParameterError, match="is not int"):
        param("window", 2.5, kind="int")


def test_symbols_print_but_have_no_value():
    q = index_var("q")
    assert repr(q) == "<symbolic int>"
    assert f"{q}" == f"{q:>3}" == "<symbolic int>"
