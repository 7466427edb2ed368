"""Print expressions as C++: one printer a function, which hoists what its inner loops need not repeat.

    doc[b, q] == doc[b, k]      inside the loop over keys
->
    const int64_t* ...          nothing: addresses are computed from the tensor's strides
    const vl doc_q = gather<vl>(args.doc.data, ...)      before the loop, one value a query
    narrow(doc_q == args.doc.data[...])                  in the loop, one scalar a key
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from attngen.emit.cpp_names import ELEMENT_TYPES, INT_BOUNDS, MAX_POSITION, ORDER, RESERVED, identifiers
from attngen.emit.cpp_ops import CPP_OPS, level_of
from attngen.emit.cpp_value import (
    INT32_MAX,
    INT32_MIN,
    Level,
    Prec,
    Value,
    spread,
    to_bool,
    to_float,
    to_int,
    widen,
)
from attngen.emit.spec import KernelSpec, TensorArg
from attngen.emit.tile import TileReduce
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var, loads
from attngen.lang.ops import Kind
from attngen.planner.rows import RowExtreme

_SCALAR_LEVELS = (Level.CALL, Level.HEAD)
_CELL_LEVELS = (Level.COLUMN, Level.CELL)


@dataclass(frozen=True, slots=True)
class Feature:
    """A rank that contractions or accumulators have: its index, the constant that holds its extent, the extent."""

    index: str
    width: str
    extent: int


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of one kernel are in C++, and what kind of thing each is.

    tensors   captured tensors, and those of Q, K and V that the kernel reads; `sizes` the extents of the latter.
    features  ranks with an extent that the kernel is specialised on.
    """

    ident: Mapping[str, str]
    params: Mapping[str, Kind]
    consts: Mapping[str, int | float | bool]
    tensors: Mapping[str, TensorArg]
    uniforms: frozenset[str]
    head_dim: int
    value_dim: int
    positive: frozenset[str] = frozenset()
    features: Mapping[str, Feature] = field(default_factory=dict[str, Feature])
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def kernel_names(spec: KernelSpec) -> Names:
    """The names of a kernel: those of its program, its tile program and its plan."""
    tile = spec.tile
    steps = [getattr(s, "out", None) or getattr(s, "acc", None) for s in tile.steps]
    names = [
        *spec.inputs,
        *(o.name for o in tile.operands),
        *(name for name, _ in spec.params),
        *(t.name for t in spec.tensors),
        *(o.name for o in tile.outputs),
        *(name for name, _ in tile.uniforms),
        *(c.name for c in tile.carried),
        *(name for name in steps if name is not None),
        *(f.out for f in tile.finish),
        *(name for name, _ in spec.lets),
    ]
    widths = _width_names(spec)
    taken = (*_coordinate_names(spec), *widths.values(), *((ORDER,) if spec.ordered else ()))
    ident = identifiers(names, taken)
    return Names(
        ident=ident,
        params=dict(spec.params),
        consts=dict(spec.consts),
        tensors={t.name: t for t in (*spec.tensors, *_input_args(spec))},
        uniforms=frozenset(name for name, _ in tile.uniforms),
        head_dim=spec.head_dim,
        value_dim=spec.value_dim,
        positive=frozenset(spec.positive),
        features=_features(spec, widths, (*taken, *ident.values())),
        sizes={name: _input_sizes(spec, name) for name in spec.inputs},
    )


def _width_names(spec: KernelSpec) -> dict[str, str]:
    """The constants that hold the extents of features."""
    tile = spec.tile
    used = dict.fromkeys(
        (
            *(o.feature for o in tile.operands),
            *(c.feature for c in tile.carried if c.space == "acc"),
            *(f.feature for f in tile.finish if f.space == "acc"),
            *(s.feature for s in tile.steps if isinstance(s, TileReduce)),
        )
    )
    out: dict[str, str] = {}
    for feature in used:
        name = {"d": "HEAD_DIM", "e": "VALUE_DIM"}.get(feature, f"WIDTH_{feature.upper()}")
        out[feature] = name if name not in out.values() else f"WIDTH_{feature}"
    return out


def _features(spec: KernelSpec, widths: Mapping[str, str], taken: Iterable[str]) -> dict[str, Feature]:
    own = identifiers([f for f in widths if f not in ("d", "e")], taken)
    return {f: Feature(own.get(f, f), width, spec.width(f)) for f, width in widths.items()}


