"""A hard limit on this process's heap: MemoryError where the kernel would kill."""

from __future__ import annotations

import resource
from types import TracebackType
from typing import Final, Self

import psutil

from heapsmith.errors import HeapsmithError
from heapsmith.here import calls
from heapsmith.here.report import mallinfo
from heapsmith.units import format_bytes, parse_bytes

AUTO: Final = "auto"
_AUTO_SHARE: Final = 0.75
"""Of what the tightest bound of the kernel allows; the share that .NET takes in a container."""


class Limit:
    """A limit in force; as a context manager it is taken back at the end.

    Args:
        limit_bytes: In force now; None where it was taken away.
        source: ``cap`` where heapsmith refuses allocations, ``rlimit_data`` where the kernel does for us.
    """

    def __init__(self, limit_bytes: int | None, source: str, before: int | tuple[int, int] | None) -> None:
        self.limit_bytes = limit_bytes
        self.source = source
        self._before = before

    def restore(self) -> None:
        """Set the limit that was in force before."""
        if self.source == "cap":
            calls.answering_library().hs_limit_set(self._before or 0, calls.LIMIT_FORCE)
        elif isinstance(self._before, tuple):
            resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()


def limit(limit_bytes: int | str | None, *, force: bool = False) -> Limit:
    """Limit what this process's heap may hold: beyond it allocations fail with MemoryError.

    Under ``heapsmith run`` live bytes are limited exactly. Without it the kernel's own limit on private memory
    (RLIMIT_DATA) is set so that about as much can be allocated.

    Args:
        limit_bytes: Bytes, a text such as ``"512MiB"``, ``"auto"`` for three quarters of what the tightest bound of the
            kernel (container, resource limits, machine) allows, or None for no limit.
        force: Also below what is live now: then every allocation fails until enough has been freed.

    Returns:
        The limit, in force; used in a ``with`` statement it ends there.

    Raises:
        HeapsmithError: The limit is below what is live, and not forced.

    Example:
        >>> with limit("1TiB"):
        ...     block = bytearray(1000)
    """
    info = mallinfo()
    wanted = _read(limit_bytes, info.limit_bytes)
    live_bytes = info.live_bytes or 0
    if wanted is not None and wanted < live_bytes and not force:
        raise HeapsmithError(
            f"the heap cannot be limited to {format_bytes(wanted)}",
            f"{format_bytes(live_bytes)} are live",
            "free some first, or say force=True: then nothing more can be allocated until then",
        )
    if info.mode == "asked":
        return _limit_by_kernel(wanted, live_bytes)
    before = info.limit_bytes if info.limit_source == "cap" else None
    result = calls.answering_library().hs_limit_set(wanted or 0, calls.LIMIT_FORCE)
    if result != calls.OK:
        raise HeapsmithError("the heap cannot be limited", f"hs_limit_set answered {result}")
    return Limit(wanted, "cap", before)


def _read(wanted: int | str | None, bound_bytes: int | None) -> int | None:
    if wanted == AUTO:
        return None if bound_bytes is None else int(bound_bytes * _AUTO_SHARE)
    if isinstance(wanted, str):
        wanted = parse_bytes(wanted)
    if wanted is not None and (isinstance(wanted, bool) or wanted <= 0):
        raise HeapsmithError(f"a limit of {wanted} bytes is none", hint="give bytes, or None to take it away")
    return wanted


def _limit_by_kernel(wanted: int | None, live_bytes: int) -> Limit:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    soft = resource.RLIM_INFINITY
    if wanted is not None:
        soft = _private_bytes() + max(0, wanted - live_bytes)
    hard = before[1]
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    return Limit(wanted, "rlimit_data", before)


def _private_bytes() -> int:
    """What RLIMIT_DATA counts of this process, plus its stack (which the kernel's short form adds)."""
    return int(psutil.Process().memory_info().data)
