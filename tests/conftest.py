"""Fixtures shared by all rooms: golden files, and a private cache so that tests never touch the user's."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# Triton decides when it is imported whether its own functions are interpreted; without a GPU they are.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files; read the diff")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = config.getoption("-m")
    for item in items:
        if "slow" in item.keywords and "slow" not in marked:
            item.add_marker(pytest.mark.skip(reason="slow sweep: run with -m slow"))
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def _has_gpu() -> bool:
    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the session: a kernel is compiled once, and the user's cache stays as it is."""
    before = os.environ.get("ATTNGEN_CACHE_DIR")
    os.environ.setdefault("ATTNGEN_VERIFY", "1")  # every stage's result is checked on its way to the next
    if before is None:
        os.environ["ATTNGEN_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "attngen-cache")
    yield
    if before is None:
        os.environ.pop("ATTNGEN_CACHE_DIR", None)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """What a test draws without a seed of its own is the same whichever tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: `text` equals `tests/golden/<name>`, or replaces it under `--update-golden`."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"no golden file {name}: run pytest with --update-golden and read the diff"
        assert text == path.read_text(encoding="utf-8"), f"{name} differs; --update-golden rewrites it"

    return check
