"""The static suite as a page to read: a table for each target, a row for each kernel, theirs below ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attngen.bench.static import Kernel
from attngen.bench.static_reference import MADE_WITH, Reference, references
from attngen.static.table import share_text

_HEAD = (
    *(
        "kernel",
        "head dim",
        "tile",
        "warps, stages",
        "registers",
        "spilled bytes, instructions",
        "shared KiB",
    ),
    *(
        "CTAs",
        "limited by",
        "loops",
        "instructions",
        "mask",
        "tile cycles",
        "tensor cycles",
        "issue or ALU cycles",
    ),
    "busiest",
    *("pipe bound", "simulated"),
)

_EXPLAINED = """\
Read from the code of each kernel as compiled for a GPU that was not there: nothing is timed. Where a cell has several
figures, each is of one loop, in the order of the column loops: partial tiles with all of the mask, the left and the
right edge with one side of it, full tiles without any.

- **instructions** and **mask** are those of a warp in one iteration; mask counts comparisons, selects and predicates
  (AMD rounds to bf16 with them).
- **tensor cycles** and **issue cycles** (AMD: cycles of the vector unit) are of one thread block and iteration, on one
  of the four parts of an SM. **tile cycles** are tensor cycles if every product of a tile were computed once: fewer
  than tensor cycles where several warps compute the same one.
- **pipe bound** is tensor cycles over cycles of the busiest unit: no schedule keeps the tensor cores busier.
- **simulated** is their share of the time in an in-order simulation of all resident warps with the code's own
  scheduling. It leaves out shared memory, L2 and global memory, so it may exceed the pipe bound. Use it to rank
  kernels; measured rates are 0.6 to 0.9 of it on an H100, and differences below 0.05 mean nothing.
"""


def page(kernels: Sequence[Kernel], made: Mapping[str, str]) -> str:
    """The page in Markdown."""
    parts = [
        "# What generated kernels take of a GPU",
        f"attngen {made['attngen']}, Triton {made['triton']}, {made['dtype']}, {made['date']}. "
        "Made by `attngen bench static --out benchmarks/results/static_triton.json`.",
        _EXPLAINED.rstrip(),
        f"Kernels of others: {MADE_WITH}. Their mask is a causal window (tutorial: causal).",
    ]
    for target in dict.fromkeys(k.target for k in kernels):
        rows = [_ours(k) for k in kernels if k.target == target]
        rows += [_theirs(r) for r in references() if r.target == target]
        parts += [f"## {target}", _table(rows)]
    return "\n\n".join(parts) + "\n"


def line(kernel: Kernel) -> str:
    """A kernel in a line, for a terminal."""
    head = f"{kernel.target:7} {kernel.program:20} {kernel.head_dim:4}"
    if kernel.found is None:
        return f"{head}  {kernel.error}"
    f = kernel.found
    loops = "  ".join(
        f"{loop.label or '?'} {loop.instructions} ({loop.mix.get('mask', 0)} mask), "
        f"{share_text(loop.pipe_bound)}, {share_text(loop.simulated)}"
        for loop in f.loops
    )
    takes = f"{f.registers:3} registers, {f.spill_bytes} B spilled, {f.shared_bytes >> 10} KiB"
    return f"{head}  {takes}, {f.occupancy.ctas} a multiprocessor  {loops}"


def _ours(kernel: Kernel) -> list[str]:
    f = kernel.found
    if f is None:
        return [kernel.program, str(kernel.head_dim), f"not compiled: {kernel.error}"]
    loops = f.loops
    return [
        *(kernel.program, str(kernel.head_dim), f"{f.block_q} x {f.block_k}"),
        *(f"{f.num_warps}, {f.num_stages}", str(f.registers), _spilled(f.spill_bytes, f.spill_instructions)),
        *(f"{f.shared_bytes / 1024:g}", str(f.occupancy.ctas), ", ".join(f.occupancy.limited_by)),
        _pair(loop.label or "?" for loop in loops),
        _pair(str(loop.instructions) for loop in loops),
        _pair(str(loop.mix.get("mask", 0)) for loop in loops),
        _pair(str(loop.tile_cycles) for loop in loops),
        _pair(str(loop.cycles["tensor"]) for loop in loops),
        _pair(str(loop.cycles.get("issue", loop.cycles["alu"])) for loop in loops),
        _pair(loop.bound for loop in loops),
        _pair(share_text(loop.pipe_bound) for loop in loops),
        _pair(share_text(loop.simulated) for loop in loops),
    ]


def _theirs(r: Reference) -> list[str]:
    return [
        *(r.name, str(r.head_dim), f"{r.block_q} x {r.block_k}", f"{r.num_warps}, {r.num_stages}"),
        *(_known(r.registers), _spilled(r.spill_bytes, r.spill_instructions), _known(r.shared_kib)),
        *(_known(r.ctas), ""),
        _pair(loop.label for loop in r.loops),
        _pair(_known(loop.instructions) for loop in r.loops),
        _pair(_known(loop.mask) for loop in r.loops),
        "",
        _pair(_known(loop.tensor) for loop in r.loops),
        _pair(_known(loop.issue) for loop in r.loops),
        "",
        _pair(share_text(loop.pipe_bound) for loop in r.loops),
        _pair(share_text(loop.simulated) for loop in r.loops),
    ]


def _spilled(count: int | None, instructions: int | None) -> str:
    return "0" if count == 0 and not instructions else f"{_known(count)}, {_known(instructions)}"


def _known(figure: int | None) -> str:
    return "-" if figure is None else str(figure)


def _pair(texts: Iterable[str]) -> str:
    return " / ".join(texts)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [_HEAD, ["---"] * len(_HEAD), *([*row, *[""] * (len(_HEAD) - len(row))] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
