"""Print a kernel as one self-contained Python module that imports Triton and nothing else."""

from __future__ import annotations

import hashlib
import re
import textwrap
from dataclasses import dataclass

from attngen.emit.render import render
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import AccDot, DotQK
from attngen.emit.triton_config import TritonConfig, padded_dim
from attngen.emit.triton_expr import Let, Printer, make_printer
from attngen.emit.triton_layout import WIDTH, call_lines, statement
from attngen.emit.triton_names import Arg, entry_name, kernel_args
from attngen.emit.triton_schedule import Run, print_schedule
from attngen.emit.triton_steps import Step, print_steps, scope
from attngen.emit.triton_value import Space, Value, fill
from attngen.lang.print import print_program

_INDENT = 4


@dataclass(frozen=True, slots=True)
class Loop:
    """What the template's loop over key tiles is filled with."""

    comment: str
    count: str
    tile: tuple[str, ...]
    reads_k: bool
    visible: str
    steps: tuple[Step, ...]


def print_triton(spec: KernelSpec, target: Target, config: TritonConfig, *, wide: bool = False) -> Source:
    """The kernel's text: the same for every target but for the configuration its header names.

    Text that is not `wide` is exact for positions below 2**27 and integer parameters up to 2**29 in size, which keeps
    its sums in 32 bits; a launch beyond that takes the wide one. Raises UnsupportedError for what has no tile form.
    """
    head, value = padded_dim(spec.head_dim), padded_dim(spec.value_dim)
    printer = make_printer(spec, wide=wide, padded_value=value != spec.value_dim)
    schedule = print_schedule(spec, printer)
    scope(printer, spec.tile)
    loops = tuple(_loop(spec, printer, run, head) for run in schedule.runs)
    uniforms = [Let(printer.names.ident[name], printer.real(body).text) for name, body in spec.tile.uniforms]
    carried = [_carried(spec, printer, name) for name in (c.name for c in spec.tile.carried)]
    finish = [_finish(printer, i, spec) for i in range(len(spec.tile.finish))]
    outputs = tuple(_stored(spec, printer, i, value) for i in range(len(spec.tile.outputs)))
    plan_lets, hoisted = printer.prologue[: schedule.n_lets], printer.prologue[schedule.n_lets :]
    scores = any(isinstance(s, DotQK) for s in spec.tile.steps)
    values = any(isinstance(s, AccDot) for s in spec.tile.steps)
    body = [*_lines(plan_lets), *schedule.lines, *_lines(hoisted + uniforms), *_lines(carried), *_lines(finish)]
    body += [step.text for loop in loops for step in loop.steps]
    args = kernel_args(spec)
    text = render(
        "triton/forward.py.jinja",
        header=_header(spec, target, config, wide),
        constants=_constants(spec, head, value, "\n".join(body)),
        helpers=helpers_for("\n".join(body)),
        decorator=_decorator(args),
        entry=entry_name(spec),
        args=[a.name for a in args],
        reads_keys=scores or values,
        scores=scores,
        values=values,
        features=values or any(o.features for o in outputs),
        q_load=_load_mask([_padding("d", "HEAD_DIM", head != spec.head_dim)]),
        schedule=[*_lines(plan_lets), *schedule.lines],
        prologue=_lines(hoisted + uniforms),
        carried=_lines(carried),
        loops=loops,
        finish=_lines(finish),
        outputs=outputs,
    )
    meta = (
        ("block_q", config.block_q),
        ("block_k", config.block_k),
        ("num_warps", config.num_warps),
        ("num_stages", config.num_stages),
    )
    return Source(text=text, language="triton", entry=entry_name(spec), target=target, meta=meta)


def _loop(spec: KernelSpec, printer: Printer, run: Run, head: int) -> Loop:
    value = padded_dim(spec.value_dim)
    printer.keys_end = run.masked
    clears_v = run.masked and not run.tight and any(isinstance(s, AccDot) for s in spec.tile.steps)
    steps = print_steps(spec, printer, masked=run.masked, clears_v=clears_v)
    printed = " ".join((*(s.text for s in steps), run.visible))
    bound = "visible[:, None]" if run.masked else ""
    return Loop(
        comment=run.comment,
        count=run.count,
        tile=run.tile,
        reads_k=bool(run.visible) or re.search(r"\bk\b", printed) is not None,
        visible=statement("visible", run.visible, 2 * _INDENT) if run.visible else "",
        steps=steps,
        k_load=_load_mask([bound, _padding("d", "HEAD_DIM", head != spec.head_dim)]),
        v_load=_load_mask([bound, _padding("e", "VALUE_DIM", value != spec.value_dim)]),
        clears_v=clears_v,
    )


