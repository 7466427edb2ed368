r"""Names and text of a program in C: identifiers that nothing else has, strings, and comments that nothing closes.

    int, Q, linux, scale    ->   int_, Q, linux_, scale          fields of a struct
    say "hi" \              ->   "say \"hi\" \\"
    a */ b                  ->   a * / b                         inside a comment

Text is anybody's: what is printed has to be plain C whatever a program is called and says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attngen.artefact.document import IDENTIFIER
from attngen.emit.cpp_names import KEYWORDS
from attngen.errors import InternalError

# Headers are read by C++ too. Beyond its words, macros of the headers that everybody includes, and of compilers.
_TAKEN = frozenset(
    (
        *KEYWORDS.split(),
        *"restrict near far NULL EOF BUFSIZ stdin stdout stderr assert offsetof linux i386 I complex".split(),  # noqa: SIM905
        *"imaginary noreturn thread_local static_assert concept requires co_await co_return co_yield".split(),  # noqa: SIM905
        *"char8_t consteval constinit nullptr typeof typeof_unqual isnan isinf isfinite signbit NAN INFINITY".split(),  # noqa: SIM905
        *"HUGE_VAL RAND_MAX CHAR_BIT CHAR_MAX CHAR_MIN INT_MAX INT_MIN LONG_MAX LONG_MIN UINT_MAX M_PI M_E".split(),  # noqa: SIM905
    )
)
_LIMITS = re.compile(r"(U?INT|U?INT_(LEAST|FAST))(\d+|PTR|MAX)_(MAX|MIN|C)|SIZE_MAX|PTRDIFF_(MAX|MIN)")
_TYPES = re.compile(r"\w+_t")


class Names:
    """Hands out identifiers, each once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def field(self, name: str, *suffixes: str) -> str:
        """An identifier for a name: itself, or with `_` behind it where it, or it with a suffix, is taken."""
        identifier(name)
        free = name.strip("_").replace("__", "_") or "x"
        if free[0].isdigit():
            free = f"x{free}"
        while any(self._is_taken(f"{free}{s}") for s in ("", *suffixes)):
            free = f"{free}x" if free.endswith("_") else f"{free}_"
        self._taken.update(f"{free}{s}" for s in ("", *suffixes))
        return free

    def _is_taken(self, name: str) -> bool:
        return bool(
            name in self._taken or name in _TAKEN or _LIMITS.fullmatch(name) or _TYPES.fullmatch(name)
        )


def identifier(name: str) -> str:
    """The name itself. Raises InternalError for what is no identifier."""
    if not IDENTIFIER.fullmatch(name):
        raise InternalError(f"{name!r} is no identifier")
    return name


def comment(text: str) -> str:
    """Text as it may stand in a block comment: nothing opens or closes one, and every character is printable."""
    plain = text.expandtabs(4).encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c == "\n" or c.isprintable() else " " for c in plain)
    plain = plain.replace("??", "? ?").replace("*/", "* /").replace("/*", "/ *")
    return "\n".join(line.rstrip().removesuffix("\\").rstrip() for line in plain.splitlines())


def string(text: str) -> str:
    """A string literal; no sequence in it is a trigraph or an escape of C."""
    out: list[str] = []
    for byte in text.encode():
        char = chr(byte)
        if char in '"\\?':
            out.append(f"\\{char}")
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append(f"\\{byte:03o}")
    return f'"{"".join(out)}"'