def _input_args(spec: KernelSpec) -> list[TensorArg]:
    return [TensorArg(name, Kind.FLOAT, 4, spec.dtype) for name in spec.inputs]


def _input_sizes(spec: KernelSpec, name: str) -> tuple[str, ...]:
    """The extents of an input. Rows are Q's tokens, unless some body reads K or V at a row or Q at a column."""
    at = {"Q": "k", "K": "q", "V": "q"}
    every = (load for body in spec.tile.bodies() for load in loads(body) if load.tensor in at)
    swapped = any(load.indices[2] == Var(at[load.tensor]) for load in every)
    tokens = "n_q" if (name == "Q") is not swapped else "n_k"
    width = spec.value_dim if name == "V" else spec.head_dim
    return "args.n_b", "args.n_h" if name == "Q" else "args.n_kv", f"args.{tokens}", str(width)


def _coordinate_names(spec: KernelSpec) -> list[str]:
    """What the coordinates of a query and of a key are called."""
    plan = spec.plan.boxes
    if plan is None:
        return []
    return [f"{layout.rank}_{axis.name}" for layout in (plan.q, plan.k) for axis in layout.axes]


def position(text: str, level: Level) -> Value:
    """A row or key index, or a size."""
    return Value(text, Kind.INT, level, Prec.ATOM, 0, MAX_POSITION)


def feature_index(feature: Feature, level: Level) -> Value:
    """The index of a feature."""
    return replace(position(feature.index, level), hi=feature.extent - 1)


def float_value(text: str, level: Level) -> Value:
    """A float variable."""
    return Value(text, Kind.FLOAT, level)


