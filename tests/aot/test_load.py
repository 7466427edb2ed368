"""A loaded artefact gives, bit for bit, what the specification gives that it was built of."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch

import attngen
from attngen.errors import ArtefactError, DTypeError, NoVariantError, ShapeError, UnsupportedError
from tests.cascades import named
from tests.oracle import Shape, make_inputs
from tests.test_cascades import CAUSAL, spec_of

SEED = 20261126


def qkv(n_q=65, n_k=80, *, b=2, h=4, hkv=2, d=16, e=16, dtype=torch.float32, seed=SEED):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(b, h, n_q, d, generator=g).to(dtype)
    k = torch.randn(b, hkv, n_k, d, generator=g).to(dtype)
    return q, k, torch.randn(b, hkv, n_k, e, generator=g).to(dtype)


def same(got, expected):
    got = got if isinstance(got, tuple) else (got,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.nan_to_num(nan=7.0), b.nan_to_num(nan=7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("n_q", "n_k"), [(0, 5), (1, 1), (1, 129), (127, 127), (128, 300), (129, 64), (3, 0)]
)
def test_lengths_and_dtypes(built, dtype, n_q, n_k):
    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    path = built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16"))
    loaded = attngen.load_artefact(path)
    inputs = qkv(n_q, n_k, dtype=dtype)
    same(loaded(*inputs, window=50), spec(*inputs, window=50))
    same(loaded(*inputs, window=50, sink=3, scale=0.3), spec(*inputs, window=50, sink=3, scale=0.3))


def test_strided_inputs_and_keys_that_nobody_may_see(built):
    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    loaded = attngen.load_artefact(built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16")))
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in qkv(40, 90))
    k, v = k.clone(), v.clone()
    k[:, :, 10:40] = v[:, :, 10:40] = float("nan")  # before every window, behind the sink
    got = loaded(q, k, v, sink=10, window=11)
    same(got, spec(q, k, v, sink=10, window=11))
    assert not got[0].isnan().any()


def test_it_is_a_specification(built):
    loaded = attngen.load_artefact(built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16")))
    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    assert loaded.text() == spec.text()
    assert loaded.outputs == ("O", "LSE")
    assert loaded.derivation().passes == spec.derivation().passes
    assert (
        loaded.schedule(512, 512, window=64, sink=4).density
        == spec.schedule(512, 512, window=64, sink=4).density
    )
    inputs = qkv(20, 30)
    parts = [loaded(inputs[0], *(t[:, :, part] for t in inputs[1:])) for part in (slice(10), slice(10, 30))]
    torch.testing.assert_close(
        attngen.Attention(outputs=("O", "LSE")).merge(parts)[0].shape, parts[0][0].shape
    )
    assert "artefact" in repr(loaded).lower()


@pytest.mark.parametrize("program", ["column_sums", "alibi", "top_of_row", "entropy"])
def test_programs_of_several_sweeps_and_captured_tensors(built, program):
    from attngen.paper_samples import SAMPLES

    sample = next(s for s in SAMPLES if s.program == program)
    spec = sample.spec()
    loaded = attngen.load_artefact(built(program, head_dim=8, value_dim=6, extents=dict(sample.ranks)))
    given = {n: v for n, v in spec.values.items() if n not in loaded.values}
    mask = None if sample.mask is None else sample.mask
    expected = attngen.load(program) if mask is not None else spec
    same(loaded(*sample.inputs(), **given), expected(*sample.inputs(), **given))


def test_lists_are_planned_for_the_call(built):
    inputs = qkv(80, 80)
    doc = torch.arange(80).div(17, rounding_mode="floor").expand(2, -1).contiguous()
    loaded = attngen.load_artefact(built("documents", ("O", "LSE")))
    same(loaded(*inputs, doc=doc), attngen.load("documents", ("O", "LSE"))(*inputs, doc=doc))
    assert any(k.layout.lists for k in loaded.manifest.kernels) or not loaded.manifest.schedule.count(
        "lists of"
    )


def test_captured_tensors_travel_with_the_artefact(tmp_path):
    doc = torch.arange(64).div(10, rounding_mode="floor").expand(2, -1).contiguous()
    spec = attngen.load("documents", doc=doc)
    inputs = qkv(64, 64)
    loaded = attngen.load_artefact(spec.compile("cpu", "fp32", 16, path=tmp_path))
    same(loaded(*inputs), spec(*inputs))
    other = torch.zeros_like(doc)
    same(loaded(*inputs, doc=other), spec(*inputs, doc=other))


@pytest.mark.parametrize("grid", [(8, 9), (64, 64), (5, 40)])
@pytest.mark.parametrize("bound", [False, True])
def test_boxes_of_another_grid_than_that_of_the_call(built, grid, bound):
    values = {"grid": (8, 9)} if bound else {}
    loaded = attngen.load_artefact(built("neighborhood_2d", ("O", "LSE"), values))
    spec = attngen.load("neighborhood_2d", ("O", "LSE"), grid=grid)
    inputs = qkv(grid[0] * grid[1], grid[0] * grid[1], b=1, h=2)
    for a, b in zip(loaded(*inputs, grid=grid), spec(*inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)  # other boxes add up in another order


@pytest.mark.parametrize(
    ("name", "form"),
    [("entropy", "local_then_merge"), ("fixed_query", "scan"), ("linear", "reassociated")],
)
def test_further_forms(name, form, tmp_path, monkeypatch):
    """Kernels of a form run where it is chosen, and one pass does it all where they are not there."""
    from attngen.artefact.kernels import ArtefactKernels

    cascade = named(name)
    shape = Shape(b=1, h=2, hkv=2, n_q=150, n_k=600, d=16, e=8)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(SEED))
    spec, inputs = spec_of(cascade, CAUSAL), make_inputs(shape)
    given = {
        "dtype": "fp32",
        "head_dim": 16,
        "value_dim": 8,
        "captured": {n: str(t.dtype) for n, t in tensors.items()},
    }
    path = spec.compile("cpu", path=tmp_path / "both", forms=("one_pass", form), **given)
    launched = []
    launch = ArtefactKernels.launch

    def noted(self, call, shapes, outs):
        launched.append(call.runner.analysed.text)
        launch(self, call, shapes, outs)

    monkeypatch.setattr(ArtefactKernels, "launch", noted)
    one_pass = attngen.load_artefact(spec.compile("cpu", path=tmp_path / "one", **given))
    both = attngen.load_artefact(path)
    assert both.manifest.forms == ("one_pass", form)
    same(one_pass(*inputs, **tensors), spec_of(cascade, CAUSAL, algorithm="one_pass")(*inputs, **tensors))
    usual = set(launched)
    launched.clear()
    both._runner.algorithm = one_pass._runner.algorithm = form
    forced = spec_of(cascade, CAUSAL, algorithm=form)
    same(both(*inputs, **tensors), forced(*inputs, **tensors))
    assert set(launched) - usual
    launched.clear()
    one_pass(*inputs, **tensors)
    assert set(launched) == usual


@pytest.mark.parametrize("name", ["above_the_mean", "linear", "retention"])
def test_parts_of_the_keys_of_sweeps_that_were_taken_apart(name, tmp_path, monkeypatch):
    """A call that takes products in the other order may take any of its sweeps over parts of the keys as well."""
    from attngen.run_fold import FoldRunner
    from attngen.run_program import ProgramRunner

    cascade = named(name)
    shape = Shape(b=1, h=2, hkv=2, n_q=64, n_k=130, d=16, e=8)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(SEED))
    spec, inputs = spec_of(cascade, CAUSAL), make_inputs(shape)
    path = spec.compile(
        "cpu",
        "fp32",
        16,
        8,
        path=tmp_path,
        forms=("one_pass", "reassociated", "local_then_merge"),
        captured={n: str(t.dtype) for n, t in tensors.items()},
    )
    loaded = attngen.load_artefact(path)
    # As the cost model may say for some machine.
    monkeypatch.setattr(ProgramRunner, "_reassociating_pays", lambda _self, _inputs: True)
    monkeypatch.setattr(FoldRunner, "_chosen", lambda _self, _inputs, _algorithm, known: 1 + known.mergeable)
    same(loaded(*inputs, **tensors), spec(*inputs, **tensors))
    assert any(
        runner._splits
        for sweeps in loaded._runner._sweeps.values()
        for runner in sweeps.steps
        if isinstance(runner, FoldRunner)
    )


def test_an_algorithm_that_is_forced_is_not_lost_in_silence(tmp_path):
    spec = attngen.Attention(algorithm="several_passes")
    with pytest.raises(UnsupportedError, match="several_passes"):
        spec.compile("cpu", path=tmp_path)


@pytest.mark.parametrize(
    ("inputs", "options", "told"),
    [
        (qkv(d=32, e=16), {}, ("has head_dim 16, not 32", "one_pass-0")),
        (qkv(e=24), {}, ("value_dim 16, not 24",)),
        (qkv(), {"scale": -0.5}, ("positive scales",)),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(built, inputs, options, told):
    loaded = attngen.load_artefact(built("causal"))
    with pytest.raises(NoVariantError) as error:
        loaded(*inputs, **options)
    assert all(text in str(error.value) for text in told)
    assert "hint" in str(error.value)


def test_captured_dtypes_are_told_where_they_differ(built):
    loaded = attngen.load_artefact(built("documents", ("O", "LSE")))
    doc = torch.zeros(2, 80, dtype=torch.int16)
    with pytest.raises(NoVariantError, match="doc: int64, not doc: int16"):
        loaded(*qkv(80, 80), doc=doc)


def test_mistakes_of_a_call_are_those_of_the_specification(built):
    loaded = attngen.load_artefact(built("causal"))
    q, k, v = qkv()
    with pytest.raises(ShapeError):
        loaded(q[0], k, v)
    with pytest.raises(DTypeError):
        loaded(q.double(), k.double(), v.double())
    with pytest.raises(UnsupportedError, match="triton"):
        loaded(q, k, v, backend="triton")


def test_the_reference_is_there_too(built):
    loaded = attngen.load_artefact(built("causal"))
    inputs = qkv()
    torch.testing.assert_close(loaded(*inputs), loaded.reference(*inputs).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "swap"])
def test_changed_binaries_are_never_loaded(built, tmp_path, damage):
    path = tmp_path / "causal"
    shutil.copytree(built("causal", dtype=("fp32", "bf16")), path)
    first, second = sorted(path.rglob("kernel.so"))
    data = bytearray(first.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2] ^= 1
            first.write_bytes(data)
        case "truncate":
            first.write_bytes(data[: len(data) // 2])
        case "remove":
            first.unlink()
        case "swap":
            first.write_bytes(second.read_bytes())
    loaded = attngen.load_artefact(path)
    with pytest.raises(ArtefactError, match=r"kernel\.so"):
        loaded(*qkv(dtype=torch.bfloat16))


def test_a_changed_manifest_is_refused(built, tmp_path):
    path = tmp_path / "causal"
    shutil.copytree(built("causal"), path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["kernels"][0]["special"]["head_dim"] = 32
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="changed"):
        attngen.load_artefact(path)
    manifest["format"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="format 99"):
        attngen.load_artefact(path)


def test_what_is_no_artefact(tmp_path):
    with pytest.raises(ArtefactError, match=r"no manifest\.json"):
        attngen.load_artefact(tmp_path)
    with pytest.raises(ArtefactError, match="there is no artefact"):
        attngen.load_artefact(tmp_path / "nothing")


def test_calls_from_several_threads(built):
    loaded = attngen.load_artefact(built("causal"))
    inputs = [qkv(seed=i) for i in range(8)]
    expected = [attngen.load("causal")(*given) for given in inputs]
    results: list[torch.Tensor | None] = [None] * len(inputs)

    def call(i):
        results[i] = loaded(*inputs[i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, right in zip(results, expected, strict=True):
        assert torch.equal(got, right)


def test_gradients_are_refused(built):
    loaded = attngen.load_artefact(built("causal"))
    q, k, v = qkv()
    with pytest.raises(attngen.AttngenError):
        loaded(q.requires_grad_(), k, v)
