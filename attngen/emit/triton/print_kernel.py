"""Print a kernel specification as a Triton module.

    KernelSpec + TritonConfig  ->  Source

One program of the kernel computes one tile of queries of one head. It has two loops over tiles of keys: one over
partial tiles, which evaluates the mask, and one over full tiles, in which there is no mask and no bound. Which tiles
these are comes from a handful of scalar expressions (form "ranges") or from lists (form "lists").
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from attngen.emit.render import render
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import DotQK
from attngen.emit.triton.boxes import BoxPrinter, box_printer
from attngen.emit.triton.config import TritonConfig, padded_dim
from attngen.emit.triton.expr import Printer, position
from attngen.emit.triton.names import entry_name, kernel_args, kernel_identifiers, program_number
from attngen.emit.triton.steps import Steps, is_padded_width, print_finish, reads_inside
from attngen.emit.triton.value import Space, Value, fill, literal, real
from attngen.emit.triton.wrap import wrap
from attngen.lang.expr import Const, Expr, Var
from attngen.lang.print import print_program
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO, TilePlan

ENTRY = "attngen_kernel"
_HELPERS = (
    "floor_div",
    "floor_mod",
    "float_mod",
    "power",
    "int_power",
    "tanh",
    "sign",
    "round_half_even",
    "finite",
    "saturate",
    "clamp",
    "row_max",
    "row_min",
)
_WIDTH = 96
_LARGEST_TILE = 1024


@dataclass(frozen=True, slots=True)
class Store:
    """One output: where its head begins, where its elements go, in which dtype, and which of them exist."""

    base: str
    pointer: str
    value: str
    mask: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over key tiles: its count, the tile of iteration `i`, and its body."""

    count: str
    tile: list[str]
    body: list[str]


def print_triton(spec: KernelSpec, target: Target, config: TritonConfig) -> Source:
    """The kernel's text. Pure; raises UnsupportedError for what Triton has no spelling for."""
    names = kernel_identifiers(spec)
    args = kernel_args(spec)
    printer = Printer(spec, names, _variables())
    boxes = box_printer(printer, spec) if spec.plan.boxes is not None else None
    programs, rows, keys = _places(spec, boxes)
    uniforms = [_uniform(printer, name, body) for name, body in spec.tile.uniforms]
    lets, (partial_count, partial_tile), (full_count, full_tile) = _schedule(printer, spec, boxes)
    carried = [_carried(printer, c.name, c.space, c.init) for c in spec.tile.carried]
    scope = dict(printer.values)
    loops = [Loop(partial_count, partial_tile, _body(printer, spec, boxes, masked=True))]
    if full_count:
        printer.values = dict(scope)
        loops.append(Loop(full_count, full_tile, _body(printer, spec, boxes, masked=False)))
    printer.values = dict(scope)
    finish = print_finish(printer, spec.tile.finish)
    loads = [f"{name} = {text}" for name, text in printer.hoisted.items()]
    setup = [*loads, *uniforms, *lets, *carried]
    body = [*programs, *rows, *keys, *setup, *(line for loop in loops for line in loop.body), *finish]
    text = render(
        "triton/kernel.py.jinja",
        header=_header(spec, target),
        helpers=[render(f"triton/helpers/{h}.py.jinja") for h in _used_helpers(body)],
        uses_log2e=any("LOG2E" in line for line in body),
        entry=entry_name(spec),
        runtime=[a.name for a in args if not a.specialised],
        args=[a.name for a in args],
        head_dim=spec.head_dim,
        head_pad=padded_dim(spec.head_dim),
        value_dim=spec.value_dim,
        value_pad=padded_dim(spec.value_dim),
        pads_q=not is_padded_width(spec.head_dim),
        setup=_setup([*loads, *uniforms], lets, carried),
        programs=_wrapped_code(programs, 4),
        rows=_wrapped_code(rows, 4),
        keys=_wrapped_code(keys, 4),
        boxes=boxes is not None,
        ordered=spec.ordered,
        loops=tuple(
            Loop(loop.count, _wrapped_code(loop.tile, 8), _wrapped_code(loop.body, 8)) for loop in loops
        ),
        finish=_wrapped_code(finish, 4),
        stores=_stores(spec, names, "exists" if boxes is not None else "row < n_q"),
    )
    meta = (
        ("block_q", config.block_q),
        ("block_k", config.block_k),
        ("num_warps", config.num_warps),
        ("num_stages", config.num_stages),
    )
    return Source(text, "triton", entry_name(spec), target, meta)


