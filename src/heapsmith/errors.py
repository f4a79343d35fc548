"""The family of errors that a person may see, and the exit code of each.

Every error says *what* happened, *why*, and a *hint* what to do. They are caught once, in ``heapsmith.cli``.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class HeapsmithError(Exception):
    """What went wrong, why, and what to do about it.

    Args:
        what: One clause: what could not be done.
        why: The cause, in the words of the system or of the rule that was broken.
        hint: What the person can do now; may be empty.
        exit_code: The exit code of the command line, 2 (wrong usage or bad input) unless said otherwise.

    Example:
        >>> str(HeapsmithError("cannot read x.toml", "no such file", "check the path"))
        'cannot read x.toml: no such file (check the path)'
    """

    def __init__(self, what: str, why: str = "", hint: str = "", *, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.hint:
            text += f" ({self.hint})"
        return " ".join(text.split())


class SpecError(HeapsmithError):
    """A heap was described in a way that cannot work."""


class ForgeError(HeapsmithError):
    """A heap could not be compiled or its library is not usable."""


class RunError(HeapsmithError):
    """A program could not be started, watched or found."""


class TraceError(HeapsmithError):
    """A recording could not be written or read."""


class CheckError(HeapsmithError):
    """A check could not be carried out (a check that *failed* is a result, not an error)."""
