"""Choose how a fold runs: in one go, over parts of the keys that are merged, as a scan, or re-associated.

All of them give the same result; what differs is how much is done, and on how many units at once. The estimates
below are in seconds, from counts of multiply-adds and from constants of the kind of machine; they are there to rank,
not to predict. The number of passes is one input: a form with more of them may be the fastest.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from attngen.algebra.fold import Fold, State
from attngen.algebra.reassociate import CHUNK
from attngen.arguments import Shapes
from attngen.errors import ParameterError
from attngen.lang.expr import Apply, Expr, Reduce, walk
from attngen.value import value

Algorithm = Literal["one_pass", "several_passes", "local_then_merge", "scan", "reassociated"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

SCAN_CHUNK = 128
_ROWS_AT_ONCE = 64  # query rows of a tile, near enough
_POINTWISE = 2.0  # multiply-adds that an operator on a pair costs as much as
_MOST_SPLITS = 64
_LEAST_KEYS = 256  # of a split: fewer are not worth merging


@value
class Machine:
    """What a kernel runs on.

    units     cores, or multiprocessors of a GPU.
    rate      multiply-adds of one unit in a second.
    dense     multiply-adds a second of all units in a library's matrix product.
    step      seconds that one tensor operation between kernels takes at least.
    """

    units: int
    rate: float
    dense: float
    step: float


def machine_of(device: torch.device, threads: int | None = None) -> Machine:
    """The machine that a device is part of; `threads` is what the CPU kernels are given, None for torch's number."""
    if device.type == "cuda":
        units = torch.cuda.get_device_properties(device).multi_processor_count
        return Machine(units, 1.2e12, units * 2.0e12, 8e-6)
    units = threads or torch.get_num_threads()
    return Machine(units, 1.5e10, units * 2.5e10, 1.5e-5)


def checked(algorithm: str | None) -> Algorithm | None:
    """The algorithm of a name; None leaves the choice to the cost model. Raises ParameterError."""
    if algorithm is None:
        return None
    for known in get_args(Algorithm):
        if algorithm == known:
            return known
    raise ParameterError(
        f"there is no algorithm {algorithm!r}", hint=f"choose one of {', '.join(ALGORITHMS)}"
    )


def pair_cost(fold: Fold, head_dim: int, value_dim: int) -> float:
    """Multiply-adds a pair takes: contractions, accumulators, and pointwise operators at their price."""
    widths = {"d": head_dim, "e": value_dim}
    total = 0.0
    for step in fold.absorb:
        if fold.rank in step.ranks or isinstance(step, State):
            total += _expr_cost(step.body, widths)
        if isinstance(step, State) and len(step.ranks) == 2:
            total += widths.get(step.ranks[1], 16)
    return total


def _expr_cost(expr: Expr, widths: dict[str, int]) -> float:
    total = 0.0
    for node in walk(expr):
        if isinstance(node, Reduce):
            total += math.prod(widths.get(r, 16) for r in node.ranks)
        elif isinstance(node, Apply):
            total += _POINTWISE
    return total


def one_pass_seconds(shapes: Shapes, machine: Machine, pair: float, kept: float) -> float:
    """Every row of work on one unit, from its first key to its last; `kept` is the part of the pairs kept."""
    rows = shapes.batch * shapes.heads * math.ceil(shapes.n_q / _ROWS_AT_ONCE)
    waves = math.ceil(rows / machine.units)
    return waves * min(shapes.n_q, _ROWS_AT_ONCE) * shapes.n_k * kept * pair / machine.rate


def split_seconds(
    shapes: Shapes, machine: Machine, pair: float, kept: float, splits: int, states: int
) -> float:
    """`splits` parts of the keys, each row of work on its own unit, and the merge of their states."""
    rows = shapes.batch * shapes.heads * math.ceil(shapes.n_q / _ROWS_AT_ONCE)
    waves = math.ceil(rows * splits / machine.units)
    keys = shapes.n_k / splits
    work = waves * min(shapes.n_q, _ROWS_AT_ONCE) * keys * kept * pair / machine.rate
    merged = shapes.batch * shapes.heads * shapes.n_q * splits * (shapes.value_dim + 4) * 6
    steps = 8 * states * (math.ceil(math.log2(max(splits, 2))) + 1)
    return work + merged / machine.dense + steps * machine.step


