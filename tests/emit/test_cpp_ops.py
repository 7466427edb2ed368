"""The C++ spelling of every operator, against the language's meaning in numpy: on lanes, on scalars, and mixed."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

from attngen.emit.cpp_expr import Names, Printer, as_lanes
from attngen.emit.cpp_names import RESERVED, identifiers
from attngen.emit.cpp_ops import CPP_OPS
from attngen.emit.cpp_value import Level, Value
from attngen.emit.print_cpp import helpers_for
from attngen.lang.expr import Apply, Const, Expr, Var, walk
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import OPS, Kind, Rule
from attngen.resources import data_dir
from tests.emit.cpp_harness import build, call, lane_loop

COUNT = 64
NAMES = Names({}, {}, {}, {}, frozenset(), 64, 64)

# Leaves: name, C++ type of a lane or scalar, kind, bounds.
LEAVES = {
    "i": ("vi", Kind.INT, (-(2**20), 2**20)),
    "w": ("vl", Kind.INT, (-(2**40), 2**40)),
    "f": ("vf", Kind.FLOAT, None),
    "m": ("vi", Kind.BOOL, None),
    "si": ("int32_t", Kind.INT, (-(2**20), 2**20)),
    "sw": ("int64_t", Kind.INT, (-(2**40), 2**40)),
    "sf": ("float", Kind.FLOAT, None),
    "sm": ("bool", Kind.BOOL, None),
}
OF_KIND = {
    Kind.INT: ("i", "w", "si", "sw"),
    Kind.FLOAT: ("f", "sf"),
    Kind.BOOL: ("m", "sm"),
}


def value_of(name: str) -> Value:
    ctype, kind, bounds = LEAVES[name]
    level = Level.ROW if ctype.startswith("v") else Level.HEAD
    return (
        Value(name, kind, level) if bounds is None else Value(name, kind, level, lo=bounds[0], hi=bounds[1])
    )


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    small = rng.integers(-40, 40, COUNT)
    return {
        "i": small.astype(np.int32),
        "w": np.where(
            rng.random(COUNT) < 0.5, rng.integers(-40, 40, COUNT), rng.integers(-(2**40), 2**40, COUNT)
        ),
        "f": np.where(rng.random(COUNT) < 0.3, small, rng.normal(0, 3, COUNT)).astype(np.float32),
        "m": -rng.integers(0, 2, COUNT).astype(np.int32),
        "si": rng.integers(-7, 8, 1).astype(np.int32),
        "sw": rng.integers(-7, 8, 1),
        "sf": rng.normal(0, 2, 1).astype(np.float32),
        "sm": rng.integers(0, 2, 1).astype(np.bool_),
    }


def printed(expr: Expr) -> tuple[str, str, Kind, tuple[str, ...]]:
    """The type of the lanes and the C++ text of an expression over the leaves, its kind, and what was hoisted."""
    printer = Printer(NAMES, {name: value_of(name) for name in LEAVES})
    value = printer.print(expr)
    hoisted = tuple(printer.head())
    lanes = Value("", value.kind, Level.ROW, lo=value.lo, hi=value.hi)
    if value.lanes:
        return lanes.ctype, as_lanes(value, value.kind), value.kind, hoisted
    splat = "mask_of" if value.kind is Kind.BOOL else f"splat<{lanes.ctype}>"
    return lanes.ctype, f"{splat}({value.text})", value.kind, hoisted


def numpy_value(expr: Expr, data: dict[str, np.ndarray]) -> np.ndarray:
    match expr:
        case Const(value):
            return np.asarray(value)
        case Var(name):
            array = data[name]
            return array != 0 if LEAVES[name][1] is Kind.BOOL else array
        case Apply(op, args):
            return np.asarray(NUMPY_OPS[op](*(numpy_value(a, data) for a in args)))
    raise AssertionError(expr)


def exact_magnitude(expr: Expr, data: dict[str, np.ndarray]) -> float:
    """The largest magnitude of any integer on the way, to leave out what overflows 64 bits."""
    nodes = [n for n in walk(expr) if isinstance(n, Apply)]
    as_float = {k: v.astype(np.float64) if v.dtype.kind in "i" else v for k, v in data.items()}
    values = [
        np.abs(numpy_value(n, as_float).astype(np.float64))
        for n in nodes
        if n.op in ("add", "sub", "mul", "neg", "abs")
    ]
    return max((float(v.max()) for v in values), default=0.0)


def operand_kinds(op: str) -> list[tuple[Kind, ...]]:
    rule, arity = OPS[op].rule, OPS[op].arity
    match rule:
        case Rule.LOGIC:
            return [(Kind.BOOL,) * arity, (Kind.INT,) * arity]
        case Rule.INT:
            return [(Kind.INT,) * arity]
        case Rule.SELECT:
            return [(Kind.BOOL, a, b) for a, b in itertools.product(Kind, Kind)]
        case Rule.FLOAT | Rule.TO_FLOAT | Rule.TO_INT | Rule.ROUND:
            return list(itertools.product(Kind, repeat=arity))
        case _:
            return [*itertools.product((Kind.INT, Kind.FLOAT), repeat=arity), (Kind.BOOL, Kind.INT)[:arity]]


def cases() -> list[Expr]:
    out: list[Expr] = []
    for op in OPS:
        for kinds in operand_kinds(op):
            for leaves in itertools.product(*(OF_KIND[k] for k in kinds)):
                if op in ("shl", "pow", "sin", "cos") and any("w" in leaf for leaf in leaves):
                    continue
                out.append(Apply(op, tuple(Var(leaf) for leaf in leaves)))
    return out


def function(name: str, expr: Expr) -> tuple[str, Kind, list[str]]:
    ctype, text, kind, hoisted = printed(expr)
    used = sorted({n.name for n in walk(expr) if isinstance(n, Var)})
    arguments = {n: LEAVES[n][0] for n in used} or {"i": "vi"}
    return lane_loop(name, ctype, arguments, text, hoisted), kind, list(arguments)


def run(
    library, name: str, kind: Kind, text: str, leaves: list[str], data: dict[str, np.ndarray]
) -> np.ndarray:
    wide = " int64_t*" in text.split(", ", maxsplit=1)[0] or "(int64_t*" in text
    result = np.float32 if kind is Kind.FLOAT else np.int64 if wide else np.int32
    out = call(library, name, result, [data[n] for n in leaves], COUNT)
    return out != 0 if kind is Kind.BOOL else out


@pytest.fixture(scope="module")
def seed():
    return random.SystemRandom().randrange(2**32)


def test_every_operator_has_a_spelling():
    assert set(CPP_OPS) == set(OPS)


def test_every_operator_on_every_kind_of_operand(tmp_path, seed):
    data = arrays(np.random.default_rng(seed))
    exprs = cases()
    functions = [function(f"f{i}", e) for i, e in enumerate(exprs)]
    library = build("".join(text for text, _, _ in functions), tmp_path, warnings=False)
    for i, (expr, (text, kind, leaves)) in enumerate(zip(exprs, functions, strict=True)):
        values = dict(data)
        if expr.op in ("pow", "shl", "shr"):  # keep results inside 64 bits
            values |= {n: values[n] % 5 for n in ("i", "si")}
        want = np.broadcast_to(numpy_value(expr, values), COUNT)
        got = run(library, f"f{i}", kind, text, leaves, values)
        message = f"seed {seed}: {expr}"
        if kind is not Kind.FLOAT:
            np.testing.assert_array_equal(got, want, err_msg=message)
        elif expr.op == "mod":  # a remainder near 0 and one near the divisor are neighbours
            divisor = np.abs(numpy_value(expr.args[1], values)).astype(np.float64)
            error = np.abs(got - want)
            near = np.minimum(error, np.abs(divisor - error)) <= 1e-4 * np.maximum(1, np.abs(want))
            wide = np.abs(numpy_value(expr.args[0], values)) > 2**22
            assert (near | wide | ~np.isfinite(want)).all(), message
        elif expr.op == "floordiv":
            assert (np.abs(got - want) <= 1 + 1e-5 * np.abs(want))[np.isfinite(want)].all(), message
        else:
            with np.errstate(over="ignore"):
                want = want.astype(np.float32)
            np.testing.assert_allclose(got, want, rtol=3e-5, atol=1e-6, err_msg=message)


def random_int(rng: random.Random, depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([*(Var(n) for n in OF_KIND[Kind.INT]), Const(rng.randrange(-9, 10))])
    op = rng.choice(
        [
            "add",
            "sub",
            "mul",
            "floordiv",
            "mod",
            "neg",
            "min",
            "max",
            "abs",
            "sign",
            "where",
            "and",
            "or",
            "xor",
            "not",
        ]
    )
    if op == "where":
        return Apply(
            "where", (random_bool(rng, depth - 1), random_int(rng, depth - 1), random_int(rng, depth - 1))
        )
    return Apply(op, tuple(random_int(rng, depth - 1) for _ in range(OPS[op].arity)))


def random_bool(rng: random.Random, depth: int) -> Expr:
    if depth == 0:
        return Var(rng.choice(OF_KIND[Kind.BOOL]))
    op = rng.choice(["lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor", "not"])
    operand = random_bool if OPS[op].rule is Rule.LOGIC else random_int
    return Apply(op, tuple(operand(rng, depth - 1) for _ in range(OPS[op].arity)))


def test_integers_and_conditions_are_exact_however_they_are_nested(tmp_path, seed):
    rng = random.Random(seed)
    data = arrays(np.random.default_rng(seed))
    exprs = [e for e in (random_bool(rng, 4) for _ in range(400)) if exact_magnitude(e, data) < 2.0**62][:150]
    assert len(exprs) > 100
    functions = [function(f"f{i}", e) for i, e in enumerate(exprs)]
    library = build("".join(text for text, _, _ in functions), tmp_path, warnings=False)
    for i, (expr, (text, kind, leaves)) in enumerate(zip(exprs, functions, strict=True)):
        want = np.broadcast_to(numpy_value(expr, data), COUNT)
        got = run(library, f"f{i}", kind, text, leaves, data)
        np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}: {expr}\n{text}")


def test_what_changes_less_often_leaves_the_loop():
    variables = {
        "q": Value("q", Kind.INT, Level.ROW, lo=0, hi=1000),
        "k": Value("k", Kind.INT, Level.KEY, lo=0, hi=1000),
        "h": Value("h", Kind.INT, Level.HEAD, lo=0, hi=8),
    }
    printer = Printer(NAMES, variables)
    q, k, h = Var("q"), Var("k"), Var("h")
    expr = Apply("le", (Apply("add", (k, Apply("mul", (h, Const(3))))), Apply("floordiv", (q, Const(16)))))
    value = printer.print(expr)
    assert value.text == "k + fixed_0 <= row_0"
    assert [(n, v.text) for n, v in printer.scalars] == [("fixed_0", "h * 3")]
    assert [(n, v.text) for n, v in printer.drain_rows()] == [("row_0", "q / 16")]


def test_positions_stay_in_32_bits_and_products_do_not():
    q = Value("q", Kind.INT, Level.ROW, lo=0, hi=2**27)
    shift = CPP_OPS["sub"](
        Value("n_k", Kind.INT, Level.CALL, lo=0, hi=2**27), Value("n_q", Kind.INT, Level.CALL, lo=0, hi=2**27)
    )
    assert CPP_OPS["sub"](CPP_OPS["add"](q, shift), q).ctype == "vi"
    assert CPP_OPS["mul"](q, q).ctype == "vl"


def test_names_that_cpp_or_a_template_has_get_a_tail():
    out = identifiers(["window", "int", "q", "int_", "n__b", "_x"])
    assert out["window"] == "window"
    assert len(set(out.values())) == len(out)
    assert not RESERVED & set(out.values())
    assert not any("__" in v or v.startswith("_") for v in out.values())


def test_every_function_and_constant_of_the_templates_is_reserved():
    """A program may use any name, so whatever a template defines must be known as taken."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in (data_dir("templates") / "cpu").rglob("*.jinja"))
    defined = set(re.findall(r"static (?:inline )?[\w:]+ (\w+)\(", text))
    defined |= set(re.findall(r"typedef .*? (\w+)(?: __attribute__|;)", text))
    defined |= set(re.findall(r"(?:^|\s)(?:struct)(?: alignas\(64\))? (\w+)", text))
    defined |= set(
        re.findall(r"(?:LANES|VECTORS|KEYS|HEAD_DIM|VALUE_DIM|BLOCK_Q|BLOCK_K|PAGE_FLOATS)(?= =)", text)
    )
    defined -= {"half", "half_f", "eight"}  # local to one function
    assert len(defined) > 60
    assert defined <= RESERVED, sorted(defined - RESERVED)


def test_only_the_helpers_that_are_called_are_included():
    assert helpers_for("x + y") == []
    assert helpers_for("vtanh(x)") == ["math/simple", "math/vexp", "math/vtanh"]
    assert helpers_for("gather<vl>(args.doc.data, i)") == ["gather"]