@dataclass(slots=True)
class Printer:
    """Prints the expressions of one C++ function.

    variables  index variables and lets in scope.
    values     named values in scope: rows, tile values, accumulators.
    cells      what is read from an operand, while a pair is looped over the operand's feature.
    coordinates  coordinates of tokens by rank and axis, where tiles are boxes; `made` those computed from others.
    row_at     how a hoisted row value is read, `{}` standing for its name.
    reads      arguments read so far, as (name, declaration), for the head of the function.
    scalars    hoisted scalars, for the head of the function; `rows` hoisted lanes, for the head of the key loop;
               `pairs` what is hoisted out of a loop over a feature.
    extremes   what the extremes of row values are called.
    """

    names: Names
    variables: dict[str, Value]
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    cells: dict[Expr, Value] = field(default_factory=dict[Expr, Value])
    coordinates: dict[tuple[str, str], Value] = field(default_factory=dict[tuple[str, str], Value])
    made: dict[tuple[str, str], Expr] = field(default_factory=dict[tuple[str, str], Expr])
    row_at: str = "{}"
    reads: dict[str, str] = field(default_factory=dict[str, str])
    scalars: list[tuple[str, Value]] = field(default_factory=list[tuple[str, Value]])
    rows: list[tuple[str, Value]] = field(default_factory=list[tuple[str, Value]])
    pairs: list[tuple[str, Value]] = field(default_factory=list[tuple[str, Value]])
    hoisted: dict[str, Value] = field(default_factory=dict[str, Value])
    extremes: dict[Expr, Value] = field(default_factory=dict[Expr, Value])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def print(self, expr: Expr) -> Value:
        """The C++ text of an expression, with its type. Raises UnsupportedError for what is not pointwise."""
        match expr:
            case _ if self.cells and expr in self.cells:
                return self.cells[expr]
            case Apply(op, args):
                if op not in CPP_OPS:
                    raise UnsupportedError(f"the C++ printer has no spelling for `{op}`", loc=expr.loc)
                return self._apply(op, [(self.print(a), a) for a in args])
            case Const(value):
                return literal(value)
            case Var(name, None) if name in self.variables:
                return self.variables[name]
            case Var("g", None) if "h" in self.variables:
                self.reads.setdefault("g", "const int32_t g = h / (args.n_h / args.n_kv);")
                return position("g", Level.HEAD)
            case Var(name, str(axis)) if (name, axis) in self.coordinates:
                return self.coordinates[name, axis]
            case Var(name, str(axis)) if (name, axis) in self.made:
                return self.print(self.made[name, axis])
            case Size(name):
                return self._size(name)
            case Param(name):
                return self._param(name)
            case Load(name, _) if name in self.values:
                return self.values[name]
            case Load(name, ()) if name in self.names.uniforms:
                return self._read(self.names.ident[name], Kind.FLOAT)
            case Load(name, indices) if name in self.names.tensors:
                return self._captured(self.names.tensors[name], indices)
            case RowExtreme() if expr in self.extremes:
                return self.extremes[expr]
            case _:
                raise UnsupportedError(f"the C++ printer cannot read {expr!r} here", loc=expr.loc)

    def times(self, value: Value, stride: str) -> str:
        """The text of a scalar times a stride, which has 64 bits."""
        return f"{value.at(Prec.PRODUCT)} * {stride}"

    def drain_rows(self) -> list[tuple[str, Value]]:
        """Row values hoisted since the last call; later expressions hoist afresh."""
        rows, self.rows = self.rows, []
        for name in [text for text, value in self.hoisted.items() if value.lanes]:
            del self.hoisted[name]
        return rows

    def drain_pairs(self) -> list[tuple[str, Value]]:
        """What was hoisted out of a loop over a feature since the last call; later loops hoist afresh."""
        pairs, self.pairs = self.pairs, []
        names = {name for name, _ in pairs}
        self.hoisted = {text: value for text, value in self.hoisted.items() if value.text not in names}
        return pairs

    def head(self) -> list[str]:
        """Declarations for the head of the function."""
        reads = list(self.reads.values())
        return reads + [f"const {value.ctype} {name} = {value.text};" for name, value in self.scalars]

    def _apply(self, op: str, args: list[tuple[Value, Expr | None]]) -> Value:
        level = level_of(*(value for value, _ in args))
        return CPP_OPS[op](*(self.hoist(value, level, expr) for value, expr in args))

    def hoist(self, value: Value, level: Level, expr: Expr | None = None) -> Value:
        """`value` in a variable of an outer loop, if it is computed and changes less often than `level`."""
        computed = value.prec < Prec.ATOM or "(" in value.text or "[" in value.text.removesuffix("[n]")
        if not computed or not _leaves(value.level, level) or _is_literal(value):
            return value
        if value.text not in self.hoisted:
            places = {
                Level.ROW: ("row", self.rows),
                Level.KEY: ("pair", self.pairs),
                Level.TILE: ("pair", self.pairs),
            }
            stem, place = places.get(value.level, ("fixed", self.scalars))
            name = self.fresh(expr, stem)
            place.append((name, value))
            text = self.row_at.format(name) if value.level is Level.ROW else name
            self.hoisted[value.text] = value.named(text)
        return self.hoisted[value.text]

    def fresh(self, expr: Expr | None, stem: str) -> str:
        """A name that nothing else in the function has: that of a load and its indices, or `stem` with a number."""
        if isinstance(expr, Load):
            stem = "_".join([expr.tensor, *(i.name for i in expr.indices if isinstance(i, Var))])
        taken = RESERVED.union(self.names.ident.values(), (f.index for f in self.names.features.values()))
        while True:
            self.counts[stem] = self.counts.get(stem, -1) + 1
            numbered = self.counts[stem] or stem in ("row", "fixed", "pair")
            name = f"{stem}_{self.counts[stem]}" if numbered else stem
            if name not in taken:
                return name

    def _read(self, name: str, kind: Kind) -> Value:
        bounds = (0, 1) if kind is Kind.BOOL else (INT32_MIN, INT32_MAX)
        value = Value(name, kind, Level.CALL, Prec.ATOM, *bounds)
        self.reads.setdefault(name, f"const {value.ctype} {name} = args.{name};")
        return value

    def _size(self, name: str) -> Value:
        fixed = {"D": self.names.head_dim, "E": self.names.value_dim}
        if name in fixed:
            text = "HEAD_DIM" if name == "D" else "VALUE_DIM"
            return replace(position(text, Level.CALL), lo=fixed[name], hi=fixed[name])
        self.reads.setdefault(name, f"const int32_t {name} = args.{name};")
        return position(name, Level.CALL)

    def _param(self, name: str) -> Value:
        if name in self.names.consts:
            return literal(self.names.consts[name])
        value = self._read(self.names.ident[name], self.names.params[name])
        return replace(value, lo=1) if name in self.names.positive else value

    def _captured(self, tensor: TensorArg, indices: tuple[Expr, ...]) -> Value:
        """`tensor[indices]`; an index expression is clamped into the tensor, a plain rank is not."""
        name = f"args.{self.names.ident[tensor.name]}"
        offset: Value | None = None
        for i, index in enumerate(indices):
            at = widen(self.index(tensor.name, i, index), _WIDE)
            term = self._apply("mul", [(at, index), (replace(_WIDE, text=f"{name}.stride[{i}]"), None)])
            offset = term if offset is None else self._apply("add", [(offset, None), (term, None)])
        if offset is None:
            return self._element(tensor, f"{name}.data[0]", Level.CALL)
        if offset.lanes:
            return self._gathered(tensor, name, offset)
        return self._element(tensor, f"{name}.data[{offset.text}]", offset.level)

    def index(self, tensor: str, axis: int, index: Expr) -> Value:
        """An index into an axis of a tensor."""
        value = to_int(self.print(index))
        plain = {"b", "h", "g", "q", "k", *self.names.features}
        if isinstance(index, Var) and index.axis is None and index.name in plain:
            return value
        sizes = self.names.sizes.get(tensor)
        size = sizes[axis] if sizes else f"args.{self.names.ident[tensor]}.size[{axis}]"
        return replace(value, text=f"clamp({value.text}, {size})", prec=Prec.ATOM)

    def _element(self, tensor: TensorArg, text: str, level: Level) -> Value:
        """One element, a scalar."""
        if tensor.kind is Kind.BOOL:
            return Value(f"{text} != 0", Kind.BOOL, level, Prec.EQUAL)
        if tensor.kind is Kind.FLOAT:
            plain = tensor.torch_dtype == "float32"
            double = tensor.torch_dtype == "float64"
            return float_value(text if plain else f"float({text})" if double else f"to_float({text})", level)
        return Value(text, Kind.INT, level, Prec.ATOM, *INT_BOUNDS[tensor.torch_dtype])

    def _gathered(self, tensor: TensorArg, name: str, offset: Value) -> Value:
        """One element a lane."""
        data = f"{name}.data, {offset.text}"
        if tensor.kind is Kind.FLOAT:
            return float_value(f"gather_float({data})", offset.level)
        if tensor.kind is Kind.BOOL:
            return Value(f"gather<vi>({data}) != 0", Kind.BOOL, offset.level, Prec.EQUAL)
        value = Value("", Kind.INT, offset.level, Prec.ATOM, *INT_BOUNDS[tensor.torch_dtype])
        return replace(value, text=f"gather<{value.ctype}>({data})")


