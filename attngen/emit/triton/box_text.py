"""What the printers of a kernel of boxes share: the shapes, and the small words its lines are made of."""

from __future__ import annotations

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.config import lanes
from attngen.emit.triton.expr import Printer, position
from attngen.emit.triton.names import MAX_POSITION, kernel_exprs
from attngen.emit.triton.value import Prec, integer, literal
from attngen.lang.expr import Expr, Var, walk
from attngen.planner.layout import Axis, Boxes, Layout, TokenRank, box_name, hi_name, lo_name, origin_name
from attngen.planner.plan import AxisRun, BoxPlan


class BoxText:
    """The shapes of a kernel's boxes, and the names its expressions may read from then on."""

    def __init__(self, printer: Printer, spec: KernelSpec, plan: BoxPlan, boxes: Boxes) -> None:
        self.printer, self.spec, self.plan, self.boxes = printer, spec, plan, boxes
        numbers = boxes.numbers()
        self.box = {
            (rank, a.name): numbers[box_name(rank, a.name)] for rank in ("q", "k") for a in self.plan.q.axes
        }
        self.origin = {a.name: numbers[origin_name(a.name)] for a in self.plan.q.axes}
        variables = self.printer.variables
        for name, number in numbers.items():
            variables[name] = literal(number)
        for axis in self.plan.q.axes:
            if axis.group:
                variables[axis.name] = position(axis.name)
            else:
                variables[lo_name(axis.name)] = position(lo_name(axis.name))
                variables[hi_name(axis.name)] = integer(hi_name(axis.name), -MAX_POSITION, MAX_POSITION)

    def tiled(self, layout: Layout) -> list[Axis]:
        """The axes that tiles run along: all but residue classes."""
        return [a for a in layout.axes if not a.group]

    def has_lane(self, rank: TokenRank, axis: str) -> bool:
        """Whether lanes of a tile differ along an axis."""
        return self.box[rank, axis] > 1

    def fills_lanes(self, rank: TokenRank, volume: int) -> bool:
        """Whether the launch gives a tile as many lanes as its box has tokens: what `lanes` makes of a power of two."""
        return lanes(volume) == volume

    def runs(self) -> list[AxisRun]:
        """The runs of key tiles, an entry a tiled axis."""
        groups = {a.name for a in self.plan.k.axes if a.group}
        return [r for r in self.plan.runs if r.axis not in groups]

    def text(self, name: str) -> str:
        """What a let of the plan is called."""
        return self.printer.variables[name].at(Prec.PRODUCT)

    def print(self, expr: Expr) -> str:
        """An expression as a 32-bit operand."""
        value = self.printer.print(expr)
        return f"{value.at(Prec.ATOM)}.to(tl.int32)" if value.wide else value.at(Prec.PRODUCT)

    @staticmethod
    def sum(text: str, number: int) -> str:
        """`text + number`."""
        return f"{text} + {number}" if number else text

    def k_lo(self, axis: str, tile: str) -> str:
        """Sets the first coordinate of a key tile."""
        box = self.box["k", axis]
        return f"k_lo_{axis} = ({tile}) * {box}" if box != 1 else f"k_lo_{axis} = {tile}"

    def corner(self, tile: str, layout: Layout) -> list[str]:
        """The first coordinates of a tile from its number, the fastest axis first."""
        lines: list[str] = []
        rest = tile
        rank = layout.rank
        for i, axis in reversed(list(enumerate(layout.axes))):
            count = f"tiles_{rank}_{axis.name}"
            at = f"{rest} % {count}" if i else rest
            if axis.group:
                if rank == "q":
                    lines.append(f"{axis.name} = {at}")
            else:
                box = self.box[rank, axis.name]
                lines.append(f"{rank}_lo_{axis.name} = {at}" + (f" * {box}" if box != 1 else ""))
            rest = f"{rest} // {count}"
        return lines

    def lanes(self, lane: str, layout: Layout) -> list[str]:
        """Each lane's place along every axis of its box."""
        lines: list[str] = []
        faster = 1
        out: list[str] = []
        for axis in reversed(self.tiled(layout)):
            box = self.box[layout.rank, axis.name]
            if box > 1:
                text = divided(lane, faster)
                slower = any(self.box[layout.rank, a.name] > 1 for a in self.before(layout, axis))
                if slower:
                    text = f"{text} % {box}"
                out.append(f"{layout.rank}_lane_{axis.name} = {text}")
            faster *= box
        lines += reversed(out)
        return lines

    def before(self, layout: Layout, axis: Axis) -> list[Axis]:
        """The slower axes."""
        tiled = self.tiled(layout)
        return tiled[: tiled.index(axis)]

    def tile_counts(self, layout: Layout) -> list[str]:
        """How many tiles a rank has along each axis."""
        lines: list[str] = []
        for axis in layout.axes:
            box = self.box[layout.rank, axis.name]
            most = self.sum(self.print(axis.most), self.origin[axis.name] + box - 1)
            lines.append(f"tiles_{layout.rank}_{axis.name} = {divided(most, box)}")
        return lines

    def reads(self, rank: str, axis: str, *, scores: bool = False) -> bool:
        """Whether an expression of the kernel reads a coordinate; with `scores`, one other than the mask."""
        made = {
            name for name, expr in self.plan.k.coordinates if any(n == Var(rank, axis) for n in walk(expr))
        }
        targets = {Var(rank, name) for name in {axis, *made}}
        exprs = (e for e in kernel_exprs(self.spec) if not (scores and e is self.spec.keep))
        return any(node in targets for expr in exprs for node in walk(expr))


def product(a: str, b: str) -> str:
    """`a * b`."""
    return a if b == "1" else f"{a} * {b}"


def divided(text: str, by: int) -> str:
    """`text // by`."""
    if by == 1:
        return text
    return f"({text}) // {by}" if " " in text else f"{text} // {by}"


def shifted(text: str, origin: int, low: str) -> str:
    """A coordinate from its count since the origin of the tiling."""
    out = f"{text} - {origin}" if origin else text
    return out if low == "0" else f"{out} + {low}"
