"""Print a kernel specification as a Triton module.

    KernelSpec + TritonConfig  ->  Source

One program of the kernel computes one tile of queries, of one head or of all heads of a key head (`places`). It has
loops over tiles of keys (see `loops`): at least one over partial tiles, which evaluates the mask, and one over full
tiles, in which there is no mask and no bound. Which tiles these are comes from a handful of scalar expressions (form
"ranges") or from lists (form "lists").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from attngen.emit.render import render
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import Carried
from attngen.emit.triton.base_two import in_base_two
from attngen.emit.triton.boxes import BoxPrinter, box_printer
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.expr import Printer, position
from attngen.emit.triton.features import Feature, features
from attngen.emit.triton.live import live
from attngen.emit.triton.loops import Loop, loops_of
from attngen.emit.triton.module_text import constants, header, helpers
from attngen.emit.triton.names import (
    MAX_POSITION,
    entry_name,
    kernel_args,
    kernel_identifiers,
    topk_indices,
)
from attngen.emit.triton.operands import OperandPrinter
from attngen.emit.triton.places import Places, places_of
from attngen.emit.triton.schedule import hulls, schedule
from attngen.emit.triton.sides import rows_are_keys, sides
from attngen.emit.triton.steps import Steps, print_finish, reads_inside
from attngen.emit.triton.stores import check_blocks, final_stores, store_rows
from attngen.emit.triton.sum_parts import sums_in_parts
from attngen.emit.triton.unguarded import without_guards
from attngen.emit.triton.value import Space, Value, fill, integer, literal, real, shape_of
from attngen.emit.triton.wrap import wrap
from attngen.lang.expr import Const, Expr
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO

ENTRY = "attngen_kernel"
_LARGEST_TILE = 1024


@dataclass(frozen=True, slots=True)
class Printed:
    """A loop over key tiles as text: a comment, statements before it, its `for` line, its body."""

    comment: str
    before: list[str]
    header: str
    body: list[str]

    @property
    def lines(self) -> list[str]:
        """All of it but the comment."""
        return [*self.before, self.header, *self.body]


def print_triton(spec: KernelSpec, target: Target, config: TritonConfig) -> Source:
    """The kernel's text. Pure; raises UnsupportedError for what Triton has no spelling for."""
    spec = replace(spec, tile=in_base_two(spec.tile))
    check_blocks(spec, config.block_k)
    names = kernel_identifiers(spec)
    printer = Printer(spec, names, _variables(packed=config.pack_heads))
    boxes = box_printer(printer, spec) if spec.plan.boxes is not None else None
    at = places_of(spec, config, boxes)
    operands = OperandPrinter(printer, spec, at, near=boxes is None, descriptors=config.descriptors)
    opening, programs = at.turns(spec) if config.persistent else ([], at.programs)
    bases, offsets = operands.bases(), operands.offsets()
    uniforms = [_uniform(printer, name, body) for name, body in spec.tile.uniforms]
    found = schedule(printer, spec, boxes)
    ranks = features(spec)
    printer.variables |= _lane_variables(ranks)
    computed = operands.computed_rows()
    parts = sums_in_parts(spec.tile) if config.sum_parts else {}
    carried = [_carried(printer, c, ranks, parts) for c in spec.tile.carried]
    ends, heads = loops_of(printer, spec, config, boxes, found)
    loops = _all_printed(printer, operands, at, boxes, heads, parts)
    stores = final_stores(spec, names, at)
    finish = [*(f"{names[z]} = tl.sum({names[z]}, axis=1)" for z in parts.values())]
    finish += [*print_finish(printer, spec.tile.finish), *live(at.ends, [s.pointer for s in stores])]
    hoisted = [f"{name} = {text}" for name, text in printer.hoisted.items()]
    fixed = [*hoisted, *uniforms, *computed, *store_rows(spec, at)]
    in_loops = [line for loop in loops for line in loop.lines]
    steps = live([*operands.steps(), *(operands.described() if config.descriptors else [])], in_loops)
    places = [*bases, *live(at.keys, [*offsets, *in_loops], "key64", "key"), *offsets, *steps]
    lets = [*found.lines, *live([*found.counts, *ends], in_loops)]
    body = [*fixed, *lets, *carried, *in_loops, *finish]
    after = [*places, *body, *(text for s in stores for text in (s.base, s.pointer, s.value, s.mask))]
    lanes, rows = live(_lanes(ranks), after), live(at.rows, after, "row_inside", "q", "q64", "h", "h64")
    text = render(
        "triton/kernel.py.jinja",
        header=header(spec, target),
        helpers=helpers([*programs, *rows, *after]),
        constants=constants(ranks, body, config.sum_parts),
        entry=entry_name(spec),
        runtime=[a.name for a in kernel_args(spec) if not a.specialised],
        args=[a.name for a in kernel_args(spec)],
        setup=_setup(fixed, lets, carried, in_parts=bool(parts)),
        opening=_wrapped_code(opening, 4),
        persistent=config.persistent > 0,
        turn="turn" if spec.ordered else "program",
        programs=_wrapped_code([*programs, *at.heads(after)], 4),
        rows_comment=at.comment,
        rows=_wrapped_code([*rows, *lanes], 4),
        places=_wrapped_code(places, 4),
        boxes=boxes is not None,
        ordered=spec.ordered,
        rows_are_keys=rows_are_keys(spec.tile),
        loops=tuple(
            Printed(x.comment, _wrapped_code(x.before, 4), x.header, _wrapped_code(x.body, 8)) for x in loops
        ),
        finish=_wrapped_code(finish, 4),
        stores=stores,
    )
    return Source(text, "triton", entry_name(spec), target, tuple(asdict(config).items()))


