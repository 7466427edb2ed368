"""What `explain` says of programs that take several sweeps: steps and reasons, forms, the exchanged mask, kernels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import attngen
from attngen import choose_algorithm, forms
from attngen.algebra.steps import Sweep
from attngen.analysed import analyse
from attngen.api import Attention
from attngen.arguments import Shapes
from attngen.cli.main import main
from attngen.errors import DerivationError, MissingTensorError, UnexpectedArgumentError
from attngen.explain_forms import fold_forms, forms_text, program_forms
from attngen.lang.parse import parse_program
from attngen.run_fold import FoldRunner
from attngen.run_program import ProgramRunner
from attngen.run_sweep import Inputs
from tests.cascades import CASCADES, named

IR = Path(__file__).resolve().parents[1] / "ir"
CAUSAL = "mask = k <= pos(q)\n"
# A window with a hole, so that no class of tiles is empty at 300 x 500 and none agrees with its transpose.
UNEVEN = "mask = (k <= pos(q)) & (k >= pos(q) - 200) & (k < 430)\n"


def spec_of(name: str, mask: str = "") -> Attention:
    cascade = named(name)
    return Attention.from_program(parse_program(mask + cascade.text, name=name, file=name), cascade.values)


@pytest.mark.parametrize("name", ["columns", "blocks", "head_mean", "retention"])
def test_the_derivation_step_by_step(name, golden):
    golden(f"explain/{name}.txt", spec_of(name, CAUSAL).explain(256).stage("algebra") + "\n")


@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_every_cascade_is_explained_without_a_call(cascade):
    """Nothing is given but lengths; every sweep has its Einsums, its Fold and its kernels."""
    spec = spec_of(cascade.name, CAUSAL)
    explained = spec.explain(128, heads=2)
    sweeps = [s for s in forms.sweeps_of(analyse(spec.program)).steps if isinstance(s, Sweep)]
    algebra = explained.stage("algebra")
    assert algebra.count("fold over k") == len(sweeps)
    assert "live footprint, as written" in algebra
    assert len(explained.kernels) == 2 * len(sweeps)
    assert not any(k.text.startswith("not generated") for k in explained.kernels)
    if len(sweeps) > 1:
        titles = [f"sweep {i} {s.describe().removeprefix('sweep ')}" for i, s in enumerate(sweeps)]
        for i, title in enumerate(titles):
            assert title in algebra
            assert [k.title.startswith(title + "; ") for k in explained.kernels[2 * i : 2 * i + 2]] == [
                True
            ] * 2
        for sweep in sweeps:
            assert all(f"{n}[" in algebra for n in sweep.program.outputs)


def test_a_later_sweep_says_what_it_waits_for():
    algebra = spec_of("columns", CAUSAL).explain(64).stage("algebra")
    last = algebra[algebra.index("rows are keys") :]
    assert "it reads M, Z_part" in last
    assert "q are the keys of the call" in last
    refused = attngen.load(IR / "abc_causal.attn").explain(64).stage("algebra")
    second = refused[refused.index("sweep 1") :]
    assert re.search(r"refused\s+Zk\n\s+Mk is a statistic of each column", second)


def test_a_refused_cascade_shows_why_and_no_kernel(monkeypatch):
    spec = spec_of("entropy")

    def refuse(_analysed, **_):
        raise DerivationError("no number of passes computes H")

    monkeypatch.setattr(forms, "sweeps_of", refuse)
    explained = spec.explain(64)
    assert explained.kernels == ()
    assert "refused" in explained.stage("forms")


def test_the_exchanged_mask_is_counted():
    spec = spec_of("columns", UNEVEN)
    n_q, n_k = 300, 500
    q, k = torch.arange(n_q)[:, None], torch.arange(n_k)[None]
    at = q + n_k - n_q
    keep = ((k <= at) & (k >= at - 200) & (k < 430)).T
    tiles = torch.nn.functional.pad(keep, (0, -n_q % 128, 0, -n_k % 128)).reshape(4, 128, 3, 128)
    valid = torch.nn.functional.pad(torch.ones_like(keep), (0, -n_q % 128, 0, -n_k % 128)).reshape(
        4, 128, 3, 128
    )
    visited = tiles.any(dim=3).any(dim=1)
    whole = (tiles | ~valid).all(dim=3).all(dim=1) & visited
    text = spec.explain(n_q, n_k).stage("planner")
    found = re.search(r"rows are keys: 1.*\n\s+\w+; tiles: (\d+) full, (\d+) partial, (\d+) empty", text)
    assert found is not None
    full, partial, empty = map(int, found.groups())
    assert full + partial == int(visited.sum())
    assert empty == int((~visited).sum()) > 0
    assert full <= int(whole.sum())
    assert "exchanged" not in spec_of("spans", UNEVEN).explain(n_q, n_k).stage("planner")


SHAPES = (
    Shapes(1, 1, 1, 1, 8192, 64, 64),
    Shapes(1, 8, 8, 1024, 1024, 64, 64),
    Shapes(2, 4, 4, 16, 4096, 64, 64),
    Shapes(1, 1, 1, 8192, 8192, 64, 64),
    Shapes(1, 1, 1, 1, 16, 64, 64),
)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize(
    "name", ["entropy", "columns", "spans", "linear", "retention", "fixed_query", "weights"]
)
def test_the_form_said_to_be_chosen_is_the_one_that_runs(name, shapes):
    spec = spec_of(name, CAUSAL)
    analysed = analyse(spec.program)
    empty = torch.empty(0)
    inputs = Inputs(empty, empty, empty, shapes, {}, {}, {}, "auto")
    machine = choose_algorithm.machine_of(torch.device("cpu"))
    whole = program_forms(analysed, forms.sweeps_of(analysed), shapes, machine)
    assert sum(f.chosen for f in whole) == 1
    way = ProgramRunner(analysed)._way(inputs, forms.forms_of(analysed))
    assert whole[1].chosen == (way == "reassociate")
    sweeps = forms.sweeps_of(analysed, reassociate=way == "reassociate")
    for step in sweeps.steps:
        if isinstance(step, Sweep):
            part = analyse(step.program, written=sweeps.single)
            found = fold_forms(part, step.rows, shapes, machine)
            (chosen,) = (f for f in found if f.chosen)
            splits = FoldRunner(part, step.rows)._form(inputs, None)
            assert chosen.name == {0: "scan", 1: "one_pass"}.get(splits, "local_then_merge")
            if splits > 1:
                assert chosen.note.startswith(f"{splits} parts")
            assert chosen.seconds is not None


def test_forms_are_told_with_estimates_and_a_choice():
    text = spec_of("retention", CAUSAL).explain(8192, heads=8).stage("forms")
    assert "1 x 8 heads, 8192 queries, 8192 keys, head_dim 64" in text
    assert re.search(r"reassociated +[\d.]+ ms +chosen", text)
    assert "state carried over chunks" in text
    one = spec_of("entropy").explain(60, 65536).stage("forms")
    assert re.search(r"local_then_merge +[\d.]+ ms +chosen: \d+ parts of the keys", one)
    assert "no sum of plain products" in one
    assert "nothing to do" in spec_of("entropy").explain(0, 0).stage("forms")


def test_the_estimates_are_those_of_the_machine():
    analysed = analyse(spec_of("columns").program)
    shapes = Shapes(1, 8, 8, 1024, 1024, 64, 64)
    sweeps = forms.sweeps_of(analysed)
    few, many = (choose_algorithm.Machine(n, 1e10, 2e10, 1e-5) for n in (1, 4))
    assert forms_text(analysed, sweeps, shapes, few) != forms_text(analysed, sweeps, shapes, many)
    slow, fast = (program_forms(analysed, sweeps, shapes, m)[0].seconds for m in (few, many))
    assert slow == pytest.approx(4 * fast)


def test_only_what_the_mask_reads_must_be_given():
    documents = attngen.load("documents")
    with pytest.raises(MissingTensorError, match="doc"):
        documents.explain(64)
    spans = attngen.load(IR / "cascades" / "span_mass.attn")
    assert "m[q, j]" in spans.explain(64).stage("lang")
    with pytest.raises(UnexpectedArgumentError, match="spam"):
        spans.explain(64, spam=torch.zeros(1))


def test_the_page_holds_every_kernel(tmp_path):
    explained = spec_of("columns", CAUSAL).explain(256)
    html = explained.to_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert html.count('<h2 id="k') == len(explained.kernels) == 4
    assert 'id="forms"' in html
    assert "sweep 1 over the queries, rows are keys: C, X" in html


def test_the_command_explains_ranks_of_its_own(capsys):
    for name in ("span_mass", "map_rows", "block_max", "top_of_row"):
        assert (
            main(["explain", str(IR / "cascades" / f"{name}.attn"), "--n", "128", "--stage", "algebra"]) == 0
        )
        assert "fold over k" in capsys.readouterr().out
    assert main(["explain", str(IR / "cascades" / "column_sums.attn"), "--n", "128", "--stage", "forms"]) == 0
    assert "several_passes" in capsys.readouterr().out
