"""Find the loops of a listing: basic blocks, dominators, natural loops, and of these the innermost that matter.

A listing is a sequence of `Jump | None`, one entry an instruction; None goes on to the next one. Ranges of addresses
would not do: a compiler moves the body of a wait out of line, and a jump back over it is no loop around what lies
between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attngen.value import value


@value
class Jump:
    """An instruction that may not go on to the next.

    target         the position it goes to; None where the listing does not say, and for an exit;
    falls_through  whether it may go on to the next one too.
    """

    target: int | None
    falls_through: bool


@dataclass(frozen=True, slots=True)
class Loop:
    """A natural loop: where it is entered, and the positions of all its instructions."""

    header: int
    body: frozenset[int]


Flow = Sequence[Jump | None]


def natural_loops(flow: Flow) -> tuple[Loop, ...]:
    """All loops that can be reached, by header; those that share a header are one."""
    if not flow:
        return ()
    blocks = _blocks(flow)
    successors = _successors(flow, blocks)
    order = _reverse_postorder(successors)
    before = _predecessors(successors, order)
    parent = _dominators(order, before)
    bodies: dict[int, set[int]] = {}
    for block in order:
        for head in successors[block]:
            if _dominates(parent, head, block):
                bodies.setdefault(head, {head}).update(_reaching(block, head, before))
    return tuple(
        Loop(blocks[head].start, frozenset(i for b in bodies[head] for i in blocks[b]))
        for head in sorted(bodies)
    )


def hot_loops(flow: Flow, is_hot: Callable[[Sequence[int]], bool]) -> list[tuple[int, ...]]:
    """Positions of each innermost hot loop, in the order of the code, without the cold loops inside it.

    `is_hot` is told the positions of a loop's instructions. What is left out are loops that wait.
    """
    loops = natural_loops(flow)
    hot = [loop for loop in loops if is_hot(sorted(loop.body))]
    innermost = [loop for loop in hot if not any(other.body < loop.body for other in hot)]
    return [tuple(sorted(loop.body.difference(*_inside(loop, loops)))) for loop in innermost]


def _inside(loop: Loop, loops: Sequence[Loop]) -> Iterator[frozenset[int]]:
    return (other.body for other in loops if other.body < loop.body)


def _blocks(flow: Flow) -> list[range]:
    starts = {0, len(flow)}
    for i, jump in enumerate(flow):
        if jump is not None:
            starts.add(i + 1)
            if jump.target is not None and jump.target < len(flow):
                starts.add(jump.target)
    return [range(a, b) for a, b in pairwise(sorted(starts))]


def _successors(flow: Flow, blocks: list[range]) -> list[list[int]]:
    at = {block.start: n for n, block in enumerate(blocks)}
    out: list[list[int]] = []
    for n, block in enumerate(blocks):
        jump = flow[block[-1]]
        found: set[int] = set()
        if jump is not None and jump.target in at:
            found.add(at[jump.target])
        if (jump is None or jump.falls_through) and n + 1 < len(blocks):
            found.add(n + 1)
        out.append(sorted(found))
    return out


def _reverse_postorder(successors: list[list[int]]) -> list[int]:
    """The blocks that the first one reaches, each before those it leads to, jumps back aside."""
    seen, done = {0}, list[int]()
    stack = [(0, iter(successors[0]))]
    while stack:
        block, rest = stack[-1]
        step = next((s for s in rest if s not in seen), None)
        if step is None:
            stack.pop()
            done.append(block)
        else:
            seen.add(step)
            stack.append((step, iter(successors[step])))
    return done[::-1]


def _predecessors(successors: list[list[int]], order: list[int]) -> dict[int, list[int]]:
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for after in successors[block]:
            before[after].append(block)
    return before


def _dominators(order: list[int], before: dict[int, list[int]]) -> dict[int, int]:
    """The immediate dominator of each block; the first block is its own."""
    number = {block: n for n, block in enumerate(order)}
    parent = {order[0]: order[0]}

    def meet(a: int, b: int) -> int:
        while a != b:
            if number[a] > number[b]:
                a = parent[a]
            else:
                b = parent[b]
        return a

    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [p for p in before[block] if p in parent]
            found = known[0]
            for other in known[1:]:
                found = meet(found, other)
            if parent.get(block) != found:
                parent[block] = found
                changed = True
    return parent


def _dominates(parent: dict[int, int], head: int, block: int) -> bool:
    while block != head and parent[block] != block:
        block = parent[block]
    return block == head


def _reaching(block: int, head: int, before: dict[int, list[int]]) -> set[int]:
    """The blocks from which `block` is reached without passing `head`, and both."""
    found, todo = {head}, [block]
    while todo:
        b = todo.pop()
        if b not in found:
            found.add(b)
            todo += before[b]
    return found
