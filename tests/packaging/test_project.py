"""pyproject.toml, the constraints and the licence agree with the tree."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attngen.errors import InternalError
from attngen.resources import data_dir

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed():
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "attngen").rglob("__init__.py")} | {
        "attngen.ir",
        "attngen.templates",
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints-cpu.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in found), "every line is an exact pin"
    return {canonicalize_name(name): version for name, version in found}


def test_constraints_pin_every_requirement_to_a_version_it_allows():
    project = PROJECT["project"]
    requirements = [Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["dev"]]
    for requirement in requirements:
        version = pins().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert version in requirement.specifier, f"{requirement} does not allow {version}"


def test_constraints_are_sorted_and_each_name_stands_once():
    lines = (ROOT / "constraints-cpu.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split("==")[0].lower() for line in lines if line and not line.startswith("#")]
    assert names == sorted(set(names))


def test_the_two_places_that_name_the_version_agree():
    import attngen

    assert attngen.__version__ == PROJECT["project"]["version"]


def test_the_licence_is_there_in_full():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_ci_is_a_script_that_a_shell_accepts():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_readme_shows_what_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("attngen run sliding_window_sink", "pytest -n auto"):
        setup = "python3 -m venv .venv && .venv/bin/pip install -c constraints-cpu.txt -e '.[dev]'"
        assert f"{setup} && .venv/bin/{command}\n" in readme
    for part in (
        "--constraint constraints-cpu.txt --editable '.[dev]'",
        "attngen run sliding_window_sink",
        "pytest -n auto",
    ):
        assert part in script.replace("\\\n            ", "")


def test_data_is_found_beside_the_package():
    assert data_dir("ir") == ROOT / "ir"
    assert data_dir("templates") == ROOT / "templates"
    with pytest.raises(InternalError, match="missing"):
        data_dir("examples")
