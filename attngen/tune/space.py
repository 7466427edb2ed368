"""The configurations that a kernel may have: for each field its candidate values, and what is legal of their product.

Every variant of a kernel is a point of one space. A field of a configuration without a row in the table keeps the
default's value, or is tried both ways if it is a boolean.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import lcm, prod
from typing import TYPE_CHECKING, TypeAlias

from attngen.emit.configs import Config, config_to_json
from attngen.emit.cpu_config import KEY_STEP, QUERY_STEP, CpuConfig
from attngen.emit.tile import StoreBlock
from attngen.emit.triton.config import MIN_BLOCK, TritonConfig, rows_of_matrix
from attngen.emit.triton.features import features
from attngen.emit.triton.pack import packs
from attngen.emit.triton.sides import BYTES, shared_widths

if TYPE_CHECKING:
    from attngen.emit.spec import KernelSpec, Target

FieldValue: TypeAlias = int | bool | str

# Of boxes, `block_q` and `block_k` are the tokens that they may hold.
TRITON_VALUES: dict[str, tuple[FieldValue, ...]] = {
    "block_q": (16, 32, 64, 128, 256),
    "block_k": (16, 32, 64, 128, 256),
    "num_warps": (1, 2, 4, 8, 16),
    "num_stages": (1, 2, 3, 4, 5),
    "max_registers": (0, 96, 128, 168, 232),
    "matrix_rows": (0, 16, 32),
    "waves_per_eu": (0, 1, 2, 3, 4),
    "sum_parts": (0, 8),
    "persistent": (0, 1, 2),
    "pack_heads": (False, True),
}
CPU_VALUES: dict[str, tuple[FieldValue, ...]] = {
    "block_q": tuple(QUERY_STEP * n for n in (1, 2, 3, 4, 6, 8, 12, 16)),
    "block_k": tuple(KEY_STEP * n for n in (1, 2, 3, 4, 6, 8, 12, 16)),
    "threads": (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
}
_WITHOUT_DESCRIPTORS = ("sm_80", "sm_86", "sm_89")
_WARP = {"cuda": 32, "hip": 64}
_THREADS = 1024  # of a block
_REGISTERS = 65536  # of a multiprocessor
_SIMDS, _LANE_REGISTERS = 4, 512  # of a compute unit, of a lane
_DRAWS = 64


@dataclass(frozen=True, slots=True)
class Space:
    """The legal points among the products of the fields' values, the default one always among them."""

    default: Config
    values: Mapping[str, tuple[FieldValue, ...]]
    legal: Callable[[Config], bool]

    def __contains__(self, config: Config) -> bool:
        given = config_to_json(config)
        return config == self.default or (
            all(given[name] in values for name, values in self.values.items()) and self.legal(config)
        )

    @property
    def size(self) -> int:
        """Points before anything illegal is left out."""
        return prod(map(len, self.values.values()))

    def neighbours(self, config: Config, reach: int = 1) -> Iterator[Config]:
        """Legal points that differ in one field, by at most `reach` places of its row; nearest first."""
        given = config_to_json(config)
        for step in range(1, reach + 1):
            for name, values in self.values.items():
                at = values.index(given[name])
                for place in (at + step, at - step):
                    if 0 <= place < len(values):
                        other = _with(config, {name: values[place]})
                        if self.legal(other):
                            yield other

    def drawn(self, rng: random.Random) -> Config | None:
        """A legal point at random; None where several draws gave none."""
        for _ in range(_DRAWS):
            found = _with(self.default, {n: rng.choice(v) for n, v in self.values.items()})
            if self.legal(found):
                return found
        return None


