"""`attngen artefact`: what it lists and shows, and that `verify` tells the truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from attngen.cli.main import main
from tests.artefact.rewrite import rewrite


def test_list(small: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["artefact", "list", str(small)]) == 0
    out = capsys.readouterr().out
    assert "causal: Each query sees the keys up to and including its own position." in out
    assert out.count("head dim 16") == 2
    assert main(["artefact", "list", str(small / "causal"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    (kernel,) = found["kernels"]
    assert (found["name"], kernel["target"], kernel["dtype"], kernel["head_dim"]) == (
        "causal", "cpu", "float32", 16,
    )  # fmt: skip
    files = (small / "causal" / kernel["name"]).iterdir()
    assert kernel["bytes"] == sum(p.stat().st_size for p in files)


def test_show(small: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["artefact", "show", str(small / "causal")]) == 0
    out = capsys.readouterr().out
    for part in ("mask = k <= q + (n_k - n_q)", "D3", "runs of key tiles", "one_pass-0", "built by"):
        assert part in out
    assert main(["artefact", "show", str(small / "causal"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == json.loads((small / "causal" / "manifest.json").read_text())


def test_verify(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = shutil.copytree(small, tmp_path / "copy")
    assert main(["artefact", "verify", str(copy)]) == 0
    assert "2 artefacts checked, 0 must not be loaded" in capsys.readouterr().out
    kernel = next((copy / "causal").rglob("kernel.so"))
    kernel.write_bytes(b"\0" * kernel.stat().st_size)
    assert main(["artefact", "verify", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "kernel.so has changed since it was written" in out
    assert "2 artefacts checked, 1 must not be loaded" in out
    assert main(["artefact", "verify", str(copy), "--json"]) == 1
    found = {Path(f["path"]).name: f for f in json.loads(capsys.readouterr().out)}
    assert found["sliding_window_sink"]["is_whole"]
    assert not found["causal"]["is_whole"]
    assert "has changed" in found["causal"]["problem"]


def test_verify_says_that_others_could_have_written_it(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = shutil.copytree(small / "causal", tmp_path / "causal")
    (copy / "cpu").chmod(0o777)
    assert main(["artefact", "verify", str(copy)]) == 1
    assert "others can write to it" in capsys.readouterr().out


def test_what_is_no_artefact(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for action in ("list", "show", "verify"):
        assert main(["artefact", action, str(tmp_path)]) == 2
        assert "is no artefact" in capsys.readouterr().err
        assert main(["artefact", action, "no_such_name"]) == 2
        assert "neither a path nor the name" in capsys.readouterr().err


def test_nothing_in_a_manifest_moves_the_cursor(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = shutil.copytree(small / "causal", tmp_path / "causal")
    rewrite(copy, title="harmless\x1b[2J\u202e", derivation="a\x1b]0;x\x07\nb", schedule="\x9b31m")
    for action in ("list", "show"):
        assert main(["artefact", action, str(copy)]) == 0
        out = capsys.readouterr().out
        assert all(c.isprintable() for line in out.split("\n") for c in line)
        assert "harmless\\x1b[2J\\u202e" in out