def _leaves(inner: Level, outer: Level) -> bool:
    """Whether what changes with `inner` is computed before the loop that a value of level `outer` is computed in."""
    match inner:
        case Level.CALL | Level.HEAD:
            return outer not in _SCALAR_LEVELS
        case Level.ROW:
            return outer in (Level.TILE, Level.CELL)
        case Level.KEY | Level.TILE:
            return outer in _CELL_LEVELS
        case _:
            return False


_WIDE = Value("", Kind.INT, Level.CALL)


def literal(value: float | bool) -> Value:
    """A constant."""
    if isinstance(value, bool):
        return Value("true" if value else "false", Kind.BOOL, Level.CALL, Prec.ATOM, int(value), int(value))
    if isinstance(value, int):
        text = str(value) if value > INT32_MIN else f"INT64_C({value})"
        return Value(text, Kind.INT, Level.CALL, Prec.ATOM if value >= 0 else Prec.UNARY, value, value)
    if math.isinf(value):
        text = "__builtin_inff()"
        return (
            float_value(text, Level.CALL)
            if value > 0
            else replace(float_value(f"-{text}", Level.CALL), prec=Prec.UNARY)
        )
    if math.isnan(value):
        return float_value('__builtin_nanf("")', Level.CALL)
    out = float_value(f"{value!r}f", Level.CALL)
    return out if math.copysign(1.0, value) > 0 else replace(out, prec=Prec.UNARY)


def _is_literal(value: Value) -> bool:
    return value.text.lstrip("-(").startswith(("__builtin", "INT64_C", *"0123456789"))


def as_lanes(value: Value, kind: Kind) -> str:
    """The text of a value as lanes of a kind; integers keep their width."""
    if kind is not value.kind:
        value = {Kind.FLOAT: to_float, Kind.BOOL: to_bool, Kind.INT: to_int}[kind](value)
    return spread(value, Value("", kind, Level.TILE, lo=value.lo, hi=value.hi)).text


def element_type(torch_dtype: str) -> str:
    """The C++ type of a tensor's elements."""
    return ELEMENT_TYPES[torch_dtype]
