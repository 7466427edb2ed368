"""The text form: what it means, and what each mistake is told, at which line and column."""

from __future__ import annotations

import pytest

from attngen.errors import (
    AttngenError,
    OutputError,
    ProgramSyntaxError,
    ProgramTypeError,
    RankError,
    UnknownNameError,
)
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var, walk
from attngen.lang.ops import Kind
from attngen.lang.parse import parse_program
from attngen.lang.program import Einsum, ParamDecl, TensorDecl

q, k = Var("q"), Var("k")
STARTED = "X[q, 0] = 0.0\n"


def mask_of(text: str, declarations: str = "") -> Expr:
    mask = parse_program(f"{declarations}\nmask = {text}").mask
    assert mask is not None
    return mask


def test_every_statement() -> None:
    program = parse_program(
        '"""Doc."""\n'
        "sink: int = 64\nbias: float = -1\non: bool = False\nn: const[int] = 4\nfree: float\n"
        "doc[b, q]: int\nslope[h]: float\nx[()]: bool\n"
        "mask = x[()]\nscore = S\nS[q, k] = sum[d](Q[q, d] * K[k, d])\nT[()] = 1.0\nreturn S, T",
        name="all",
    )
    assert (program.name, program.doc) == ("all", "Doc.")
    assert program.params == (
        ParamDecl("sink", Kind.INT, 64),
        ParamDecl("bias", Kind.FLOAT, -1.0),
        ParamDecl("on", Kind.BOOL, False),
        ParamDecl("n", Kind.INT, 4, const=True),
        ParamDecl("free", Kind.FLOAT),
    )
    assert program.tensors == (
        TensorDecl("doc", ("b", "q"), Kind.INT),
        TensorDecl("slope", ("h",), Kind.FLOAT),
        TensorDecl("x", (), Kind.BOOL),
    )
    dot = Apply("mul", (Load("Q", (q, Var("d"))), Load("K", (k, Var("d")))))
    assert program.mask == Load("x", ())
    assert program.score == Load("S", ())
    assert program.cascade == (
        Einsum("S", ("q", "k"), Reduce("sum", ("d",), dot)),
        Einsum("T", (), Const(1.0)),
    )
    assert program.outputs == ("S", "T")


def test_an_empty_text_is_dense_softmax() -> None:
    program = parse_program("")
    assert (program.mask, program.score, program.cascade, program.cascade_name) == (None, None, (), None)


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("k <= q", Apply("le", (k, q))),
        ("0 <= k < q", Apply("and", (Apply("le", (Const(0), k)), Apply("lt", (k, q))))),
        ("k < min(q, 4, D)", Apply("lt", (k, Apply("min", (Apply("min", (q, Const(4))), Size("D")))))),
        ("k < -1", Apply("lt", (k, Const(-1)))),
        ("k < - 1", Apply("lt", (k, Const(-1)))),
        ("k < -(1)", Apply("lt", (k, Apply("neg", (Const(1),))))),
        ("k < -(  # one\n  1)", Apply("lt", (k, Apply("neg", (Const(1),))))),
        ("k < -inf", Apply("lt", (k, Const(float("-inf"))))),
        ("(q & 1) == (k & 1)", Apply("eq", (Apply("and", (q, Const(1))), Apply("and", (k, Const(1)))))),
        ("(0 < ( # why\n q & 1))", Apply("lt", (Const(0), Apply("and", (q, Const(1)))))),
        ("scale > 0", Apply("gt", (Param("scale"), Const(0)))),
        (
            "k // 2 ** 3 != q % 5",
            Apply(
                "ne",
                (Apply("floordiv", (k, Apply("pow", (Const(2), Const(3))))), Apply("mod", (q, Const(5)))),
            ),
        ),
    ],
)
def test_expressions(text: str, expr: Expr) -> None:
    assert mask_of(text) == expr


