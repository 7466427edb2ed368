"""Sympy expressions as expressions of the language.

    d0_old**3 * d0**-3   ->  (d0_old / d0) ** 3

A quotient of powers becomes one power of a quotient: neither power is formed, so neither overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from attngen.errors import InternalError
from attngen.lang.expr import Apply, Const, Expr, apply
from attngen.lang.ops import OPS

# A statistic before the tile is the symbol of its name and this.
OLD_SUFFIX = "_old"


def from_sympy(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    """The expression that `value` stands for; `atoms` maps symbols back.

    Raises InternalError for a sympy function that no operator of the language computes.
    """
    import sympy as sp

    if value in atoms:
        return atoms[value]
    if isinstance(value, sp.Number | sp.NumberSymbol):
        return _constant(value)
    if value in (sp.true, sp.false):
        return Const(bool(value))
    if isinstance(value, sp.Add):
        return _sum(value, atoms)
    if isinstance(value, sp.Mul):
        return _product(value, atoms)
    if isinstance(value, sp.exp):
        return _power(sp.E, value.exp, atoms)
    if isinstance(value, sp.Pow):
        return _power(value.base, value.exp, atoms)
    if isinstance(value, sp.Piecewise):
        return _piecewise(value, atoms)
    return _function(value, atoms)


def _constant(value: Any) -> Expr:
    import sympy as sp

    if value is sp.oo or value is -sp.oo:
        return Const(float(value))
    if value.is_Integer:
        return Const(float(int(value)))
    return Const(float(value))


def _sum(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    """Positive terms first, so that a difference prints as one; a common number before it.

    A value and its old one stay together, `d0_old - d0 + (d1 - d1_old)`: each difference is small where the
    values are large.
    """
    content, rest = value.primitive()
    if content != 1 and rest.is_Add:
        return apply("mul", _constant(content), _sum(rest, atoms))
    terms = sorted(value.as_ordered_terms(), key=lambda t: t.could_extract_minus_sign())
    pairs, terms = _old_pairs(terms) if len(terms) > 2 else ([], terms)
    out: Expr | None = None
    for new, gone in pairs:
        change = apply("sub", from_sympy(new, atoms), from_sympy(-gone, atoms))
        out = change if out is None else apply("add", out, change)
    for term in terms:
        if out is None:
            out = from_sympy(term, atoms)
        elif term.could_extract_minus_sign():
            out = apply("sub", out, from_sympy(-term, atoms))
        else:
            out = apply("add", out, from_sympy(term, atoms))
    assert out is not None
    return out


def _old_pairs(terms: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Terms `d_old` and `-d` (or the other way round) as pairs, the positive one first, and the rest."""
    pairs: list[tuple[Any, Any]] = []
    rest = list(terms)
    for term in terms:
        if not term.is_Symbol:
            continue
        name = (
            term.name.removesuffix(OLD_SUFFIX) if term.name.endswith(OLD_SUFFIX) else term.name + OLD_SUFFIX
        )
        other = next((t for t in rest if (-t).is_Symbol and (-t).name == name), None)
        if other is not None:
            pairs.append((term, other))
            rest = [t for t in rest if t not in (term, other)]
    return pairs, rest


