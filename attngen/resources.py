"""Finding `ir/` and `templates/`: the same way from a wheel, an editable install and a bare checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from attngen.errors import InternalError


@cache
def data_dir(name: str) -> Path:
    """The folder `name` ("ir" or "templates").

    A wheel puts it inside the package; in a checkout, installed or not, it lies beside the package. Only
    these two places are looked at, so that one checkout never reads the programs of another.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        # In a wheel the second place is site-packages, where a stranger may have a folder of that name.
        if (folder / "__init__.py").is_file():
            return folder
    raise InternalError(
        f"the folder {name!r} of attngen is missing: neither {package / name} nor {package.parent / name}",
        hint="reinstall attngen",
    )
