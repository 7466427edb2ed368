"""Symbolic values: what a traced function computes with instead of numbers.

A `Sym` holds an expression, its kind and what it has captured so far (tensors and parameters with the values
they are bound to). Operators, torch functions and methods build larger expressions; whatever would need a
number now (`if`, `int()`, a list index) raises a `TraceError` that points at the user's line.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from attngen.errors import TraceError
from attngen.lang.callsite import here
from attngen.lang.expr import Expr, Var
from attngen.lang.ops import Kind
from attngen.value import value


class Unbound:
    """Stands (the class itself) for the value of a tensor or parameter that only the call will give."""


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """One captured tensor (`rank` is its number of dimensions) or parameter (`rank` is None).

    `key` stands for it in expressions until names are chosen: equal keys are the same thing.
    """

    key: str
    name: str | None
    kind: Kind
    value: object
    rank: int | None = None
    const: bool = False


@dataclass(eq=False, slots=True)
class TraceState:
    """Facts about the running trace that single symbols cannot know.

    constants  0-d tensors made inside the function from plain numbers, by id, with the tensor kept alive.
    reusable   False once the function computed with the contents of tensors: the result is a snapshot.
    grid       names of the coordinates that `q` and `k` have: `q.y` is one of them.
    """

    constants: dict[int, tuple[object, float]] = field(default_factory=dict[int, tuple[object, float]])
    reusable: bool = True
    grid: tuple[str, ...] = ()


STATE: contextvars.ContextVar[TraceState | None] = contextvars.ContextVar("attngen_trace", default=None)


@value
class Meanings:
    """What operations on symbols mean, by torch's names and Python's.

    `methods` holds what differs from the function of the same name; `reasons` says why a function cannot be
    traced.
    """

    functions: Mapping[str, Callable[..., Any]]
    methods: Mapping[str, Callable[..., Any]]
    operators: Mapping[str, Callable[..., Any]]
    reasons: Mapping[str, str]


@cache
def _meanings() -> Meanings:
    from attngen.lang.torch_names import MEANINGS

    return MEANINGS


def fail(message: str, hint: str | None = None) -> NoReturn:
    """Raise a `TraceError` at the user's current operation."""
    raise TraceError(message, loc=here(), hint=hint)


def _refuse(asked_for: str) -> NoReturn:
    from attngen.lang.advice import advise

    message, hint = advise(asked_for)
    fail(message, hint)


def _torch_module() -> Any:
    return sys.modules["torch"]


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def _operator(name: str) -> Callable[..., Any]:
    def method(*operands: object) -> Any:
        return _meanings().operators[name](*operands)

    method.__name__ = name
    return method