def _all_printed(
    printer: Printer,
    operands: OperandPrinter,
    at: Places,
    boxes: BoxPrinter | None,
    loops: list[Loop],
    parts: Mapping[str, str],
) -> list[Printed]:
    """The loops as text; each sees the values that were set before the first."""
    scope = dict(printer.values)
    out: list[Printed] = []
    for loop in loops:
        printer.values = dict(scope)
        out.append(_printed(loop, _body(printer, operands, at, boxes, loop, parts), operands))
    printer.values = scope
    return out


def _lanes(ranks: Mapping[str, Feature]) -> list[str]:
    """The lanes of each rank of features, and the same in 64 bits."""
    held = [f for f in ranks.values() if f.lanes]
    narrow = [f"{f.lane} = tl.arange(0, {f.pad})" for f in held]
    return narrow + [f"{f.wide} = {f.lane}.to(tl.int64)" for f in held]


def _lane_variables(ranks: Mapping[str, Feature]) -> dict[str, Value]:
    """What the variables of features are called where a tile holds all their columns."""
    return {r: integer(f.lane, 0, f.lanes - 1, Space.E) for r, f in ranks.items() if f.lanes}


def _variables(*, packed: bool) -> dict[str, Value]:
    """What index variables and the corners of a query tile are called."""
    return {
        "b": position("b"),
        "h": position("h", Space.Q if packed else Space.SCALAR),
        "g": position("kv"),
        "q": position("q", Space.Q),
        "k": position("k", Space.K, varies=True),
        Q_LO: position("q_lo"),
        Q_HI: position("q_hi"),
        BLOCK_K: replace(literal(16), text="BLOCK_K", hi=_LARGEST_TILE),
    }


def _setup(
    fixed: list[str], lets: list[str], carried: list[str], *, in_parts: bool
) -> list[tuple[str, list[str]]]:
    """What comes before the loops, each part under a comment."""
    apart = "; sums of a row stay in parts, which the end adds up" if in_parts else ""
    parts = (
        ("What no key changes.", fixed),
        ("Which key tiles to visit: runs of partial ones and runs of full ones.", lets),
        (f"What is carried from tile to tile{apart}.", carried),
    )
    return [(comment, _wrapped_code(lines, 4)) for comment, lines in parts if lines]


