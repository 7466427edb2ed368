"""Print expressions as Triton, with the axes, type and bounds of every piece known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attngen.emit.spec import KernelSpec, TensorArg
from attngen.emit.triton.features import features
from attngen.emit.triton.names import MAX_POSITION, is_plain, stride_name
from attngen.emit.triton.ops import TRITON_OPS
from attngen.emit.triton.sides import INPUT_AXES
from attngen.emit.triton.value import (
    INT32_MAX,
    Prec,
    Space,
    Value,
    integer,
    like,
    literal,
    narrow,
    real,
    to_bool,
    to_int,
    widen,
)
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var, free_vars
from attngen.lang.ops import Kind
from attngen.planner.rows import RowExtreme

_INT_BOUNDS = {
    "int64": (-(2**63), 2**63 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint8": (0, 2**8 - 1),
    "bool": (0, 1),
}


def position(text: str, space: Space = Space.SCALAR, *, varies: bool = False) -> Value:
    """A token index or count."""
    return integer(text, 0, MAX_POSITION, space, varies=varies)


def _over_rows(op: str, rows: Value) -> Value:
    """The least or greatest of a value of each row of the tile; rows past the end repeat the last one."""
    if rows.space is Space.SCALAR:
        return rows
    number = to_int(rows)
    out = replace(number, text=f"tl.{op}({number.text}, 0)", prec=Prec.ATOM, space=Space.SCALAR)
    return to_bool(out) if rows.kind is Kind.BOOL else out


def _aside(known: dict[str, str], stem: str, value: Value) -> Value:
    """A value read from a variable that is set earlier; equal text is one variable."""
    name = next((name for name, text in known.items() if text == value.text), None)
    if name is None:
        name = stem if stem not in known else f"{stem}_{len(known)}"
        known[name] = value.text
    return value.named(name)


@dataclass(slots=True)
class Printer:
    """Prints the expressions of one place of the kernel.

    variables  what index variables and lets are called here.
    values     named values in scope: uniforms, rows, tile values, accumulators.
    coordinates  coordinates of tokens, by rank and axis, where tiles are boxes.
    inside     how a plain `k` index is spelled where it reads memory: clamped in partial tiles.
    hoisted    what no key changes, as (name, text): done once, before the loops.
    local      reads of memory set aside before the statement that is being printed; None leaves them in it.
    """

    spec: KernelSpec
    names: Mapping[str, str]
    variables: dict[str, Value]
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    coordinates: dict[tuple[str, str], Value] = field(default_factory=dict[tuple[str, str], Value])
    inside: str = "k"
    hoisted: dict[str, str] = field(default_factory=dict[str, str])
    local: dict[str, str] | None = None

    def print(self, expr: Expr) -> Value:
        """The text of an expression, with its type. Raises UnsupportedError for what is not pointwise."""
        match expr:
            case Apply(op, args):
                return TRITON_OPS[op](*(self.print(a) for a in args))
            case Const(value):
                return literal(value)
            case Var(name, None) if name in self.variables:
                return self.variables[name]
            case Var(name, str(axis)) if (name, axis) in self.coordinates:
                return self.coordinates[name, axis]
            case Size(name):
                return self._size(name)
            case Param(name):
                return self._param(name)
            case Load(name, _) if name in self.values:
                return self.values[name]
            case Load(name, indices):
                tensor = self._tensor(name)
                if tensor is not None:
                    return self._read(tensor, indices)
            case RowExtreme(op, body):
                return _over_rows(op, self.print(body))
            case _:
                pass
        raise UnsupportedError(f"the Triton printer cannot read {expr!r} here", loc=expr.loc)

    def _size(self, name: str) -> Value:
        fixed = {"D": self.spec.head_dim, "E": self.spec.value_dim}
        return literal(fixed[name]) if name in fixed else position(name)

    def _param(self, name: str) -> Value:
        consts = dict(self.spec.consts)
        if name in consts:
            return literal(consts[name])
        kind = dict(self.spec.params)[name]
        text = self.names[name]
        if kind is Kind.FLOAT:
            return real(text, Space.SCALAR, varies=False)
        if kind is Kind.BOOL:
            return Value(text, Kind.BOOL, lo=0, hi=1)
        least, most = _INT_BOUNDS["int32"]
        return integer(text, 1 if name in self.spec.positive else least, most)

    def _tensor(self, name: str) -> TensorArg | None:
        """An input or a captured tensor."""
        if name in INPUT_AXES:
            return TensorArg(name, Kind.FLOAT, len(INPUT_AXES[name]), self.spec.dtype)
        return next((t for t in self.spec.tensors if t.name == name), None)

    def _read(self, tensor: TensorArg, indices: tuple[Expr, ...]) -> Value:
        """`tensor[indices]`; an index expression is clamped into the tensor, a plain rank is inside already."""
        name = self.names.get(tensor.name, tensor.name)
        offset: Value | None = None
        for i, index in enumerate(indices):
            at = widen(self.index(tensor.name, i, index))
            # Triton may make a unit stride a constant, which has no methods
            stride = integer(stride_name(name, tensor.name, i), *_INT_BOUNDS["int32"])
            term = TRITON_OPS["mul"](at, replace(stride, literal=True))
            offset = term if offset is None else TRITON_OPS["add"](offset, term)
        pointer = f"{name}_ptr" if offset is None else f"{name}_ptr + {offset.at(Prec.SUM)}"
        out = Value(f"tl.load({pointer})", tensor.kind)
        loaded = out if offset is None else like(out, replace(offset, literal=False))
        if not loaded.varies:
            return self._element(tensor, _aside(self.hoisted, f"{name}_loaded", loaded))
        if self.local is not None:
            return self._element(tensor, _aside(self.local, f"{name}_read", loaded))
        return self._element(tensor, loaded)

    def hoist(self, stem: str, value: Value) -> Value:
        """A value that no key changes as a variable of its own, set before the loops; equal text is one variable."""
        return _aside(self.hoisted, stem, value)

    def index(self, tensor: str, axis: int, index: Expr) -> Value:
        """An index of an axis of a tensor, moved into the tensor where nobody has checked that it lies inside."""
        if is_plain(index):
            value = self.print(index)
            return replace(value, text=self.inside) if index == Var("k") else value
        value = to_int(self.print(index))
        if tensor in INPUT_AXES and axis == len(INPUT_AXES[tensor]) - 1:
            extent = self.spec.width(INPUT_AXES[tensor][axis])
            if value.lo >= 0 and value.hi < extent:
                return value
        clamped = Value("", Kind.INT, lo=0, hi=INT32_MAX, wide=value.wide)
        out = like(clamped, replace(value, literal=False))
        size = self._extent(tensor, axis, index)
        return narrow(replace(out, text=f"clamp({value.text}, {size})", prec=Prec.ATOM))

    def _extent(self, tensor: str, axis: int, index: Expr) -> str:
        """The extent of an axis."""
        if tensor not in INPUT_AXES:
            return f"{self.names[tensor]}_size_{axis}"
        rank = INPUT_AXES[tensor][axis]
        match rank:
            case "b":
                return "n_b"
            case "h":
                return "n_h" if tensor == "Q" else "n_h // group"
            case "q" | "k":  # which tokens these are depends on the launch
                return "n_k" if "k" in free_vars(index) else "n_q"
            case _:
                feature = features(self.spec).get(rank)
                return str(self.spec.width(rank)) if feature is None else feature.width

    def _element(self, tensor: TensorArg, loaded: Value) -> Value:
        if tensor.kind is Kind.FLOAT:
            plain = tensor.torch_dtype == "float32"
            return loaded if plain else replace(loaded, text=f"{loaded.text}.to(tl.float32)")
        if tensor.kind is Kind.BOOL:
            return replace(loaded, text=f"{loaded.text} != 0", prec=Prec.COMPARE, lo=0, hi=1)
        lo, hi = _INT_BOUNDS[tensor.torch_dtype]
        value = replace(loaded, lo=lo, hi=hi, wide=tensor.torch_dtype == "int64")
        small = tensor.torch_dtype in ("int16", "int8", "uint8")
        return replace(value, text=f"{value.text}.to(tl.int32)") if small else value
