"""Installed artefacts: found by name, and taken by calls of the same programs before a kernel is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attngen.aot.write_wheel import write_wheel
from tests.artefact.rewrite import rewrite
from tests.artefact.test_package import pip_install

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import json, logging, sys
import torch
import attngen
heard = []
handler = logging.Handler()
handler.emit = lambda record: heard.append([record.levelname, record.getMessage()])
logging.getLogger("attngen.artefact").addHandler(handler)
logging.getLogger("attngen.artefact").setLevel(logging.INFO)
generator = torch.Generator().manual_seed(0)
query, key, value = (torch.randn(1, 2, n, WIDTH, generator=generator) for n in (50, 90, 90))
spec = attngen.load("sliding_window_sink", ("O", "LSE"), window=20)
outs = spec(query, key, value)
error = max(float((a - b).abs().max()) for a, b in zip(outs, spec.reference(query, key, value)))
outs = spec(query, key, value)
imported = [n for n in sys.modules if n.startswith("attngen_artefacts_")]
print(json.dumps({"error": error, "heard": heard, "imported": imported}))
"""
LOAD = """
import torch
import attngen
artefact = attngen.load_artefact("causal")
query = torch.randn(1, 2, 50, 16)
error = artefact(query, query, query) - artefact.reference(query, query, query)
assert error.abs().max() < 1e-5
print(artefact.path)
"""


