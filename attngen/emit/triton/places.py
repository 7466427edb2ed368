"""Print where the tile of a program lies: its batch entry and heads, its rows, and which of them are there.

    one head a tile        row = q_lo + tl.arange(0, BLOCK_Q);  q = tl.minimum(row, q_hi);  h a scalar
    packed                 row counts the queries of all heads of a key head, the head fastest
                           q = row // group;  h = kv * group + row % group, a vector like q

The first and the last query of a packed tile are those of its first and its last row; a query that a tile boundary cuts
belongs to both tiles, with some of its heads each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.boxes import BoxPrinter
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.live import live, reads
from attngen.emit.triton.names import program_number
from attngen.emit.triton.pack import check_packs
from attngen.emit.triton.sides import rows_are_keys

_COMMENT = ("Rows past the end repeat the last query: every address is valid, and they are not stored.",)
_PACKED_COMMENT = (
    "Rows are the queries of all heads of a key head, the head fastest; those past the end",
    "repeat the last: every address is valid, and they are not stored.",
)


@dataclass(frozen=True, slots=True)
class Places:
    """The text of where a tile lies.

    programs  statements that find the tile of this program, its batch entry and its head.
    rows      statements that find its rows.
    keys      statements that find where the keys of a tile lie.
    ends      statements after the loops that find the rows once more, where finding them costs less than keeping them.
    comment   what is said of the rows.
    exists    which rows of the tile are there.
    packed    whether a tile holds rows of several heads.
    """

    programs: list[str]
    rows: list[str]
    keys: list[str]
    ends: list[str] = field(default_factory=list[str])
    comment: tuple[str, ...] = _COMMENT
    exists: str = "row < n_q"
    packed: bool = False

    def heads(self, after: list[str]) -> list[str]:
        """What addresses take of the batch entry and the heads, where statements `after` read it."""
        lines = ["b64 = b.to(tl.int64)"]
        if self.packed:
            lines.append("kv64 = kv.to(tl.int64)")
        elif reads("kv", after):
            lines += ["h64 = h.to(tl.int64)", "kv = h // group", "kv64 = kv.to(tl.int64)"]
        else:
            lines += ["h64 = h.to(tl.int64)", "kv64 = (h // group).to(tl.int64)"]
        return live(lines, after)

    def head(self, name: str) -> str:
        """Where an output begins, of this batch entry and, where the tile has one, of its head."""
        batch = f"{name}_ptr + b64 * {name}_stride_b"
        return batch if self.packed else f"{batch} + h64 * {name}_stride_h"

    def row(self, name: str, *, column: bool, ends: bool = True) -> str:
        """Where the rows of the tile lie from there, as a column or as a vector; `ends` after the loops."""
        at = "[:, None]" if column else ""
        if not self.packed:
            return f"row64{at} * {name}_stride_q"
        h, q = ("h_stored", "q_stored") if ends else ("h64", "q64")
        return f"{h}{at} * {name}_stride_h + {q}{at} * {name}_stride_q"

    def turns(self, spec: KernelSpec) -> tuple[list[str], list[str]]:
        """The statements before a loop over tiles of queries, and those that find the tile of a turn in it."""
        at = self.programs.index(program_number(spec))
        number = ["program = tl.load(order_ptr + turn)"] if spec.ordered else []
        count = f"n_programs = n_tiles_q * {'n_kv' if self.packed else 'n_h'} * n_b"
        return [*self.programs[:at], count], [*number, *self.programs[at + 1 :]]


def places_of(spec: KernelSpec, config: TritonConfig, boxes: BoxPrinter | None) -> Places:
    """Where the tiles of a kernel lie. Raises UnsupportedError where it is to be packed and may not."""
    if config.pack_heads:
        check_packs(spec)
    if boxes is not None:
        return Places(boxes.programs(), boxes.rows(), boxes.key_lanes(), exists="exists")
    return _packed(spec) if config.pack_heads else _of_one_head(spec)


def _of_one_head(spec: KernelSpec) -> Places:
    return Places(
        ["n_tiles_q = (n_q + BLOCK_Q - 1) // BLOCK_Q", *_numbers(spec, "h", "n_h")],
        [
            "q_lo = tile_q * BLOCK_Q",
            "q_hi = tl.minimum(q_lo + BLOCK_Q, n_q) - 1",
            "row = q_lo + tl.arange(0, BLOCK_Q)",
            "q = tl.minimum(row, q_hi)",
            "row64 = row.to(tl.int64)",
        ],
        ["key = tl.arange(0, BLOCK_K)"],
    )


def _packed(spec: KernelSpec) -> Places:
    return Places(
        [
            "n_kv = n_h // group",
            "n_rows = n_q * group",
            "n_tiles_q = (n_rows + BLOCK_Q - 1) // BLOCK_Q",
            *_numbers(spec, "kv", "n_kv"),
        ],
        [
            "row_lo = tile_q * BLOCK_Q",
            "row_hi = tl.minimum(row_lo + BLOCK_Q, n_rows) - 1",
            "q_lo = row_lo // group",
            "q_hi = row_hi // group",
            "row = row_lo + tl.arange(0, BLOCK_Q)",
            "row_inside = tl.minimum(row, row_hi)",
            "q = row_inside // group",
            "q64 = q.to(tl.int64)",
            "h = kv * group + row_inside % group",
            "h64 = h.to(tl.int64)",
        ],
        ["key = tl.arange(0, BLOCK_K)"],
        # of rows that are not clamped, which the compiler would keep through the loops
        ends=[
            "q_stored = (row // group).to(tl.int64)",
            "h_stored = (kv * group + row % group).to(tl.int64)",
        ],
        comment=_PACKED_COMMENT,
        exists="row < n_rows",
        packed=True,
    )


def _numbers(spec: KernelSpec, head: str, heads: str) -> list[str]:
    """The tile, the head and the batch entry of a program."""
    in_order = spec.ordered or rows_are_keys(spec.tile)
    return [
        program_number(spec),
        f"tile_q = {'' if in_order else 'n_tiles_q - 1 - '}program % n_tiles_q",
        f"{head} = program // n_tiles_q % {heads}",
        f"b = program // n_tiles_q // {heads}",
    ]
