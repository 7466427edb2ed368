"""A call has its result whatever the cache is like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attngen
from attngen.backends import triton as triton_module
from attngen.errors import CacheError
from attngen.store.cache import Store
from tests.oracle import Shape, make_inputs

ROOT = Path(__file__).resolve().parents[2]
Q, K, V = make_inputs(Shape(n_q=20, n_k=20))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def called(window: int) -> None:
    """A program that no other test has built in this process."""
    got = attngen.attention(Q, K, V, mask=f"(k <= q) & (q - k < {window}) | (k == {window})")
    q, k = torch.arange(20)[:, None], torch.arange(20)
    keep = (k <= q) & (q - k < window) | (k == window)
    want = torch.nn.functional.scaled_dot_product_attention(Q, K, V, attn_mask=keep)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_a_cache_that_cannot_be_written(place: Path, caplog: pytest.LogCaptureFixture):
    place.write_text("a file in the place of the cache")
    called(6)
    called(7)
    warnings = [
        r.getMessage() for r in caplog.records if r.name == "attngen.store" and r.levelname == "WARNING"
    ]
    assert len([w for w in warnings if "ATTNGEN_CACHE_DIR" in w]) == 1
    assert place.read_text() == "a file in the place of the cache"


def test_a_cache_whose_files_are_all_damaged(place: Path):
    code = "from tests.store.test_calls import called; called(8)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=True)
        files = [path for path in place.rglob("*") if path.is_file()]
        assert {"document.json", "kernel.so"} <= {path.name for path in files}
        assert Store(place).verify() == []
        for path in files:
            path.write_bytes(path.read_bytes()[:-2])


def test_a_cache_that_others_can_write_is_an_error_that_says_what_to_do(place: Path):
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(CacheError, match="others can write to it") as caught:
        called(9)
    assert "chmod go-w" in (caught.value.hint or "")


def test_bytecode_beside_a_kernel_is_neither_read_nor_written(tmp_path: Path):
    import py_compile

    path = tmp_path / "entry" / "kernel.py"
    path.parent.mkdir()
    path.write_text("def kernel():\n    return 7\n")
    there = path.stat()
    py_compile.compile(str(path))
    path.write_text("def kernel():\n    return 1\n")  # of the same length and time: the bytecode looks fresh
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert triton_module._import(path, "kernel", True)() == 1
    for old in path.parent.rglob("*.pyc"):
        old.unlink()
    triton_module._import(path, "kernel", False)
    assert list(path.parent.rglob("*.pyc")) == []
