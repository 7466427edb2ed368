"""Print a kernel as one self-contained C++17 file: lanes are queries, keys and values are broadcast."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from attngen.emit.cpp_boxes import BoxText, print_boxes
from attngen.emit.cpp_cells import with_operands
from attngen.emit.cpp_expr import Names, Printer, as_lanes, element_type, kernel_names, position
from attngen.emit.cpp_names import ENTRY, LIST_SIZES, LISTS, ORDER, ArgLayout, arg_layout
from attngen.emit.cpp_operands import OperandText, print_operands, rounding
from attngen.emit.cpp_panel import key_sources, mentions, panel_printer, row_sources
from attngen.emit.cpp_rows import print_row_extremes
from attngen.emit.cpp_steps import PanelText, print_panel
from attngen.emit.cpp_sweeps import lay_out
from attngen.emit.cpp_value import Level, Value, to_float, to_int
from attngen.emit.cpu_config import KEY_STEP, CpuConfig
from attngen.emit.render import render
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import AccDot, Dot
from attngen.lang.expr import Var, walk
from attngen.lang.ops import Kind
from attngen.lang.print import print_program
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO, TilePlan
from attngen.planner.rows import row_extremes
from attngen.resources import data_dir

# Helper files in the order of inclusion, with the files each one needs.
_HELPERS: dict[str, tuple[str, ...]] = {
    "integers": (),
    "compare": (),
    "gather": (),
    "features": (),
    "bins": (),
    "topk": (),
    "math/simple": (),
    "math/vexp2": (),
    "math/vexp": (),
    "math/vlog": (),
    "math/vlog2": (),
    "math/vtanh": ("math/simple", "math/vexp"),
    "math/vsigmoid": ("math/vexp",),
    "math/verf": ("math/simple", "math/vexp"),
    "math/vsin": ("math/simple",),
    "math/vpow": (),
}


def print_cpp(spec: KernelSpec, target: Target, config: CpuConfig, entry: str = ENTRY) -> Source:
    """The kernel's text. It depends on the specification and the tile sizes only, never on this machine.

    `entry` is the symbol to call: one of its own where several kernels are linked into one program.

    Raises UnsupportedError for a step that has no lane form.
    """
    spec = with_operands(spec)
    names = kernel_names(spec)
    layout = arg_layout(spec)
    masked = spec.keep is not None
    boxes = print_boxes(spec)
    parts = lay_out(spec.tile, masked=masked, dtypes=rounding(spec, names))
    panel = print_panel(spec, parts, names)
    operands = print_operands(spec, names, boxes=boxes is not None)
    mask_setup, mask_key, mask_keep = _mask(spec) if masked else ("", "", "")
    fields, reads = _args(spec, layout)
    lets = _lets(spec)
    body = "\n".join((panel.body, operands.body, mask_setup, mask_keep, lets, *fields, *reads))
    body += "\n" + boxes.body if boxes is not None else ""
    plan = spec.plan.ranges
    text = render(
        "cpu/kernel.cpp.jinja",
        header=_header(spec, config),
        entry=entry,
        element=element_type(spec.dtype) if mentions([body], "element") else None,
        widths=_widths(spec, names, body),
        block_q=config.block_q,
        block_k=config.block_k,
        helpers=helpers_for(body),
        fields=fields,
        reads=reads,
        layout=layout,
        **_panel_context(spec, panel, operands),
        n_slots=parts.n_slots,
        tile_keys="BLOCK_K" if config.block_k % KEY_STEP == 0 else "(BLOCK_K + KEYS - 1) / KEYS * KEYS",
        mask=masked,
        mask_setup=mask_setup,
        mask_key=mask_key,
        mask_keep=mask_keep,
        partial="partial_tile" if masked else "full_tile",
        lists=layout.lists,
        boxes=boxes is not None,
        **(_box_context(boxes) if boxes is not None else {"lets": lets}),
        pieces=_pieces(plan, names.ident) if plan else (),
    )
    text = wrap(text)
    meta = (("block_q", config.block_q), ("block_k", config.block_k))
    return Source(text=text, language="cpp", entry=entry, target=target, meta=meta)


def _widths(spec: KernelSpec, names: Names, body: str) -> list[tuple[str, int]]:
    """The constants that hold the extents of features, as far as the text mentions them."""
    known = {"HEAD_DIM": spec.head_dim, "VALUE_DIM": spec.value_dim}
    known |= {f.width: f.extent for f in names.features.values()}
    return [(name, extent) for name, extent in known.items() if mentions([body], name)]


def _panel_context(spec: KernelSpec, panel: PanelText, operands: OperandText) -> dict[str, object]:
    """What the templates say about panels and about the rows of keys."""
    spaces = {o.space for o in spec.tile.outputs}
    steps = spec.tile.steps
    return {
        "accumulators": panel.accumulators,
        "row_values": panel.row_values,
        "begin": panel.begin,
        "absorb": panel.absorb,
        "finish": panel.finish,
        "columns": operands.columns,
        "load": operands.load,
        "rows": operands.rows,
        "padded": operands.padded,
        "buffers": operands.buffers,
        "point": operands.point,
        "plain_queries": operands.plain[0],
        "plain_keys": operands.plain[1],
        "dots": any(isinstance(s, Dot) for s in steps),
        "acc_dots": any(isinstance(s, AccDot) for s in steps),
        "store_accs": "acc" in spaces,
        "store_values": "row" in spaces,
        "store_columns": "pair" in spaces or "block" in spaces,
    }


_WIDTH = 120


@cache
def _definitions() -> tuple[tuple[str, frozenset[str]], ...]:
    """The functions each helper file defines."""
    out: list[tuple[str, frozenset[str]]] = []
    for helper in _HELPERS:
        text = (data_dir("templates") / "cpu" / f"{helper}.jinja").read_text(encoding="utf-8")
        out.append((helper, frozenset(re.findall(r"static inline \w+ (\w+)\(", text))))
    return tuple(out)


def helpers_for(body: str) -> list[str]:
    """The helper files that the printed text calls into, in order of inclusion."""
    called = set(re.findall(r"\b(\w+)(?:<\w+>)?\(", body))
    wanted = {helper for helper, defined in _definitions() if defined & called}
    wanted |= {need for helper in wanted for need in _HELPERS[helper]}
    return [helper for helper in _HELPERS if helper in wanted]


def wrap(text: str) -> str:
    """The text with no line beyond `_WIDTH` that has a space to break at; the printers break none."""
    out: list[str] = []
    for line in text.splitlines():
        start = line[: len(line) - len(line.lstrip())]
        tail = start + ("//     " if line.lstrip().startswith("//") else "    ")
        rest = line
        while len(rest) > _WIDTH and (at := rest.rfind(" ", len(tail) + 1, _WIDTH)) > 0:
            out.append(rest[:at])
            rest = tail + rest[at + 1 :]
        out.append(rest)
    return "\n".join(out) + "\n"


def _header(spec: KernelSpec, config: CpuConfig) -> str:
    program = print_program(spec.program)
    identity = hashlib.sha256(print_program(spec.program, doc=False).encode()).hexdigest()
    rules = [
        f"{use.rule} on {use.target}: {use.before}  ->  {use.after}" for use in spec.fold.derivation.rules
    ]
    notes = spec.plan.ranges.notes if spec.plan.ranges else spec.plan.notes
    form = "key ranges in closed form" if spec.plan.ranges else f"lists of key tiles ({spec.plan.reason})"
    consts = [f"const {name} = {value!r}" for name, value in spec.consts]
    lines = [
        f"{spec.program.name}: generated by attngen for {spec.dtype}, {spec.head_dim} features, "
        f"{spec.value_dim} value features.",
        "",
        *program.splitlines(),
        "",
        "One pass over the keys, by the rules:",
        *(f"  {line}" for rule in rules for line in rule.splitlines()),
        f"Schedule: tiles of {config.block_q} queries and {config.block_k} keys; {form}.",
        *(f"  {note}" for note in notes),
        *consts,
        f"Program sha256: {identity}",
    ]
    # A backslash at the end of a line would make the next one part of the comment, and a line end in it would end it.
    parts = [part for line in lines for part in line.splitlines() or [""]]
    return "\n".join(f"// {part}".rstrip(" \t\\") for part in parts)


def _args(spec: KernelSpec, layout: ArgLayout) -> tuple[list[str], list[str]]:
    """The fields of `Args`, and the statements that read them off a call in the order of `ArgLayout`."""
    names = kernel_names(spec)
    element = {t.name: f"const {element_type(t.torch_dtype)}" for t in spec.tensors}
    element |= {o.name: "element" if o.rounded else "float" for o in spec.tile.outputs}
    element |= dict.fromkeys(layout.inputs, "const element")
    strided = [*((name, 4) for name in layout.inputs), *layout.outputs]
    ident = names.ident
    fields = ["int32_t n_b, n_h, n_kv, n_q, n_k, threads;"]
    reads = [f"args.{name} = int32_t(*ints++);" for name in ("n_b", "n_h", "n_kv", "n_q", "n_k", "threads")]
    for name, rank in (*strided, *layout.tensors):
        fields.append(f"Tensor<{element[name]}, {rank}> {ident[name]};")
        reads.append(f"args.{ident[name]}.data = ({element[name]}*)*pointers++;")
    for name, rank in strided:
        reads.append(f"for (int i = 0; i < {rank}; ++i) args.{ident[name]}.stride[i] = *ints++;")
    for name, rank in layout.tensors:
        if rank:
            reads.append(f"for (int i = 0; i < {rank}; ++i) args.{ident[name]}.size[i] = *ints++;")
            reads.append(f"for (int i = 0; i < {rank}; ++i) args.{ident[name]}.stride[i] = *ints++;")
    for name in layout.int_params:
        boolean = dict(spec.params)[name] is Kind.BOOL
        fields.append(f"{'bool' if boolean else 'int32_t'} {ident[name]};")
        reads.append(f"args.{ident[name]} = {'*ints++ != 0' if boolean else 'int32_t(*ints++)'};")
    if layout.lists:
        fields += [f"const int32_t* {name};" for name in LISTS]
        fields.append(f"int64_t {', '.join(LIST_SIZES)};")
        reads += [f"args.{name} = (const int32_t*)*pointers++;" for name in LISTS]
        reads += [f"args.{name} = *ints++;" for name in LIST_SIZES]
    if layout.order:
        fields.append(f"const int32_t* {ORDER};")
        reads.append(f"args.{ORDER} = (const int32_t*)*pointers++;")
    for name in layout.float_params:
        fields.append(f"float {ident[name]};")
        reads.append(f"args.{ident[name]} = float(*floats++);")
    return fields + [f"float {ident[n]};" for n, _ in spec.tile.uniforms], reads + _uniforms(spec)


def _uniforms(spec: KernelSpec) -> list[str]:
    """Scalars computed once a call, in order; they read parameters and each other."""
    names = kernel_names(spec)
    printer = Printer(names, {})
    lines: list[str] = []
    for name, body in spec.tile.uniforms:
        text = to_float(printer.print(body)).text
        lines += [line for line in printer.reads.values() if line not in lines]
        lines.append(f"args.{names.ident[name]} = {text};")
    return lines


def _box_context(boxes: BoxText) -> dict[str, object]:
    """What `boxes.jinja` reads."""
    fields = ("axes", "box_q", "box_k", "origin", "query_tiles", "key_tiles", "query_space", "key_space")
    return {name: getattr(boxes, name) for name in (*fields, "lets", "runs")}


def _mask(spec: KernelSpec) -> tuple[str, str, str]:
    """What `see` computes before its loop, what it reads of a key, and what gives `keep` for one key and vector."""
    assert spec.keep is not None
    names = kernel_names(spec)
    printer = panel_printer(spec, names, "[n]")
    keep = as_lanes(printer.hoist(printer.print(spec.keep), Level.TILE), Kind.BOOL)
    rows = printer.drain_rows()
    lines = [keep, *(value.text for _, value in rows)]
    read = {name: source for name, source in row_sources(spec).items() if mentions(lines, f"{name}[n]")}
    setup = printer.head()
    if read:
        setup += [f"vi {', '.join(f'{name}[N]' for name in read)};"]
        setup += [f"{value.ctype} {name}[N];" for name, value in rows]
        setup.append("for (int n = 0; n < N; ++n) {")
        setup += [f"    {name}[n] = {source.format('n * LANES')};" for name, source in read.items()]
        setup += [f"    {name}[n] = {value.text};" for name, value in rows]
        setup.append("}")
    keys = [
        f"const int32_t {n} = {source};"
        for n, source in key_sources(spec, "ws.all").items()
        if mentions(lines, n)
    ]
    return "\n".join(setup), "\n".join(keys), f"const vi keep = {keep};"


def _lets(spec: KernelSpec) -> str:
    """The plan's lets as 64-bit scalars of a run of queries, in units of `block_k` keys."""
    plan = spec.plan.ranges
    if plan is None:
        return ""
    names = kernel_names(spec)
    scalar = Value("", Kind.INT, Level.HEAD)
    variables = {
        "b": position("b", Level.HEAD),
        "h": position("h", Level.HEAD),
        Q_LO: scalar.named("q_lo"),
        Q_HI: scalar.named("q_hi"),
        BLOCK_K: replace(scalar.named("block_k"), lo=1),
    }
    printer = Printer(names, variables)
    used = {
        field for piece in plan.pieces for field in (piece.start, piece.end, piece.full_start, piece.full_end)
    }
    needed = _needed(plan, used)
    lines = print_row_extremes(printer, row_extremes(tuple(let for let in plan.lets if let[0] in needed)))
    for name, body in plan.lets:
        if name in needed:
            text = to_int(printer.print(body)).text
            lines.append(f"const int64_t {names.ident[name]} = {text};")
        printer.variables[name] = scalar.named(names.ident[name])
    return "\n".join([*printer.head(), *lines])


def _needed(plan: TilePlan, used: set[str]) -> set[str]:
    """The lets that the pieces depend on."""
    needed = set(used)
    for name, body in reversed(plan.lets):
        if name in needed:
            needed |= {node.name for node in walk(body) if isinstance(node, Var)}
    return needed


def _pieces(plan: TilePlan, ident: Mapping[str, str]) -> list[dict[str, str]]:
    fields = ("start", "full_start", "full_end", "end")
    return [{name: ident[getattr(piece, name)] for name in fields} for piece in plan.pieces]