def _product(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    import sympy as sp

    sign, rest = value.as_coeff_Mul()
    if sign == -1:
        return apply("neg", from_sympy(rest, atoms))
    over: dict[Any, list[Any]] = {}  # exponent -> bases
    under: dict[Any, list[Any]] = {}
    plain: list[Expr] = []
    for factor in sp.Mul.make_args(value):
        base, exponent = factor.as_base_exp()
        # An exponential is one value, never a power to be inverted.
        if base == sp.E or (base == 2 and not exponent.is_number):
            plain.append(from_sympy(factor, atoms))
        elif exponent.could_extract_minus_sign():
            under.setdefault(-exponent, []).append(base)
        else:
            over.setdefault(exponent, []).append(base)
    out: Expr | None = None
    for item in plain:
        out = item if out is None else apply("mul", out, item)
    for exponent in sorted({*over, *under}, key=sp.default_sort_key):
        out = _times_power(out, over.get(exponent), under.get(exponent), exponent, atoms)
    assert out is not None
    return out


def _times_power(
    out: Expr | None,
    over: list[Any] | None,
    under: list[Any] | None,
    exponent: Any,
    atoms: Mapping[Any, Expr],
) -> Expr:
    """`out * (over / under) ** exponent`, with what is absent left out."""
    top, bottom = _chain(over, atoms), _chain(under, atoms)
    if top is None:
        assert bottom is not None
        return apply("div", Const(1.0) if out is None else out, _raise(bottom, exponent, atoms))
    piece = _raise(top if bottom is None else apply("div", top, bottom), exponent, atoms)
    return piece if out is None else apply("mul", out, piece)


def _chain(factors: list[Any] | None, atoms: Mapping[Any, Expr]) -> Expr | None:
    return (
        reduce(lambda a, b: apply("mul", a, b), [from_sympy(f, atoms) for f in factors]) if factors else None
    )


def _power(base: Any, exponent: Any, atoms: Mapping[Any, Expr]) -> Expr:
    import sympy as sp

    if base == sp.E:
        return apply("exp", _exponent(exponent, atoms))
    if base == 2 and not exponent.is_number:
        return apply("exp2", _exponent(exponent, atoms))
    if exponent.could_extract_minus_sign():
        return apply("div", Const(1.0), _raise(from_sympy(base, atoms), -exponent, atoms))
    return _raise(from_sympy(base, atoms), exponent, atoms)


def _exponent(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    """`a/t - b/t` as `(a - b) / t`: the difference first, as a person writes it."""
    import sympy as sp

    sign, factors = sp.factor_terms(value).as_coeff_mul()
    if sign == -1:
        sums = [f for f in factors if f.is_Add]
        if sums:
            factors = [-f if f is sums[0] else f for f in factors]
            value = sp.Mul(*factors, evaluate=False) if len(factors) > 1 else factors[0]
    elif sign == 1:
        value = sp.factor_terms(value)
    return from_sympy(value, atoms)


def _raise(base: Expr, exponent: Any, atoms: Mapping[Any, Expr]) -> Expr:
    import sympy as sp

    if exponent == 1:
        return base
    if exponent == sp.Rational(1, 2):
        return apply("sqrt", base)
    if exponent.is_Integer:
        return apply("pow", base, Const(int(exponent)))
    return apply("pow", base, from_sympy(exponent, atoms))


def _piecewise(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    pairs = list(value.args)
    out = from_sympy(pairs[-1][0], atoms)
    for result, condition in reversed(pairs[:-1]):
        out = apply("where", from_sympy(condition, atoms), from_sympy(result, atoms), out)
    return out


def _function(value: Any, atoms: Mapping[Any, Expr]) -> Expr:
    import sympy as sp

    names = {
        sp.log: "log", sp.Abs: "abs", sp.sign: "sign", sp.floor: "floor", sp.ceiling: "ceil",
        sp.tanh: "tanh", sp.sin: "sin", sp.cos: "cos", sp.erf: "erf", sp.Mod: "mod",
        sp.Max: "max", sp.Min: "min",
        sp.And: "and", sp.Or: "or", sp.Not: "not", sp.Xor: "xor", sp.StrictLessThan: "lt", sp.LessThan: "le",
        sp.StrictGreaterThan: "gt", sp.GreaterThan: "ge", sp.Equality: "eq", sp.Unequality: "ne",
    }  # fmt: skip
    name = names.get(value.func) or str(value.func.__name__).removeprefix("bit_")
    if name not in OPS:
        raise InternalError(f"sympy's {value.func} has no operator in the language")
    args = [from_sympy(a, atoms) for a in value.args]
    while len(args) > OPS[name].arity:  # max(a, b, c) and the like are chains
        args = [Apply(name, (args[0], args[1])), *args[2:]]
    return Apply(name, tuple(args))
