"""`attngen compile`: what it builds, what it says, and what it refuses."""

from __future__ import annotations

import json

import pytest

import attngen
from attngen.cli.main import main

SMALL = ["--target", "cpu", "--dtype", "fp32", "--head-dim", "16"]


def test_programs_with_options(tmp_path, capsys):
    out = tmp_path / "kernels"
    code = main(
        ["compile", "sliding_window_sink", "causal", "--target", "cpu,cpu-avx2", "--dtype", "fp32",
         "--dtype", "bf16", "--head-dim", "16,16x8", "--outputs", "O,LSE", "-o", str(out), "--jobs", "2"]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0
    assert "16 kernels of 2 programs" in said
    manifest = attngen.load_artefact(out / "causal").manifest
    assert manifest.outputs == ("O", "LSE")
    assert {(k.special.head_dim, k.special.value_dim) for k in manifest.kernels} == {(16, 16), (16, 8)}
    assert {k.target.arch for k in manifest.kernels} == {"cpu", "cpu-avx2"}


def test_values_extents_and_captured_dtypes(tmp_path, capsys):
    assert main(["compile", "sliding_window", *SMALL, "--set", "window=7", "-o", str(tmp_path)]) == 0
    assert attngen.load_artefact(tmp_path / "sliding_window").values == {"window": 7}
    assert main(
        ["compile", "extra_keys", *SMALL, "--set", "j=3", "-o", str(tmp_path), "--json"]
    ) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out.split("\n", 2)[-1])
    assert said["kernels"] == 1
    assert said["peak_bytes"] > 0
    assert said["artefacts"][0]["name"] == "extra_keys"
    assert main(["compile", "documents", *SMALL, "--captured", "doc=int32", "-o", str(tmp_path)]) == 0
    (kernel,) = attngen.load_artefact(tmp_path / "documents").manifest.kernels
    assert kernel.special.tensors == (("doc", "int32", 2),)


def test_a_matrix_here_or_by_name(tmp_path, capsys, monkeypatch):
    text = '[build]\ntargets = ["cpu"]\ndtypes = ["fp32"]\nhead-dims = [16]\nout = "k"\n[[program]]\nname = "causal"\n'
    (tmp_path / "attngen.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["compile"]) == 0
    assert (tmp_path / "k" / "causal" / "manifest.json").is_file()
    assert main(["compile", "--matrix", "attngen.toml", "-o", "other"]) == 0
    assert (tmp_path / "other" / "causal" / "manifest.json").is_file()
    assert main(["compile", "--matrix", "attngen.toml", "--dtype", "bf16"]) == 2
    assert "--dtype does not go with a matrix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to build"),
        (["causal"], "no target"),
        (["causal", "--target", "sm_91"], "unknown target"),
        (["causal", *SMALL, "--captured", "doc"], "not NAME=DTYPE"),
        (["causal", *SMALL, "--matrix", "x.toml"], "not both"),
        (["causal", *SMALL, "--set", "windw=3"], "windw"),
        (["causal", *SMALL, "--head-dim", "a"], "--head-dim"),
        (["--matrix", "nothing.toml"], "cannot be read"),
    ],
)
def test_mistakes(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compile", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_fails_is_told_with_exit_code_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ATTNGEN_CXX", "false")
    assert main(["compile", "causal", *SMALL, "-o", str(tmp_path)]) == 1
    assert "causal: failed: cpu/fp32-d16/one_pass-0: compile error" in capsys.readouterr().out