def best_split(shapes: Shapes, machine: Machine, pair: float, kept: float, states: int) -> tuple[int, float]:
    """The number of splits that takes least, and its seconds."""
    most = min(_MOST_SPLITS, shapes.n_k // _LEAST_KEYS)
    counts = [n for n in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n <= most]
    costs = [(split_seconds(shapes, machine, pair, kept, n, states), n) for n in counts]
    seconds, splits = min(costs, default=(math.inf, 2))
    return splits, seconds


def scan_seconds(shapes: Shapes, machine: Machine, pair: float, states: int) -> float:
    """The states of chunks, a scan over them, and a chunk of keys for each query."""
    rows = shapes.batch * shapes.heads
    pairs = rows * (shapes.n_q * SCAN_CHUNK / 2 + shapes.n_k * _ROWS_AT_ONCE / 2)
    chunks = max(shapes.n_k // SCAN_CHUNK, 1)
    rounds = math.ceil(math.log2(chunks + 1)) + 1
    merged = rows * (rounds * chunks + shapes.n_q) * (shapes.value_dim + 4) * 6
    return (
        pairs * pair / (machine.rate * machine.units)
        + merged / machine.dense
        + 10 * states * rounds * machine.step
    )


def reassociated_seconds(shapes: Shapes, machine: Machine, pair: float, chunk: int) -> float:
    """A state of `head_dim * value_dim` numbers for each chunk of keys, read by each query; `chunk` 0 has one state."""
    rows = shapes.batch * shapes.heads
    state = rows * (shapes.n_q + shapes.n_k) * shapes.head_dim * shapes.value_dim
    near = rows * shapes.n_q * chunk / 2 * pair
    chunks = shapes.n_k // chunk if chunk else 1
    steps = 20 + 6 * math.ceil(math.log2(chunks + 1))
    return state / machine.dense + near / (machine.rate * machine.units) + steps * machine.step


@value
class FoldForm:
    """One form of a fold. `splits` are the parts of the keys: 1 for all at once, 0 for a scan over chunks of them."""

    name: Algorithm
    splits: int
    seconds: float


def fold_forms(
    fold: Fold, shapes: Shapes, machine: Machine, *, mergeable: bool, prefix: bool
) -> tuple[FoldForm, ...]:
    """The forms that a fold has, in one go first; the best number of splits has `inf` seconds where keys are few."""
    pair = pair_cost(fold, shapes.head_dim, shapes.value_dim)
    kept, states = kept_part(shapes, prefix=prefix), len(fold.states)
    found = [FoldForm("one_pass", 1, one_pass_seconds(shapes, machine, pair, kept))]
    if mergeable:
        splits, seconds = best_split(shapes, machine, pair, kept, states)
        found.append(FoldForm("local_then_merge", splits, seconds))
    if prefix:
        found.append(FoldForm("scan", 0, scan_seconds(shapes, machine, pair, states)))
    return tuple(found)


def kept_part(shapes: Shapes, *, prefix: bool) -> float:
    """The part of the pairs that a mask is taken to keep: half, where every query keeps the keys before its end."""
    return 0.5 if prefix and shapes.n_q == shapes.n_k else 1.0


def has_rows_for_all(shapes: Shapes, machine: Machine) -> bool:
    """Whether every unit has rows of its own, so that nothing is gained by splitting the keys."""
    return shapes.batch * shapes.heads * shapes.n_q >= _ROWS_AT_ONCE * machine.units


def chosen_form(found: tuple[FoldForm, ...]) -> FoldForm:
    """The form of the least estimate; the first of equal ones."""
    return min(found, key=lambda form: form.seconds)


def product_seconds(shapes: Shapes, machine: Machine, *, masked: bool) -> tuple[float, float]:
    """A sum of plain products through a state, and by its pairs."""
    pair = shapes.head_dim + shapes.value_dim + 8.0
    return (
        reassociated_seconds(shapes, machine, pair, CHUNK if masked else 0),
        one_pass_seconds(shapes, machine, pair, 0.5 if masked else 1.0),
    )