def space_of(default: Config, spec: KernelSpec, target: Target, threads: int | None = None) -> Space:
    """The space of a kernel. `threads` are those that a launch on a CPU may take; None: they are not to be chosen."""
    blocks = lcm(*(s.width for s in spec.tile.steps if isinstance(s, StoreBlock)))
    if isinstance(default, CpuConfig):
        table = dict(CPU_VALUES)
        most = threads or 1
        counts = sorted(
            {0, most // 2, *(n for n in CPU_VALUES["threads"] if isinstance(n, int) and n < most)}
        )
        table["threads"] = (0,) if threads is None else tuple(counts)
        if blocks > 1:
            table["block_k"] = tuple(blocks * n for n in range(1, 9))
        return Space(default, _rows(default, table), _cpu_legal(blocks, default))
    table = dict(TRITON_VALUES)
    if target.kind != "cuda":
        table["max_registers"] = (0,)
    if target.kind != "hip":
        table |= {"matrix_rows": (0,), "waves_per_eu": (0,)}
    if target.kind != "cuda" or target.arch in _WITHOUT_DESCRIPTORS:
        table |= {"descriptors": (False,), "warp_specialize": (False,)}
    if not packs(spec):
        table["pack_heads"] = (False,)
    if target.kind == "cpu":  # the interpreter
        table |= {"num_warps": (default.num_warps,), "num_stages": (default.num_stages,)}
    legal = _triton_legal(blocks, spec, target)
    if target.kind == "hip":
        return Space(default, _rows(default, table), lambda c: legal(c) and _hip_legal(c, spec))
    return Space(default, _rows(default, table), legal)


def available_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _rows(default: Config, table: Mapping[str, tuple[FieldValue, ...]]) -> dict[str, tuple[FieldValue, ...]]:
    """A row for every field of the configuration, the default's value in it."""
    given: dict[str, FieldValue] = config_to_json(default)
    rows: dict[str, tuple[FieldValue, ...]] = {}
    for field in fields(default):
        value = given[field.name]
        if isinstance(value, bool):
            rows[field.name] = table.get(field.name, (False, True))
            continue
        row = table.get(field.name, (value,))
        rows[field.name] = row if value in row else _sorted_with(row, value)
    return rows


def _sorted_with(row: Sequence[FieldValue], value: FieldValue) -> tuple[FieldValue, ...]:
    if isinstance(value, str):
        return (*row, value)
    return tuple(sorted({*(v for v in row if not isinstance(v, str)), value}))


def _cpu_legal(blocks: int, default: CpuConfig) -> Callable[[Config], bool]:
    def legal(config: Config) -> bool:
        assert isinstance(config, CpuConfig)
        keys = config.block_k == default.block_k or config.block_k % (blocks if blocks > 1 else KEY_STEP) == 0
        return keys and config.block_q % QUERY_STEP == 0 and config.threads <= available_threads()

    return legal


def _triton_legal(blocks: int, spec: KernelSpec, target: Target) -> Callable[[Config], bool]:
    may_pack = packs(spec)
    least = 4 if target.kind == "hip" else 8  # scores a lane: the smallest matrix instruction of AMD has 4

    def legal(config: Config) -> bool:
        assert isinstance(config, TritonConfig)
        q, k, warps = config.block_q, config.block_k, config.num_warps
        threads = warps * _WARP.get(target.kind, 32)
        return (
            q >= MIN_BLOCK
            and k >= MIN_BLOCK
            and k % blocks == 0
            and (config.descriptors or not config.warp_specialize)
            and (may_pack or not config.pack_heads)
            and threads <= _THREADS
            and threads * config.max_registers <= _REGISTERS
            and q * k >= least * threads  # less than that leaves lanes without work
            and q * k <= 512 * threads  # scores alone would take all registers
        )

    return legal


def _hip_legal(config: Config, spec: KernelSpec) -> bool:
    """Whether every warp has rows of its own for a matrix instruction, and what it holds leaves the waves asked for.

    Triton gives each warp a slice of `block_q`; columns of its products are keys, or lanes of features. A SIMD holds
    a wave of each of its warps at least.
    """
    assert isinstance(config, TritonConfig)
    rows, waves = rows_of_matrix(config), config.waves_per_eu
    narrowest = min((f.lanes for f in features(spec).values() if f.lanes), default=MIN_BLOCK)
    return (
        rows * config.num_warps <= config.block_q
        and rows <= config.block_k
        and (not config.matrix_rows or rows <= narrowest)
        and (not waves or waves * _SIMDS >= config.num_warps)
        and _held_registers(config, spec) <= _LANE_REGISTERS // max(waves, 1)
    )


def _held_registers(config: TritonConfig, spec: KernelSpec) -> int:
    """About how many registers a lane of AMD takes: twice what its part of the tiles fills, as compiled kernels do.

    Rows of queries stay in registers, beside scores and accumulators; a tile of keys passes through them to LDS.
    """
    head, value, _ = shared_widths(spec)
    q, k = config.block_q, config.block_k
    words = (q * head + k * max(head, value)) * BYTES[spec.dtype] // 4 + q * (k + value)
    return 2 * words // (config.num_warps * _WARP["hip"])


def _with(config: Config, changes: Mapping[str, FieldValue]) -> Config:
    return replace(config, **changes)  # type: ignore[arg-type]
