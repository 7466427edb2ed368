"""Pictures of a schedule: a block map for the terminal and one as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tiles = NDArray[np.int8]

EMPTY, PARTIAL, FULL = 0, 1, 2
GLYPHS = {EMPTY: "·", PARTIAL: "▒", FULL: "█"}
LEGEND = f"{GLYPHS[FULL]} every pair kept  {GLYPHS[PARTIAL]} some kept, masked  {GLYPHS[EMPTY]} never visited"
_COLORS = {PARTIAL: "#e0a458", FULL: "#2f6f8f"}
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


def to_svg(tiles: Tiles, most: int = 256) -> str:
    """A self-contained SVG; runs of equal tiles in a row are one rectangle."""
    small = shrink(tiles, most)
    rows, cols = small.shape
    side = _SVG_SIDE / max(rows, cols, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{cols * side:.0f}" height="{rows * side:.0f}" '
        f'viewBox="0 0 {cols} {rows}" preserveAspectRatio="none" shape-rendering="crispEdges" role="img">',
        f'<rect width="{cols}" height="{rows}" fill="#eef1f4"/>',
    ]
    for r, row in enumerate(small):
        edges = np.flatnonzero(np.diff(row)) + 1
        for start, end in zip([0, *edges], [*edges, cols], strict=True):
            color = _COLORS.get(int(row[start]))
            if color:
                parts.append(f'<rect x="{start}" y="{r}" width="{end - start}" height="1" fill="{color}"/>')
    return "".join([*parts, "</svg>"])
