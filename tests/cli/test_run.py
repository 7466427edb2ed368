"""`attngen run`, `explain`, `emit` and `bench`, as a person would type them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import attngen
from attngen.cli.main import main
from tests.oracle import Shape, make_inputs

IR = Path(__file__).resolve().parents[2] / "ir"
SMALL = ["--n", "200", "--heads", "2", "--head-dim", "32"]


def test_run_shows_every_stage_and_checks(capsys):
    assert main(["run", "sliding_window_sink", *SMALL, "--set", "window=50", "--set", "sink=4"]) == 0
    shown = capsys.readouterr().out
    assert "sliding_window_sink(sink = 4, window = 50)" in shown
    assert "3 passes over the keys as written, 1 derived" in shown
    assert re.search(r"ranges: \d+ full, \d+ partial, \d+ empty tiles", shown)
    assert "registers" in shown
    assert re.search(r"check +O: .* ok", shown)
    assert "SDPA with a dense mask" in shown
    assert "█" in shown


@pytest.mark.parametrize("program", ["documents", "block_diffusion"])
def test_run_makes_the_tensors_a_program_needs(program, capsys):
    assert main(["run", program, *SMALL]) == 0
    assert " ok " in capsys.readouterr().out


def test_run_reads_inputs_from_a_file(tmp_path, capsys):
    q, k, v = (torch.randn(1, 2, 70, 16) for _ in range(3))
    file = tmp_path / "qkv.safetensors"
    save_file({"query": q, "key": k, "value": v}, file)
    assert main(["run", "causal", "--qkv", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "[1, 2, 70, 16]" in shown
    assert str(file) in shown


def test_a_file_of_anything_else_is_one_error(tmp_path, capsys):
    file = tmp_path / "qkv.safetensors"
    file.write_bytes(b"\x00\x01nothing of the kind")
    assert main(["run", "causal", "--qkv", str(file)]) == 2
    error = capsys.readouterr().err
    assert "AG409" in error
    assert "Traceback" not in error


def test_a_file_without_keys_names_what_it_holds(tmp_path, capsys):
    file = tmp_path / "qkv.safetensors"
    save_file({"query": torch.zeros(1, 1, 1, 1), "something": torch.zeros(1)}, file)
    assert main(["run", "causal", "--qkv", str(file)]) == 2
    assert "something" in capsys.readouterr().err


MISTAKES = {
    "an unknown program": ["run", "causl"],
    "a value that is no number": ["run", "causal", "--set", "window=wide"],
    "an unknown parameter": ["run", "causal", "--set", "window=3"],
    "heads that do not divide": ["run", "causal", "--heads", "4", "--kv-heads", "3"],
    "a device that is not there": ["run", "causal", "--device", "cuda:7"],
    "no device at all": ["run", "causal", "--device", "abacus"],
    "an unknown target": ["emit", "causal", "--target", "sm_1"],
    "an unknown dtype": ["emit", "causal", "--dtype", "int4"],
    "a width of zero": ["emit", "causal", "--head-dim", "0"],
    "a file that is not there": ["explain", "nowhere.attn"],
    "an unknown case": ["bench", "cpu", "--case", "nothing"],
    "a folder that is not there": ["emit", "causal", "--target", "cpu", "-o", "no/such/folder/kernel.cpp"],
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(what, capsys):
    if what == "a device that is not there" and torch.cuda.is_available():
        pytest.skip("there may be one")
    assert main(MISTAKES[what]) == 2
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"mask = = k", b"def f(): pass", b"mask = k <= " + b"(" * 5000]
)
def test_any_bytes_in_a_program_file(data, tmp_path, capsys):
    file = tmp_path / "x.attn"
    file.write_bytes(data)
    code = main(["explain", str(file), "--n", "64"])
    assert code == (0 if data == b"" else 2)
    assert "Traceback" not in capsys.readouterr().err


def test_explain_prints_each_stage(capsys):
    assert main(["explain", "causal", "--n", "512"]) == 0
    everything = capsys.readouterr().out
    for stage in ("lang", "algebra", "planner", "emit"):
        assert main(["explain", "causal", "--n", "512", "--stage", stage]) == 0
        one = capsys.readouterr().out
        assert one.strip()
        if stage != "emit":
            assert one.splitlines()[0].strip() in everything


def test_explain_writes_one_self_contained_page(tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["explain", "sliding_window_sink", "--n", "4096", "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(http|//)", html)
    assert 'id="k0-1"' in html
    assert 'href="#k0-1"' in html
    assert "<svg" in html
    assert "D3" in html
    assert "&lt;=" in html


def test_emit_prints_a_kernel_for_a_machine_that_is_not_here(capsys):
    assert (
        main(["emit", "sliding_window_sink", "--target", "sm_90", "--dtype", "bf16", "--head-dim", "128"])
        == 0
    )
    text = capsys.readouterr().out
    compile(text, "kernel.py", "exec")
    assert "@triton.jit" in text


def test_emit_writes_a_file(tmp_path):
    out = tmp_path / "kernel.cpp"
    assert (
        main(["emit", "causal", "--target", "cpu", "--dtype", "fp32", "--head-dim", "64", "-o", str(out)])
        == 0
    )
    assert "attngen_kernel" in out.read_text(encoding="utf-8")


def test_inspect_reports_resources_as_json(capsys):
    assert main(["inspect", "causal", "--target", "sm_90", "--head-dim", "64", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["registers"] > 0
    assert figures["spill_bytes"] == 0
    assert figures["shared_bytes"] > 0


def test_bench_measures_and_writes_json(tmp_path, capsys):
    out = tmp_path / "deep" / "cpu.json"
    command = [
        "bench",
        "cpu",
        "--case",
        "window512_d64_fp32",
        "--rounds",
        "1",
        "--no-flex",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    held = json.loads(out.read_text(encoding="utf-8"))
    assert held["machine"]["torch"] == str(torch.__version__)
    assert held["results"][0]["ms"]["attngen"] > 0
    assert "x sdpa_causal" in capsys.readouterr().out


def test_bench_planning_measures_and_writes_json(tmp_path, capsys):
    out = tmp_path / "planning.json"
    command = ["bench", "planning", "--sizes", "512,1k", "--rounds", "1", "--no-flex", "--out", str(out)]
    assert main(command) == 0
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert {r["n"] for r in results} == {512, 1024}
    assert {r["form"] for r in results} == {"ranges", "lists"}
    assert all(r["ms"]["first"] > 0 and r["ms"]["again"] > 0 for r in results)
    assert all(r["growth"] for r in results if r["n"] == 1024)
    assert "a doubling" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_planning_agrees_with_flex_attention(capsys):
    assert (
        main(["bench", "planning", "--quick", "--sizes", "512", "--case", "documents", "--rounds", "1"]) == 0
    )
    shown = capsys.readouterr().out
    assert "FlexAttention's blocks agree" in shown
    assert "create_block_mask_compiled" in shown


def test_lengths_that_are_none_are_refused(capsys):
    assert main(["bench", "planning", "--sizes", "4k,many"]) == 2
    assert "4k,65536" in capsys.readouterr().err


@pytest.fixture
def no_gpu_kernel(monkeypatch):
    """Leave out what takes longest."""
    monkeypatch.setattr("attngen.cli.run._show_gpu_kernel", lambda _spec: None)


@pytest.mark.usefixtures("no_gpu_kernel")
@pytest.mark.parametrize(
    "name", ["block_max", "column_sums", "top_of_row", "head_maps", "span_mass", "map_rows"]
)
def test_run_checks_outputs_of_any_ranks(name, capsys):
    file = str(IR / "cascades" / f"{name}.attn")
    assert main(["run", file, *SMALL]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"check +\w+: largest error", shown)) == len(attngen.load(file).outputs)
    assert "NOT WITHIN" not in shown


@pytest.mark.usefixtures("no_gpu_kernel")
def test_run_checks_a_shorter_call_where_rows_depend_on_each_other(capsys):
    file = str(IR / "cascades" / "block_max.attn")
    assert main(["run", file, "--n", "700", "--heads", "2", "--head-dim", "16", "--set", "keys=8"]) == 0
    assert re.search(r"B: .* ok \(all \d+ entries of a call with \d+ tokens\)", capsys.readouterr().out)


@pytest.mark.usefixtures("no_gpu_kernel")
def test_run_finds_a_wrong_result(capsys, monkeypatch):
    run = attngen.Attention.__call__
    monkeypatch.setattr(attngen.Attention, "__call__", lambda *a, **kw: tuple(t + 1 for t in run(*a, **kw)))
    assert main(["run", str(IR / "cascades" / "column_sums.attn"), *SMALL]) == 1
    assert "NOT WITHIN THE RULE" in capsys.readouterr().out


def test_emit_names_the_sweeps_and_prints_one(capsys, tmp_path):
    file = str(IR / "cascades" / "column_sums.attn")
    assert main(["emit", file, "--head-dim", "64"]) == 0
    both = capsys.readouterr().out
    assert re.findall(r"^# sweep (\d) over the (\w+)", both, re.MULTILINE) == [
        ("0", "keys"),
        ("1", "queries"),
    ]
    assert main(["emit", file, "--head-dim", "64", "--sweep", "1"]) == 0
    one = capsys.readouterr().out
    compile(one, "kernel.py", "exec")
    assert one in both
    assert len(one) < len(both)
    out = tmp_path / "kernel.cpp"
    assert main(["emit", file, "--target", "cpu", "--head-dim", "64", "--sweep", "0", "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("// sweep 0 over the keys, rows are queries: M, Z\n")
    assert main(["emit", file, "--sweep", "2"]) == 2
    assert "there is no sweep 2" in capsys.readouterr().err


def test_inspect_reports_every_sweep(capsys):
    file = str(IR / "cascades" / "column_sums.attn")
    assert main(["inspect", file, "--head-dim", "64", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [f["sweep"][:7] for f in both] == ["sweep 0", "sweep 1"]
    assert all(f["registers"] > 0 for f in both)
    assert main(["inspect", file, "--head-dim", "64", "--sweep", "1"]) == 0
    assert re.search(r"^sweep +sweep 1 over the queries", capsys.readouterr().out, re.MULTILINE)


def test_bench_outputs_measures_and_writes_json(tmp_path, capsys):
    out = tmp_path / "outputs.json"
    command = ["bench", "outputs", "--sizes", "200", "--rounds", "1", "--out", str(out)]
    assert main([*command, "--case", "block_max", "--case", "divergence"]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))
    assert held["machine"]["date"]
    assert held["machine"]["torch"] == str(torch.__version__)
    results = {(r["output"], r["dtype"]): r for r in held["results"]}
    assert set(results) == {(n, t) for n in ("block_max", "divergence") for t in ("fp32", "bf16")}
    assert results["block_max", "fp32"]["sweeps"] == 2
    assert results["divergence", "fp32"]["sweeps"] == 1
    assert all(r["ratio"] == pytest.approx(r["ms"] / r["plain_ms"], rel=0.01) for r in results.values())
    assert results["divergence", "bf16"]["ratio_to_two"] > 0
    assert results["block_max", "bf16"]["ratio_to_two"] is None
    shown = capsys.readouterr().out
    assert "of two calls with O alone" in shown
    assert "at most 2.10 meant" in shown


def test_the_measured_outputs_are_right():
    """What is timed is held to float64, and its O to the one that it is compared with."""
    from attngen.bench.outputs import EXTRAS, program

    shape = Shape(b=1, h=2, hkv=2, n_q=150, n_k=150, d=16, e=16)
    q, k, v = make_inputs(shape)
    q_t, k_t, _ = make_inputs(shape, seed=1)
    given = {
        "divergence": {"q_t": q_t, "k_t": k_t},
        "span_mass": {"j": 8, "span": torch.arange(150) * 8 // 150},
    }
    plain = program("plain")(q, k, v)
    for name in EXTRAS:
        spec = program(name)
        found, right = (call(q, k, v, **given.get(name, {})) for call in (spec, spec.reference))
        assert torch.allclose(found[0], plain, atol=1e-5)
        assert torch.allclose(found[1].double(), right[1], atol=1e-4)


def test_bench_static_compiles_and_writes_a_page(tmp_path, capsys):
    out = tmp_path / "deep" / "static.json"
    command = ["bench", "static", "--case", "causal", "--head-dim", "64", "--out", str(out)]
    assert main([*command, "--target", "sm_90", "--target", "gfx942"]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))
    assert held["triton"]
    nvidia, amd = held["results"]
    assert (nvidia["program"], nvidia["target"], nvidia["head_dim"]) == ("causal", "sm_90", 64)
    assert {"partial", "full"} <= {loop["label"] for loop in nvidia["loops"]}
    assert amd["scalar_registers"] > 0
    theirs = held["reference"]
    assert theirs[0]["name"] == "FlexAttention"
    assert [loop["mask"] for loop in theirs[0]["loops"]] == [540, 12]
    assert {r["ctas"] for r in theirs} == {1, 2, None}
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert len({len(row) for row in rows}) == 1
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## sm_90", "## gfx942"]
    shown = capsys.readouterr().out
    assert re.search(r"^sm_90 +causal +64 +\d+ registers, 0 B spilled", shown, re.MULTILINE)
    assert main([*command[:-2], "--target", "cpu"]) == 2
    assert "reads GPU binaries" in capsys.readouterr().err


def test_bench_static_goes_on_where_a_kernel_is_refused(tmp_path, capsys, monkeypatch):
    from attngen import api
    from attngen.errors import CompileError

    def refuse(*_args, **_kwargs):
        raise CompileError("out of registers")

    monkeypatch.setattr(api.Attention, "inspect", refuse)
    out = tmp_path / "static.json"
    command = ["bench", "static", "--case", "causal", "--target", "sm_90", "--head-dim", "64"]
    assert main([*command, "--out", str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["results"][0]["error"] == "out of registers"
    assert "not compiled: out of registers" in out.with_suffix(".md").read_text(encoding="utf-8")
    assert "out of registers" in capsys.readouterr().out


def test_inspect_prints_loops_and_occupancy(capsys):
    assert main(["inspect", "causal", "--target", "sm_90", "--head-dim", "64"]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"^occupancy +\d+ CTAs? on an SM, \d+ warps? on a sub-partition; no more for", shown, re.M
    )
    assert len(re.findall(r"^partial ", shown, re.MULTILINE)) == 2
    assert len(re.findall(r"^full ", shown, re.MULTILINE)) == 2
    assert "scalar_registers" not in shown
    assert main(["inspect", "causal", "--target", "gfx942", "--head-dim", "64"]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"^occupancy +\d+ workgroups? on a compute unit, \d+ waves? on a SIMD", shown, re.MULTILINE
    )
    assert re.search(r"^loop +instructions +mfma +valu +exp +mask", shown, re.MULTILINE)