def _variables() -> dict[str, Value]:
    """What index variables and the corners of a query tile are called."""
    return {
        "b": position("b"),
        "h": position("h"),
        "q": position("q", Space.Q),
        "k": position("k", Space.K, varies=True),
        Q_LO: position("q_lo"),
        Q_HI: position("q_hi"),
        BLOCK_K: replace(literal(16), text="BLOCK_K", hi=_LARGEST_TILE),
    }


def _places(spec: KernelSpec, boxes: BoxPrinter | None) -> tuple[list[str], list[str], list[str]]:
    """The tile of this program, its rows, and where the keys of a tile lie."""
    if boxes is not None:
        return boxes.programs(), boxes.rows(), boxes.key_lanes()
    programs = [
        "n_tiles_q = (n_q + BLOCK_Q - 1) // BLOCK_Q",
        program_number(spec),
        f"tile_q = {'' if spec.ordered else 'n_tiles_q - 1 - '}program % n_tiles_q",
        "h = program // n_tiles_q % n_h",
        "b = program // n_tiles_q // n_h",
    ]
    rows = [
        "q_lo = tile_q * BLOCK_Q",
        "q_hi = tl.minimum(q_lo + BLOCK_Q, n_q) - 1",
        "row = q_lo + tl.arange(0, BLOCK_Q)",
        "q = tl.minimum(row, q_hi)",
        "row64 = row.to(tl.int64)",
    ]
    return programs, rows, ["key64 = tl.arange(0, BLOCK_K).to(tl.int64)"]


def _setup(fixed: list[str], lets: list[str], carried: list[str]) -> list[tuple[str, list[str]]]:
    """What comes before the loops, each part under a comment."""
    parts = (
        ("What no key changes.", fixed),
        ("Which key tiles to visit: runs of partial ones and runs of full ones.", lets),
        ("What is carried from tile to tile.", carried),
    )
    return [(comment, _wrapped_code(lines, 4)) for comment, lines in parts if lines]


def _uniform(printer: Printer, name: str, body: Expr) -> str:
    value = printer.print(body)
    text = printer.names[name]
    printer.values[name] = real(text, Space.SCALAR, varies=False)
    return f"{text} = {value.text}"


def _carried(printer: Printer, name: str, space: str, init: Expr) -> str:
    at = Space.ACC if space == "acc" else Space.Q
    value = fill(printer.print(init), at)
    text = printer.names[name]
    printer.values[name] = real(text, at)
    return f"{text} = {value.text}"