def _uniform(printer: Printer, name: str, body: Expr) -> str:
    value = printer.print(body)
    text = printer.names[name]
    printer.values[name] = real(text, value.space, varies=False)
    return f"{text} = {value.text}"


def _carried(
    printer: Printer, carried: Carried, ranks: Mapping[str, Feature], parts: Mapping[str, str]
) -> str:
    """The statement that sets a carried value before the first tile."""
    acc = carried.space == "acc"
    pad = ranks[carried.feature].pad if acc else ""
    at = Space.ACC if acc else Space.Q
    text = printer.names[carried.name]
    printer.values[carried.name] = real(text, at)
    if carried.name in topk_indices(printer.spec.tile):
        printer.values[carried.name] = integer(text, -1, MAX_POSITION, at, varies=True)
        return f"{text} = tl.full({shape_of(at, pad)}, -1, tl.int32)"
    if carried.name in parts.values():
        return f"{text} = tl.full([BLOCK_Q, SUM_PARTS], {printer.print(carried.init).text}, tl.float32)"
    return f"{text} = {fill(printer.print(carried.init), at, pad).text}"


def _printed(loop: Loop, body: list[str], operands: OperandPrinter) -> Printed:
    """A loop as text; of what finds a tile only what its body reads."""
    if loop.in_a_row:
        advances = operands.advances()
        body = [*live(list(loop.tile), body, "k"), *body, *advances]
        return Printed(loop.comment, operands.froms(loop.first), loop.header, body)
    return Printed(loop.comment, [], loop.header, [*live(list(loop.tile), body, "k"), *body])


def _body(
    printer: Printer,
    operands: OperandPrinter,
    at: Places,
    boxes: BoxPrinter | None,
    loop: Loop,
    parts: Mapping[str, str],
) -> list[str]:
    """The statements of a loop, after those that find its tile."""
    spec = printer.spec
    masked, edge = loop.kind != "full", loop.kind in ("left", "right")
    plan = spec.plan.ranges
    tight = plan is not None and plan.tight if boxes is None else boxes.boxes.tight
    lines = boxes.key_tile() if boxes is not None else []
    lines += [] if loop.in_a_row else operands.starts()
    printer.inside = "k"
    if masked and not edge:
        lines += [f"loadable = {hulls(printer, plan)}"] if boxes is None else boxes.loadable()
        if _reads_keys(spec):
            inside = "tl.minimum(k, n_k - 1)"
            lines.append(f"k_inside = {inside if boxes is None else f'tl.maximum({inside}, 0)'}")
            printer.inside = "k_inside"
    steps = Steps(
        printer,
        operands,
        masked=masked,
        keep=spec.keep,
        sanitise=not tight,
        exists=at.exists,
        bounded=boxes is None,
        kept_by=[loop.keep] if loop.keep else None if boxes is None else boxes.keep(),
        in_a_row=loop.in_a_row,
        within=edge,
        parts=parts,
    )
    return lines + steps.print(spec.tile.steps if masked else without_guards(spec.tile.steps))


def _reads_keys(spec: KernelSpec) -> bool:
    """Whether an expression reads a tensor at a key, other than an operand that is read as it is."""
    tensors = frozenset(t.name for t in spec.tensors)
    exprs = [getattr(s, "body", Const(0)) for s in spec.tile.steps]
    exprs += [s.operand.body for s in sides(spec).values() if s.load is None and s.operand.row == "k"]
    exprs += [] if spec.keep is None else [spec.keep]
    return any(reads_inside(e, tensors) for e in exprs)


def _wrapped_code(lines: list[str], indent: int) -> list[str]:
    return [part for line in lines for part in wrap(line, indent)]
