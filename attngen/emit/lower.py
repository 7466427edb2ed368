"""Lower a Fold to operations on one (query tile, key tile).

    Let   S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
    State M[q]    : max, body S
    Let   E[q, k] = exp(S - finite(M))
    State Z[q]    : sum, body E,        rescale exp(M.old - finite(M))
    State O[q, e] : sum, body E * V,    rescale exp(M.old - finite(M))
->
    S_dot = Q . K^T;  mask S_dot with -inf;  M_tile = rowmax(S_dot) * scale;  M_new = max(M, M_tile)
    E = exp2(S_dot * qk_scale - M_log2);  Z = Z * Z_scale + rowsum(E);  O = O * Z_scale + E . V;  M = M_new

The rules used: a product of the dot with the positive scale is never formed for a maximum (max(s x) = s
max(x) for s > 0); exponentials go to base 2 (`to_exp2`); the mask enters once, on the score, where that is
proved to be enough (`mask_point`); a value whose old reading a rescale needs is updated last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from attngen.algebra.fold import Fold, Let, State, is_old
from attngen.emit.mask_point import Limit, is_identity, limit_of
from attngen.emit.tile import (
    AccDot,
    Carried,
    DotQK,
    FinishLet,
    Mask,
    Output,
    RowLet,
    RowReduce,
    TileLet,
    TileProgram,
    TileStep,
)
from attngen.emit.to_exp2 import Exp2Rewriter, has_reduce
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Var, apply, loads, rewrite, substitute
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Program

_Q, _K, _D, _E = Var("q"), Var("k"), Var("d"), Var("e")
_DOTS = (
    Reduce("sum", ("d",), apply("mul", Load("Q", (_Q, _D)), Load("K", (_K, _D)))),
    Reduce("sum", ("d",), apply("mul", Load("K", (_K, _D)), Load("Q", (_Q, _D)))),
)
_V = Load("V", (_K, _E))
_ROW_OPS = ("max", "min", "sum")


def lower(program: Program, fold: Fold, *, scale_positive: bool = True) -> TileProgram:
    """The tile program of a complete Fold.

    `scale_positive` says that the run-time `scale` is known to be > 0, which lets it move through a maximum.
    Raises UnsupportedError for a step no tile operation computes, naming it.
    """
    return _Lowering(program, fold, scale_positive).run()


class _Lowering:
    """One lowering in progress; every method appends to `steps` in execution order."""

    def __init__(self, program: Program, fold: Fold, scale_positive: bool) -> None:
        self.fold = fold
        self.positive = frozenset({"scale"}) if scale_positive else frozenset[str]()
        self.taken = {t.name for t in program.tensors} | {p.name for p in program.params} | {"Q", "K", "V"}
        self.taken |= {s.name for s in fold.absorb} | {f.name for f in fold.finish} | set(fold.outputs)
        self.old_read = {
            ld.tensor.removesuffix(".old")
            for s in fold.states
            if s.rescale is not None
            for ld in loads(s.rescale)
            if is_old(ld.tensor)
        }
        self.steps: list[TileStep] = []
        self.carried: list[Carried] = []
        self.late: list[RowLet] = []
        self.inlined: dict[Expr, Expr] = {}
        self.current: dict[Expr, Expr] = {}
        self.scales: dict[Expr, str] = {}
        self.sources: list[tuple[str, str]] = []  # (tile value, reducer it enters)
        self.exp2 = Exp2Rewriter(set(), self.taken)

    def run(self) -> TileProgram:
        for step in self.fold.absorb:
            if isinstance(step, State):
                self._state(step)
            elif "k" in step.ranks:
                self._tile_let(step)
            else:
                self._row_let(step)
        self._place_mask()
        self.steps.extend(self.late)
        finish = self._finish()
        return TileProgram(
            uniforms=tuple(self.exp2.uniforms),
            carried=tuple(self.carried),
            steps=tuple(self.steps),
            finish=finish,
            outputs=self._outputs(finish),
        )

    def _resolve(self, expr: Expr) -> Expr:
        """Inline folded tile values; read the newest version of carried ones, `.old` the carried one."""
        expr = substitute(expr, self.inlined)
        expr = substitute(expr, self.current)
        return rewrite(
            expr,
            lambda n: (
                Load(n.tensor.removesuffix(".old"), n.indices)
                if isinstance(n, Load) and is_old(n.tensor)
                else None
            ),
        )

    def _tile_let(self, let: Let) -> None:
        body = let.body
        for dot in _DOTS:
            if _contains(body, dot):
                name = fresh_name(f"{let.name}_dot", self.taken)
                self.steps.append(DotQK(name))
                self.exp2.tiles.add(name)
                body = substitute(body, {dot: Load(name, (_Q, _K))})
        if has_reduce(body):
            raise UnsupportedError(
                f"{let.name}: only sum[d](Q[q, d] * K[k, d]) can be contracted in a tile",
                loc=let.body.loc,
            )
        body = self._resolve(body)
        if self._scaled_dot(body) is not None:
            self.inlined[Load(let.name, (_Q, _K))] = body
            return
        self._emit_tile(let.name, body)

    def _scaled_dot(self, body: Expr) -> tuple[str, Param] | None:
        """`dot * scale` with a positive scale: worth folding into whatever reads it."""
        match body:
            case Apply("mul", (Load(name, _), Param() as scale)) | Apply(
                "mul", (Param() as scale, Load(name, _))
            ):
                return (name, scale) if scale.name in self.positive and name in self.exp2.tiles else None
            case _:
                return None

    def _emit_tile(self, name: str, body: Expr) -> None:
        body = self.exp2.rewrite_tile(body)
        for row_name, row_body in self.exp2.take_row_lets():
            self.steps.append(RowLet(row_name, row_body))
        self.steps.append(TileLet(name, body))
        self.exp2.tiles.add(name)

    def _row_let(self, let: Let) -> None:
        """A row value recomputed from the states; carried only if a rescale reads its old value."""
        body = self._resolve(let.body)
        target = let.name
        if let.name in self.old_read:
            identities: dict[Expr, Expr] = {
                Load(s.name, (_Q,)): Const(REDUCERS[s.reduce].identity)
                for s in self.fold.states
                if s.ranks == ("q",)
            }
            self.carried.append(Carried(let.name, "row", substitute(let.body, identities)))
            target = self._versioned(let.name)
        self.steps.append(RowLet(target, self.exp2.rewrite_row(body)))

    def _versioned(self, name: str) -> str:
        """A name for the new value while `name` keeps the old one until the end of the tile."""
        new = fresh_name(f"{name}_new", self.taken)
        self.current[Load(name, (_Q,))] = Load(new, (_Q,))
        self.late.append(RowLet(name, Load(new, (_Q,))))
        return new

    def _state(self, state: State) -> None:
        init = Const(REDUCERS[state.reduce].identity)
        if state.ranks == ("q",) and state.reduce in _ROW_OPS:
            self.carried.append(Carried(state.name, "row", init))
            self._row_state(state)
        elif state.ranks == ("q", "e") and state.reduce == "sum" and state.combine in (None, "mul"):
            self.carried.append(Carried(state.name, "acc", init))
            self._acc_state(state)
        else:
            raise UnsupportedError(
                f"{state.name}[{', '.join(state.ranks)}] = {state.reduce}[k](...) has no tile operation",
                loc=state.body.loc,
            )

    def _row_state(self, state: State) -> None:
        body = self._resolve(state.body)
        tile_value = Load(fresh_name(f"{state.name}_tile", self.taken), (_Q,))
        scaled = self._scaled_dot(body) if state.reduce in ("max", "min") else None
        if scaled is not None:
            dot, scale = scaled
            raw = fresh_name(f"{state.name}_raw", self.taken)
            self._reduce(raw, state.reduce, dot)
            self.steps.append(RowLet(tile_value.tensor, apply("mul", Load(raw, (_Q,)), scale)))
        else:
            self._reduce(tile_value.tensor, state.reduce, self._as_tile(state.name, body))
        acc: Expr = Load(state.name, (_Q,))
        rescale = self._rescale(state)
        if rescale is not None:
            acc = apply("mul" if state.combine == "mul" else "add", acc, Load(rescale, (_Q,)))
        op = "add" if state.reduce == "sum" else state.reduce
        target = self._versioned(state.name) if state.name in self.old_read else state.name
        self.steps.append(RowLet(target, apply(op, acc, tile_value)))

    def _acc_state(self, state: State) -> None:
        factors = _factors(state.body)
        values = [f for f in factors if f == _V]
        rest = [f for f in factors if f != _V]
        if len(values) != 1 or any(_mentions_e(f) for f in rest):
            raise UnsupportedError(
                f"{state.name}: the body must be a product of V[k, e] and a factor without e",
                loc=state.body.loc,
            )
        weight: Expr = rest[0] if rest else Const(1.0)
        for factor in rest[1:]:
            weight = apply("mul", weight, factor)
        source = self._as_tile(state.name, self._resolve(weight))
        rescale = self._rescale(state)
        self.sources.append((source, "sum"))
        self.steps.append(AccDot(state.name, source, rescale))

    def _as_tile(self, state: str, body: Expr) -> str:
        """The name of a tile value equal to `body`, computed now unless it already has one."""
        if isinstance(body, Load) and body.tensor in self.exp2.tiles:
            return body.tensor
        name = fresh_name(f"{state}_term", self.taken)
        self._emit_tile(name, body)
        return name

    def _reduce(self, out: str, op: str, source: str) -> None:
        self.sources.append((source, op))
        self.steps.append(RowReduce(out, op, source))

    def _rescale(self, state: State) -> str | None:
        if state.rescale is None:
            return None
        body = self.exp2.rewrite_row(self._resolve(state.rescale))
        if body not in self.scales:
            name = fresh_name(f"{state.name}_scale", self.taken)
            self.scales[body] = name
            self.steps.append(RowLet(name, body))
        return self.scales[body]

    def _place_mask(self) -> None:
        """One select on the earliest tile value that suffices, else one on every reduction's source."""
        producers = [s for s in self.steps if isinstance(s, DotQK | TileLet)]
        for producer in producers:
            if all(is_identity(self._limit(source, producer.out), op) for source, op in self.sources):
                at = self.steps.index(producer) + 1
                self.steps.insert(at, Mask(producer.out, float("-inf")))
                return
        self._mask_sources()

    def _limit(self, source: str, masked: str) -> Limit:
        """The limit of a tile value when `masked` is -inf."""
        known = {name: limit_of(body, {}, self.positive) for name, body in self.exp2.uniforms}
        known |= {"V": Limit.FINITE, masked: Limit.NEG_INF}
        for step in self.steps:
            if isinstance(step, TileLet | RowLet) and step.out != masked:
                known[step.out] = limit_of(step.body, known, self.positive)
        return known.get(source, Limit.ANY)

    def _mask_sources(self) -> None:
        """Give each reduction a masked copy of its source, filled with the reducer's identity."""
        masked: dict[tuple[str, str], str] = {}
        out: list[TileStep] = []
        for step in self.steps:
            key = (step.source, step.op) if isinstance(step, RowReduce) else None
            key = (step.source, "sum") if isinstance(step, AccDot) else key
            if key is not None:
                if key not in masked:
                    masked[key] = fresh_name(f"{key[0]}_kept", self.taken)
                    out.append(TileLet(masked[key], Load(key[0], (_Q, _K))))
                    out.append(Mask(masked[key], REDUCERS[key[1]].identity))
                step = replace(step, source=masked[key])  # noqa: PLW2901
            out.append(step)
        self.steps = out

    def _finish(self) -> tuple[FinishLet, ...]:
        """Row values of the loop that are not carried are recomputed first, then the Fold's own finish."""
        carried = {c.name for c in self.carried}
        recompute = [
            s for s in self.fold.absorb if isinstance(s, Let) and "k" not in s.ranks and s.name not in carried
        ]
        wanted = {ld.tensor for let in self.fold.finish for ld in loads(let.body)} | set(self.fold.outputs)
        lets = [s for s in recompute if s.name in wanted] + list(self.fold.finish)
        return tuple(FinishLet(let.name, "acc" if "e" in let.ranks else "row", let.body) for let in lets)

    def _outputs(self, finish: tuple[FinishLet, ...]) -> tuple[Output, ...]:
        spaces: dict[str, Literal["row", "acc"]] = {c.name: c.space for c in self.carried}
        spaces |= {f.out: f.space for f in finish}
        missing = [name for name in self.fold.outputs if name not in spaces]
        if missing:
            raise UnsupportedError(f"output {missing[0]} is not a row of the cascade")
        return tuple(Output(name, name, spaces[name]) for name in self.fold.outputs)


def _factors(expr: Expr) -> list[Expr]:
    match expr:
        case Apply("mul", (a, b)):
            return _factors(a) + _factors(b)
        case _:
            return [expr]


def _mentions_e(expr: Expr) -> bool:
    return any(_E in ld.indices for ld in loads(expr)) or expr == _E


def _contains(expr: Expr, part: Expr) -> bool:
    return substitute(expr, {part: Const(0)}) != expr