def _schedule(
    printer: Printer, spec: KernelSpec, boxes: BoxPrinter | None
) -> tuple[list[str], tuple[str, list[str]], tuple[str, list[str]]]:
    """Statements that find the tiles of this program, and (count, tile of `i`) of both loops.

    The count of the second is empty where no tile can be free of a mask.
    """
    plan = spec.plan.ranges
    if boxes is not None:
        lines = [*_lets(printer, spec), *boxes.schedule(), *boxes.row_runs()]
        partial = ("n_partial", boxes.partial_tile())
        return lines, partial, (("", []) if boxes.masked_only else ("n_full", boxes.full_tile()))
    if plan is None:
        lines = [
            "list_row = b * list_stride_b + h * list_stride_h + tile_q",
            "first_partial = tl.load(partial_lists_ptr + list_row)",
            "first_full = tl.load(full_lists_ptr + list_row)",
            "n_partial = tl.load(partial_lists_ptr + list_row + 1) - first_partial",
            "n_full = tl.load(full_lists_ptr + list_row + 1) - first_full",
        ]
        return (
            lines,
            ("n_partial", _on_a_line("tl.load(partial_index_ptr + first_partial + i)")),
            ("n_full", _on_a_line("tl.load(full_index_ptr + first_full + i)")),
        )
    lines = _lets(printer, spec)
    partial, full = _segments(printer, plan)
    lines += _count("n_partial", "partial", partial) + _count("n_full", "full", full)
    return (
        lines,
        ("n_partial", _on_a_line(_tile("partial", len(partial)))),
        ("n_full", _on_a_line(_tile("full", len(full)))),
    )


def _on_a_line(tile: str) -> list[str]:
    """The keys of a tile that is a run of tokens."""
    return [f"tile = {tile}", "start = tile * BLOCK_K", "k = start + tl.arange(0, BLOCK_K)"]


def _lets(printer: Printer, spec: KernelSpec) -> list[str]:
    """The plan's named expressions, from then on variables."""
    lines: list[str] = []
    for name, body in spec.lets:
        if name in printer.variables:  # what the rows of the tile were found with
            continue
        value = printer.print(body)
        if value.literal or isinstance(body, Var):  # another name for what is there already
            printer.variables[name] = value
        else:
            lines.append(f"{printer.names[name]} = {value.text}")
            printer.variables[name] = value.named(printer.names[name])
    return lines


