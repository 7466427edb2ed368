"""The distribution works away from the checkout: sdist, wheel and editable install, each in its own venv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (
    "attngen",
    "ir",
    "templates",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "constraints-cpu.txt",
)

RUN_A_KERNEL = """
import sys
import torch
import attngen

def causal(b, h, q, k):
    return k <= q

generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(1, 2, 65, 32, generator=generator) for _ in range(3))
out = attngen.attention(q, k, v, mask=causal)
expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
assert (out - expected).abs().max() < 1e-5
print(attngen.__file__)
"""


def run(*command: str | Path, cwd: Path, cache: Path | None = None) -> str:
    """Standard output of a command that must succeed, run without anything of this test's surroundings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ATTNGEN_", "COV_"))}
    if cache is not None:
        env["ATTNGEN_CACHE_DIR"] = str(cache)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a release is made of, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source") / "attngen"
    copy.mkdir()
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    return out


def clean_environment(folder: Path) -> Path:
    """The Python of a venv in which this environment's packages can be imported but not its attngen.

    A `.pth` file lends the site-packages directory; the `.pth` files in there, with which an editable
    install makes itself known, are not read.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    run(
        *pip,
        "install",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--ignore-installed",
        *what,
        cwd=cwd,
    )


def check(python: Path, home: Path, tmp_path: Path) -> None:
    """From a directory that is no checkout: the programs are found, a kernel is built and runs."""
    cache = tmp_path / "cache"
    command = python.parent / "attngen"
    names = run(command, "list", "--names", cwd=tmp_path, cache=cache).split()
    assert set(names) == {p.stem for p in (ROOT / "ir").glob("*.attn")}
    printed = run(python, "-c", RUN_A_KERNEL, cwd=tmp_path, cache=cache)
    assert Path(printed.strip()).is_relative_to(home)
    assert "cpu" in run(command, "cache", "info", cwd=tmp_path, cache=cache)
    assert run(python, "-m", "attngen", "--version", cwd=tmp_path).startswith("attngen ")


def test_wheel(distributions: Path, tmp_path: Path):
    (wheel,) = distributions.glob("*.whl")
    python = clean_environment(tmp_path / "venv")
    install(python, wheel, cwd=tmp_path)
    check(python, tmp_path / "venv", tmp_path)


def test_editable(source: Path, tmp_path: Path):
    python = clean_environment(tmp_path / "venv")
    install(python, "--editable", source, cwd=tmp_path)
    check(python, source, tmp_path)


def data_files(source: Path) -> set[str]:
    return {
        p.relative_to(source).as_posix()
        for folder, pattern in (("ir", "*.attn"), ("templates", "*.jinja"))
        for p in (source / folder).rglob(pattern)
    }


def test_the_wheel_holds_the_data_and_no_tests(source: Path, distributions: Path):
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"attngen/{name}" for name in data_files(source)} <= names
    sources = {p.relative_to(source).as_posix() for p in (source / "attngen").rglob("*.py")}
    assert sources <= names
    assert {"attngen/py.typed", "attngen/ir/README.md", "attngen/tune/shipped.json"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"attngen"}


def test_the_sdist_holds_what_a_build_needs(source: Path, distributions: Path):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert data_files(source) <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints-cpu.txt", "ir/__init__.py"} <= names
