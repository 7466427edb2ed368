"""Print the steps of a tile program, and the mask they are under, for each of the two loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import AccDot, DotQK, Mask, RowLet, RowReduce, TileLet, TileProgram
from attngen.emit.triton_expr import Printer
from attngen.emit.triton_layout import statement
from attngen.emit.triton_mask import bounds_keys, separate
from attngen.emit.triton_value import Prec, Space, Value, fill, literal, real, spread
from attngen.errors import UnsupportedError
from attngen.lang.expr import loads
from attngen.lang.kinds import kinds_of
from attngen.lang.ops import Kind

_BODY_INDENT = 8
_REDUCE = {"max": "tl.max({}, axis=1)", "min": "tl.min({}, axis=1)", "sum": "tl.sum({}, axis=1)"}
_REDUCE_NAN = {"max": "row_max({})", "min": "row_min({})"}


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a loop's body, and the hole of the template it fills."""

    hole: Literal["load", "keep", "clear", "score", "absorb"]
    text: str


def scope(printer: Printer, tile: TileProgram) -> None:
    """Bring the values of a tile program into scope."""
    ident, values = printer.names.ident, printer.values
    for name, _ in tile.uniforms:
        values[name] = Value(ident[name], Kind.FLOAT)
    for carried in tile.carried:
        values[carried.name] = real(ident[carried.name], Space.Q if carried.space == "row" else Space.ACC)
    for step in tile.steps:
        match step:
            case DotQK(out) | TileLet(out, _):
                values[out] = real(ident[out], Space.TILE)
            case RowReduce(out, _, _) | RowLet(out, _):
                values[out] = real(ident[out], Space.Q)
            case Mask() | AccDot():
                pass
    for let in tile.finish:
        values[let.out] = real(ident[let.out], Space.Q if let.space == "row" else Space.ACC)


def print_steps(
    spec: KernelSpec, printer: Printer, *, masked: bool, clears_v: bool, pads: tuple[str, str]
) -> tuple[Step, ...]:
    """The body of one loop, loads included; `masked` prints the mask and what depends on it.

    `pads` are the tests of features that are padding, of K and of V, or empty.
    """
    bound = "visible[:, None]" if masked else ""
    tile, ident = spec.tile, printer.names.ident
    exact = reductions_that_carry_nan(tile)
    cast = "" if spec.dtype == "float32" else ".to(V.dtype)"
    precision = ', input_precision="ieee"' if spec.dtype == "float32" else ""
    out: list[Step] = []
    if any(isinstance(s, DotQK) for s in tile.steps):
        out.append(_let("load", "K", load_tile("K_base + k_lo.to(tl.int64) * K_stride_k + K_offsets", bound, pads[0])))
    keep = ""
    if masked and (clears_v or any(isinstance(s, Mask) for s in tile.steps)):
        out += [Step("keep", text) for text in _keep(spec, printer, clears_v)]
        keep = "keep"
    v_loaded = False
    for step in tile.steps:
        match step:
            case DotQK(name):
                out.append(_let("score", ident[name], f"tl.dot(Q, tl.trans(K){precision})"))
            case Mask(name, value) if masked:
                text = f"tl.where({keep}, {ident[name]}, {literal(value).text})"
                out.append(_let("keep", ident[name], text))
            case Mask():
                pass
            case TileLet(name, body):
                out.append(_let("absorb", ident[name], fill(printer.real(body), Space.TILE).text))
            case RowLet(name, body):
                out.append(_let("absorb", ident[name], fill(printer.real(body), Space.Q).text))
            case RowReduce(name, op, source):
                table = _REDUCE_NAN if name in exact and op in _REDUCE_NAN else _REDUCE
                if op not in table:
                    raise UnsupportedError(f"the Triton printer has no reduction `{op}` over a tile")
                out.append(_let("absorb", ident[name], table[op].format(ident[source])))
            case AccDot(acc, source, rescale):
                if not v_loaded:
                    pointer = "V_base + k_lo.to(tl.int64) * V_stride_k + V_offsets"
                    out.append(_let("load", "V", load_tile(pointer, bound, pads[1])))
                    if clears_v:
                        out.append(_let("clear", "V", "tl.where(seen[:, None], V, 0.0)"))
                    v_loaded = True
                scaled = ident[acc] if rescale is None else f"{ident[acc]} * {ident[rescale]}[:, None]"
                text = f"tl.dot({ident[source]}{cast}, V, {scaled}{precision})"
                out.append(_let("absorb", ident[acc], text))
    return tuple(out)