def _segments(printer: Printer, plan: TilePlan) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Runs of partial tiles (both edges of each piece) and of full ones, as (first, end) texts."""

    def text(name: str) -> str:
        return printer.variables[name].text

    partial = [
        run
        for p in plan.pieces
        for run in ((text(p.start), text(p.full_start)), (text(p.full_end), text(p.end)))
        if run[0] != run[1]
    ]
    full = [(text(p.full_start), text(p.full_end)) for p in plan.pieces if p.full_start != p.full_end]
    return partial, full


def _count(total: str, stem: str, runs: list[tuple[str, str]]) -> list[str]:
    """Iterations up to the end of each run, and what turns an iteration of the run into its tile."""
    lines: list[str] = []
    before = ""
    for n, (first, end) in enumerate(runs):
        shift = f"{first} - {before}" if before else first
        length = end if first == "0" else f"{end} - {first}"
        lines.append(f"{stem}_from_{n} = {shift}")
        lines.append(f"{stem}_until_{n} = {before + ' + ' if before else ''}{length}")
        before = f"{stem}_until_{n}"
    lines.append(f"{total} = {before or '0'}")
    return lines


def _tile(stem: str, n: int) -> str:
    """The tile of iteration `i`: a chain of selects over the runs."""
    if n == 0:
        return "i"
    shift = f"{stem}_from_{n - 1}"
    for m in reversed(range(n - 1)):
        shift = f"tl.where(i < {stem}_until_{m}, {stem}_from_{m}, {shift})"
    return f"i + {shift}"


def _body(printer: Printer, spec: KernelSpec, boxes: BoxPrinter | None, *, masked: bool) -> list[str]:
    plan = spec.plan.ranges
    tight = plan is not None and plan.tight if boxes is None else boxes.boxes.tight
    tensors = frozenset(t.name for t in spec.tensors)
    lines = boxes.key_tile() if boxes is not None else []
    lines += [
        "k_start = tl.cast(start, tl.int64) * K_stride_k",
        "v_start = tl.cast(start, tl.int64) * V_stride_k",
    ]
    printer.inside = "k"
    if masked:
        lines += [f"loadable = {_hulls(printer, plan)}"] if boxes is None else boxes.loadable()
        exprs = [getattr(s, "body", Const(0)) for s in spec.tile.steps]
        mask = spec.keep
        if any(reads_inside(e, tensors) for e in [*exprs, *([] if mask is None else [mask])]):
            inside = "tl.minimum(k, n_k - 1)"
            lines.append(f"k_inside = {inside if boxes is None else f'tl.maximum({inside}, 0)'}")
            printer.inside = "k_inside"
    steps = Steps(
        printer,
        masked=masked,
        keep=spec.keep,
        sanitise=not tight,
        bounded=boxes is None,
        kept_by=None if boxes is None else boxes.keep(),
    )
    dots = [s for s in spec.tile.steps if isinstance(s, DotQK)]
    if dots:
        lines.append(f"k_tile = tl.load(k_base + k_start + k_offsets{steps.load_mask('k')})")
    return lines + steps.print(spec.tile.steps)


def _hulls(printer: Printer, plan: TilePlan | None) -> str:
    """Keys that some row of the tile may see: only they are loaded."""
    if plan is None or not plan.hulls:
        return "k < n_k"
    spans: list[str] = []
    for low, high in plan.hulls:
        first, end = printer.variables[low].text, printer.variables[high].text
        spans.append(f"k < {end}" if first == "0" else f"(k >= {first}) & (k < {end})")
    return spans[0] if len(spans) == 1 else " | ".join(f"({s})" for s in spans)


def _stores(spec: KernelSpec, names: Mapping[str, str], exists: str) -> list[Store]:
    """What is written, where `exists` says which rows of the tile are there."""
    out: list[Store] = []
    for o in spec.tile.outputs:
        name, value = o.name, names[o.source]
        base = f"{name}_base = {name}_ptr + b64 * {name}_stride_b + h64 * {name}_stride_h"
        if o.space == "acc":
            mask = f"({exists})[:, None]" if " " in exists else f"{exists}[:, None]"
            if not is_padded_width(spec.value_dim):
                mask += " & (e < VALUE_DIM)[None, :]"
            rows = f"{name}_base + row64[:, None] * {name}_stride_q + e64[None, :] * {name}_stride_e"
            out.append(Store(base, rows, f"{value}.to({name}_ptr.dtype.element_ty)", mask))
        else:
            out.append(Store(base, f"{name}_base + row64 * {name}_stride_q", value, exists))
    return out


def _wrapped_code(lines: list[str], indent: int) -> list[str]:
    return [part for line in lines for part in wrap(line, indent)]


def _used_helpers(lines: list[str]) -> list[str]:
    """Helpers the text calls, those that others call first."""
    text = "\n".join(lines)
    used = {h for h in _HELPERS if re.search(rf"(?<![\w.]){h}\(", text)}
    return [h for h in _HELPERS if h in used]


def _header(spec: KernelSpec, target: Target) -> str:
    """Where the text comes from: the program, the rules used, the schedule, the hash."""
    program = print_program(spec.program, doc=False).strip()
    rules = [f"{r.rule}: {r.target}" for r in spec.fold.derivation.rules]
    notes = spec.plan.ranges.notes if spec.plan.ranges else spec.plan.notes
    parts = [
        f"{spec.program.name}: generated by attngen for {spec.dtype}, {spec.head_dim} features, "
        f"{spec.value_dim} value features.",
        "",
        textwrap.indent(program, "    "),
        "",
        "Derivation: " + "; ".join(rules) + ".",
        f"Schedule: {spec.plan.form}. {spec.plan.reason}",
        *(f"    {n}" for n in notes),
        f"Program: {sha256(program.encode()).hexdigest()[:16]}",
    ]
    text = "\n".join(part for p in parts for part in _wrapped(p))
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _wrapped(text: str) -> list[str]:
    if "\n" in text or len(text) <= _WIDTH:
        return text.splitlines() or [""]
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent + "    ", break_long_words=False)
