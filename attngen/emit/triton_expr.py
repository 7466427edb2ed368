"""Print expressions as Triton: what does not change from key tile to key tile is computed before the loops.

    doc[b, k] == doc[b, q]
->
    doc_b_q = tl.load(doc_ptr + b64 * doc_stride_0 + q.to(tl.int64) * doc_stride_1)          before the loops
    tl.load(doc_ptr + ..., mask=k < n_k, other=0)[None, :] == doc_b_q[:, None]                in the masked loop
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attngen.emit.spec import KernelSpec, TensorArg
from attngen.emit.triton_names import RESERVED, entry_name, is_plain, kernel_args, kernel_identifiers
from attngen.emit.triton_ops import TRITON_OPS
from attngen.emit.triton_value import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    Prec,
    Space,
    Value,
    cast,
    integer,
    like,
    literal,
    spread,
    to_bool,
    to_float,
    to_int,
)
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import Kind
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO

# Bounds the text is exact for. A launch beyond them takes the wide text, where every sum of two is held in 64 bits.
NARROW_POSITION, NARROW_PARAM = 2**27, 2**29
WIDE_POSITION, WIDE_PARAM = INT32_MAX, INT32_MAX
_MAX_BLOCK_K = 1024
_STORED = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (INT32_MIN, INT32_MAX)}


@dataclass(frozen=True, slots=True)
class Let:
    """One statement of the text: `name = text`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of one kernel are, and how far its integers reach."""

    ident: Mapping[str, str]
    params: Mapping[str, Kind]
    consts: Mapping[str, int | float | bool]
    tensors: Mapping[str, TensorArg]
    head_dim: int
    value_dim: int
    padded_value: bool
    position: int
    param: int


def kernel_names(spec: KernelSpec, *, wide: bool, padded_value: bool) -> Names:
    """The names of a kernel; `wide` makes the text exact for any 32-bit position and parameter."""
    return Names(
        ident=kernel_identifiers(spec),
        params=dict(spec.params),
        consts=dict(spec.consts),
        tensors={t.name: t for t in spec.tensors},
        head_dim=spec.head_dim,
        value_dim=spec.value_dim,
        padded_value=padded_value,
        position=WIDE_POSITION if wide else NARROW_POSITION,
        param=WIDE_PARAM if wide else NARROW_PARAM,
    )


@dataclass(slots=True)
class Printer:
    """Prints the expressions of one kernel.

    variables  index variables and lets of the plan in scope.
    values     uniforms, row values, tile values and accumulators in scope.
    keys_end   whether a key may lie past the end, so that loads at `k` need a bound: in the masked loop.
    prologue   statements to run before the loops: hoisted loads and row expressions, lets of the plan.
    """

    names: Names
    variables: dict[str, Value]
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    keys_end: bool = True
    prologue: list[Let] = field(default_factory=list[Let])
    hoisted: dict[str, Value] = field(default_factory=dict[str, Value])
    taken: set[str] = field(default_factory=set[str])

    def print(self, expr: Expr) -> Value:
        """The text of an expression with its type. Raises UnsupportedError for what is not pointwise."""
        match expr:
            case Apply(op, args):
                return self._apply(op, args, expr)
            case Const(value):
                return literal(value)
            case Var(name, None) if name in self.variables:
                return self.variables[name]
            case Size(name):
                return self._size(name)
            case Param(name):
                return self._param(name)
            case Load(name, _) if name in self.values:
                return self.values[name]
            case Load(name, indices) if name in self.names.tensors:
                return self._captured(self.names.tensors[name], indices)
            case _:
                raise UnsupportedError(f"the Triton printer cannot read {expr!r} here", loc=expr.loc)

    def boolean(self, expr: Expr) -> Value:
        """A predicate."""
        return to_bool(self.print(expr))

    def real(self, expr: Expr) -> Value:
        """A number in fp32."""
        return to_float(self.print(expr))

    def let(self, name: str, expr: Expr) -> None:
        """Name an integer of the plan before the loops."""
        value = to_int(self.print(expr))
        ident = self.names.ident[name]
        self.prologue.append(Let(ident, value.text))
        self.variables[name] = value.named(ident)

    def _apply(self, op: str, args: tuple[Expr, ...], expr: Expr) -> Value:
        if op not in TRITON_OPS:
            raise UnsupportedError(f"the Triton printer has no spelling for `{op}`", loc=expr.loc)
        constants = [a.value for a in args if isinstance(a, Const)]
        if len(constants) == len(args):
            return literal(NUMPY_OPS[op](*constants).item())
        values = [self.print(a) for a in args]
        space = like(values[0], *values).space
        return TRITON_OPS[op](*(self._hoist(v, space) for v in values))

    def _hoist(self, value: Value, space: Space) -> Value:
        """A row expression met by keys or features, computed once for all of them."""
        if value.space is not Space.Q or space is Space.Q or value.varies or value.prec is Prec.ATOM:
            return value
        return self._name(value, "q_pos" if value.text == "q + (n_k - n_q)" else "q_term")

    def _name(self, value: Value, stem: str) -> Value:
        if value.text not in self.hoisted:
            name = self._fresh(stem)
            self.prologue.append(Let(name, value.text))
            self.hoisted[value.text] = value.named(name)
        return self.hoisted[value.text]

    def _fresh(self, stem: str) -> str:
        name, n = stem, 2
        while name in self.taken:
            name, n = f"{stem}_{n}", n + 1
        self.taken.add(name)
        return name

    def _size(self, name: str) -> Value:
        if name in ("D", "E"):
            return literal(self.names.head_dim if name == "D" else self.names.value_dim)
        return integer(name, 0, self.names.position)

    def _param(self, name: str) -> Value:
        if name in self.names.consts:
            return literal(self.names.consts[name])
        ident = self.names.ident[name]
        match self.names.params[name]:
            case Kind.FLOAT:
                return Value(ident, Kind.FLOAT)
            case Kind.INT:
                return integer(ident, -self.names.param - 1, self.names.param)
            case Kind.BOOL:
                return to_bool(integer(ident, 0, 1))

    def _captured(self, tensor: TensorArg, indices: tuple[Expr, ...]) -> Value:
        """An element of a captured tensor, its indices clamped unless they are plain ranks."""
        name = self.names.ident[tensor.name]
        parts = [self._index(name, axis, index) for axis, index in enumerate(indices)]
        where = like(Value("", Kind.INT), *parts) if parts else Value("", Kind.INT)
        offsets = [
            f"{spread(_as_offset(part), where.space).text} * {name}_stride_{axis}" for axis, part in enumerate(parts)
        ]
        address = " + ".join((f"{name}_ptr", *offsets))
        loaded = self._typed(tensor, f"tl.load({address}{self._bounds(parts, where.space)})", where)
        if where.varies:
            return loaded
        suffix = "".join(f"_{i.name}" for i in indices if isinstance(i, Var))
        return self._name(loaded, f"{name}{suffix}" if suffix else f"{name}_at")

    def _index(self, name: str, axis: int, index: Expr) -> Value:
        value = self.print(index)
        if is_plain(index):
            return value
        if value.kind is Kind.FLOAT:
            raise UnsupportedError(f"axis {axis} of {name} is indexed by a float", loc=index.loc)
        value = to_int(value)
        floor = value.text if value.lo >= 0 else f"tl.maximum({value.text}, 0)"
        return replace(value, text=f"tl.minimum({floor}, {name}_size_{axis} - 1)", prec=Prec.ATOM, literal=False)

    def _bounds(self, parts: list[Value], space: Space) -> str:
        """The mask of a load: nothing lies behind keys past the end, and behind features added as padding."""
        tests: list[Value] = []
        if self.keys_end and any(p.text == "k" for p in parts):
            tests.append(Value("k < n_k", Kind.BOOL, Space.K, Prec.COMPARE))
        if self.names.padded_value and any(p.text == "e" for p in parts):
            tests.append(Value("e < VALUE_DIM", Kind.BOOL, Space.E, Prec.COMPARE))
        shown = [spread(t, space).text for t in tests]
        return f", mask={' & '.join(shown)}, other=0" if shown else ""

    def _typed(self, tensor: TensorArg, text: str, where: Value) -> Value:
        """A loaded element in the language's kinds: fp32, 32 or 64 bits, boolean."""
        stored = Value(text, tensor.kind, where.space, varies=where.varies)
        match tensor.kind:
            case Kind.FLOAT:
                return stored if tensor.torch_dtype == "float32" else replace(stored, text=cast(stored, "float32"))
            case Kind.BOOL:
                return replace(stored, text=f"{text} != 0", prec=Prec.COMPARE, lo=0, hi=1)
            case Kind.INT if tensor.torch_dtype == "int64":
                return replace(stored, wide=True, lo=INT64_MIN, hi=INT64_MAX)
            case Kind.INT:
                lo, hi = _STORED[tensor.torch_dtype]
                small = tensor.torch_dtype != "int32"
                return replace(stored, text=cast(stored, "int32") if small else text, lo=lo, hi=hi)


def _as_offset(index: Value) -> Value:
    """An index in 64 bits: element offsets of large tensors do not fit 32."""
    if index.text in ("b", "h"):
        return replace(index, text=f"{index.text}64")
    if index.wide or index.literal:
        return index
    return replace(index, text=cast(index, "int64"), prec=Prec.ATOM, wide=True)


def make_printer(spec: KernelSpec, *, wide: bool, padded_value: bool) -> Printer:
    """A printer with the indices of one query tile in scope."""
    names = kernel_names(spec, wide=wide, padded_value=padded_value)
    top = names.position
    variables = {
        "b": integer("b", 0, top),
        "h": integer("h", 0, top),
        "q": integer("q", 0, top, Space.Q),
        "k": integer("k", 0, top, Space.K, varies=True),
        "e": integer("e", 0, top, Space.E),
        Q_LO: integer("q_lo", 0, top),
        Q_HI: integer("q_hi", 0, top),
        BLOCK_K: replace(integer("BLOCK_K", 16, _MAX_BLOCK_K), literal=True),
    }
    taken = set(RESERVED) | set(names.ident.values()) | {a.name for a in kernel_args(spec)} | {entry_name(spec)}
    return Printer(names=names, variables=variables, taken=taken)
