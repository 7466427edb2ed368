"""Every error attngen raises on purpose: one class a mistake.

Each class has a stable `code`, is a subclass of the builtin a caller would expect (`ValueError`,
`TypeError`, ...), and renders as the message, the place in the user's source with a caret where one
is known, and a hint that says what to write instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from attngen.lang.loc import Loc


class AttngenError(Exception):
    """Base of every error raised on purpose; `str()` of it is ready to show to a user."""

    code: ClassVar[str] = "AG000"

    def __init__(self, message: str, *, loc: Loc | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.loc = loc
        self.hint = hint

    def __str__(self) -> str:
        parts = [f"[{self.code}] {self.message}"]
        if self.loc is not None:
            parts.append(f"  at {self.loc.header()}\n{self.loc.snippet()}")
        if self.hint:
            parts.append(f"  hint: {self.hint}")
        return "\n".join(parts)


# 1xx: the program's text


class ProgramSyntaxError(AttngenError, SyntaxError):
    """The text is not in the language: bad syntax, bad bytes, or a construct that is not allowed."""

    code = "AG101"


class UnknownNameError(AttngenError, NameError):
    """A name in the program is not declared."""

    code = "AG102"


class ProgramTypeError(AttngenError, TypeError):
    """An expression combines kinds that do not fit (a mask that is not boolean, a float index)."""

    code = "AG103"


class RankError(AttngenError, ValueError):
    """An Einsum reads or writes ranks that do not fit its tensors."""

    code = "AG104"


class ProgramNotFoundError(AttngenError, LookupError):
    """No program of that name in `ir/`, and no such file."""

    code = "AG105"


class LinkError(AttngenError, ValueError):
    """Mask, score and cascade cannot be put together (no score S to modify, a name taken twice)."""

    code = "AG106"


# 2xx: tracing Python


class TraceError(AttngenError, TypeError):
    """A Python predicate or score function does something that cannot be traced."""

    code = "AG201"


# 3xx: algebra


class DerivationError(AttngenError, ValueError):
    """The cascade has no one-pass form by the known rules, and no backend runs it in several passes."""

    code = "AG301"


class OutputError(AttngenError, ValueError):
    """An output was asked for that the cascade does not define, or that is not a row of it."""

    code = "AG302"


# 4xx: calls


class ShapeError(AttngenError, ValueError):
    """The shapes of the tensors of a call do not fit each other or the program."""

    code = "AG401"


class DTypeError(AttngenError, TypeError):
    """A tensor has a dtype that is not supported, or the dtypes of a call differ."""

    code = "AG402"


class DeviceError(AttngenError, ValueError):
    """The tensors of a call lie on different devices, or on one no backend serves."""

    code = "AG403"


class HeadCountError(AttngenError, ValueError):
    """Query heads are not a multiple of key/value heads, or grouped heads were not allowed."""

    code = "AG404"


class MissingTensorError(AttngenError, KeyError):
    """The program declares a tensor or parameter that the call did not give."""

    code = "AG405"


class UnexpectedArgumentError(AttngenError, TypeError):
    """The call gives a tensor or parameter that the program does not declare."""

    code = "AG406"


class ParameterError(AttngenError, ValueError):
    """A parameter's value is of the wrong kind or out of range."""

    code = "AG407"


class GradientError(AttngenError, NotImplementedError):
    """Gradients were asked for where no backward exists yet."""

    code = "AG408"


class InputFileError(AttngenError, ValueError):
    """A file of input tensors cannot be read as such."""

    code = "AG409"


# 5xx: backends and tools


class TargetError(AttngenError, ValueError):
    """A target name is unknown, or the backend cannot build for it."""

    code = "AG501"


class CompilerNotFoundError(AttngenError, FileNotFoundError):
    """No C++ compiler, or no Triton, where one is needed."""

    code = "AG502"


class CompileError(AttngenError, RuntimeError):
    """The compiler rejected a generated kernel; `log` holds its output and `path` the source."""

    code = "AG503"

    def __init__(
        self,
        message: str,
        *,
        log: str = "",
        path: str = "",
        loc: Loc | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, loc=loc, hint=hint)
        self.log = log
        self.path = path


class LoadError(AttngenError, RuntimeError):
    """A built kernel could not be loaded."""

    code = "AG504"


class LaunchError(AttngenError, RuntimeError):
    """A kernel could not be launched."""

    code = "AG505"


class UnsupportedError(AttngenError, NotImplementedError):
    """The program is legal but this backend cannot run it; the message says which part."""

    code = "AG506"


class ResourceError(LaunchError):
    """A kernel takes more of the device than there is: shared memory, registers or threads."""

    code = "AG507"


# 6xx: store


class CacheError(AttngenError, OSError):
    """The cache directory cannot be read or written."""

    code = "AG601"


class SettingsError(AttngenError, ValueError):
    """An environment variable of attngen has a value that cannot be used."""

    code = "AG602"


class TuningTableError(AttngenError, ValueError):
    """A table of pinned configurations cannot be read as one."""

    code = "AG603"


class ArtefactError(AttngenError, ValueError):
    """A directory is no artefact built ahead of time, or one that must not be trusted."""

    code = "AG604"


class NoVariantError(AttngenError, LookupError):
    """An artefact holds no kernel for a call; the message names the nearest that it holds."""

    code = "AG605"


# 9xx: ours


class InternalError(AttngenError, RuntimeError):
    """A broken invariant inside attngen: always our bug."""

    code = "AG901"


class UnkeyableError(InternalError, TypeError):
    """A cache key holds an object that has no canonical text, so no entry can be named after it."""

    code = "AG902"
