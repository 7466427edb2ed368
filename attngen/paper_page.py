"""The pages of papers: of group A each program's example call, counted and drawn; of the others see `paper_groups`.

Tiles are counted twice: those the schedule visits, and those that hold a kept pair, by looking at every pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attngen import blockmap
from attngen.papers import GROUP_A, TESTS, Example, Paper, example

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from attngen.planner.schedule import Schedule

_CELLS = 64  # a side of a block map, at most
_HEADS = 4  # maps in a picture, at most
_PIXELS = 160
COMPUTED, OTHERS, SEEN = 1, 2, 3
_SHADES = {COMPUTED: "#ccd4db", OTHERS: "#e0a458", SEEN: "#2f6f8f"}

_INTRO = """# Papers: static masks and windows

Sixteen papers whose operator is a mask that does not depend on the data, or plain attention over other axes. A
program is the operator; a test works it out by the paper's own procedure. `attngen papers` writes this page.

*Tiles* counts the pairs of tiles that the schedule of the example computes, over those that hold a kept pair, found by
looking at every pair. *Full* tiles need no mask. `ranges` are evaluated in the kernel and take no metadata; `lists` are
built before the call. Pictures show the tiles of a call, queries down and keys to the right, a map a head where heads
differ: blue tiles keep every pair, orange ones some. Where tiles are boxes of a grid, they are numbered in the order
of the grid, and a second picture shows a plane of the grid's last two axes: the keys that one query sees (blue), those
that other queries of its box see (orange), and what else is in the tiles computed for them (grey).
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """One example call: its schedule, and what looking at every pair found.

    planned, needed   classes of tiles, `[heads, q tiles, k tiles]`; heads is 1 where all agree.
    kept              the mask, `[heads, n_q, n_k]`.
    tiles_of_tokens   the number of the tile of each query and of each key.
    """

    example: Example
    schedule: Schedule
    planned: NDArray[np.int8]
    needed: NDArray[np.int8]
    kept: NDArray[np.bool_]
    tiles_of_tokens: tuple[NDArray[np.int64], NDArray[np.int64]]


def count(call: Example) -> Counted:
    """Plan an example call, and look at all of its pairs."""
    from attngen import arguments
    from attngen.api import load
    from attngen.tiles_needed import kept_pairs, tile_of_tokens, tiles_needed

    spec = load(call.program, **call.arguments())
    tensors, params = arguments.bind(spec.program, spec.values, {})
    values = {**params, **tensors}
    schedule = spec.schedule(call.n_q, call.n_k, 1, call.heads, call.block, call.block)
    kept = kept_pairs(spec.program, values, call.n_q, call.n_k, 1, call.heads)[0].numpy()
    needed = tiles_needed(spec.program, schedule, values)[0]
    planned = schedule.tiles()[0].numpy()
    if planned.shape[0] == 1:
        needed = needed[:1]
    of_q, of_k = (tile_of_tokens(spec.program, schedule, values, rank) for rank in ("q", "k"))
    return Counted(call, schedule, planned, needed, kept, (of_q, of_k))


def picture(counted: Counted) -> str:
    """The block map as SVG; one beside the other where heads differ, none twice."""
    maps: list[NDArray[np.int8]] = []
    for head in counted.planned:
        if not any(np.array_equal(head, other) for other in maps):
            maps.append(head)
    small = [blockmap.shrink(m, _CELLS) for m in maps[:_HEADS]]
    return blockmap.draw(small, blockmap.COLORS, _PIXELS) + "\n"


def neighborhood(counted: Counted) -> str | None:
    """What the middle query box of a grid computes, in the plane of its last two axes; None where there is no plane.

    A key is seen by the query in the middle of the box, by another one of the box, or it lies in a tile that is
    computed for the sake of others.
    """
    call = counted.example
    grid = call.values.get("grid", ())
    if len(grid) < 2 or call.n_q != call.n_k:
        return None
    of_q, of_k = counted.tiles_of_tokens
    middle = int(np.ravel_multi_index([n // 2 for n in grid], grid))
    box = of_q[middle]
    computed = counted.planned[0, box] > 0
    kept = counted.kept[0]
    cells = np.where(computed[of_k], COMPUTED, 0)
    cells = np.where(kept[of_q == box].any(axis=0), OTHERS, cells)
    cells = np.where(kept[middle], SEEN, cells)
    planes = cells[: int(np.prod(grid))].reshape(-1, *grid[-2:])
    return blockmap.draw((planes[len(planes) // 2],), _SHADES, _PIXELS) + "\n"


def row(paper: Paper, counted: Counted, *, first: bool, plane: bool) -> str:
    """A line of the table: the paper is named in its first line only."""
    call, schedule = counted.example, counted.schedule
    visited, needed = int((counted.planned > 0).sum()), int((counted.needed > 0).sum())
    full = int((counted.planned == blockmap.FULL).sum())
    empty = counted.planned.size - visited
    ratio = visited / needed if needed else 1.0
    name = f"{paper.number}. {paper.title}" if first else ""
    folder = "ir/cascades" if call.program == "softmax" else "ir"
    cells = (
        name,
        f"[`{call.program}`](../../{folder}/{call.program}.attn)",
        call.caption,
        f"![{call.program}]({call.program}.svg)" + (f" ![plane]({call.program}-plane.svg)" if plane else ""),
        f"{counted.kept.mean():.1%}",
        f"{visited} / {needed} = {ratio:.2f}",
        f"{full} / {visited - full} / {empty}",
        schedule.form,
        f"[test](../../{TESTS}/{paper.test})",
    )
    return "| " + " | ".join(cells) + " |"


def page() -> tuple[str, dict[str, str]]:
    """The page of group A as Markdown, and its pictures by file name."""
    programs = sorted({p for paper in GROUP_A for p in paper.programs})
    counted = {name: count(example(name)) for name in programs}
    lines = [
        _INTRO,
        "| paper | program | example | picture | pairs kept | tiles | full / partial / empty | form | test |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    pictures = {f"{n}.svg": picture(c) for n, c in counted.items()}
    planes = {n: drawn for n, c in counted.items() if (drawn := neighborhood(c)) is not None}
    pictures |= {f"{n}-plane.svg": drawn for n, drawn in planes.items()}
    for paper in GROUP_A:
        lines += [
            row(paper, counted[p], first=i == 0, plane=p in planes) for i, p in enumerate(paper.programs)
        ]
    lines += ["", "## Notes", ""]
    lines += [f"- {paper.number}. {paper.title}: {paper.note}." for paper in GROUP_A if paper.note]
    return "\n".join(lines) + "\n", pictures


def write(folder: Path, groups: Collection[str]) -> list[Path]:
    """Write the pages of groups, and pictures, to a folder, which is made; returns the paths, the pages first."""
    from attngen import paper_groups, papers_cdf

    files: dict[str, str] = {}
    pictures: dict[str, str] = {}
    if "a" in groups:
        files["group-a.md"], pictures = page()
    for group in papers_cdf.GROUPS:
        if group.name.removeprefix("group-") in groups:
            files[f"{group.name}.md"] = paper_groups.page(group)
    folder.mkdir(parents=True, exist_ok=True)
    out: list[Path] = []
    for name, content in {**files, **pictures}.items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        out.append(path)
    return out
