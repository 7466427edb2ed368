"""Texts of programs: those of `ir/` with something changed, and statements put together at random."""

from __future__ import annotations

import random
from functools import cache

from attngen.lang.library import load_cascade, load_program, parse_bytes, program_names
from attngen.lang.link import link
from attngen.lang.parse import parse_program
from attngen.lang.print import print_program

_TEXT = """
    mask score cascade tokens return grid pos q k b h d e g i j n_q n_k size rank int float bool const
    sum max min prod any all argmax topk logaddexp where exp log exp2 tanh sigmoid sqrt abs sign clip
    ( ) [ ] , : . = == != < <= > >= & | ~ ^ + - * / // % ** << >> @ := -> 0 1 -1 2 7 1e9 1e400 inf nan 0x7f
    S Q K V M E Z O LSE scale softmax if else lambda not and or in is None True False yield await λ ٣ ﬁ
    99999999999999999999 1_000 q.y k.x ''' ' \\ #
"""
_WORDS = (*_TEXT.split(), "\n", "\n\n", "\t", "\x0c", "\x00", "\ud800", '"""')


@cache
def seeds() -> tuple[str, ...]:
    """The texts of every program, as written and linked."""
    written = [load_program(name) for name in program_names()]
    return tuple(print_program(p) for p in (*written, *(link(p, load_cascade) for p in written)))


def one(rng: random.Random, held: list[str]) -> None:
    """One text: parsed, printed, parsed again, and linked."""
    text = _mutated(rng) if rng.random() < 0.7 else _expression_soup(rng)
    held.append(text)
    if rng.random() < 0.1:
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(rng.randint(1, 4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        program = parse_bytes(bytes(data))
    else:
        program = parse_program(text)
    assert parse_program(print_program(program)) == program, "printing and parsing changed the program"
    linked = link(program, load_cascade)
    assert parse_program(print_program(linked)) == linked, "printing and parsing changed the linked program"


def _mutated(rng: random.Random) -> str:
    """A program with spans removed, repeated, swapped with spans of another, or words put in."""
    text = rng.choice(seeds())
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(text))
        stop = min(len(text), start + rng.choice((0, 1, 3, 8, 40)))
        match rng.randrange(5):
            case 0:
                new = ""
            case 1:
                new = text[start:stop] * rng.choice((2, 3, 50))
            case 2:
                other = rng.choice(seeds())
                at = rng.randint(0, len(other))
                new = other[at : at + rng.choice((5, 30, 200))]
            case 3:
                new = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 5)))
            case _:
                new = chr(rng.randrange(0x110000))
        text = text[:start] + new + text[stop:]
    return text


def _expression_soup(rng: random.Random) -> str:
    """Statements of the right shape with expressions of random depth."""
    names = [rng.choice(("S", "A", "B", "M", "X", "O", "T")) for _ in range(rng.randint(1, 5))]
    lines = []
    if rng.random() < 0.5:
        lines.append(f"w: int = {rng.randint(-3, 99)}")
    if rng.random() < 0.3:
        lines.append("table[h, i]: float")
    if rng.random() < 0.2:
        lines.append("tokens = grid(y, x)")
    lines.append(f"mask = {_expr(rng, rng.randint(0, 9))}")
    for name in names:
        ranks = rng.choice(("q, k", "q", "k", "q, e", "q, j", ""))
        body = _expr(rng, rng.randint(0, 7))
        reduce = rng.choice(("", "sum[k]", "max[k]", "sum[d]", "sum[q, k]", "topk[k]"))
        lines.append(f"{name}[{ranks}] = {reduce}({body})")
    lines.append(f"return {', '.join(names)}")
    return "\n".join(lines)


def _expr(rng: random.Random, depth: int) -> str:
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice(
            ("q", "k", "b", "h", "w", "1", "2.5", "n_k", "pos(q)", "S[q, k]", "Q[q, d]", "K[k, d]", "V[k, e]",
             "table[h, q]", "q.y", "k.x", "size.y", "M[q]", "scale", "inf", "-1")
        )  # fmt: skip
    a, b, c = (_expr(rng, depth - 1 - rng.randrange(3)) for _ in range(3))
    operator = rng.choice(("+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "&", "|", "^", "<<", ">>"))
    return rng.choice(
        (
            f"({a} {operator} {b})",
            f"{a} {operator} {b}",
            f"-{a}",
            f"~({a})",
            f"where({a}, {b}, {c})",
            f"{rng.choice(('exp', 'log', 'abs', 'min', 'max', 'tanh', 'clip'))}({a}, {b})",
            f"{rng.choice(('exp', 'sqrt', 'sign', 'floor', 'sigmoid'))}({a})",
            f"{a} < {b} <= {c}",
            f"sum[k]({a} * {b})",
        )
    )
