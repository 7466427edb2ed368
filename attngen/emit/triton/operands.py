"""Print the operands of contractions: their addresses and the query sides before the loops, the key sides in them."""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.expr import Printer
from attngen.emit.triton.names import stride_name
from attngen.emit.triton.places import Places
from attngen.emit.triton.sides import INPUT_AXES, Side, sides
from attngen.emit.triton.value import Prec, Space, fill, widen
from attngen.lang.expr import Load, Var, free_vars

_LEADING = {Var("b"): "b64", Var("h"): "h64", Var("g"): "kv64"}


class OperandPrinter:
    """The lines of one kernel's operands.

    at           where the tile lies, whose heads are part of an address.
    near         whether keys of a tile lie so close together that 32 bits hold how far each is from the first: what
                 a launch sees to for tiles that are runs of tokens.
    descriptors  whether tiles in a row are read through tensor descriptors, for which a launch sees to alignment.
    """

    def __init__(
        self, printer: Printer, spec: KernelSpec, at: Places, *, near: bool, descriptors: bool = False
    ) -> None:
        self.printer, self.at, self.near, self.descriptors = printer, at, near, descriptors
        self.sides = sides(spec)

    def __getitem__(self, name: str) -> Side:
        """The operand of a name."""
        return self.sides[name]

    def bases(self) -> list[str]:
        """Where the rows of each operand of this head begin."""
        return [f"{s.stem}_base = {self._base(load)}" for s, load in self._loaded("q", "k")]

    def offsets(self) -> list[str]:
        """Where the elements of a tile lie, and the tiles of queries that are read as they are."""
        lines = [f"{s.stem}_offsets = {self._offsets(s, load)}" for s, load in self._loaded("k")]
        rows = self._loaded("q")
        lines += [f"{s.stem}_offsets = {self._offsets(s, load)}" for s, load in rows]
        for side, _ in rows:
            mask = f", mask={_lanes(side)} < {side.feature.width}, other=0.0" if side.feature.pads else ""
            lines.append(f"{side.tile} = tl.load({side.stem}_base + {side.stem}_offsets{mask})")
        return lines

    def computed_rows(self) -> list[str]:
        """The tiles of queries that are computed."""
        rows = (s for s in self.sides.values() if s.load is None and s.operand.row == "q")
        return [f"{s.tile} = {self._computed(s, zeroed_by='')}" for s in rows]

    def starts(self) -> list[str]:
        """In a loop: how far the first key of this tile lies from the first of all."""
        return [
            f"{s.stem}_start = tl.cast(start, tl.int64) * {self._strides(load)[0]}"
            for s, load in self._loaded("k")
        ]

    def steps(self) -> list[str]:
        """Before the loops: how far the first keys of two tiles in a row lie apart."""
        return [
            f"{s.stem}_step = tl.cast(BLOCK_K, tl.int64) * {self._strides(load)[0]}"
            for s, load in self._loaded("k")
        ]

    def described(self) -> list[str]:
        """Before the loops: the rows of each operand as a tensor descriptor, which zeroes what lies past its end."""
        return [
            f"{s.stem}_rows = tl.make_tensor_descriptor({s.stem}_base, [n_k, {s.feature.width}], "
            f"[{self._strides(load)[0]}, 1], [BLOCK_K, {s.feature.pad}])"
            for s, load in self._loaded("k")
        ]

    def froms(self, first: str) -> list[str]:
        """Before a loop over tiles in a row: where the keys of the first begin, `first` the number of the tile."""
        if self.descriptors:
            return []
        at = f"({first} * BLOCK_K).to(tl.int64)"
        return [
            f"{s.stem}_from = {s.stem}_base" + ("" if first == "0" else f" + {at} * {self._strides(load)[0]}")
            for s, load in self._loaded("k")
        ]

    def advances(self) -> list[str]:
        """At the end of such a loop."""
        if self.descriptors:
            return []
        return [f"{s.stem}_from += {s.stem}_step" for s, _ in self._loaded("k")]

    def load(self, side: Side, *, masked: bool, zeroed_by: str, in_a_row: bool = False) -> list[str]:
        """In a loop: the statements that set the tile of keys.

        masked     in partial tiles: keys that are not there are not read.
        in_a_row   in a loop over tiles in a row, which moves on by itself.
        zeroed_by  what says of each key whether a computed value may be other than 0; empty where nothing must.
        """
        if side.load is None:
            self.printer.local = {}
            text = self._computed(side, zeroed_by=zeroed_by if side.valued else "")
            reads = [f"{name} = {read}" for name, read in self.printer.local.items()]
            self.printer.local = None
            return [*reads, f"{side.tile} = {text}"]
        if in_a_row and self.descriptors:
            rows = f"{side.stem}_rows.load([start, 0])"
            return [f"{side.tile} = {f'tl.trans({rows})' if side.turned else rows}"]
        parts = [f"loadable{'[None, :]' if side.turned else '[:, None]'}"] if masked else []
        if side.feature.pads:
            inside = f"{_lanes(side)} < {side.feature.width}"
            parts.append(f"({inside})" if parts else inside)
        mask = f", mask={' & '.join(parts)}, other=0.0" if parts else ""
        first = f"{side.stem}_from" if in_a_row else f"{side.stem}_base + {side.stem}_start"
        return [f"{side.tile} = tl.load({first} + {side.stem}_offsets{mask})"]

    def _loaded(self, *rows: str) -> list[tuple[Side, Load]]:
        """The operands that are read as they are, over some rows."""
        return [(s, s.load) for s in self.sides.values() if s.load is not None and s.operand.row in rows]

    def _computed(self, side: Side, *, zeroed_by: str) -> str:
        """The tile of a computed operand: 0 where there is no feature, or no key that an accumulator may take."""
        space = Space.ACC if side.operand.row == "q" else Space.KEYS
        value = fill(self.printer.print(side.operand.body), space, side.feature.pad)
        there = [f"{zeroed_by}[:, None]"] if zeroed_by else []
        if side.feature.pads:
            there.append(f"({side.feature.lane} < {side.feature.width})[None, :]")
        if there:
            value = replace(value, text=f"tl.where({' & '.join(there)}, {value.text}, 0.0)", prec=Prec.ATOM)
        return value.text if side.dtype == "float32" else f"{value.at(Prec.ATOM)}.to(tl.{side.dtype})"

    def _name(self, load: Load) -> str:
        return load.tensor if load.tensor in INPUT_AXES else self.printer.names[load.tensor]

    def _base(self, load: Load) -> str:
        return " + ".join([f"{self._name(load)}_ptr", *self._leading(load, by_row=False)])

    def _leading(self, load: Load, *, by_row: bool) -> list[str]:
        """How far its first indices lead: those that differ from row to row of the tile, or all others."""
        terms: list[str] = []
        for i, index in enumerate(load.indices[:-2]):
            if by_row != (self.at.packed and "h" in free_vars(index)):
                continue
            at = _LEADING.get(index) if isinstance(index, Var) else None
            if at is None:
                value = widen(self.printer.index(load.tensor, i, index))
                at = value.at(Prec.ATOM if by_row else Prec.PRODUCT)
            column = "[:, None]" if by_row else ""
            terms.append(f"{at}{column} * {stride_name(self._name(load), load.tensor, i)}")
        return terms

    def _strides(self, load: Load) -> tuple[str, str]:
        """The strides of its rows and of its features."""
        last = len(load.indices) - 1
        row, feature = (stride_name(self._name(load), load.tensor, i) for i in (last - 1, last))
        return row, feature

    def _offsets(self, side: Side, load: Load) -> str:
        row_stride, feature_stride = self._strides(load)
        row, lanes = "q64" if self.at.packed else "q.to(tl.int64)", side.feature.wide
        if side.operand.row == "k":
            row, lanes = ("key", side.feature.lane) if self.near else ("key64", lanes)
        if side.turned:
            return f"{lanes}[:, None] * {feature_stride} + {row}[None, :] * {row_stride}"
        terms = [f"{row}[:, None] * {row_stride}", f"{lanes}[None, :] * {feature_stride}"]
        return " + ".join([*(self._leading(load, by_row=True) if side.operand.row == "q" else []), *terms])


def _lanes(side: Side) -> str:
    """The lanes of its features along their axis of the tile."""
    return f"{side.feature.lane}{'[:, None]' if side.turned else '[None, :]'}"
