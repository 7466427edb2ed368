"""Building artefacts: in parallel, the same bytes everywhere, whole or not at all."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

import attngen
from attngen.aot.compile_programs import Order, compile_programs
from attngen.aot.request import Request
from attngen.errors import ArtefactError, CompileError, DTypeError, ParameterError, TargetError

CPU = Request(("cpu",), ("fp32",), ((16, 16),))


def files(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_two_builds_are_equal_byte_for_byte(tmp_path):
    """Other folders, other hash seeds, one process or two, a cold or a warm cache, another program built before."""
    code = """
import sys
from pathlib import Path
import attngen
from attngen.aot.compile_programs import Order, compile_programs
from attngen.aot.request import Request

request = Request(("cpu", "cpu-avx2"), ("bf16",), ((16, 24),))
names = sys.argv[3].split(",")
compile_programs([Order(attngen.load(n), request) for n in names], Path(sys.argv[1]), workers=int(sys.argv[2]))
"""
    package = str(Path(attngen.__file__).resolve().parents[1])
    for folder, workers, seed, names in (
        (
            "a",
            "1",
            "1",
            "token_maps,column_sums,neighborhood_2d",
        ),  # two of one text, but for what they return
        ("deep/er/b", "2", "2", "column_sums,neighborhood_2d"),
    ):
        cache = tmp_path / f"cache{seed}"
        cache.mkdir(mode=0o700)
        env = {**os.environ, "PYTHONHASHSEED": seed, "ATTNGEN_CACHE_DIR": str(cache), "PYTHONPATH": package}
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / folder), workers, names], check=True, env=env
        )
    for name in ("column_sums", "neighborhood_2d"):
        one, other = tmp_path / "a" / name, tmp_path / "deep" / "er" / "b" / name
        assert files(one) == files(other)
        assert len(files(one)) >= 6
        _, differ, failed = filecmp.cmpfiles(one, other, files(one), shallow=False)
        assert not differ
        assert not failed
        assert not [f for f in files(one) if str(tmp_path).encode() in (one / f).read_bytes()]


def test_a_program_whose_kernel_fails_has_no_artefact(tmp_path, monkeypatch):
    good = compile_programs([Order(attngen.load("causal"), CPU)], tmp_path)
    assert good[0].kernels == 1
    before = (tmp_path / "causal" / "manifest.json").read_bytes()
    monkeypatch.setenv("ATTNGEN_CXX", "false")
    made = compile_programs([Order(attngen.load(name), CPU) for name in ("causal", "alibi")], tmp_path)
    assert all("compile error" in m.failures[0] for m in made)
    assert not (tmp_path / "alibi").exists()
    assert (tmp_path / "causal" / "manifest.json").read_bytes() == before  # what was there stays
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(CompileError, match="causal: 1 kernels could not be built"):
        attngen.load("causal").compile("cpu", "fp32", 16, path=tmp_path)


def test_an_artefact_is_replaced_and_nothing_else_is(tmp_path):
    spec = attngen.load("causal")
    spec.compile("cpu", "fp32", 16, path=tmp_path)
    path = spec.compile("cpu", "bf16", 16, path=tmp_path)
    assert {k.special.dtype for k in attngen.load_artefact(path).manifest.kernels} == {"bfloat16"}
    (tmp_path / "mine" / "causal").mkdir(parents=True)
    (tmp_path / "mine" / "causal" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtefactError, match="in the way"):
        spec.compile("cpu", "fp32", 16, path=tmp_path / "mine")
    assert files(tmp_path / "mine") == ["causal/thesis.txt"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"target": "sm_91"}, TargetError),
        ({"target": ()}, ParameterError),
        ({"dtype": "fp8"}, DTypeError),
        ({"head_dim": 0}, ParameterError),
        ({"captured": {"doc": "int128"}}, DTypeError),
        ({"forms": ("two_pass",)}, ParameterError),
        ({"alignment": "some"}, ParameterError),
        ({"packed": (24,)}, ParameterError),
    ],
)
def test_mistakes_are_told_before_anything_is_built(tmp_path, options, error):
    given = {"target": "cpu", "dtype": "fp32", "head_dim": 16, **options}
    with pytest.raises(error):
        attngen.load("causal").compile(path=tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_one_name_twice(tmp_path):
    with pytest.raises(ParameterError, match="twice"):
        compile_programs([Order(attngen.load("causal"), CPU)] * 2, tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="nothing can be written"):
        attngen.load("causal").compile("cpu", "fp32", 16, path=tmp_path / "file" / "below")


def test_progress_counts_every_kernel(tmp_path):
    seen = []
    request = Request(("cpu",), ("fp32", "bf16"), ((16, 16), (8, 8)))
    compile_programs([Order(attngen.load("causal"), request)], tmp_path, report=seen.append)
    assert [p.done for p in seen] == [1, 2, 3, 4]
    assert {p.total for p in seen} == {4}


def test_what_the_manifest_says(built):
    manifest = attngen.load_artefact(
        built("sliding_window_sink", ("O", "LSE"), dtype=("fp32", "bf16", "fp16"))
    ).manifest
    assert manifest.text == attngen.load("sliding_window_sink", ("O", "LSE")).text()
    assert manifest.title.startswith("Sliding window")
    assert "D3" in manifest.derivation
    assert "closed form" in manifest.schedule
    assert manifest.versions["attngen"] == attngen.__version__
    assert len({k.entry for k in manifest.kernels}) == len(manifest.kernels) == 3
    names = {f.name for f in manifest.files}
    assert {"documents.json"} | {f for k in manifest.kernels for f in k.files.values()} <= names
    assert manifest.values == {}
