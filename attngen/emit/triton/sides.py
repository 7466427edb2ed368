"""How each operand stands in the text: read through a pointer with offsets, or computed, and which way its tile lies.

    K[b, g, k, d] for a Dot         tl.load(k_base + k_start + k_offsets), features by keys: what a product takes
    V[b, g, k, e] for an AccDot     tl.load(v_base + v_start + v_offsets), keys by features
    K[b, g, k, d] for both          keys by features, transposed for the Dot
    rotated Q[b, h, q, d]           computed before the loops

The stem of the variables' names is the operand's own name in small letters.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.spec import KernelSpec, Target
from attngen.emit.tile import AccDot, Dot, Operand, TileProgram
from attngen.emit.triton.features import Feature, features
from attngen.lang.expr import Load, Var, free_vars, loads

INPUT_AXES = {"Q": "bhqd", "K": "bhkd", "V": "bhke"}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WORDS = {"float64": 8, "int64": 8, "bfloat16": 2, "float16": 2}  # bytes of what is no word of four


@dataclass(frozen=True, slots=True)
class Side:
    """An operand in the text.

    stem    begins the names of its variables.
    load    the tensor read as it is; None where the operand is computed.
    dtype   of the elements of its tile.
    valued  whether an AccDot takes it.
    turned  whether its tile is features by keys.
    """

    operand: Operand
    feature: Feature
    stem: str
    load: Load | None
    dtype: str
    valued: bool
    turned: bool

    @property
    def tile(self) -> str:
        """The variable of its tile."""
        return f"{self.stem}_tile"

    @property
    def names(self) -> tuple[str, ...]:
        """Every identifier it takes."""
        return tuple(
            f"{self.stem}_{part}" for part in ("base", "offsets", "start", "step", "from", "rows", "tile")
        )


def sides(spec: KernelSpec) -> dict[str, Side]:
    """The operands of a kernel, by name."""
    ranks = features(spec)
    dots = {name for s in spec.tile.steps if isinstance(s, Dot) for name in (s.left, s.right)}
    values = {s.value for s in spec.tile.steps if isinstance(s, AccDot)}
    out: dict[str, Side] = {}
    for operand in spec.tile.operands:
        load = plain_load(spec, operand)
        stem = operand.name.lower()
        while any(stem == other.stem for other in out.values()):
            stem += "_"
        out[operand.name] = Side(
            operand,
            ranks[operand.feature],
            stem,
            load,
            spec.dtype if load is None else stored_dtype(spec, load.tensor),
            operand.name in values,
            operand.row == "k" and load is not None and operand.name in dots - values,
        )
    return out


def plain_load(spec: KernelSpec, operand: Operand) -> Load | None:
    """The load that an operand is, where addresses take a start and offsets: `tensor[..., row, feature]`."""
    match operand.body:
        case Load(tensor, (*lead, row, feature)) if row == Var(operand.row) and feature == Var(
            operand.feature
        ):
            pass
        case _:
            return None
    fixed = not any(free_vars(i) & {"q", "k", operand.feature} or list(loads(i)) for i in lead)
    if tensor in INPUT_AXES:
        fixed = fixed and all(i in (Var("b"), Var("h"), Var("g")) for i in lead)
    return operand.body if fixed and stored_dtype(spec, tensor) in BYTES else None


def stored_dtype(spec: KernelSpec, tensor: str) -> str:
    """The element type of an input or a captured tensor."""
    if tensor in INPUT_AXES:
        return spec.dtype
    return next(t.torch_dtype for t in spec.tensors if t.name == tensor)


def rows_are_keys(tile: TileProgram) -> bool:
    """Whether the rows of a kernel are the tokens of K and V, its columns those of Q."""
    reads = {
        (ld.tensor, ld.indices[2]) for body in tile.bodies() for ld in loads(body) if ld.tensor in INPUT_AXES
    }
    return bool(reads & {("Q", Var("k")), ("K", Var("q")), ("V", Var("q"))})


def wider(a: str, b: str) -> str:
    """The element type that holds the numbers of both."""
    return a if a == b else "float32"


def tile_widths(spec: KernelSpec) -> tuple[int, int]:
    """Elements of the spec's dtype a row of a dot's tiles takes, and of all value tiles and accumulators.

    One product of each kind, the usual kernel, gives the padded widths of its heads. Dots follow each other, so the
    widest counts; narrow accumulators beside a wide one hardly do.
    """
    ranks, operands = features(spec), sides(spec)

    def elements(name: str) -> int:
        side = operands[name]
        return side.feature.lanes * max(BYTES[side.dtype] // BYTES[spec.dtype], 1)

    dots = [name for s in spec.tile.steps if isinstance(s, Dot) for name in (s.left, s.right)]
    values = dict.fromkeys(s.value for s in spec.tile.steps if isinstance(s, AccDot))
    accumulators = sum(ranks[c.feature].lanes for c in spec.tile.carried if c.space == "acc")
    across = max((elements(name) for name in dots), default=1)
    return across, max(_whole(accumulators), _whole(sum(map(elements, values))), 1)


def _whole(width: int) -> int:
    """The power of two below a width that exceeds it by a quarter at most; any other width as it is."""
    whole = 1 << max(width.bit_length() - 1, 0)
    return whole if width - whole <= whole // 4 else width


def shared_widths(spec: KernelSpec) -> tuple[int, int, int]:
    """Elements of the spec's dtype in shared memory: a row of queries, a row of keys beyond that, and a pair.

    What a kernel reads of captured tensors for each key and each pair is in flight like its rows of keys. Accumulators
    that are stored in fp32 pass where rows of queries did, and the weights of products in fp32 are twice as wide.
    """
    operands = sides(spec)

    def elements(row: str) -> int:
        return sum(
            s.feature.lanes * max(BYTES[s.dtype] // BYTES[spec.dtype], 1)
            for name, s in operands.items()
            if spec.tile.operand(name).row == row
        )

    ranks = features(spec)
    stored = [ranks[o.feature].lanes for o in spec.tile.outputs if o.space == "acc" and not o.rounded]
    rows = max(elements("q"), *(4 * lanes // BYTES[spec.dtype] for lanes in stored), 1)
    keys = elements("k") + 2 * _captured(spec, pairs=False)  # a stage earlier than the rows
    wide = any(s.valued and BYTES[s.dtype] > BYTES[spec.dtype] for s in operands.values())
    return rows, max(keys - rows, 1), _captured(spec, pairs=True) + wide


def _captured(spec: KernelSpec, *, pairs: bool) -> int:
    """Elements of the spec's dtype that captured tensors give for each pair, or for each key whatever the query."""
    types = {t.name: t.torch_dtype for t in spec.tensors}
    bodies = [*spec.tile.bodies(), *([] if spec.keep is None else [spec.keep])]
    found = {ld for body in bodies for ld in loads(body) if ld.tensor in types}
    read = (ld for ld in found if "k" in free_vars(ld) and ("q" in free_vars(ld)) == pairs)
    return sum(_WORDS.get(types[ld.tensor], 4) for ld in read) // BYTES[spec.dtype]


def needs_weights(spec: KernelSpec, target: Target) -> bool:
    """Whether weights go through shared memory: those of fp32, and those of AMD's matrix cores."""
    return spec.dtype == "float32" or target.kind != "cuda"
