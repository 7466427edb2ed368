"""Which room may import which: a stage never imports a later one, and heavy packages have one home."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "attngen"

# What a room may import of attngen, itself aside. "errors" names locations in its annotations.
ALLOWED: dict[str, set[str]] = {
    "errors": {"lang"},
    "resources": {"errors"},
    "lang": {"errors", "resources"},
    "store": {"errors", "resources"},
    "algebra": {"errors", "lang"},
    "planner": {"errors", "lang", "algebra"},
    "emit": {"errors", "lang", "algebra", "planner", "resources"},
    "backends": {"errors", "lang", "algebra", "planner", "emit", "resources", "store"},
    "static": {"errors", "emit", "backends"},
}
# Leaves that import nothing of ours.
EVERYONE = {"value"}
# The tuner works on runs of sweeps, beside the API: it knows neither that nor the command line.
TUNER = "tune"
RUNS = {
    "analysed", "arguments", "bench", "pipeline", "run_choice", "run_program", "run_sweep", "tolerance",
}  # fmt: skip
ALLOWED["cost"] = ALLOWED["emit"] | {"emit", "static", "store", "backends"} | RUNS
ALLOWED[TUNER] = (ALLOWED["backends"] | {"backends", "cost"} | RUNS) - {"lang", "algebra", "planner"}
# Its parts that every call may need: none of them searches, builds or times anything on import.
TAKEN_BY_CALLS = {
    "bucket",
    "decide",
    "shrink",
    "key",
    "journal",
    "knowledge",
    "measurement",
    "pick",
    "result",
    "table",
}
SEARCHING = {"check", "child", "lab", "pool", "program", "search", "space", "sweep", "timer"}
# What builds on the stages (the API, the catalogue, policies, measurements) may import everything but the command line.
ABOVE = {"aot", "artefact", "bench", "policies"}

PACKAGES: dict[str, set[str]] = {
    "errors": set(),
    "resources": set(),
    "lang": {"numpy"},
    "store": set(),
    "algebra": {"numpy", "sympy", "mpmath", "networkx"},
    "planner": {"numpy", "torch"},  # a schedule hands out tensors
    "emit": {"numpy", "jinja2"},
    "backends": {"numpy", "torch", "triton"},
    "static": set(),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a module, late and type-only ones too, as absolute dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_earlier_rooms(path: Path):
    room = room_of(path)
    for line, name in imports(path):
        top, _, rest = name.partition(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if top == "attngen":
            target = rest.split(".", 1)[0]
            allowed = ALLOWED.get(room)
            if allowed is not None:
                assert target in allowed | {room, *EVERYONE}, where
            elif room not in ("cli", "__main__"):
                assert target != "cli", where
        elif room in PACKAGES and top not in sys.stdlib_module_names:
            assert top in PACKAGES[room], where


def test_every_room_has_a_rule():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert rooms == {r for r in ALLOWED if (PACKAGE / r).is_dir()} | ABOVE | {"cli"}


def test_modules_of_the_package_have_no_cycles_at_import():
    """Imports that run on import (neither late nor type-only) form no cycle between modules."""
    names = {module_name(p): p for p in modules()}
    edges = {name: {t for t in eager(path) if t in names} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in names:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(TAKEN_BY_CALLS))
def test_a_call_that_only_looks_a_measurement_up_imports_no_search(name: str):
    path = PACKAGE / TUNER / f"{name}.py"
    taken = {
        t.removeprefix(f"attngen.{TUNER}.").split(".")[0]
        for t in eager(path)
        if t.startswith(f"attngen.{TUNER}.")
    }
    assert not taken & SEARCHING


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def eager(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