@pytest.fixture(scope="module")
def site(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip_install(write_wheel([small], "mine", "1.0", folder / "dist"), "--target", folder / "site")
    return folder / "site"


@pytest.fixture
def own_site(site: Path, tmp_path: Path) -> Path:
    return shutil.copytree(site, tmp_path / "site")


def python(code: str, tmp_path: Path, *path: Path, cwd: Path | None = None, **env: str) -> str:
    """Standard output of code in a process of its own, with a cache of its own, that finds no compiler."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("ATTNGEN_", "PYTHON"))}
    given |= {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path))),
        "ATTNGEN_CACHE_DIR": str(tmp_path / "cache"),
        "ATTNGEN_CXX": "/nonexistent/c++",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd or tmp_path,
        env=given | env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(tmp_path: Path, *path: Path, width: int = 16, cwd: Path | None = None, **env: str) -> dict[str, Any]:
    return json.loads(python(RUN.replace("WIDTH", str(width)), tmp_path, *path, cwd=cwd, **env))


def kinds(tmp_path: Path) -> set[str]:
    """The kinds of entries in the cache."""
    return {p.name for p in (tmp_path / "cache" / "v1").iterdir() if p.name[0] != "." and any(p.iterdir())}


def with_compiler() -> dict[str, str]:
    return {"ATTNGEN_CXX": "c++"}


def test_a_call_takes_the_installed_kernel(site: Path, tmp_path: Path):
    """Without a compiler and with an empty cache, in which no kernel is put."""
    found = run(tmp_path, site)
    assert found["error"] < 1e-5
    assert [level for level, _ in found["heard"]] == ["INFO"]
    assert str(site / "attngen_artefacts_mine" / "sliding_window_sink") in found["heard"][0][1]
    assert not kinds(tmp_path) & {"cpu", "recipe"}
    assert not found["imported"]


@pytest.mark.parametrize("case", ["switched off", "other width", "nothing installed"])
def test_without_one_a_kernel_is_built(site: Path, tmp_path: Path, case: str):
    env = with_compiler() | ({"ATTNGEN_ARTEFACTS": "0"} if case == "switched off" else {})
    path = () if case == "nothing installed" else (site,)
    found = run(tmp_path, *path, width=24 if case == "other width" else 16, **env)
    assert found["error"] < 1e-5
    assert not found["heard"]
    assert {"cpu", "recipe"} <= kinds(tmp_path)


def test_a_damaged_kernel_is_not_loaded(own_site: Path, tmp_path: Path):
    library = next((own_site / "attngen_artefacts_mine" / "sliding_window_sink").rglob("kernel.so"))
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    found = run(tmp_path, own_site, **with_compiler())
    assert found["error"] < 1e-5
    assert [level for level, _ in found["heard"]] == ["INFO", "WARNING"]
    assert "kernel.so has changed since it was written" in found["heard"][-1][1]
    assert "cpu" in kinds(tmp_path)


def test_what_others_can_write_is_not_loaded(own_site: Path, tmp_path: Path):
    (own_site / "attngen_artefacts_mine").chmod(0o777)
    found = run(tmp_path, own_site, **with_compiler())
    assert found["error"] < 1e-5
    assert "others can write to it" in found["heard"][-1][1]
    assert "cpu" in kinds(tmp_path)


@pytest.mark.parametrize("told_by", ["index", "manifest"])
def test_another_attngen_built_it(own_site: Path, tmp_path: Path, told_by: str):
    package = own_site / "attngen_artefacts_mine"
    if told_by == "index":
        index = json.loads((package / "index.json").read_bytes())
        index["artefacts"]["sliding_window_sink"]["sources"] = "0" * 64
        (package / "index.json").write_text(json.dumps(index))
    else:
        artefact = package / "sliding_window_sink"
        versions = json.loads((artefact / "manifest.json").read_bytes())["versions"]
        rewrite(artefact, versions={**versions, "sources": "0" * 64})
    found = run(tmp_path, own_site, **with_compiler())
    assert found["error"] < 1e-5
    ((level, message),) = found["heard"]
    assert level == "INFO"
    assert "another version of attngen built it" in message
    assert "cpu" in kinds(tmp_path)


def test_an_index_that_lies_leads_to_nothing(own_site: Path, tmp_path: Path):
    """It names a program that the manifest of the artefact does not: the manifest is believed."""
    package = own_site / "attngen_artefacts_mine"
    index = json.loads((package / "index.json").read_bytes())["artefacts"]
    index["causal"]["programs"] = index.pop("sliding_window_sink")["programs"]
    (package / "index.json").write_text(json.dumps({"format": 1, "artefacts": index}))
    found = run(tmp_path, own_site, **with_compiler())
    assert found["error"] < 1e-5
    assert not found["heard"]
    assert "cpu" in kinds(tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"format": 1, "artefacts": {"../x": 0}}', "[" * 100_000])
def test_an_index_that_cannot_be_read_is_done_without(own_site: Path, tmp_path: Path, text: str):
    (own_site / "attngen_artefacts_mine" / "index.json").write_text(text)
    found = run(tmp_path, own_site)
    assert found["error"] < 1e-5
    assert [level for level, _ in found["heard"]] == ["WARNING", "INFO"]


def test_directories_may_be_searched(small: Path, site: Path, tmp_path: Path):
    found = run(tmp_path, ATTNGEN_ARTEFACTS=str(small))
    assert str(small) in found["heard"][0][1]
    found = run(tmp_path, site, ATTNGEN_ARTEFACTS=f"{tmp_path}/none:installed")
    assert str(site) in found["heard"][-1][1]
    assert found["heard"][0][0] == "WARNING"


def test_a_package_that_no_entry_point_names_is_no_package_of_artefacts(own_site: Path, tmp_path: Path):
    (own_site / "attngen_artefacts_mine-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\n")
    assert not run(tmp_path, own_site, **with_compiler())["heard"]


def test_the_current_directory_is_not_searched(site: Path, tmp_path: Path):
    assert not run(tmp_path, cwd=site, **with_compiler())["heard"]


def test_an_artefact_is_loaded_by_its_name(site: Path, small: Path, tmp_path: Path):
    installed = site / "attngen_artefacts_mine" / "causal"
    assert Path(python(LOAD, tmp_path, site).strip()) == installed
    # a directory of that name is meant where there is one
    assert Path(python(LOAD, tmp_path, site, cwd=small).strip()) == small / "causal"
    refused = "import attngen\ntry: attngen.load_artefact('NAME')\nexcept attngen.AttngenError as e: print(e)"
    out = python(refused.replace("NAME", "causl"), tmp_path, site)
    assert "neither a path nor the name of an installed artefact" in out
    assert "installed are causal, sliding_window_sink" in out
    out = python(refused.replace("NAME", "causal"), tmp_path, site, ATTNGEN_ARTEFACTS=f"installed:{small}")
    assert "2 installed artefacts are called causal" in out


def test_a_kernel_for_gpus_takes_the_calls_that_lie_as_it_counts_on():
    """The most demanding one first; what none can take is run by one that is built, once."""
    from types import SimpleNamespace

    from attngen.artefact.find_kernel import InstalledKernel

    launched: list[str] = []

    def kernel(name: str, aligned: int = 1) -> Any:
        return SimpleNamespace(
            block_q=64, block_k=32, needs_lists=False, needs_order=True, packed=False,
            launch=lambda call: launched.append(f"{name} {call}"),
            refusal=lambda call: None if call >= aligned else "not aligned",
        )  # fmt: skip

    def build() -> Any:
        launched.append("built")
        return kernel("own")

    loaded: Any = [("all", kernel("all", 16)), ("features", kernel("features", 4))]
    installed: Any = InstalledKernel(loaded, build)
    assert (installed.block_q, installed.block_k, installed.needs_order) == (64, 32, True)
    for call in (16, 4, 1, 1):
        installed.launch(call)
    assert launched == ["all 16", "features 4", "built", "own 1", "own 1"]