def test_every_node_knows_its_place() -> None:
    text = "doc[b, k]: int\n# é\nmask = (k <= pos(q)) & (doc[b, k] == -3)"
    mask = parse_program(text, file="f.attn").mask
    assert mask is not None
    nodes = list(walk(mask))
    assert all(node.loc is not None for node in nodes)
    spans = {node.loc.text[node.loc.col : node.loc.end_col] for node in nodes if node.loc}
    assert {"k <= pos(q)", "pos(q)", "doc[b, k] == -3", "doc[b, k]", "-3", "q"} <= spans
    assert all(node.loc and (node.loc.file, node.loc.line) == ("f.attn", 3) for node in nodes)


def test_columns_count_characters() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_program('mask = (k < 1) & ("é" == kk)'.replace('"é"', "λ"))
    assert caught.value.loc is not None
    assert caught.value.loc.col == 18
    with pytest.raises(UnknownNameError) as caught:
        parse_program("λλ[q]: int\nmask = λλ[q] < kk")
    assert caught.value.loc is not None
    assert (caught.value.loc.line, caught.value.loc.col, caught.value.loc.end_col) == (2, 15, 17)


SYNTAX, NAME, TYPE, RANK, OUT = ProgramSyntaxError, UnknownNameError, ProgramTypeError, RankError, OutputError

