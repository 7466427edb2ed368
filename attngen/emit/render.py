"""Rendering: a Jinja skeleton plus a frozen context gives the text of a kernel."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from attngen.resources import data_dir

if TYPE_CHECKING:
    import jinja2


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **context: Any) -> str:
    """Render `templates/<template>`. A name the context lacks is an error, never an empty string."""
    return _environment().get_template(template).render(**context)
