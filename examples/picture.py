"""Draw the picture of the README: one program on its way through the compiler.

    python examples/picture.py            # writes examples/pictures/stages.svg

Everything in it is computed: the derivation, the block map and the kernel's two loops are what the stages return.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import attngen
from attngen import blockmap

OUT = Path(__file__).resolve().parent / "pictures" / "stages.svg"
N, BLOCK = 2048, 64
INK, MUTED, LINE = "#1d2733", "#5b6b7b", "#c3ccd5"


def text(x: int, y: int, lines: list[str], size: int = 12, color: str = INK) -> str:
    """Monospaced lines, the first one with its baseline at y."""
    spans = "".join(
        f'<tspan x="{x}" dy="{0 if i == 0 else size + 4}" xml:space="preserve">{escape(line)}</tspan>'
        for i, line in enumerate(lines)
    )
    return f'<text x="{x}" y="{y}" font-family="monospace" font-size="{size}" fill="{color}">{spans}</text>'


def panel(x: int, width: int, title: str, body: str) -> str:
    """A titled box."""
    return (
        f'<rect x="{x}" y="40" width="{width}" height="250" rx="6" fill="#fff" stroke="{LINE}"/>'
        f'<text x="{x + 12}" y="28" font-family="sans-serif" font-size="14" fill="{MUTED}">{escape(title)}</text>'
        + body
    )


def draw() -> str:
    """The whole picture as SVG."""
    spec = attngen.load("sliding_window_sink", sink=64, window=512)
    derivation = spec.derivation()
    schedule = spec.schedule(N, N, block_q=BLOCK, block_k=BLOCK)
    cascade = [line for line in spec.text().splitlines() if "[q" in line and "=" in line]
    mask = ["mask =", "  (k <= pos(q))", "  & ((k < sink)", "     | (pos(q) - k < window))"]
    rules = [f"{r.rule}: {r.target}" for r in derivation.rules if r.rule.startswith("D")]
    fold = [f"{derivation.passes_written} passes over the keys", f"-> {derivation.passes} pass", "", *rules]
    total = schedule.n_full + schedule.n_partial + schedule.n_empty
    counts = [
        f"{schedule.n_full} full, {schedule.n_partial} partial of {total} tiles",
        f"{schedule.nbytes} bytes of metadata",
    ]
    square = (
        blockmap.to_svg(schedule.tiles()[0, 0].numpy())
        .replace("<svg ", '<svg x="612" y="56" ', 1)
        .replace('width="480" height="480"', 'width="180" height="180"', 1)
    )
    loops = [
        "for partial tiles:",
        "    dot, mask, absorb",
        "for full tiles:",
        "    dot, absorb",
        "",
        "Triton  sm_80 ... sm_120",
        "        gfx90a, gfx942",
        "C++     AVX2, AVX-512",
    ]
    arrows = "".join(
        f'<path d="M{x} 165 h14 m-6 -5 l6 5 l-6 5" fill="none" stroke="{MUTED}" stroke-width="1.5"/>'
        for x in (360, 580, 822)
    )
    body = "".join(
        (
            panel(10, 346, "what is declared", text(24, 66, [*mask, "", *cascade], 11)),
            panel(380, 196, "what is derived", text(394, 66, fold)),
            panel(600, 218, "where the work is", square + text(612, 258, counts, 9, MUTED)),
            panel(842, 208, "what runs", text(856, 66, loops)),
        )
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="1060" height="300" viewBox="0 0 1060 300">'
        f'<rect width="1060" height="300" fill="#f6f8fa"/>{body}{arrows}</svg>\n'
    )


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
    print(OUT)
