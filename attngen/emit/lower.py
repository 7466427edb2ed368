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
proved to be enough (`place_mask`); a value whose old reading a rescale needs is updated last; accumulators over
features come after the row values, those that take shares of others first.
"""

from __future__ import annotations

from attngen.algebra.fold import OLD, Fold, Let, State, is_old, old
from attngen.emit.contract import Operands, block_of, contraction, weighted
from attngen.emit.explicit import explicit
from attngen.emit.lower_select import lower_argmax, lower_topk, no_operation
from attngen.emit.place_mask import place_mask
from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    Carried,
    Dot,
    FinishLet,
    Output,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
    TileStep,
)
from attngen.emit.to_exp2 import Exp2Rewriter
from attngen.errors import UnsupportedError
from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Param,
    Reduce,
    Var,
    apply,
    free_vars,
    loads,
    map_children,
    rewrite,
    substitute,
)
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Program

_Q, _K = Var("q"), Var("k")
_COLUMN_OPS = ("sum", "max", "min", "prod")
_ROW_OPS = ("max", "min", "sum", "prod", "any", "all")


def lower(
    program: Program, fold: Fold, *, scale_positive: bool = True, exact: frozenset[str] = frozenset()
) -> TileProgram:
    """The tile program of a complete Fold.

    `scale_positive` says that the run-time `scale` is known to be > 0, which lets it move through a maximum.
    `exact` names outputs over `e` that are stored in fp32 and not in the dtype of the inputs.
    Raises UnsupportedError for a step no tile operation computes, naming it.
    """
    return Lowering(program, fold, scale_positive, exact).run()


class Lowering:
    """One lowering in progress; every method appends to `steps` in execution order."""

    def __init__(self, program: Program, fold: Fold, scale_positive: bool, exact: frozenset[str]) -> None:
        self.fold, self.exact = fold, exact
        self.positive = frozenset({"scale"}) if scale_positive else frozenset[str]()
        self.taken = {t.name for t in program.tensors} | {p.name for p in program.params} | {"Q", "K", "V"}
        self.taken |= {s.name for s in fold.absorb} | {f.name for f in fold.finish} | set(fold.outputs)
        self.old_read = _read_as_old(fold)
        self.operands = Operands(self.taken)
        self.steps: list[TileStep] = []
        self.shares: list[AccLet] = []
        self.accs: list[TileStep] = []
        self.stores: list[StorePair] = []
        self.carried: list[Carried] = []
        self.blocks: list[Output] = []
        self.late: list[RowLet] = []
        self.inlined: dict[Expr, Expr] = {}
        self.current: dict[Expr, Expr] = {}
        # Row values before the first key, in terms of what the kernel is given.
        self.initial: dict[Expr, Expr] = {
            Load(s.name, (_Q,)): Const(REDUCERS[s.reduce].identity) for s in fold.states if s.ranks == ("q",)
        }
        self.scales: dict[Expr, str] = {}
        self.features: dict[str, Let] = {}
        self.terms: dict[Expr, str] = {}
        self.tops: dict[tuple[str, str], dict[str, str]] = {}
        self.exp2 = Exp2Rewriter(set(), self.taken)

    def run(self) -> TileProgram:
        """The tile program."""
        for step in self.fold.absorb:
            if isinstance(step, State):
                self._state(step)
            elif "k" in step.ranks:
                self._tile_let(step)
            elif step.ranks != ("q",):  # features of a query: written out where a contraction reads them
                self.features[step.name] = step
            else:
                self._row_let(step)
        steps = [*self.steps, *self.shares, *sorted(self.accs, key=self._is_plain), *self.stores]
        steps = place_mask(steps, self.exp2.uniforms, self.positive, self.taken)
        finish = self._finish()
        return TileProgram(
            operands=tuple(self.operands.made),
            uniforms=tuple(self.exp2.uniforms),
            carried=tuple(self.carried),
            steps=(*steps, *self.late),
            finish=finish,
            outputs=self._outputs(finish),
        )

    def _is_plain(self, step: TileStep) -> bool:
        """Whether an accumulator takes rows as they lie in memory: what is computed goes first.

        A narrow product with computed rows that follows a wide one with loaded rows came out wrong from Triton 3.6 on
        sm_90; before it, it is right.
        """
        if not isinstance(step, AccDot):
            return True
        operand = next(o for o in self.operands.made if o.name == step.value)
        return isinstance(operand.body, Load)

    def resolve(self, expr: Expr) -> Expr:
        """Inline folded tile values; read the newest version of carried ones, `.old` the carried one."""
        expr = substitute(explicit(expr), self.inlined)
        expr = substitute(expr, self.current)
        return rewrite(
            expr,
            lambda n: (
                Load(n.tensor.removesuffix(OLD), n.indices)
                if isinstance(n, Load) and is_old(n.tensor)
                else None
            ),
        )

    def _tile_let(self, let: Let) -> None:
        body = self.resolve(self.contracted(let.name, explicit(let.body)))
        if let.name in self.fold.outputs:
            self._emit_tile(let.name, body)
            self.stores.append(StorePair(let.name, let.name))
        elif self._scaled_dot(body) is not None:
            self.inlined[Load(let.name, (_Q, _K))] = body
        else:
            self._emit_tile(let.name, body)

    def contracted(self, name: str, body: Expr) -> Expr:
        """`body` with a tile value in the place of each contraction."""

        def dot(node: Expr) -> Expr | None:
            if not isinstance(node, Reduce):
                return None
            found = contraction(node, self.operands)
            if found is None:
                return self._reduced(name, node)
            known = next(
                (
                    s
                    for s in self.steps
                    if isinstance(s, Dot) and (s.left, s.right) == (found.left, found.right)
                ),
                None,
            )
            if known is None:
                known = Dot(fresh_name(f"{name}_dot", self.taken), found.left, found.right)
                self.steps.append(known)
                self.exp2.tiles.add(known.out)
            value = Load(known.out, (_Q, _K))
            return value if found.rest is None else apply("mul", value, found.rest)

        return rewrite(self._with_features(body), dot)

    def _reduced(self, name: str, node: Reduce) -> Expr:
        """A reduction inside a pair that is no contraction: a loop over its rank."""
        if (
            len(node.ranks) != 1
            or node.op not in _ROW_OPS
            or {"q", "k", "h"} & set(node.ranks)
            or free_vars(node) - {"b", "h", "g", "q", "k"}
        ):
            raise UnsupportedError(
                f"{node.op}[{', '.join(node.ranks)}](...) has no tile operation",
                loc=node.loc,
                hint="write it as an Einsum of its own, or pass it as a tensor",
            )
        out = fresh_name(f"{name}_{node.ranks[0]}", self.taken)
        self.steps.append(TileReduce(out, node.op, node.ranks[0], self.resolve(node.body)))
        self.exp2.tiles.add(out)
        return Load(out, (_Q, _K))

    def _with_features(self, expr: Expr) -> Expr:
        """`expr` with the features of queries written out."""
        if isinstance(expr, Load) and expr.tensor in self.features:
            let = self.features[expr.tensor]
            at: dict[Expr, Expr] = dict(zip(map(Var, let.ranks), expr.indices, strict=True))
            return self._with_features(explicit(substitute(let.body, at)))
        return map_children(expr, self._with_features)

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
        body = self.resolve(let.body)
        target = let.name
        first = substitute(explicit(let.body), self.initial)
        self.initial[Load(let.name, (_Q,))] = first
        if let.name in self.old_read:
            self.carried.append(Carried(let.name, "row", first))
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
        row, feature = state.ranks[0], state.ranks[-1]
        if state.ranks == ("q",) and state.reduce in _ROW_OPS:
            self.carried.append(Carried(state.name, "row", init))
            self._row_state(state)
        elif (
            row == "q" and len(state.ranks) == 2 and state.reduce == "sum" and state.combine in (None, "mul")
        ):
            self._acc_state(state, feature, init)
        elif state.ranks == ("q",) and state.reduce == "argmax":
            lower_argmax(self, state)
        elif row == "q" and len(state.ranks) == 2 and state.reduce in ("topk", "argtopk"):
            lower_topk(self, state, feature)
        elif row == "q" and len(state.ranks) == 2 and state.reduce in _COLUMN_OPS:
            self._acc_state(state, feature, init)
        else:
            raise no_operation(state)

    def _row_state(self, state: State) -> None:
        body = self.resolve(self.contracted(state.name, explicit(state.body)))
        tile_value = Load(fresh_name(f"{state.name}_tile", self.taken), (_Q,))
        scaled = self._scaled_dot(body) if state.reduce in ("max", "min") else None
        if scaled is not None:
            dot, scale = scaled
            raw = fresh_name(f"{state.name}_raw", self.taken)
            self.steps.append(RowReduce(raw, state.reduce, dot))
            self.steps.append(RowLet(tile_value.tensor, apply("mul", Load(raw, (_Q,)), scale)))
        else:
            source = self.as_tile(state.name, body)
            self.steps.append(RowReduce(tile_value.tensor, state.reduce, source))
        acc: Expr = Load(state.name, (_Q,))
        rescale = self._rescale(state)
        if rescale is not None:
            acc = apply("mul" if state.combine == "mul" else "add", acc, Load(rescale, (_Q,)))
        for mix in state.mix:
            acc = apply("add", acc, self._share(mix.state, mix.factor, ("q",)))
        op = {"sum": "add", "prod": "mul", "any": "or", "all": "and"}.get(state.reduce, state.reduce)
        target = self._versioned(state.name) if state.name in self.old_read else state.name
        self.steps.append(RowLet(target, apply(op, acc, tile_value)))

    def _share(self, other: str, factor: Expr, ranks: tuple[str, ...]) -> Expr:
        """`old(other) * factor`, the factor a row value of this tile."""
        scale = self.exp2.rewrite_row(self.resolve(factor))
        if scale not in self.scales:
            self.scales[scale] = fresh_name(f"{other}_share", self.taken)
            self.steps.append(RowLet(self.scales[scale], scale))
        value = self.resolve(Load(old(other), tuple(map(Var, ranks))))
        return apply("mul", value, Load(self.scales[scale], (_Q,)))

    def _acc_state(self, state: State, feature: str, init: Expr) -> None:
        if state.rescale is None and self._is_block(state, feature):
            return self._block_state(state, feature)
        self.carried.append(Carried(state.name, "acc", init, feature))
        body = self.resolve(self.contracted(state.name, explicit(state.body)))
        parts = weighted(body, feature, self.operands) if state.reduce == "sum" else None
        source = None if parts is None else self.as_tile(state.name, parts.weight)
        rescale = self._rescale(state)
        if state.mix:
            rescale = self._add_shares(state, feature, rescale)
        if parts is None or source is None:
            combine = state.combine or "mul"
            self.accs.append(AccEach(state.name, state.reduce, body, rescale, combine))
        elif parts.value is not None:
            self.accs.append(AccDot(state.name, source, rescale, parts.value))
        else:
            assert parts.bin is not None
            index = self.as_tile(f"{state.name}_bin", parts.bin)
            self.accs.append(AccBins(state.name, source, rescale, index))
        return None

    def _add_shares(self, state: State, feature: str, rescale: str | None) -> None:
        """The shares of other accumulators and the rescale, in one update before anything is absorbed."""
        ranks = ("q", feature)
        total: Expr = Load(state.name, tuple(map(Var, ranks)))
        if rescale is not None:
            total = apply("mul", total, Load(rescale, (_Q,)))
        for mix in state.mix:
            total = apply("add", total, self._share(mix.state, mix.factor, ranks))
        # What others share has to be read before it changes, and this before its own rest is added.
        self.shares.insert(0, AccLet(state.name, total))

    def _is_block(self, state: State, feature: str) -> bool:
        identity = REDUCERS[state.reduce].identity
        return block_of(state.body, state.reduce, feature, identity) is not None

    def _block_state(self, state: State, feature: str) -> None:
        found = block_of(state.body, state.reduce, feature, REDUCERS[state.reduce].identity)
        if found is None or state.rescale is not None or state.reduce not in ("sum", "max", "min"):
            raise no_operation(state)
        body, width = found
        if not (isinstance(width, Const) and isinstance(width.value, int) and width.value > 0):
            raise UnsupportedError(
                f"{state.name}: the kernel reduces blocks of keys of a width it is compiled for",
                loc=width.loc or state.body.loc,
                hint="make the width a constant: width: const[int] = 64",
            )
        source = self.as_tile(state.name, self.resolve(self.contracted(state.name, explicit(body))))
        self.accs.append(StoreBlock(state.name, state.reduce, source, width.value))
        self.blocks.append(Output(state.name, state.name, "block", feature))

    def as_tile(self, state: str, body: Expr) -> str:
        """The name of a tile value equal to `body`, computed now unless it already has one."""
        if isinstance(body, Load) and body.tensor in self.exp2.tiles:
            return body.tensor
        carried = {c.name for c in self.carried}
        steady = not any(ld.tensor in carried for ld in loads(body))  # no value that changes within a tile
        if steady and body in self.terms:
            return self.terms[body]
        name = fresh_name(f"{state}_term", self.taken)
        self._emit_tile(name, body)
        if steady:
            self.terms[body] = name
        return name

    def _rescale(self, state: State) -> str | None:
        if state.rescale is None:
            return None
        body = self.exp2.rewrite_row(self.resolve(state.rescale))
        if body not in self.scales:
            name = fresh_name(f"{state.name}_scale", self.taken)
            self.scales[body] = name
            self.steps.append(RowLet(name, body))
        return self.scales[body]

    def _finish(self) -> tuple[FinishLet, ...]:
        """Row values of the loop that are not carried are recomputed first, then the Fold's own finish."""
        carried = {c.name for c in self.carried}
        recompute = [
            s
            for s in self.fold.absorb
            if isinstance(s, Let)
            and "k" not in s.ranks
            and s.name not in carried
            and s.name not in self.features
        ]
        wanted = {ld.tensor for let in self.fold.finish for ld in loads(let.body)} | set(self.fold.outputs)
        lets = [s for s in recompute if s.name in wanted] + list(self.fold.finish)
        return tuple(
            FinishLet(let.name, "row", explicit(let.body))
            if len(let.ranks) == 1
            else FinishLet(let.name, "acc", explicit(let.body), let.ranks[-1])
            for let in lets
        )

    def _outputs(self, finish: tuple[FinishLet, ...]) -> tuple[Output, ...]:
        made: dict[str, Output] = {}
        for value in (*self.carried, *finish):
            name = value.name if isinstance(value, Carried) else value.out
            rounded = value.space == "acc" and value.feature == "e" and name not in self.exact
            made[name] = Output(name, name, value.space, value.feature, rounded)
        made |= {s.name: Output(s.name, s.source, "pair") for s in self.stores}
        made |= {o.name: o for o in self.blocks}
        missing = [name for name in self.fold.outputs if name not in made]
        if missing:
            raise UnsupportedError(f"output {missing[0]} is not a row of the cascade")
        return tuple(made[name] for name in self.fold.outputs)


def _read_as_old(fold: Fold) -> set[str]:
    """Names whose value before a tile some rescale of it reads."""
    read: set[str] = set()
    for state in fold.states:
        bodies = [m.factor for m in state.mix] + ([] if state.rescale is None else [state.rescale])
        read |= {ld.tensor.removesuffix(OLD) for body in bodies for ld in loads(body) if is_old(ld.tensor)}
        read |= {m.state for m in state.mix if state.ranks == ("q",)}
    return read
