"""Natural loops of small flows, by hand."""

from __future__ import annotations

import random

import networkx as nx
import pytest

from attngen.static.loops import Jump, Loop, hot_loops, natural_loops
from attngen.static.sass import parse_sass
from tests.static.listings import SMALL


def test_no_code_has_no_loops():
    assert natural_loops([]) == ()


def test_straight_code_has_no_loops():
    assert natural_loops([None, None, Jump(None, False)]) == ()


def test_a_loop_of_one_instruction():
    assert natural_loops([None, Jump(1, True), None]) == (Loop(1, frozenset({1})),)


def test_two_jumps_back_to_one_header_are_one_loop():
    flow = [None, None, Jump(1, True), None, Jump(1, True), None]
    assert natural_loops(flow) == (Loop(1, frozenset({1, 2, 3, 4})),)


def test_a_wait_out_of_line_is_no_loop_around_what_lies_between():
    # 1 tests, 4 waits out of line and goes back to 2
    flow = [None, Jump(4, True), None, Jump(None, False), Jump(4, True), Jump(2, False)]
    assert natural_loops(flow) == (Loop(4, frozenset({4})),)


def test_code_that_nothing_reaches_has_no_loops():
    assert natural_loops([Jump(None, False), None, Jump(1, False)]) == ()


def test_a_jump_beyond_the_end_goes_nowhere():
    assert natural_loops([Jump(7, True), None]) == ()


def test_two_entries_make_no_natural_loop():
    # 0 goes to 1 or 2, which go to each other: neither dominates the other
    flow = [Jump(2, True), Jump(2, False), Jump(1, True), None]
    assert natural_loops(flow) == ()


def test_the_innermost_hot_loop_without_its_waits():
    x = parse_sass(SMALL, "k")
    flow = [i.jump for i in x]
    assert [sorted(loop.body) for loop in natural_loops(flow)] == [[2, 3, 4, 5, 6, 7], [4, 5]]
    assert hot_loops(flow, lambda at: 2 in at) == [(2, 3, 6, 7)]
    assert hot_loops(flow, lambda at: True) == [(4, 5)]
    assert hot_loops(flow, lambda at: False) == []


@pytest.mark.parametrize("seed", range(40))
def test_headers_dominate_their_loops(seed):
    """Against networkx: an edge to a dominator makes a loop, and nothing else does."""
    rng = random.Random(seed)
    n = rng.randint(2, 14)
    flow = [Jump(rng.randrange(n), rng.random() < 0.7) if rng.random() < 0.5 else None for _ in range(n)]
    graph = nx.DiGraph()
    graph.add_node(0)
    for i, jump in enumerate(flow):
        if jump is not None and jump.target is not None:
            graph.add_edge(i, jump.target)
        if (jump is None or jump.falls_through) and i + 1 < n:
            graph.add_edge(i, i + 1)
    reached = {0} | nx.descendants(graph, 0)
    graph = graph.subgraph(reached)
    parents = nx.immediate_dominators(graph, 0)

    def dominators(i):
        found = {i}
        while i != 0:
            i = parents[i]
            found.add(i)
        return found

    expected: dict[int, set[int]] = {}
    for tail, head in graph.edges:
        if head in dominators(tail):
            without = graph.subgraph(reached - {head})
            inside = {tail} | nx.ancestors(without, tail) if tail != head else set()
            expected.setdefault(head, {head}).update(inside)
    assert {loop.header: set(loop.body) for loop in natural_loops(flow)} == expected
