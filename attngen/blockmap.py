"""Pictures of a schedule: a block map for the terminal and one as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tiles = NDArray[np.int8]

EMPTY, PARTIAL, FULL = 0, 1, 2
GLYPHS = {EMPTY: "·", PARTIAL: "▒", FULL: "█"}
LEGEND = f"{GLYPHS[FULL]} every pair kept  {GLYPHS[PARTIAL]} some kept, masked  {GLYPHS[EMPTY]} never visited"
COLORS = {PARTIAL: "#e0a458", FULL: "#2f6f8f"}
_GROUND = "#eef1f4"
_SVG_SIDE = 480


def shrink(tiles: Tiles, most: int) -> Tiles:
    """At most `most` cells a side: a cell is empty or full only if all tiles in it are."""
    rows, cols = tiles.shape
    step = max(1, -(-max(rows, cols) // most))
    if step == 1 or not tiles.size:
        return tiles
    starts_r, starts_c = np.arange(0, rows, step), np.arange(0, cols, step)

    def reduce(fn: np.ufunc) -> Tiles:
        return fn.reduceat(fn.reduceat(tiles, starts_r, axis=0), starts_c, axis=1)

    low, high = reduce(np.minimum), reduce(np.maximum)
    return np.where(low == high, low, PARTIAL).astype(np.int8)


def to_text(tiles: Tiles, most: int = 48) -> str:
    """One line a row of query tiles, keys to the right."""
    if not tiles.size:
        return "(no tiles)"
    return "\n".join("".join(GLYPHS[int(t)] for t in row) for row in shrink(tiles, most))


def beside(pictures: Sequence[tuple[str, str]], gap: int = 3) -> str:
    """Titled texts next to each other, their first lines level."""
    columns = [[title, *text.splitlines()] for title, text in pictures]
    widths = [max(len(line) for line in column) for column in columns]
    height = max((len(column) for column in columns), default=0)
    rows = (
        (" " * gap).join(
            (column[i] if i < len(column) else "").ljust(width)
            for column, width in zip(columns, widths, strict=True)
        )
        for i in range(height)
    )
    return "\n".join(row.rstrip() for row in rows)


def to_svg(tiles: Tiles, most: int = 256, side: int = _SVG_SIDE) -> str:
    """A self-contained SVG; runs of equal tiles in a row are one rectangle."""
    return draw((shrink(tiles, most),), COLORS, side)


def draw(maps: Sequence[Tiles], colors: Mapping[int, str], side: int = _SVG_SIDE) -> str:
    """Maps of classes beside each other as one SVG: `colors` says how a class is filled, others are left open.

    The larger side of the picture is `side` pixels, if it is a single map.
    """
    rows = max((m.shape[0] for m in maps), default=0)
    longest = max((max(m.shape) for m in maps), default=1)
    gap = longest / 16
    width = sum(m.shape[1] for m in maps) + gap * (len(maps) - 1)
    cell = side / max(longest, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * cell:.0f}" height="{rows * cell:.0f}" '
        f'viewBox="0 0 {width:g} {rows}" preserveAspectRatio="none" shape-rendering="crispEdges" role="img">'
    ]
    left = 0.0
    for cells in maps:
        n, m = cells.shape
        parts.append(f'<g transform="translate({left:g})"><rect width="{m}" height="{n}" fill="{_GROUND}"/>')
        for what, color in colors.items():
            path = _runs(cells == what)
            if path:
                parts.append(f'<path fill="{color}" d="{path}"/>')
        parts.append("</g>")
        left += m + gap
    return "".join([*parts, "</svg>"])


def _runs(cells: NDArray[np.bool_]) -> str:
    """The runs of a row as rectangles of one path; equal rows below each other are one rectangle."""
    out: list[str] = []
    r = 0
    while r < len(cells):
        end = r + 1
        while end < len(cells) and np.array_equal(cells[end], cells[r]):
            end += 1
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells[r].astype(np.int8), [0]])))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            out.append(f"M{start} {r}h{stop - start}v{end - r}h{start - stop}z")
        r = end
    return "".join(out)
