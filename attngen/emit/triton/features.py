"""The columns of operands and accumulators: one rank of features each, padded to what a tile may be wide.

    d  ->  d = tl.arange(0, HEAD_PAD)      of which HEAD_DIM exist
    j  ->  j = tl.arange(0, PAD_J)         of which WIDTH_J exist

Lanes past the width hold 0 in operands, and whatever comes of that in accumulators, of which they are not stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import TileProgram, TileReduce
from attngen.emit.triton.config import padded_dim
from attngen.emit.triton.reserved import identifiers


@dataclass(frozen=True, slots=True)
class Feature:
    """One rank of features.

    lane           the variable of its lanes; `lane64` is the same in 64 bits.
    width, pad     what its extent and its number of lanes are called.
    extent, lanes  what they are; no lanes for a rank of which a tile has one column at a time.
    """

    rank: str
    lane: str
    width: str
    pad: str
    extent: int
    lanes: int

    @property
    def wide(self) -> str:
        """The variable of its lanes in 64 bits."""
        return f"{self.lane}64"

    @property
    def at(self) -> str:
        """The variable of one of its columns, in a loop over them."""
        return f"{self.rank}_at"

    @property
    def pads(self) -> bool:
        """Whether some lanes have no feature."""
        return self.lanes != self.extent

    @property
    def names(self) -> tuple[str, ...]:
        """Every identifier it takes."""
        return (self.lane, self.wide, self.at, self.width, self.pad)


def features(spec: KernelSpec) -> dict[str, Feature]:
    """The ranks of features of a kernel, by name."""
    ranks = ranks_of(spec.tile)
    lanes = {"d": "d", "e": "e"} | identifiers(r for r in ranks if r not in ("d", "e"))
    constants = {"d": ("HEAD_DIM", "HEAD_PAD"), "e": ("VALUE_DIM", "VALUE_PAD")}
    for rank in ranks:
        stem = rank.upper()
        while any(f"WIDTH_{stem}" in names for names in constants.values()):
            stem += "_"
        constants.setdefault(rank, (f"WIDTH_{stem}", f"PAD_{stem}"))
    held = ranks_of(spec.tile, looped=False)
    widths = {r: spec.width(r) for r in ranks}
    padded = {r: padded_dim(widths[r]) if r in held else 0 for r in ranks}
    return {r: Feature(r, lanes[r], *constants[r], widths[r], padded[r]) for r in ranks}


def ranks_of(tile: TileProgram, *, looped: bool = True) -> list[str]:
    """The ranks of features of a tile program: those of the inputs first; `looped` adds those that only loops read."""
    found = [
        *(o.feature for o in tile.operands),
        *(c.feature for c in tile.carried if c.space == "acc"),
        *(f.feature for f in tile.finish if f.space == "acc"),
        *(o.feature for o in tile.outputs if o.space == "acc"),
        *(s.feature for s in tile.steps if looped and isinstance(s, TileReduce)),
    ]
    return sorted(dict.fromkeys(found), key=lambda rank: {"d": 0, "e": 1}.get(rank, 2))