MISTAKES: list[tuple[str, type[AttngenError], str, str, str]] = [
    # text, class, what the caret marks, part of the message, part of the hint
    ("mask = k <= q & k > 0", SYNTAX, "q & k", "binds tighter", "(k <= q) & (k > 0)"),
    ("mask = q & k > 0", SYNTAX, "q & k", "binds tighter", "parentheses"),
    ("mask = 0 < k | q", SYNTAX, "k | q", "binds tighter", "(k <= q) | (k > 0)"),
    ("mask = ~k <= q", SYNTAX, "~k", "binds tighter", "~(k <= q)"),
    ("mask = (k < q) & k", TYPE, "(k < q) & k", "bool and int", "(k <= q) & (k > 0)"),
    ("mask = k < q and k > 0", SYNTAX, "k < q and k > 0", "`and` and `or`", "(a) & (b)"),
    ("mask = not k", SYNTAX, "not k", "`not`", "~(a)"),
    ("mask = (k if q else b) > 0", SYNTAX, "k if q else b", "if", "where(c, a, b)"),
    ("mask = k in q", SYNTAX, "k in q", "`in`", "=="),
    ("mask = k < 'a'", SYNTAX, "'a'", "not str", ""),
    ("mask = k < None", SYNTAX, "None", "not NoneType", ""),
    ("mask = k < 1j", SYNTAX, "1j", "not complex", ""),
    ("mask = k < ...", SYNTAX, "...", "not ...", ""),
    ("mask = k < 99999999999999999999", SYNTAX, "99999999999999999999", "64 bits", ""),
    ("mask = k < 1e999", SYNTAX, "1e999", "too large", "inf"),
    ("mask = q.y < 3", NAME, "q.y", "no coordinate `y`", "tokens = grid(t, y, x)"),
    ("tokens = grid(y, x)\nmask = q.z < 3", NAME, "q.z", "no coordinate `z`", ""),
    ("tokens = grid(row, x)\nmask = k.rwo < 3", NAME, "k.rwo", "no coordinate `rwo`", "did you mean `row`?"),
    ("tokens = grid(y, x)\nmask = b.y < 3", SYNTAX, "b.y", "only tokens have coordinates", "q.y, k.y"),
    ("tokens = grid(y, x)\nmask = q.y < size.z", NAME, "size.z", "no axis `z`", ""),
    ("tokens = grid()", SYNTAX, "grid()", "laid out by grid", "tokens = grid(t, y, x)"),
    ("tokens = 3", SYNTAX, "3", "laid out by grid", "tokens = grid(t, y, x)"),
    ("tokens = grid(4, x)", SYNTAX, "4", "an axis of the grid is a name", "slowest axis first"),
    ("tokens = grid(x)\ntokens = grid(y)", SYNTAX, "tokens = grid(y)", "given twice", ""),
    ("size_y: int = 3", SYNTAX, "size_y", "called like the extent", "does not begin with `size_`"),
    ("mask = torch.exp(q) > 0", SYNTAX, "torch.exp", "without a module", "exp(...)"),
    ("mask = exp(x=q) > 0", SYNTAX, "q", "no names", "in order"),
    ("mask = exp(q, k) > 0", SYNTAX, "exp(q, k)", "takes 1 argument, not 2", ""),
    ("mask = max(q) > 0", SYNTAX, "max(q)", "takes 2 arguments, not 1", "max[k](...)"),
    ("mask = sum(q) > 0", SYNTAX, "sum(q)", "needs the rank", "sum[k](...)"),
    ("mask = expp(q) > 0", NAME, "expp", "no function `expp`", "did you mean `exp(...)`?"),
    ("mask = smu[k](q) > 0", NAME, "smu[k]", "no reducer `smu`", "sum[k](...)"),
    ("mask = exp > 0", SYNTAX, "exp", "not called", ""),
    ("window: int\nmask = k < windw", NAME, "windw", "`windw` is not declared", "did you mean `window`?"),
    ("mask = k < zzz", NAME, "zzz", "`zzz` is not declared", "zzz: int = 0"),
    ("doc[q]: int\nmask = doc == 1", SYNTAX, "doc", "needs its indices", "doc[...]"),
    ("mask = dok[q] == 1", NAME, "dok[q]", "`dok` is not declared", "dok[b, q]: int"),
    ("doc[q]: int\nmask = dok[q] == 1", NAME, "dok[q]", "`dok` is not declared", "did you mean `doc[...]`?"),
    ("doc[b, q]: int\nmask = doc[q] == 1", RANK, "doc[q]", "takes 2 indices, not 1", "doc[b, q]"),
    ("doc[q]: int\nmask = doc[q:k] == 1", SYNTAX, "q:k", "slice", "every rank"),
    ("doc[q]: int\nmask = doc[q / 2] == 1", TYPE, "q / 2", "must be an integer, not float", "int(x)"),
    ("doc[q]: int\nmask = doc[k < q] == 1", TYPE, "k < q", "must be an integer, not bool", "int(x)"),
    ("mask = pos(0.5) < k", TYPE, "0.5", "must be an integer", ""),
    ("mask = q + k", TYPE, "q + k", "must be boolean, not int", "x != 0"),
    ("score = S > 0", TYPE, "S > 0", "must be a number", "mask"),
    ("mask = S > 0", RANK, "S", "cannot read the score", "-inf"),
    ("mask = Q[q, d] > 0", RANK, "Q[q, d]", "captured tensors only", ""),
    ("mask = d > 0", RANK, "d", "`d` cannot be used in a mask", "b, h, g, q, k"),
    ("score = sum[k](S)", RANK, "sum[k](S)", "no reductions", "Einsum"),
    ("score = S[q, k]", RANK, "S[q, k]", "not indexed", "write S"),
    ("mask = k < q\nmask = k > 2", SYNTAX, "mask = k > 2", "twice", "&"),
    ("score = S\nscore = S", SYNTAX, "score = S", "twice", ""),
    ("cascade = softmax\ncascade = relu", SYNTAX, "cascade = relu", "twice", ""),
    ("cascade = 'softmax'", SYNTAX, "'softmax'", "by its name", "cascade = softmax"),
    ("mask = where(q, k, b) > 0", TYPE, "q", "must be boolean, not int", "x != 0"),
    ("mask = (1.5 << k) > 0", TYPE, "1.5", "needs integers", ""),
    ("mask = ~1.5 > 0".replace("~1.5", "(~1.5)"), TYPE, "1.5", "needs booleans, not a float", ""),
    ("mask = k ** -1 > q", TYPE, "-1", "negative integer exponent", "-1.0"),
    ("x = 3", SYNTAX, "x = 3", "without ranks or kind", "x: int = 0"),
    ("x: int = 1.5", TYPE, "x", "is int, but its default is float", ""),
    ("x: int = True", TYPE, "x", "is int, but its default is bool", ""),
    ("x: int = q + 1", SYNTAX, "q + 1", "a default is a number", ""),
    ("x: str", SYNTAX, "str", "int, float or bool, const[...] of one of them, or a rank", ""),
    ("x: const[str]", SYNTAX, "const[str]", "int, float or bool", ""),
    ("x[q]: str", SYNTAX, "str", "int, float or bool", ""),
    ("x[q]: int = 3", SYNTAX, "3", "no default", ""),
    ("x[q + 1]: int", SYNTAX, "q + 1", "are names", ""),
    ("x[q, q]: int", RANK, "x[q, q]", "appears twice", ""),
    ("x: int\nx: int", SYNTAX, "x", "already a parameter", "choose another"),
    ("x: int\nx[q]: int", SYNTAX, "x[q]", "already a parameter", "choose another"),
    ("scale: float = 1.0", SYNTAX, "scale", "already a parameter", ""),
    ("Q[q]: float", SYNTAX, "Q[q]", "already an input", ""),
    ("S[q]: float", SYNTAX, "S[q]", "is the score", ""),
    ("q: int", SYNTAX, "q", "is a rank", ""),
    ("D: int", SYNTAX, "D", "is a size", ""),
    ("exp: int", SYNTAX, "exp", "is a function", ""),
    ("mask: bool", SYNTAX, "mask", "is a word of the language", ""),
    ("é: int", SYNTAX, "é", "is not a name", "ASCII"),
    ("X[q] = Q[q, d]\nreturn X", RANK, "d", "neither in `X` nor reduced", "sum[d](...)"),
    ("X[q] = sum[k](Q[q, d])\nreturn X", RANK, "sum[k](Q[q, d])", "nothing inside depends on it", ""),
    ("X[q, d] = sum[d](Q[q, d])\nreturn X", RANK, "sum[d](Q[q, d])", "already bound", ""),
    ("X[q] = sum[b](1.0 * b)\nreturn X", RANK, "sum[b](1.0 * b)", "cannot be reduced", ""),
    ("X[q] = sum[g](1.0 * g)\nreturn X", RANK, "sum[g](1.0 * g)", "follows from `h`", "sum[h](...)"),
    ("X[q] = sum[h](1.0 * q)\nreturn X", RANK, "sum[h](1.0 * q)", "nothing inside depends on it", ""),
    ("j: rank = 4\nX[q] = sum[j](1.0)\nreturn X", RANK, "sum[j](1.0)", "nothing inside depends on it", ""),
    ("X[q] = sum[z](1.0 * z)\nreturn X", RANK, "sum[z](1.0 * z)", "has the rank `z`", "z: rank = 16"),
    ("X[z] = 1.0\nreturn X", RANK, "X[z]", "no tensor has the rank `z`", "z: rank = 16"),
    ("X[g] = 1.0\nreturn X", RANK, "X[g]", "implicit", "leave b and h out"),
    ("q: rank", SYNTAX, "q", "is a rank", "another"),
    ("scale: rank", SYNTAX, "scale", "already a parameter", ""),
    ("rank: int", SYNTAX, "rank", "is a word of the language", ""),
    ("j: rank = 4\nn_j: int = 3", SYNTAX, "n_j", "is a size", "another"),
    ("j: rank = 4\nj: rank = 5", SYNTAX, "j", "already a rank", ""),
    ("j: rank = -1", TYPE, "j", "not a number of things", "0 or more"),
    ("j: rank = True", TYPE, "j", "not a number of things", "0 or more"),
    ("j: rank = 1.5", TYPE, "j", "not a number of things", "0 or more"),
    ("j: rank = n_k / 2", TYPE, "n_k / 2", "must be an integer, not float", "//"),
    ("j: rank = k", RANK, "k", "reads the rank `k`", "`n_k`"),
    ("t[q]: int\nj: rank = t[0] + 1", RANK, "t[0]", "sizes and parameters only", "j: rank ="),
    ("j: rank = n_r\nr: rank = 3", RANK, "n_r", "before it is known", "above"),
    ("j: rank = n_j", RANK, "n_j", "before it is known", ""),
    ("j: rank = 4\nmask = k < n_jj", NAME, "n_jj", "`n_jj` is not declared", ""),
    ("mask = k < n_d", NAME, "n_d", "`n_d` is not declared", ""),
    (
        "X[q] = topk[k](1.0 * k)\nreturn X",
        SYNTAX,
        "topk[k](1.0 * k)",
        "takes two arguments",
        "topk[k](S[q, k], j)",
    ),
    ("X[q] = topk[k](1.0 * k, 0.5)\nreturn X", TYPE, "0.5", "must be an integer", "int(x)"),
    ("X[q] = topk[k](1.0 * k, k)\nreturn X", RANK, "k", "neither in `X` nor reduced", ""),
    ("X[()] = argmax[q, k](1.0 * k * q)\nreturn X", RANK, "argmax[q, k](1.0 * k * q)", "along one rank", ""),
    ("X[q] = 1.0\nY[q] = X[q / 2]\nreturn Y", TYPE, "q / 2", "must be an integer, not float", "int(x)"),
    ("X[q] = 1.0\nY[q] = X[k]\nreturn Y", RANK, "k", "neither in `Y` nor reduced", ""),
    ("X[q, d] = K[q, d]\nreturn X", RANK, "q", "at its own row, `K[k, d]`", "Einsums"),
    ("X[b, q] = 1.0\nreturn X", RANK, "X[b, q]", "implicit", "leave b and h out"),
    ("X[q] = sum[d](Q[d, q])\nreturn X", RANK, "d", "at its own row, `Q[q, d]`", "captured"),
    ("X[q] = Y[q]\nY[q] = 1.0\nreturn X", NAME, "Y[q]", "before it is written", "above"),
    ("X[q] = X[q]\nreturn X", NAME, "X[q]", "before it is written", ""),
    ("X[q] = 1.0\nX[q] = 2.0\nreturn X", SYNTAX, "X[q]", "already an Einsum", ""),
    ("X[q] = any[k](1.0 * k)\nreturn X", TYPE, "1.0 * k", "reduces booleans, not float", ""),
    ("X[q] = sum[()](Q[q, d])\nreturn X", RANK, "sum[()](Q[q, d])", "at least one rank", "sum[k](...)"),
    ("X[q] = sum[d](Q[q, d], 1)\nreturn X", SYNTAX, "sum[d](Q[q, d], 1)", "one argument", ""),
    ("X[q] = 1.0", OUT, "X[q]", "nothing is returned", "return O"),
    ("X[q] = 1.0\nreturn Y", OUT, "Y", "no Einsum writes it", ""),
    ("X[q] = 1.0\nreturn X, X", OUT, "X, X", "returned twice", ""),
    ("X[q] = 1.0\nreturn X + 1", SYNTAX, "X + 1", "name of an Einsum", ""),
    ("return", SYNTAX, "return", "at least one", "return O"),
    ("return O\nmask = k < q", SYNTAX, "mask = k < q", "last statement", ""),
    ("X[q] = 1.0\ncascade = relu\nreturn X", SYNTAX, "X[q]", "either Einsums of its own or", ""),
    ("X[q] += 1.0", SYNTAX, "X[q] += 1.0", "written once", "sum[k](...)"),
    ("X[q] = Y[q] = 1.0", SYNTAX, "X[q] = Y[q] = 1.0", "one target", ""),
    (
        "X[q, k + 1] = X[q, k] + 1.0\nreturn X",
        SYNTAX,
        "X[q, k + 1] = X[q, k] + 1.0",
        "has no start",
        "X[q, 0] =",
    ),
    (
        "X[q, 0] = 0.0\nO[q] = 1.0\nreturn O",
        SYNTAX,
        "X[q, 0]",
        "no recurrence goes on from it",
        "X[q, k + 1]",
    ),
    ("X[q, 0] = 0.0\nX[q, 0] = 0.0", SYNTAX, "X[q, 0] = 0.0", "given twice", ""),
    (
        "X[0, q] = 0.0\nX[q, k + 1] = X[q, k] + 1.0",
        SYNTAX,
        "X[q, k + 1] = X[q, k] + 1.0",
        "other ranks than its start",
        "X[q, 0] =",
    ),
    (
        f"{STARTED}X[q, k + 1] = 1.0\nO[q] = X[q, n_k]\nreturn O",
        RANK,
        "X[q, k + 1]",
        "reads the value before it",
        "X[q, k]",
    ),
    (
        f"{STARTED}X[q, k + 1] = X[q, k - 1]\nO[q] = X[q, n_k]\nreturn O",
        RANK,
        "X[q, k - 1]",
        "before it only",
        "X[q, k]",
    ),
    (
        f"{STARTED}X[q, k + 1] = X[q, k] + 1.0\nreturn X",
        OUT,
        "X",
        "a recurrence, with a value for every step",
        "X[q, n_k]",
    ),
    (
        "X[0, k] = 0.0\nX[q + 1, k] = X[q, k]\nO[k] = X[n_q, k]\nreturn O",
        RANK,
        "X[q + 1, k]",
        "carried along `q`",
        "m: rank",
    ),
    (
        "X[q, 0] = sum[d](Q[q, d])\nX[q, k + 1] = X[q, k] + 1.0\nO[q] = X[q, n_k]\nreturn O",
        RANK,
        "sum[d](Q[q, d])",
        "without reductions",
        "",
    ),
    ("X[q, 0] = 1.0 * k\nX[q, k + 1] = X[q, k]\nO[q] = X[q, n_k]\nreturn O", RANK, "k", "the start of X", ""),
    ("X[q, k + 2] = 1.0", SYNTAX, "k + 2", "are names", ""),
    ("import os", SYNTAX, "import os", "not a statement of the language", "Einsum"),
    ("def f(): pass", SYNTAX, "def f(): pass", "not a statement of the language", ""),
    ("mask = k < q\n'text'", SYNTAX, "'text'", "docstring comes first", "#"),
    ("mask = (lambda: k)", SYNTAX, "lambda: k", "lambda", ""),
    ("mask = Q[q, d] @ K[k, d]", SYNTAX, "Q[q, d] @ K[k, d]", "`@`", "sum[d]"),
    ("mask = (k)[q] > 0".replace("(k)", "(k + 1)"), SYNTAX, "k + 1", "only a tensor", ""),
    ("mask = [k]", SYNTAX, "[k]", "not an expression", ""),
    ("mask = (k < q", SYNTAX, "(", "never closed", ""),
    ("mask = k <", SYNTAX, "", "invalid syntax", ""),
]


