"""What captured tensors are called: as in the user's code, unique, and valid in program text."""

from __future__ import annotations

import functools

import torch

from attngen.capture import mask, score
from tests.captured import N_K, B, H, round_trip

document_id = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


class Holder:
    def __init__(self) -> None:
        self.slopes = torch.ones(H)

    def __call__(self, score, b, h, q, k):
        return score * self.slopes[h]

    def method(self, score, b, h, q, k):
        return score - self.slopes[h]


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(H))
        self.register_buffer("seen", torch.ones(N_K, dtype=torch.bool))

    def forward(self, score, b, h, q, k):
        return torch.where(self.seen[k], score + self.bias[h], 0.0)


def nested(tensor):
    def inner(h):
        return tensor[h]

    return lambda s, b, h, q, k: s + inner(h)


def test_names_are_those_of_the_user():
    length = torch.ones(B, dtype=torch.int64)

    def names(captured):
        return [t.name for t in captured.tensors]

    assert names(score(Holder())) == ["slopes"]
    assert names(score(Holder().method)) == ["slopes"]
    assert names(score(Module())) == ["seen", "bias"]
    assert names(score(nested(torch.ones(H)))) == ["tensor"]
    assert names(mask(functools.partial(lambda lens, b, h, q, k: k < lens[b], length))) == ["lens"]
    assert names(mask(functools.partial(lambda b, h, q, k, *, lens: k < lens[b], lens=length))) == ["lens"]
    assert names(mask(lambda b, h, q, k, lens=length: k < lens[b])) == ["lens"]
    assert names(mask(lambda b, h, q, k: k < document_id[b])) == ["document_id"]
    tables = [torch.ones(H), torch.ones(H)]
    assert names(score(lambda s, b, h, q, k: s + tables[0][h] * tables[1][h])) == ["tables_0", "tables_1"]
    assert names(score(lambda s, b, h, q, k: s + (length * 2)[b] + (length + 1)[b])) == ["t0", "t1"]


def test_names_never_clash():
    k_, S, M, max_, n_k, scale = (torch.ones(H) for _ in range(6))
    LSE = torch.ones(H)
    grid = {"k": k_, "S": S, "max": max_, "n_k": n_k, "scale": scale, "größe": M, "two words": LSE}

    def fn(s, b, h, q, k):
        for t in grid.values():
            s = s + t[h]
        return s

    names = [t.name for t in score(fn).tensors]
    assert len(set(names)) == 7
    assert not {"k", "S", "max", "n_k", "scale"} & set(names)
    assert all(n.isidentifier() and n.isascii() for n in names)
    round_trip(score(fn))


def test_one_tensor_by_two_names_is_one():
    first = torch.ones(H)
    second = first
    assert len(score(lambda s, b, h, q, k: s + first[h] * second[h]).tensors) == 1
