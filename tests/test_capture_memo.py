"""A function is traced once, and again whenever something it reads has changed."""

from __future__ import annotations

import functools
import gc
import threading
import weakref

import torch

from attngen.capture import as_mask, mask, score
from tests.captured import H

prefix_length = torch.tensor([2, 5], dtype=torch.int32)


class Holder:
    width = 0


def test_a_function_is_traced_once():
    calls = []

    def make(tensor):
        def fn(b, h, q, k):
            return k < tensor[b]

        return fn

    fn = make(prefix_length)
    assert as_mask(fn) is as_mask(fn)
    partial = functools.partial(lambda n, b, h, q, k: q - k < n, 3)
    assert as_mask(partial) is as_mask(partial)
    assert as_mask(make(prefix_length)) is not as_mask(fn)

    def counted(b, h, q, k):
        calls.append(1)
        return q >= k

    as_mask(counted)
    as_mask(counted)
    assert len(calls) == 2  # a list may change: nothing is assumed about it


def test_changed_closures_globals_and_defaults_are_seen():
    width, table = 3, torch.tensor([1, 2])

    def fn(b, h, q, k):
        return (q - k < width) & (k < table[b])

    before = as_mask(fn)
    width = 4
    assert as_mask(fn).text() == "(q - k < 4) & (k < table[b])"
    width = 3
    table = torch.tensor([1, 2])
    after = as_mask(fn)
    assert after.expr == before.expr
    assert after.values["table"] is table
    assert after != before

    space = {"WIDTH": 2}
    exec("def g(b, h, q, k):\n    return q - k < WIDTH\n", space)
    g = space["g"]
    assert as_mask(g).text() == "q - k < 2"
    space["WIDTH"] = 5
    assert as_mask(g).text() == "q - k < 5"
    space["WIDTH"] = True
    assert as_mask(g).expr != mask(lambda q, k: q - k < 5).expr

    def d(b, h, q, k, w=2):
        return q - k < w

    as_mask(d)
    d.__defaults__ = (7,)
    assert as_mask(d).text() == "q - k < 7"


def test_changed_objects_and_helpers_are_seen():
    holder = Holder()
    holder.width = 3
    fn = lambda b, h, q, k: q - k < holder.width  # noqa: E731
    as_mask(fn)
    holder.width = 4
    assert as_mask(fn).text() == "q - k < 4"

    class Settings:
        width = 3

    of_class = lambda b, h, q, k: q - k < Settings.width  # noqa: E731
    as_mask(of_class)
    Settings.width = 5
    assert as_mask(of_class).text() == "q - k < 5"

    helper = lambda q, k: q >= k  # noqa: E731
    outer = lambda b, h, q, k: helper(q, k)  # noqa: E731
    assert as_mask(outer).text() == "q >= k"

    helper = lambda q, k: q > k  # noqa: E731

    assert as_mask(outer).text() == "q > k"


def test_traces_that_read_contents_are_not_reused():
    limit = torch.tensor(3)

    def snapshot(b, h, q, k):
        return q - k < limit.item()

    assert as_mask(snapshot).text() == "q - k < 3"
    limit.fill_(4)
    assert as_mask(snapshot).text() == "q - k < 4"

    def derived(b, h, q, k):
        return k < (prefix_length + 1)[b]

    assert as_mask(derived) is not as_mask(derived)


def test_memory_is_released_with_the_function():
    tensor = torch.ones(H)
    gone = weakref.ref(tensor)

    def make(t):
        return lambda s, b, h, q, k: s + t[h]

    fn = make(tensor)
    score(fn)
    del fn, tensor
    gc.collect()
    assert gone() is None


def test_tracing_in_threads():
    results: list[str] = []

    def work(n):
        results.append(mask(lambda q, k: q - k < n).text())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(results) == sorted(f"q - k < {n}" for n in range(8))
