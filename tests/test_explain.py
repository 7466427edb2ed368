"""What `explain` says of a plan: forms, counts against every pair looked at, and a map a head and an axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import attngen
from attngen import arguments, pipeline
from attngen.analysed import analyse, consts_of, with_consts
from attngen.cli.main import main
from attngen.count_pairs import Count, count_kept
from attngen.head_maps import label_of
from attngen.tiles_needed import kept_pairs, tile_of_tokens, tiles_needed

DISC = """tokens = grid(y, x)
radius: int = 3

mask = ((q.y - k.y) * (q.y - k.y) + (q.x - k.x) * (q.x - k.x) <= radius * radius) & (k.y <= q.y)
"""
PER_HEAD = """tokens = grid(y, x)
width[h]: int

mask = (abs(q.y - k.y) <= width[h]) & (abs(q.x - k.x) <= 5)
"""
APART = "mask = (k <= q) & ((q * q + k * k * k) % 7 < 3)\n"


@pytest.fixture
def program(tmp_path):
    def write(text: str, **values):
        path = tmp_path / "p.attn"
        path.write_text(text, encoding="utf-8")
        return attngen.load(path, **values)

    return write


def values_of(spec, **tensors):
    captured, params = arguments.bind(spec.program, spec.values, tensors)
    return {**params, **captured}


def check(spec, n_q, n_k, batch=1, heads=1, **tensors):
    """An explanation whose counts are those of every pair; returns it."""
    explained = spec.explain(n_q, n_k, batch=batch, heads=heads, **tensors)
    plan = explained.planned
    values = values_of(spec, **tensors)
    kept = kept_pairs(spec.program, values, n_q, n_k, batch, heads)[: plan.shape[0], : plan.shape[1]]
    assert plan.pairs.kept.n == int(kept.sum())
    assert plan.pairs.total == kept.numel()
    s = plan.schedule
    size = s.block_q * s.block_k if s.boxes is None else s.boxes.volume("q") * s.boxes.volume("k")
    classes = s.tiles().numpy()
    assert plan.pairs.computed == size * int((classes > 0).sum())
    assert plan.pairs.computed >= plan.pairs.kept.n
    assert sorted(h for m in explained.heads for h in m.heads) == list(np.ndindex(*plan.shape))
    for head in explained.heads:
        for b, h in head.heads:
            np.testing.assert_array_equal(classes[b, h], head.tiles)
    maps = [m.tiles.tobytes() for m in explained.heads]
    assert len(set(maps)) == len(maps)
    text = explained.stage("planner")
    assert text.startswith(f"{plan.form}: {plan.reason}")
    assert f"{s.n_full:,} full, {s.n_partial:,} partial, {s.n_empty:,} empty" in text
    return explained


def test_a_mask_on_a_line():
    explained = check(attngen.load("sliding_window_sink", window=300), 1000, 1200)
    plan = explained.planned
    assert (plan.form, plan.forced_by, plan.axes, plan.nbytes) == ("ranges", None, (), 0)
    assert [m.label for m in explained.heads] == ["every head"]
    assert f"would take {plan.schedule.lists().nbytes:,}" in plan.other_form
    np.testing.assert_array_equal(explained.tiles, explained.heads[0].tiles)


def test_no_mask_and_no_tokens():
    plan = check(attngen.load("softmax"), 300, 200).planned
    assert plan.pairs.ratio == 3 * 2 * 128 * 128 / 60000
    empty = check(attngen.load("causal"), 0, 0)
    assert empty.planned.pairs.ratio is None
    assert "(no tiles)" in empty.stage("planner")


def test_lists_name_the_part_that_forces_them(program):
    plan = check(program(APART), 300, 300).planned
    assert plan.form == "lists"
    assert plan.forced_by is not None
    assert "% 7" in plan.forced_by
    assert len(plan.parts) == 2
    assert "ranges would take 0" in plan.text()


def test_heads_that_agree_share_a_map(tmp_path):
    spec = attngen.load("longlora", group=512)
    explained = check(spec, 2048, 2048, heads=4)
    assert [m.label for m in explained.heads] == ["heads 0-1", "heads 2-3"]
    assert "over 4 heads" in explained.planner
    html = explained.to_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert "heads 2-3" in html


def test_a_text_shows_four_maps_and_says_how_many_more(tmp_path):
    spec = attngen.load("moa")
    explained = check(spec, 1024, 1024, heads=6, window=torch.arange(1, 7, dtype=torch.int32) * 128)
    text = explained.stage("planner")
    assert text.count("keys to the right") == 4
    assert "2 more" in text
    assert explained.to_html(tmp_path / "p.html").read_text(encoding="utf-8").count("<svg") == 6


def test_batch_entries_are_told_apart():
    doc = torch.tensor([0] * 300 + [1] * 212, dtype=torch.int32)
    explained = check(attngen.load("documents"), 512, 512, batch=2, heads=3, doc=torch.stack([doc, doc * 0]))
    assert [m.label for m in explained.heads] == ["batch 0", "batch 1"]


def test_a_grid_with_runs(tmp_path):
    sizes = (6, 12, 20)
    spec = attngen.load("neighborhood_3d", grid=sizes, window_t=3, window_y=5)
    n = int(np.prod(sizes))
    explained = check(spec, n, n)
    plan, (head,) = explained.planned, explained.heads
    assert plan.form == "ranges"
    assert [a.axis for a in plan.axes] == [a.axis for a in head.axes] == ["t", "y", "x"]
    assert all(a.parts for a in plan.axes)
    together = np.ones((1, 1), dtype=bool), np.ones((1, 1), dtype=bool)
    for axis, drawn in zip(plan.axes, head.axes, strict=True):
        assert drawn.tiles.shape == (axis.tiles_q, axis.tiles_k)
        together = tuple(
            np.kron(t, drawn.tiles > least) > 0 for t, least in zip(together, (0, 1), strict=True)
        )
    # the flat map is the product of the axes
    np.testing.assert_array_equal(head.tiles, together[0].astype(np.int8) + together[1])
    assert explained.to_html(tmp_path / "p.html").read_text(encoding="utf-8").count("<svg") == 4
    assert "axis t" in explained.stage("planner")


def test_a_grid_with_residues_names_both_axes():
    explained = check(attngen.load("neighborhood_2d", grid=(18, 21), dilation_y=2), 18 * 21, 18 * 21)
    assert [a.axis for a in explained.heads[0].axes] == ["y_residue", "y_step", "x"]


def test_runs_of_a_grid_by_head(program):
    width = torch.tensor([1, 1, 8], dtype=torch.int32)
    explained = check(program(PER_HEAD, grid=(24, 20)), 480, 480, heads=3, width=width)
    assert [m.label for m in explained.heads] == ["heads 0-1", "head 2"]
    narrow, wide = (next(a.tiles for a in m.axes if a.axis == "y") for m in explained.heads)
    assert (wide > 0).sum() > (narrow > 0).sum()


def test_a_grid_with_lists(program, tmp_path):
    sizes = (20, 24)
    spec = program(DISC, grid=sizes)
    n = int(np.prod(sizes))
    explained = check(spec, n, n)
    plan, (head,) = explained.planned, explained.heads
    assert plan.form == "lists"
    assert plan.nbytes == plan.schedule.nbytes > 0
    assert plan.forced_by is not None
    assert "radius" in plan.forced_by
    assert any("radius" in p for p in plan.parts)
    assert plan.axes[0].parts == ("k.y <= q.y",)
    needed = tiles_needed(spec.program, plan.schedule, values_of(spec))[0, 0]
    assert ((needed > 0) <= (head.tiles > 0)).all()
    q_tiles, k_tiles = plan.schedule.tile_grid
    whole = head.tiles.reshape(*q_tiles, *k_tiles)
    for i, axis in enumerate(head.axes):
        others = (1 - i, 3 - i)
        low, high = whole.min(axis=others), whole.max(axis=others)
        np.testing.assert_array_equal(axis.tiles, np.where(low == high, low, 1))
    assert len(np.unique(tile_of_tokens(spec.program, plan.schedule, values_of(spec), "q"))) == np.prod(
        q_tiles
    )
    assert explained.to_html(tmp_path / "p.html").read_text(encoding="utf-8").count("<svg") == 3


LINES = ("causal", "sliding_window_sink", "longlora", "chunked", "prefix_lm", "sinklora", "global_tokens")


@pytest.mark.parametrize("name", LINES)
def test_runs_of_rows_count_what_looking_at_every_pair_does(name):
    spec = attngen.load(name)
    names = {p.name for p in spec.program.params}
    spec = attngen.load(name, **{k: v for k, v in {"window": 37, "group": 50}.items() if k in names})
    params = arguments.bind(spec.program, spec.values, {})[1]
    program = with_consts(spec.program, dict(consts_of(spec.program, params)))
    ranges = pipeline.plan_of(analyse(program)).ranges
    rows = ranges.rows if ranges is not None else ()
    for n_q, n_k in ((301, 301), (100, 301)):
        call = Count(params, n_q, n_k, 1, 4)
        slow = count_kept(program, call, (1, 4))
        assert slow.n == int(kept_pairs(program, params, n_q, n_k, 1, 4).sum())
        fast = count_kept(program, call, (1, 4), rows=rows, most=0)
        if rows:
            assert fast.n == slow.n
        else:
            assert fast.n is None
            assert "more than the 0" in fast.how


def test_pairs_that_are_too_many_are_not_counted():
    plan = attngen.load("causal").explain(256, 256).planned
    kept = count_kept(attngen.load("dilated").program, Count({}, 2**20, 2**20, 1, 1), (1, 1))
    assert kept.n is None
    text = replace(plan, pairs=replace(plan.pairs, kept=kept)).text()
    assert "not counted" in text
    assert plan.pairs.kept.n == 256 * 257 // 2


def test_labels():
    assert label_of([(0, 0)], (1, 1)) == "every head"
    assert label_of([(0, 0), (0, 1), (0, 3)], (1, 5)) == "heads 0-1, 3"
    assert label_of([(0, 2), (1, 2)], (3, 4)) == "batch 0-1, head 2"
    assert label_of([(0, 0), (1, 1)], (2, 2)) == "batch 0, head 0; batch 1, head 1"


def test_the_command_explains_a_grid(tmp_path, capsys):
    grid = ["explain", "neighborhood_3d", "--set", "grid=30,48,80", "--heads", "4", "--batch", "1"]
    assert main([*grid, "--stage", "planner"]) == 0
    text = capsys.readouterr().out
    # 7 nearest tokens an axis, moved inwards at the borders
    assert f"{30 * 48 * 80 * 7**3:,} kept of" in text
    assert "axis t" in text
    page = tmp_path / "p.html"
    assert main([*grid, "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("<svg") == 4


def test_the_command_explains_heads(capsys):
    assert main(["explain", "longlora", "--n", "4096", "--heads", "4", "--stage", "planner"]) == 0
    assert "heads 2-3" in capsys.readouterr().out


def test_a_grid_must_be_given(capsys):
    assert main(["explain", "neighborhood_3d"]) == 2
    assert "--set grid=" in capsys.readouterr().err
    with pytest.raises(attngen.errors.MissingTensorError, match="extent"):
        attngen.load("neighborhood_3d").explain(64)
