"""How a program ended, in words."""

from __future__ import annotations

import signal


def describe_code(code: int | None) -> str:
    """Say how a program ended.

    Example:
        >>> describe_code(3), describe_code(-11)
        ('exit code 3', 'signal 11 (SIGSEGV)')
    """
    if code is None:
        return "it did not end"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
