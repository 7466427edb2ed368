"""Finding `ir/` and `templates/`: the same way from a wheel, an editable install and a bare checkout."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path


@cache
def data_dir(name: str) -> Path:
    """The folder `name` ("ir" or "templates").

    Installed (wheel or editable), the folder is the package `attngen.<name>`; in a checkout on the path
    without an install it lies beside the package.
    """
    try:
        module = import_module(f"attngen.{name}")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parent.parent / name
    return Path(next(iter(module.__path__)))