def _load_mask(tests: list[str]) -> str:
    kept = [t for t in tests if t]
    return f", mask={' & '.join(kept)}, other=0.0" if kept else ""


def _padding(index: str, extent: str, padded: bool) -> str:
    return f"({index} < {extent})[None, :]" if padded else ""


def _carried(spec: KernelSpec, printer: Printer, name: str) -> Let:
    carried = next(c for c in spec.tile.carried if c.name == name)
    space = Space.Q if carried.space == "row" else Space.ACC
    return Let(printer.names.ident[name], fill(printer.real(carried.init), space).text)


def _finish(printer: Printer, index: int, spec: KernelSpec) -> Let:
    let = spec.tile.finish[index]
    space = Space.Q if let.space == "row" else Space.ACC
    return Let(printer.names.ident[let.out], fill(printer.real(let.body), space).text)


def _stored(spec: KernelSpec, printer: Printer, index: int, value: int) -> Stored:
    output = spec.tile.outputs[index]
    source: Value = printer.values[output.source]
    if output.space == "row":
        return Stored(output.name, False, source.text, "q_rows < n_q")
    rounded = "" if spec.dtype == "float32" else f".to({output.name}_ptr.dtype.element_ty)"
    tests = ["(q_rows < n_q)[:, None]", _padding("e", "VALUE_DIM", value != spec.value_dim)]
    return Stored(output.name, True, f"{source.text}{rounded}", " & ".join(t for t in tests if t))


def _lines(lets: list[Let]) -> list[str]:
    return [statement(let.name, let.text, _INDENT) for let in lets]


def _constants(spec: KernelSpec, head: int, value: int, body: str) -> list[Let]:
    out = [Let("HEAD_DIM", str(spec.head_dim)), Let("HEAD_PAD", str(head))]
    out += [Let("VALUE_DIM", str(spec.value_dim)), Let("VALUE_PAD", str(value))]
    if "LOG2E" in body:
        out.append(Let("LOG2E", "1.4426950408889634"))
    return out


_HELPERS = (
    "finite",
    "float_mod",
    "floor_div",
    "floor_mod",
    "int_power",
    "power",
    "round_half_even",
    "row_max",
    "row_min",
    "saturate",
    "sign",
    "tanh",
)


def helpers_for(body: str) -> list[str]:
    """The helper functions that the printed text calls."""
    called = set(re.findall(r"(?<![\w.])(\w+)\(", body))
    return [name for name in _HELPERS if name in called]


def _decorator(args: tuple[Arg, ...]) -> str:
    """Sizes and parameters are kept from being specialised on: one binary serves every value of them."""
    names = [f'"{a.name}"' for a in args if not a.specialised]
    line = f"@triton.jit(do_not_specialize=[{', '.join(names)}])"
    if len(line) <= WIDTH:
        return line
    inner = call_lines("    do_not_specialize=", names, _INDENT)
    inner = inner.replace("=(", "=[", 1)[:-1] + "]"
    if "\n        " in inner and not inner.rstrip("]").rstrip().endswith(","):
        return f"@triton.jit(\n{inner}\n)"
    return f"@triton.jit(\n{inner},\n)"


def _header(spec: KernelSpec, target: Target, config: TritonConfig, wide: bool) -> str:
    program = print_program(spec.program, doc=False)
    plan = spec.plan
    form = "key tiles in closed form" if plan.ranges else "lists of key tiles"
    notes = (*plan.notes, *(plan.ranges.notes if plan.ranges else ()))
    lines = [
        f"{spec.program.name}: forward attention, generated by attngen.",
        "",
        *(f"    {line}".rstrip() for line in program.splitlines()),
        "",
        f"Tensors: {spec.dtype}, {spec.head_dim} features, {spec.value_dim} value features; arithmetic in fp32.",
        *(f"Constant: {name} = {value!r}." for name, value in spec.consts),
        "One pass over the keys, by the rules:",
        *(f"    {use.rule} {use.target}: {use.before}  ->  {use.after}" for use in spec.fold.derivation.rules),
        f"Schedule: {form}; {plan.reason}.",
        *(f"    {note}" for note in notes),
        f"Configuration for {target.arch}: BLOCK_Q={config.block_q}, BLOCK_K={config.block_k}, "
        f"num_warps={config.num_warps}, num_stages={config.num_stages}.",
        "Compiled ahead of time, last strides are 1, other strides of Q, K, V and O multiples of 16 elements.",
        *(["Integers: 64 bits, for positions or parameters that do not fit the usual text."] if wide else []),
        f"Program sha256: {hashlib.sha256(program.encode()).hexdigest()}",
    ]
    wrapped = [part for line in lines for part in _wrap(line)]
    return "\n".join(wrapped).replace("\\", "\\\\").replace('"""', "'''")


def _wrap(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line,
        WIDTH,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]