class Sym:
    """A number that is not known while the function is traced."""

    __slots__ = ("captures", "depth", "expr", "kind", "nodes")
    __array_ufunc__ = None  # numpy scalars on the left hand the operation to us

    def __init__(
        self, expr: Expr, kind: Kind, captures: tuple[Capture, ...] = (), nodes: int = 1, depth: int = 1
    ) -> None:
        self.expr = expr
        self.kind = kind
        self.captures = captures
        self.nodes = nodes
        self.depth = depth

    def __repr__(self) -> str:
        return f"<symbolic {self.kind}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return call_named(getattr(func, "__name__", str(func)), args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        state = STATE.get()
        if state is not None and name in state.grid and self.expr in (Var("q"), Var("k")):
            return Sym(Var(self.expr.name, name, loc=here()), Kind.INT)  # pyright: ignore[reportAttributeAccessIssue]
        known = _meanings()
        if name not in known.functions and name not in known.methods:
            fail(f"torch's `{name}` cannot be traced", _reason(name))

        def method(*args: object, **kwargs: object) -> object:
            return call_named(name, (self, *args), kwargs, method=True)

        return method

    # What torch code asks of a tensor before it computes with it.

    @property
    def dtype(self) -> object:
        """The torch dtype of this kind: float32, int32 or bool."""
        return getattr(_torch_module(), {"int": "int32", "float": "float32", "bool": "bool"}[self.kind])

    @property
    def device(self) -> object:
        """Torch's default device: symbolic values live nowhere."""
        return _torch_module().get_default_device()

    @property
    def shape(self) -> tuple[int, ...]:
        """No dimensions: one number."""
        return ()

    @property
    def ndim(self) -> int:
        """Zero."""
        return 0

    @property
    def requires_grad(self) -> bool:
        """False: gradients are derived from the expression, not recorded."""
        return False

    # Arithmetic and comparisons: their meaning is in `arith`, shared with torch's functions.

    __add__ = _operator("__add__")
    __radd__ = _operator("__radd__")
    __sub__ = _operator("__sub__")
    __rsub__ = _operator("__rsub__")
    __mul__ = _operator("__mul__")
    __rmul__ = _operator("__rmul__")
    __truediv__ = _operator("__truediv__")
    __rtruediv__ = _operator("__rtruediv__")
    __floordiv__ = _operator("__floordiv__")
    __rfloordiv__ = _operator("__rfloordiv__")
    __mod__ = _operator("__mod__")
    __rmod__ = _operator("__rmod__")
    __divmod__ = _operator("__divmod__")
    __rdivmod__ = _operator("__rdivmod__")
    __pow__ = _operator("__pow__")
    __rpow__ = _operator("__rpow__")
    __lshift__ = _operator("__lshift__")
    __rlshift__ = _operator("__rlshift__")
    __rshift__ = _operator("__rshift__")
    __rrshift__ = _operator("__rrshift__")
    __and__ = _operator("__and__")
    __rand__ = _operator("__rand__")
    __or__ = _operator("__or__")
    __ror__ = _operator("__ror__")
    __xor__ = _operator("__xor__")
    __rxor__ = _operator("__rxor__")
    __lt__ = _operator("__lt__")
    __le__ = _operator("__le__")
    __gt__ = _operator("__gt__")
    __ge__ = _operator("__ge__")
    __eq__ = _operator("__eq__")  # type: ignore[assignment]
    __ne__ = _operator("__ne__")  # type: ignore[assignment]
    __invert__ = _operator("__invert__")
    __neg__ = _operator("__neg__")
    __pos__ = _operator("__pos__")
    __abs__ = _operator("__abs__")
    __floor__ = _operator("__floor__")
    __ceil__ = _operator("__ceil__")
    __trunc__ = _operator("__trunc__")
    __round__ = _operator("__round__")

    # What needs a number, which a symbol does not have.

    def __bool__(self) -> bool:  # noqa: PLE0304 -- raises
        _refuse("bool")

    def __int__(self) -> int:
        _refuse("int")

    def __float__(self) -> float:
        _refuse("float")

    def __complex__(self) -> complex:
        _refuse("float")

    def __index__(self) -> int:  # noqa: PLE0305 -- raises
        _refuse("index")

    def __iter__(self) -> NoReturn:
        _refuse("iter")

    def __contains__(self, item: object) -> bool:
        _refuse("iter")

    def __len__(self) -> int:  # noqa: PLE0303 -- raises
        _refuse("len")

    def __getitem__(self, index: object) -> NoReturn:
        _refuse("len")

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        _refuse("array")

    def __hash__(self) -> int:  # noqa: PLE0309 -- raises
        _refuse("hash")


class SymTensor:
    """A captured tensor with some of its dimensions indexed: `bias[h]` of `bias[h][q][k]`."""

    __slots__ = ("index", "tensor")

    def __init__(self, tensor: Any, index: tuple[Sym | None, ...]) -> None:
        self.tensor = tensor
        self.index = index

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return call_named(getattr(func, "__name__", str(func)), args, kwargs or {})

    def __getitem__(self, index: object) -> Sym | SymTensor:
        return _meanings().operators["__getitem__"](self, index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions that are still open."""
        return tuple(n for n, i in zip(self.tensor.shape, self.index, strict=True) if i is None)

    @property
    def ndim(self) -> int:
        """How many dimensions are still open."""
        return len(self.shape)

    def dim(self) -> int:
        """How many dimensions are still open."""
        return self.ndim

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """Lengths of the open dimensions, or one of them."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0]

    def refuse(self, *args: object) -> NoReturn:
        """Raise the TraceError for use as a number."""
        n_open, rank = self.ndim, len(self.index)
        fail(
            f"the captured tensor has {rank} dimensions and {n_open} of them without an index, "
            "so this is not one number",
            "index every dimension, for example bias[h, q, k]",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __invert__ = refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lt__ = __le__ = __gt__ = __ge__ = refuse
    __eq__ = __ne__ = refuse  # type: ignore[assignment]
    __bool__ = __int__ = __float__ = __index__ = __iter__ = __hash__ = refuse  # type: ignore[assignment]


def call_named(
    name: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    method: bool = False,
) -> object:
    """What torch's function `name` means on symbols, or its method of that name."""
    known = _meanings()
    name = name if name.startswith("__") else name.removeprefix("_")
    function = known.operators.get(name) or known.functions.get(name)
    if method:
        function = known.methods.get(name) or function
    if function is None:
        fail(f"torch's `{name}` cannot be traced", _reason(name))
    for arg in args:
        if isinstance(arg, SymTensor) and name != "__getitem__":
            arg.refuse()
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if isinstance(error, TraceError) or error.__traceback__ is None or error.__traceback__.tb_next:
            raise
        # Raised by the call itself, not inside: these arguments do not fit.
        reason = str(error).split("() ", 1)[-1]
        return fail(f"`{name}` cannot be traced with these arguments: {reason}")


def _reason(name: str) -> str:
    if name.endswith("_") and not name.startswith("_"):
        return "a symbolic value cannot be changed in place; assign the result: x = x.op(...)"
    return _meanings().reasons.get(name, "use pointwise functions of the score and of b, h, q, k")