def load_tile(pointer: str, *tests: str) -> str:
    """A load under the tests that are not empty; what fails them reads 0."""
    kept = [t for t in tests if t]
    return f"tl.load({pointer}, mask={' & '.join(kept)}, other=0.0)" if kept else f"tl.load({pointer})"


def _let(hole: Literal["load", "keep", "clear", "score", "absorb"], name: str, text: str) -> Step:
    return Step(hole, statement(name, text, _BODY_INDENT))


def _keep(spec: KernelSpec, printer: Printer, clears_v: bool) -> list[str]:
    """`keep[q, k]`, and `seen[k]` where V must be cleared by it."""
    mask = spec.program.mask
    bound = Value("k < n_k", Kind.BOOL, Space.K, Prec.COMPARE, varies=True)
    if mask is None:
        keep = bound
    else:
        keep = printer.boolean(separate(mask, kinds_of(spec.program)))
        if not bounds_keys(mask):
            column = spread(bound, Space.TILE)
            wide = spread(keep, Space.TILE)
            keep = replace(wide, text=f"{column.text} & {wide.at(Prec.AND)}", prec=Prec.AND)
    if keep.space is not Space.TILE:
        text = spread(keep, Space.TILE).text
        shape = "[BLOCK_Q, BLOCK_K]"
        scalar = keep.space is Space.SCALAR
        text = f"tl.full({shape}, {text}, tl.int1)" if scalar else f"tl.broadcast_to({text}, {shape})"
        keep = Value(text, Kind.BOOL, Space.TILE)
    lines = [statement("keep", keep.text, _BODY_INDENT)]
    if clears_v:
        lines.append(statement("seen", "tl.max(keep.to(tl.int32), axis=0) != 0", _BODY_INDENT))
    return lines


def reductions_that_carry_nan(tile: TileProgram) -> frozenset[str]:
    """Maxima and minima that must propagate a NaN themselves.

    Triton's own drop it. Mostly that is as good: the NaN reaches every output through a sum over the same pairs. An
    output that depends on a maximum alone (a row maximum asked for as a result) has no such sum.
    """
    reads = _reads(tile)
    sums = {s.source: s for s in tile.steps if isinstance(s, AccDot) or (isinstance(s, RowReduce) and s.op == "sum")}
    extremes = [s for s in tile.steps if isinstance(s, RowReduce) and s.op in ("max", "min")]
    carrying = {source for source in sums if all(e.source in _closure([source], reads) for e in extremes)}
    for output in tile.outputs:
        if not carrying & _closure([output.source], reads):
            return frozenset(e.out for e in extremes)
    return frozenset()


def _reads(tile: TileProgram) -> dict[str, set[str]]:
    """What each value is computed from, over all iterations."""
    reads: dict[str, set[str]] = {}

    def add(name: str, sources: Sequence[str]) -> None:
        reads.setdefault(name, set()).update(sources)

    for step in tile.steps:
        match step:
            case TileLet(out, body) | RowLet(out, body):
                add(out, [ld.tensor for ld in loads(body)])
            case RowReduce(out, _, source):
                add(out, [source])
            case AccDot(acc, source, rescale):
                add(acc, [source, *([rescale] if rescale else [])])
            case DotQK() | Mask():
                pass
    for let in tile.finish:
        add(let.out, [ld.tensor for ld in loads(let.body)])
    return reads


def _closure(names: Sequence[str], reads: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(reads.get(name, ()))
    return seen


