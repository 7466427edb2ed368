"""Read the states of a Fold back from its outputs, so that results over different keys can be merged.

    O = O_acc / Z                 M   = LSE
    LSE = M + log(Z)      ->      Z   = 1
                                  O_acc = O

The statistics that an accumulator follows may be moved, and the accumulator with them, without changing an output
(`invariance`). So one accumulator may be taken as 1, and the others follow from the outputs by inverting `finish` one
state at a time. A row that kept no key comes back as one: LSE = -inf makes its weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from attngen.algebra.fold import OLD, Fold, State
from attngen.algebra.guards import finite_exponents
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Const, Expr, Load, Size, Var, apply, children, loads, substitute, walk


def section(fold: Fold) -> dict[str, Expr]:
    """An expression over outputs for each state of a complete Fold.

    Raises UnsupportedError where the outputs do not determine them, naming what is missing.
    """
    equations = {name: _row_body(fold, name) for name in fold.outputs}
    left = {s.name for s in fold.states}
    for gauge in _gauges(fold):
        found = dict(gauge)
        unknown = {s.name for s in fold.states} - set(found)
        while (name := _solve_one(fold, equations, unknown, found)) is not None:
            unknown.discard(name)
        if not unknown:
            return _over_outputs(fold, found)
        left = min(left, unknown, key=len)
    names = ", ".join(sorted(left))
    raise UnsupportedError(
        f"the outputs {', '.join(fold.outputs)} do not determine {names}, so they cannot be merged",
        hint="return what tells them too, LSE beside O for one, or the running values themselves",
    )


def _gauges(fold: Fold) -> Iterator[dict[str, Expr]]:
    """States that may be chosen: nothing; a row sum as 1 for each set of followed statistics; a statistic as an output.

    A statistic that is an output itself is no choice.
    """
    yield {}
    sums: dict[frozenset[str], str] = {}
    for state in fold.states:
        follows = _followed(fold, state)
        if state.ranks == ("q",) and state.reduce == "sum" and state.combine == "mul" and not state.mix:
            sums.setdefault(follows, state.name)
    yield {name: Const(1.0) for name in sums.values()}
    statistics = sorted({name for s in fold.states for name in _followed(fold, s)})
    rows = [n for n in fold.outputs if len(_ranks_of(fold, n)) == 1]
    for name, output in product(statistics, rows):
        if name not in fold.outputs:
            yield {name: Load(output, (Var("q"),))}


def _row_body(fold: Fold, name: str) -> Expr:
    """The output as an expression over states, with the row values of the loop and of the end written out."""
    bodies = {s.name: s.body for s in fold.absorb if not isinstance(s, State) and fold.rank not in s.ranks}
    bodies |= {let.name: let.body for let in fold.finish}

    def open_up(expr: Expr) -> Expr:
        match expr:
            case Load(tensor, _) if tensor in bodies:
                return open_up(bodies[tensor])
            case Apply("where", (Apply("eq", (z, Const(zero))), _, rest)) if zero == 0 and _divides(z, rest):
                return open_up(rest)  # the guard of a row without keys
            case Apply("finite", (x,)):
                return open_up(x)
            case Apply(op, args):
                return apply(op, *(open_up(a) for a in args), loc=expr.loc)
            case _:
                return expr

    state = next((s for s in fold.states if s.name == name), None)
    return Load(name, tuple(map(Var, state.ranks))) if state is not None else open_up(bodies[name])


def _divides(z: Expr, expr: Expr) -> bool:
    return any(isinstance(n, Apply) and n.op == "div" and n.args[1] == z for n in walk(expr))


def _solve_one(
    fold: Fold, equations: dict[str, Expr], unknown: set[str], found: dict[str, Expr]
) -> str | None:
    """Invert an equation with one unknown state; its name, and its expression added to `found`."""
    for output, body in equations.items():
        inside = [ld for ld in loads(body) if ld.tensor in unknown]
        if len({ld.tensor for ld in inside}) != 1 or len(inside) != 1:
            continue
        ranks = _ranks_of(fold, output)
        solution = invert(body, inside[0], Load(output, tuple(map(Var, ranks))))
        if solution is not None and not any(isinstance(n, Size) for n in walk(solution)):
            found[inside[0].tensor] = solution
            return inside[0].tensor
    return None


def _ranks_of(fold: Fold, name: str) -> tuple[str, ...]:
    return next(s.ranks for s in (*fold.absorb, *fold.finish) if s.name == name)


def _followed(fold: Fold, state: State) -> frozenset[str]:
    """The states that a rescale reads, through row values of the loop."""
    if state.rescale is None:
        return frozenset()
    lets = {s.name: s.body for s in fold.absorb if not isinstance(s, State)}
    names = {s.name for s in fold.states}
    out: set[str] = set()
    stack = [ld.tensor.removesuffix(OLD) for ld in loads(state.rescale)]
    while stack:
        name = stack.pop()
        if name in names:
            out.add(name)
        elif name in lets:
            stack.extend(ld.tensor.removesuffix(OLD) for ld in loads(lets[name]))
    return frozenset(out)


def invert(body: Expr, unknown: Load, value: Expr) -> Expr | None:
    """The `unknown` of `body == value`, where it stands once in `body`; None if some operator has no inverse."""
    while body != unknown:
        if not isinstance(body, Apply):
            return None
        at = next((i for i, c in enumerate(children(body)) if unknown in set(walk(c))), None)
        step = None if at is None else _undo(body, at, value)
        if step is None or at is None:
            return None
        body, value = body.args[at], step
    return value


def _undo(node: Apply, at: int, value: Expr) -> Expr | None:
    """What operand `at` of `node` is, where `node` is `value`."""
    other = node.args[1 - at] if len(node.args) == 2 else None
    match node.op, at:
        case "add", _ if other is not None:
            return apply("sub", value, other)
        case "sub", 0 if other is not None:
            return apply("add", value, other)
        case "sub", 1 if other is not None:
            return apply("sub", other, value)
        case "mul", _ if other is not None:
            return apply("div", value, other)
        case "div", 0 if other is not None:
            return apply("mul", value, other)
        case "neg", _:
            return apply("neg", value)
        case "log", _:
            return apply("exp", value)
        case "exp", _:
            return apply("log", value)
        case _:
            return None


def simplified(expr: Expr) -> Expr:
    """`expr` without `x * 1`, `x / 1`, `x - log(1)`: what a state taken as 1 leaves."""
    match expr:
        case Apply("log", (Const(one),)) if one == 1:
            return Const(0.0)
        case Apply(op, args):
            new = tuple(simplified(a) for a in args)
            match op, new:
                case ("mul" | "div", (x, Const(one))) if one == 1:
                    return x
                case ("mul", (Const(one), x)) if one == 1:
                    return x
                case ("add" | "sub", (x, Const(zero))) if zero == 0 and math.copysign(1, zero) > 0:
                    return x
                case _:
                    return apply(op, *new, loc=expr.loc)
        case _:
            return expr


def _over_outputs(fold: Fold, found: dict[str, Expr]) -> dict[str, Expr]:
    """The expressions with states that they read written out, in the order in which they were found."""
    known: dict[Expr, Expr] = {}
    out: dict[str, Expr] = {}
    extremes = set(fold.outputs)
    for name, body in found.items():
        out[name] = finite_exponents(simplified(substitute(body, known)), extremes)
        if name not in fold.outputs:  # an output of that name is read as it is
            known[Load(name, tuple(map(Var, _ranks_of(fold, name))))] = out[name]
    return out
