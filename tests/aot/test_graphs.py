"""Artefacts inside graphs: compiled whole, exported with lengths that vary, saved, and run in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attngen
from tests.aot.test_load import qkv, same

ROOT = Path(__file__).resolve().parents[2]


def artefact_of(built):
    return attngen.load_artefact(built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16")))


def test_a_compiled_function_calls_it_without_a_break(built):
    loaded = artefact_of(built)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def model(q, k, v, window):
        out, lse = loaded(q * 2, k, v, window=window)
        return out + 1, lse

    q, k, v = qkv()
    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    out, lse = spec(q * 2, k, v, window=30)
    same(model(q, k, v, 30), (out + 1, lse))


class Layer(torch.nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend

    def forward(self, q, k, v):
        return self.attend(q, k, v, window=30, scale=0.2)


def exported(loaded):
    n, m = torch.export.Dim("n", min=2), torch.export.Dim("m", min=2)
    return torch.export.export(Layer(loaded), qkv(), dynamic_shapes=({2: n}, {2: m}, {2: m}))


def test_an_exported_program_takes_other_lengths(built):
    program = exported(artefact_of(built))
    spec = attngen.load("sliding_window_sink", ("O", "LSE"))
    for n_q, n_k in ((65, 80), (7, 200)):
        same(program.module()(*qkv(n_q, n_k)), spec(*qkv(n_q, n_k), window=30, scale=0.2))


@pytest.mark.parametrize("is_loaded", [True, False])
def test_an_exported_program_runs_in_a_process_that_loads_the_artefact(built, tmp_path, is_loaded):
    loaded = artefact_of(built)
    torch.export.save(exported(loaded), tmp_path / "layer.pt2")
    torch.save([*qkv(9, 33), *loaded(*qkv(9, 33), window=30, scale=0.2)], tmp_path / "case.pt")
    alone = "import attngen.artefact.torch_op as op; op._library()"
    code = f"""
import torch, attngen
{f"attngen.load_artefact({str(loaded.path)!r})" if is_loaded else alone}
layer = torch.export.load({str(tmp_path / "layer.pt2")!r}).module()
*inputs, out, lse = torch.load({str(tmp_path / "case.pt")!r}, weights_only=True)
got = layer(*inputs)
assert torch.equal(got[0], out) and torch.equal(got[1], lse)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(attngen.__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode == 0) == is_loaded, done.stderr[-2000:]
    if not is_loaded:
        assert "AG604" in done.stderr
        assert "load_artefact" in done.stderr


def test_captured_tensors_and_shapes_of_own_ranks(built):
    from attngen.paper_samples import SAMPLES

    sample = next(s for s in SAMPLES if s.program == "map_rows")
    loaded = attngen.load_artefact(built("map_rows", head_dim=8, value_dim=6, extents=dict(sample.ranks)))
    tensors = {n: v for n, v in sample.spec().values.items() if isinstance(v, torch.Tensor)}

    @torch.compile(fullgraph=True, backend="aot_eager")
    def model(q, k, v, tensors):
        return loaded(q, k, v, **tensors)

    same(model(*sample.inputs(), tensors), loaded(*sample.inputs(), **tensors))


def test_the_operator_says_the_truth_of_its_outputs(built):
    """PyTorch's own check: shapes, strides of outputs, no aliases, no changes to inputs."""
    from attngen.artefact.torch_op import register

    loaded = artefact_of(built)
    handle = register(loaded, loaded._handle)
    arguments = (*qkv(), [], [30], [], None, f"{handle}||window|")
    torch.library.opcheck(
        torch.ops.attngen.artefact, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_the_grid_of_a_call(built):
    loaded = attngen.load_artefact(built("neighborhood_2d", ("O", "LSE")))
    inputs = qkv(72, 72, b=1, h=2)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def model(q, k, v):
        return loaded(q, k, v, grid=(8, 9))

    same(model(*inputs), loaded(*inputs, grid=(8, 9)))