@pytest.mark.parametrize(
    ("text", "kind", "span", "message", "hint"), MISTAKES, ids=[m[0][:40] for m in MISTAKES]
)
def test_each_mistake_is_marked_and_explained(
    text: str, kind: type[AttngenError], span: str, message: str, hint: str
) -> None:
    with pytest.raises(AttngenError) as caught:
        parse_program(text, file="case.attn")
    error = caught.value
    assert type(error) is kind
    assert message in error.message
    assert hint in (error.hint or "")
    assert error.loc is not None
    marked = error.loc.text[error.loc.col : error.loc.end_col]
    assert marked == span or (not span and not marked.strip())
    assert f"case.attn:{error.loc.line}:" in str(error)


def test_hints_stand_on_their_own() -> None:
    """Whatever Python's own parser says, ours says it as ours: catching SyntaxError works as well."""
    with pytest.raises(SyntaxError):
        parse_program("mask = = k")


def test_a_recurrence_is_one_einsum_of_two_lines() -> None:
    program = parse_program("X[0, q] = 0\nX[k + 1, q] = max(X[k, q], 2)\nO[q] = X[n_k, q]\nreturn O")
    step = Apply("max", (Load("X", (k, q)), Const(2)))
    assert program.cascade[0] == Einsum("X", ("k", "q"), step, step="k", start=Const(0))
    assert program.cascade[1] == Einsum("O", ("q",), Load("X", (Size("n_k"), q)))
