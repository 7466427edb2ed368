"""What an artefact says of a program stays with the artefact: a specification of the same text derives its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

import attngen
from attngen import forms
from attngen.analysed import forget
from tests.artefact.rewrite import replace_file


def test_documents_of_an_artefact_are_not_taken_for_what_is_derived(small: Path, tmp_path: Path):
    """One that is wrong in a way only its author could make it: a factor where a divisor belongs."""
    copy = shutil.copytree(small / "causal", tmp_path / "causal")
    text = (copy / "documents.json").read_text()
    wrong = text.replace('["apply","div",[["load","O_acc"', '["apply","mul",[["load","O_acc"', 1)
    assert wrong != text
    replace_file(copy, "documents.json", wrong.encode())
    forget()
    forms.forget()
    theirs = attngen.load_artefact(copy).derivation()
    spec = attngen.load("causal")
    fold = forms.fold_of(spec._analysed)
    assert theirs.rules == fold.derivation.rules
    assert fold.finish[0].body.args[2].op == "div"  # type: ignore[attr-defined]
    query = torch.randn(1, 2, 30, 16)
    assert (spec(query, query, query) - spec.reference(query, query, query)).abs().max() < 1e-5
