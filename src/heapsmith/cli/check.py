"""``heapsmith check``: promises, on any allocator."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from heapsmith.cli.check_statistics import check_statistics
from heapsmith.errors import CheckError


def check(
    *names: Annotated[str, Parameter(help="`stats`, and names of its checks; all of them if none is named.")],
    allocator: Annotated[
        list[str] | None, Parameter(help="On this allocator (repeat it for a table of several).", negative="")
    ] = None,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
) -> int:
    """Hold the statistics call against its promises, on any allocator.

    Example: heapsmith check stats peak limits --allocator glibc
    """
    if not names or names[0] != "stats":
        raise CheckError("there is nothing to check", hint="write `heapsmith check stats`")
    return check_statistics(names[1:], allocator or [], json=json)
